"""The dependency that gives a route its tenant."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from tenantry.context import use_context
from tenantry.errors import InvalidTenantId, TenantDeleted, TenantNotFound, TenantSuspended
from tenantry.http.problems import Refusal
from tenantry.http.resolve import Identity, Naming, by_header, forbidden, settle
from tenantry.sdk import MultiTenantSDK, TenantHandle

logger = logging.getLogger("tenantry.http")

_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def current_tenant(
    sdk: MultiTenantSDK,
    identity: Callable[..., Any],
    *,
    named_by: Sequence[Naming] = (by_header(),),
) -> Callable[..., AsyncIterator[TenantHandle]]:
    """Return a dependency for HTTP and WebSocket routes that gives a handle of the caller's own tenant.

    Make it once: ``CurrentTenant = Annotated[TenantHandle, Depends(current_tenant(sdk, identity))]``. Until the
    request is over, response stream and background tasks included, its tenant is the ambient one too: ``sdk.data``
    works for it, and a handle of another tenant raises ``ContextMismatch``.

    Args:
        sdk: The SDK, open by the time of the first request.
        identity: The application's own dependency. It returns an :class:`~tenantry.http.resolve.Identity`, or
            ``None`` for nobody, which is answered with 401; it may as well raise its own ``HTTPException``.
        named_by: How a request names a tenant: to choose one where an identity has several. Without a choice, that
            of a single tenant is taken. A name outside the identity is answered with 403.
    """
    asked = Depends(identity)

    async def tenant(connection: HTTPConnection, who: Any = asked) -> AsyncIterator[TenantHandle]:
        chosen = settle(who, (name for naming in named_by for name in naming(connection)))
        handle = await _admitted(sdk, chosen, who, connection)
        with use_context(handle.context):
            yield handle

    return tenant


async def _admitted(
    sdk: MultiTenantSDK, tenant: str, who: Identity, connection: HTTPConnection
) -> TenantHandle:
    given = connection.headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else None
    try:
        handle = sdk.tenant(tenant, user=who.user, claims=who.claims, request_id=request_id)
        async with handle:
            return handle
    except TenantSuspended:
        raise Refusal(403, "tenant-suspended", "This tenant is suspended.") from None
    except (InvalidTenantId, TenantNotFound, TenantDeleted) as error:
        logger.warning("A verified identity names a tenant that cannot be served: %s", error.message)
        raise forbidden() from None


def lifespan(sdk: MultiTenantSDK) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return what opens ``sdk`` when the application starts and closes it when that ends."""

    @asynccontextmanager
    async def opened(app: object) -> AsyncIterator[None]:
        async with sdk:
            yield

    return opened
