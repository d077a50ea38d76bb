"""Order and pages: the same on every database, and whole while others write."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tenantry.errors import InvalidQuery
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, chance
from tenantry.testing.models import Colour, Sample

# Each field's values in ascending order. Nulls come behind all of them.
ASCENDING: dict[str, list[Any]] = {
    "label": [
        "",
        " ",
        "10",
        "9",
        "A",
        "Z",
        "_",
        "a",
        "aa",
        "z",
        "ß",
        "é",
        "Σ",
        "\ud7ff",
        "\ue000",
        "\uffff",
        "😀",
    ],
    "number": [-(2**63), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1],
    "exact": [
        Decimal(text) for text in ("-1E+28", "-10.1", "-9", "-0.000000001", "0", "0.1", "9", "10", "1E+28")
    ],
    "money": [Decimal(text) for text in ("-100.00", "-99.99", "0.00", "0.01", "9.99", "10.00")],
    "ratio": [-1e300, -1.0, -5e-324, 0.0, 5e-324, 0.1, 0.1 + 2**-56, 1.0, 1e300],
    "flag": [False, True],
    "day": [dt.date(1, 1, 1), dt.date(999, 12, 31), dt.date(1970, 1, 1), dt.date(9999, 12, 31)],
    "moment": [
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, dt.UTC),
        dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        dt.datetime(1970, 1, 1, 0, 0, 0, 1, dt.UTC),
        dt.datetime(9999, 12, 31, tzinfo=dt.UTC),
    ],
    "token": [uuid.UUID(int=number) for number in (0, 1, 2**64, 2**127 - 1, 2**127, 2**128 - 1)],
    "blob": [b"", b"\0", b"\0\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\0"],
    "colour": [Colour.BLUE, Colour.GREEN, Colour.RED],
}

ORDERS = [
    None,
    "number",
    "-number",
    "-label",
    ["label", "number"],
    ["label", "-number"],
    ["-label", "number", "flag"],
    ["-flag", "-label", "-number"],
    ["flag", "label", "-id"],
    ["-colour", "exact"],
    ["exact", "-moment", "ratio"],
    "-version",
    ["created_at"],
    "-id",
]


async def walk(handle: TenantHandle, *, limit: int, **asked: Any) -> AsyncIterator[list[Any]]:
    """Yield the pages of a read, one after the other."""
    cursor = None
    while True:
        page = await handle.data.read(Sample, limit=limit, cursor=cursor, **asked)
        assert len(page) <= limit
        assert page.has_more is (page.next_cursor is not None)
        yield list(page)
        cursor = page.next_cursor
        if cursor is None:
            return


class Pages(Setting):
    """Sorting, and walking through a result page by page."""

    @pytest.mark.parametrize("field", ASCENDING)
    async def test_values_sort_alike_everywhere_and_nulls_are_greatest(
        self, acme: TenantHandle, field: str
    ) -> None:
        expected = [*ASCENDING[field], None]
        shuffled = chance(field).sample(expected, len(expected))
        await acme.data.bulk_create(
            (Sample.model_validate({field: value}) for value in shuffled), atomic=True
        )
        for order, wanted in ((field, expected), (f"-{field}", expected[::-1])):
            page = await acme.data.read(Sample, order_by=order)
            assert [getattr(row, field) for row in page] == wanted
            walked = [row async for rows in walk(acme, limit=2, order_by=order) for row in rows]
            assert [getattr(row, field) for row in walked] == wanted

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def heap(cls, sdk: MultiTenantSDK) -> TenantHandle:
        """Give a tenant whose rows have many ties and nulls."""
        heap = await cls.new_tenant(sdk, "heap")
        dice = chance(1)
        for batch in range(4):
            await heap.data.bulk_create(
                (
                    Sample(
                        label=dice.choice([None, "", "a", "b"]),
                        number=dice.choice([None, 0, 1, 2**63 - 1]),
                        flag=dice.choice([None, True, False]),
                        colour=dice.choice([None, *Colour]),
                        exact=dice.choice([None, Decimal("0.1"), Decimal(-3)]),
                        moment=dice.choice([None, dt.datetime(2026, 1, 1, 0, 0, 0, batch, dt.UTC)]),
                        ratio=dice.choice([None, 0.1, -2.5]),
                    )
                    for _ in range(15)
                ),
                atomic=True,
            )
        for row in await heap.data.read(Sample, limit=7):
            await heap.data.update(row, label=row.label)
        return heap

    @pytest.mark.parametrize("order", ORDERS, ids=str)
    @pytest.mark.parametrize("limit", [1, 7, 60])
    async def test_pages_are_the_whole_result_in_order(
        self, heap: TenantHandle, order: Any, limit: int
    ) -> None:
        whole = await heap.data.read(Sample, order_by=order)
        assert len(whole) == 60
        assert whole.next_cursor is None
        pages = [rows async for rows in walk(heap, limit=limit, order_by=order)]
        assert list(itertools.chain(*pages)) == list(whole)
        assert [len(rows) for rows in pages[:-1]] == [limit] * (len(pages) - 1)
        assert pages[-1]

    @pytest.mark.parametrize("order", ORDERS, ids=str)
    async def test_descending_is_ascending_backwards(self, heap: TenantHandle, order: Any) -> None:
        names = [order] if isinstance(order, str) else list(order or ["id"])
        turned = [name.removeprefix("-") if name.startswith("-") else f"-{name}" for name in names]
        forward = await heap.data.read(Sample, order_by=names)
        backward = await heap.data.read(Sample, order_by=turned)
        assert list(forward) == list(backward)[::-1]

    async def test_pages_of_a_filter(self, heap: TenantHandle) -> None:
        asked: dict[str, Any] = {"where": {"not": {"number": 1}}, "order_by": ["-label", "flag"]}
        whole = await heap.data.read(Sample, **asked)
        assert [row async for rows in walk(heap, limit=4, **asked) for row in rows] == list(whole)

    @pytest.mark.parametrize(
        "order", [["number"], ["-number"], ["label", "-number"], ["-label", "id"]], ids=str
    )
    async def test_rows_that_stay_are_neither_skipped_nor_repeated_while_others_write(
        self, acme: TenantHandle, order: list[str]
    ) -> None:
        dice = chance(order)

        def row(*, passing: bool) -> Sample:
            return Sample(
                label=dice.choice([None, "a", "b"]), number=dice.choice([None, *range(5)]), flag=passing
            )

        stay = {
            item.id
            for item in (
                await acme.data.bulk_create((row(passing=False) for _ in range(60)), atomic=True)
            ).rows
        }
        pass_by = [
            item.id
            for item in (
                await acme.data.bulk_create((row(passing=True) for _ in range(60)), atomic=True)
            ).rows
        ]
        seen: list[uuid.UUID] = []
        async for rows in walk(acme, limit=5, order_by=order):
            seen += [item.id for item in rows]
            for id in pass_by[:3]:
                await acme.data.delete(Sample, id)
            del pass_by[:3]
            await acme.data.bulk_create((row(passing=True) for _ in range(3)), atomic=True)
            if len(seen) > 2_000:
                break
        assert len(seen) == len(set(seen))
        assert stay <= set(seen)

    async def test_writers_and_walkers_at_the_same_time(self, acme: TenantHandle) -> None:
        stay = {
            item.id
            for item in (
                await acme.data.bulk_create(
                    (Sample(number=number % 7, flag=False) for number in range(80)), atomic=True
                )
            ).rows
        }
        done = asyncio.Event()

        async def write() -> None:
            for number in itertools.count():
                if done.is_set():
                    return
                made = await acme.data.create(Sample(number=number % 7, flag=True))
                if number % 2:
                    await acme.data.delete(made)
                await asyncio.sleep(0)

        async def read(order: str) -> list[uuid.UUID]:
            pages = walk(acme, limit=9, order_by=order, where={"flag": False})
            return [item.id async for rows in pages for item in rows]

        writer = asyncio.create_task(write())
        try:
            walks = await asyncio.gather(read("number"), read("-number"), read("id"))
        finally:
            done.set()
            await writer
        for ids in walks:
            assert set(ids) == stay
            assert len(ids) == len(stay)

    # -- cursors

    async def test_a_cursor_is_good_for_its_own_question_only(
        self, heap: TenantHandle, acme: TenantHandle
    ) -> None:
        cursor = (await heap.data.read(Sample, order_by="number", limit=1)).next_cursor
        assert cursor is not None
        await heap.data.read(Sample, order_by="number", limit=5, cursor=cursor)
        for handle, order in ((heap, "-number"), (heap, "label"), (heap, None), (acme, "number")):
            with pytest.raises(InvalidQuery) as refused:
                await handle.data.read(Sample, order_by=order, cursor=cursor)
            assert refused.value.path == "cursor"
        with pytest.raises(InvalidQuery):
            await heap.data.read("books", order_by="copies", cursor=cursor)

    async def test_a_cursor_that_was_tampered_with_is_refused(self, heap: TenantHandle) -> None:
        cursor = (await heap.data.read(Sample, order_by="label", limit=1)).next_cursor
        assert cursor is not None
        forged = [
            cursor[:-4],
            cursor[4:],
            cursor * 2,
            cursor.swapcase(),
            "A" + cursor[1:],
            cursor[:30] + "AAAA",
        ]
        for wrong in forged:
            if wrong == cursor:
                continue
            with pytest.raises(InvalidQuery) as refused:
                await heap.data.read(Sample, order_by="label", cursor=wrong)
            assert refused.value.path == "cursor"

    async def test_a_cursor_serves_every_process(self, heap: TenantHandle, second: MultiTenantSDK) -> None:
        first = await heap.data.read(Sample, order_by="number", limit=10)
        there = second.tenant(heap.context.tenant_id)
        rest = await there.data.read(Sample, order_by="number", cursor=first.next_cursor)
        assert [*first, *rest] == list(await heap.data.read(Sample, order_by="number"))

    async def test_pages_by_long_values(self, acme: TenantHandle) -> None:
        labels = [f"{letter}{'x' * 100_000}" for letter in "abc"]
        await acme.data.bulk_create((Sample(label=label) for label in labels), atomic=True)
        walked = [row.label async for rows in walk(acme, limit=1, order_by="label") for row in rows]
        assert walked == labels
