"""A Starlette application behind the middleware, whose routes tell which tenant they see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tenantry import MultiTenantSDK
from tenantry.http import Identity, RequestView, TenantMiddleware, by_header, by_host, by_path
from tests.http.shop import TOKENS, ambient

NAMES = {"acme": ["acme ANVIL", "acme L1"], "globex": ["globex L1"]}
TENANT_OF = {"anna": "acme", "greta": "globex"}


async def who(request: RequestView) -> Identity | None:
    """Stand for an application's authentication: the token is the user's name, already checked."""
    await asyncio.sleep(0)
    return TOKENS.get((request.headers.one("Authorization") or "").removeprefix("Bearer "))


@dataclass
class Stage:
    """The application, and what its tests watch."""

    sdk: MultiTenantSDK
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    after: list[tuple[str | None, int]] = field(default_factory=list)
    outside: list[str | None] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = {
            "identity": who,
            "named_by": [by_header(), by_host("shop.example"), by_path()],
            "public": ["/public", "/static/"],
            **self.options,
        }
        self.inner = Starlette(
            routes=[
                Route("/public", self.tell, methods=["GET", "POST"]),
                Route("/static/{path:path}", self.tell),
                Route("/tell", self.tell, methods=["GET", "POST"]),
                Route("/t/{tenant}/tell", self.tell),
                Route("/names", self.names),
                Route("/slow", self.slow),
                Route("/hold", self.hold),
                Route("/stream", self.stream),
                Route("/broken", self.broken),
                Route("/background", self.background),
                Route("/threads", self.threads),
                Route("/error", self.error),
                Route("/elsewhere", self.elsewhere),
                WebSocketRoute("/ws", self.ws),
            ],
            middleware=[Middleware(TenantMiddleware, self.sdk, **options)],
        )

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application, and watch what leaves it."""

        async def watched_send(message: Any) -> None:
            self.outside.append(ambient())
            await send(message)

        async def watched_receive() -> Any:
            self.outside.append(ambient())
            return await receive()

        self.outside.append(ambient())
        try:
            await self.inner(scope, watched_receive, watched_send)
        finally:
            self.outside.append(ambient())

    async def tell(self, request: Request) -> Response:
        await request.body()
        handle = getattr(request.state, "tenant", None)
        return JSONResponse([ambient(), None if handle is None else handle.context.tenant_id])

    async def names(self, request: Request) -> Response:
        rows = await self.sdk.data.read("products", order_by="name")
        return JSONResponse([ambient(), [row["name"] for row in rows]])

    async def slow(self, request: Request) -> Response:
        seen = {ambient()}
        for _ in range(3):
            await asyncio.sleep(random.random() / 50)
            seen.add(ambient())
            seen.update(row["name"].split()[0] for row in await self.sdk.data.read("products"))
        return JSONResponse(sorted(map(str, seen)))

    async def hold(self, request: Request) -> Response:
        self.waiting.release()
        await self.gate.wait()
        return PlainTextResponse(str(ambient()))

    async def stream(self, request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            for _ in range(int(request.query_params.get("lines", "3"))):
                yield f"{ambient()}\n"
                await asyncio.sleep(random.random() / 100)
            for row in await self.sdk.data.read("products", order_by="name"):
                yield f"{row['name']}\n"

        return StreamingResponse(lines())

    async def broken(self, request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            yield f"{ambient()}\n"
            raise KeyError("mid-stream")

        return StreamingResponse(lines())

    async def background(self, request: Request) -> Response:
        async def count() -> None:
            await asyncio.sleep(random.random() / 50)
            self.after.append((ambient(), await self.sdk.data.count("products")))

        return PlainTextResponse("later", background=BackgroundTask(count))

    async def threads(self, request: Request) -> Response:
        return JSONResponse([await run_in_threadpool(ambient), await asyncio.to_thread(ambient)])

    async def error(self, request: Request) -> Response:
        await self.sdk.data.read("nonsense")
        raise AssertionError

    async def elsewhere(self, request: Request) -> Response:
        await self.sdk.tenant(request.query_params["tenant"]).data.read("products")
        raise AssertionError

    async def ws(self, websocket: WebSocket) -> None:
        if "early" in websocket.query_params:
            await self.sdk.data.read("nonsense")
        await websocket.accept()
        async for price in websocket.iter_text():
            rows = await self.sdk.data.read("products", {"price": {"lt": price}}, order_by="name")
            await websocket.send_json([ambient(), [row["name"] for row in rows]])
