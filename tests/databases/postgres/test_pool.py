"""A connection never carries one tenant to the next, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import random
import re
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tenantry.databases.postgres.connection import (
    DRIVER_ERRORS,
    TenantConnection,
    describe,
    spoils,
    translate,
)
from tenantry.databases.postgres.pool import TenantPool
from tenantry.databases.postgres.provision import provision
from tenantry.databases.postgres.seal import Sealer, SealKey
from tenantry.errors import (
    Closed,
    ConfigurationError,
    DatabaseUnavailable,
    DataError,
    OperationTimeout,
    SealRejected,
    UnsafeRole,
)
from tests.databases.postgres.conftest import Site
from tests.servers import PgBouncer, PostgresServer
from tests.servers.proxy import FaultProxy

VISIBLE = "SELECT array_agg(DISTINCT tenant_id) FROM products"
PID = "SELECT pg_backend_pid()"


async def visible(pool: TenantPool, tenant: str | None) -> Any:
    async with pool.statement(tenant) as connection:
        return await connection.fetchval(VISIBLE)


async def run(block: AbstractAsyncContextManager[Any], *statements: str) -> None:
    async with block as connection:
        for statement in statements:
            await connection.execute(statement)


async def settled(pool: TenantPool) -> None:
    """Wait until every connection is idle, and see that none was lost on the way."""
    async with asyncio.timeout(5):
        while pool.idle != pool.size:
            await asyncio.sleep(0.005)
    assert pool.size <= pool.max_size
    assert pool.waiting == 0
    shelf = pool._shelf
    assert len(shelf._slots) == pool.size
    assert all(shelf.idle.values())
    assert all(slot.tenant == tenant for tenant, stack in shelf.idle.items() for slot in stack)


# -- binding


async def test_each_tenant_sees_its_rows_and_nobody_sees_none(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        for tenant in ("a", "b", None, "b", "a", None, "c"):
            assert await visible(pool, tenant) == ([tenant] if tenant in ("a", "b") else None)


async def test_a_connection_of_the_same_tenant_is_preferred_and_not_bound_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.opened(max_size=2, min_size=2) as pool:
        await visible(pool, "a")
        await visible(pool, "b")
        signed = []
        sign = Sealer.sign

        def noted(self: Sealer, tenant: str, *rest: Any) -> str:
            signed.append(tenant)
            return sign(self, tenant, *rest)

        monkeypatch.setattr(Sealer, "sign", noted)
        for _ in range(5):
            assert await visible(pool, "a") == ["a"]
            assert await visible(pool, "b") == ["b"]
        assert signed == []
        assert await visible(pool, "c") is None
        assert signed == ["c"]


async def test_the_tenant_served_longest_ago_gives_its_connection(site: Site) -> None:
    async with site.opened(max_size=3, min_size=3) as pool:
        for tenant in ("a", "b", "c", "d"):
            await visible(pool, tenant)
        assert list(pool._shelf.idle) == ["b", "c", "d"]


async def test_a_seal_is_renewed_before_it_expires(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        await visible(pool, "a")
        (slot,) = pool._shelf._slots
        slot.fresh_until = 0.0
        seal = await slot.connection.fetchval("SELECT current_setting('tenantry.seal')")
        slot.clock += 1
        assert await visible(pool, "a") == ["a"]
        assert await slot.connection.fetchval("SELECT current_setting('tenantry.seal')") != seal
        assert slot.fresh_until > 0


async def test_a_pool_without_a_key_serves_no_tenant(site: Site) -> None:
    async with site.opened("control") as pool:
        assert await visible(pool, None) == ["a", "b"]
        for block in (pool.statement("a"), pool.transaction("a")):
            with pytest.raises(ConfigurationError, match="no seal key"):
                async with block:
                    pass
        await settled(pool)


async def test_negative_control_without_the_binding_rows_leak(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Proves that the tests of this file can see a leak: the pool believes it has bound, and has not.
    async def believe(self: Any, slot: Any, tenant: str | None) -> None:
        slot.tenant, slot.fresh_until = tenant, float("inf")

    async with site.opened(max_size=1) as pool:
        await visible(pool, "a")
        monkeypatch.setattr(type(pool._shelf), "_bind", believe)
        assert await visible(pool, "b") == ["a"]


async def test_a_failed_binding_is_not_believed(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        await visible(pool, "a")
        (slot,) = pool._shelf._slots
        await slot.connection.execute("DEALLOCATE ALL")
        with pytest.raises(DatabaseUnavailable):
            await visible(pool, "b")
        assert slot.tenant is None
        assert await visible(pool, "b") == ["b"]
        assert slot not in pool._shelf._slots


async def test_the_session_is_pinned(site: Site) -> None:
    options: Any = {"statement_timeout": 12.5, "idle_in_transaction_timeout": 7, "application_name": "shop"}
    async with site.opened(**options) as pool, pool.statement("a") as connection:
        for setting, value in {
            "search_path": "public, pg_temp",
            "statement_timeout": "12500ms",
            "idle_in_transaction_session_timeout": "7s",
            "application_name": "shop",
        }.items():
            assert await connection.fetchval("SELECT current_setting($1)", setting) == value


async def test_nothing_of_a_tenant_shows_in_the_activity_view(site: Site) -> None:
    async with site.opened() as pool, site.connected() as admin:
        async with pool.statement("a") as connection:
            await connection.fetch("SELECT * FROM products WHERE name = $1", "a1")
            texts = await admin.fetch("SELECT query FROM pg_stat_activity WHERE usename = $1", site.roles.app)
        assert texts
        assert {row["query"] for row in texts} == {""}


# -- errors and cancellation


async def test_a_server_side_error_keeps_the_connection(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        async with pool.statement("a") as connection:
            pid = await connection.fetchval(PID)
        with pytest.raises(asyncpg.UniqueViolationError):
            async with pool.statement("a") as connection:
                await connection.execute("INSERT INTO products (tenant_id, id) VALUES ('a', 1)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with pool.statement("a") as connection:
                await connection.execute("INSERT INTO products (tenant_id, id) VALUES ('b', 9)")
        with pytest.raises(ZeroDivisionError):
            async with pool.statement("a"):
                _ = 1 / 0
        async with pool.statement("b") as connection:
            assert await connection.fetchval(PID) == pid


async def _timeout(connection: Any) -> None:
    await connection.fetchval("SELECT pg_sleep(5)", timeout=0.05)


async def _swallowed_timeout(connection: Any) -> None:
    with contextlib.suppress(TimeoutError):
        await _timeout(connection)


async def _swallowed_cancellation(connection: Any) -> None:
    task = asyncio.create_task(connection.fetchval("SELECT pg_sleep(5)"))
    await asyncio.sleep(0.05)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _left_transaction(connection: Any) -> None:
    await connection.execute("BEGIN; SELECT 1")


async def _misuse(connection: Any) -> None:
    await asyncio.gather(connection.fetchval("SELECT 1"), connection.fetchval("SELECT 1"))


async def _translated_timeout(connection: Any) -> None:
    try:
        await _timeout(connection)
    except TimeoutError as error:
        raise OperationTimeout("too late") from error


async def _killed(connection: Any) -> None:
    await connection.execute("SELECT 1")
    connection._transport.abort()
    await asyncio.sleep(0.01)


async def _forged(connection: Any) -> None:
    await connection.execute("SELECT set_config('tenantry.seal', 'x', false)")
    await connection.execute(VISIBLE)


@pytest.mark.parametrize(
    "spoil",
    [
        _timeout,
        _swallowed_timeout,
        _swallowed_cancellation,
        _left_transaction,
        _misuse,
        _translated_timeout,
        _killed,
        _forged,
    ],
)
async def test_a_spoilt_connection_is_replaced(site: Site, spoil: Callable[[Any], Awaitable[None]]) -> None:
    async with site.opened(max_size=1) as pool:
        with contextlib.suppress(Exception):
            async with pool.statement("a") as connection:
                pid = connection.get_server_pid()
                await spoil(connection)
        async with pool.statement("b") as connection:
            assert await connection.fetchval(PID) != pid
            assert await connection.fetchval(VISIBLE) == ["b"]
        await settled(pool)


async def test_a_cancelled_statement_is_cancelled_on_the_server(site: Site) -> None:
    async with site.opened(max_size=1) as pool, site.connected() as admin:

        async def sleep() -> None:
            async with pool.statement("a") as connection:
                await connection.fetchval("SELECT pg_sleep(30)")

        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await visible(pool, "b") == ["b"]
        active = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
        assert await admin.fetchval(active, site.roles.app) == 1


@pytest.mark.parametrize("wait", ["cancel", "cancel after it is done"])
@pytest.mark.parametrize("kind", ["statement", "transaction", "pooled", "raw"])
async def test_cancelled_at_every_await(
    site: Site, through_pgbouncer: dict[str, str], kind: str, wait: str
) -> None:
    role = "raw" if kind == "raw" else "app"
    url = through_pgbouncer["app"] if kind == "pooled" else None
    async with site.opened(role, url=url, max_size=2, min_size=0) as pool:
        finished = False
        steps = 0
        while not finished:
            steps += 1
            assert steps < 200
            tenant = "ab"[steps % 2]
            block = pool.transaction(tenant) if kind == "transaction" else pool.statement(tenant)

            async def work(block: Any = block, tenant: str = tenant) -> None:
                async with block as connection:
                    assert await connection.fetchval(VISIBLE) == [tenant]
                    await connection.execute("UPDATE products SET name = name")

            task = asyncio.create_task(_cancelled_at(work(), steps, late=wait != "cancel"))
            with contextlib.suppress(asyncio.CancelledError):
                await task
                finished = True
            assert await visible(pool, "a") == ["a"]
            assert await visible(pool, "b") == ["b"]
            assert await visible(pool, None) is None
        await settled(pool)
    assert steps > 3
    assert pool.size == 0


@types.coroutine
def _cancelled_at(work: Coroutine[Any, Any, None], step: int, *, late: bool) -> Generator[Any, Any, None]:
    """Run `work` and cancel it in its `step`-th await: at once, or in the moment in which that would have ended."""
    task: Any = asyncio.current_task()
    error: BaseException | None = None
    count = 0
    while True:
        try:
            future = work.throw(error) if error is not None else work.send(None)
        except StopIteration:
            return
        count += 1
        if count == step:
            if late and future is not None:
                future.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            yield future
            error = None
        except BaseException as raised:  # noqa: BLE001 - handed on to the work, whatever it is
            error = raised


async def test_a_killed_backend_is_replaced_without_the_user_noticing(site: Site) -> None:
    async with site.opened(max_size=2, min_size=2) as pool, site.connected() as admin:
        await visible(pool, "a")
        await visible(pool, "b")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", site.roles.app
        )
        await asyncio.sleep(0.1)
        for tenant in ("b", "a", "c"):
            assert await visible(pool, tenant) in ([tenant], None)
        await settled(pool)


async def test_a_backend_killed_in_use_is_reported_and_replaced(site: Site) -> None:
    async with site.opened(max_size=1) as pool, site.connected() as admin:

        async def be_killed() -> None:
            async with pool.statement("a") as connection:
                await admin.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
                await connection.fetchval("SELECT pg_sleep(1)")

        with pytest.raises(DRIVER_ERRORS) as caught:
            await be_killed()
        assert isinstance(translate(caught.value), DatabaseUnavailable)
        assert await visible(pool, "b") == ["b"]


async def test_injected_sql_cannot_take_the_name_of_a_statement_of_ours(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        async with pool.statement("a") as connection:
            await connection.fetch(VISIBLE)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT name FROM pg_prepared_statements")
            cache: Any = connection._stmt_cache  # type: ignore[attr-defined]
            names = {statement.name for statement in cache.iter_statements()}
        assert names
        assert all(re.fullmatch("tenantry_stmt_[0-9a-f]{24}", name) for name in names)


async def test_a_session_that_lost_its_prepared_statements_is_replaced(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        await visible(pool, "a")
        await run(pool.statement("a"), "DEALLOCATE ALL")
        with pytest.raises(asyncpg.InvalidSQLStatementNameError) as caught:
            await visible(pool, "a")
        assert isinstance(translate(caught.value), DatabaseUnavailable)
        assert await visible(pool, "a") == ["a"]
        await run(pool.statement("a"), "DEALLOCATE ALL")
        with pytest.raises(DatabaseUnavailable):
            await visible(pool, "b")
        assert await visible(pool, "b") == ["b"]


# -- transactions


async def test_a_transaction_commits_and_an_exception_rolls_back(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        async with pool.transaction("a") as connection:
            pid = await connection.fetchval(PID)
            await connection.execute("DELETE FROM products WHERE id = 1")

        async def fail() -> None:
            async with pool.transaction("a") as connection:
                await connection.execute("DELETE FROM products")
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        twice = "INSERT INTO products (tenant_id, id) VALUES ('a', 7), ('a', 7)"
        with pytest.raises(asyncpg.UniqueViolationError):
            await run(pool.transaction("a"), "DELETE FROM products", twice)
        async with pool.transaction("a", readonly=True, isolation="repeatable_read") as connection:
            assert await connection.fetchval("SELECT count(*) FROM products") == 2
            assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
            assert await connection.fetchval(PID) == pid
        assert await visible(pool, "b") == ["b"]


async def test_a_commit_that_was_a_rollback_is_an_error(site: Site) -> None:
    async with site.opened(max_size=1) as pool:

        async def overlook() -> None:
            async with pool.transaction("a") as connection:
                await connection.execute("DELETE FROM products")
                with contextlib.suppress(asyncpg.PostgresError):
                    await connection.execute("SELECT 1/0")

        with pytest.raises(DataError, match="rolled back"):
            await overlook()
        async with pool.statement("a") as connection:
            assert await connection.fetchval("SELECT count(*) FROM products") == 3


async def test_a_commit_in_the_middle_leaves_the_tenant_bound_and_no_other(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        async with pool.transaction("a") as connection:
            await connection.execute("COMMIT")
            assert await connection.fetchval(VISIBLE) == ["a"]
        assert await visible(pool, "b") == ["b"]


# -- bounds


async def test_the_pool_is_bounded_and_says_how_to_widen_it(site: Site) -> None:
    async with site.opened(max_size=2, acquire_timeout=0.1) as pool:
        async with pool.statement("a"), pool.statement("b"):
            with pytest.raises(OperationTimeout, match=r"within 0\.1 s: all 2 are in use.*pool_size"):
                async with pool.statement("a"):
                    pass
            assert pool.size == 2
            assert len(pool._shelf.waiters) == 0
        await settled(pool)


async def test_those_who_wait_are_served_in_turn_and_a_connection_stays_with_its_tenant_where_that_is_fair(
    site: Site,
) -> None:
    served = []
    async with site.opened(max_size=1) as pool:

        async def wait(number: int) -> None:
            async with pool.statement("ab"[number % 2]) as connection:
                assert await connection.fetchval(VISIBLE) == ["ab"[number % 2]]
                served.append(number)

        async with pool.statement("a"):
            tasks = []
            for number in range(10):
                tasks.append(asyncio.create_task(wait(number)))
                await asyncio.sleep(0)
            assert pool.waiting == 10
            tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served == [0, 1, 5, 2, 4, 7, 9, 6, 8]
        await settled(pool)


async def test_a_crowd_of_one_tenant_delays_nobody_elses_request_by_more_than_a_turn(site: Site) -> None:
    """Measured in what the server has served before, since the machine may be busy, and in seconds beside it."""
    served = 0

    async def work(pool: TenantPool, tenant: str) -> tuple[int, float]:
        nonlocal served
        before, started = served, time.monotonic()
        async with pool.statement(tenant) as connection:
            waited = served - before, time.monotonic() - started
            assert await connection.fetchval(VISIBLE) == [tenant]
            served += 1
        return waited

    async with site.opened(max_size=2, min_size=2) as pool:
        crowd = [asyncio.create_task(work(pool, "a")) for _ in range(1_000)]
        await asyncio.sleep(0.01)
        singles = []
        for _ in range(20):
            singles.append(await work(pool, "b"))
            assert pool.waiting > 100
        last = max(seconds for _, seconds in await asyncio.gather(*crowd))
        assert max(others for others, _ in singles) <= 10, (
            "a turn of the other on each connection, and what they serve while this one is bound"
        )
        assert sum(seconds for _, seconds in singles) / len(singles) < last / 10
        measured = pool.measure()
        assert measured["waiting"] == 0
        assert measured["waits"] >= 900
        await settled(pool)


async def test_a_tenant_that_holds_its_share_leaves_the_rest(site: Site) -> None:
    async with site.opened(max_size=3, tenant_share=2, acquire_timeout=0.1) as pool:
        async with pool.transaction("a"), pool.statement("a"):
            with pytest.raises(OperationTimeout, match="max_connections_per_tenant"):
                async with pool.statement("a"):
                    pass
            assert await visible(pool, "b") == ["b"]
        assert await visible(pool, "a") == ["a"]
        await settled(pool)


async def test_one_cancelled_in_the_moment_it_was_served_hands_the_connection_on(site: Site) -> None:
    async with site.opened(max_size=1) as pool:
        block = pool.statement("a")
        await block.__aenter__()
        first, second = (asyncio.create_task(visible(pool, tenant)) for tenant in "ab")
        await asyncio.sleep(0)
        await block.__aexit__(None, None, None)
        first.cancel()
        assert await second == ["b"]
        await settled(pool)


async def test_a_failed_opening_lets_the_next_in_line_try(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.opened(max_size=1, min_size=0) as pool:
        block = pool.statement("a")
        connection = await block.__aenter__()
        tasks = [asyncio.create_task(visible(pool, "a")) for _ in range(3)]
        await asyncio.sleep(0)
        connect = pool._shelf.connector.connect
        failures = [True, True]

        async def fail() -> Any:
            if failures:
                failures.pop()
                raise DatabaseUnavailable("away")
            return await connect()

        monkeypatch.setattr(pool._shelf.connector, "connect", fail)
        connection.terminate()
        await block.__aexit__(None, None, None)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [DatabaseUnavailable, DatabaseUnavailable, list]
        await settled(pool)


async def test_idle_connections_above_the_minimum_are_closed(site: Site) -> None:
    async with site.opened(max_size=4, min_size=1, max_idle=0.1) as pool:
        async with contextlib.AsyncExitStack() as stack:
            for tenant in "abcd":
                await stack.enter_async_context(pool.statement(tenant))
        assert pool.size == 4
        async with asyncio.timeout(3):
            while pool.size > 1:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert pool.size == 1
        await settled(pool)


async def test_many_tasks_of_many_tenants_under_random_faults(site: Site) -> None:
    chance = random.Random(7)
    async with site.opened(max_size=4, acquire_timeout=30) as pool, site.connected() as admin:

        async def work(tenant: str) -> None:
            async with (pool.transaction if chance.random() < 0.3 else pool.statement)(tenant) as connection:
                assert await connection.fetchval(VISIBLE) == [tenant]
                await asyncio.sleep(chance.random() * 0.002)
                assert await connection.fetchval(VISIBLE) == [tenant]

        async def rounds(tenant: str) -> int:
            done = refused = 0
            for _ in range(60):
                task = asyncio.create_task(work(tenant))
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.01)
                    task.cancel()
                try:
                    await task
                    done += 1
                except (asyncio.CancelledError, DatabaseUnavailable, *DRIVER_ERRORS) as error:
                    refused += isinstance(error, asyncpg.InsufficientPrivilegeError)
            assert refused == 0
            return done

        async def kill() -> None:
            while True:
                await asyncio.sleep(0.05)
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 "
                    "ORDER BY random() LIMIT 1",
                    site.roles.app,
                )

        killer = asyncio.create_task(kill())
        done = await asyncio.gather(*(rounds("ab"[number % 2]) for number in range(8)))
        killer.cancel()
        await asyncio.sleep(0.1)
        assert min(done) > 10
        assert await visible(pool, "a") == ["a"]
        await settled(pool)


# -- closing


async def test_a_pool_is_open_between_open_and_close(site: Site) -> None:
    pool = site.pool()
    with pytest.raises(Closed, match="not open"):
        await visible(pool, "a")
    await pool.open()
    await pool.open()
    assert pool.size == 1
    await pool.close()
    await pool.close()
    with pytest.raises(Closed, match="closed"):
        await visible(pool, "a")
    assert pool.size == 0


async def test_close_waits_for_users_and_dismisses_those_who_wait(site: Site) -> None:
    pool = site.pool(max_size=1)
    await pool.open()
    async with pool.statement("a") as connection:
        waiting = asyncio.create_task(visible(pool, "b"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(pool.close(5))
        with pytest.raises(Closed):
            await waiting
        assert await connection.fetchval(VISIBLE) == ["a"]
        assert not closing.done()
    async with asyncio.timeout(2):
        await closing
    assert pool.size == 0


async def test_close_is_bounded(site: Site) -> None:
    pool = site.pool(max_size=1)
    await pool.open()

    async def hold() -> None:
        async with pool.statement("a") as connection:
            sleeping = asyncio.create_task(connection.fetchval("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.05)
            async with asyncio.timeout(3):
                await pool.close(0.1)
            await sleeping

    with pytest.raises(DRIVER_ERRORS):
        await hold()
    assert pool.size == 0


# -- a user's own SQL

LEFTOVERS = {
    "a setting": (
        "SELECT set_config('work_mem', '99MB', false)",
        "SELECT current_setting('work_mem') = '99MB'",
    ),
    "a setting of one's own": (
        "SELECT set_config('my.note', 'from a', false)",
        "SELECT COALESCE(current_setting('my.note', true), '') <> ''",
    ),
    "the seal": ("SELECT 1", "SELECT COALESCE(current_setting('tenantry.seal', true), '') LIKE '%|a|%'"),
    "a search path": ("SET search_path = pg_temp", "SELECT current_setting('search_path') = 'pg_temp'"),
    "a cursor": (
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM products",
        "SELECT count(*) > 0 FROM pg_cursors WHERE name = 'c'",
    ),
    "a channel": ("LISTEN gossip", "SELECT count(*) > 0 FROM pg_listening_channels()"),
    "an open transaction": ("COMMIT; BEGIN", "SELECT txid_current_if_assigned() IS NOT NULL"),
    "random numbers": ("SELECT setseed(0.5)", "SELECT random() BETWEEN 0.985 AND 0.986"),
    "a role": ("SET ROLE NONE", "SELECT current_user <> session_user"),
}


@pytest.mark.parametrize(("leave", "left"), LEFTOVERS.values(), ids=LEFTOVERS.keys())
async def test_a_users_own_sql_leaves_nothing_behind(site: Site, leave: str, left: str) -> None:
    async with site.opened("raw", wipe=True, max_size=1) as pool:
        async with pool.statement("a") as connection:
            pid = await connection.fetchval(PID)
            await connection.execute(leave)
        async with pool.statement("b") as connection:
            assert await connection.fetchval(PID) == pid
            assert await connection.fetchval(left) is False
            assert await connection.fetchval(VISIBLE) == ["b"]


async def test_a_users_own_prepared_statement_is_gone(site: Site) -> None:
    async with site.opened("raw", wipe=True, max_size=1) as pool:
        await run(pool.statement("a"), "PREPARE p AS SELECT 1")
        with pytest.raises(asyncpg.InvalidSQLStatementNameError):
            await run(pool.statement("b"), "EXECUTE p")


async def test_a_seal_that_a_users_sql_has_copied_is_void_once_its_block_has_ended(site: Site) -> None:
    async with site.opened("raw", wipe=True, max_size=1) as pool:
        async with pool.statement("a") as connection:
            pid = await connection.fetchval(PID)
            copied = await connection.fetchval("SELECT current_setting('tenantry.seal')")
        for kind in ("b", None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await run(pool.statement(kind), f"SET tenantry.seal = '{copied}'", VISIBLE)
        async with pool.statement("b") as connection:
            assert await connection.fetchval("SELECT current_setting('tenantry.seal')") != copied
        assert pid


async def test_negative_control_without_the_wipe_things_are_left(site: Site) -> None:
    leave, left = LEFTOVERS["a setting of one's own"]
    async with site.opened("raw", wipe=False, max_size=1) as pool:
        async with pool.statement("a") as connection:
            await connection.execute(leave)
        async with pool.statement("b") as connection:
            assert await connection.fetchval(left) is True


async def test_a_connection_that_cannot_be_wiped_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.opened("raw", wipe=True, max_size=1) as pool:
        execute = TenantConnection.execute

        async def fail(self: Any, query: str, *args: Any, **options: Any) -> str:
            if query == "DISCARD ALL":
                query = "SELECT 1/0"
            return await execute(self, query, *args, **options)

        async with pool.statement("a") as connection:
            pid = connection.get_server_pid()
            monkeypatch.setattr(TenantConnection, "execute", fail)
        monkeypatch.undo()
        async with pool.statement("b") as connection:
            assert connection.get_server_pid() != pid


async def test_a_users_own_transaction_is_wiped_too(site: Site) -> None:
    async with site.opened("raw", wipe=True, max_size=1) as pool:
        async with pool.transaction("a") as connection:
            pid = await connection.fetchval(PID)
            await connection.execute("SET work_mem = '99MB'; SET LOCAL tenantry.seal = 'x'")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with pool.transaction("a") as connection:
                await connection.execute("SELECT 1/0")
        async with pool.statement("b") as connection:
            assert await connection.fetchval(PID) == pid
            assert await connection.fetchval("SELECT current_setting('work_mem')") != "99MB"


# -- behind PgBouncer


async def test_a_pooler_is_detected(site: Site, through_pgbouncer: dict[str, str]) -> None:
    async with site.opened() as pool:
        assert not pool.pooled
    for role in ("app", "control"):
        async with site.opened(role, url=through_pgbouncer[role]) as pool:
            assert pool.pooled


async def test_behind_a_pooler_every_block_is_a_transaction_of_its_tenant(
    site: Site, through_pgbouncer: dict[str, str]
) -> None:
    async with site.opened(url=through_pgbouncer["app"], max_size=3) as pool:
        assert await visible(pool, None) is None

        async def rounds(tenant: str) -> None:
            for number in range(20):
                block = pool.transaction(tenant) if number % 2 else pool.statement(tenant)
                async with block as connection:
                    assert await connection.fetchval(VISIBLE) == [tenant]
                    assert await connection.fetchval("SHOW search_path") == "public, pg_temp"
                assert await visible(pool, None) is None

        await asyncio.gather(*(rounds("ab"[number % 2]) for number in range(10)))
        await settled(pool)


async def test_behind_a_pooler_a_seal_serves_no_later_transaction(
    site: Site, through_pgbouncer: dict[str, str]
) -> None:
    async with site.opened(url=through_pgbouncer["app"], max_size=1) as pool:
        async with pool.statement("a") as connection:
            stolen = await connection.fetchval("SELECT current_setting('tenantry.seal')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await run(pool.statement("b"), f"SET tenantry.seal = '{stolen}'", VISIBLE)
        assert await visible(pool, "b") == ["b"]
        assert await visible(pool, None) is None


async def test_behind_a_pooler_a_users_settings_do_not_stay_on_the_server(
    site: Site, through_pgbouncer: dict[str, str]
) -> None:
    async with site.opened("raw", url=through_pgbouncer["raw"], wipe=True) as pool:
        for tenant in "abab":
            async with pool.statement(tenant) as connection:
                assert await connection.fetchval("SELECT current_setting('work_mem')") != "99MB"
                await connection.fetchval("SELECT set_config('work_mem', '99MB', false)")
                assert await connection.fetchval(VISIBLE) == [tenant]


async def test_a_session_pooler_is_treated_as_a_transaction_pooler(
    site: Site, postgres_server: PostgresServer
) -> None:
    with PgBouncer.start(postgres_server, pool_mode="session") as pooler:
        url = site.made.urls["app"].replace(f":{postgres_server.port}/", f":{pooler.port}/")
        async with site.opened(url=url) as pool:
            assert pool.pooled
            assert await visible(pool, "a") == ["a"]


# -- what can go wrong at the start


async def test_a_wrong_password_is_reported_without_being_repeated(site: Site) -> None:
    url = site.made.urls["app"].replace(site.made.urls["app"].split(":")[2].split("@")[0], "hunter2")
    pool = site.pool(url=url)
    with pytest.raises(DatabaseUnavailable) as caught:
        await pool.open()
    assert "site_app@127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(pool)
    assert pool.size == 0


@pytest.mark.parametrize(
    "url", ["postgresql://app:p@ss:w/rd@host/db", "postgresql://app:hunter2@h:port/db", "mysql://hunter2"]
)
async def test_an_unreadable_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises((ConfigurationError, DatabaseUnavailable)) as caught:
        await TenantPool(url).open()
    error: BaseException | None = caught.value
    while error is not None:
        assert "w/rd" not in str(error)
        assert "hunter2" not in str(error)
        error = error.__cause__


async def test_a_server_that_is_away(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"Cannot connect to app@127\.0\.0\.1"):
        await TenantPool(f"postgresql://app:x@127.0.0.1:{unused_tcp_port_factory()}/db").open()


async def test_a_database_that_was_never_provisioned(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    pool = TenantPool(postgres_server.url(make_database()), keys=[SealKey.generate()])
    with pytest.raises(UnsafeRole, match="tenantry init --admin-url postgresql://"):
        await pool.open()
    assert pool.size == 0


async def test_a_role_that_the_seal_does_not_serve(site: Site) -> None:
    pool = TenantPool(site.made.urls["control"], keys=[site.key])
    with pytest.raises(UnsafeRole, match="may not use the seal"):
        await pool.open()


async def test_a_key_that_the_server_does_not_know(site: Site) -> None:
    pool = TenantPool(site.made.urls["app"], keys=[SealKey.generate()])
    await pool.open()
    with pytest.raises(asyncpg.InsufficientPrivilegeError) as caught:
        await visible(pool, "a")
    assert isinstance(translate(caught.value), SealRejected)
    await pool.close()


@pytest.mark.parametrize(("min_size", "max_size"), [(-1, 1), (2, 1), (0, 0)])
def test_sizes_must_make_sense(min_size: int, max_size: int) -> None:
    with pytest.raises(ConfigurationError):
        TenantPool("postgresql://h/d", min_size=min_size, max_size=max_size)


# -- the network


@asynccontextmanager
async def _proxied(
    site: Site, server: PostgresServer, **options: Any
) -> AsyncIterator[tuple[FaultProxy, TenantPool]]:
    async with (
        FaultProxy.start(server.host, server.port) as proxy,
        site.opened(url=proxy.url(site.made.urls["app"]), **options) as pool,
    ):
        yield proxy, pool


async def test_a_stalled_network_is_given_up_in_time(site: Site, postgres_server: PostgresServer) -> None:
    options: Any = {"command_timeout": 0.3, "connect_timeout": 0.3, "max_size": 2}
    async with _proxied(site, postgres_server, **options) as (proxy, pool):
        await visible(pool, "a")
        proxy.stall()
        async with asyncio.timeout(8):
            for tenant in ("a", "b"):
                with pytest.raises((TimeoutError, DatabaseUnavailable)):
                    await visible(pool, tenant)
        proxy.resume()
        assert await visible(pool, "a") == ["a"]
        assert await visible(pool, "b") == ["b"]


@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_cut_network_costs_no_more_than_what_was_under_way(
    site: Site, postgres_server: PostgresServer, fault: str
) -> None:
    async with _proxied(site, postgres_server, max_size=2) as (proxy, pool):
        for _ in range(5):
            await visible(pool, "a")
            await getattr(proxy, fault)()
            assert await visible(pool, "b") == ["b"]
        await proxy.refuse()
        await getattr(proxy, fault)()
        with pytest.raises(DatabaseUnavailable):
            await visible(pool, "a")
        await proxy.accept()
        assert await visible(pool, "a") == ["a"]


def _certificate(x509: Any, name: str) -> tuple[str, str, str]:
    """Return an authority's certificate, one that it signed for an address, and its key, all as PEM."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def build(subject: str, issuer: str, key: Any, signer: Any, extension: Any) -> str:
        def named(common: str) -> Any:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=named(issuer),
            subject_name=named(subject),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - dt.timedelta(hours=1),
            not_valid_after=now + dt.timedelta(hours=1),
        )
        signed = builder.add_extension(extension, critical=True).sign(signer, hashes.SHA256())
        return str(signed.public_bytes(serialization.Encoding.PEM).decode())

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
    key = leaf.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    authority = build("root", "root", root, root, x509.BasicConstraints(ca=True, path_length=None))
    return authority, build("server", "root", leaf, root, address), key


