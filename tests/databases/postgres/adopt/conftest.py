"""Databases of applications that know nothing of tenantry, each test with a copy of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import sqlalchemy as sa

from tenantry import MultiTenantSDK
from tenantry.cli.adopt_work import create_missing
from tenantry.databases.postgres.adopt.adoption import Adoption, NoteTenants, make_plan
from tenantry.databases.postgres.adopt.plan import Plan
from tenantry.databases.postgres.adopt.runner import Pace
from tenantry.databases.postgres.adopt.session import session
from tenantry.databases.postgres.pool import TenantPool
from tenantry.databases.postgres.provision import Provisioned, provision
from tests.databases.postgres.adopt import shop
from tests.servers import PostgresServer

FAST = Pace(batch_rows=50, pause=0.0, lock_timeout=0.5, patience=60.0)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Application:
    """The database of an application, prepared by `tenantry init` and not adopted yet.

    Attributes:
        database: Its name.
        owner: The role that owns the tables, and as which the application connects today.
        web: A role that only reads and writes.
    """

    server: PostgresServer
    database: str
    owner: str
    web: str
    made: Provisioned

    @property
    def admin_url(self) -> str:
        return self.server.url(self.database)

    @property
    def owner_url(self) -> str:
        return self.server.url(self.database, user=self.owner, password="secret")

    @property
    def web_url(self) -> str:
        return self.server.url(self.database, user=self.web, password="secret")

    def url(self, role: str) -> str:
        """Return the address of one of tenantry's roles."""
        return urlsplit(self.made.urls[role])._replace(path=f"/{self.database}").geturl()

    def execute(self, sql: str) -> str:
        return self.server.execute(sql, self.database)

    def dump(self) -> str:
        """Return the whole schema but tenantry's own, as `pg_dump` prints it."""
        program = Path(self.server._programs) / "pg_dump"
        command = [str(program), "--schema-only", "--exclude-schema=tenantry", "-d", self.admin_url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return "".join(line for line in done.stdout.splitlines(True) if "restrict" not in line)

    @asynccontextmanager
    async def connected(self, url: str | None = None) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(url or self.admin_url)
        try:
            yield connection
        finally:
            await connection.close()

    def sdk(self) -> MultiTenantSDK:
        return MultiTenantSDK.open(
            self.url("app"),
            schema="create",
            database={
                "control_url": self.url("control"),
                "raw_url": self.url("raw"),
                "owner_url": self.url("owner"),
                "seal_key": self.made.seal_key.export(),
            },
            env={},
        )

    async def create_tenants(self, wanted: Sequence[tuple[str, str]], note: NoteTenants) -> None:
        async with self.sdk() as sdk:
            await create_missing(sdk.tenants, wanted, note)

    async def plan(self, **options: Any) -> Plan:
        async with session(self.admin_url) as connection:
            plan, _, _ = await make_plan(connection, **options)
            return plan

    async def apply(self, plan: Plan, pace: Pace = FAST) -> None:
        async with session(self.admin_url) as connection:
            await Adoption(connection, pace=pace).apply(plan, self.create_tenants)

    async def enforce(self, **options: Any) -> None:
        async with session(self.admin_url) as connection:
            await Adoption(connection, pace=FAST).enforce(self.create_tenants, **options)

    async def revert(self) -> None:
        async with session(self.admin_url) as connection:
            await Adoption(connection, pace=FAST).revert()

    @asynccontextmanager
    async def bound(self, role: str = "app") -> AsyncIterator[TenantPool]:
        """Give a pool of one of tenantry's roles, which binds tenants."""
        pool = TenantPool(self.url(role), keys=(self.made.seal_key,), max_size=2)
        await pool.open()
        try:
            yield pool
        finally:
            await pool.close(1)


Fill = Callable[[PostgresServer, str, str, str], None]


def _template(server: PostgresServer, name: str, fill: Fill) -> Iterator[Application]:
    """Make an application's database, from which those of the tests are copied."""
    prefix = f"{name}{os.getpid()}_{next(_numbers)}"
    owner, web = f"{prefix}_legacy", f"{prefix}_web"
    server.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'; CREATE ROLE {web} LOGIN PASSWORD 'secret'")
    server.create_database(prefix)
    server.execute(f"GRANT CREATE ON DATABASE {prefix} TO {owner}")
    server.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}", prefix)
    fill(server, prefix, owner, web)
    made = asyncio.run(provision(server.url(prefix), prefix=prefix))
    application = Application(server, prefix, owner, web, made)

    async def open_once() -> None:  # makes the directory's tables
        async with application.sdk():
            pass

    asyncio.run(open_once())
    server.execute("VACUUM ANALYZE", prefix)
    yield application
    server.drop_database(prefix)
    roles = ", ".join([owner, web, *made.roles])
    server.execute(f"DROP ROLE IF EXISTS {roles}")


def _copy(template: Application) -> Iterator[Application]:
    name = f"{template.database}_{next(_numbers)}"
    template.server.execute(f"CREATE DATABASE {name} TEMPLATE {template.database}")
    # A copy has neither the owner nor the rights of the database that it was made from.
    given = f"GRANT CREATE ON DATABASE {name} TO {template.owner};"
    given += f"REVOKE CREATE, TEMPORARY ON DATABASE {name} FROM PUBLIC"
    template.server.execute(given)
    yield Application(template.server, name, template.owner, template.web, template.made)
    template.server.drop_database(name)


def _fill_shop(server: PostgresServer, database: str, owner: str, web: str) -> None:
    url = server.url(database, user=owner, password="secret")
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement in shop.BEFORE.split(";"):
            connection.exec_driver_sql(statement)
        shop.Base.metadata.create_all(connection)
    with engine.begin() as connection:
        connection.exec_driver_sql(shop.AFTER.format(web=web))
        connection.exec_driver_sql(shop.DATA.replace("%", "%%"))
    engine.dispose()


@pytest.fixture(scope="session")
def _shop(postgres_server: PostgresServer) -> Iterator[Application]:
    yield from _template(postgres_server, "shop", _fill_shop)


@pytest.fixture
def shop_app(_shop: Application) -> Iterator[Application]:
    """Give the database of the SQLAlchemy application."""
    yield from _copy(_shop)
