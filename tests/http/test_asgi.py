"""The middleware for ASGI: each request is one tenant's from its first line to its last, and nobody's afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import websockets
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from tenantry import current_context
from tenantry.errors import ConfigurationError, DirectoryUnavailable
from tenantry.http import Identity, RequestView, TenantMiddleware
from tests.http.serving import uvicorn_of
from tests.http.shop import Shop, ambient
from tests.http.stage import NAMES, TENANT_OF, Stage, who

CONCURRENT = 300


@pytest.fixture
async def stage(shop: Shop) -> AsyncIterator[Stage]:
    """Give the application; whatever a test did, its outside never saw a tenant."""
    stage = Stage(shop.sdk)
    yield stage
    assert set(stage.outside) <= {None}
    assert current_context() is None


def client(stage: Stage, token: str | None = None, **headers: str) -> httpx.AsyncClient:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    # The transport runs the application in the task of the test, so that what it left behind would be seen there.
    transport = httpx.ASGITransport(stage.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://shop.example", headers=headers)


async def get(stage: Stage, path: str, token: str | None = None, **headers: str) -> httpx.Response:
    async with client(stage, token, **headers) as asking:
        return await asking.get(path)


@pytest.mark.parametrize(("token", "tenant"), TENANT_OF.items())
async def test_a_request_works_as_its_tenant(stage: Stage, token: str, tenant: str) -> None:
    assert (await get(stage, "/names", token)).json() == [tenant, NAMES[tenant]]
    assert (await get(stage, "/tell", token)).json() == [tenant, tenant]
    assert (await get(stage, "/threads", token)).json() == [tenant, tenant]


# -- refusals


@pytest.mark.parametrize(
    ("token", "headers", "status", "code"),
    [
        (None, {}, 401, "unauthenticated"),
        (None, {"X-Tenant-ID": "acme"}, 401, "unauthenticated"),
        ("anna", {"X-Tenant-ID": "globex"}, 403, "tenant-forbidden"),
        ("anna", {"X-Tenant-ID": "acme, globex"}, 403, "tenant-forbidden"),
        ("anna", {"Host": "globex.shop.example"}, 403, "tenant-forbidden"),
        ("anna", {"Host": "acme.shop.example\x00"}, 400, "invalid-host"),
        ("nobody", {}, 403, "tenant-forbidden"),
        ("ghost", {}, 403, "tenant-forbidden"),
        ("hostile", {}, 403, "tenant-forbidden"),
        ("carl", {}, 400, "tenant-unnamed"),
        ("carl", {"X-Tenant-ID": "acme", "Host": "globex.shop.example"}, 400, "tenant-unnamed"),
    ],
)
async def test_what_is_not_allowed_is_answered_with_a_problem(
    stage: Stage, token: str | None, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await get(stage, "/names", token, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Content-Length"]) == len(answer.content)


async def test_a_tenant_that_exists_is_refused_like_one_that_does_not(stage: Stage) -> None:
    answers = [
        await get(stage, "/names", "anna", **{"X-Tenant-ID": "globex"}),
        await get(stage, "/names", "anna", **{"X-Tenant-ID": "no-such-tenant"}),
        await get(stage, "/names", "ghost"),
    ]
    assert len({(answer.status_code, answer.content, str(answer.headers)) for answer in answers}) == 1


async def test_a_suspended_tenant_is_refused(stage: Stage) -> None:
    await stage.sdk.tenants.suspend("acme", reason="unpaid")
    answer = await get(stage, "/names", "anna")
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant-suspended")
    assert (await get(stage, "/names", "greta")).status_code == 200
    await stage.sdk.tenants.delete("acme", reason="left")
    assert (await get(stage, "/names", "anna")).json()["code"] == "tenant-forbidden"


async def test_a_head_request_is_refused_without_a_body(stage: Stage) -> None:
    async with client(stage) as asking:
        answer = await asking.head("/names")
    assert (answer.status_code, answer.content) == (401, b"")


async def test_without_a_directory_nobody_is_served(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = stage.sdk._lease
    assert lease is not None

    async def away(tenant: str) -> None:
        raise DirectoryUnavailable("postgresql://app@db.internal is away")

    monkeypatch.setattr(lease, "admit", away)
    answer = await get(stage, "/tell", "anna")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "db.internal" not in answer.text


async def test_errors_of_the_application_are_answered_too(stage: Stage) -> None:
    answer = await get(stage, "/error", "anna")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-collection")
    answer = await get(stage, "/elsewhere?tenant=globex", "anna")
    assert (answer.status_code, answer.json()["code"]) == (403, "context-mismatch")


# -- public paths


@pytest.mark.parametrize("path", ["/public", "/static/logo.svg", "/static/"])
async def test_a_public_path_has_no_tenant(stage: Stage, path: str) -> None:
    for token in (None, "anna", "made-up"):
        assert (await get(stage, path, token)).json() == [None, None]


@pytest.mark.parametrize(
    "path",
    [
        "/public/",
        "/publicly",
        "//public",
        "/PUBLIC",
        "/static",
        "/x/../public",
        "/./public",
        "/public\x00",
        "/%2fpublic",
        "/public/../names",
        "",
    ],
)
async def test_what_only_looks_public_is_not(stage: Stage, path: str) -> None:
    sent = await connect(stage, path, kind="http")  # as it is: clients resolve dots by themselves
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("path", ["/static/../names", "/static//names", "/static/..", "/static/%2e%2e/names"])
async def test_below_a_public_prefix_there_is_no_tenant(stage: Stage, path: str) -> None:
    sent = await connect(stage, path, kind="http", token="anna")
    assert json.loads(sent[1]["body"]) == [None, None]


async def test_the_root_of_the_application_is_no_part_of_the_path(stage: Stage) -> None:
    sent = await connect(stage, "/api/public", kind="http", root_path="/api")
    assert json.loads(sent[1]["body"]) == [None, None]
    sent = await connect(stage, "/apipublic", kind="http", root_path="/api")
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("public", ["/health", ["health"], [""], ["/static/*"]])
def test_public_paths_are_checked(shop: Shop, public: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TenantMiddleware(shop.app, shop.sdk, identity=lambda request: None, public=public)
    assert refused.value.field == "public"


async def test_the_start_page_alone_may_be_public(shop: Shop) -> None:
    stage = Stage(shop.sdk, options={"public": ["/"]})
    assert (await get(stage, "/")).status_code == 404
    assert (await get(stage, "/names")).status_code == 401


# -- the ambient tenant under load


async def test_hundreds_of_interleaved_requests_never_mix(stage: Stage) -> None:
    async def one(number: int) -> None:
        token = random.choice(list(TENANT_OF))
        tenant = TENANT_OF[token]
        kind = number % 5
        if kind == 0:
            assert (await get(stage, "/slow", token)).json() == [tenant]
        elif kind == 1:
            lines = (await get(stage, "/stream", token)).text.splitlines()
            assert lines == [*[tenant] * 3, *NAMES[tenant]]
        elif kind == 2:
            assert (await get(stage, "/threads", token)).json() == [tenant] * 2
        elif kind == 3:
            assert (await get(stage, "/background", token)).text == "later"
        else:
            assert (await get(stage, "/public")).json() == [None, None]

    await asyncio.gather(*(one(number) for number in range(CONCURRENT)))
    counts = {"acme": 2, "globex": 1}
    assert set(stage.after) == set(counts.items())
    assert len(stage.after) == CONCURRENT // 5


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_slow_readers_and_those_who_leave_disturb_nobody(stage: Stage, http: str) -> None:
    async with (
        uvicorn_of(stage.app, http) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as asking,
    ):

        async def one(number: int) -> None:
            token = random.choice(list(TENANT_OF))
            headers = {"Authorization": f"Bearer {token}"}
            async with asking.stream("GET", "/stream?lines=6", headers=headers, timeout=60) as answer:
                async for line in answer.aiter_lines():
                    assert line.split()[0] == TENANT_OF[token]
                    await asyncio.sleep(random.random() / 50)
                    if number % 3 == 0:
                        return  # and the connection is cut in the middle of the stream

        await asyncio.gather(*(one(number) for number in range(60)))
        leaves = {f"Bearer {token}": tenant for token, tenant in TENANT_OF.items()}
        for token, tenant in leaves.items():
            answer = await asking.get("/names", headers={"Authorization": token})
            assert answer.json() == [tenant, NAMES[tenant]]


async def test_an_error_in_the_middle_of_a_stream_leaves_nothing(stage: Stage) -> None:
    async def one(token: str) -> None:
        answer = await get(stage, "/broken", token)
        assert answer.text == f"{TENANT_OF[token]}\n"
        assert current_context() is None

    await asyncio.gather(*(one(token) for token in [*TENANT_OF] * 20))


async def test_cancelled_requests_leave_nothing(stage: Stage) -> None:
    requests = [asyncio.create_task(get(stage, "/hold", token)) for token in [*TENANT_OF] * 20]
    for _ in requests:
        await stage.waiting.acquire()
    for request in requests[::2]:
        request.cancel()
    stage.gate.set()
    found = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in found[::2])
    assert [answer.text for answer in found[1::2] if isinstance(answer, httpx.Response)] == ["globex"] * 20


# -- who asks


async def test_a_resolver_may_be_a_plain_function(shop: Shop) -> None:
    stage = Stage(shop.sdk, options={"identity": lambda request: Identity("globex")})
    assert (await get(stage, "/tell")).json() == ["globex", "globex"]


async def test_a_resolver_that_fails_lets_nobody_in(shop: Shop) -> None:
    def broken(request: RequestView) -> Identity | None:
        raise LookupError("the session store")

    answer = await get(Stage(shop.sdk, options={"identity": broken}), "/tell")
    assert answer.status_code == 500
    assert "session store" not in answer.text


async def test_an_identity_of_another_kind_lets_nobody_in(shop: Shop) -> None:
    stage = Stage(shop.sdk, options={"identity": lambda request: {"tenants": ["acme"]}})
    assert (await get(stage, "/tell")).status_code == 500


# -- beside others


async def test_it_works_inside_and_outside_of_middleware_with_tasks_of_its_own(shop: Shop) -> None:
    seen: list[str | None] = []

    async def watching(request: Request, call_next: Any) -> Response:
        seen.append(ambient())
        answer: Response = await call_next(request)
        seen.append(ambient())
        return answer

    stage = Stage(shop.sdk)
    stage.inner.add_middleware(BaseHTTPMiddleware, dispatch=watching)
    for token, tenant in TENANT_OF.items():
        lines = (await get(stage, "/stream", token)).text.splitlines()
        assert lines == [*[tenant] * 3, *NAMES[tenant]]
    assert set(seen) == {None}

    inner = Stage(shop.sdk)
    inner.inner.user_middleware.append(Middleware(BaseHTTPMiddleware, dispatch=watching))
    seen.clear()
    for token, tenant in TENANT_OF.items():
        lines = (await get(inner, "/stream", token)).text.splitlines()
        assert lines == [*[tenant] * 3, *NAMES[tenant]]
    assert seen == ["acme", "acme", "globex", "globex"]


async def test_it_works_beside_the_dependency_of_fastapi(shop: Shop) -> None:
    app = shop.app

    @app.get("/both")
    async def both(request: Request) -> list[str | None]:
        return [ambient(), request.state.tenant.context.tenant_id]

    app.add_middleware(TenantMiddleware, sdk=shop.sdk, identity=who)
    async with shop.client("anna") as asking:
        assert (await asking.get("/both")).json() == ["acme", "acme"]
        assert (await asking.get("/products")).json() == NAMES["acme"]
    async with shop.client("carl", **{"X-Tenant-ID": "globex"}) as asking:
        assert (await asking.get("/products")).json() == NAMES["globex"]
        # the path chooses acme for the dependency, the header globex for the middleware
        assert (await asking.get("/t/acme/products")).status_code in (400, 403)


DJANGO = """
import asyncio, sys

