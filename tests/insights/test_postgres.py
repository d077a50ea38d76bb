"""Advice on a real PostgreSQL: the planner uses it, writers do not notice it, and a killed run is no hindrance."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import pytest

from tenantry import Indexed, Model, MultiTenantSDK, Ref, Unique
from tenantry.context import TenantContext
from tenantry.databases.postgres import indexes
from tenantry.errors import ConfigurationError, OperationTimeout
from tenantry.filters import parse_where
from tenantry.insights import Finding, Report
from tenantry.ports import Explains, Index, Indexes, Plan
from tenantry.query import Query
from tenantry.schema import collection_of
from tenantry.types import TenantId
from tests.databases.postgres.deployment import deploy
from tests.servers import PgBouncer, PostgresServer

ROWS = 3_000
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CANARY = "canary-5c1e"
# As a test wants it: everything is slow, and nothing happens by itself.
PERFORMANCE = {"slow_query_seconds": 1e-6, "insights_interval": 3_600.0}


class Order(Model):
    __collection__ = "orders"

    customer: str
    status: str
    total: Decimal
    placed: dt.datetime


class Declared(Model):
    """The same orders, with what their queries need."""

    __collection__ = "indexed"
    __indexes__ = (("customer", "status", "placed"),)

    customer: str
    status: str
    code: Annotated[str, Unique]
    order: Annotated[uuid.UUID | None, Ref("orders")] = None
    placed: Annotated[dt.datetime, Indexed]


MODELS = [Order, Declared]
ORDERS = collection_of(Order)


@dataclass
class Site:
    """A database with orders of two tenants, without indexes."""

    admin_url: str
    options: Mapping[str, Any]

    def sdk(self, **more: Any) -> MultiTenantSDK:
        return MultiTenantSDK.open(
            **{**self.options, "models": MODELS, "performance": PERFORMANCE, "env": {}, **more}
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.admin_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def fill(self) -> None:
        async with self.sdk(schema="create") as sdk:
            for tenant in ("acme", "globex"):
                await sdk.tenants.create(tenant)
                data = sdk.tenant(tenant).data
                for first in range(0, ROWS, 1_000):
                    await data.bulk_create([_order(number) for number in range(first, first + 1_000)])
        async with self.connected() as admin:
            await admin.execute("ANALYZE orders")


def _order(number: int) -> Order:
    return Order(
        customer=f"{CANARY}-{number % 300}",
        status=("new", "paid", "sent")[number % 3],
        total=Decimal(number),
        placed=START + dt.timedelta(minutes=number),
    )


@pytest.fixture(scope="module")
def made(postgres_server: PostgresServer) -> Iterator[Site]:
    """Give one database for the whole module."""
    admin_url = postgres_server.create_database("insights")
    site = Site(admin_url, asyncio.run(deploy(admin_url)))
    asyncio.run(site.fill())
    yield site
    postgres_server.drop_database("insights")


@pytest.fixture
async def site(made: Site) -> Site:
    """Give the database without any index that an earlier test has made."""
    async with made.connected() as admin:
        for name in await admin.fetch("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'orders%adv'"):
            await admin.execute(f"DROP INDEX {name[0]}")
        await admin.execute("TRUNCATE tenantry.insights")
    return made


async def ask(sdk: MultiTenantSDK, tenant: str = "acme") -> None:
    """Ask what an application asks."""
    data = sdk.tenant(tenant).data
    for number in range(3):
        customer = f"{CANARY}-{number}"
        await data.read(Order, {"customer": customer}, limit=5)
        await data.read(Order, {"customer": customer, "status": "paid"}, order_by="-placed", limit=5)
        await data.count(Order, {"customer": customer})
        await data.read(Order, {"placed": {"gt": START + dt.timedelta(days=1)}}, order_by="placed", limit=5)
    for _ in range(4):
        await sdk.insights.flush()


def missing(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.code == "missing-index"]


async def explained(sdk: MultiTenantSDK, where: Mapping[str, Any], tenant: str = "acme") -> Plan:
    database = sdk._watch.database
    assert isinstance(database, Explains)
    query = Query(ORDERS, tuple(ORDERS.fields.values()), parse_where(ORDERS, where))
    return await database.explain(TenantContext(TenantId(tenant)), query, count=False, seconds=5.0)


INDEX = Index("orders", ("tenant_id", "customer"), "orders_customer_adv")


async def make(sdk: MultiTenantSDK, tell: Callable[[str, float | None], None] = lambda *_: None) -> bool:
    database = sdk._watch.database
    assert isinstance(database, Indexes)
    return await database.create_index(INDEX, tell)


# -- what is advised


async def test_the_planner_uses_what_is_advised(site: Site) -> None:
    async with site.sdk() as sdk:
        await ask(sdk)
        before = await sdk.insights.report()
        found = missing(before)
        assert sorted(str(finding.ddl) for finding in found) == [
            'CREATE INDEX CONCURRENTLY "orders_customer_status_placed_adv" ON "public"."orders" '
            '("tenant_id", "customer", "status", "placed")',
            'CREATE INDEX CONCURRENTLY "orders_placed_adv" ON "public"."orders" ("tenant_id", "placed")',
        ]
        assert await sdk.insights.apply(found) == found
        assert await sdk.insights.apply(found) == []  # they are there
    async with site.sdk() as sdk:
        await ask(sdk)
        after = await sdk.insights.report()
        assert missing(after) == []
        scanned = {shape.shape: (shape.scanned, shape.plan) for shape in after.shapes}
        assert len(scanned) == 4
        for shape in before.shapes:
            rows, plan = scanned[shape.shape]
            assert plan is not None
            assert plan.index is not None
            assert plan.index.endswith("_adv")
            assert shape.scanned is not None
            assert rows is not None
            assert rows <= shape.scanned / 10


async def test_a_well_indexed_workload_is_left_alone(site: Site) -> None:
    """The same queries on a model that declares what they need: nothing is advised."""
    async with site.sdk() as sdk:
        data = sdk.tenant("acme").data
        rows = [
            Declared(customer=order.customer, status=order.status, code=str(n), placed=order.placed)
            for n, order in enumerate(map(_order, range(ROWS)))
        ]
        for first in range(0, ROWS, 1_000):
            await data.bulk_create(rows[first : first + 1_000])
        async with site.connected() as admin:
            await admin.execute("ANALYZE indexed")
        for number in range(3):
            customer = f"{CANARY}-{number}"
            await data.read(Declared, {"customer": customer}, limit=5)
            await data.read(Declared, {"customer": customer, "status": "paid"}, order_by="-placed", limit=5)
            await data.count(Declared, {"customer": customer})
            await data.read(Declared, {"code": str(number)}, limit=5)
            await data.read(Declared, order_by="-placed", limit=5)
            await data.read(Declared, limit=5)
        for _ in range(6):
            await sdk.insights.flush()
        report = await sdk.insights.report()
        explained = [shape for shape in report.shapes if shape.plan is not None]
        assert len(explained) == 6
        assert missing(report) == []


async def test_a_decimal_is_compared_row_by_row_under_the_policy(site: Site) -> None:
    """An index on it is not advised, since the planner could not use it, which this shows."""
    async with site.sdk() as sdk:
        data = sdk.tenant("acme").data
        await data.read(Order, {"total": {"gt": 2_998}}, limit=5)
        await sdk.insights.flush()
        report = await sdk.insights.report()
        assert missing(report) == []
        reason = next(finding.fix for finding in report.findings if finding.code == "slow-query")
        assert "decimal fields (total)" in reason
        async with site.connected() as admin:
            await admin.execute("CREATE INDEX orders_total_adv ON orders (tenant_id, total)")
        plan = await explained(sdk, {"total": {"gt": 2_998}})
        assert plan.kept == 1
        assert (plan.scanned or 0) >= ROWS


# -- looking into a query


async def test_a_plan_is_of_the_tenants_own_rows_and_holds_no_value(site: Site) -> None:
    async with site.sdk() as sdk:
        plan = await explained(sdk, {"customer": f"{CANARY}-7"})
        assert plan.kept == ROWS / 300
        assert (await explained(sdk, {"customer": f"{CANARY}-7"}, "nobody")).kept == 0
        assert CANARY not in repr(plan)
        await ask(sdk)
    async with site.connected() as admin:
        stored = await admin.fetch("SELECT t::text FROM tenantry.insights t")
    assert len(stored) == 1
    for secret in (CANARY, "acme", "globex", "paid"):
        assert secret not in stored[0][0]


async def test_it_works_behind_a_pooler(site: Site, pgbouncer: PgBouncer) -> None:
    server, pooler = f"@127.0.0.1:{pgbouncer.server.port}/", f"@127.0.0.1:{pgbouncer.port}/"
    options = {
        name: value.replace(server, pooler) if isinstance(value, str) and name != "owner_url" else value
        for name, value in site.options["database"].items()
    }
    async with site.sdk(url=site.options["url"].replace(server, pooler), database=options) as sdk:
        assert (await explained(sdk, {"status": "paid"})).kept == ROWS / 3


async def test_a_query_that_takes_too_long_is_given_up(site: Site) -> None:
    async with site.sdk() as sdk:
        database = sdk._watch.database
        assert isinstance(database, Explains)
        async with site.connected() as admin, admin.transaction():
            await admin.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            query = Query(ORDERS, tuple(ORDERS.fields.values()))
            with pytest.raises(OperationTimeout):
                await database.explain(TenantContext(TenantId("acme")), query, count=True, seconds=0.2)
        assert await sdk.tenant("acme").data.count(Order) == ROWS


# -- making indexes


@asynccontextmanager
async def held(site: Site) -> AsyncIterator[Any]:
    """Hold on to the table in a transaction that has written, as a slow request does."""
    async with site.connected() as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute("UPDATE orders SET version = version WHERE customer = $1", f"{CANARY}-1")
        yield admin
        await transaction.rollback()


async def is_waiting(site: Site) -> int:
    """Wait until an index is being made and waits for somebody; return its server process."""
    async with site.connected() as admin:
        for _ in range(200):
            pid = await admin.fetchval(
                "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%' AND lockers_total > 0"
            )
            if pid:
                return int(pid)
            await asyncio.sleep(0.05)
    raise AssertionError("nothing waits")


async def state(site: Site) -> list[bool]:
    async with site.connected() as admin:
        rows = await admin.fetch(
            "SELECT indisvalid FROM pg_index WHERE indexrelid::regclass::text LIKE 'orders_customer_adv%'"
        )
    return [row[0] for row in rows]


async def test_writers_go_on_while_an_index_is_made(site: Site) -> None:
    """Even while it waits for somebody's transaction: a writer behind a plain CREATE INDEX would wait with it."""
    async with site.sdk() as sdk:
        async with held(site):
            making = asyncio.create_task(make(sdk))
            await is_waiting(site)
            assert not making.done()
            async with asyncio.timeout(10):
                row = await sdk.tenant("acme").data.create(_order(1))
                await sdk.tenant("acme").data.delete(row)
        assert await making
        assert await state(site) == [True]


