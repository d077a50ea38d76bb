"""What `docs/side-channels.md` says can be seen can be seen, and what it says is closed is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tenantry import Model, MultiTenantSDK, TenantHandle
from tenantry.errors import IsolationError
from tests.databases.postgres.deployment import deploy


class Note(Model):
    __collection__ = "notes"

    text: str


@pytest.fixture
async def acme(database_url: str) -> AsyncIterator[TenantHandle]:
    """Give a tenant beside which another one has a thousand rows."""
    options = await deploy(database_url)
    async with MultiTenantSDK.open(**options, models=[Note], schema="create", env={}) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenants.create("globex")
        await sdk.tenant("acme").data.create(Note(text="ours"))
        await sdk.tenant("globex").data.bulk_create(
            (Note(text=f"secret {number % 3}") for number in range(1_000)), atomic=True
        )
        admin = await asyncpg.connect(database_url)
        await admin.execute("ANALYZE notes")
        await admin.close()
        yield sdk.tenant("acme")


async def test_estimates_and_sizes_can_be_seen(acme: TenantHandle) -> None:
    (row,) = await acme.data.sql("SELECT reltuples AS rows FROM pg_class WHERE oid = 'notes'::regclass")
    assert row["rows"] == 1_001
    (row,) = await acme.data.sql("SELECT pg_relation_size('notes') AS size")
    assert row["size"] > 8_192


async def test_values_and_their_distribution_cannot(acme: TenantHandle) -> None:
    assert await acme.data.sql("SELECT attname, n_distinct FROM pg_stats WHERE tablename = 'notes'") == []
    assert await acme.data.sql("SELECT text FROM notes") == [{"text": "ours"}]


async def test_the_rows_that_a_scan_passes_over_can_be_counted(acme: TenantHandle) -> None:
    plan = await acme.data.sql("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT text FROM notes")
    assert "Rows Removed by Filter: 1000" in "\n".join(row["QUERY PLAN"] for row in plan)


async def test_the_texts_of_statements_cannot_be_seen(acme: TenantHandle) -> None:
    rows = await acme.data.sql("SELECT query FROM pg_stat_activity WHERE usename = current_user")
    assert {row["query"] for row in rows} <= {"", None}
    rows = await acme.data.sql("SELECT query FROM pg_stat_activity WHERE query ILIKE '%notes%'")
    assert rows == []


async def test_what_is_revoked_is_refused(acme: TenantHandle) -> None:
    for text in (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_notify('anybody', 'text')",
        "SELECT lo_create(1)",
        "SELECT id FROM tenantry.tenants",
        "SELECT reason FROM tenantry.audit",
    ):
        with pytest.raises(IsolationError):
            await acme.data.sql(text)
