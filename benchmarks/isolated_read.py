"""Reads by primary key, isolated by the database, against reads without isolation and with other people's.

Every contender reads the same seven columns of one row of 1,000 a tenant, by tenant and id, from a table with the
same rows and the same key, over at most 16 connections to one server:

- ``stock``: an asyncpg pool as it comes, on a table without row-level security. It isolates nothing.
- ``tenantry``: ``data.get(…)`` with the default hooks, under forced row-level security unlocked by the seal, with
  coalescing off; ``tenantry_coalesced`` has it on. Connections stay bound to the tenant they last served, so a task
  that stays with its tenant rarely has to bind one; ``tenantry_rotating`` goes to another tenant with every read.
- ``sqlalchemy_rls``: an ``AsyncSession``, ``set_config(…, true)`` and a select in one transaction, the way the
  guides show it, under a policy that trusts the setting.
- ``fastapi_tenancy``: its row-level security provider as documented, under the same policy.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import sqlalchemy as sa
from fastapi_tenancy.core.config import TenancyConfig
from fastapi_tenancy.core.types import IsolationStrategy, Tenant
from fastapi_tenancy.isolation.rls import RLSIsolationProvider
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.harness import Contender, Effort, Operation, Ratio, Report, compare, judge
from tenantry import Model, MultiTenantSDK
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

TENANTS = 16
ROWS = 1_000
CONNECTIONS = 16
COLUMNS = "id, name, sku, price, version, created_at, updated_at"

RATIOS = [
    Ratio("vs_stock_pool_16", "tenantry_16", "stock_16", 0.9),
    Ratio("vs_stock_pool_64_one_tenant", "tenantry_coalesced_64", "stock_64", 3.0),
    Ratio("vs_fastapi_tenancy", "tenantry_16", "fastapi_tenancy_16", 8.0),
    Ratio("vs_stock_pool_16_rotating", "tenantry_rotating_16", "stock_16"),
    Ratio("vs_sqlalchemy_rls", "tenantry_16", "sqlalchemy_rls_16", 5.0),
]


class Item(Model):
    """What is read."""

    __collection__ = "items"

    name: str
    sku: str
    price: Decimal


class Base(DeclarativeBase):
    """The declarative base of the peers' table."""


class GuardedItem(Base):
    """The same rows, under a policy that trusts a session variable."""

    __tablename__ = "guarded_items"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[Any] = mapped_column(sa.Uuid(), primary_key=True)
    name: Mapped[str]
    sku: Mapped[str]
    price: Mapped[Decimal]
    version: Mapped[int] = mapped_column(sa.BigInteger())
    created_at: Mapped[Any] = mapped_column(sa.TIMESTAMP(timezone=True))
    updated_at: Mapped[Any] = mapped_column(sa.TIMESTAMP(timezone=True))


