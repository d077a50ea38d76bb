"""A small application of two shops, for the tests of the HTTP edge."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.responses import StreamingResponse

from tenantry import Model, MultiTenantSDK, Record, TenantHandle, Unique, current_context
from tenantry.http import Identity, by_header, by_path, current_tenant, handle_errors, lifespan
from tests.http.serving import unhurried

TOKENS = {
    "anna": Identity("acme", user="anna", claims={"role": "owner"}),
    "greta": Identity("globex", user="greta"),
    "carl": Identity(["acme", "globex"], user="carl"),
    "nobody": Identity([], user="nobody"),
    "ghost": Identity("ghost", user="ghost"),
    "hostile": Identity("acme'; DROP TABLE products; --", user="hostile"),
}


class Product(Model):
    __collection__ = "products"

    name: str
    sku: Annotated[str, Unique]
    price: Decimal = Decimal(1)


async def identity(authorization: Annotated[str | None, Header()] = None) -> Identity | None:
    """Stand for an application's authentication: the token is the user's name, already checked."""
    if authorization == "expired":
        raise HTTPException(401, "Your session has expired.", {"WWW-Authenticate": "Session"})
    return TOKENS.get((authorization or "").removeprefix("Bearer "))


@dataclass
class Shop:
    """The application, and what its tests watch."""

    sdk: MultiTenantSDK
    app: FastAPI
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    background: list[tuple[str, int]] = field(default_factory=list)

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://shop.example", headers=headers)


def ambient() -> str | None:
    context = current_context()
    return None if context is None else context.tenant_id


@asynccontextmanager
async def opened_shop(url: str, **sections: Any) -> AsyncIterator[Shop]:
    """Open the application over a database; acme sells a laptop and an anvil, globex a laptop."""
    sdk = MultiTenantSDK.open(url, models=[Product], schema="create", env={}, **sections)
    shop = Shop(sdk, build(sdk))
    shop.app.state.shop = shop
    async with lifespan(sdk)(shop.app):
        unhurried(sdk)
        for tenant, skus in {"acme": ("L1", "ANVIL"), "globex": ("L1",)}.items():
            await sdk.tenants.create(tenant)
            for sku in skus:
                await sdk.tenant(tenant).data.create(Product(name=f"{tenant} {sku}", sku=sku))
        yield shop


def build(sdk: MultiTenantSDK) -> FastAPI:
    dependency = current_tenant(sdk, identity, named_by=[by_header(), by_path()])
    CurrentTenant = Annotated[TenantHandle, Depends(dependency)]  # noqa: N806 - it is a type
    app = FastAPI()
    handle_errors(app)

    @app.get("/products")
    @app.get("/t/{tenant}/products")
    async def products(handle: CurrentTenant, price: str | None = None) -> list[str]:
        where = None if price is None else {"price": {"lt": price}}
        return [row["name"] for row in await handle.data.read("products", where, order_by="name")]

    @app.get("/products/{id}")
    async def product(id: str, handle: CurrentTenant) -> Product:
        return await handle.data.get(Product, id)

    @app.post("/products", status_code=201)
    async def create(record: dict[str, Any], handle: CurrentTenant) -> Record:
        return await handle.data.create("products", record)

    @app.patch("/products/{id}")
    async def update(id: str, version: int, changes: dict[str, Any], handle: CurrentTenant) -> Product:
        return await handle.data.update(Product, id, changes, version=version)

    @app.get("/elsewhere/{other}")
    async def elsewhere(other: str, handle: CurrentTenant) -> list[Any]:
        return list(await sdk.tenant(other).data.read("products"))

    @app.get("/unbound")
    async def unbound() -> list[Any]:
        return list(await sdk.data.read("products"))

    @app.get("/whoami")
    async def whoami(handle: CurrentTenant) -> dict[str, Any]:
        context = handle.context
        return {
            "tenant": context.tenant_id,
            "user": context.user_id,
            "claims": dict(context.claims),
            "request": context.request_id,
        }

    @app.get("/thread")
    def thread(handle: CurrentTenant) -> str | None:
        return ambient()

    build_slow_routes(app, sdk, dependency)
    return app


def build_slow_routes(app: FastAPI, sdk: MultiTenantSDK, dependency: Callable[..., Any]) -> None:
    """Add the routes that outlive their function, or that a test holds at a gate."""
    CurrentTenant = Annotated[TenantHandle, Depends(dependency)]  # noqa: N806 - it is a type

    def shop() -> Shop:
        found: Shop = app.state.shop
        return found

    @app.get("/gate")
    async def gate(handle: CurrentTenant) -> list[Any]:
        shop().waiting.release()
        before = ambient()
        await shop().gate.wait()
        return [before, ambient(), [row["name"] for row in await sdk.data.read("products", order_by="name")]]

    @app.get("/stream")
    async def stream(handle: CurrentTenant) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield f"{ambient()}\n"
            shop().waiting.release()
            await shop().gate.wait()
            yield f"{ambient()}\n"
            for row in await sdk.data.read("products", order_by="name"):  # the ambient tenant's
                yield f"{row['name']}\n"
                await asyncio.sleep(0)

        return StreamingResponse(lines())

    @app.get("/background")
    async def background(handle: CurrentTenant, tasks: BackgroundTasks) -> str:
        async def count() -> None:
            shop().background.append((str(ambient()), await sdk.data.count("products")))

        tasks.add_task(count)
        return "later"

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, handle: CurrentTenant) -> None:
        await websocket.accept()
        async for price in websocket.iter_text():
            rows = await sdk.data.read("products", {"price": {"lt": price}}, order_by="name")
            await websocket.send_json([ambient(), [row["name"] for row in rows]])
