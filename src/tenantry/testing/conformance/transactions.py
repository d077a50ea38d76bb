"""Transactions and idempotency keys: all or nothing, and once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import get_args

import pytest

from tenantry.context import TenantContext, use_context
from tenantry.data import DataManager
from tenantry.errors import (
    Closed,
    ContextMismatch,
    DataError,
    IdempotencyConflict,
    InvalidQuery,
    InvalidRecord,
    NotFound,
    TransactionFailed,
    UniqueViolation,
    Unsupported,
)
from tenantry.hooks import Operation
from tenantry.ports import Capability, Isolation
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, needs
from tenantry.testing.models import Author, Book, Note, Review


class Transactions(Setting):
    """Several writes as one, and one request however often it is sent."""

    async def test_what_a_transaction_writes_appears_together(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        kept = await acme.data.create(Book(title="kept", isbn="1"))
        gone = await acme.data.create(Book(title="gone"))
        async with acme.data.transaction() as unit:
            author = await unit.create(Author(name="Austen"))
            book = await unit.create(Book(title="Emma", author_id=author.id))
            changed = await unit.update(kept, copies=5)
            await unit.delete(gone)
            await unit.bulk_create([Review(book_id=book.id, stars=stars) for stars in (1, 2)], atomic=True)
            merged = await unit.upsert("books", {"title": "merged", "isbn": "1"}, on=["isbn"])
            assert (await unit.get(Book, book.id), changed.version, merged["version"]) == (book, 2, 3)
            assert (await unit.count(Book), await unit.count(Review)) == (2, 2)
            assert not await unit.exists(Book, {"title": "gone"})
            page = await unit.read(Book, order_by="title", include=["author"], limit=1)
            rest = await unit.read(Book, order_by="title", cursor=page.next_cursor)
            assert [row.title for row in (*page, *rest)] == ["Emma", "merged"]
            assert set(page.included["author"]) == {author.id}
        assert await acme.data.get(Book, book.id) == book
        assert await acme.data.get("books", kept.id) == merged
        assert await acme.data.count(Review) == 2

    async def test_a_transaction_that_repeats_loses_no_update(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        book = await acme.data.create(Book(title="counted", copies=0))
        announced: list[Operation] = []
        sdk.add_after_hook(announced.append)

        async def add(unit: DataManager) -> int:
            found = await unit.get(Book, book.id)
            await asyncio.sleep(0)
            return (await unit.update(found, copies=found.copies + 1)).copies

        racers = [acme.data.run_transaction(add, attempts=50) for _ in range(4)]
        assert sorted(await asyncio.gather(*racers)) == [1, 2, 3, 4]
        stored = await acme.data.get(Book, book.id)
        assert (stored.copies, stored.version) == (4, 5)
        told = [item for item in announced if item.verb == "update" and item.error is None]
        assert len(told) == 4, "each is announced once, whatever was rolled back"

    async def test_an_isolation_level_can_be_chosen(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        for level in get_args(Isolation):
            async with acme.data.transaction(isolation=level) as unit:
                book = await unit.create(Book(title=level))
            assert (await acme.data.get(Book, book.id)).title == level

    async def test_nothing_is_seen_outside_before_the_end(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        old = await acme.data.create(Book(title="old"))
        async with acme.data.transaction() as unit:
            new = await unit.create(Book(title="new"))
            await unit.update(old, copies=5)
            assert [row.title for row in await acme.data.read(Book)] == ["old"]
            assert await acme.data.count(Book) == 1
            assert await acme.data.get(Book, old.id) == old
            with pytest.raises(NotFound):
                await acme.data.get(Book, new.id)
        assert await acme.data.count(Book) == 2

    @pytest.mark.parametrize(
        "error", [KeyError, asyncio.CancelledError, KeyboardInterrupt], ids=lambda e: e.__name__
    )
    async def test_an_error_in_the_block_undoes_everything(
        self, sdk: MultiTenantSDK, acme: TenantHandle, error: type[BaseException]
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        old = await acme.data.create(Book(title="old", isbn="1"))

        async def broken() -> None:
            async with acme.data.transaction() as unit:
                await unit.create(Book(title="new", isbn="2"))
                await unit.update(old, copies=5)
                await unit.delete(Book, old.id)
                raise error

        with pytest.raises(error):
            await broken()
        assert list(await acme.data.read(Book)) == [old]
        await acme.data.create(Book(title="new", isbn="2"))

    async def test_a_failed_write_dooms_the_transaction(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        old = await acme.data.create(Book(title="old", isbn="1"))
        stale = old.model_copy(update={"version": 7})
        doom: list[Callable[[DataManager], Awaitable[object]]] = [
            lambda unit: unit.create(Book(title="same", isbn="1")),
            lambda unit: unit.create(Review(book_id=uuid.uuid4())),
            lambda unit: unit.update(stale, copies=1),
            lambda unit: unit.delete(Book, uuid.uuid4()),
        ]

        async def swallow(failing: Callable[[DataManager], Awaitable[object]]) -> None:
            async with acme.data.transaction() as unit:
                await unit.create(Book(title="first"))
                with pytest.raises(DataError):
                    await failing(unit)
                for call in (unit.create(Book(title="second")), unit.count(Book), unit.get(Book, old.id)):
                    with pytest.raises(TransactionFailed):
                        await call

        for failing in doom:
            with pytest.raises(TransactionFailed):
                await swallow(failing)
            assert list(await acme.data.read(Book)) == [old]

    async def test_a_call_that_never_reached_the_database_dooms_nothing(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        async with acme.data.transaction() as unit:
            await unit.create(Book(title="first"))
            with pytest.raises(InvalidRecord):
                await unit.create("books", {"title": 5})
            with pytest.raises(InvalidQuery):
                await unit.read(Book, {"nothing": 1})
            with pytest.raises(NotFound):
                await unit.get(Book, uuid.uuid4())
        assert await acme.data.count(Book) == 1

    async def test_tasks_of_one_transaction_may_write_at_once(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        async with acme.data.transaction() as unit:
            await asyncio.gather(*(unit.create(Book(title=f"{number}")) for number in range(8)))
            assert await asyncio.gather(*(unit.count(Book) for _ in range(4))) == [8] * 4
        assert await acme.data.count(Book) == 8

    async def test_transactions_of_many_tenants_run_beside_each_other(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)

        async def fill(handle: TenantHandle, *, fail: bool) -> None:
            async with handle.data.transaction() as unit:
                for number in range(5):
                    await unit.create(Note(id=f"{number}", text=handle.context.tenant_id))
                    await asyncio.sleep(0)
                if fail:
                    raise KeyError

        outcomes = await asyncio.gather(
            fill(acme, fail=False), fill(globex, fail=True), fill(acme, fail=True), return_exceptions=True
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        assert {row.text for row in await acme.data.read(Note)} == {acme.context.tenant_id}
        assert (await acme.data.count(Note), await globex.data.count(Note)) == (5, 0)

    async def test_a_transaction_stays_with_its_tenant(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        async with acme.data.transaction() as unit:
            await unit.create(Note(id="n"))
            for context in (globex.context, TenantContext(acme.context.tenant_id, "another user")):
                with pytest.raises(ContextMismatch):
                    await unit.read(Note, context=context)
            with pytest.raises(Unsupported):
                unit.bind(globex.context)
            with use_context(globex.context), pytest.raises(ContextMismatch):
                await unit.create(Note(id="m"))
        async with sdk.data.transaction(context=globex.context) as unit:
            await unit.create(Note(id="n", text="theirs"))
        assert (await globex.data.get(Note, "n")).text == "theirs"

    async def test_a_transaction_inside_another_is_refused(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        async with acme.data.transaction() as unit:
            with pytest.raises(Unsupported):
                async with unit.transaction():
                    pass
            with pytest.raises(Unsupported):
                await unit.sql("SELECT 1")

    @pytest.mark.parametrize("ends_well", [True, False])
    async def test_a_transaction_that_is_over_reaches_nothing(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle, *, ends_well: bool
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        kept: list[DataManager] = []
        try:
            async with acme.data.transaction() as unit:
                kept.append(unit)
                if not ends_well:
                    raise KeyError
        except KeyError:
            pass
        async with globex.data.transaction() as other:
            await other.create(Note(id="theirs"))
            with pytest.raises((Closed, TransactionFailed)):
                await kept[0].create(Note(id="late"))
            for call in (kept[0].count(Note), kept[0].read(Note), kept[0].get(Note, "theirs")):
                with pytest.raises((Closed, TransactionFailed)):
                    await call
        assert (await acme.data.count(Note), await globex.data.count(Note)) == (0, 1)

    async def test_hooks_hear_of_what_was_committed_only(self, database_config: dict[str, object]) -> None:
        heard: list[Operation] = []
        async with self.open_database(database_config) as sdk:
            needs(sdk, Capability.TRANSACTIONS)
            acme = await self.new_tenant(sdk, "acme")
            sdk.add_after_hook(heard.append)
            async with acme.data.transaction() as unit:
                await unit.create(Note(id="a"))
                await unit.update(Note, "a", text="x")
                assert heard == []
            assert [operation.verb for operation in heard] == ["create", "update"]
            heard.clear()
            with pytest.raises(KeyError):
                await self.rolled_back(acme)
            assert heard == []

    # -- idempotency keys

    async def test_a_repeated_request_is_carried_out_once(self, acme: TenantHandle) -> None:
        request = Book(title="Emma", copies=1)
        first = await acme.data.create(request, idempotency_key="k")
        again = await acme.data.create(Book(title="Emma", copies=1), idempotency_key="k")
        plain = await acme.data.create("books", {"title": "Emma", "copies": 1}, idempotency_key="k2")
        assert again == first
        assert plain["id"] != first.id
        for _ in range(3):
            updated = await acme.data.update(Book, first.id, {"copies": 7}, idempotency_key="u")
            assert (updated.version, updated.copies) == (2, 7)
        assert await acme.data.count(Book) == 2

    async def test_a_key_used_for_something_else_conflicts(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma"), idempotency_key="k")
        for call in (
            acme.data.create(Book(title="Other"), idempotency_key="k"),
            acme.data.create(Note(id="Emma"), idempotency_key="k"),
            acme.data.update(book, copies=1, idempotency_key="k"),
        ):
            with pytest.raises(IdempotencyConflict):
                await call
        assert await acme.data.get(Book, book.id) == book
        assert (await acme.data.count(Book), await acme.data.count(Note)) == (1, 0)

    async def test_a_key_belongs_to_its_tenant(self, acme: TenantHandle, globex: TenantHandle) -> None:
        ours = await acme.data.create(Book(title="Emma"), idempotency_key="k")
        theirs = await globex.data.create(Book(title="Other"), idempotency_key="k")
        assert ours.id != theirs.id
        assert (await globex.data.get(Book, theirs.id)).title == "Other"

    @pytest.mark.parametrize("racers", [2, 10])
    async def test_the_same_request_sent_at_once_is_carried_out_once(
        self, acme: TenantHandle, racers: int
    ) -> None:
        rows = await asyncio.gather(
            *(acme.data.create("books", {"title": "Emma"}, idempotency_key="k") for _ in range(racers))
        )
        assert [row["id"] for row in rows] == [rows[0]["id"]] * racers
        assert await acme.data.count(Book) == 1
        same = Book(title="Persuasion", isbn="1")
        typed = await asyncio.gather(*(acme.data.create(same, idempotency_key="s") for _ in range(racers)))
        assert [row.id for row in typed] == [same.id] * racers
        versions = await asyncio.gather(
            *(acme.data.update(typed[0], copies=3, idempotency_key="u") for _ in range(racers))
        )
        assert [row.version for row in versions] == [2] * racers

    async def test_a_request_that_failed_may_be_sent_again(self, acme: TenantHandle) -> None:
        taken = await acme.data.create(Book(title="x", isbn="1"))
        with pytest.raises(UniqueViolation):
            await acme.data.create(Book(title="Emma", isbn="1"), idempotency_key="k")
        await acme.data.delete(taken)
        stored = await acme.data.create(Book(title="Emma", isbn="1"), idempotency_key="k")
        assert await acme.data.get(Book, stored.id) == stored

    async def test_a_key_that_was_rolled_back_is_free(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        with pytest.raises(KeyError):
            await self.rolled_back(acme)
        await acme.data.create(Book(title="Other"), idempotency_key="k")
        assert await acme.data.count(Book) == 1
        assert await acme.data.count(Note) == 0

    @staticmethod
    async def rolled_back(acme: TenantHandle) -> None:
        async with acme.data.transaction() as unit:
            await unit.create(Note(id="b"), idempotency_key="k")
            raise KeyError

    @pytest.mark.parametrize(
        "key", ["", "x" * 201, "a\0b", "\ud800", 5, None], ids=lambda key: repr(key)[:12]
    )
    async def test_a_key_is_text_of_a_reasonable_length(self, acme: TenantHandle, key: object) -> None:
        if key is None:
            await acme.data.create(Note(id="n"), idempotency_key=None)
            return
        with pytest.raises(InvalidRecord) as refused:
            await acme.data.create(Note(id="n"), idempotency_key=key)  # type: ignore[call-overload]
        assert refused.value.field == "idempotency_key"
        assert await acme.data.count(Note) == 0

    @pytest.mark.parametrize("key", ["'; --", "x" * 200, "ключ 😀", " "])
    async def test_any_such_text_is_a_key(self, acme: TenantHandle, key: str) -> None:
        for _ in range(2):
            await acme.data.create(Note(id="n"), idempotency_key=key)
        assert await acme.data.count(Note) == 1
