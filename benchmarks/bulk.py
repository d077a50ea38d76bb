"""100,000 new rows at once, isolated by the database, against COPY without isolation and against single creates.

Every contender stores rows of eight columns and a tenant, with the same primary key and the same unique index, over
one connection to one server, into an empty table; the tables are emptied before each turn.

- ``copy``: asyncpg's ``copy_records_to_table`` of tuples that are made beforehand, into a table without row-level
  security, which PostgreSQL's COPY refuses to serve. It checks nothing, isolates nothing and returns nothing.
- ``bulk``: ``bulk_create(…)`` of instances that are made beforehand, with the default hooks, under forced row-level
  security unlocked by the seal. Timed is all of the call: it checks each value, writes batches of the default size,
  each a transaction of its own, and returns the rows as stored.
- ``bulk_dicts``: the same of plain dicts; their validation is timed too.
- ``singles``: a loop of ``create(…)``, of a hundredth of the rows.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import pydantic
from rich.console import Console
from rich.progress import Progress

from benchmarks.harness import Effort, Ratio, Report, judge
from tenantry import Model, MultiTenantSDK, TenantHandle, Unique
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

ROWS = 100_000
SINGLES = ROWS // 100
RATIOS = [
    Ratio("vs_copy", "bulk", "copy", 0.4),
    Ratio("vs_single_creates", "bulk", "singles", 10.0),
    Ratio("dicts_vs_copy", "bulk_dicts", "copy"),
]

# Stores some rows and returns how many.
Turn = Callable[[], Awaitable[int]]


class Item(Model):
    """What is stored."""

    __collection__ = "items"

    name: str
    sku: Annotated[str, Unique]
    price: Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)]
    stock: int = 0


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, measure."""
    with PostgresServer.start() as server:
        options = await deploy(server.create_database("bench"))
        async with MultiTenantSDK.open(**options, models=[Item], schema="create") as sdk:
            await sdk.tenants.create("acme")
            # The same columns in the same order, the same key and index; no policy, no trigger.
            server.execute("CREATE TABLE copied (LIKE items INCLUDING INDEXES)", "bench")
            connection = await asyncpg.connect(server.url("bench"))
            try:
                turns = _turns(sdk.tenant("acme"), connection)
                rates = await _compare(turns, connection, effort, console)
            finally:
                await connection.close()
    return judge("bulk", rates, RATIOS, console)


def _turns(acme: TenantHandle, connection: Any) -> dict[str, Turn]:
    items = [
        Item(name=f"Item {n}", sku=f"S{n}", price=Decimal(n + 1).scaleb(-2), stock=n % 50)
        for n in range(ROWS)
    ]
    records = [{"name": i.name, "sku": i.sku, "price": i.price, "stock": i.stock} for i in items]
    names = ["tenant_id", *Item.model_fields]
    rows = [("acme", *(getattr(item, name) for name in Item.model_fields)) for item in items]

    async def copy() -> int:
        await connection.copy_records_to_table("copied", records=rows, columns=names)
        return ROWS

    async def bulk() -> int:
        result = await acme.data.bulk_create(items)
        assert result.ok
        return len(result.rows)

    async def bulk_dicts() -> int:
        result = await acme.data.bulk_create("items", records)
        assert result.ok
        return len(result.rows)

    async def singles() -> int:
        for item in items[:SINGLES]:
            await acme.data.create(item)
        return SINGLES

    return {"copy": copy, "bulk": bulk, "bulk_dicts": bulk_dicts, "singles": singles}


async def _compare(
    turns: dict[str, Turn], connection: Any, effort: Effort, console: Console
) -> dict[str, list[float]]:
    """Return the rows per second of each contender, a number for each round; the order turns with every round."""
    rounds = max(3, effort.rounds // 2)
    rates: dict[str, list[float]] = {name: [] for name in turns}
    order = list(turns)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=rounds * len(order))
        for number in range(rounds):
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                await connection.execute("TRUNCATE items, copied; CHECKPOINT")
                gc.collect()
                started = time.perf_counter()
                stored = await turns[name]()
                rates[name].append(stored / (time.perf_counter() - started))
                progress.advance(task)
    return rates
