"""ASGI middleware: each request and WebSocket works as the one tenant for which its identity was verified."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from tenantry.context import use_context
from tenantry.errors import InvalidTenantId, TenantDeleted, TenantNotFound, TenantryError, TenantSuspended
from tenantry.http.identity import AnyResolver, Identity, identified
from tenantry.http.naming import Naming, by_header, choose, forbidden, suspended
from tenantry.http.paths import PublicPaths
from tenantry.http.problems import Problem, answer
from tenantry.http.request import Headers, RequestView, TrustedProxies
from tenantry.sdk import MultiTenantSDK, TenantHandle

logger = logging.getLogger("tenantry.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

STATE: Final = "tenant"
_ENCLOSED: Final = "tenantry.enclosed"


class TenantMiddleware:
    """Resolves the tenant of each request and WebSocket, and serves it as that tenant.

    While ``app`` serves the request, its stream and background tasks included, its tenant is the ambient one. Before
    and after, and in what calls this middleware, it is not. Starlette has the handle as ``request.state.tenant``.
    What cannot be served is answered with problem details; a WebSocket is then refused before it is accepted.

    Args:
        app: The application.
        sdk: The SDK, open by the time of the first request.
        identity: Who sent a request: a :class:`~tenantry.http.identity.Resolver`, or a function.
        named_by: How a request names a tenant: to choose one where an identity has several.
        public: Paths that are served without a tenant: ``/health`` is one, ``/static/`` all below it.
        proxies: The networks of the proxies whose ``X-Forwarded-Host`` is believed.
    """

    def __init__(
        self,
        app: ASGIApp,
        sdk: MultiTenantSDK,
        *,
        identity: AnyResolver,
        named_by: Sequence[Naming] = (by_header(),),
        public: Sequence[str] = (),
        proxies: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._sdk = sdk
        self._identity = identity
        self._named_by = tuple(named_by)
        self._public = PublicPaths(public)
        self._proxies = TrustedProxies(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        await enclose(self._serve, scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = view(scope, self._proxies)
        if request.path in self._public:
            await self._app(scope, receive, send)
            return
        try:
            handle = await self._admitted(request)
        except TenantryError as error:
            await refuse(scope, send, answer(error, request.path))
            return
        # A state of its own: that of the scope may be shared by a server that does not copy it.
        state = {**scope.get("state", {}), STATE: handle}
        with use_context(handle.context):
            await _answered(self._app, {**scope, "state": state}, receive, send)

    async def _admitted(self, request: RequestView) -> TenantHandle:
        who = await identified(self._identity, request)
        return await admitted(self._sdk, choose(who, self._named_by, request), who, request)


async def admitted(
    sdk: MultiTenantSDK, tenant: str, who: Identity | None, request: RequestView
) -> TenantHandle:
    """Return a handle of ``tenant``, which is one of ``who``, if the directory lets it be served.

    Raises:
        Refusal: 403, it is suspended, or there is no such tenant.
    """
    assert who is not None
    try:
        handle = sdk.tenant(tenant, user=who.user, claims=who.claims, request_id=request.request_id)
        async with handle:
            return handle
    except TenantSuspended:
        raise suspended() from None
    except (InvalidTenantId, TenantNotFound, TenantDeleted) as error:
        logger.warning("A verified identity names a tenant that cannot be served: %s", error.message)
        raise forbidden() from None


def view(scope: Scope, proxies: TrustedProxies | None = None) -> RequestView:
    """Return a request's view by its ASGI scope."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path.removeprefix(root)
    client = scope.get("client")
    return RequestView(
        method=scope.get("method", "GET"),
        scheme=scope.get("scheme", "http"),
        path=path or "/",
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ),
        client=client[0] if client else None,
        proxies=proxies or TrustedProxies(),
        native=scope,
    )


async def enclose(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run ``app`` so that no ambient tenant enters it, and none leaves it through ``receive`` and ``send``.

    What a server starts inside these two, the next request of a kept-alive connection among it, inherits the
    context of whoever calls them. What is enclosed already is left as it is.
    """
    if is_enclosed(scope):
        await app(scope, receive, send)
        return

    async def receive_outside() -> Message:
        with use_context(None):
            return await receive()

    async def send_outside(message: Message) -> None:
        with use_context(None):
            await send(message)

    with use_context(None):
        await app({**scope, _ENCLOSED: True}, receive_outside, send_outside)


def is_enclosed(scope: Scope) -> bool:
    """Whether :func:`enclose` is around."""
    return bool(scope.get(_ENCLOSED))


async def refuse(scope: Scope, send: Send, found: Problem) -> None:
    """Answer a request, or the handshake of a WebSocket, with a problem."""
    websocket = scope["type"] == "websocket"
    if websocket and "websocket.http.response" not in scope.get("extensions", {}):
        await _close(send, found)
        return
    kind = "websocket.http.response" if websocket else "http.response"
    headers = [
        (name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in found.headers.items()
    ]
    await send({"type": f"{kind}.start", "status": found.status, "headers": headers})
    body = b"" if scope.get("method") == "HEAD" else found.body
    await send({"type": f"{kind}.body", "body": body, "more_body": False})


async def _answered(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run ``app``, and answer with a problem where it ends in an error of tenantry that can still be answered."""
    last = ""

    async def watched(message: Message) -> None:
        nonlocal last
        last = message["type"]
        await send(message)

    try:
        await app(scope, receive, watched)
    except TenantryError as error:
        if not last:
            await refuse(scope, send, answer(error, scope["path"]))
        elif last in ("websocket.accept", "websocket.send"):
            await _close(send, answer(error, scope["path"]))
        else:
            raise


async def _close(send: Send, found: Problem) -> None:
    await send({"type": "websocket.close", "code": found.close_code, "reason": ""})


def lifespan(sdk: MultiTenantSDK) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return what opens ``sdk`` when an application starts and closes it when that ends.

    For FastAPI, Starlette and Litestar alike.
    """

    @asynccontextmanager
    async def opened(app: object) -> AsyncIterator[None]:
        async with sdk:
            yield

    return opened
