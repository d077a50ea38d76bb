"""Aggregates of one tenant's rows, isolated by the database, against the same SQL through a pool without isolation.

Both group the tenant's 2,000 of 32,000 rows by region, and sum up, average and count, with a condition on rows and one
on groups; over at most 8 connections to one server, with the same indexes:

- ``raw``: an asyncpg pool as it comes, on a table without row-level security, with the tenant as a parameter.
- ``tenantry``: ``data.aggregate(…)`` with the default hooks, under forced row-level security unlocked by the seal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Annotated

import asyncpg
from pydantic import Field
from rich.console import Console

from benchmarks.harness import Contender, Effort, Operation, Ratio, Report, compare, judge
from tenantry import Avg, Count, Max, Model, MultiTenantSDK, Sum
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

TENANTS = 16
ROWS = 2_000
CONNECTIONS = 8
REGIONS = ("north", "east", "south", "west")

RATIOS = [Ratio("vs_raw_aggregate", "tenantry_8", "raw_8", 0.8)]


class Order(Model):
    """What is summed up."""

    __collection__ = "orders"

    region: str
    total: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    quantity: int
    placed_at: dt.datetime


# What tenantry sends, without its parentheses.
_TEXT = """
SELECT region, count(*) AS orders, sum(total) AS revenue, sum(quantity) AS units, max(placed_at) AS last,
  sign(sum(total)) * div(abs(sum(total)) * 2e8::numeric + count(total), count(total) * 2::numeric) * 1e-8::numeric
    AS mean
FROM raw_orders WHERE quantity > $2 AND tenant_id = $1
GROUP BY region HAVING sum(total) > $3 ORDER BY sum(total) DESC, region LIMIT $4
"""
_PEER = """
CREATE TABLE raw_orders AS SELECT * FROM orders;
ALTER TABLE raw_orders ADD PRIMARY KEY (tenant_id, id);
CREATE ROLE peer LOGIN PASSWORD 'peer';
GRANT SELECT ON raw_orders TO peer;
VACUUM ANALYZE;
"""


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, fill it, measure."""
    rates = await measure(effort, console)
    return judge("aggregate", rates, RATIOS, console)


async def measure(effort: Effort, console: Console) -> dict[str, list[float]]:
    """Return the operations per second of each contender, a number for each round."""
    with PostgresServer.start() as server:
        admin_url = server.create_database("bench")
        async with AsyncExitStack() as stack:
            contenders = await _contenders(stack, server, admin_url)
            return await compare(contenders, effort, console)


async def _contenders(stack: AsyncExitStack, server: PostgresServer, admin_url: str) -> list[Contender]:
    options = await deploy(admin_url)
    options["database"]["pool_size"] = CONNECTIONS
    sdk = await stack.enter_async_context(MultiTenantSDK.open(**options, models=[Order], schema="create"))
    await _fill(sdk)
    for statement in filter(str.strip, _PEER.split(";")):
        server.execute(statement, "bench")
    peer_url = server.url("bench", user="peer", password="peer")
    raw = await stack.enter_async_context(_raw(peer_url))
    return [Contender("raw_8", raw, CONNECTIONS), Contender("tenantry_8", _tenantry(sdk), CONNECTIONS)]


async def _fill(sdk: MultiTenantSDK) -> None:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for number in range(TENANTS):
        await sdk.tenants.create(f"tenant-{number}")
        rows = [
            Order(
                region=REGIONS[row % len(REGIONS)],
                total=Decimal(row % 997) + Decimal("0.25"),
                quantity=row % 7,
                placed_at=moment + dt.timedelta(minutes=row),
            )
            for row in range(ROWS)
        ]
        await sdk.tenant(f"tenant-{number}").data.bulk_create(rows)


def _tenantry(sdk: MultiTenantSDK) -> Operation:
    handles = [sdk.tenant(f"tenant-{number}") for number in range(TENANTS)]
    measures = {
        "orders": Count(),
        "revenue": Sum("total"),
        "units": Sum("quantity"),
        "last": Max("placed_at"),
        "mean": Avg("total"),
    }

    async def aggregate(task: int, number: int) -> object:
        groups = await handles[task % TENANTS].data.aggregate(
            "orders",
            measures,
            {"quantity": {"gt": 0}},
            group_by="region",
            having={"revenue": {"gt": 1_000}},
            order_by="-revenue",
            limit=100,
        )
        assert len(groups) == len(REGIONS)
        return groups

    return aggregate


@asynccontextmanager
async def _raw(url: str) -> AsyncIterator[Operation]:
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:

        async def aggregate(task: int, number: int) -> object:
            async with pool.acquire() as connection:
                rows = await connection.fetch(_TEXT, f"tenant-{task % TENANTS}", 0, Decimal(1_000), 100)
            groups = [dict(row) for row in rows]
            assert len(groups) == len(REGIONS)
            return groups

        yield aggregate
