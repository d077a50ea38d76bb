"""What the server tells everyone: nothing of it holds a value, a statement or a seal of another tenant.

The looks are not a list of views that came to mind: acme reads every relation that its role may read, and calls every
function without arguments that it may call, while globex works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.adversarial.arena import Arena, build_arena, enter_arena, outcome_of
from tests.adversarial.models import Customer, Setting
from tests.adversarial.test_injected_sql import both_roles, inject
from tests.servers import PostgresServer, ServerUnavailable

TRACKING = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "compute_query_id": "on",
    "track_activities": "on",
    "track_io_timing": "on",
    "log_statement": "none",
}
RELATIONS = """
SELECT format('SELECT x::text FROM %s x', c.oid::regclass) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'p') AND has_table_privilege(c.oid, 'SELECT')
  AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1
"""
FUNCTIONS = """
SELECT format('SELECT x::text FROM %s() x', p.oid::regproc) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prokind = 'f' AND p.pronargs = p.pronargdefaults AND has_function_privilege(p.oid, 'EXECUTE')
  AND has_schema_privilege(n.oid, 'USAGE')
  AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype) ORDER BY 1
"""
PER_BACKEND = """
SELECT pg_stat_get_backend_activity(s), pg_stat_get_backend_client_addr(s), pg_stat_get_backend_wait_event(s)
FROM pg_stat_get_backend_idset() s
"""


@pytest.fixture(scope="module")
def tracking_server() -> Iterator[PostgresServer]:
    """Give a server that remembers statements."""
    try:
        server = PostgresServer.start(TRACKING)
    except ServerUnavailable as error:
        pytest.skip(str(error))
    with server:
        yield server


@asynccontextmanager
async def _busy(arena: Arena) -> AsyncIterator[list[str]]:
    """Let globex do all it can that may show, and give the seals that its connections had."""
    seals: list[str] = []
    for pool in (arena.app, arena.raw):
        for _ in range(pool.max_size):
            (kept,) = await inject(pool, "SELECT current_setting('tenantry.seal')", tenant="globex")
            seals.append(kept[0][0])
    data, secret = arena.globex.data, arena.secret
    await outcome_of(data.sql(f"SELECT '{secret}'::int"))
    await outcome_of(data.sql("SELECT $1::text::int", [secret]))
    await data.sql(f'SELECT 1 AS "{secret}"')
    await outcome_of(data.create(Setting(id=f"only {secret}", value=secret)))
    sleep = asyncio.create_task(data.sql(f"SELECT pg_sleep(60), '{secret}' AS \"{secret}\""))
    async with data.transaction() as unit:
        await unit.create(Setting(id=f"new {secret}", value=secret))
        await unit.read(Customer, {"name": {"contains": secret}})
        await asyncio.sleep(0.1)
        assert not sleep.done()
        try:
            yield seals
        finally:
            sleep.cancel()
            await asyncio.gather(sleep, return_exceptions=True)


@both_roles
async def test_nothing_of_globex_shows_anywhere(tracking_server: PostgresServer, role: str) -> None:
    name = f"side_{role}"
    tracking_server.execute("CREATE EXTENSION pg_stat_statements", _created(tracking_server, name))
    url = tracking_server.url(name)
    async with enter_arena(url, await build_arena(url)) as arena, _busy(arena) as seals:
        await arena.judge.execute("ANALYZE")
        pool = arena.pool(role)
        looks = [PER_BACKEND]
        for query in (RELATIONS, FUNCTIONS):
            (found,) = await inject(pool, query)
            looks += [row[0] for row in found]
        assert len(looks) > 300
        for look in looks:
            seen = await inject(pool, look)
            assert not arena.reveals(seen), look
            assert not any(seal in repr(seen) for seal in seals), look
            assert not any(seal.rpartition("|")[2] in repr(seen) for seal in seals), look
        # the judge, who may see everything, sees no statement of a tenant either, and no seal
        for look in ("SELECT query FROM pg_stat_activity", "SELECT query FROM pg_stat_statements"):
            texts = repr(await arena.judge.fetch(look))
            assert not any(seal.rpartition("|")[2] in texts for seal in seals)
        activity = await arena.judge.fetch(
            "SELECT query FROM pg_stat_activity WHERE usename IN ($1, $2)",
            arena.user("app"),
            arena.user("raw"),
        )
        assert activity
        assert arena.secret not in repr(activity)
    assert "tenantry.seal" not in tracking_server.log()


def _created(server: PostgresServer, name: str) -> str:
    server.create_database(name)
    return name


@both_roles
async def test_no_message_is_heard(direct_arena: Arena, role: str) -> None:
    """LISTEN needs no right, so nothing of ours may be said aloud."""
    arena = direct_arena
    heard: list[object] = []
    channels = ("tenantry", "customers", "settings", "outbox", "leak")

    def hear(*message: object) -> None:
        heard.append(message)

    async with arena.pool(role).statement("acme") as connection:
        for channel in channels:
            await connection.add_listener(channel, hear)
        await arena.globex.data.create(Setting(id="aloud", value=arena.secret))
        await outcome_of(arena.globex.data.sql("SELECT pg_notify('leak', 'x')"))
        await asyncio.sleep(0.1)
        for channel in channels:
            await connection.remove_listener(channel, hear)
    assert heard == []


async def _write_the_same(arena: Arena) -> None:
    await arena.acme.data.update(Setting, "theme", value="mine")
    await arena.acme.data.update(Customer, arena.twin, name="mine")
    await arena.acme.data.create(Setting(id="fresh", value="mine"))
    await arena.acme.data.create(Customer(name="mine", email="fresh@example.com"))
    await arena.acme.data.delete(Setting, "fresh")


async def test_a_row_of_another_tenant_is_not_waited_for(direct_arena: Arena) -> None:
    """Same ids, same unique values, all locked by a transaction of globex: acme neither waits nor fails."""
    arena = direct_arena
    async with arena.globex.data.transaction() as unit:
        await unit.update(Setting, "theme", value="locked")
        await unit.update(Customer, arena.twin, name="locked")
        await unit.create(Setting(id="fresh", value="x"))
        await unit.create(Customer(name="x", email="fresh@example.com"))
        async with asyncio.timeout(5):
            await asyncio.create_task(_write_the_same(arena))
