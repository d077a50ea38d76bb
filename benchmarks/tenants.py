"""A directory of a million tenants against one of a thousand, and rows of 100,000 tenants against those of ten.

- ``lookup_1k`` and ``lookup_1m``: the admission of a tenant that the process does not know, one after the other, with
  1,000 and with 1,000,000 tenants in the directory.
- ``read_10`` and ``read_100k``: ``data.get(…)`` with the default hooks, coalescing off, 16 tasks, under row-level
  security, over two tables of 100,000 rows: of 10 tenants with 10,000 each, and of 100,000 with one each. Every read is
  of another tenant than the one before, so that both bind a tenant anew, and all tenants are known.

The full run makes its tenants with ``tenants.create_many``. With ``--quick`` the owner of the tables loads the
directory in one statement; the rows of both read tables are loaded so in any case. The server has memory enough for
both. Latencies are measured in turns.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

from rich.console import Console

from benchmarks.harness import Contender, Effort, Operation, Ratio, Report, compare, judge
from tenantry import KeyedModel, MultiTenantSDK
from tenantry.tenants import TenantLease
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

FEW, MANY = 1_000, 1_000_000
READ_TENANTS = {"read_10": 10, "read_100k": 100_000}
ROWS = 100_000
TASKS = 16
_AT_ONCE = 1_000
STEP = 7_919  # a prime, so that the ids come in no order that an index would like

# How many times faster: at most 1.2 times, and 1.15 times, the latency.
RATIOS = [
    Ratio("lookup_1k_vs_1m_rate", "lookup_1m", "lookup_1k", round(1 / 1.2, 3)),
    Ratio("read_10_vs_100k_rate", "read_100k", "read_10", round(1 / 1.15, 3)),
]
LATENCIES = {
    "lookup_1m_vs_1k": "lookup_1k_vs_1m_rate",
    "read_100k_vs_10": "read_10_vs_100k_rate",
}

_LOAD_TENANTS = """
INSERT INTO tenantry.tenants (id, slug, name, plan, settings, flags, quotas, status, reason, status_since, change,
  version, created_at, updated_at)
SELECT 't' || n, 't' || n, 't' || n, NULL, '{}', '{}', '{}', 'active', NULL, now(), 0, 1, now(), now()
FROM generate_series(0, %d) n
"""
_LOAD_ROWS = """
INSERT INTO items (tenant_id, id, text, version, created_at, updated_at)
SELECT 't' || n %% %d, n, 'text', 1, now(), now() FROM generate_series(0, %d) n
"""


class Item(KeyedModel):
    """What is read."""

    __collection__ = "items"

    id: int
    text: str


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, fill three databases, measure."""
    quick = effort == Effort.of(quick=True)
    figures: dict[str, float] = {}
    with PostgresServer.start({"shared_buffers": "768MB"}) as server:
        async with AsyncExitStack() as stack:
            sdks = {}
            for name, tenants in (("read_10", FEW), ("read_100k", MANY)):
                sdk = await _opened(stack, server, name)
                figures[f"seconds_to_make_{tenants}"] = await _fill(sdk, server, name, tenants, quick=quick)
                sdks[name] = sdk
            contenders = [
                Contender("lookup_1k", await _lookup(stack, sdks["read_10"], FEW), 1),
                Contender("lookup_1m", await _lookup(stack, sdks["read_100k"], MANY), 1),
                *(
                    Contender(name, _reading(sdks[name], count), TASKS)
                    for name, count in READ_TENANTS.items()
                ),
            ]
            sizes = [await _know(sdks[name], count) for name, count in READ_TENANTS.items()]
            figures["bytes_a_known_tenant"] = sizes[-1]  # of many; of a few the rest of the process is in it
            turns = Effort(rounds=11, seconds=0.3) if quick else effort
            rates = await compare(contenders, turns, console)
            figures["seconds_to_see_a_change_at_1m"] = await _change(sdks["read_100k"])
    report = judge("tenants", rates, RATIOS, console)
    report.figures |= figures
    for name, rate in LATENCIES.items():
        report.ratios[name] = round(1 / report.ratios.pop(rate), 3)
    how = "by the owner, in one statement" if quick else "by tenants.create_many"
    console.print(f"The directories were filled {how}.", report.ratios, figures)
    return report


async def _opened(stack: AsyncExitStack, server: PostgresServer, name: str) -> MultiTenantSDK:
    options = await deploy(server.create_database(name))
    options["database"]["pool_size"] = TASKS
    performance = {"coalesce": False, "max_known_tenants": ROWS}
    opening = MultiTenantSDK.open(**options, models=[Item], schema="create", performance=performance)
    return await stack.enter_async_context(opening)


async def _fill(
    sdk: MultiTenantSDK, server: PostgresServer, name: str, tenants: int, *, quick: bool
) -> float:
    """Make tenants and rows. Return how many seconds the tenants took."""
    started = time.perf_counter()
    if quick:
        server.execute(_LOAD_TENANTS % (tenants - 1), name)
    else:
        made = await sdk.tenants.create_many(f"t{number}" for number in range(tenants))
        assert made == tenants
    seconds = round(time.perf_counter() - started, 1)
    server.execute(_LOAD_ROWS % (READ_TENANTS[name], ROWS - 1), name)
    server.execute("VACUUM ANALYZE", name)
    return seconds


async def _lookup(stack: AsyncExitStack, sdk: MultiTenantSDK, tenants: int) -> Operation:
    """Return the admission of a tenant that is not known; a lease of its own remembers one."""
    database = sdk._database
    assert database is not None
    lease = TenantLease(database, max_tenants=1)
    stack.push_async_callback(lease.close)

    async def look_up(task: int, number: int) -> None:
        id = f"t{number * STEP % tenants}"
        assert not lease.admits(id)
        await lease.admit(id)

    return look_up


def _reading(sdk: MultiTenantSDK, tenants: int) -> Operation:
    handles = [sdk.tenant(f"t{number}") for number in range(tenants)]
    served = [0]

    async def read(task: int, number: int) -> object:
        served[0] += 1
        id = served[0] * STEP % ROWS
        row = await handles[id % tenants].data.get("items", id)
        assert row["text"] == "text"
        return row

    return read


async def _know(sdk: MultiTenantSDK, tenants: int) -> float:
    """Have the process know every tenant that is read. Return how many bytes that took for each of them."""
    lease = sdk._lease
    assert lease is not None
    tracemalloc.start()
    for first in range(0, tenants, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, tenants))
        await asyncio.gather(*(lease.admit(f"t{number}") for number in numbers))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    known, _ = lease.size()
    assert known == tenants
    return round(size / tenants, 1)


async def _change(sdk: MultiTenantSDK) -> float:
    """Return how long a renewal takes after one tenant has changed."""
    lease: Any = sdk._lease
    await lease._read_epoch()
    await sdk.tenants.update("t7", name="Seven")
    started = time.perf_counter()
    await lease._read_epoch()
    return round(time.perf_counter() - started, 4)
