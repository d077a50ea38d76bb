"""The plugin for Litestar."""

import asyncio
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from litestar import Litestar, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask
from litestar.response import Response, Stream

from tenantry import MultiTenantSDK, current_context
from tenantry.http.litestar import CurrentTenant, TenantPlugin
from tests.http.serving import ask, opened, request_bytes, unhurried, uvicorn_of
from tests.http.shop import Product, ambient
from tests.http.stage import NAMES, TENANT_OF, who


@dataclass
class Shop:
    app: Any
    sdk: MultiTenantSDK
    after: list[str | None]

    async def get(self, path: str, user: str | None = None, **headers: str) -> httpx.Response:
        if user is not None:
            headers["Authorization"] = f"Bearer {user}"
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            return await client.get(path, headers=headers)


def reading(sdk: MultiTenantSDK, after: list[str | None]) -> list[Any]:
    @get("/names")
    async def names(tenant: CurrentTenant) -> list[Any]:
        rows = await sdk.data.read(Product, order_by="name")
        return [ambient(), tenant.context.tenant_id, [row.name for row in rows]]

    @get("/thread", sync_to_thread=True)
    def thread(tenant: CurrentTenant) -> list[str | None]:
        return [ambient(), tenant.context.tenant_id]

    @get("/stream")
    async def stream(tenant: CurrentTenant) -> Stream:
        async def lines() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{ambient()}\n"
                await asyncio.sleep(0.001)

        return Stream(lines())

    @get("/background")
    async def background() -> Response[str]:
        async def later() -> None:
            await asyncio.sleep(0.001)
            after.append(ambient())

        return Response("later", background=BackgroundTask(later))

    @get("/missing")
    async def missing(tenant: CurrentTenant) -> None:
        await tenant.data.read("nonsense")

    return [names, thread, stream, background, missing]


def others(sdk: MultiTenantSDK) -> list[Any]:
    @get("/public")
    async def public() -> str:
        return str(ambient())

    @get("/public/tenant")
    async def misplaced(tenant: CurrentTenant) -> str:
        return str(tenant)

    @websocket("/ws")
    async def ws(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        while True:
            await socket.receive_text()
            await socket.send_json(
                [ambient(), [row.name for row in await sdk.data.read(Product, order_by="name")]]
            )

    return [public, misplaced, ws]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    sdk = MultiTenantSDK.open(f"sqlite:///{tmp_path}/shop.db", models=[Product], schema="create", env={})
    after: list[str | None] = []
    plugin = TenantPlugin(sdk, identity=who, public=["/public", "/public/"])
    app = Litestar([*reading(sdk, after), *others(sdk)], plugins=[plugin], logging_config=None)
    async with opened(app):
        unhurried(sdk)
        for tenant, listed in NAMES.items():
            await sdk.tenants.create(tenant)
            for name in listed:
                await sdk.tenant(tenant).data.create(Product(name=name, sku=name))
        yield Shop(app, sdk, after)
    assert current_context() is None


async def test_a_handler_receives_its_callers_tenant(shop: Shop) -> None:
    for user, tenant in TENANT_OF.items():
        assert (await shop.get("/names", user)).json() == [tenant, tenant, NAMES[tenant]]
        assert (await shop.get("/thread", user)).json() == [tenant, tenant]


@pytest.mark.parametrize(
    ("user", "headers", "status", "code"),
    [
        (None, {"X-Tenant-ID": "acme"}, 401, "unauthenticated"),
        ("anna", {"X-Tenant-ID": "globex"}, 403, "tenant-forbidden"),
        ("ghost", {}, 403, "tenant-forbidden"),
        ("carl", {}, 400, "tenant-unnamed"),
    ],
)
async def test_what_is_not_allowed_is_answered_with_a_problem(
    shop: Shop, user: str | None, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await shop.get("/names", user, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_errors_are_answered_with_a_problem(shop: Shop) -> None:
    answer = await shop.get("/missing", "anna")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-collection")
    assert answer.headers["Content-Type"] == "application/problem+json"
    await shop.sdk.tenants.suspend("acme", reason="unpaid")
    assert (await shop.get("/names", "anna")).json()["code"] == "tenant-suspended"


async def test_a_public_path_has_no_tenant(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    assert (await shop.get("/public", "anna")).text == "None"
    with caplog.at_level(logging.ERROR):
        answer = await shop.get("/public/tenant", "anna")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert "needs a tenant" in caplog.text


async def test_interleaved_requests_never_mix(shop: Shop) -> None:
    async def one(number: int, user: str) -> None:
        tenant = TENANT_OF[user]
        if number % 3 == 0:
            assert (await shop.get("/stream", user)).text == f"{tenant}\n" * 3
        elif number % 3 == 1:
            assert (await shop.get("/names", user)).json()[:2] == [tenant, tenant]
        else:
            assert (await shop.get("/background", user)).text == "later"

    await asyncio.gather(*(one(number, user) for number in range(60) for user in TENANT_OF))
    assert sorted(map(str, shop.after)) == ["acme"] * 20 + ["globex"] * 20


async def test_a_kept_alive_connection_carries_no_tenant_on(shop: Shop) -> None:
    requests = [
        request_bytes("/names", "Authorization: Bearer anna"),
        request_bytes("/public"),
        request_bytes("/names", "Authorization: Bearer greta"),
    ]
    async with uvicorn_of(shop.app) as port:
        found = await ask(port, *requests)
    assert found[1] == (200, b"None")
    assert json.loads(found[2][1])[0] == "globex"


async def test_a_socket_belongs_to_one_tenant(shop: Shop) -> None:
    async with uvicorn_of(shop.app) as port:
        for user, tenant in TENANT_OF.items():
            headers = {"Authorization": f"Bearer {user}"}
            async with websockets.connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers) as socket:
                await socket.send("")
                assert json.loads(await socket.recv()) == [tenant, NAMES[tenant]]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://127.0.0.1:{port}/ws")
    assert refused.value.response.status_code == 401


def test_without_litestar_the_error_says_what_to_install() -> None:
    code = textwrap.dedent("""
        import sys
        sys.modules["litestar"] = None
        import tenantry
        try:
            import tenantry.http.litestar
        except tenantry.TenantryError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "litestar is not installed. Install it with: pip install 'tenantry[litestar]'\n"
