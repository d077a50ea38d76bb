"""Whether the advice makes slow queries faster, and what counting them costs.

A shop of several tenants has 100,000 orders and more, in a model that declares none of the indexes that its queries
need. The workload is measured, ``tenantry insights --apply`` is run as a user would, and the workload is measured
again; a writer stores orders all the time, and its longest wait while the indexes are made is reported. On SQLite,
where an index is made in one transaction, writers wait for it.

- ``slow_queries_speedup``: the time of the slow queries on PostgreSQL before, over that after; ``…_sqlite`` likewise.
- ``percent_faster``: the same as the share of the time that is saved.
- ``writer_longest_stall_ms``: the longest single write while the indexes were made; ``…_before``: without that.
- ``cost_percent_of_a_read``: the processor time of counting one read by key, in percent of how long it takes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Effort, Report
from tenantry import Model, MultiTenantSDK, TenantHandle
from tenantry.hooks import Operation
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

TENANTS = 3
ROWS = 50_000
TARGET = 2.5
ROOT = Path(__file__).parents[1]
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PERFORMANCE = {"slow_query_seconds": 0.01, "insights_interval": 0.1}


class Order(Model):
    """What is asked for. No index is declared."""

    __collection__ = "orders"

    customer: str
    status: str
    total: int
    placed: dt.datetime
    note: str = ""


@dataclass
class Writer:
    """Stores one order after the other.

    Attributes:
        longest: The longest that one of them took, in seconds, since it was last set to zero.
    """

    longest: float = 0.0
    written: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def writing(self, shop: TenantHandle) -> AsyncIterator[None]:
        """Write while the block runs."""
        task = asyncio.create_task(self._write(shop))
        try:
            yield
        finally:
            self._stop.set()
            await task

    async def _write(self, shop: TenantHandle) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            await shop.data.create(_order(random.Random(self.written), self.written))
            self.longest = max(self.longest, time.perf_counter() - began)
            self.written += 1
            await asyncio.sleep(0.005)


async def run(effort: Effort, console: Console) -> Report:
    """Measure on both databases."""
    report = Report("insights")
    with PostgresServer.start() as server:
        options = await deploy(server.create_database("bench"))
        await _measure("postgresql", options, effort, console, report)
    with tempfile.TemporaryDirectory() as folder:
        await _measure("sqlite", {"url": f"sqlite:///{folder}/bench.db"}, effort, console, report)
    return report


async def _measure(
    name: str, options: Mapping[str, Any], effort: Effort, console: Console, report: Report
) -> None:
    writer = Writer()
    async with MultiTenantSDK.open(
        **options, models=[Order], schema="create", performance=PERFORMANCE, env={}
    ) as sdk:
        shops = await _fill(sdk)
        async with writer.writing(shops[-1]):
            before = await _workload(shops, effort)
            calm, writer.longest = writer.longest, 0.0
            for _ in before:
                await sdk.insights.flush()
            said = await _apply(options)
            stalled = writer.longest
            after = await _workload(shops, effort)
        cost = await _cost(sdk, shops[0])
    _tell(name, before, after, said, console)
    speedup = sum(before.values()) / sum(after.values())
    suffix = "" if name == "postgresql" else f"_{name}"
    report.ratios[f"slow_queries_speedup{suffix}"] = round(speedup, 2)
    report.figures[f"percent_faster{suffix}"] = round(100 * (1 - 1 / speedup), 1)
    report.figures[f"writer_longest_stall_ms{suffix}"] = round(1000 * stalled, 1)
    report.figures[f"writer_longest_stall_ms_before{suffix}"] = round(1000 * calm, 1)
    report.figures[f"cost_percent_of_a_read{suffix}"] = round(100 * cost, 2)
    met = "[green]met[/]" if speedup >= TARGET else "[red]missed[/]"
    console.print(
        f"{name}: {speedup:.1f} x as fast, target ≥ {TARGET} {met}; longest write {stalled:.3f} s\n"
    )


def _order(chance: random.Random, number: int) -> Order:
    return Order(
        customer=f"c{chance.randrange(1_000)}",
        status=chance.choice(["new", "paid", "sent", "done", "done", "done"]),
        total=chance.randrange(100_000),
        placed=START + dt.timedelta(seconds=37 * number),
    )


async def _fill(sdk: MultiTenantSDK) -> list[TenantHandle]:
    shops = []
    for tenant in range(TENANTS):
        await sdk.tenants.create(f"shop-{tenant}")
        shop = sdk.tenant(f"shop-{tenant}")
        chance = random.Random(tenant)
        for first in range(0, ROWS, 1_000):
            await shop.data.bulk_create([_order(chance, number) for number in range(first, first + 1_000)])
        shops.append(shop)
    return shops


def _queries(shop: TenantHandle, chance: random.Random) -> Mapping[str, Any]:
    data, customer = shop.data, f"c{chance.randrange(1_000)}"
    since = START + dt.timedelta(seconds=37 * chance.randrange(ROWS - 100))
    return {
        "of a customer": lambda: data.read(Order, {"customer": customer}, limit=20),
        "its paid ones": lambda: data.read(
            Order, {"customer": customer, "status": "paid"}, order_by="-placed", limit=20
        ),
        "how many": lambda: data.count(Order, {"customer": customer}),
        "since": lambda: data.read(Order, {"placed": {"gte": since}}, order_by="placed", limit=20),
        "largest": lambda: data.read(Order, {"status": "new"}, order_by="-total", limit=10),
    }


async def _workload(shops: list[TenantHandle], effort: Effort) -> dict[str, float]:
    """Return the median time of each query, in seconds."""
    chance = random.Random(7)
    times: dict[str, list[float]] = {}
    for number in range(effort.rounds * 4):
        for name, query in _queries(shops[number % len(shops)], chance).items():
            began = time.perf_counter()
            await query()
            times.setdefault(name, []).append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


async def _apply(options: Mapping[str, Any]) -> Any:
    """Run the command line as a user would, and return what it says."""
    given = {**options.get("database", {}), "url": options["url"]}
    variables = {f"TENANTRY_DATABASE_{name.upper()}": str(value) for name, value in given.items()}
    variables["TENANTRY_PERFORMANCE_SLOW_QUERY_SECONDS"] = str(PERFORMANCE["slow_query_seconds"])
    command = ["insights", "--models", f"{__name__}:Order", "--apply", "--yes", "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tenantry.cli",
        *command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    said = json.loads(printed)
    if process.returncode or not said["applied"]:
        raise RuntimeError(f"tenantry insights --apply made no index: {said}")
    return said


async def _cost(sdk: MultiTenantSDK, shop: TenantHandle) -> float:
    """Return what counting a read by key costs, as a share of the read: processor time over elapsed time."""
    heard: list[Operation] = []
    row = (await shop.data.read(Order, limit=1))[0]
    sdk.add_after_hook(heard.append)
    for _ in range(200):
        await shop.data.get(Order, row.id)
    observe, times = sdk._watch.observe, 5_000
    rounds = []
    for _ in range(9):
        began = time.process_time()
        for _ in range(times):
            observe(heard[-1])
        rounds.append((time.process_time() - began) / times)
    return statistics.median(rounds) / statistics.median(operation.seconds for operation in heard)


def _tell(name: str, before: dict[str, float], after: dict[str, float], said: Any, console: Console) -> None:
    table = Table(title=f"{name}: median of a query, {TENANTS * ROWS:,} rows", title_justify="left")
    for heading in ("query", "before", "after", "faster"):
        table.add_column(heading, justify="left" if heading == "query" else "right")
    for query, seconds in before.items():
        row = [f"{1000 * value:.1f} ms" for value in (seconds, after[query])]
        table.add_row(query, *row, f"{seconds / after[query]:.1f} x")
    console.print(table)
    for ddl in said["applied"]:
        console.print(f"  {ddl}", highlight=False, markup=False)
