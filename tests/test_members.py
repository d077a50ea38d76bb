"""Members against the life of their tenant, and against the plan of it."""

from __future__ import annotations

import asyncio

import pytest

from tenantry import MultiTenantSDK
from tenantry.errors import QuotaExceeded, TenantDeleted
from tenantry.plans import Plan, Quotas
from tenantry.tenants.administration import changing
from tenantry.tenants.own import MEMBERS, Member
from tenantry.testing.models import Note


async def test_a_change_that_was_admitted_before_the_mark_comes_too_late() -> None:
    """Otherwise it could come after the purge, and leave a member of nobody."""
    async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
        await sdk.tenants.create("acme")
        database = sdk._database
        assert database is not None
        await sdk.tenant("acme").members.add("u")
        await sdk.tenants.delete("acme", reason="left")
        with pytest.raises(TenantDeleted):
            async with changing(database, "acme", "member.add", None, {}) as change:
                await change.add(MEMBERS, Member(id="late", roles=[]))
        certificate = await sdk.tenants.purge("acme")
        assert certificate.deleted[MEMBERS.name] == 1


async def test_a_plan_says_how_many_members_there_may_be() -> None:
    small = Plan("small", Quotas(members=2))
    async with MultiTenantSDK.open("memory://", models=[Note], plans=[small], env={}) as sdk:
        await sdk.tenants.create("acme", plan="small")
        acme = sdk.tenant("acme")
        outcomes = await asyncio.gather(
            *(acme.members.add(f"u{n}") for n in range(4)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, QuotaExceeded)]
        assert [(error.quota, error.used, error.limit) for error in refused] == [("members", 2, 2)] * 2
        report = await sdk.tenants.usage("acme")
        assert report.members is not None
        assert (report.members.used, report.members.limit) == (2, 2)
