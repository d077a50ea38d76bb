"""One provisioned database for all tests of this folder, with a table of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from tenantry.databases.postgres.findings import ExpectedTable
from tenantry.databases.postgres.policies import (
    Roles,
    control_table_policies,
    shared_table_policies,
    tenant_table_policies,
)
from tenantry.databases.postgres.pool import TenantPool
from tenantry.databases.postgres.provision import Provisioned, provision
from tenantry.databases.postgres.seal import SealKey
from tests.servers import PgBouncer, PostgresServer

DATABASE = "isolation"
TABLES = (
    ExpectedTable("public", "products", "tenant"),
    ExpectedTable("public", "orders", "tenant"),
    ExpectedTable("public", "countries", "shared"),
    ExpectedTable("tenantry", "audit", "control"),
    ExpectedTable("tenantry", "requests", "control", app=("SELECT", "INSERT")),
)
_COLUMNS = """tenant_id text NOT NULL, id int NOT NULL, version int NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()"""
_DDL = f"""
CREATE TABLE products ({_COLUMNS}, name text, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, name));
CREATE TABLE orders ({_COLUMNS}, product int, PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, product) REFERENCES products (tenant_id, id));
CREATE TABLE countries (id text PRIMARY KEY);
CREATE TABLE tenantry.audit (id int PRIMARY KEY, tenant_id text, what text);
CREATE TABLE tenantry.requests (tenant_id text NOT NULL, key text NOT NULL, PRIMARY KEY (tenant_id, key));
"""


@dataclass(frozen=True)
class Site:
    """A provisioned database."""

    admin_url: str
    made: Provisioned

    @property
    def roles(self) -> Roles:
        return self.made.roles

    @property
    def key(self) -> SealKey:
        return self.made.seal_key

    def pool(self, role: str = "app", *, url: str | None = None, **options: Any) -> TenantPool:
        keys = () if role == "control" else (self.key,)
        return TenantPool(url or self.made.urls[role], keys=keys, **{"max_size": 3, **options})

    @asynccontextmanager
    async def opened(self, role: str = "app", **options: Any) -> AsyncIterator[TenantPool]:
        pool = self.pool(role, **options)
        await pool.open()
        try:
            yield pool
        finally:
            await pool.close(1)

    @asynccontextmanager
    async def connected(self, role: str = "admin") -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.admin_url if role == "admin" else self.made.urls[role])
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def site(postgres_server: PostgresServer) -> Iterator[Site]:
    admin_url = postgres_server.create_database(DATABASE)
    yield asyncio.run(_build(admin_url))
    postgres_server.drop_database(DATABASE)


@pytest.fixture
def through_pgbouncer(site: Site, pgbouncer: PgBouncer) -> dict[str, str]:
    """Give each role's URL through the pooler."""
    server, pooler = f"@127.0.0.1:{pgbouncer.server.port}/", f"@127.0.0.1:{pgbouncer.port}/"
    return {role: url.replace(server, pooler) for role, url in site.made.urls.items()}


@pytest.fixture(autouse=True)
async def rows(request: pytest.FixtureRequest) -> None:
    """Begin each test that uses the site with three products of `a`, two of `b`, and one country."""
    if "site" not in request.fixturenames:
        return
    site: Site = request.getfixturevalue("site")
    async with site.connected() as admin:
        await admin.execute(
            """
            TRUNCATE products, orders, countries, tenantry.audit, tenantry.requests;
            INSERT INTO products (tenant_id, id, name) VALUES
              ('a', 1, 'a1'), ('a', 2, 'a2'), ('a', 3, 'a3'), ('b', 1, 'b1'), ('b', 2, 'b2');
            INSERT INTO countries VALUES ('NZ');
            INSERT INTO tenantry.audit VALUES (1, 'a', 'secret');
            """
        )


async def _build(admin_url: str) -> Site:
    made = await provision(admin_url, prefix="site")
    owner = await asyncpg.connect(made.urls["owner"])
    try:
        await owner.execute(_DDL)
        for table in TABLES:
            for statement in _policies(table, made.roles):
                await owner.execute(statement)
    finally:
        await owner.close()
    return Site(admin_url, made)


def _policies(table: ExpectedTable, roles: Roles) -> list[str]:
    if table.kind == "tenant":
        return tenant_table_policies(table.schema, table.table, roles)
    if table.kind == "shared":
        return shared_table_policies(table.schema, table.table, roles)
    return control_table_policies(table.schema, table.table, roles, app=table.app)
