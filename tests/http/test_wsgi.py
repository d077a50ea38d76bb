"""The middleware for WSGI: one thread, one request, one tenant, and nothing of it in the thread afterwards."""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from flask import Flask, Response, stream_with_context

from tenantry import TenantryError, current_context
from tenantry.errors import (
    ConfigurationError,
    DirectoryUnavailable,
    NotFound,
    TenantNotFound,
    TenantSuspended,
)
from tenantry.http import GatewayResolver, Identity, RequestView, by_header, by_host, by_path, problem
from tenantry.http.wsgi import CONTEXT, TenantMiddleware, view
from tests.http.serving import ask, request_bytes, wsgi_server_of
from tests.http.shop import TOKENS, ambient
from tests.http.stage import TENANT_OF
from tests.http.tokens import bearing, resolver, token

KNOWN = frozenset({"acme", "globex", "frozen"})
LOADED = """
import sys
import tenantry.http.wsgi
print(*sorted({"fastapi", "starlette", "httpx", "joserfc", "litestar", "flask", "django"} & set(sys.modules)))
"""


def who(request: RequestView) -> Identity | None:
    return TOKENS.get((request.headers.one("Authorization") or "").removeprefix("Bearer "))


def admit(tenant: str) -> None:
    if tenant == "frozen":
        raise TenantSuspended("Tenant 'frozen' is suspended.", tenant_id=tenant)
    if tenant not in KNOWN:
        raise TenantNotFound(f"There is no tenant {tenant!r}.", tenant_id=tenant)


def wrapped(app: Any, **options: Any) -> TenantMiddleware:
    chosen: dict[str, Any] = {
        "admit": admit,
        "identity": who,
        "named_by": [by_header(), by_host("shop.example"), by_path()],
        "public": ["/public"],
        **options,
    }
    return TenantMiddleware(app, **chosen)


