"""What a connection costs an operation: our pool against a connection for each request.

All read the same seven columns of one row of 1,000 a tenant by tenant and id, one after the other, on the same server,
without SSL:

- ``bare``: the statement alone, prepared on an open connection, on a table without row-level security.
- ``tenantry``: ``data.get(…)`` with the default hooks, of 16 tenants in turn, so that each read binds a connection,
  under forced row-level security; coalescing off.
- ``connect_per_request``: ``asyncpg.connect``, the same statement as ``bare``, ``close``. It isolates nothing.

The overhead of an operation is the time that it takes beyond that of ``bare``; the figure
``connection_overhead_saved_percent`` says how much of the overhead of ``connect_per_request`` is gone with the pool.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from rich.console import Console

from benchmarks.harness import Contender, Effort, Operation, Ratio, Report, compare, judge
from benchmarks.isolated_read import COLUMNS, ROWS, TENANTS, Item, _fill, _tenant
from tenantry import MultiTenantSDK
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

RATIOS = [
    Ratio("vs_connect_per_request", "tenantry", "connect_per_request", 1.67),
    Ratio("vs_bare", "tenantry", "bare"),
]
SAVED = "connection_overhead_saved_percent"
TARGET = 40.0
_ORDER = ("bare", "tenantry", "connect_per_request")
_READ = f"SELECT {COLUMNS} FROM stock_items WHERE tenant_id = $1 AND id = $2"
_STOCK = """
CREATE TABLE stock_items AS SELECT * FROM items;
ALTER TABLE stock_items ADD PRIMARY KEY (tenant_id, id);
CREATE ROLE peer LOGIN PASSWORD 'peer';
GRANT SELECT ON stock_items TO peer;
"""


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, fill it, measure."""
    with PostgresServer.start() as server:
        admin_url = server.create_database("bench")
        async with AsyncExitStack() as stack:
            contenders = await _contenders(stack, server, admin_url)
            rates = await compare(contenders, effort, console)
    report = judge("connections", rates, RATIOS, console)
    saved = [
        _saved(*seconds) for seconds in zip(*(map(_seconds, rates[name]) for name in _ORDER), strict=True)
    ]
    report.figures[SAVED] = round(statistics.median(saved), 1)
    verdict = "[green]met[/]" if report.figures[SAVED] >= TARGET else "[red]missed[/]"
    console.print(
        f"{SAVED}: {report.figures[SAVED]:.1f} ({min(saved):.1f} … {max(saved):.1f}), ≥ {TARGET:g} {verdict}"
    )
    return report


def _seconds(rate: float) -> float:
    return 1 / rate


def _saved(bare: float, ours: float, theirs: float) -> float:
    return (1 - (ours - bare) / (theirs - bare)) * 100


async def _contenders(stack: AsyncExitStack, server: PostgresServer, admin_url: str) -> list[Contender]:
    options = await deploy(admin_url)
    options["url"] += "?sslmode=disable"
    sdk = await stack.enter_async_context(
        MultiTenantSDK.open(**options, models=[Item], schema="create", performance={"coalesce": False})
    )
    ids = await _fill(sdk)
    server.execute(_STOCK, "bench")
    peer_url = server.url("bench", user="peer", password="peer") + "?sslmode=disable"
    return [
        Contender("bare", await stack.enter_async_context(_bare(peer_url, ids)), 1),
        Contender("tenantry", _tenantry(sdk, ids), 1),
        Contender("connect_per_request", _connecting(peer_url, ids), 1),
    ]


def _tenantry(sdk: MultiTenantSDK, ids: list[list[Any]]) -> Operation:
    handles = [sdk.tenant(_tenant(number)) for number in range(TENANTS)]

    async def read(task: int, number: int) -> object:
        tenant = number % TENANTS
        row = await handles[tenant].data.get("items", ids[tenant][number % ROWS])
        assert row["version"] == 1
        return row

    return read


@asynccontextmanager
async def _bare(url: str, ids: list[list[Any]]) -> AsyncIterator[Operation]:
    connection = await asyncpg.connect(url)
    statement = await connection.prepare(_READ)

    async def read(task: int, number: int) -> object:
        tenant = number % TENANTS
        row = await statement.fetchrow(_tenant(tenant), ids[tenant][number % ROWS])
        assert row is not None
        return row

    try:
        yield read
    finally:
        await connection.close()


def _connecting(url: str, ids: list[list[Any]]) -> Operation:
    async def read(task: int, number: int) -> object:
        tenant = number % TENANTS
        connection = await asyncpg.connect(url)
        try:
            row = await connection.fetchrow(_READ, _tenant(tenant), ids[tenant][number % ROWS])
        finally:
            await connection.close()
        assert row is not None
        return row

    return read
