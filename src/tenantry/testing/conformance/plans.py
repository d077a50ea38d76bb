"""Plans: limits that hold however rows come, requests that are counted, flags and settings."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from tenantry.errors import (
    Conflict,
    InvalidRecord,
    QuotaExceeded,
    TransactionFailed,
    UniqueViolation,
    UnknownFlag,
    UnknownPlan,
)
from tenantry.plans import Flag, Plan, Quotas, Rate, TenantSettings
from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, chance, fresh
from tenantry.testing.models import Book, Folder, Note, Review

NOW = dt.datetime.now(dt.UTC)


class Preferences(TenantSettings):
    timezone: str = "UTC"
    seats: int = 5


FLAGS = [
    Flag("reports"),
    Flag("theme", default="light", choices=["light", "dark"]),
    Flag("beta", rollout=50),
]
PLANS = [
    Plan("conformance-five", Quotas(rows=5, per_collection={"notes": 3}), flags={"reports": True}),
    Plan("conformance-small", Quotas(storage=2_000, requests=Rate(7, per="month"))),
    Plan("conformance-free"),
]
OPTIONS: dict[str, Any] = {"plans": PLANS, "flags": FLAGS, "settings": Preferences}


class Plans(Setting):
    """Quotas, usage, flags and settings."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def planned(cls, database_config: Mapping[str, Any]) -> AsyncIterator[MultiTenantSDK]:
        """Give an SDK that was opened with plans."""
        async with cls.open_database(database_config, **OPTIONS) as planned:
            yield planned

    @staticmethod
    async def on_plan(planned: MultiTenantSDK, plan: str) -> TenantHandle:
        """Return the handle of a new tenant."""
        tenant = await planned.tenants.create(fresh("planned"), plan=f"conformance-{plan}")
        return planned.tenant(tenant.id)

    async def test_racers_for_the_last_rows_get_no_more_than_there_are(
        self, planned: MultiTenantSDK, database_config: Mapping[str, Any]
    ) -> None:
        acme = await self.on_plan(planned, "five")
        id = acme.context.tenant_id

        async def race(handles: list[TenantHandle], name: str) -> list[Any]:
            calls = (handle.data.create(Folder(id=i)) for i, handle in enumerate(handles))
            return await asyncio.gather(*calls, return_exceptions=True)

        if Capability.MULTI_PROCESS in planned.capabilities:
            async with self.open_database(
                database_config
            ) as second:  # another process, which knows of no plan
                outcomes = await race([acme, second.tenant(id)] * 5, "n")
        else:
            outcomes = await race([acme] * 10, "n")
        assert sum(isinstance(item, Folder) for item in outcomes) == 5, outcomes
        refused = [item for item in outcomes if isinstance(item, QuotaExceeded)]
        assert len(refused) == 5, outcomes
        assert {(item.quota, item.used, item.limit, item.plan) for item in refused} == {
            ("rows", 5, 5, "conformance-five")
        }
        assert await acme.data.count(Folder) == 5

    async def test_what_is_deleted_is_given_back(self, planned: MultiTenantSDK) -> None:
        acme = await self.on_plan(planned, "five")
        book = await acme.data.create(Book(title="a"))
        for _ in range(4):
            await acme.data.create(Review(book_id=book.id))
        with pytest.raises(QuotaExceeded):
            await acme.data.create(Note(id="n"))
        book = await acme.data.update(book, title="longer than before")  # no row more
        await acme.data.delete(book)  # and with it what it cascades to
        used = await acme.usage()
        assert (used.rows.used, used.rows.limit, used.storage.used) == (0, 5, 0)
        for number in range(3):
            await acme.data.upsert(Note(id=f"{number}"))
        await acme.data.upsert(Note(id="0", text="changed"))
        with pytest.raises(QuotaExceeded) as full:
            await acme.data.upsert(Note(id="3"))
        assert (full.value.quota, full.value.limit) == ("rows:notes", 3)
        await acme.data.create(Folder(id=1))  # the other collections are not full

    async def test_a_transaction_past_the_limit_leaves_nothing(self, planned: MultiTenantSDK) -> None:
        acme = await self.on_plan(planned, "five")

        async def fill(*errors: type[Exception]) -> None:
            async with acme.data.transaction() as unit:
                for number in range(6):
                    with suppress(*errors):
                        await unit.create(Folder(id=number))

        with pytest.raises(QuotaExceeded):
            await fill()
        with pytest.raises(TransactionFailed):  # also where the error was swallowed
            await fill(QuotaExceeded)
        used = await acme.usage()
        assert (await acme.data.count(Folder), used.rows.used, used.storage.used) == (0, 0, 0)

    async def test_of_many_rows_as_many_are_stored_as_there_is_room_for(
        self, planned: MultiTenantSDK
    ) -> None:
        acme = await self.on_plan(planned, "five")
        await acme.data.create(Folder(id=0))
        result = await acme.data.bulk_create([Folder(id=number) for number in range(9)])
        kinds = {index: type(error) for index, error in result.refused.items()}
        assert kinds.pop(0) is UniqueViolation
        assert kinds == dict.fromkeys((5, 6, 7, 8), QuotaExceeded)
        assert await acme.data.count(Folder) == 5
        with pytest.raises(QuotaExceeded):
            await acme.data.bulk_create([Folder(id=10), Folder(id=11)], atomic=True)
        assert (await acme.usage()).rows.used == 5

    async def test_storage_is_limited_in_bytes(self, planned: MultiTenantSDK) -> None:
        acme = await self.on_plan(planned, "small")
        note = await acme.data.create(Note(id="n", text="x" * 1_000))
        with pytest.raises(QuotaExceeded) as full:
            await acme.data.create(Note(id="m", text="x" * 1_000))
        assert (full.value.quota, full.value.limit) == ("storage", 2_000)
        assert 1_000 < full.value.used < 2_000
        with pytest.raises(QuotaExceeded):
            await acme.data.update(note, text="x" * 2_000)
        used = (await acme.usage()).storage.used
        note = await acme.data.update(note, text="x" * 1_100)
        # A time that happens to end in zeros is a shorter text.
        assert abs((await acme.usage()).storage.used - used - 100) <= 6
        await acme.data.delete(note)
        assert (await acme.usage()).storage.used == 0

    async def test_limits_change_with_the_plan_and_with_what_a_tenant_was_given(
        self, planned: MultiTenantSDK
    ) -> None:
        acme = await self.on_plan(planned, "free")
        id, tenants = acme.context.tenant_id, planned.tenants
        for number in range(7):
            await acme.data.create(Folder(id=number))
        await tenants.update(id, plan="conformance-five")
        used = (await acme.usage()).rows
        assert (used.used, used.limit, used.percent) == (7, 5, 140.0)
        with pytest.raises(QuotaExceeded):
            await acme.data.create(Folder(id=7))
        assert await acme.data.count(Folder) == 7  # it keeps what it has
        await acme.data.delete(Folder, 0)
        await tenants.set_quota(id, rows=7, reason="a week of grace")
        await acme.data.create(Folder(id=7))
        with pytest.raises(QuotaExceeded):
            await acme.data.create(Folder(id=8))
        await tenants.set_quota(id, rows=None, reason="for good")
        await acme.data.create(Folder(id=8))
        await tenants.clear_quota(id, reason="over")
        with pytest.raises(QuotaExceeded):
            await acme.data.create(Folder(id=9))
        assert (await tenants.update(id, plan=None)).plan is None
        await acme.data.create(Folder(id=9))

    async def test_one_tenant_never_counts_for_another(self, planned: MultiTenantSDK) -> None:
        acme, globex = [await self.on_plan(planned, "five") for _ in range(2)]
        for number in range(5):
            await acme.data.create(Folder(id=number))
        for number in range(5):
            await globex.data.create(Folder(id=number))
        with pytest.raises(QuotaExceeded) as full:
            await globex.data.create(Folder(id=5))
        assert full.value.tenant_id == globex.context.tenant_id
        assert acme.context.tenant_id not in str(full.value)

    async def test_counters_equal_the_truth_after_random_work(self, planned: MultiTenantSDK) -> None:
        handles = [await self.on_plan(planned, "free") for _ in range(2)]

        async def work(seed: int) -> None:
            random, handle = chance(seed), handles[seed % 2]
            for _ in range(12):
                id = f"{random.randrange(8)}"
                note = Note(id=id, text="ß" * random.randrange(3_000))
                try:
                    if random.random() < 0.3:
                        async with handle.data.transaction() as unit:
                            await unit.upsert(note)
                            await unit.create(Folder(id=random.randrange(30)))
                            if random.random() < 0.5:
                                raise asyncio.CancelledError
                    elif random.random() < 0.5:
                        await handle.data.upsert(note)
                    else:
                        await handle.data.delete(Note, id)
                except (Exception, asyncio.CancelledError):  # noqa: BLE001 - many of them must fail
                    await asyncio.sleep(0)

        await asyncio.gather(*(work(seed) for seed in range(6)))
        for handle in handles:
            used = await handle.usage()
            rows = [await handle.data.count(model) for model in (Note, Folder)]
            assert [used.collections[name].used for name in ("notes", "folders")] == rows
            assert used.rows.used == sum(rows)
            assert await planned.tenants.recount(handle.context.tenant_id) == []

    async def test_a_purge_leaves_no_counter(self, planned: MultiTenantSDK) -> None:
        acme = await self.on_plan(planned, "small")
        id = acme.context.tenant_id
        async with acme:
            await acme.data.create(Folder(id=1))
        await planned.tenants.delete(id, reason="test")
        await planned.tenants.purge(id)
        used = await planned.tenants.usage(id)
        assert (used.rows.used, used.storage.used) == (0, 0)
        assert not any(item.used for item in used.all())

    async def test_an_unknown_plan_is_refused_and_adds_nothing(
        self, planned: MultiTenantSDK, database_config: Mapping[str, Any]
    ) -> None:
        with pytest.raises(UnknownPlan, match="conformance-five"):
            await planned.tenants.create(fresh("typo"), plan="conformance-fife")
        acme = await self.on_plan(planned, "five")
        with pytest.raises(UnknownPlan):
            await planned.tenants.update(acme.context.tenant_id, plan="gone")
        if Capability.MULTI_PROCESS not in planned.capabilities:
            return
        async with self.open_database(database_config) as unplanned:  # knows of no plan, so that it takes any
            await acme.data.create(Folder(id=1))
            await unplanned.tenants.update(acme.context.tenant_id, plan="gone")
        with pytest.raises(QuotaExceeded) as full:
            await acme.data.create(Folder(id=2))
        assert (full.value.limit, full.value.plan) == (0, "gone")
        assert await acme.data.get(Folder, 1) is not None

    # -- requests

    async def test_no_more_requests_pass_than_the_quota_says(
        self, planned: MultiTenantSDK, database_config: Mapping[str, Any]
    ) -> None:
        acme = await self.on_plan(planned, "small")
        id = acme.context.tenant_id
        errors: list[QuotaExceeded] = []

        async def enter(sdk: MultiTenantSDK) -> bool:
            try:
                async with sdk.tenant(id):
                    return True
            except QuotaExceeded as full:
                errors.append(full)
                return False

        passed = sum([await enter(planned) for _ in range(3)])
        if Capability.MULTI_PROCESS in planned.capabilities:
            async with self.open_database(database_config, **OPTIONS) as second:
                passed += sum(await asyncio.gather(*(enter(sdk) for sdk in (planned, second) * 5)))
        passed += sum(await asyncio.gather(*(enter(planned) for _ in range(5))))
        assert passed == 7
        assert {(error.quota, error.limit) for error in errors} == {("requests", 7)}
        assert all(error.retry_after and error.retry_after <= 31 * 24 * 3600 for error in errors)
        await planned.tenants.set_quota(id, requests=None, reason="test")
        assert await enter(planned)

    # -- flags

    async def test_a_flag_is_the_tenants_over_the_plans_over_its_default(
        self, planned: MultiTenantSDK
    ) -> None:
        acme = await self.on_plan(planned, "five")
        id, tenants = acme.context.tenant_id, planned.tenants
        assert await acme.flags.enabled("reports") is True
        assert await acme.flags.value("theme") == "light"
        await tenants.set_flag(id, "reports", False, reason="abuse")
        await tenants.set_flag(id, "theme", "dark", reason="asked", until=NOW + dt.timedelta(days=1))
        assert await acme.flags.enabled("reports") is False
        flags = await acme.flags.read()
        assert (flags["theme"], flags.explain("theme").source) == ("dark", "override")
        listed = {item.name: item for item in await tenants.flags(id)}
        assert (listed["reports"].source, listed["reports"].reason) == ("override", "abuse")
        assert listed["beta"].source in ("default", "rollout")
        await tenants.set_flag(id, "theme", "dark", reason="over", until=NOW - dt.timedelta(seconds=1))
        assert await acme.flags.value("theme") == "light"
        await tenants.clear_flag(id, "reports", reason="forgiven")
        assert await acme.flags.enabled("reports") is True
        for value in ("blue", True, None):
            with pytest.raises(InvalidRecord):
                await tenants.set_flag(id, "theme", value, reason="test")
        with pytest.raises(UnknownFlag, match="'reports'"):
            await acme.flags.value("report")
        with pytest.raises(InvalidRecord):
            await tenants.set_flag(id, "theme", "dark", reason=" ")

    # -- settings

    async def test_settings_are_checked_and_change_in_part(self, planned: MultiTenantSDK) -> None:
        tenants = planned.tenants
        tenant = await tenants.create(fresh("settings"), settings={"seats": 9})
        acme = planned.tenant(tenant.id)
        assert await acme.settings.get() == Preferences(timezone="UTC", seats=9)
        version = (await tenants.get(tenant.id)).version
        changed = await acme.settings.update({"timezone": "Europe/Berlin"}, version=version)
        assert (
            changed == await acme.settings.get(Preferences) == Preferences(timezone="Europe/Berlin", seats=9)
        )
        with pytest.raises(Conflict):
            await acme.settings.update(seats=1, version=version)
        for wrong in ({"seats": "many"}, {"timezone": None}, {"colour": "red"}):
            with pytest.raises(InvalidRecord) as refused:
                await acme.settings.update(wrong)
            assert refused.value.field == next(iter(wrong))
        with pytest.raises(InvalidRecord):
            await tenants.create(fresh("wrong"), settings={"seats": "many"})
        assert (await tenants.get(tenant.id)).settings == {"seats": 9, "timezone": "Europe/Berlin"}

    async def test_settings_that_the_model_does_not_know_are_kept(
        self, planned: MultiTenantSDK, database_config: Mapping[str, Any]
    ) -> None:
        if Capability.MULTI_PROCESS not in planned.capabilities:
            pytest.skip("the database lacks many processes")
        tenant = await planned.tenants.create(fresh("newer"))
        async with self.open_database(database_config) as newer:
            await newer.tenants.update(tenant.id, settings={"later": [1]})
        acme = planned.tenant(tenant.id)
        await asyncio.gather(acme.settings.update(seats=1), acme.settings.update(timezone="CET"))
        assert (await planned.tenants.get(tenant.id)).settings == {
            "later": [1],
            "seats": 1,
            "timezone": "CET",
        }

    async def test_each_change_is_in_the_audit_log(self, planned: MultiTenantSDK) -> None:
        acme = await self.on_plan(planned, "five")
        id, tenants = acme.context.tenant_id, planned.tenants
        await tenants.set_quota(id, rows=9, reason="grace")
        await tenants.set_flag(id, "reports", False, reason="abuse")
        await tenants.update(id, plan="conformance-free")
        await acme.settings.update(seats=2)
        async with planned.system(reason="look", tenant=id) as system:
            page = await system.data.read("tenantry_audit", where={"tenant": id}, order_by=["created_at"])
        actions = {row["action"]: row["details"] for row in page}
        assert actions["quota.set"] == {"rows": 9}
        assert actions["flag.set"]["value"] is False
        assert actions["plan"] == {"from": "conformance-five", "to": "conformance-free"}
        assert actions["settings"] == {"settings": ["seats"]}