def tell(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    context = environ.get(CONTEXT)
    body = json.dumps([ambient(), None if context is None else context.tenant_id]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


Answer = tuple[int, dict[str, str], bytes]


def call(app: Any, path: str = "/", authorization: str | None = None, **more: Any) -> Answer:
    """Serve one request in this thread, as PEP 3333 wants it, and check that nothing is left in the thread."""
    environ: dict[str, Any] = {
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(),
    }
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {authorization}"
    environ |= more
    setup_testing_defaults(environ)
    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        assert current_context() is None  # the server is no part of the request
        started.append((status, headers))
        return lambda data: None

    body = validator(app)(environ, start_response)
    assert current_context() is None
    parts = []
    try:
        for part in body:
            assert current_context() is None
            parts.append(part)
    finally:
        getattr(body, "close", lambda: None)()
        assert current_context() is None
    status, headers = started[-1]
    return int(status.split()[0]), dict(headers), b"".join(parts)


def told(app: Any, path: str = "/", authorization: str | None = None, **more: Any) -> Any:
    status, _, body = call(app, path, authorization, **more)
    return json.loads(body) if status == 200 else (status, json.loads(body)["code"])


# -- the tenant of a request


@pytest.mark.parametrize(("user", "tenant"), TENANT_OF.items())
def test_a_request_works_as_its_tenant(user: str, tenant: str) -> None:
    assert told(wrapped(tell), authorization=user) == [tenant, tenant]


@pytest.mark.parametrize(
    ("user", "more", "answer"),
    [
        (None, {}, (401, "unauthenticated")),
        (None, {"HTTP_X_TENANT_ID": "acme"}, (401, "unauthenticated")),
        ("anna", {"HTTP_X_TENANT_ID": "globex"}, (403, "tenant-forbidden")),
        ("anna", {"HTTP_X_TENANT_ID": "acme,globex"}, (403, "tenant-forbidden")),
        ("anna", {"HTTP_X_TENANT_ID": ""}, (403, "tenant-forbidden")),
        ("anna", {"HTTP_HOST": "globex.shop.example"}, (403, "tenant-forbidden")),
        ("anna", {"HTTP_HOST": "a.example,b.example"}, (400, "invalid-host")),
        ("nobody", {}, (403, "tenant-forbidden")),
        ("ghost", {}, (403, "tenant-forbidden")),
        ("hostile", {}, (403, "tenant-forbidden")),
        ("carl", {}, (400, "tenant-unnamed")),
        ("carl", {"HTTP_X_TENANT_ID": "acme", "HTTP_HOST": "globex.shop.example"}, (400, "tenant-unnamed")),
        ("carl", {"HTTP_HOST": "globex.shop.example"}, ["globex", "globex"]),
        ("carl", {"PATH_INFO": "/t/acme/x"}, ["acme", "acme"]),
    ],
)
def test_who_asks_decides_and_the_request_only_chooses(
    user: str | None, more: dict[str, str], answer: Any
) -> None:
    assert told(wrapped(tell), authorization=user, **more) == answer


def test_a_suspended_tenant_is_refused_and_a_directory_that_is_away_too() -> None:
    frozen = wrapped(tell, identity=lambda request: Identity("frozen"))
    assert told(frozen) == (403, "tenant-suspended")

    def away(tenant: str) -> None:
        raise DirectoryUnavailable("postgresql://app@db.internal is away")

    status, headers, body = call(wrapped(tell, admit=away), authorization="anna")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert b"internal" not in body


def test_a_problem_is_a_whole_answer() -> None:
    status, headers, body = call(wrapped(tell))
    assert status == 401
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["WWW-Authenticate"] == "Bearer"
    assert int(headers["Content-Length"]) == len(body)
    assert call(wrapped(tell), REQUEST_METHOD="HEAD")[2] == b""


def test_a_public_path_has_no_tenant_whoever_asks() -> None:
    assert told(wrapped(tell), "/public", "anna") == [None, None]
    assert told(wrapped(tell), "/public", **{CONTEXT: "forged"}) == [None, None]
    for path in ("/public/", "//public", "/PUBLIC", "/x/../public"):
        assert told(wrapped(tell), path) == (401, "unauthenticated")


def test_an_asynchronous_resolver_is_refused() -> None:
    async def later(request: RequestView) -> Identity | None:
        return Identity("acme")

    assert told(wrapped(tell, identity=later)) == (500, "internal-error")
    with pytest.raises(ConfigurationError):
        wrapped(tell, public="/public")


def test_a_token_is_checked_without_an_event_loop() -> None:
    app = wrapped(tell, identity=resolver())
    assert told(app, authorization=token()) == ["acme", "acme"]
    assert told(app, authorization=token(exp=0)) == (401, "token-expired")
    assert told(app, HTTP_AUTHORIZATION=f"Bearer {token()},Bearer {token()}") == (401, "invalid-token")
    assert resolver().identify_sync(bearing(token())) is not None


# -- answers that are made while they are read


class Lazy:
    """An answer that is made part by part, and does something when it is closed."""

    def __init__(self, seen: list[str | None], parts: int = 3) -> None:
        self.seen = seen
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        self.seen.append(ambient())
        for _ in range(self.parts):
            self.seen.append(ambient())
            yield str(ambient()).encode()

    def close(self) -> None:
        self.seen.append(ambient())


def lazy(seen: list[str | None], make: Callable[[list[str | None]], Any] = Lazy) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return make(seen)

    return app


def test_a_lazy_answer_is_made_by_its_tenant_until_it_is_closed() -> None:
    seen: list[str | None] = []
    assert call(wrapped(lazy(seen)), authorization="anna")[2] == b"acme" * 3
    assert seen == ["acme"] * 5


def test_answers_that_are_read_alternately_keep_their_tenants() -> None:
    def generated(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(4):
            yield str(ambient()).encode()

    def begin(user: str) -> Iterator[bytes]:
        environ = {"PATH_INFO": "/", "HTTP_AUTHORIZATION": f"Bearer {user}"}
        setup_testing_defaults(environ)
        return iter(wrapped(generated)(environ, lambda *arguments: lambda data: None))

    anna, greta = begin("anna"), begin("greta")
    for _ in range(4):
        assert (next(anna), next(greta)) == (b"acme", b"globex")
        assert current_context() is None
    for answer in (anna, greta):
        with pytest.raises(StopIteration):
            next(answer)


def test_an_answer_that_is_left_early_is_closed_as_its_tenant() -> None:
    seen: list[str | None] = []

    def generated(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            yield b"1"
            yield b"2"
        finally:
            seen.append(ambient())

    environ = {"HTTP_AUTHORIZATION": "Bearer anna"}
    setup_testing_defaults(environ)
    body: Any = wrapped(generated)(environ, lambda *arguments: lambda data: None)
    assert next(iter(body)) == b"1"
    body.close()
    assert seen == ["acme"]
    assert current_context() is None


def test_an_error_in_the_middle_of_an_answer_leaves_nothing() -> None:
    def generated(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"1"
        raise KeyError(ambient())

    with pytest.raises(KeyError, match="acme"):
        call(wrapped(generated), authorization="anna")
    assert current_context() is None


def test_errors_of_the_application_are_answered() -> None:
    def missing(environ: dict[str, Any], start_response: Any) -> Any:
        raise NotFound("products", 7)

    def begun(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise NotFound("products", 7)

    assert told(wrapped(missing), authorization="anna") == (404, "not-found")
    with pytest.raises(NotFound):
        call(wrapped(begun), authorization="anna")
    assert current_context() is None


def test_a_list_stays_a_list() -> None:
    environ: dict[str, Any] = {"HTTP_AUTHORIZATION": "Bearer anna"}
    setup_testing_defaults(environ)
    assert isinstance(wrapped(tell)(environ, lambda *arguments: lambda data: None), list)


# -- a real server


async def test_threads_and_kept_alive_connections_never_mix() -> None:
    def slow(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(4):
            time.sleep(random.random() / 100)
            yield f"{ambient()}\n".encode()

    with wsgi_server_of(wrapped(slow)) as port:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60
        ) as asking:

            async def one(number: int) -> None:
                if number % 7 == 0:
                    assert (await asking.get("/public")).text == "None\n" * 4
                    return
                user = random.choice(list(TENANT_OF))
                async with asking.stream("GET", "/x", headers={"Authorization": f"Bearer {user}"}) as answer:
                    async for line in answer.aiter_lines():
                        assert line == TENANT_OF[user]
                        if number % 5 == 0:
                            return  # and the connection is cut

            await asyncio.gather(*(one(number) for number in range(200)))


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Tenant-ID: acme", "X-Tenant-ID: globex"],
        ["X-Tenant-ID: acme", "X_Tenant_ID: globex"],
        ["X_Tenant-ID: globex", "X-Tenant-ID: acme"],
        ["x-tenant-id: acme", "X-TENANT-ID: globex"],
        ["X-Tenant-ID: acme,globex"],
        ["X-Tenant-ID: acme", "X-User-ID: anna", "X_User_ID: root"],
    ],
)
async def test_a_twin_slipped_in_beside_the_gateways_header_is_refused(headers: list[str]) -> None:
    app = wrapped(tell, identity=GatewayResolver(proxies=["127.0.0.0/8"]))
    with wsgi_server_of(app) as port:
        status, body = (await ask(port, request_bytes("/", *headers, "Connection: close")))[0]
    assert (status, json.loads(body)["code"]) == (400, "repeated-header")


async def test_the_header_of_a_stranger_is_no_gateways() -> None:
    app = wrapped(tell, identity=GatewayResolver(proxies=["10.0.3.0/24"]))
    with wsgi_server_of(app) as port:
        forged = request_bytes("/", "X-Tenant-ID: acme", "X-Forwarded-For: 10.0.3.1", "Connection: close")
        assert (await ask(port, forged))[0][0] == 401


# -- the environ


def test_a_path_is_text_again() -> None:
    assert view({"PATH_INFO": "/t/\xc3\xa4"}).path == "/t/ä"
    assert view({"PATH_INFO": "/t/\xff"}).path == "/t/\ufffd"
    assert view({}).path == "/"


def test_headers_are_found_under_their_names() -> None:
    found = view(
        {"HTTP_X_TENANT_ID": "acme", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "", "HTTPS": "on"}
    )
    assert list(found.headers) == [("x-tenant-id", "acme"), ("content-type", "text/plain")]


def test_neither_a_framework_nor_an_http_client_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# -- frameworks


def test_flask_works_as_it_is() -> None:
    flask = Flask(__name__)
    seen: list[str | None] = []

    @flask.errorhandler(TenantryError)
    def answer(error: TenantryError) -> Response:
        found = problem(error)
        return Response(found.body, found.status, dict(found.headers))

    @flask.get("/tell")
    def route() -> str:
        return str(ambient())

    @flask.get("/stream")
    def stream() -> Response:
        def lines() -> Iterator[str]:
            for _ in range(3):
                yield str(ambient())

        response = Response(stream_with_context(lines()))
        response.call_on_close(lambda: seen.append(ambient()))
        return response

    @flask.get("/missing")
    def missing() -> str:
        raise NotFound("products", 7)

    @flask.get("/thread")
    def thread() -> str:
        # what a request starts by itself it hands its context to, or not
        found: list[str | None] = []
        other = threading.Thread(target=lambda: found.append(ambient()))
        other.start()
        other.join()
        return str(found[0])

    flask.wsgi_app = wrapped(flask.wsgi_app)  # type: ignore[method-assign]
    client = flask.test_client()
    for user, tenant in TENANT_OF.items():
        headers = {"Authorization": f"Bearer {user}"}
        assert client.get("/tell", headers=headers).text == tenant
        with client.get("/stream", headers=headers) as response:
            assert response.data == tenant.encode() * 3
        assert client.get("/missing", headers=headers).status_code == 404
        assert client.get("/thread", headers=headers).text == "None"
    assert seen == list(TENANT_OF.values())
    assert client.get("/tell").status_code == 401
    assert current_context() is None


DJANGO = """
import io, json, sys
from wsgiref.util import setup_testing_defaults

from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50, DEBUG=False)

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from tenantry import current_context
from tenantry.http import Identity
from tenantry.http.wsgi import TenantMiddleware, view

def ambient():
    context = current_context()
    return "None" if context is None else context.tenant_id

def tell(request):
    assert view(request.META).path == "/tell"
    return HttpResponse(ambient())

def stream(request):
    return StreamingHttpResponse(ambient() for _ in range(3))

urlpatterns = [path("tell", tell), path("stream", stream)]
app = TenantMiddleware(
    get_wsgi_application(),
    admit=lambda tenant: None,
    identity=lambda request: Identity(request.headers.all("X-Org")),
)

def get(path, org):
    environ = {"PATH_INFO": path, "HTTP_X_ORG": org}
    setup_testing_defaults(environ)
    body = app(environ, lambda *arguments: None)
    try:
        return b"".join(body).decode()
    finally:
        body.close()

print(get("/tell", "acme"), get("/stream", "globex"), ambient())
"""


def test_django_works_as_it_is() -> None:
    # In a process of its own: Django is configured once and for all.
    done = subprocess.run([sys.executable, "-c", DJANGO], capture_output=True, text=True, check=False)
    assert done.stdout == "acme globexglobexglobex None\n", done.stderr
