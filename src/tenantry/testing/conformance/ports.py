"""The adapter itself, without the SDK above it: each call scoped by its context, each unit whole."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tenantry.config import load_settings
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.errors import (
    Closed,
    ConfigurationError,
    Conflict,
    ContextMismatch,
    IsolationError,
    NotFound,
    ReadOnlyCollection,
    TenantDeleted,
    UniqueViolation,
)
from tenantry.hooks import Operation
from tenantry.ports import Capability, DatabaseAdapter, Delete, Executor, Insert, Purge, Update, Upsert, Write
from tenantry.query import Comparison, Query, Sort
from tenantry.registry import adapter_for
from tenantry.schema import collection_of
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, fresh, needs
from tenantry.testing.models import Author, Country, Note
from tenantry.types import Record

NOTES = collection_of(Note)
COUNTRIES = collection_of(Country)


def note(id: str, text: str = "") -> Record:
    """Return the record of a new note."""
    now = dt.datetime.now(dt.UTC)
    return {"id": id, "text": text, "version": 1, "created_at": now, "updated_at": now}


def all_notes(*, limit: int | None = None) -> Query:
    """Return the query for every note."""
    return Query(NOTES, tuple(NOTES.fields.values()), order=(Sort(NOTES.key),), limit=limit)


class Ports(Setting):
    """The port `DatabaseAdapter`, and the hooks that write through it."""

    @staticmethod
    def adapter(sdk: MultiTenantSDK) -> DatabaseAdapter:
        """Return the adapter under the SDK."""
        assert sdk._database is not None
        return sdk._database

    async def test_a_unit_of_writes_returns_what_each_of_them_stored(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        changes: Record = {"text": "changed"}
        results = await self.adapter(sdk).execute(
            acme.context,
            [
                Insert(NOTES, [note("a"), note("b")]),
                Insert(NOTES, [note("c")]),
                Update(NOTES, "a", changes, 1),
                Upsert(NOTES, note("b", "merged"), ("id",), ("text",)),
                Delete(NOTES, "c"),
            ],
        )
        assert [[row["id"] for row in rows] for rows in results] == [["a", "b"], ["c"], ["a"], ["b"], []]
        assert (results[2][0]["text"], results[2][0]["version"]) == ("changed", 2)
        assert (results[3][0]["text"], results[3][0]["version"]) == ("merged", 2)
        stored = await self.adapter(sdk).select(acme.context, all_notes())
        assert stored == [results[2][0], results[3][0]]
        assert await self.adapter(sdk).execute(acme.context, []) == []

    @pytest.mark.parametrize(
        ("failing", "error"),
        [
            (Insert(NOTES, [note("x"), note("old")]), UniqueViolation),
            (Update(NOTES, "missing", {"text": "x"}), NotFound),
            (Update(NOTES, "old", {"text": "x"}, 9), Conflict),
            (Delete(NOTES, "missing"), NotFound),
            (Insert(COUNTRIES, []), ReadOnlyCollection),
        ],
        ids=["unique", "missing", "stale", "delete", "shared"],
    )
    async def test_a_unit_of_writes_is_all_or_nothing(
        self, sdk: MultiTenantSDK, acme: TenantHandle, failing: Write, error: type[Exception]
    ) -> None:
        old = (await self.adapter(sdk).execute(acme.context, [Insert(NOTES, [note("old")])]))[0]
        unit: list[Write] = [
            Insert(NOTES, [note("a")]),
            Update(NOTES, "old", {"text": "new"}, 1),
            failing,
            Delete(NOTES, "old"),
        ]
        with pytest.raises(error):
            await self.adapter(sdk).execute(acme.context, unit)
        assert await self.adapter(sdk).select(acme.context, all_notes()) == old

    async def test_every_call_is_scoped_by_its_context(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        adapter = self.adapter(sdk)
        mine, theirs = fresh("mine"), fresh("theirs")
        await adapter.execute(acme.context, [Insert(NOTES, [note(mine)])])
        await adapter.execute(globex.context, [Insert(NOTES, [note(theirs), note("both")])])
        await adapter.execute(acme.context, [Insert(NOTES, [note("both", "ours")])])

        async def seen(executor: Executor, context: Context) -> tuple[set[str], int, set[str]]:
            rows = await executor.select(context, all_notes())
            fetched = await executor.fetch(context, NOTES, [mine, theirs, "both", "nothing"])
            return (
                {row["id"] for row in rows},
                await executor.count(context, all_notes()),
                {r["id"] for r in fetched},
            )

        for handle, expected in ((acme, {mine, "both"}), (globex, {theirs, "both"})):
            assert await seen(adapter, handle.context) == (expected, 2, expected)
            async with adapter.transaction(handle.context) as unit:
                assert await seen(unit, handle.context) == (expected, 2, expected)
        narrow = SystemContext("test", None, acme.context.tenant_id)
        assert await seen(adapter, narrow) == ({mine, "both"}, 2, {mine, "both"})
        rows = await adapter.fetch(SystemContext("test"), NOTES, [mine, theirs])
        assert {(row["tenant_id"], row["id"]) for row in rows} == {
            (acme.context.tenant_id, mine),
            (globex.context.tenant_id, theirs),
        }

    async def test_an_empty_list_of_ids_finds_nothing(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await acme.data.create(Note(id="n"))
        assert await self.adapter(sdk).fetch(acme.context, NOTES, []) == []
        assert await self.adapter(sdk).fetch(acme.context, NOTES, ["n", "n"]) == [
            (await acme.data.get(Note, "n")).model_dump()
        ]

    async def test_a_query_without_a_limit_returns_all(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await acme.data.bulk_create((Note(id=f"{number:05}") for number in range(2_500)), atomic=True)
        rows = await self.adapter(sdk).select(acme.context, all_notes())
        assert [row["id"] for row in rows] == [f"{number:05}" for number in range(2_500)]
        assert len(await self.adapter(sdk).select(acme.context, all_notes(limit=3))) == 3

    async def test_no_tenant_purges(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        for handle in (acme, globex):
            await handle.data.create(Note(id="n"))
        narrow = SystemContext("test", None, acme.context.tenant_id)
        refused: list[tuple[Context, Purge]] = [
            (acme.context, Purge(NOTES)),
            (SystemContext("test"), Purge(NOTES)),
            (narrow, Purge(COUNTRIES)),
        ]
        for context, purge in refused:
            with pytest.raises(IsolationError):
                await self.adapter(sdk).execute(context, [purge])
        assert await self.adapter(sdk).execute(narrow, [Purge(NOTES)]) == [[{"deleted": 1, "remaining": 0}]]
        assert (await acme.data.count(Note), await globex.data.count(Note)) == (0, 1)

    async def test_a_transaction_serves_its_own_context(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        async with self.adapter(sdk).transaction(acme.context) as unit:
            for context in (
                globex.context,
                TenantContext(acme.context.tenant_id, "user"),
                SystemContext("test"),
                SystemContext("test", None, acme.context.tenant_id),
            ):
                calls: list[Callable[[], Awaitable[object]]] = [
                    lambda c=context: unit.fetch(c, NOTES, ["n"]),  # type: ignore[misc]
                    lambda c=context: unit.select(c, all_notes()),  # type: ignore[misc]
                    lambda c=context: unit.count(c, all_notes()),  # type: ignore[misc]
                    lambda c=context: unit.execute(c, [Insert(NOTES, [note("n")])]),  # type: ignore[misc]
                ]
                for call in calls:
                    with pytest.raises(ContextMismatch):
                        await call()
        assert await acme.data.count(Note) == 0

    async def test_only_registered_collections_are_reached(
        self, sdk: MultiTenantSDK, acme: TenantHandle, database_config: Mapping[str, Any]
    ) -> None:
        async with self.open_database(database_config, models=[Note]) as narrow:
            authors = collection_of(Author)
            adapter = self.adapter(narrow)
            query = Query(
                authors, tuple(authors.fields.values()), Comparison(authors.key, "eq", uuid.uuid4())
            )
            for call in (
                adapter.fetch(acme.context, authors, [uuid.uuid4()]),
                adapter.select(acme.context, query),
                adapter.count(acme.context, query),
                adapter.execute(acme.context, [Delete(authors, uuid.uuid4())]),
            ):
                with pytest.raises(IsolationError):
                    await call

    async def test_preparing_it_again_changes_nothing(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await acme.data.create(Note(id="n"))
        adapter = self.adapter(sdk)
        await adapter.create_schema()
        assert await adapter.check_schema() == []
        await adapter.attest()
        assert await acme.data.count(Note) == 1

    async def test_closing_it_twice_is_fine(self, database_config: Mapping[str, Any]) -> None:
        options = {
            "schema_mode": "create",
            "url": database_config.get("url"),
            **database_config.get("database", {}),
        }
        settings = load_settings({"database": options}, env={}).database
        adapter = adapter_for(settings.url.get_secret_value())(settings)
        await adapter.open([NOTES])
        await adapter.close()
        await adapter.close()
        with pytest.raises(Closed):
            await adapter.fetch(TenantContext(fresh("x")), NOTES, ["n"])  # type: ignore[arg-type]

    async def test_a_purge_knows_when_it_does_not_know_every_table(
        self, sdk: MultiTenantSDK, database_config: Mapping[str, Any]
    ) -> None:
        """A program that has only some of the models must not certify that nothing is left."""
        needs(sdk, Capability.MULTI_PROCESS)
        acme = await self.new_tenant(sdk, "acme")
        id = acme.context.tenant_id
        await acme.data.create(Author(name="a"))
        assert await self.adapter(sdk).undeclared_tables() == []
        await sdk.tenants.delete(id, reason="test")
        async with self.open_database(database_config, models=[Note]) as narrow:
            others = await self.adapter(narrow).undeclared_tables()
            assert {"authors", "books", "samples"} <= set(others)
            assert not set(others) & {"notes", "countries"}
            with pytest.raises(ConfigurationError):
                await narrow.tenants.purge(id)
            assert "authors" not in (await narrow.tenants.purge(id, leave_others=True)).deleted
        async with sdk.system(reason="look", tenant=id) as system:
            assert await system.data.count(Author) == 1

    # -- fences

    async def test_a_fence_refuses_one_tenant_for_good(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        """Asked of the database itself: the tenant's status, which a lease knows, is active all the time."""
        adapter, context = self.adapter(sdk), acme.context
        await acme.data.create(Note(id="before"))
        for _ in range(2):
            await adapter.fence(context.tenant_id)
        writes: list[Write] = [
            Insert(NOTES, [note("late")]),
            Update(NOTES, "before", {"text": "late"}),
            Delete(NOTES, "before"),
            Upsert(NOTES, note("before", "late"), ("id",), ("text",)),
        ]
        for write in writes:
            with pytest.raises(TenantDeleted) as caught:
                await adapter.execute(context, [write])
            assert caught.value.tenant_id == context.tenant_id
        if Capability.TRANSACTIONS in adapter.capabilities:
            with pytest.raises(TenantDeleted):
                async with adapter.transaction(context) as unit:
                    await unit.execute(context, [writes[0]])
        narrow = SystemContext("test", None, context.tenant_id)
        assert [row["text"] for row in await adapter.select(narrow, all_notes())] == [""]
        await globex.data.create(Note(id="late"))

    async def test_a_fence_waits_for_a_transaction_from_before(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        adapter, context = self.adapter(sdk), acme.context
        ended = False

        async def fence() -> bool:
            await adapter.fence(context.tenant_id)
            return ended

        async with adapter.transaction(context) as unit:
            await unit.execute(context, [Insert(NOTES, [note("n")])])
            fencing = asyncio.create_task(fence())
            await asyncio.sleep(0.3)
            ended = True
        assert await fencing

    # -- hooks that write

    async def test_what_a_hook_adds_shares_the_fate_of_the_write(
        self, database_config: Mapping[str, Any]
    ) -> None:
        async with self.open_database(database_config) as sdk:
            acme = await self.new_tenant(sdk, "acme")
            wrong: list[Write] = []

            def log(operation: Operation) -> list[Write]:
                ids = ",".join(str(id) for id in operation.ids)
                return [Insert(NOTES, [note(f"log:{operation.verb}:{ids}")]), *wrong]

            sdk.add_within_hook(log)
            await acme.data.create(Note(id="a"))
            await acme.data.update(Note, "a", text="x")
            await acme.data.bulk_create([Note(id="b"), Note(id="c")], atomic=True)
            await acme.data.delete(Note, "b")
            logged = ["log:create:a", "log:create:b", "log:create:c", "log:delete:b", "log:update:a"]
            expected = ["a", "c", *logged]
            assert [row["id"] for row in await acme.data.read("notes", order_by="id")] == expected
            with pytest.raises(UniqueViolation):
                await acme.data.create(Note(id="c"))
            wrong.append(Delete(NOTES, "missing"))
            with pytest.raises(NotFound):
                await acme.data.create(Note(id="d"))
            assert [row["id"] for row in await acme.data.read("notes", order_by="id")] == expected
