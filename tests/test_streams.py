"""Streams hold next to nothing, and lose nothing."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tenantry import KeyedModel, MultiTenantSDK, sync
from tenantry.context import Context, use_context
from tenantry.databases.memory import MemoryAdapter
from tenantry.errors import Closed, DatabaseUnavailable, TenantSuspended
from tenantry.query import Query
from tenantry.registry import ADAPTERS
from tenantry.types import Record
from tests.databases.postgres.deployment import deploy

ROWS = 100_000
_MEGABYTE = 2**20
# The rows are made by the engine: to create them through the SDK would take longer than to read them.
_FILL = f"""
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
INSERT INTO lines SELECT 'acme', i, 'a text of some length, number ' || i, 1, 0, 0 FROM n
"""


class Line(KeyedModel):
    __collection__ = "lines"

    id: int
    text: str


async def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    async with MultiTenantSDK.open(
        f"sqlite:///{tmp_path}/lines.db", models=[Line], schema="create", env={}
    ) as sdk:
        await sdk.tenants.create("acme")
        with sqlite3.connect(tmp_path / "lines.db") as connection:
            connection.execute(_FILL)
        acme = sdk.tenant("acme").data
        await anext(acme.stream(Line))  # what is made once and kept
        gc.collect()
        tracemalloc.start()
        try:
            count, page = 0, await acme.read(Line, limit=5_000)
            whole = tracemalloc.get_traced_memory()[1]
            assert len(page) == 5_000
            del page
            gc.collect()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            async for line in acme.stream(Line):
                count += line.id == count + 1
            grown = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert count == ROWS
    assert grown < _MEGABYTE < whole, (grown, whole)  # a twentieth of the rows, held, is more


async def test_a_connection_is_free_between_two_batches(database_url: str) -> None:
    options = await deploy(database_url)
    options["database"] |= {"pool_size": 1, "acquire_timeout": 2.0}
    async with MultiTenantSDK.open(**options, models=[Line], schema="create") as sdk:
        streams = []
        for tenant in ("acme", "globex", "initech"):
            await sdk.tenants.create(tenant)
            await sdk.tenant(tenant).data.bulk_create([Line(id=n, text=tenant) for n in range(6)])
            streams.append(sdk.tenant(tenant).data.stream(Line, batch_size=2))
        seen = [[(await anext(stream)).text for stream in streams] for _ in range(5)]
        assert seen == [["acme", "globex", "initech"]] * 5
        assert await sdk.tenant("acme").data.count(Line) == 6


class Failing(MemoryAdapter):
    """Fails to read lines, every second time."""

    armed = False

    async def select(self, context: Context, query: Query) -> list[Record]:
        Failing.armed = not Failing.armed and query.collection.name == "lines"
        if Failing.armed:
            raise DatabaseUnavailable("away")
        return await super().select(context, query)


async def test_a_batch_that_failed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "failing", f"{__name__}:Failing")
    async with MultiTenantSDK.open("failing://", models=[Line], env={}) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme").data
        await acme.bulk_create([Line(id=number, text="") for number in range(5)])
        seen, failures = [], 0
        stream = acme.stream(Line, batch_size=2)
        monkeypatch.setattr(Failing, "armed", False)
        while True:
            try:
                seen.append((await anext(stream)).id)
            except DatabaseUnavailable:
                failures += 1
            except StopAsyncIteration:
                break
        assert (seen, failures) == ([0, 1, 2, 3, 4], 3)


async def test_a_cancelled_wait_loses_no_row() -> None:
    async with MultiTenantSDK.open("memory://", models=[Line], env={}) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme").data
        await acme.bulk_create([Line(id=number, text="") for number in range(4)])
        stream = acme.stream(Line, batch_size=1)
        database: Any = sdk._database
        select, reached = database.select, asyncio.Event()

        async def slow(*asked: Any) -> Sequence[Record]:
            reached.set()
            await asyncio.sleep(0)
            rows: Sequence[Record] = await select(*asked)
            return rows

        database.select = slow
        first = asyncio.ensure_future(anext(stream))
        await reached.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert [line.id async for line in stream] == [0, 1, 2, 3]


async def test_a_stream_is_of_one_tenant_while_that_is_served() -> None:
    async with MultiTenantSDK.open("memory://", models=[Line], env={}) as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
            await sdk.tenant(tenant).data.bulk_create([Line(id=n, text=tenant) for n in range(4)])
        with use_context(sdk.tenant("acme").context):
            stream = sdk.data.stream(Line, batch_size=1)
        assert (await anext(stream)).text == "acme"
        with use_context(sdk.tenant("globex").context):
            assert (await anext(stream)).text == "acme"
        await sdk.tenants.suspend("acme", reason="unpaid")
        with pytest.raises(TenantSuspended):
            await anext(stream)


def test_the_synchronous_stream_is_of_one_opening() -> None:
    sdk = sync.MultiTenantSDK.open("memory://", models=[Line], env={})
    with sdk:
        sdk.tenants.create("acme")
        acme = sdk.tenant("acme").data
        acme.bulk_create([Line(id=number, text="") for number in range(5)])
        with acme.stream(Line, batch_size=2) as stream:
            assert [next(stream).id, *(line.id for line in stream)] == [0, 1, 2, 3, 4]
            assert list(stream) == []
        assert [len(rows) for rows in acme.stream(Line, batch_size=3).batches()] == [3, 2]
        kept = acme.stream(Line, batch_size=2)
        assert next(kept).id == 0
    with pytest.raises(Closed):
        kept.next_batch() and kept.next_batch()
