"""A request reaches the tenant of its verified identity, and no other."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from tenantry import TenantHandle, current_context
from tenantry.errors import ConfigurationError
from tenantry.http import APIKeyResolver, Identity, any_of, by_host, current_tenant, handle_errors
from tests.http import tokens as provider
from tests.http.shop import Product, Shop

ACME = ["acme ANVIL", "acme L1"]
GLOBEX = ["globex L1"]


async def get(shop: Shop, path: str, token: str | None, **headers: str) -> httpx.Response:
    async with shop.client(token, **headers) as client:
        return await client.get(path)


@pytest.mark.parametrize(("token", "names"), [("anna", ACME), ("greta", GLOBEX)])
async def test_each_identity_reads_its_own_tenant(shop: Shop, token: str, names: list[str]) -> None:
    answer = await get(shop, "/products", token)
    assert (answer.status_code, answer.json()) == (200, names)


async def test_the_handle_carries_user_claims_and_request(shop: Shop) -> None:
    answer = await get(shop, "/whoami", "anna", **{"X-Request-ID": "r-1"})
    assert answer.json() == {"tenant": "acme", "user": "anna", "claims": {"role": "owner"}, "request": "r-1"}
    hostile = await get(shop, "/whoami", "anna", **{"X-Request-ID": "a\tb" + "x" * 200})
    assert hostile.json()["request"] is None


@pytest.mark.parametrize("token", [None, "made-up", ""])
async def test_without_an_identity_nothing_is_served(shop: Shop, token: str | None) -> None:
    # a header alone is no identity
    answer = await get(shop, "/products", token, **{"X-Tenant-ID": "acme"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"


async def test_the_applications_own_refusal_is_kept(shop: Shop) -> None:
    async with shop.client(None, Authorization="expired") as client:
        answer = await client.get("/products")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Session")


@pytest.mark.parametrize("token", ["anna", "carl"])
async def test_a_header_chooses_among_the_identitys_tenants(shop: Shop, token: str) -> None:
    answer = await get(shop, "/products", token, **{"X-Tenant-ID": "acme"})
    assert answer.json() == ACME


@pytest.mark.parametrize(
    "named", ["globex", "ghost", "ACME", "acme,globex", "acme ", "*", "", "'; DROP TABLE products; --"]
)
async def test_a_header_never_outranks_the_identity(shop: Shop, named: str) -> None:
    answer = await get(shop, "/products", "anna", **{"X-Tenant-ID": named})
    assert answer.status_code == 403
    assert "acme" not in answer.text
    assert "globex" not in answer.text


async def test_a_tenant_that_exists_is_refused_like_one_that_does_not(shop: Shop) -> None:
    exists = await get(shop, "/products", "anna", **{"X-Tenant-ID": "globex"})
    absent = await get(shop, "/products", "anna", **{"X-Tenant-ID": "no-such-tenant"})
    unknown = await get(shop, "/products", "ghost")
    hostile = await get(shop, "/products", "hostile")
    nobody = await get(shop, "/products", "nobody")
    answers = {(a.status_code, a.content, str(a.headers)) for a in (exists, absent, unknown, hostile, nobody)}
    assert len(answers) == 1
    assert exists.json()["code"] == "tenant-forbidden"


async def test_two_headers_that_disagree_are_refused(shop: Shop) -> None:
    headers = [("Authorization", "Bearer anna"), ("X-Tenant-ID", "acme"), ("X-Tenant-ID", "globex")]
    for token, status in (("anna", 403), ("carl", 400)):
        headers[0] = ("Authorization", f"Bearer {token}")
        async with shop.client() as client:
            answer = await client.get("/products", headers=headers)
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("anna", "/t/acme/products", 200),
        ("anna", "/t/globex/products", 403),
        ("carl", "/t/globex/products", 200),
    ],
)
async def test_a_path_is_held_to_the_identity(shop: Shop, token: str, path: str, status: int) -> None:
    assert (await get(shop, path, token)).status_code == status


async def test_a_path_and_a_header_that_disagree_are_refused(shop: Shop) -> None:
    answer = await get(shop, "/t/acme/products", "carl", **{"X-Tenant-ID": "globex"})
    assert answer.status_code == 400


async def test_an_identity_of_several_tenants_has_to_choose(shop: Shop) -> None:
    answer = await get(shop, "/products", "carl")
    assert (answer.status_code, answer.json()["code"]) == (400, "tenant-unnamed")


async def test_a_body_cannot_name_the_tenant(shop: Shop) -> None:
    async with shop.client("anna") as client:
        answer = await client.post("/products", json={"name": "x", "sku": "X", "tenant_id": "globex"})
    assert (answer.status_code, answer.json()["field"]) == (422, "tenant_id")
    assert (await get(shop, "/products", "greta")).json() == GLOBEX


async def test_another_tenants_row_is_not_found_like_one_that_does_not_exist(shop: Shop) -> None:
    theirs = (await shop.sdk.tenant("globex").data.read(Product))[0]
    async with shop.client("anna") as client:
        for method, more in (("GET", ""), ("PATCH", "?version=1")):
            found = await client.request(method, f"/products/{theirs.id}{more}", json={"name": "mine"})
            nowhere = uuid.uuid4()
            absent = await client.request(method, f"/products/{nowhere}{more}", json={"name": "mine"})
            assert found.status_code == absent.status_code == 404
            assert found.text.replace(str(theirs.id), "") == absent.text.replace(str(nowhere), "")
    assert (await shop.sdk.tenant("globex").data.get(Product, theirs.id)).name == "globex L1"


async def test_a_route_cannot_step_into_another_tenant(shop: Shop) -> None:
    answer = await get(shop, "/elsewhere/globex", "anna")
    assert (answer.status_code, answer.json()["code"]) == (403, "context-mismatch")


async def test_a_route_without_the_dependency_has_no_tenant(shop: Shop) -> None:
    answer = await get(shop, "/unbound", "anna")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")


async def test_a_suspended_tenant_is_refused_until_it_is_resumed(shop: Shop) -> None:
    await shop.sdk.tenants.suspend("acme", reason="unpaid")
    answer = await get(shop, "/products", "anna")
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant-suspended")
    assert "unpaid" not in answer.text
    # to anybody else it is like every other tenant
    assert (await get(shop, "/products", "greta", **{"X-Tenant-ID": "acme"})).json()[
        "code"
    ] == "tenant-forbidden"
    await shop.sdk.tenants.resume("acme")
    assert (await get(shop, "/products", "anna")).json() == ACME


async def test_a_deleted_tenant_is_refused(shop: Shop) -> None:
    await shop.sdk.tenants.delete("acme", reason="left")
    assert (await get(shop, "/products", "anna")).json()["code"] == "tenant-forbidden"


# -- the ambient tenant


async def test_interleaved_requests_keep_their_tenants(shop: Shop) -> None:
    tokens = ["anna", "greta"] * 8
    requests = [asyncio.create_task(get(shop, "/gate", token)) for token in tokens]
    for _ in tokens:
        await shop.waiting.acquire()
    shop.gate.set()
    for token, answer in zip(tokens, await asyncio.gather(*requests), strict=True):
        tenant, names = ("acme", ACME) if token == "anna" else ("globex", GLOBEX)
        assert answer.json() == [tenant, tenant, names]
    assert current_context() is None


async def test_the_ambient_tenant_ends_with_the_request(shop: Shop) -> None:
    # the client's transport runs the application in this very task
    await get(shop, "/products", "anna")
    assert current_context() is None
    await get(shop, "/products", "nobody")
    assert current_context() is None
    await get(shop, "/elsewhere/globex", "anna")
    assert current_context() is None


async def test_a_streamed_answer_keeps_its_tenant(shop: Shop) -> None:
    requests = [asyncio.create_task(get(shop, "/stream", token)) for token in ("anna", "greta")]
    for _ in requests:
        await shop.waiting.acquire()
    assert (await get(shop, "/products", "greta")).json() == GLOBEX  # others come and go meanwhile
    shop.gate.set()
    acme, globex = [answer.text.splitlines() for answer in await asyncio.gather(*requests)]
    assert acme == ["acme", "acme", *ACME]
    assert globex == ["globex", "globex", *GLOBEX]


async def test_background_tasks_keep_their_tenant(shop: Shop) -> None:
    await asyncio.gather(*(get(shop, "/background", token) for token in ("anna", "greta")))
    assert sorted(shop.background) == [("acme", 2), ("globex", 1)]


async def test_a_route_that_runs_in_a_thread_has_its_tenant(shop: Shop) -> None:
    assert (await get(shop, "/thread", "greta")).json() == "globex"


async def test_a_cancelled_request_leaves_no_tenant_behind(shop: Shop) -> None:
    request = asyncio.create_task(get(shop, "/gate", "anna"))
    await shop.waiting.acquire()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert current_context() is None
    assert (await get(shop, "/products", "greta")).json() == GLOBEX


async def test_an_identity_of_another_kind_is_a_fault_and_not_a_tenant(shop: Shop) -> None:
    async def careless() -> dict[str, Any]:
        return {"tenant": "acme"}

    app = FastAPI()
    handle_errors(app)

    @app.get("/")
    async def route(handle: Annotated[TenantHandle, Depends(current_tenant(shop.sdk, careless))]) -> str:
        return handle.context.tenant_id

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")
    async with client:
        with pytest.raises(TypeError, match="returns an Identity"):
            await client.get("/")


async def test_a_mounted_application_refuses_without_handlers_of_its_own(shop: Shop) -> None:
    async def nobody() -> AsyncIterator[Identity | None]:
        yield None

    inner, app = FastAPI(), FastAPI()
    handle_errors(app)
    app.mount("/inner", inner)

    @inner.get("/")
    async def route(handle: Annotated[TenantHandle, Depends(current_tenant(shop.sdk, nobody))]) -> str:
        return handle.context.tenant_id

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")
    async with client:
        answer = await client.get("/inner/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_without_handle_errors_nothing_is_served(shop: Shop) -> None:
    async def anna() -> Identity:
        return Identity("acme")

    app = FastAPI()

    @app.get("/")
    async def route(handle: Annotated[TenantHandle, Depends(current_tenant(shop.sdk, anna))]) -> str:
        return handle.context.tenant_id

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")
    async with client:
        with pytest.raises(ConfigurationError, match=r"Call handle_errors\(app\)"):
            await client.get("/")


async def test_a_resolver_takes_the_place_of_a_dependency(shop: Shop) -> None:
    app = FastAPI()
    handle_errors(app)
    signed_in = any_of(provider.resolver(), APIKeyResolver(lambda id: None))

    @app.get("/")
    async def route(
        handle: Annotated[TenantHandle, Depends(current_tenant(shop.sdk, signed_in))],
    ) -> list[str]:
        return [handle.context.tenant_id, str(handle.context.user_id)]

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://shop.example"
    ) as client:

        async def get(headers: dict[str, str]) -> httpx.Response:
            return await client.get("/", headers=headers)

        good = await get({"Authorization": f"Bearer {provider.token()}"})
        assert good.json() == ["acme", "anna"]
        for headers, status, code in (
            ({}, 401, "unauthenticated"),
            ({"Authorization": "Bearer made-up"}, 401, "invalid-token"),
            ({"Authorization": f"Bearer {provider.token(exp=0)}"}, 401, "token-expired"),
            ({"X-API-Key": "made-up"}, 401, "invalid-api-key"),
            (
                {"Authorization": f"Bearer {provider.token()}", "X-Tenant-ID": "globex"},
                403,
                "tenant-forbidden",
            ),
        ):
            answer = await get(headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_host_chooses_and_a_forwarded_one_only_behind_a_proxy(shop: Shop) -> None:
    async def carl() -> Identity:
        return Identity(["acme", "globex"])

    def app(proxies: list[str]) -> FastAPI:
        app = FastAPI()
        handle_errors(app)
        chosen = current_tenant(shop.sdk, carl, named_by=[by_host("shop.example")], proxies=proxies)

        @app.get("/")
        async def route(handle: Annotated[TenantHandle, Depends(chosen)]) -> str:
            return handle.context.tenant_id

        return app

    for proxies, tenant in ([], "acme"), (["192.0.2.0/24"], "globex"):
        transport = httpx.ASGITransport(app(proxies), client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://acme.shop.example") as client:
            answer = await client.get("/", headers={"X-Forwarded-Host": "globex.shop.example"})
        assert answer.json() == tenant
