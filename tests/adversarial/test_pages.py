"""Pages while others write: no row that was there all the time is skipped or repeated."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import pytest

from tenantry import Page
from tests.adversarial.arena import Arena
from tests.adversarial.models import Customer, Order, Setting

ORDERS: tuple[list[str], ...] = (
    ["memo"],
    ["-memo"],
    ["total", "-memo"],
    ["-status", "memo"],
    [],
    ["-created_at"],
    ["-total"],
)


async def _pages(arena: Arena, order_by: list[str], limit: int) -> list[uuid.UUID]:
    seen: list[uuid.UUID] = []
    cursor: str | None = None
    while True:
        page: Page[Any] = await arena.acme.data.read(
            Order, {"number": {"gte": 100}}, order_by=order_by, limit=limit, cursor=cursor
        )
        seen += [row.id for row in page]
        cursor = page.next_cursor
        if cursor is None:
            return seen


@pytest.mark.parametrize("order_by", ORDERS, ids=" ".join)
async def test_under_concurrent_writes(direct_arena: Arena, order_by: list[str]) -> None:
    arena, choice = direct_arena, random.Random(5)
    # few different values and some nulls, so that many rows are equal in every sort key but the last
    steady = [
        Order(
            customer_id=arena.own,
            number=100 + number,
            total=choice.choice(["1", "2.5", "-3"]),
            memo=choice.choice([None, "", "a", "ä", "z" * 50]),
        )
        for number in range(60)
    ]
    await arena.acme.data.bulk_create(steady, atomic=True)
    finished = False

    async def disturb() -> None:
        number = 1_000
        made: list[Order] = []
        while not finished:
            number += 1
            row = Order(customer_id=arena.own, number=number, total=choice.choice(["1", "2.5"]), memo="a")
            made.append(await arena.acme.data.create(row))
            if len(made) > 5:
                await arena.acme.data.delete(made.pop(choice.randrange(len(made))))
            if made and choice.random() < 0.5:
                last = made.pop()
                made.append(await arena.acme.data.update(last, memo=choice.choice([None, "b"])))

    disturbing = asyncio.create_task(disturb())
    ids = {row.id for row in steady}
    for limit in (1, 7, 25):
        seen = [id for id in await _pages(arena, order_by, limit) if id in ids]
        assert len(seen) == len(set(seen)) == len(ids)
    finished = True
    await disturbing


async def test_after_a_row_whose_sort_key_is_long(direct_arena: Arena) -> None:
    """What a page ended with stands in its cursor."""
    data = direct_arena.acme.data
    for number in range(3):
        await data.create(Setting(id=f"long {number}", value=f"{number}" + "x" * 100_000))
    seen, cursor = [], None
    while True:
        page = await data.read(
            Setting, {"id": {"starts_with": "long"}}, order_by="value", limit=1, cursor=cursor
        )
        seen += [row.id for row in page]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == ["long 0", "long 1", "long 2"]


async def test_a_page_that_ends_with_the_last_row_is_the_last(direct_arena: Arena) -> None:
    page = await direct_arena.acme.data.read(Customer, limit=2)
    assert len(page) == 2
    assert page.next_cursor is None
