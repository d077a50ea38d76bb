"""What a scan sends: only to the application, only what it may, never one tenant's credentials with another's."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tenantry.scan import Credentials, Limits, Plan, Request, scan
from tenantry.scan.client import Client, OutOfRequests
from tenantry.scan.messages import Response, Who
from tests.scan.conftest import FAST, Scan
from tests.scan.shop import Shop

A, B = Credentials({"Authorization": "Bearer token-of-a"}), Credentials({"Cookie": "session=token-of-b"})
ROOT = Request("GET", "/")


def plan(limits: Limits = FAST, **options: Any) -> Plan:
    return Plan("http://shop.example/api", A, B, requests_a=(ROOT,), limits=limits, **options)


async def sent(
    answer: Callable[[httpx.Request], httpx.Response],
    request: Request = ROOT,
    who: Who = Who.A,
    **options: Any,
) -> tuple[Response, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request)

    async with Client(plan(**options), transport=httpx.MockTransport(respond)) as client:
        return await client.send(request, who), asked


@pytest.mark.parametrize(
    ("who", "headers"),
    [
        (Who.A, {"authorization": "Bearer token-of-a"}),
        (Who.B, {"cookie": "session=token-of-b"}),
        (Who.NOBODY, {}),
    ],
)
async def test_each_has_its_own_credentials(who: Who, headers: dict[str, str]) -> None:
    _, (asked,) = await sent(lambda _: httpx.Response(200), who=who)
    assert {
        name: asked.headers[name] for name in ("authorization", "cookie") if name in asked.headers
    } == headers


async def test_an_attack_may_name_another_tenant_than_the_credentials_do() -> None:
    _, (asked,) = await sent(lambda _: httpx.Response(200), ROOT.with_header("Authorization", "other"), Who.A)
    assert asked.headers["authorization"] == "other"


async def test_no_cookie_of_an_answer_is_kept() -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, headers={"set-cookie": "session=of-a; Path=/"})

    async with Client(plan(), transport=httpx.MockTransport(respond)) as client:
        await client.send(ROOT, Who.A)
        await client.send(ROOT, Who.NOBODY)
    assert "cookie" not in asked[1].headers


async def test_the_path_of_the_base_url_comes_first() -> None:
    _, (asked,) = await sent(lambda _: httpx.Response(200), Request("GET", "/a%2Fb", (("q", "x y&z"),)))
    assert str(asked.url) == "http://shop.example/api/a%2Fb?q=x%20y%26z"


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.example/api/",
        "https://shop.example/api/",
        "http://shop.example:81/api/",
        "/elsewhere",
        "/api/login",
    ],
)
async def test_a_redirect_elsewhere_or_to_a_login_is_not_followed(location: str) -> None:
    response, asked = await sent(lambda _: httpx.Response(302, headers={"location": location}))
    assert response.status == 302
    assert [request.url.host for request in asked] == ["shop.example"]


async def test_a_redirect_within_the_application_is_followed() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(200)
            if request.url.path.endswith("/")
            else httpx.Response(301, headers={"location": f"{request.url.path}/"})
        )

    response, asked = await sent(respond, Request("GET", "/orders"))
    assert (response.status, asked[-1].url.path) == (200, "/api/orders/")


async def test_redirects_in_a_circle_end() -> None:
    response, asked = await sent(lambda _: httpx.Response(302, headers={"location": "/api/"}))
    assert (response.status, len(asked)) == (302, 4)


async def test_a_large_body_is_cut_also_when_it_is_packed() -> None:
    packed = gzip.compress(b"a" * 50_000_000)
    limits = Limits(rate=1e6, body=10_000)
    response, _ = await sent(
        lambda _: httpx.Response(200, content=packed, headers={"content-encoding": "gzip"}), limits=limits
    )
    assert len(response.body) == 10_000


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_is_busy_is_asked_again(status: int) -> None:
    answers = iter([httpx.Response(status, headers={"retry-after": "0"}), httpx.Response(200)])
    response, asked = await sent(lambda _: next(answers))
    assert (response.status, response.settled, len(asked)) == (200, True, 2)


async def test_what_stays_busy_is_not_settled() -> None:
    response, asked = await sent(lambda _: httpx.Response(503, headers={"retry-after": "0"}))
    assert (response.status, response.settled, len(asked)) == (503, False, 4)


async def test_patience_has_an_end() -> None:
    started = time.monotonic()
    limits = Limits(rate=1e6, wait=0.01)
    await sent(lambda _: httpx.Response(429, headers={"retry-after": "3600"}), limits=limits)
    assert time.monotonic() - started < 60


async def test_no_answer_is_no_error() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    response, asked = await sent(fail)
    assert (response.status, response.settled, len(asked)) == (0, False, 2)


async def test_no_more_requests_than_allowed() -> None:
    async with Client(
        plan(Limits(rate=1e6, requests=3)), transport=httpx.MockTransport(lambda _: httpx.Response(200))
    ) as client:
        for _ in range(3):
            await client.send(ROOT, Who.A)
        with pytest.raises(OutOfRequests):
            await client.send(ROOT, Who.A)
    assert client.sent == 3


async def test_no_faster_than_allowed() -> None:
    async with Client(
        plan(Limits(rate=100)), transport=httpx.MockTransport(lambda _: httpx.Response(200))
    ) as client:
        started = time.monotonic()
        for _ in range(21):
            await client.send(ROOT, Who.A)
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_reads_are_sent_unless_asked_for(method: str) -> None:
    request = Request(method, "/orders/1")
    assert not plan().may_ask(request)
    assert plan(writes=True).may_ask(request)
    assert plan(safe_posts=("/orders*",)).may_ask(request) == (method == "POST")


@pytest.mark.parametrize(
    "path", ["/logout", "/api/sign-out", "/users/signout", "/log_off", "/login", "/session/1"]
)
def test_nobody_is_signed_out(path: str) -> None:
    assert not plan(writes=True, safe_posts=("*",)).may_ask(Request("GET", path))


@pytest.mark.parametrize(
    ("document", "reads"),
    [
        ("{ a { id } }", True),
        ("query Mutation { mutation }", True),
        ('query { a(text: "} mutation {") { id } }', True),
        ("# mutation\n{ a }", True),
        ("mutation { a }", False),
        ("query A { a } mutation B { b }", False),
        ("fragment F on T { a }\nsubscription S { a }", False),
        ('"""\n{""" query A { a } mutation B { b }', False),
    ],
)
def test_a_mutation_is_no_safe_post(document: str, reads: bool) -> None:
    for body in ({"query": document}, [{"query": "{ a }"}, {"query": document}]):
        request = Request("POST", "/graphql").with_json(body)
        assert plan(safe_posts=("/graphql",)).may_ask(request) == reads


def test_a_persisted_query_may_be_a_mutation() -> None:
    request = Request("POST", "/graphql").with_json({"extensions": {"persistedQuery": {"sha256Hash": "…"}}})
    assert not plan(safe_posts=("/graphql",)).may_ask(request)


async def test_a_path_that_is_to_be_skipped_is_never_asked(scan_shop: Scan) -> None:
    shop = Shop("by-id")
    report = await scan_shop(shop, only={"me", "documents"}, skip=("/documents/*",))
    assert not report.findings
    assert not [path for _, path, _ in shop.asked if path.startswith("/documents/")]


async def test_a_scan_that_runs_out_of_requests_says_so(scan_shop: Scan) -> None:
    report = await scan_shop(Shop(), limits=Limits(rate=1e6, requests=200))
    assert (report.complete, report.requests) == (False, 200)
    assert any("Stopped after 200 requests" in note for note in report.notes)


async def test_an_outage_in_the_middle_is_told() -> None:
    """A route that only ever answers 503 to B is not one that leaks nothing."""

    def respond(request: httpx.Request) -> httpx.Response:
        is_a = request.headers.get("authorization") == "Bearer token-of-a"
        if request.url.path == "/api/orders/7f1c3a52-94b6-4f0e-8a53-1f7e2b6c9d10":
            return (
                httpx.Response(200, json={"note": "A word for A alone here"})
                if is_a
                else httpx.Response(503, headers={"retry-after": "0"})
            )
        return httpx.Response(200, json={"me": "Mrs Anna of A" if is_a else "Mr Bert of B"})

    requests = (Request("GET", "/me"), Request("GET", "/orders/7f1c3a52-94b6-4f0e-8a53-1f7e2b6c9d10"))
    target = Plan("http://shop.example/api", A, B, requests_a=requests, limits=FAST)
    report = await scan(target, transport=httpx.MockTransport(respond))
    assert not report.findings
    assert not report.complete
    assert any("/orders/{order}" in note for note in report.notes)