_PEER_TABLES = """
CREATE TABLE stock_items AS SELECT * FROM items;
ALTER TABLE stock_items ADD PRIMARY KEY (tenant_id, id);
CREATE TABLE guarded_items AS SELECT * FROM items;
ALTER TABLE guarded_items ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE guarded_items ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded_items FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON guarded_items USING (tenant_id = current_setting('app.current_tenant', true));
CREATE ROLE peer LOGIN PASSWORD 'peer';
GRANT SELECT ON stock_items, guarded_items TO peer;
VACUUM ANALYZE;
"""


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, fill it, measure."""
    with PostgresServer.start() as server:
        admin_url = server.create_database("bench")
        async with AsyncExitStack() as stack:
            contenders = await _contenders(stack, server, admin_url)
            rates = await compare(contenders, effort, console)
    return judge("isolated-read", rates, RATIOS, console)


async def _contenders(stack: AsyncExitStack, server: PostgresServer, admin_url: str) -> list[Contender]:
    options = await deploy(admin_url)
    options["database"]["pool_size"] = CONNECTIONS
    options["models"] = [Item]
    plain = await stack.enter_async_context(
        MultiTenantSDK.open(**options, schema="create", performance={"coalesce": False})
    )
    coalescing = await stack.enter_async_context(MultiTenantSDK.open(**options))
    ids = await _fill(plain)
    for statement in filter(str.strip, _PEER_TABLES.split(";")):
        server.execute(statement, "bench")
    peer_url = server.url("bench", user="peer", password="peer")
    stock = await stack.enter_async_context(_stock(peer_url, ids))
    return [
        Contender("stock_16", stock, 16),
        Contender("tenantry_16", _tenantry(plain, ids), 16),
        Contender("tenantry_rotating_16", _rotating(_tenantry(plain, ids)), 16),
        Contender("sqlalchemy_rls_16", await stack.enter_async_context(_sqlalchemy(peer_url, ids)), 16),
        Contender("fastapi_tenancy_16", await stack.enter_async_context(_fastapi_tenancy(peer_url, ids)), 16),
        Contender("stock_64", _one_tenant(stock), 64),
        Contender("tenantry_coalesced_64", _one_tenant(_tenantry(coalescing, ids)), 64),
    ]


def _one_tenant(operation: Operation) -> Operation:
    return lambda task, number: operation(0, number * 64 + task)


def _rotating(operation: Operation) -> Operation:
    return lambda task, number: operation(task + 7 * number, number)


def _tenant(task: int) -> str:
    return f"tenant-{task % TENANTS}"


async def _fill(sdk: MultiTenantSDK) -> list[list[Any]]:
    """Make the tenants and their rows; return each tenant's ids, shuffled."""
    shuffler = random.Random(1)
    ids = []
    for number in range(TENANTS):
        await sdk.tenants.create(_tenant(number))
        made = (
            await sdk.tenant(_tenant(number)).data.bulk_create(
                [Item(name=f"Item {row}", sku=f"S{row}", price=Decimal(row)) for row in range(ROWS)],
                atomic=True,
            )
        ).rows
        ids.append([item.id for item in made])
        shuffler.shuffle(ids[-1])
    return ids


def _tenantry(sdk: MultiTenantSDK, ids: list[list[Any]]) -> Operation:
    handles = [sdk.tenant(_tenant(number)) for number in range(TENANTS)]

    async def read(task: int, number: int) -> object:
        row = await handles[task % TENANTS].data.get("items", ids[task % TENANTS][number % ROWS])
        assert row["version"] == 1
        return row

    return read


@asynccontextmanager
async def _stock(url: str, ids: list[list[Any]]) -> AsyncIterator[Operation]:
    text = f"SELECT {COLUMNS} FROM stock_items WHERE tenant_id = $1 AND id = $2"
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:

        async def read(task: int, number: int) -> object:
            async with pool.acquire() as connection:
                row = await connection.fetchrow(text, _tenant(task), ids[task % TENANTS][number % ROWS])
            assert row is not None
            assert row["version"] == 1
            return row

        yield read


@asynccontextmanager
async def _sqlalchemy(url: str, ids: list[list[Any]]) -> AsyncIterator[Operation]:
    engine = create_async_engine(_async(url), pool_size=CONNECTIONS, max_overflow=0)
    bind = sa.text("SELECT set_config('app.current_tenant', :tenant, true)")

    async def read(task: int, number: int) -> object:
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(bind, {"tenant": _tenant(task)})
            query = sa.select(GuardedItem).where(GuardedItem.id == ids[task % TENANTS][number % ROWS])
            row = (await session.execute(query)).scalar_one()
            assert row.version == 1
            return row

    yield read
    await engine.dispose()


@asynccontextmanager
async def _fastapi_tenancy(url: str, ids: list[list[Any]]) -> AsyncIterator[Operation]:
    config = TenancyConfig(
        database_url=_async(url),
        isolation_strategy=IsolationStrategy.RLS,
        database_pool_size=CONNECTIONS,
        database_max_overflow=0,
    )
    provider = RLSIsolationProvider(config)
    tenants = [Tenant(id=_tenant(n), identifier=_tenant(n), name=_tenant(n)) for n in range(TENANTS)]

    async def read(task: int, number: int) -> object:
        tenant = tenants[task % TENANTS]
        async with provider.get_session(tenant) as session:
            query = sa.select(GuardedItem).where(GuardedItem.id == ids[task % TENANTS][number % ROWS])
            row = (await session.execute(await provider.apply_filters(query, tenant))).scalar_one()
            assert row.version == 1
            return row

    yield read
    await provider.close()


def _async(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)
