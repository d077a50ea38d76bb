"""Streams: every row once, in order, of one tenant, and nothing held in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pydantic
import pytest

from tenantry.context import use_context
from tenantry.errors import Closed, ContextMismatch, InvalidQuery, TenantSuspended, Unsupported
from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, chance, needs
from tenantry.testing.models import Author, Colour, Note, Sample


class Brief(pydantic.BaseModel):
    """Some fields of a sample."""

    number: int | None
    label: str | None


class Streams(Setting):
    """Reading all rows, a batch at a time."""

    async def test_a_stream_is_all_pages_in_one(self, acme: TenantHandle) -> None:
        dice = chance("stream")
        await acme.data.bulk_create(
            [
                Sample(number=dice.choice([None, 1, 2]), label=dice.choice(["a", "b"]), colour=Colour.RED)
                for _ in range(25)
            ]
        )
        for order in (None, "number", ["-label", "number"], ["-number", "-label"]):
            wanted = list(await acme.data.read(Sample, order_by=order))
            for size in (1, 4, 25, 100):
                found = [row async for row in acme.data.stream(Sample, order_by=order, batch_size=size)]
                assert found == wanted, (order, size)
        ones = await acme.data.read("samples", {"number": 1}, fields=["label"])
        stream = acme.data.stream("samples", lambda s: s.number == 1, fields=["label"], batch_size=2)
        assert [row async for row in stream] == list(ones)
        brief = await acme.data.read(Sample, into=Brief, order_by="label")
        batches = acme.data.stream(Sample, into=Brief, order_by="label", batch_size=10).batches()
        sizes = [rows async for rows in batches]
        assert [len(rows) for rows in sizes] == [10, 10, 5]
        assert [row for rows in sizes for row in rows] == list(brief)

    async def test_it_may_be_left_and_is_over_once(self, acme: TenantHandle) -> None:
        await acme.data.bulk_create([Note(id=str(number)) for number in range(9)])
        async with acme.data.stream(Note, batch_size=2) as stream:
            assert (await anext(stream)).id == "0"
            assert [note.id for note in await stream.next_batch()] == ["1"]
            assert (await anext(stream)).id == "2"
        assert [note async for note in stream] == []
        assert await stream.next_batch() == []
        for faulty in ({"batch_size": 0}, {"batch_size": 10_001}, {"where": {"x": 1}}, {"order_by": "x"}):
            with pytest.raises(InvalidQuery):
                acme.data.stream("notes", **faulty)

    async def test_rows_that_stay_come_once_while_others_write(self, acme: TenantHandle) -> None:
        dice = chance("writers")
        made = await acme.data.bulk_create([Note(id=f"{n:03}a") for n in range(60)])
        stay = {note.id for note in made.rows}
        for number in range(0, 60, 2):
            await acme.data.create(Note(id=f"{number:03}b"))
        seen: list[str] = []
        async for note in acme.data.stream(Note, order_by="-id", batch_size=7):
            seen.append(note.id)
            number = dice.randrange(60)
            await acme.data.upsert(Note(id=f"{number:03}c"))
            if await acme.data.exists(Note, {"id": f"{number:03}b"}):
                await acme.data.delete(Note, f"{number:03}b")
        assert len(seen) == len(set(seen))
        assert stay <= set(seen)
        assert seen == sorted(seen, reverse=True)

    async def test_it_keeps_the_tenant_it_was_made_for(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        for handle in (acme, globex):
            name = handle.context.tenant_id
            await handle.data.bulk_create([Note(id=str(number), text=name) for number in range(3)])
        with use_context(acme.context):
            ambient = sdk.data.stream(Note, batch_size=1)
            with pytest.raises(ContextMismatch):
                globex.data.stream(Note)
        streams = [ambient, acme.data.stream(Note, batch_size=1), sdk.data.stream(Note, context=acme.context)]
        with use_context(globex.context):
            for stream in streams:
                assert (await anext(stream)).text == acme.context.tenant_id
            assert (await sdk.data.get(Note, "0")).text == globex.context.tenant_id
        for stream in streams:
            assert [note.text async for note in stream] == [acme.context.tenant_id] * 2

    async def test_suspension_ends_it(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await acme.data.bulk_create([Note(id=str(number)) for number in range(4)])
        stream = acme.data.stream(Note, batch_size=2)
        assert (await anext(stream)).id == "0"
        await sdk.tenants.suspend(acme.context.tenant_id, reason="unpaid")
        assert (await anext(stream)).id == "1"  # it was read before
        for _ in range(2):
            with pytest.raises(TenantSuspended):
                await anext(stream)
        await sdk.tenants.resume(acme.context.tenant_id)
        assert [note.id async for note in stream] == ["2", "3"]

    async def test_a_stream_in_a_transaction(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        await acme.data.create(Note(id="0"))
        async with acme.data.transaction() as work:
            await work.create(Note(id="1"))
            stream = work.stream(Note, batch_size=1)
            assert (await anext(stream)).id == "0"
            await work.create(Note(id="2"))
            assert [note.id async for note in stream] == ["1", "2"]
            kept = work.stream(Note, batch_size=1)
            await anext(kept)
        with pytest.raises(Closed):
            await anext(kept)

    async def test_the_system_streams_rows_of_all_tenants(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        marker = f"of {acme.context.tenant_id}"
        for handle in (acme, globex):
            await handle.data.bulk_create([Author(name=marker) for _ in range(3)])
        tenants = [acme.context.tenant_id, globex.context.tenant_id]
        asked: dict[str, Any] = {"where": {"name": marker}, "order_by": "name", "batch_size": 2}
        async with sdk.system(reason="stream") as system:
            found = [row["tenant_id"] async for row in system.data.stream("authors", **asked)]
            assert sorted(found) == sorted(tenants * 3)
            with pytest.raises(Unsupported):
                system.data.stream(Author)
            kept = system.data.stream("authors", **asked)
            await anext(kept)
        async with sdk.system(reason="stream", tenant=tenants[0]) as system:
            found = [row["tenant_id"] async for row in system.data.stream("authors", **asked)]
            assert found == tenants[:1] * 3

    async def test_one_task_reads_a_stream(self, acme: TenantHandle) -> None:
        await acme.data.bulk_create([Note(id=str(number)) for number in range(4)])
        stream = acme.data.stream(Note, batch_size=2)
        answers = await asyncio.gather(*(stream.next_batch() for _ in range(2)), return_exceptions=True)
        read = [answer for answer in answers if isinstance(answer, list)]
        refused = [answer for answer in answers if not isinstance(answer, list)]
        assert all(isinstance(answer, Unsupported) for answer in refused)
        assert [note.id for rows in read for note in rows] == [str(n) for n in range(2 * len(read))]
