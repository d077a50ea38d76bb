"""A purge deletes all of a tenant or says that it did not, whoever still writes and whatever it cannot see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tenantry.errors import (
    ConfigurationError,
    InvalidTransition,
    PurgeIncomplete,
    TenantDeleted,
    TenantryError,
    Unavailable,
)
from tenantry.tenants import PurgeCertificate, TenantStatus
from tests.adversarial.arena import Arena, another_sdk, outcome_of
from tests.adversarial.models import TENANT_TABLES, WORD_TABLES, Setting


async def _left(arena: Arena) -> int:
    tables = [*TENANT_TABLES, "tenantry.idempotency"]
    counts = [
        await arena.judge.fetchval(f"SELECT count(*) FROM {t} WHERE tenant_id = 'globex'") for t in tables
    ]
    return sum(counts)


async def _words_left(arena: Arena) -> int:
    counts = [
        await arena.judge.fetchval(f"SELECT count(*) FROM {t} WHERE tenant_id = 'globex'")
        for t in WORD_TABLES
    ]
    return sum(counts)


async def _mark(arena: Arena) -> None:
    await arena.sdk.tenants.delete("globex", reason="test")


async def test_nothing_is_left_and_nothing_else_is_touched(arena: Arena) -> None:
    before = await arena.fingerprint("acme")
    stored = await _left(arena)
    assert await _words_left(arena) > 0
    await _mark(arena)
    certificate = await arena.sdk.tenants.purge("globex")
    assert await _left(arena) == await _words_left(arena) == 0
    assert sum(certificate.deleted.values()) == stored
    assert set(certificate.remaining.values()) == {0}
    assert {name.removeprefix("tenantry_") for name in certificate.deleted} >= {*TENANT_TABLES, "idempotency"}
    assert await arena.fingerprint("acme") == before
    assert (await arena.sdk.tenants.get("globex")).status is TenantStatus.PURGED
    with pytest.raises(TenantDeleted):
        await arena.globex.data.read(Setting)


@pytest.mark.parametrize("skew", [0, 10])
@pytest.mark.parametrize("pause", [0.0, 0.1])
async def test_a_process_with_a_stale_lease_leaves_nothing(arena: Arena, skew: int, pause: float) -> None:
    """It writes until it hears of the mark; whoever marked may have a clock that is behind."""
    async with another_sdk(arena, performance={"lease_seconds": 1.0}) as other:
        data = other.tenant("globex").data
        await data.get(Setting, "theme")

        async def write() -> int:
            for number in range(1_000_000):
                try:
                    await data.create(Setting(id=f"late {number}", value="x"))
                except TenantDeleted:
                    return number
                await asyncio.sleep(pause)
            raise AssertionError

        writer = asyncio.create_task(write())
        await asyncio.sleep(0.1)
        await _mark(arena)
        await arena.judge.execute(
            "UPDATE tenantry.tenants SET status_since = status_since - $1 * interval '1 s'", skew
        )
        found = await outcome_of(arena.sdk.tenants.purge("globex"))
        assert await writer > 0
        if isinstance(found, PurgeIncomplete):
            assert (await arena.sdk.tenants.get("globex")).status is TenantStatus.DELETING
        else:
            assert await _left(arena) == 0


async def test_a_row_that_comes_during_the_purge_fails_it(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = arena.sdk.tenants
    delete_rows = manager._delete_rows
    passes = 0

    async def with_a_late_row(tenant_id: str) -> Any:
        nonlocal passes
        passes += 1
        deleted = await delete_rows(tenant_id)
        if passes == 1:
            text = "INSERT INTO settings (tenant_id, id, value, version, created_at, updated_at) "
            await arena.judge.execute(f"{text} VALUES ('globex', 'late', 'x', 1, now(), now())")
        return deleted

    monkeypatch.setattr(manager, "_delete_rows", with_a_late_row)
    await _mark(arena)
    with pytest.raises(PurgeIncomplete) as caught:
        await manager.purge("globex")
    assert caught.value.remaining["settings"] == 1
    assert (await manager.get("globex")).status is TenantStatus.DELETING
    await manager.purge("globex")
    assert await _left(arena) == 0


async def test_a_transaction_that_was_open_before_leaves_nothing(arena: Arena) -> None:
    """Its row cannot be seen by the purge; it commits when all seems to be over."""
    async with another_sdk(arena) as other:
        marked = asyncio.Event()

        async def straddle() -> None:
            async with other.tenant("globex").data.transaction() as unit:
                await unit.create(Setting(id="straddling", value="x"))
                marked.set()
                await asyncio.sleep(3)

        straddling = asyncio.create_task(straddle())
        await marked.wait()
        await _mark(arena)
        purged = await outcome_of(arena.sdk.tenants.purge("globex"))
        committed = await outcome_of(straddling)
        assert await _left(arena) == 0 or isinstance(purged, TenantryError)
        assert committed is None or isinstance(committed, TenantryError)


async def test_a_write_that_waited_for_a_connection_leaves_nothing(arena: Arena) -> None:
    """It was let in before the mark, and reaches the server when all seems to be over."""
    async with another_sdk(arena, database={"pool_size": 1}) as other:
        await other.tenant("globex").data.get(Setting, "theme")
        async with other.tenant("acme").data.transaction():
            late = asyncio.create_task(other.tenant("globex").data.create(Setting(id="late", value="x")))
            await asyncio.sleep(0.05)
            await _mark(arena)
            purging = asyncio.create_task(arena.sdk.tenants.purge("globex"))
            # behind a pooler the open transaction holds a snapshot, for which the purge waits
            await asyncio.wait({purging}, timeout=4)
        assert isinstance(await purging, PurgeCertificate)
        assert isinstance(await outcome_of(late), TenantDeleted)
        assert await _left(arena) == 0


async def test_a_statement_that_began_before_and_writes_late_leaves_nothing(arena: Arena) -> None:
    """It sees the database as it was before the mark, and holds no transaction id until it writes."""
    text = (
        "INSERT INTO settings (id, value, version, created_at, updated_at) "
        "SELECT 'late', 'x' || pg_sleep(3)::text, 1, now(), now()"
    )
    async with another_sdk(arena) as other:
        late = asyncio.create_task(other.tenant("globex").data.sql(text))
        await asyncio.sleep(0.3)
        await _mark(arena)
        purged = await outcome_of(arena.sdk.tenants.purge("globex"))
        await outcome_of(late)
        assert await _left(arena) == 0 or isinstance(purged, TenantryError)


async def test_a_tenant_that_is_fenced_off_reads_nothing(arena: Arena) -> None:
    """Through a lease that knows nothing of it, by compiled statements and by SQL of its own."""
    data = arena.globex.data
    await data.get(Setting, "theme")
    await arena.judge.execute("INSERT INTO tenantry.fences (id) VALUES ('globex')")
    for attempt in (data.get(Setting, "theme"), data.read(Setting), data.sql("SELECT * FROM settings")):
        with pytest.raises(TenantDeleted):
            await attempt
    assert (await arena.acme.data.get(Setting, "theme")).id == "theme"


@pytest.mark.parametrize(
    "blindness",
    [
        "DROP POLICY tenantry_control ON settings",
        "ALTER POLICY tenantry_control ON settings USING (tenant_id = 'acme')",
        "CREATE POLICY narrow ON settings AS RESTRICTIVE USING (tenant_id <> 'globex')",
        "REVOKE DELETE ON settings FROM {control}",
    ],
    ids=["dropped", "altered", "narrowed", "revoked"],
)
async def test_what_the_purge_cannot_see_is_not_certified(own_arena: Arena, blindness: str) -> None:
    """Under FORCE, a role without a fitting policy deletes 0 of 3 rows, and counts 0 that are left."""
    arena = own_arena
    await arena.judge.execute(blindness.format(control=arena.user("control")))
    await _mark(arena)
    with pytest.raises(TenantryError):
        await arena.sdk.tenants.purge("globex")
    assert await _left(arena) > 0
    assert (await arena.sdk.tenants.get("globex")).status is TenantStatus.DELETING


async def test_a_table_of_no_model_is_not_forgotten(own_arena: Arena) -> None:
    """Another process may know more models, and this one would certify what it never looked at."""
    arena = own_arena
    await arena.judge.execute(
        "CREATE TABLE strangers (tenant_id text NOT NULL, id int); GRANT SELECT ON strangers TO PUBLIC"
    )
    await arena.judge.execute("INSERT INTO strangers VALUES ('globex', 1)")
    await _mark(arena)
    with pytest.raises(ConfigurationError, match="strangers"):
        await arena.sdk.tenants.purge("globex")
    assert (await arena.sdk.tenants.get("globex")).status is TenantStatus.DELETING
    await arena.sdk.tenants.purge("globex", leave_others=True)
    assert await _left(arena) == 0


async def test_a_purge_that_was_killed_can_be_repeated(arena: Arena) -> None:
    await _mark(arena)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
    for pause in (1.0, 0.005, 0.01, 0.02, 0.03):
        purge = asyncio.create_task(arena.sdk.tenants.purge("globex"))
        await asyncio.sleep(pause)
        await arena.judge.execute(kill, arena.user("control"))
        found = await outcome_of(purge)
        assert isinstance(found, Unavailable | InvalidTransition | PurgeCertificate), found
    found = await outcome_of(arena.sdk.tenants.purge("globex"))
    while isinstance(found, Unavailable):
        found = await outcome_of(arena.sdk.tenants.purge("globex"))
    assert isinstance(found, InvalidTransition | PurgeCertificate)  # purged by now, or before
    assert (await arena.sdk.tenants.get("globex")).status is TenantStatus.PURGED
    assert await _left(arena) == 0