async def test_what_a_broken_run_left_is_made_anew(site: Site) -> None:
    async with site.sdk() as sdk:
        async with held(site) as admin:
            making = asyncio.create_task(make(sdk))
            await admin.execute("SELECT pg_terminate_backend($1)", await is_waiting(site))
            with pytest.raises(Exception, match=r"lost|terminat"):
                await making
        assert await state(site) == [False]
        told: list[str] = []
        assert await make(sdk, lambda what, _: told.append(what))
        assert await state(site) == [True]
        assert told[0] == "dropping what is left of orders_customer_adv"
        assert not await make(sdk)


async def test_a_killed_run_can_be_run_again(site: Site) -> None:
    program = (
        "import asyncio, json, sys; from tests.insights import test_postgres as t; "
        "site = t.Site('', json.loads(sys.argv[1]))\n"
        "async def main():\n  async with site.sdk() as sdk: await t.make(sdk)\n"
        "asyncio.run(main())"
    )
    async with held(site):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, json.dumps(site.options), env=os.environ
        )
        await is_waiting(site)
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
    async with site.sdk() as sdk:
        await make(sdk)
    assert await state(site) == [True]


async def test_a_transaction_that_never_ends_ends_the_run(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_LOCK_SECONDS", 0.2)
    async with site.sdk() as sdk:
        async with held(site):
            with pytest.raises(OperationTimeout, match="has held on to 'orders'"):
                await make(sdk)
            assert await sdk.tenant("acme").data.count(Order) == ROWS
        assert await make(sdk)
        assert await state(site) == [True]


async def test_one_run_at_a_time_makes_indexes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    async with site.sdk() as sdk, site.connected() as other:
        await other.execute("SELECT pg_advisory_lock($1)", indexes.INDEX_LOCK)
        monkeypatch.setattr(indexes, "_TURN_SECONDS", 0.1)
        with pytest.raises(OperationTimeout, match="Another run"):
            await make(sdk)
        monkeypatch.setattr(indexes, "_TURN_SECONDS", 60.0)
        making = asyncio.create_task(make(sdk, lambda what, _: told.append(what)))
        while not told:
            await asyncio.sleep(0.02)
        assert told == ["waiting for another run"]
        assert await state(site) == []
        await other.execute("SELECT pg_advisory_unlock($1)", indexes.INDEX_LOCK)
        assert await making


async def test_without_the_owner_no_index_is_made(site: Site) -> None:
    options = {**site.options["database"], "owner_url": None}
    async with site.sdk(database=options) as sdk:
        with pytest.raises(ConfigurationError) as caught:
            await make(sdk)
        assert caught.value.field == "database.owner_url"


# -- what exists


async def test_only_an_index_that_nobody_needs_is_called_unused(site: Site) -> None:
    async with site.sdk() as sdk:
        assert await make(sdk)
        database = sdk._watch.database
        assert isinstance(database, Indexes)
        catalog = await database.indexes()
        found = {index.name: index for index in catalog.indexes}
        assert found["orders_pkey"].required
        assert found["orders_pkey"].unique
        assert found["indexed_code_key"].unique
        assert found["orders_customer_adv"].columns == ("tenant_id", "customer")
        assert not found["orders_customer_adv"].required
        assert found["indexed_order_idx"].required  # behind a reference, which nobody has followed yet
        assert not found["indexed_order_idx"].unique
        at_once = dt.timedelta(0)
        report = await sdk.insights.report(unused_after=at_once)
        unused = {finding.subject for finding in report.findings if finding.code == "unused-index"}
        assert "orders_customer_adv" in unused
        assert not {name for name in unused if name.endswith(("_pkey", "_key", "order_idx"))}
        later = await sdk.insights.report(unused_after=dt.timedelta(days=1))
        assert not [finding for finding in later.findings if finding.code == "unused-index"]
        await _used(site, sdk)
        report = await sdk.insights.report(unused_after=at_once)
        assert "orders_customer_adv" not in {finding.subject for finding in report.findings}


async def _used(site: Site, sdk: MultiTenantSDK) -> None:
    """Use the index until the server has counted it."""
    async with site.connected() as admin:
        for _ in range(100):
            await sdk.tenant("acme").data.read(Order, {"customer": f"{CANARY}-3"})
            if await admin.fetchval("SELECT pg_stat_get_numscans('orders_customer_adv'::regclass)"):
                return
            await asyncio.sleep(0.1)
    raise AssertionError("the index was not used")


async def test_an_unused_index_is_dropped_on_request(site: Site) -> None:
    async with site.sdk() as sdk:
        assert await make(sdk)
        report = await sdk.insights.report(unused_after=dt.timedelta(0))
        (finding,) = [item for item in report.findings if item.subject == INDEX.name]
        assert finding.ddl == 'DROP INDEX CONCURRENTLY IF EXISTS "public"."orders_customer_adv"'
        assert await sdk.insights.apply([finding]) == [finding]
        assert await state(site) == []