@pytest.mark.parametrize(
    ("address", "trusted"), [("127.0.0.1", True), ("127.0.0.1", False), ("127.0.0.2", True)]
)
async def test_tls_is_verified_in_full(
    site: Site, postgres_server: PostgresServer, tmp_path: Path, address: str, trusted: bool
) -> None:
    # PgBouncer is what speaks TLS here: the server of these tests is built without.
    x509 = pytest.importorskip("cryptography.x509")
    authority, certificate, key = _certificate(x509, address)
    root = tmp_path / "root.crt"
    root.write_text(authority if trusted else _certificate(x509, address)[0])
    process = postgres_server._process
    settings = {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": str(process.write("pooler.crt", certificate)),
        "client_tls_key_file": str(process.write("pooler.key", key)),
    }
    with PgBouncer.start(postgres_server, settings=settings) as pooler:
        url = site.made.urls["app"].replace(f":{postgres_server.port}/", f":{pooler.port}/")
        pool = site.pool(url=f"{url}?sslmode=verify-full&sslrootcert={root}")
        if (address, trusted) == ("127.0.0.1", True):
            await pool.open()
            async with pool.statement("a") as connection:
                assert await connection.fetchval(VISIBLE) == ["a"]
                transport: Any = connection._transport  # type: ignore[attr-defined]
                assert transport.get_extra_info("ssl_object") is not None
            await pool.close()
        else:
            with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
                await pool.open()


