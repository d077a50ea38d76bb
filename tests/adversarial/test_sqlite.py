"""SQLite has no roles, so each of its two locks is tried on its own: the predicate, and the authorizer."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tenantry import MultiTenantSDK
from tenantry.data import DataManager
from tenantry.databases.sqlite.adapter import SQLiteAdapter
from tenantry.databases.sqlite.connection import Connection
from tenantry.errors import Conflict, NotFound, TenantDeleted, TenantryError, Unsupported
from tests.adversarial.arena import outcome_of
from tests.adversarial.attacks import STATEMENTS
from tests.adversarial.models import MODELS, TENANT_TABLES, WORD_TABLES, Customer, Order, Setting
from tests.adversarial.processes import worker
from tests.adversarial.steps import MOMENTS, interrupt

TWIN = uuid.UUID(int=7)
TENANTS = ("acme", "globex")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/app.db"


@pytest_asyncio.fixture
async def sdk(url: str) -> AsyncIterator[MultiTenantSDK]:
    """Give an SDK in which both tenants have the same ids, and values that name them."""
    async with MultiTenantSDK.open(url, models=MODELS, schema="create") as sdk:
        for tenant in TENANTS:
            await sdk.tenants.create(tenant)
            data = sdk.tenant(tenant).data
            await data.create(Customer(id=TWIN, name=tenant, email=f"{tenant}@example.com"))
            await data.create(Order(id=TWIN, customer_id=TWIN, number=1, total="1", memo=tenant))
            await data.create(Setting(id="theme", value=tenant))
            await data.create(Setting(id=f"{tenant}'s", value=tenant), idempotency_key=f"{tenant}'s")
        yield sdk


def _stored(url: str) -> set[tuple[str, str, str]]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as judge:
        rows = set(judge.execute("SELECT tenant_id, id, value FROM settings"))
    judge.close()
    return rows


class TestThePredicate:
    async def test_holds_every_read(self, sdk: MultiTenantSDK) -> None:
        for tenant in TENANTS:
            data = sdk.tenant(tenant).data
            assert (await data.get(Customer, TWIN)).name == tenant
            assert [row.name for row in await data.read(Customer)] == [tenant]
            assert {row.value for row in await data.read(Setting, {"or": [{"id": {"ne": ""}}, {}]})} == {
                tenant
            }
            assert await data.count(Setting) == 2
            assert not await data.exists(Setting, {"value": {"ne": tenant}})
            page = await data.read(Order, include=["customer"])
            assert page.included["customer"][TWIN].name == tenant
            found = await outcome_of(data.get(Setting, "globex's" if tenant == "acme" else "acme's"))
            assert isinstance(found, NotFound)

    async def test_holds_every_write(self, sdk: MultiTenantSDK, url: str) -> None:
        data = sdk.tenant("acme").data
        before = {row for row in _stored(url) if row[0] == "globex"}
        writes: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: data.update(Setting, "theme", value="changed"),
            lambda: data.upsert(Setting(id="theme", value="changed again")),
            lambda: data.update(Setting, "globex's", value="owned"),
            lambda: data.delete(Setting, "globex's"),
            lambda: data.delete(Order, TWIN),
            lambda: data.upsert(Customer(name="x", email="globex@example.com"), on=["email"]),
            lambda: data.delete(Setting, "theme"),
            lambda: data.create(Setting(id="globex's", value="mine"), idempotency_key="globex's"),
        )
        for write in writes:
            await outcome_of(write())
        assert {row for row in _stored(url) if row[0] == "globex"} == before
        theirs = sdk.tenant("globex").data
        assert (await theirs.get(Order, TWIN)).memo == "globex"
        assert (await theirs.get(Customer, TWIN)).name == "globex"

    async def test_holds_a_purge(self, sdk: MultiTenantSDK, url: str) -> None:
        await sdk.tenants.delete("acme", reason="test")
        certificate = await sdk.tenants.purge("acme")
        assert sum(certificate.deleted.values()) == 5
        assert {row[0] for row in _stored(url)} == {"globex"}


class TestTheAuthorizer:
    async def test_admits_no_statement_but_ours(self, sdk: MultiTenantSDK) -> None:
        adapter = sdk._database
        assert isinstance(adapter, SQLiteAdapter)
        await asyncio.gather(
            *(sdk.tenant("acme").data.read(Setting) for _ in range(8))
        )  # so that readers exist
        others = [
            *(f"SELECT * FROM {table}" for table in (*TENANT_TABLES, *WORD_TABLES)),
            *(f"DELETE FROM {table}" for table in (*TENANT_TABLES, *WORD_TABLES)),
            "SELECT count(*) FROM settings",
            "SELECT * FROM sqlite_master",
            "SELECT * FROM tenantry_tenants",
            "SELECT * FROM tenantry_secrets",
            "SELECT * FROM pragma_table_info('settings')",
            "INSERT INTO settings (tenant_id, id) VALUES ('globex', 'x')",
            "UPDATE settings SET tenant_id = 'acme'",
            "WITH x AS (SELECT * FROM settings) SELECT * FROM x",
            "SELECT (SELECT value FROM settings)",
            "CREATE TABLE leak (id)",
            "CREATE TEMP TABLE settings (id)",
            "CREATE VIEW leak AS SELECT * FROM settings",
            "CREATE TRIGGER leak AFTER INSERT ON settings BEGIN SELECT 1; END",
            "DROP TABLE settings",
            "ALTER TABLE settings ADD COLUMN x",
            "ATTACH DATABASE ':memory:' AS other",
            "ATTACH DATABASE '{path}' AS self",
            "PRAGMA foreign_keys=OFF",
            "PRAGMA query_only=OFF",
            "PRAGMA writable_schema=ON",
            "VACUUM INTO '/tmp/stolen.db'",
            "REINDEX",
            "ANALYZE",
            "SELECT load_extension('x')",
        ]
        assert len(adapter._connections) > 1
        for connection in adapter._connections:
            for text in others:
                with pytest.raises(sqlite3.DatabaseError):
                    connection.raw.execute(text)

    def test_holds_a_connection_that_nobody_else_looks_after(self, tmp_path: Path) -> None:
        """Without the attestation at the start, which would refuse to go on."""
        connection = Connection(f"{tmp_path}/app.db", timeout=1, readonly=False)
        connection.script(
            ["CREATE TABLE settings (tenant_id, id)", "INSERT INTO settings VALUES ('globex', 1)"]
        )
        connection.restrict()
        for text in ("SELECT * FROM settings", "DELETE FROM settings", "DROP TABLE settings"):
            with pytest.raises(sqlite3.DatabaseError):
                connection.control(text)
        connection.raw.close()

    async def test_admits_only_the_table_of_the_statement(self, sdk: MultiTenantSDK) -> None:
        adapter = sdk._database
        assert isinstance(adapter, SQLiteAdapter)
        reach = adapter._reaches["countries", False]
        connection = adapter._connections[0]
        connection._reach = reach
        try:
            connection.raw.execute("SELECT * FROM countries").fetchall()
            for text in (
                "SELECT * FROM customers",
                "SELECT * FROM countries JOIN customers",
                "DELETE FROM countries",
            ):
                with pytest.raises(sqlite3.DatabaseError):
                    connection.raw.execute(text)
        finally:
            connection._reach = type(reach)()

    async def test_is_not_needed_for_raw_sql_since_there_is_none(self, sdk: MultiTenantSDK) -> None:
        for text in STATEMENTS[:5]:
            with pytest.raises(Unsupported):
                await sdk.tenant("acme").data.sql(text)


class TestDurability:
    async def test_a_killed_process_loses_no_acknowledged_write(self, sdk: MultiTenantSDK, url: str) -> None:
        for pause in (0.0, 0.1):
            acknowledged: set[str] = set()
            async with worker("write", {"url": url}) as writer:
                for _ in range(4):
                    acknowledged.add((await writer.until("stored"))[0][1])
                await asyncio.sleep(pause)
                await writer.kill()
                acknowledged.update(await writer.said("stored"))
            stored = {id for tenant, id, _ in _stored(url) if tenant == "globex"}
            assert len(acknowledged) > 3
            assert acknowledged <= stored
            triples = [id.split()[1] for id in stored if id.startswith("triple")]
            assert all(triples.count(number) == 3 for number in triples)
            data = sdk.tenant("globex").data
            for id in stored - {"theme", "globex's"}:
                await data.delete(Setting, id)

    async def test_of_many_racers_on_one_version_one_wins(self, sdk: MultiTenantSDK) -> None:
        data = sdk.tenant("acme").data
        row = await data.get(Customer, TWIN)
        outcomes = await asyncio.gather(
            *(data.update(row, name=f"{number}") for number in range(50)), return_exceptions=True
        )
        assert sum(isinstance(outcome, Customer) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 49

    async def test_a_write_of_another_process_that_comes_after_the_purge_leaves_nothing(
        self, sdk: MultiTenantSDK, url: str
    ) -> None:
        """It was let in before the mark, and its thread gets to run when all seems to be over."""
        async with MultiTenantSDK.open(url, models=MODELS) as other:
            data, adapter = other.tenant("globex").data, other._database
            assert isinstance(adapter, SQLiteAdapter)
            await data.get(Setting, "theme")
            over = threading.Event()
            adapter._writer_thread.submit(over.wait)
            late = asyncio.create_task(data.create(Setting(id="late", value="globex")))
            await asyncio.sleep(0.05)
            await sdk.tenants.delete("globex", reason="test")
            await sdk.tenants.purge("globex")
            over.set()
            with pytest.raises(TenantDeleted):
                await late
        assert not [row for row in _stored(url) if row[0] == "globex"]

    async def test_one_idempotency_key_counts_once(self, sdk: MultiTenantSDK) -> None:
        data = sdk.tenant("acme").data
        made = await asyncio.gather(
            *(data.create("customers", {"name": "x", "email": "x"}, idempotency_key="new") for _ in range(20))
        )
        assert len({row["id"] for row in made}) == 1

    async def test_a_cancellation_at_any_await_keeps_all_or_nothing(
        self, sdk: MultiTenantSDK, url: str
    ) -> None:
        numbers = itertools.count()

        async def unit(data: DataManager, id: str) -> None:
            async with data.transaction() as unit:
                await unit.create(Setting(id=f"{id} 1", value="acme"))
                await unit.read(Setting)
                await unit.create(Setting(id=f"{id} 2", value="acme"))

        async def single(data: DataManager, id: str) -> None:
            await data.bulk_create([Setting(id=f"{id} {part}", value="acme") for part in (1, 2)], atomic=True)

        data, theirs = sdk.tenant("acme").data, sdk.tenant("globex").data
        for operation in (unit, single):
            for moment in MOMENTS:
                for step in itertools.count(1):
                    id = f"row {next(numbers)}"
                    reached, outcome = await interrupt(partial(operation, data, id), step, moment)
                    assert len(await theirs.read(Setting)) == 2
                    await theirs.update(Setting, "theme", value="globex")
                    parts = [row for row in _stored(url) if row[1].startswith(f"{id} ")]
                    assert len(parts) in (0, 2)
                    assert isinstance(outcome, asyncio.CancelledError | TenantryError) or len(parts) == 2
                    if not reached:
                        break


async def test_many_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    """Turning write-ahead mode on waits for nobody by itself."""
    for number in range(5):
        url = f"sqlite:///{tmp_path}/{number}.db"
        sdks = [MultiTenantSDK.open(url, models=MODELS, schema="create") for _ in range(6)]
        await asyncio.gather(*(sdk.initialize() for sdk in sdks))
        await asyncio.gather(*(sdk.close() for sdk in sdks))
