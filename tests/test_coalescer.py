"""Look-ups that arrive together: one statement, and nobody gets what is another's."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.coalescer import MAX_BATCH, Coalescer
from tenantry.context import Context, TenantContext
from tenantry.errors import DatabaseUnavailable
from tenantry.schema import Collection, collection_of
from tenantry.testing.models import Note, Sample
from tenantry.types import Record, tenant_id

NOTES = collection_of(Note)
SAMPLES = collection_of(Sample)
ACME = TenantContext(tenant_id("acme"))
GLOBEX = TenantContext(tenant_id("globex"))


class Database:
    """Answers look-ups with rows that say who asked, and remembers each statement."""

    def __init__(self, *, fails: BaseException | None = None, missing: frozenset[Any] = frozenset()) -> None:
        self.statements: list[tuple[Context, str, list[Any]]] = []
        self.held: asyncio.Event | None = None
        self._fails = fails
        self._missing = missing

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        self.statements.append((context, collection.name, list(ids)))
        await (self.held.wait() if self.held else asyncio.sleep(0))
        if self._fails is not None:
            raise self._fails
        rows = [
            {"id": id, "tenant": context.tenant_id, "data": {"n": []}, "labels": ["x"]}
            for id in ids
            if id not in self._missing
        ]
        fields = collection.fields
        return [dict.fromkeys(fields) | row for row in reversed(rows)]


class TestBatches:
    async def test_look_ups_of_one_tick_are_one_statement(self) -> None:
        database = Database(missing=frozenset({"c"}))
        coalescer = Coalescer(database.fetch)
        rows = await asyncio.gather(*(coalescer.get(ACME, NOTES, id) for id in "abcab"))
        assert database.statements == [(ACME, "notes", ["a", "b", "c"])]
        assert [row and row["id"] for row in rows] == ["a", "b", None, "a", "b"]

    async def test_a_later_tick_is_another_statement(self) -> None:
        database = Database()
        coalescer = Coalescer(database.fetch)
        await coalescer.get(ACME, NOTES, "a")
        await coalescer.get(ACME, NOTES, "a")
        assert [ids for _, _, ids in database.statements] == [["a"], ["a"]]

    async def test_one_that_arrives_while_a_batch_runs_does_not_get_its_older_answer(self) -> None:
        database = Database()
        database.held = asyncio.Event()
        coalescer = Coalescer(database.fetch)
        first = asyncio.ensure_future(coalescer.get(ACME, NOTES, "a"))
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(coalescer.get(ACME, NOTES, "a"))
        await asyncio.sleep(0.01)
        assert len(database.statements) == 2
        database.held.set()
        await asyncio.gather(first, second)

    async def test_a_batch_has_a_bound(self) -> None:
        database = Database()
        coalescer = Coalescer(database.fetch)
        rows = await asyncio.gather(*(coalescer.get(ACME, NOTES, f"{n}") for n in range(MAX_BATCH * 2 + 5)))
        assert [row and row["id"] for row in rows] == [f"{n}" for n in range(MAX_BATCH * 2 + 5)]
        assert sorted(len(ids) for _, _, ids in database.statements) == [5, MAX_BATCH, MAX_BATCH]

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["acme", "globex", "a", "a.b"]),
                st.sampled_from([None, "u1", "u2"]),
                st.sampled_from([{}, {"role": "a"}, {"role": "b"}, {"role": ["a"]}]),
                st.sampled_from([NOTES, SAMPLES]),
                st.sampled_from("abc"),
            ),
            max_size=25,
        )
    )
    def test_it_never_mixes_tenants_users_or_claims(self, asked: list[tuple[Any, ...]]) -> None:
        database = Database()

        async def play() -> None:
            coalescer = Coalescer(database.fetch)
            contexts = [TenantContext(tenant, user, claims) for tenant, user, claims, _, _ in asked]
            calls = [coalescer.get(c, ask[3], ask[4]) for c, ask in zip(contexts, asked, strict=True)]
            rows = await asyncio.gather(*calls)
            for (tenant, _, _, _, id), row in zip(asked, rows, strict=True):
                assert row is not None
                assert (row["id"], row["tenant"]) == (id, tenant)
            wanted = {(c, ask[3].name, ask[4]) for c, ask in zip(contexts, asked, strict=True)}
            sent = [(context, name, id) for context, name, ids in database.statements for id in ids]
            assert len(sent) == len(set(sent))
            assert set(sent) == wanted
            assert len({(context, name) for context, name, _ in wanted}) == len(database.statements)

        asyncio.run(play())

    async def test_a_batch_acts_in_nobodys_name(self) -> None:
        """A context variable of the first caller would be seen by what the batch runs for all of them."""
        name: ContextVar[str] = ContextVar("name", default="nobody")
        seen: list[str] = []

        async def fetch(context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
            seen.append(name.get())
            return []

        name.set("first")
        await Coalescer(fetch).get(ACME, NOTES, "a")
        assert seen == ["nobody"]


class TestAnswers:
    async def test_nobody_shares_what_can_be_changed(self) -> None:
        coalescer = Coalescer(Database().fetch)
        rows = await asyncio.gather(*(coalescer.get(ACME, SAMPLES, "a") for _ in range(3)))
        first, *others = [row for row in rows if row is not None]
        first["data"]["n"].append(1)
        first["labels"].append("y")
        first["tenant"] = "other"
        assert len(others) == 2
        for row in others:
            assert (row["data"], row["labels"], row["tenant"]) == ({"n": []}, ["x"], "acme")

    async def test_a_cancelled_waiter_cancels_nobody(self) -> None:
        database = Database()
        database.held = asyncio.Event()
        coalescer = Coalescer(database.fetch)

        async def ask(id: str) -> Record | None:
            return await coalescer.get(ACME, NOTES, id)

        tasks = [asyncio.create_task(ask(id)) for id in "aab"]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0)
        database.held.set()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(rows[0], asyncio.CancelledError)
        assert isinstance(rows[1], dict)
        assert isinstance(rows[2], asyncio.CancelledError)
        assert len(database.statements) == 1

    async def test_one_cancelled_before_its_batch_is_sent_cancels_nobody(self) -> None:
        coalescer = Coalescer(Database().fetch)
        first, second = coalescer.get(ACME, NOTES, "a"), coalescer.get(ACME, NOTES, "a")
        first.cancel()
        row = await second
        assert row is not None
        assert row["id"] == "a"

    @pytest.mark.parametrize("error", [DatabaseUnavailable("away"), RuntimeError("a bug")], ids=repr)
    async def test_a_failure_reaches_all_of_the_batch_and_no_other(self, error: Exception) -> None:
        failing, working = Database(fails=error), Database()

        async def fetch(context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
            return await (failing if context is ACME else working).fetch(context, collection, ids)

        coalescer = Coalescer(fetch)
        calls = [
            coalescer.get(ACME, NOTES, "a"),
            coalescer.get(ACME, NOTES, "b"),
            coalescer.get(GLOBEX, NOTES, "a"),
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[:2] == [error, error]
        assert isinstance(outcomes[2], dict)

    async def test_a_batch_that_is_cancelled_leaves_nobody_waiting(self) -> None:
        database = Database(fails=asyncio.CancelledError())
        coalescer = Coalescer(database.fetch)
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await coalescer.get(ACME, NOTES, "a")

    async def test_closing_waits_for_what_runs(self) -> None:
        database = Database()
        database.held = asyncio.Event()
        coalescer = Coalescer(database.fetch)
        waiting = asyncio.ensure_future(coalescer.get(ACME, NOTES, "a"))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(coalescer.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        database.held.set()
        await closing
        row = await waiting
        assert row is not None

    async def test_nothing_is_kept_once_it_is_answered(self) -> None:
        coalescer = Coalescer(Database().fetch)
        await asyncio.gather(*(coalescer.get(ACME, NOTES, f"{n}") for n in range(50)))
        await asyncio.sleep(0)
        gc.collect()
        assert not coalescer._batches
        assert not coalescer._running
