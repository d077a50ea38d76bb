"""An application on tenantry, scanned with all that the scanner has, gives nothing."""

from __future__ import annotations

import httpx

from tenantry.scan import Credentials, Plan, read_openapi, scan
from tests.http.shop import opened_shop
from tests.scan.conftest import FAST, summed, transport


async def test_an_application_on_tenantry_leaks_nothing() -> None:
    async with opened_shop("memory://") as shop:
        plan = Plan(
            "http://shop.example",
            Credentials({"Authorization": "Bearer anna"}, tenant="acme"),
            Credentials({"Authorization": "Bearer greta"}, tenant="globex"),
            operations=read_openapi(shop.app.openapi()),
            skip=("/unbound", "/gate", "/stream"),  # one fails, one waits, one never ends: each on purpose
            writes=True,
            limits=FAST,
        )
        report = await scan(plan, transport=transport(shop.app))
        assert summed(report) == set()
        assert report.complete
        async with shop.client("anna") as anna:
            assert isinstance(anna, httpx.AsyncClient)
            assert len((await anna.get("/products")).json()) == 2
