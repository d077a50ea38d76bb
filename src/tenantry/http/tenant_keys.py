"""Identities from the API keys that the SDK keeps for its tenants."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from tenantry.errors import CredentialRejected
from tenantry.http.api_keys import refused
from tenantry.http.identity import Identity, at_once, awaited
from tenantry.http.request import RequestView, header_name
from tenantry.tenants import KeyIdentity


class KeySource(Protocol):
    """What knows the keys: an SDK, or one of :mod:`tenantry.sync`."""

    def identify_api_key(self, text: str) -> KeyIdentity | Awaitable[KeyIdentity]:
        """Return whose key ``text`` is, or raise :class:`CredentialRejected`."""


class TenantKeyResolver:
    """Reads the identity from an API key that was made with ``acme.api_keys.create(…)``.

    The user is ``key:`` and the key's id; the claims hold ``key``, ``roles`` and ``scopes``.

    Args:
        sdk: The SDK; under WSGI, that of ``tenantry.sync``.
        header: The header that holds the key.
    """

    def __init__(self, sdk: KeySource, *, header: str = "X-API-Key") -> None:
        self._sdk = sdk
        self._header = header_name(header)

    async def identify(self, request: RequestView) -> Identity | None:
        """Return the identity of the key, or ``None`` if there is no key.

        Raises:
            Refusal: 401, the key is not accepted; why is not said.
        """
        text = request.headers.one(self._header)
        if text is None:
            return None
        try:
            return _identity(await awaited(self._sdk.identify_api_key(text)))
        except CredentialRejected:
            raise refused() from None

    def identify_sync(self, request: RequestView) -> Identity | None:
        """Do the same without an event loop."""
        text = request.headers.one(self._header)
        if text is None:
            return None
        try:
            return _identity(at_once(self._sdk.identify_api_key(text), "sdk"))
        except CredentialRejected:
            raise refused() from None


def _identity(found: KeyIdentity) -> Identity:
    return Identity(found.tenant_id, user=found.user, claims=found.claims)
