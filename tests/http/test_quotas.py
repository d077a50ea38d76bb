"""A tenant whose quota of requests is used up is answered with 429, and when to come again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tenantry import KeyedModel, MultiTenantSDK, Plan, Quotas, Rate
from tenantry.errors import QuotaExceeded, TenantryError
from tenantry.http import TenantMiddleware, problem
from tests.http.stage import who


class Item(KeyedModel):
    __collection__ = "items"

    id: str


async def hello(request: Request) -> PlainTextResponse:
    await request.state.tenant.data.create(Item(id=request.query_params["id"]))
    return PlainTextResponse("hello")


async def test_requests_over_the_quota_are_answered_with_429() -> None:
    plans = [Plan("free", Quotas(requests=Rate(3, per="hour"), per_collection={"items": 2}))]
    async with MultiTenantSDK.open("memory://", models=[Item], plans=plans, env={}) as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant, plan="free")
        app = Starlette(
            routes=[Route("/hello", hello)], middleware=[Middleware(TenantMiddleware, sdk, identity=who)]
        )
        transport: Any = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            anna = {"Authorization": "Bearer anna"}
            answers = [await client.get(f"/hello?id={number}", headers=anna) for number in range(5)]
            assert [answer.status_code for answer in answers] == [200, 200, 403, 429, 429]
            full, late = answers[2].json(), answers[3]
            assert (full["code"], full["quota"], full["limit"]) == ("quota-exceeded", "rows:items", 2)
            assert 0 < int(late.headers["Retry-After"]) <= 3600
            assert (late.json()["quota"], late.json()["used"], late.json()["limit"]) == ("requests", 3, 3)
            greta = {"Authorization": "Bearer greta"}
            assert (await client.get("/hello?id=1", headers=greta)).status_code == 200


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "0"), (0.2, "1"), (59.01, "60")])
def test_retry_after_is_never_too_early(seconds: float, shown: str) -> None:
    error: TenantryError = QuotaExceeded(
        quota="requests", used=3, limit=3, plan=None, tenant_id="acme", retry_after=seconds
    )
    assert problem(error).headers["Retry-After"] == shown
