"""What looks like a leak and is none, and leaks that look like nothing; each in an application of a few lines."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tenantry.scan import Credentials, Plan, Report, Request, scan
from tests.scan.conftest import FAST, summed

Answer = Callable[[str, str, httpx.Request], Any]
ID = "7f1c3a52-94b6-4f0e-8a53-1f7e2b6c9d10"
OTHER = "1d0a8c4e-55aa-4a8f-9b1e-0c2f6a7b8d99"
TICKS = itertools.count(1_000)
NAMES = {"a": "Anvils and rockets of Arizona", "b": "Bolts and nuts of Bavaria"}


async def tried(answer: Answer, *requests: str | Request, **options: Any) -> Report:
    """Scan an application: a function of who asks and the path, whose None is a 404 that repeats the path."""

    def respond(request: httpx.Request) -> httpx.Response:
        who = request.headers.get("authorization", "")
        if who not in ("a", "b"):
            return httpx.Response(401)
        found = answer(who, request.url.path, request)
        if isinstance(found, httpx.Response):
            return found
        if found is None:
            return httpx.Response(404, json={"detail": f"{request.url.path} was not found"})
        return httpx.Response(200, json=found)

    a, b = (Credentials({"Authorization": name}) for name in "ab")
    recorded = [one if isinstance(one, Request) else Request("GET", one) for one in ("/me", *requests)]
    plan = Plan("http://shop.example", a, b, requests_a=tuple(recorded), limits=FAST, **options)
    return await scan(plan, transport=httpx.MockTransport(respond))


def me(who: str, path: str) -> Any:
    return {"name": NAMES[who]} if path == "/me" else None


# --- no leak -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["1", OTHER])
async def test_what_is_the_same_for_both_is_no_leak(id: str) -> None:
    ids = [f"{ID[:-1]}{number}" for number in range(5)]  # more than the scan asks for as B
    plans = {one: {"id": one, "title": f"The plan for companies of {one}"} for one in (*ids, id)}

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        return (
            list(plans.values()) if path == "/offers" else plans.get(path.rpartition("/")[2], me(who, path))
        )

    assert summed(await tried(answer, "/offers", f"/offers/{id}")) == set()
    assert summed(await tried(answer, f"/offers/{id}")) == set()  # the list is looked for, too


async def test_what_the_user_says_is_shared_is_no_leak() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        return {"title": "A template for everyone to use"} if path == f"/templates/{ID}" else me(who, path)

    assert {kind for kind, *_ in summed(await tried(answer, f"/templates/{ID}"))} == {"foreign-id-in-path"}
    assert summed(await tried(answer, f"/templates/{ID}", shared=("/templates/*",))) == set()


async def test_rows_of_the_same_number_are_no_leak() -> None:
    """Both have an order 7, not listed anywhere, which share what orders share."""

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        row = {
            "id": 7,
            "number": "ORD-2026-00007",
            "conditions": "Payment within thirty days of delivery",
            "paid_by": "Bank transfer",
        }
        return (
            {**row, "customer": f"{NAMES[who]} again", "total": 120.5 if who == "a" else 77.25}
            if path == "/orders/7"
            else me(who, path)
        )

    assert summed(await tried(answer, "/orders/7")) == set()


async def test_the_same_sample_row_in_both_is_no_leak() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        sample = {"id": 1, "title": "A sample project to begin with", "owner": "sample@example.com"}
        own = {"id": 2, "title": NAMES[who], "owner": f"{who}@example.com"}
        rows = {"/projects": [sample, own], "/projects/1": sample, "/projects/2": own}
        return rows.get(path, me(who, path))

    assert summed(await tried(answer, "/projects", "/projects/1", "/projects/2")) == set()


async def test_an_echo_is_no_leak() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path == "/search":
            term = request.url.params.get("q", "")
            found = [{"id": ID, "title": NAMES[who]}] if term and term.lower() in NAMES[who].lower() else []
            return {"q": term, "url": str(request.url), "items": found, "title": f"Results for {term}"}
        if path.startswith("/files/") and who == "b":
            return httpx.Response(
                404, json={"detail": f"No file {path.rpartition('/')[2]} at {request.url}", "path": path}
            )
        return {"id": ID, "title": NAMES[who]} if path.startswith("/files/") else me(who, path)

    report = await tried(answer, Request("GET", "/search", (("q", "Anvils"),)), f"/files/{ID}")
    assert summed(report) == set()


@pytest.mark.parametrize("seed", range(10))
async def test_what_is_drawn_for_everyone_is_no_leak(seed: int) -> None:
    """A tip of the day, another with each answer: A may have seen the one that B sees next."""
    draw = random.Random(seed)
    tips = [f"The tip number {number} of this application" for number in range(4)]

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        return {"name": NAMES[who], "tip": draw.choice(tips)} if path == "/me" else None

    assert summed(await tried(answer)) == set()


async def test_an_error_that_differs_by_itself_is_no_oracle() -> None:
    """Each id has a trace of its own, and each answer another message."""
    messages = iter(f"message {number % 3}" for number in range(100_000))

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if who == "b" and path.startswith("/files/"):
            return httpx.Response(404, json={"trace": str(hash(path) % 997), "detail": next(messages)})
        return {"id": ID, "title": NAMES[who]} if path.startswith("/files/") else me(who, path)

    assert summed(await tried(answer, f"/files/{ID}")) == set()


async def test_an_error_that_changes_between_two_requests_is_no_oracle() -> None:
    """What was asked first happens to get another answer than the two after it, but not in the next round."""
    messages = iter(f"message {letter}" for letter in "abbaabbba" * 10_000)

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path.startswith("/files/") and (who == "b" or not path.endswith(ID)):
            return httpx.Response(404, json={"detail": next(messages)})
        return {"id": ID, "title": NAMES[who]} if path.startswith("/files/") else me(who, path)

    assert summed(await tried(answer, f"/files/{ID}")) == set()


async def test_an_id_that_cannot_be_made_up_is_no_oracle() -> None:
    """Ids are signed: what is made up is refused as malformed."""

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path.startswith("/files/") and not path.endswith(ID):
            return httpx.Response(400, json={"detail": "malformed"})
        return {"id": ID, "title": NAMES["a"]} if path.startswith("/files/") and who == "a" else me(who, path)

    assert summed(await tried(answer, f"/files/{ID}")) == set()


async def test_a_filter_for_another_tenant_that_finds_nothing_is_no_leak() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path == "/orders":  # A has none, and B's filter excludes B's
            wanted = request.url.params.get("tenant_id")
            return [] if who == "a" or wanted == "tenant-a" else [{"id": OTHER, "title": NAMES["b"]}]
        return {"name": NAMES[who], "tenant_id": f"tenant-{who}"} if path == "/me" else None

    report = await tried(answer, "/orders")
    assert summed(report) == set()


async def test_a_server_that_always_answers_304_is_no_oracle() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if "if-none-match" in request.headers:
            return httpx.Response(304)
        if path == f"/files/{ID}" and who == "a":
            return httpx.Response(200, json={"title": NAMES["a"]}, headers={"etag": '"1"'})
        return me(who, path)

    assert summed(await tried(answer, f"/files/{ID}")) == set()


async def test_public_data_is_no_leak() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        who = request.headers.get("authorization", "")
        if request.url.path in (f"/news/{ID}", f"/news/{OTHER}"):
            return httpx.Response(200, json={"title": f"A word to all the world, {request.url.path[-2:]}"})
        return httpx.Response(200, json={"name": NAMES[who]}) if who else httpx.Response(401)

    requests = (Request("GET", "/me"), *(Request("GET", f"/news/{id}") for id in (ID, OTHER)))
    plan = Plan(
        "http://shop.example",
        Credentials({"Authorization": "a"}),
        Credentials({"Authorization": "b"}),
        requests,
        limits=FAST,
    )
    report = await scan(plan, transport=httpx.MockTransport(respond))
    assert summed(report) == set()
    assert any("without any credentials" in note for note in report.notes)


# --- a leak --------------------------------------------------------------------------------------


async def test_a_row_without_a_telling_word_is_found() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        return (
            {"id": 17, "item": "Rocket", "price": 9.75, "took": next(TICKS)}
            if path == "/orders/17"
            else me(who, path)
        )

    assert summed(await tried(answer, "/orders/17")) == {
        ("foreign-id-in-path", "GET /orders/{order}", "A's order in the path")
    }


async def test_an_id_within_a_document_of_graphql_is_found() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path == "/graphql":
            asked = json.loads(request.content)["query"]
            return {"data": {"file": {"title": NAMES["a"]} if ID in asked else None}}
        return me(who, path)

    query = Request("POST", "/graphql").with_json({"query": f'{{ file(id: "{ID}") {{ title }} }}'})
    report = await tried(answer, query, safe_posts=("/graphql",))
    assert {(kind, detail) for kind, _, detail in summed(report)} == {
        ("foreign-id-in-body", "A's id in query")
    }


async def test_a_page_of_html_is_found() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path == "/orders/17":
            lines = [
                "Order of Mrs Jones",
                "three brass anvils, sharpened",
                "Leave it at the door",
                "Pay on delivery",
            ]
            lines += ["Brass plate for the office", "Return to the orders", "A note on the anvils: heavy"]
            text = "".join(f"<p>{line}</p>" for line in [f"Signed in as {who}", *lines])
            return httpx.Response(200, html=f"<html>{text}<!-- {next(TICKS)} --></html>")
        return me(who, path)

    assert {kind for kind, *_ in summed(await tried(answer, "/orders/17"))} == {"foreign-id-in-path"}


async def test_a_tenant_in_the_path_is_found() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path.startswith("/orgs/org-"):
            return {"org": path.split("/")[2], "orders": [{"id": ID, "title": NAMES[path.split("/")[2][-1]]}]}
        return {"name": NAMES[who], "org": f"org-{who}"} if path == "/me" else None

    report = await tried(answer, "/orgs/org-a/orders")
    assert ("foreign-id-in-path", "GET /orgs/{tenant}/orders", "A's tenant in the path") in summed(report)


async def test_a_value_that_is_named_as_owned_is_found_in_what_everyone_sees() -> None:
    def answer(who: str, path: str, request: httpx.Request) -> Any:
        return (
            [{"title": "Project Falcon"}, {"title": "Project Bison"}]
            if path == "/projects"
            else me(who, path)
        )

    assert summed(await tried(answer, "/projects")) == set()
    report = await tried(answer, "/projects", owned=frozenset({"Project Falcon"}))
    assert summed(report) == {("unscoped-response", "GET /projects", "the same request as B")}


async def test_a_row_just_made_is_found_in_what_everyone_sees() -> None:
    rows = [{"id": OTHER, "title": "An old row of somebody"}]

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path == "/projects" and request.method == "POST":
            rows.append({"id": f"{len(rows):08}{ID[8:]}", **json.loads(request.content)})
            return rows[-1]
        if request.method == "DELETE":
            rows[:] = [row for row in rows if not path.endswith(row["id"])]
            return {}
        return list(rows) if path == "/projects" else me(who, path)

    post = Request("POST", "/projects").with_json({"title": "A new row of A"})
    report = await tried(answer, "/projects", post, writes=True)
    assert ("unscoped-response", "GET /projects", "a row just made by A") in summed(report)
    assert [row["title"] for row in rows] == ["An old row of somebody"]  # what was made was taken away again


async def test_a_shared_cache_hides_no_other_leak() -> None:
    """A's list, once cached, is shown to B; A's rows are no more B's for that."""
    cache: dict[str, Any] = {}
    rows = {"a": {"id": ID, "title": NAMES["a"]}, "b": {"id": OTHER, "title": NAMES["b"]}}

    def answer(who: str, path: str, request: httpx.Request) -> Any:
        if path == "/orders":
            return cache.setdefault(str(request.url), [rows[who]])
        return next((row for row in rows.values() if path == f"/orders/{row['id']}"), me(who, path))

    kinds = {kind for kind, *_ in summed(await tried(answer, "/orders", f"/orders/{ID}"))}
    assert kinds == {"shared-cache", "foreign-id-in-path"}


@pytest.mark.parametrize("leak", [True, False])
async def test_another_host_is_another_tenant(leak: bool) -> None:
    """Each tenant has a host of its own; B's session must not serve at A's."""

    def respond(request: httpx.Request) -> httpx.Response:
        who, host = request.headers.get("authorization", ""), request.headers["host"][0]
        if not who or (who != host and not leak):
            return httpx.Response(401)
        return httpx.Response(200, json={"name": NAMES[host]})

    a = Credentials({"Authorization": "a"}, base_url="http://a.shop.example")
    b = Credentials({"Authorization": "b"}, base_url="http://b.shop.example")
    plan = Plan("http://shop.example", a, b, requests_a=(Request("GET", "/me"),), limits=FAST)
    report = await scan(plan, transport=httpx.MockTransport(respond))
    assert {kind for kind, *_ in summed(report)} == ({"tenant-host"} if leak else set())