from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50, DEBUG=False)

import httpx
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from tenantry import MultiTenantSDK, current_context
from tenantry.http import Identity, TenantMiddleware

def ambient():
    context = current_context()
    return "None" if context is None else context.tenant_id

def sync_view(request):
    return HttpResponse(ambient())

async def async_view(request):
    return HttpResponse(ambient())

async def stream(request):
    async def lines():
        for _ in range(3):
            yield ambient()
            await asyncio.sleep(0.001)
    return StreamingHttpResponse(lines())

urlpatterns = [path("sync", sync_view), path("async", async_view), path("stream", stream)]

async def main():
    async with MultiTenantSDK.open("memory://", env={}) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenants.create("globex")
        resolver = lambda request: Identity(request.headers.all("X-Org"))
        app = TenantMiddleware(get_asgi_application(), sdk, identity=resolver)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            async def get(where, tenant):
                return (await client.get(where, headers={"X-Org": tenant})).text
            asked = [(where, tenant) for where in ("/sync", "/async", "/stream") for tenant in ("acme", "globex")] * 5
            found = await asyncio.gather(*(get(*one) for one in asked))
            for (where, tenant), text in zip(asked, found):
                assert text == tenant * (3 if where == "/stream" else 1), (where, tenant, text)
            print(len(found), ambient(), (await client.get("/sync")).status_code)

