"""The data manager itself: how it is called, and what it does beside what every database must do."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pydantic
import pytest

from tenantry import Model, MultiTenantSDK, TenantContext, TenantHandle, Unique, use_context
from tenantry.errors import (
    ContextMismatch,
    InvalidQuery,
    InvalidRecord,
    NotFound,
    TenantRequired,
    TenantSuspended,
    UnknownCollection,
    Unsupported,
)
from tenantry.testing.models import Folder, Note
from tenantry.types import tenant_id


class Reading(Model):
    """Checks its fields together."""

    __collection__ = "readings"

    low: int = 0
    high: int = 10
    tags: list[str] = pydantic.Field(default_factory=list)
    context: str = ""
    version_name: Annotated[str | None, Unique] = None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Reading:
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


@pytest.fixture
async def sdk() -> AsyncIterator[MultiTenantSDK]:
    async with MultiTenantSDK.open("memory://", models=[Note, Folder, Reading], env={}) as sdk:
        for name in ("acme", "globex"):
            await sdk.tenants.create(name)
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme")


class TestCalls:
    async def test_the_three_ways_to_name_a_tenant(self, sdk: MultiTenantSDK) -> None:
        context = TenantContext(tenant_id("acme"))
        await sdk.tenant("acme").data.create(Note(id="bound"))
        await sdk.data.create(Note(id="given"), context=context)
        with use_context(context):
            await sdk.data.create(Note(id="ambient"))
        await sdk.data.bind(context).create(Note(id="rebound"))
        assert await sdk.data.count(Note, context=context) == 4
        with pytest.raises(TenantRequired, match=r"sdk\.tenant"):
            await sdk.data.count(Note)

    async def test_a_handle_may_be_given_its_own_context(self, acme: TenantHandle) -> None:
        assert await acme.data.count(Note, context=TenantContext(tenant_id("acme"))) == 0
        with pytest.raises(ContextMismatch):
            await acme.data.count(Note, context=TenantContext(tenant_id("acme"), "somebody"))

    async def test_a_stranger_for_a_model_is_unknown(self, acme: TenantHandle) -> None:
        class Other(Model):
            __collection__ = "notes"

        class Derived(Note):
            pass

        for stranger in (Other, Derived, int, None, 5, object(), Note(id="x"), [Note]):
            with pytest.raises(UnknownCollection):
                await acme.data.read(stranger)  # type: ignore[call-overload]
        with pytest.raises(UnknownCollection):
            await acme.data.create(Derived(id="x"))

    @pytest.mark.parametrize("record", [None, "x", 5, [("id", "x")], ...], ids=repr)
    async def test_a_record_is_a_mapping(self, acme: TenantHandle, record: Any) -> None:
        with pytest.raises(InvalidRecord):
            await acme.data.create("notes", record)
        with pytest.raises(InvalidRecord):
            await acme.data.bulk_create("notes", [record], atomic=True)

    async def test_many_records_are_of_one_collection(self, acme: TenantHandle) -> None:
        with pytest.raises(InvalidRecord):
            await acme.data.bulk_create([Note(id="a"), Folder(id=1)], atomic=True)
        assert await acme.data.count(Note) == await acme.data.count(Folder) == 0

    async def test_many_records_may_come_from_a_generator(self, acme: TenantHandle) -> None:
        rows = (await acme.data.bulk_create((Note(id=f"{number}") for number in range(3)), atomic=True)).rows
        assert [row.id for row in rows] == ["0", "1", "2"]

    async def test_a_field_may_have_the_name_of_an_option(self, acme: TenantHandle) -> None:
        row = await acme.data.create(Reading(context="here"))
        assert (await acme.data.update(Reading, row.id, {"context": "there"})).context == "there"

    async def test_what_would_be_ignored_is_refused(self, acme: TenantHandle) -> None:
        """An argument that has no meaning beside an instance must not look as if it had one."""
        note = await acme.data.create(Note(id="a"))
        calls = (
            lambda: acme.data.create(note, {"id": "b"}),  # type: ignore[call-overload]
            lambda: acme.data.update(note, "b"),  # type: ignore[call-overload]
            lambda: acme.data.update(note, version=7),
            lambda: acme.data.delete(note, "b"),  # type: ignore[call-overload]
            lambda: acme.data.delete(note, version=7),  # type: ignore[call-overload]
        )
        for call in calls:
            with pytest.raises((TypeError, InvalidRecord, InvalidQuery)):
                await call()
        assert await acme.data.get(Note, "a") == note

    async def test_a_model_that_checks_its_fields_together_does_so_on_update(
        self, acme: TenantHandle
    ) -> None:
        row = await acme.data.create(Reading())
        with pytest.raises(InvalidRecord, match="low must not exceed high"):
            await acme.data.update(row, low=20)
        with pytest.raises(InvalidRecord):
            await acme.data.create("readings", {"low": 5, "high": 1})
        assert (await acme.data.update(row, low=20, high=30)).low == 20

    async def test_what_a_caller_gave_is_not_kept(self, acme: TenantHandle) -> None:
        given = Reading(tags=["a"])
        stored = await acme.data.create(given)
        given.tags.append("b")
        stored.tags.append("c")
        changes = {"tags": ["d"]}
        assert (await acme.data.get(Reading, stored.id)).tags == ["a"]
        changed = await acme.data.update(Reading, stored.id, changes)
        changes["tags"].append("e")
        assert (await acme.data.get(Reading, stored.id)).tags == changed.tags == ["d"]

    async def test_upsert_names_a_group_by_a_list_or_a_tuple(self, acme: TenantHandle) -> None:
        for on in (["version_name"], ("version_name",), "version_name"):
            await acme.data.upsert(Reading(version_name="x"), on=on)
        assert await acme.data.count(Reading) == 1

    async def test_raw_sql_is_refused_where_nothing_holds_it(self, acme: TenantHandle) -> None:
        with pytest.raises(Unsupported):
            await acme.data.sql("SELECT 1")


class TestTasks:
    async def test_a_background_task_keeps_the_tenant_it_was_started_for(self, sdk: MultiTenantSDK) -> None:
        go = asyncio.Event()

        async def later(id: str) -> None:
            await go.wait()
            await sdk.data.create(Note(id=id))

        tasks = []
        for name in ("acme", "globex"):
            with use_context(TenantContext(tenant_id(name))):
                tasks.append(asyncio.create_task(later(name)))
        with use_context(TenantContext(tenant_id("globex"))):
            go.set()
            await asyncio.gather(*tasks)
        for name in ("acme", "globex"):
            assert [row.id for row in await sdk.tenant(name).data.read(Note)] == [name]

    async def test_a_thread_that_comes_back_keeps_it(self, sdk: MultiTenantSDK) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            asyncio.run_coroutine_threadsafe(sdk.data.create(Note(id="thread")), loop).result(5)

        with use_context(TenantContext(tenant_id("acme"))):
            await asyncio.to_thread(work)
        assert await sdk.tenant("acme").data.exists(Note)

    async def test_a_thread_of_its_own_has_no_tenant(self, sdk: MultiTenantSDK) -> None:
        loop, refused = asyncio.get_running_loop(), []

        def work() -> None:
            try:
                asyncio.run_coroutine_threadsafe(sdk.data.count(Note), loop).result(5)
            except TenantRequired as error:
                refused.append(error)

        with use_context(TenantContext(tenant_id("acme"))):
            thread = threading.Thread(target=work)
            thread.start()
            await asyncio.to_thread(thread.join)
        assert refused

    async def test_handles_of_many_tenants_work_at_once(self, sdk: MultiTenantSDK) -> None:
        names = [f"t{number}" for number in range(20)]
        for name in names:
            await sdk.tenants.create(name)

        async def work(name: str) -> None:
            async with sdk.tenant(name) as handle:
                for number in range(5):
                    await handle.data.create(Note(id=f"{number}", text=name))
                    assert (await handle.data.get(Note, f"{number}")).text == name

        await asyncio.gather(*(work(name) for name in names))
        for name in names:
            assert {row.text for row in await sdk.tenant(name).data.read(Note)} == {name}

    async def test_without_coalescing_it_is_the_same(self) -> None:
        options: dict[str, Any] = {"models": [Note], "performance": {"coalesce": False}, "env": {}}
        async with MultiTenantSDK.open("memory://", **options) as sdk:
            await sdk.tenants.create("acme")
            data = sdk.tenant("acme").data
            note = await data.create(Note(id="a"))
            rows = await asyncio.gather(*(data.get(Note, id) for id in "aab"), return_exceptions=True)
            assert rows[:2] == [note, note]
            assert rows[0] is not rows[1]
            assert isinstance(rows[2], NotFound)


class TestTransactions:
    async def test_a_tenant_that_is_suspended_meanwhile_gets_no_further(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        async def work() -> None:
            async with acme.data.transaction() as unit:
                await unit.create(Note(id="a"))
                suspended = asyncio.create_task(sdk.tenants.suspend("acme", reason="test"))
                await asyncio.sleep(0)
                await unit.create(Note(id="b"))
                await asyncio.wait([suspended], timeout=0.05)
                if suspended.done():
                    await unit.create(Note(id="c"))

        await asyncio.gather(work(), return_exceptions=True)
        await asyncio.sleep(0.05)
        with pytest.raises(TenantSuspended):
            await acme.data.count(Note)

    async def test_a_manager_knows_its_transaction(self, acme: TenantHandle) -> None:
        async with acme.data.transaction() as unit:
            assert type(unit) is type(acme.data)
            with pytest.raises(Unsupported):
                unit.bind(acme.context)


def test_a_handle_shows_its_tenant_and_nothing_else() -> None:
    async def shown() -> str:
        async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
            return repr(sdk.tenant("acme", user="u", claims={"token": "hunter2"}))

    assert asyncio.run(shown()) == "TenantHandle('acme', user='u')"


def test_a_context_is_replaced_never_changed() -> None:
    context = TenantContext(tenant_id("acme"), "u")
    other = dataclasses.replace(context, user_id="v")
    assert (context.user_id, other.user_id) == ("u", "v")
    assert context.claims_digest != other.claims_digest
