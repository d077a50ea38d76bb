"""FastAPI: the dependency that gives a route its tenant, and the handlers that answer errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from tenantry.context import use_context
from tenantry.errors import ConfigurationError, TenantryError
from tenantry.http.asgi import ASGIApp, Receive, Scope, Send, admitted, enclose, is_enclosed, view
from tenantry.http.identity import AnyResolver, Resolver, identified
from tenantry.http.naming import Naming, by_header, choose
from tenantry.http.problems import Refusal, answer
from tenantry.http.request import TrustedProxies
from tenantry.sdk import MultiTenantSDK, TenantHandle


class _HTTPRefusal(Refusal, HTTPException):
    """A refusal that is answered with its own status also where :func:`handle_errors` was not called."""

    def __init__(self, refusal: Refusal) -> None:
        Refusal.__init__(self, refusal.status, refusal.code, refusal.message, headers=refusal.headers)
        self.status_code = refusal.status
        self.detail = refusal.message


def current_tenant(
    sdk: MultiTenantSDK,
    identity: Callable[..., Any] | Resolver,
    *,
    named_by: Sequence[Naming] = (by_header(),),
    proxies: Sequence[str] = (),
) -> Callable[..., AsyncIterator[TenantHandle]]:
    """Return a dependency for HTTP and WebSocket routes that gives a handle of the caller's own tenant.

    Make it once: ``CurrentTenant = Annotated[TenantHandle, Depends(current_tenant(sdk, identity))]``. Until the
    request is over, response stream and background tasks included, its tenant is the ambient one too: ``sdk.data``
    works for it, and a handle of another tenant raises ``ContextMismatch``.

    Args:
        sdk: The SDK, open by the time of the first request.
        identity: A :class:`~tenantry.http.identity.Resolver`, or the application's own dependency. That returns an
            :class:`~tenantry.http.identity.Identity`, or ``None`` for nobody, which is answered with 401; it may as
            well raise its own ``HTTPException``.
        named_by: How a request names a tenant: to choose one where an identity has several. Without a choice, that
            of a single tenant is taken. A name outside the identity is answered with 403.
        proxies: The networks of the proxies whose ``X-Forwarded-Host`` is believed.

    Raises:
        ConfigurationError: A request came, and :func:`handle_errors` was never called.
    """
    trusted = TrustedProxies(proxies)
    asked = Depends(_dependency(identity, trusted) if isinstance(identity, Resolver) else identity)

    async def tenant(connection: HTTPConnection, who: Any = asked) -> AsyncIterator[TenantHandle]:
        if not is_enclosed(connection.scope):
            raise ConfigurationError(
                "Nothing ends the ambient tenant with its request.",
                field="app",
                fix="Call handle_errors(app) where the application is made.",
            )
        request = view(connection.scope, trusted)
        try:
            handle = await admitted(sdk, choose(who, named_by, request), who, request)
        except Refusal as refusal:
            raise _HTTPRefusal(refusal) from None
        with use_context(handle.context):
            yield handle

    return tenant


def _dependency(resolver: AnyResolver, trusted: TrustedProxies) -> Callable[..., Any]:
    async def identity(connection: HTTPConnection) -> Any:
        try:
            return await identified(resolver, view(connection.scope, trusted))
        except Refusal as refusal:
            raise _HTTPRefusal(refusal) from None

    return identity


class _Enclosed:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await enclose(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def handle_errors(app: FastAPI) -> None:
    """Answer with problem details wherever a route of ``app`` ends in an error of tenantry.

    It also sees to it that the ambient tenant of a request ends with it, whatever the server does with the connection.
    """
    handler: Any = (
        _answer  # for requests and for WebSockets; the signature asks for a handler of one kind only
    )
    app.add_exception_handler(TenantryError, handler)
    app.add_middleware(_Enclosed)


async def _answer(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, TenantryError)
    found = answer(error, connection.url.path)
    response = Response(found.body, found.status, dict(found.headers))
    if not isinstance(connection, WebSocket):
        return response
    accepted = connection.application_state is not WebSocketState.CONNECTING
    if not accepted and "websocket.http.response" in connection.scope.get("extensions", {}):
        return response
    if connection.application_state is not WebSocketState.DISCONNECTED:
        await connection.close(found.close_code)
    return None
