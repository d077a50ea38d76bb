"""Identities from headers that a gateway sets which has verified them."""

from __future__ import annotations

from collections.abc import Sequence

from tenantry.errors import ConfigurationError
from tenantry.http.identity import Identity
from tenantry.http.problems import Refusal
from tenantry.http.request import RequestView, TrustedProxies, header_name


class GatewayResolver:
    """Takes the identity from headers, of requests that come from the gateway's own addresses and of no others.

    The gateway must set the headers itself on every request, so that nothing of what its client sent is left. What
    counts is the address of the peer of the connection: a server that rewrites it from ``X-Forwarded-For`` (uvicorn
    does, unless it runs with ``--no-proxy-headers``) takes the meaning from it.

    Args:
        proxies: The gateway's networks, such as ``["10.0.3.0/24"]``.
        tenant: The header that holds the tenant's id.
        user: The header that holds the user's id.

    Raises:
        ConfigurationError: There is no network, or one is every address there is.
    """

    def __init__(
        self, *, proxies: Sequence[str], tenant: str = "X-Tenant-ID", user: str = "X-User-ID"
    ) -> None:
        if not proxies:
            raise ConfigurationError("No gateway is trusted.", field="proxies", fix="Name its networks.")
        self._proxies = TrustedProxies(proxies)
        self._tenant, self._user = header_name(tenant), header_name(user)

    async def identify(self, request: RequestView) -> Identity | None:
        """Return the identity that the gateway tells, or ``None`` if the request is not the gateway's."""
        return self.identify_sync(request)

    def identify_sync(self, request: RequestView) -> Identity | None:
        """Do the same without an event loop."""
        if request.client not in self._proxies:
            return None
        tenant = request.headers.one(self._tenant)
        if tenant is None:
            return None
        user = request.headers.one(self._user)
        if "," in tenant + (user or ""):
            # A server joins a header that came twice, and a twin spelled with underscores, by a comma.
            raise Refusal(400, "repeated-header", f"The header {self._tenant} may be sent once.")
        return Identity(tenant, user=user)
