"""What a scan is given: recordings, descriptions, credentials. What is wrong with them is said, with what mends it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenantry.errors import ConfigurationError
from tenantry.scan import Credentials, Limits, Login, Plan, Request, read_har, read_openapi, scan
from tests.scan.conftest import BASE, FAST, Scan, credentials, scanned, transport
from tests.scan.described import openapi
from tests.scan.shop import Shop, entry, har

ME = (Request("GET", "/me"),)


def written(folder: Path, content: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# --- HAR -----------------------------------------------------------------------------------------


def test_a_recording_keeps_what_was_asked_and_no_credentials(tmp_path: Path) -> None:
    url = f"{BASE}/api/orders%2F1?page=2&access_token=s3cret&q=a+b"
    path = written(tmp_path, {"log": {"entries": [entry("post", url, "s3cret", {"a": 1})]}})
    (request,) = read_har(path, base_url=f"{BASE}/api")
    assert (request.method, request.path, request.query) == (
        "POST",
        "/orders%2F1",
        (("page", "2"), ("q", "a b")),
    )
    assert request.data == {"a": 1}
    assert dict(request.headers) == {"accept": "application/json", "content-type": "application/json"}
    assert "s3cret" not in repr(request)


def test_other_origins_assets_and_repetitions_are_left_out(tmp_path: Path) -> None:
    urls = [
        "http://shop.example/a",
        "https://shop.example/b",
        "http://shop.example:81/c",
        "http://shop.example/d.js",
    ]
    entries = [entry("GET", url, "t") for url in [*urls, urls[0]]]
    found = read_har(written(tmp_path, {"log": {"entries": entries}}), base_url=BASE)
    assert [request.path for request in found] == ["/a"]


def test_a_neighbour_of_the_base_path_is_left_out(tmp_path: Path) -> None:
    entries = [entry("GET", f"{BASE}/api{end}", "t") for end in ("", "/x", "2/y")]
    found = read_har(written(tmp_path, {"log": {"entries": entries}}), base_url=f"{BASE}/api")
    assert [request.path for request in found] == ["/", "/x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is no HAR file"),
        ("{}", "is no HAR file"),
        ("[" * 100_000, "is no HAR file"),
        ({"log": {"entries": {}}}, "log.entries is no list"),
        ({"log": {"entries": [{}]}}, r"log.entries\[0\].request is not as a HAR has it"),
        ({"log": {"entries": [{"request": {"method": "GET", "url": 5}}]}}, r"log.entries\[0\].request"),
        ({"log": {"entries": [entry("GET", "http://other.example/", "t")]}}, "holds no request to"),
    ],
    ids=range(7),
)
def test_a_broken_recording_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_har(written(tmp_path, content), base_url=BASE)
    assert caught.value.field == "har"
    assert caught.value.fix


def test_a_recording_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_har(tmp_path / "none.har", base_url=BASE)


# --- OpenAPI -------------------------------------------------------------------------------------


def test_a_description_gives_its_operations() -> None:
    found = {(one.method, one.template): one for one in read_openapi(openapi())}
    assert found["GET", "/preview"].required == (("document_id", ""),)
    assert found["POST", "/documents"].fields == ("title", "customer_id")
    assert found["POST", "/customers"].fields == ("name", "email")
    assert found["GET", "/documents"].query == ("q", "sort", "include")


def test_yaml_is_read_too(tmp_path: Path) -> None:
    text = "openapi: 3.0.3\nservers: [{url: https://x.example/v1}]\npaths:\n  /a: {get: {}}\n"
    path = written(tmp_path, text, "api.yaml")
    assert [one.template for one in read_openapi(path, base_url=BASE)] == ["/v1/a"]
    assert [one.template for one in read_openapi(path, base_url=f"{BASE}/v1")] == ["/a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "broken JSON"),
        ("a: [", "broken YAML"),
        ("just text", "is no OpenAPI document"),
        ({"swagger": "2.0", "paths": {}}, r"no OpenAPI 3 document \(its version is 2.0\)"),
        ({"openapi": "3.1.0"}, "describes no paths"),
        ({"openapi": "3.1.0", "paths": {"/a": 5}}, "/a is not as OpenAPI has it"),
        (
            {"openapi": "3.1.0", "paths": {"/a": {"get": {"parameters": [{"$ref": "#/components/none"}]}}}},
            r"paths./a.get: \$ref '#/components/none' leads nowhere",
        ),
        ({"openapi": "3.1.0", "paths": {"/a": {"$ref": "other.yaml#/a"}}}, "leads out of the document"),
        ({"openapi": "3.1.0", "paths": {"/a": {"$ref": "#/paths/~1a"}}}, "leads in a circle"),
    ],
    ids=range(9),
)
def test_a_broken_description_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_openapi(written(tmp_path, content))
    assert caught.value.field == "openapi"
    assert caught.value.fix


# --- the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"target": "shop.example"}, "target"),
        ({"target": "ftp://shop.example"}, "target"),
        ({"target": "http://user:password@shop.example"}, "target"),
        ({"a": Credentials({})}, "a.headers"),
        ({"b": Credentials({"Authorization": ""})}, "b.headers"),
        ({"b": Credentials({"Authorization": "a"})}, "b.headers"),
        ({"b": Credentials({"Authorization": "b"}, base_url="nowhere")}, "b.base_url"),
        ({"requests_a": ()}, "requests_a"),
    ],
    ids=range(8),
)
def test_a_plan_that_cannot_work_is_refused(options: dict[str, Any], field: str) -> None:
    given = {
        "target": BASE,
        "a": Credentials({"Authorization": "a"}),
        "b": Credentials({"Authorization": "b"}),
    }
    with pytest.raises(ConfigurationError) as caught:
        Plan(**{**given, "requests_a": ME, **options})
    assert caught.value.field == field
    assert caught.value.fix


@pytest.mark.parametrize("name", ["concurrency", "rate", "timeout", "requests", "body", "wait", "examples"])
def test_a_bound_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: 0})


def test_credentials_are_not_in_their_repr() -> None:
    login = Login("/login", {"user": "anna", "password": "s3cret"})
    assert "s3cret" not in repr(Credentials({"Authorization": "Bearer s3cret"}, login=login))


def test_a_token_tells_its_tenant() -> None:
    payload = (
        base64.urlsafe_b64encode(json.dumps({"sub": "u1", "org_id": "acme"}).encode()).decode().rstrip("=")
    )
    assert Credentials({"Authorization": f"Bearer e30.{payload}.sig"}).tenants() == {"acme"}
    assert Credentials({"Authorization": "Bearer not.a.token"}).tenants() == set()


# --- the set-up is proved first ------------------------------------------------------------------


async def refused(shop: Shop, folder: Path, **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        await scanned(shop, folder, only={"me", "documents"}, **options)
    assert caught.value.fix
    return caught.value


async def test_two_users_of_one_tenant_are_refused(tmp_path: Path) -> None:
    shop = Shop()
    globex, acme = shop.companies["globex"], shop.companies["acme"]
    globex.rows, globex.slug = acme.rows, acme.slug
    assert (await refused(shop, tmp_path)).message == "Everything that A sees, B sees too."


async def test_tokens_of_one_tenant_are_refused() -> None:
    payload = base64.urlsafe_b64encode(b'{"tenant_id": "acme"}').decode().rstrip("=")
    a, b = (Credentials({"Authorization": f"Bearer {user}.{payload}.x"}) for user in ("e30", "e31"))

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={"name": f"The name of {request.headers.get('authorization', '')[7:10]}"}
        )

    with pytest.raises(ConfigurationError, match="of the same tenant: acme"):
        await scan(Plan(BASE, a, b, requests_a=ME, limits=FAST), transport=httpx.MockTransport(respond))


@pytest.mark.parametrize(("slug", "field"), [("acme", "a.headers"), ("globex", "b.headers")])
async def test_an_expired_token_is_told_from_an_application_without_leaks(
    slug: str, field: str, tmp_path: Path
) -> None:
    shop = Shop()
    path = written(tmp_path, har(shop, BASE))
    a, b = credentials(shop, "acme"), credentials(shop, "globex")
    shop.companies[slug].token = "another by now"
    plan = Plan(BASE, a, b, requests_a=read_har(path, base_url=BASE), limits=FAST)
    with pytest.raises(ConfigurationError, match="401") as caught:
        await scan(plan, transport=transport(shop.app))
    assert caught.value.field == field


async def test_an_application_that_is_away_is_told() -> None:
    a, b = (Credentials({"Authorization": name}) for name in "ab")
    plan = Plan("http://127.0.0.1:9", a, b, requests_a=ME, limits=FAST)
    with pytest.raises(
        ConfigurationError, match=r"http://127.0.0.1:9 does not answer \(ConnectError"
    ) as caught:
        await scan(plan)
    assert caught.value.field == "target"


async def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    a, b = (Credentials({"Authorization": name}) for name in "ab")
    plan = Plan(
        "https://127.0.0.1:9",
        a,
        b,
        requests_a=ME,
        limits=FAST,
        ca=str(written(tmp_path, "nothing", "ca.pem")),
    )
    with pytest.raises(ConfigurationError, match="holds no certificates") as caught:
        await scan(plan)
    assert caught.value.field == "ca"


async def test_a_recording_that_only_writes_is_told() -> None:
    a, b = (Credentials({"Authorization": name}) for name in "ab")
    plan = Plan(BASE, a, b, requests_a=(Request("POST", "/orders"),), limits=FAST)
    with pytest.raises(ConfigurationError, match="nothing to ask as tenant a") as caught:
        await scan(plan)
    assert caught.value.field == "requests_a"


# --- signing in ----------------------------------------------------------------------------------


def office(request: httpx.Request) -> httpx.Response:
    """Sign in with JSON for a token, or with a form for a cookie."""
    if request.url.path == "/login":
        if request.headers["content-type"] == "application/json":
            found = json.loads(request.content)
            if found["password"] != "s3cret-word":
                return httpx.Response(401)
            return httpx.Response(200, json={"data": {"token": f"token-{found['user']}"}})
        user = request.content.decode().partition("user=")[2].partition("&")[0]
        return httpx.Response(
            303,
            headers=[
                ("set-cookie", "theme=dark; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
                ("set-cookie", f"session={user}; HttpOnly"),
            ],
        )
    who = request.headers.get("authorization", "")[-1:] or request.headers.get("cookie", "")[-1:]
    return (
        httpx.Response(200, json={"name": f"The tenant of {who} alone"})
        if who in ("a", "b")
        else httpx.Response(401)
    )


@pytest.mark.parametrize("token", ["data.token", None])
async def test_users_are_signed_in_first(token: str | None) -> None:
    a, b = (
        Credentials(
            login=Login("/login", {"user": user, "password": "s3cret-word"}, form=token is None, token=token)
        )
        for user in "ab"
    )
    report = await scan(Plan(BASE, a, b, requests_a=ME, limits=FAST), transport=httpx.MockTransport(office))
    assert not report.findings
    assert report.attempts


@pytest.mark.parametrize(
    ("login", "message"),
    [
        (Login("/login", {"user": "a", "password": "wrong"}, token="data.token"), "answered with 401"),
        (Login("/login", {"user": "a", "password": "s3cret-word"}, token="none"), "has no none"),
        (Login("/login", {"user": "a", "password": "s3cret-word"}), "set no cookie"),
    ],
    ids=range(3),
)
async def test_a_login_that_fails_is_told(login: Login, message: str) -> None:
    plan = Plan(
        BASE, Credentials(login=login), Credentials({"Authorization": "b"}), requests_a=ME, limits=FAST
    )
    with pytest.raises(ConfigurationError, match=message) as caught:
        await scan(plan, transport=httpx.MockTransport(office))
    assert caught.value.field == "a.login"
    assert "s3cret" not in str(caught.value)


# --- the report ----------------------------------------------------------------------------------


async def test_a_report_shows_the_request_and_neither_values_nor_secrets(scan_shop: Scan) -> None:
    shop = Shop("by-id", "write-tenant", "graphql")
    report = await scan_shop(shop, only={"me", "documents", "customers", "graphql"}, writes=True)
    said = json.dumps(report.to_dict()) + report.to_markdown() + repr(report.to_dict())
    for company in shop.companies.values():
        assert company.token not in said
    titles = [row["title"] for row in shop.companies["acme"].rows["documents"].values()]
    assert not [title for title in titles if title in said]
    found = next(one for one in report.findings if one.kind.label == "foreign-id-in-path")
    assert found.command.startswith('curl -i -H "Authorization: Bearer $TENANT_B_TOKEN"')
    assert found.command.endswith(f"{BASE}{found.request.target}")
    posted = next(one for one in report.findings if one.kind.label == "foreign-id-in-body")
    assert "-X POST" in posted.command
    assert "--data-raw" in posted.command


async def test_a_report_may_show_values(tmp_path: Path) -> None:
    shop = Shop("by-id")
    path = written(tmp_path, har(shop, BASE))
    requests = tuple(
        one for one in read_har(path, base_url=BASE) if one.path.startswith(("/me", "/documents"))
    )
    plan = Plan(
        BASE, credentials(shop, "acme"), credentials(shop, "globex"), requests_a=requests, limits=FAST
    )
    report = await scan(plan, transport=transport(shop.app), show_values=True)
    (found,) = report.findings
    titles = {row["title"] for row in shop.companies["acme"].rows["documents"].values()}
    assert titles & {value for _, value in found.leaked}
    assert any(title in found.excerpt for title in titles)


async def test_a_secret_in_an_answer_is_not_repeated() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if not (who := request.headers.get("authorization", "")):
            return httpx.Response(401)
        if request.url.path.startswith("/notes/"):
            return httpx.Response(
                200, json={"note": "The words of A alone, in full", "you": who, "key": "Bearer secret-of-a"}
            )
        return httpx.Response(200, json={"name": f"The tenant of {who[-1]} alone"})

    a, b = (Credentials({"Authorization": f"Bearer secret-of-{name}"}) for name in "ab")
    requests = (*ME, Request("GET", "/notes/7f1c3a52-94b6-4f0e-8a53-1f7e2b6c9d10"))
    report = await scan(
        Plan(BASE, a, b, requests, limits=FAST), transport=httpx.MockTransport(respond), show_values=True
    )
    assert report.findings
    assert "secret-of-" not in json.dumps(report.to_dict()) + report.to_markdown()
