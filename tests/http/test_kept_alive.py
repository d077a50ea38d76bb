"""On one kept-alive connection, nothing of a request's tenant reaches the next one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI

from tenantry import use_context
from tests.http.serving import answers, ask, request_bytes, uvicorn_of
from tests.http.shop import Shop, ambient
from tests.http.stage import Stage

ANNA, GRETA = "Authorization: Bearer anna", "Authorization: Bearer greta"
LARGE = b"x" * 1_000_000  # beyond what a server reads before it pauses the transport


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_pipelined_requests_keep_to_themselves(shop: Shop, http: str) -> None:
    # The server starts the next request inside of the last send() of the one before.
    requests = [
        request_bytes("/tell", ANNA),
        request_bytes("/public"),
        request_bytes("/names", GRETA),
        request_bytes("/public"),
        request_bytes("/names", ANNA),
        request_bytes("/names"),
    ]
    stage = Stage(shop.sdk)
    async with uvicorn_of(stage.app, http) as port:
        found = await ask(port, *requests)
    assert set(stage.outside) == {None}
    bodies = [json.loads(body) for _, body in found]
    assert bodies[0] == ["acme", "acme"]
    assert bodies[1] == bodies[3] == [None, None]
    assert bodies[2] == ["globex", ["globex L1"]]
    assert bodies[4] == ["acme", ["acme ANVIL", "acme L1"]]
    assert found[5][0] == 401


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_paused_transport_carries_no_tenant_on(shop: Shop, http: str) -> None:
    # receive() resumes the transport, whose call-backs from then on run in the context of whoever resumed it.
    stage = Stage(shop.sdk)
    async with uvicorn_of(stage.app, http) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        for request in (
            request_bytes("/tell", ANNA, method="POST", body=LARGE),
            request_bytes("/public"),
            request_bytes("/names", GRETA),
            request_bytes("/public", method="POST", body=LARGE),
        ):
            writer.write(request)
            found += [json.loads(body) for _, body in await answers(reader, 1)]
        writer.close()
        await writer.wait_closed()
    assert found == [["acme", "acme"], [None, None], ["globex", ["globex L1"]], [None, None]]
    assert set(stage.outside) == {None}


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_the_dependency_of_fastapi_keeps_to_its_request_too(shop: Shop, http: str) -> None:
    app: FastAPI = shop.app

    @app.get("/bare")
    async def bare() -> str | None:
        return ambient()

    requests = [
        request_bytes("/thread", ANNA),
        request_bytes("/bare"),
        request_bytes("/products", GRETA),
        request_bytes("/unbound"),
    ]
    async with uvicorn_of(app, http) as port:
        found = [(status, json.loads(body)) for status, body in await ask(port, *requests)]
    assert found[:3] == [(200, "acme"), (200, None), (200, ["globex L1"])]
    assert (found[3][0], found[3][1]["code"]) == (500, "internal-error")


async def test_an_inherited_tenant_does_not_enter_a_request(shop: Shop) -> None:
    # As a server does that was itself started for a tenant.
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/public",
        "headers": [],
        "query_string": b"",
        "root_path": "",
    }
    with use_context(shop.sdk.tenant("acme").context):
        await Stage(shop.sdk).inner(scope, receive, send)
    assert json.loads(messages[1]["body"]) == [None, None]