# -- small parts


def test_what_spoils_a_connection_may_hide_behind_what_was_raised_from_it() -> None:
    assert not spoils(None)
    assert not spoils(ValueError())
    assert not spoils(asyncpg.UniqueViolationError())
    assert spoils(asyncio.CancelledError())
    assert spoils(KeyboardInterrupt())
    hidden = ValueError()
    hidden.__context__ = RuntimeError()
    hidden.__context__.__cause__ = ConnectionResetError()
    assert spoils(hidden)
    looped = ValueError()
    looped.__cause__ = looped
    assert spoils(looped)


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        ("postgresql://u:secret@h:1/d?sslmode=require", "u@h:1/d"),
        ("postgresql:///d", "localhost:5432/d"),
        ("postgresql://u:sec/ret@h:x/d", "the database"),
    ],
)
def test_a_url_is_described_without_its_password(dsn: str, text: str) -> None:
    assert describe(dsn) == text


async def test_two_databases_of_one_server_do_not_take_each_others_seals(
    site: Site, postgres_server: PostgresServer, make_database: Callable[[], str]
) -> None:
    made = await provision(postgres_server.url(make_database()), prefix="elsewhere")
    pool = TenantPool(made.urls["app"], keys=[site.key])
    await pool.open()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with pool.statement("a") as connection:
            await connection.fetchval("SELECT tenantry.current_tenant()")
    await pool.close()
