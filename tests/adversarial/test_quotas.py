"""No tenant uses more than its plan allows, learns what another uses, or touches what counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy as sa

from tenantry import MultiTenantSDK, TenantHandle
from tenantry.errors import QuotaExceeded, TenantryError
from tenantry.plans import Plan, Quotas
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.models import MODELS

INSERT = (
    "INSERT INTO customers (tenant_id, id, version, created_at, updated_at, name, email, country_id, notes, tags) "
    "SELECT tenant_id, gen_random_uuid(), 1, now(), now(), name, md5(random()::text), country_id, notes, tags "
    "FROM customers LIMIT 1"
)
# Of a table without another trigger, which would miss the seal.
PUT = (
    "INSERT INTO settings (tenant_id, id, version, created_at, updated_at, value) "
    "SELECT tenant_id, gen_random_uuid()::text, 1, now(), now(), value FROM settings LIMIT 1"
)
# Rows of acme are one above its limit as soon as one of these does anything.
ATTACKS = [
    "UPDATE tenantry.plans SET quotas = '{}'",
    "UPDATE tenantry.tenants SET quotas = '{\"rows\": null}' WHERE id = 'acme'",
    "UPDATE tenantry.tenants SET plan = NULL WHERE id = 'acme'",
    "DELETE FROM tenantry.usage",
    "UPDATE tenantry.usage SET row_count = 0",
    "INSERT INTO tenantry.usage (id, version, created_at, updated_at, tenant, collection, row_count, byte_count) "
    "VALUES ('acme/customers/x', 1, now(), now(), 'acme', 'customers', -100, 0)",
    "SELECT tenantry.charge('acme', 'customers', -100, 0)",
    "SELECT tenantry.charge('globex', 'customers', 100, 0)",
    "SELECT * FROM tenantry.usage",
    "SELECT * FROM tenantry.plans",
    # Set while the rows go in, after the policy was asked for the tenant and before the triggers run.
    *(
        f"WITH put AS ({PUT} RETURNING id) SELECT set_config('{name}', '{value}', true) FROM put"
        for name, value in (
            ("tenantry.seal", ""),
            ("tenantry.seal", "v1|k|1|x'';|globex|00"),
            ("session_replication_role", "replica"),
            ("search_path", "pg_temp, public"),
            ("role", "none"),
        )
    ),
    INSERT,
    "MERGE INTO customers c USING (SELECT * FROM customers) s ON false WHEN NOT MATCHED THEN INSERT "
    "(tenant_id, id, version, created_at, updated_at, name, email, country_id, notes, tags) VALUES (s.tenant_id, "
    "gen_random_uuid(), 1, now(), now(), s.name, md5(random()::text), s.country_id, s.notes, s.tags)",
]
DDL = [
    "ALTER TABLE customers DISABLE TRIGGER tenantry_count_insert",
    "ALTER TABLE customers DISABLE TRIGGER USER",
    "DROP TRIGGER tenantry_count_insert ON customers",
    "SET session_replication_role = replica",
    "TRUNCATE tenantry.usage",
    "CREATE OR REPLACE FUNCTION tenantry.count_rows() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
]


class Planned:
    """An arena in which acme may have no row more than it has."""

    def __init__(self, arena: Arena, sdk: MultiTenantSDK, limit: int) -> None:
        self.arena = arena
        self.sdk = sdk
        self.limit = limit

    @property
    def acme(self) -> TenantHandle:
        return self.sdk.tenant("acme")

    async def rows(self, tenant: str = "acme") -> int:
        counts = [
            await self.arena.judge.fetchval(f'SELECT count(*) FROM "{table}" WHERE tenant_id = $1', tenant)
            for table in await self.tables()
        ]
        return sum(counts)

    async def tables(self) -> list[str]:
        query = "SELECT DISTINCT tgrelid::regclass::text AS t FROM pg_trigger WHERE tgname = 'tenantry_count_insert'"
        return [row["t"] for row in await self.arena.judge.fetch(query)]

    async def check_counters(self) -> None:
        for tenant in ("acme", "globex"):
            assert await self.sdk.tenants.recount(tenant) == []


@pytest_asyncio.fixture
async def planned(own_arenas: Arena) -> AsyncIterator[Planned]:
    """Give an arena with plans, directly and behind a pooler."""
    options = {**own_arenas.options, "models": MODELS, "schema": "create"}
    async with MultiTenantSDK.open(**options, plans=[Plan("full"), Plan("x", Quotas(rows=1))]) as sdk:
        await sdk.tenants.update("acme", plan="full")
        used = (await sdk.tenants.usage("acme")).rows.used
        await sdk.tenants.set_quota("acme", rows=used, reason="no row more")
        found = Planned(own_arenas, sdk, used)
        assert await found.rows() == used  # rows from before were counted when counting began
        yield found


async def test_no_statement_gets_past_the_limit(planned: Planned) -> None:
    before = await planned.arena.judge.fetch("SELECT * FROM tenantry.plans ORDER BY id")
    for text in [*ATTACKS, *DDL]:
        seen = await outcome_of(planned.acme.data.sql(text))
        assert isinstance(seen, TenantryError), text
        assert not planned.arena.reveals(seen, given=text), text
        assert "globex" not in str(seen).replace(text, ""), text
        assert await planned.rows() == planned.limit, text
    assert await planned.arena.judge.fetch("SELECT * FROM tenantry.plans ORDER BY id") == before
    await planned.check_counters()


async def test_what_the_app_role_is_made_to_run_gets_no_further(planned: Planned) -> None:
    adapter: Any = planned.sdk._database
    for text in [*ATTACKS, *DDL]:
        async with asyncio.timeout(20):
            seen = await outcome_of(_as_app(adapter, text))
        assert isinstance(seen, asyncpg.PostgresError), text
        assert await planned.rows() == planned.limit, text
    await planned.check_counters()


async def _as_app(adapter: Any, text: str) -> Any:
    async with adapter._app.transaction("acme") as connection:
        return await connection.fetch(text)


async def test_a_session_of_ones_own_is_held_to_the_limit(planned: Planned) -> None:
    async with planned.acme.session() as session:
        with pytest.raises(sa.exc.DBAPIError, match="quota rows is used up"):
            await session.execute(sa.text(INSERT))
    await planned.sdk.tenants.set_quota("acme", rows=planned.limit + 1, reason="one more")
    async with planned.acme.session() as session:
        await session.execute(sa.text(INSERT))
        await session.rollback()
        await session.execute(sa.text(INSERT))
        await session.commit()
    assert await planned.rows() == planned.limit + 1
    await planned.check_counters()


async def test_a_stricter_isolation_level_sees_no_old_sum(planned: Planned) -> None:
    await planned.sdk.tenants.set_quota("acme", rows=planned.limit + 1, reason="one more")
    adapter: Any = planned.sdk._database
    for isolation in ("repeatable_read", "serializable"):
        async with adapter._app.transaction("acme", isolation=isolation) as first:
            await first.fetch("SELECT count(*) FROM customers")  # its moment is this
            async with adapter._app.transaction("acme") as second:
                await second.execute(INSERT)
            with pytest.raises(asyncpg.PostgresError):
                await first.execute(INSERT)
            await first.execute("ROLLBACK; BEGIN")
        assert await planned.rows() == planned.limit + 1
        await planned.acme.data.sql(
            "DELETE FROM customers WHERE email LIKE '________________________________'"
        )
    await planned.check_counters()


async def test_a_refusal_says_nothing_of_others(planned: Planned) -> None:
    usage = (await planned.sdk.tenants.usage("globex")).rows.used
    with pytest.raises(QuotaExceeded) as full:
        await planned.acme.data.sql(INSERT)
    assert (full.value.used, full.value.limit, full.value.tenant_id) == (planned.limit, planned.limit, "acme")
    await planned.sdk.tenant("globex").data.sql(INSERT)
    assert (await planned.sdk.tenants.usage("globex")).rows.used == usage + 1


async def test_no_setting_changes_what_a_row_counts(planned: Planned) -> None:
    await planned.sdk.tenants.set_quota("acme", rows=None, reason="as many as it likes")
    before = (await planned.sdk.tenants.usage("acme")).storage.used
    style = "WITH style AS MATERIALIZED (SELECT set_config('datestyle', 'postgres', true))"
    put = f"{style}, put AS ({INSERT} RETURNING email, id) SELECT put.id FROM put, style"
    rows = await planned.acme.data.sql(put)
    await planned.check_counters()
    await planned.acme.data.delete("customers", rows[0]["id"])
    assert (await planned.sdk.tenants.usage("acme")).storage.used == before


async def test_backends_that_are_killed_leave_true_counters(planned: Planned) -> None:
    await planned.sdk.tenants.set_quota("acme", rows=planned.limit + 25, reason="some more")
    names = [planned.arena.user(role) for role in ("app", "raw")]
    stop = asyncio.Event()

    async def insert() -> None:
        while not stop.is_set():
            await outcome_of(planned.acme.data.sql(INSERT))
            await outcome_of(planned.sdk.tenant("globex").data.sql(INSERT))

    async def kill() -> None:
        for _ in range(6):
            await asyncio.sleep(0.1)
            await planned.arena.judge.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY ($1)", names
            )
        await asyncio.sleep(0.3)
        stop.set()

    await asyncio.gather(*(insert() for _ in range(3)), kill())
    assert planned.limit < await planned.rows() <= planned.limit + 25
    await planned.check_counters()


async def test_a_recount_mends_what_was_made_wrong_and_holds_up_nobody(planned: Planned) -> None:
    await planned.arena.judge.execute(
        "UPDATE tenantry.usage SET row_count = row_count - 5 WHERE tenant = 'acme'"
    )
    adapter: Any = planned.sdk._database
    async with adapter._app.transaction("globex") as connection:
        await connection.execute(INSERT)  # open, and in nobody's way
        drift = await asyncio.wait_for(planned.sdk.tenants.recount("acme"), 20)
    assert drift
    assert all(item.rows > 0 for item in drift)
    with pytest.raises(QuotaExceeded):
        await planned.acme.data.sql(INSERT)
    await planned.check_counters()


async def test_tables_that_nobody_counts_are_not_served_under_limits(planned: Planned) -> None:
    await planned.arena.judge.execute("ALTER TABLE customers DISABLE TRIGGER tenantry_count_insert")
    options = {**planned.arena.options, "models": MODELS, "schema": "check"}
    with pytest.raises(TenantryError, match="customers is not counted"):
        async with MultiTenantSDK.open(**options, plans=[Plan("x", Quotas(rows=1))]):
            pass