asyncio.run(main())
"""


def test_django_works_as_it_is() -> None:
    # In a process of its own: Django is configured once and for all.
    done = subprocess.run([sys.executable, "-c", DJANGO], capture_output=True, text=True, check=False)
    assert done.stdout == "30 None 403\n", done.stderr


# -- WebSockets


async def test_a_socket_belongs_to_one_tenant(stage: Stage) -> None:
    async with uvicorn_of(stage.app) as port:

        async def one(token: str) -> None:
            headers = {"Authorization": f"Bearer {token}"}
            async with websockets.connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers) as socket:
                for _ in range(5):
                    await asyncio.sleep(random.random() / 50)
                    await socket.send("9")
                    assert json.loads(await socket.recv()) == [TENANT_OF[token], NAMES[TENANT_OF[token]]]

        await asyncio.gather(*(one(token) for token in [*TENANT_OF] * 10))


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [(None, {}, 401), ("anna", {"X-Tenant-ID": "globex"}, 403), ("ghost", {}, 403)],
)
async def test_a_handshake_is_refused_before_it_is_accepted(
    stage: Stage, token: str | None, headers: dict[str, str], status: int
) -> None:
    if token is not None:
        headers = {**headers, "Authorization": f"Bearer {token}"}
    async with uvicorn_of(stage.app) as port:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers)
    answer = refused.value.response
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert json.loads(answer.body or b"")["status"] == status


async def test_a_server_that_cannot_deny_closes_with_1008(stage: Stage) -> None:
    sent = await connect(stage, "/ws")
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


async def test_an_error_before_the_handshake_is_a_denial(stage: Stage) -> None:
    extensions = {"websocket.http.response": dict[str, Any]()}
    sent = await connect(stage, "/ws", query_string=b"early", token="anna", extensions=extensions)
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert sent[0]["status"] == 404


async def test_a_socket_is_closed_when_its_tenant_is_suspended(stage: Stage) -> None:
    async with uvicorn_of(stage.app) as port:
        headers = {"Authorization": "Bearer anna"}
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers) as socket:
            await socket.send("9")
            await socket.recv()
            await stage.sdk.tenants.suspend("acme", reason="unpaid")
            await socket.send("9")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


async def connect(
    stage: Stage, path: str, *, kind: str = "websocket", token: str | None = None, **scope: Any
) -> list[Any]:
    headers = [(b"host", b"shop.example")]
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        **scope,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await stage.app(scope, receive, send)
    return sent


async def test_a_state_that_a_server_shares_keeps_no_tenant(stage: Stage) -> None:
    shared: dict[str, Any] = {"pool": 1}
    sent = await connect(stage, "/tell", kind="http", token="anna", state=shared)
    assert json.loads(sent[1]["body"]) == ["acme", "acme"]
    assert shared == {"pool": 1}


async def test_other_scopes_pass_through(shop: Shop) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*message: Any) -> Any:
        return None

    middleware = TenantMiddleware(app, shop.sdk, identity=lambda request: None)
    await middleware({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
