"""A WebSocket belongs to one tenant from its handshake to its end."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from tests.http.shop import Shop

Message = MutableMapping[str, Any]


class Socket:
    """A client that speaks ASGI to the application, in the loop of the test."""

    def __init__(
        self, shop: Shop, token: str | None, *, tenant: str | None = None, denial: bool = False
    ) -> None:
        headers = [(b"host", b"shop.example")]
        headers += [(b"authorization", token.encode())] if token else []
        headers += [(b"x-tenant-id", tenant.encode())] if tenant else []
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "scheme": "ws",
            "path": "/ws",
            "raw_path": b"/ws",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        self._to_app.put_nowait({"type": "websocket.connect"})
        self.served = asyncio.create_task(shop.app(scope, self._to_app.get, self._from_app.put))

    async def next(self) -> Message:
        return await asyncio.wait_for(self._from_app.get(), 10)

    async def ask(self, price: str) -> Any:
        self._to_app.put_nowait({"type": "websocket.receive", "text": price})
        message = await self.next()
        return json.loads(message["text"]) if "text" in message else message

    async def leave(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.served


async def test_two_sockets_keep_their_tenants(shop: Shop) -> None:
    anna, greta = Socket(shop, "anna"), Socket(shop, "greta")
    for socket in (anna, greta):
        assert (await socket.next())["type"] == "websocket.accept"
    for _ in range(3):
        answers: list[Any] = list(await asyncio.gather(anna.ask("9"), greta.ask("9")))
        assert answers == [["acme", ["acme ANVIL", "acme L1"]], ["globex", ["globex L1"]]]
    await asyncio.gather(anna.leave(), greta.leave())


@pytest.mark.parametrize(
    ("token", "tenant", "status"), [(None, None, 401), ("anna", "globex", 403), ("ghost", None, 403)]
)
async def test_a_handshake_without_a_right_to_the_tenant_is_refused(
    shop: Shop, token: str | None, tenant: str | None, status: int
) -> None:
    plain = Socket(shop, token, tenant=tenant)
    assert await plain.next() == {"type": "websocket.close", "code": 1008, "reason": ""}
    explained = Socket(shop, token, tenant=tenant, denial=True)
    message = await explained.next()
    assert (message["type"], message["status"]) == ("websocket.http.response.start", status)
    await asyncio.gather(plain.served, explained.served)


async def test_an_error_closes_the_socket(shop: Shop) -> None:
    anna, greta = Socket(shop, "anna"), Socket(shop, "greta")
    await asyncio.gather(anna.next(), greta.next())
    assert await anna.ask("cheap") == {"type": "websocket.close", "code": 1008, "reason": ""}
    assert await greta.ask("9") == ["globex", ["globex L1"]]
    await shop.sdk.close()
    assert (await greta.ask("9"))["code"] == 1013
    await asyncio.gather(anna.served, greta.served)


async def test_a_socket_is_cut_when_its_tenant_is_suspended(shop: Shop) -> None:
    anna = Socket(shop, "anna")
    await anna.next()
    assert await anna.ask("9") == ["acme", ["acme ANVIL", "acme L1"]]
    await shop.sdk.tenants.suspend("acme", reason="unpaid")
    assert (await anna.ask("9"))["code"] == 1008
    await anna.served
