"""What is run again, what is not, and that nothing is ever applied twice.

Each write here adds one to the version of a row, so that the version says how often it was applied.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tenantry import MultiTenantSDK
from tenantry.data import DataManager
from tenantry.errors import (
    Conflict,
    DatabaseUnavailable,
    InvalidQuery,
    SerializationFailure,
    Unavailable,
    UniqueViolation,
)
from tenantry.hooks import Operation
from tenantry.ports import Insert, Write
from tests.adversarial.arena import Arena, another_sdk, build_arena, enter_arena, outcome_of
from tests.adversarial.models import Setting
from tests.servers import FaultProxy, PostgresServer

PATIENT = {"retry_attempts": 10, "timeout": 20.0}


@asynccontextmanager
async def _behind_a_proxy(arena: Arena, **options: Any) -> AsyncIterator[tuple[DataManager, FaultProxy]]:
    """Give acme's data through a proxy that only the app role's connections go through."""
    host, port = arena.options["url"].rpartition("@")[2].split("/")[0].split(":")
    async with FaultProxy.start(host, int(port)) as proxy:
        url = proxy.url(arena.options["url"])
        async with another_sdk(arena, url=url, database={**PATIENT, **options}) as sdk:
            data = sdk.tenant("acme").data
            await data.get(Setting, "theme")
            yield data, proxy


async def _version(arena: Arena, id: str = "theme") -> int:
    found = await arena.judge.fetchval(
        "SELECT version FROM settings WHERE tenant_id = 'acme' AND id = $1", id
    )
    return int(found or 0)


async def _until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():
            await asyncio.sleep(0.005)


async def _kill(arena: Arena, what: str = "true") -> None:
    await arena.judge.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND {what}",
        arena.user("app"),
    )


async def test_a_read_is_run_again_when_its_connection_is_lost(arena: Arena) -> None:
    async with another_sdk(arena, database=PATIENT) as sdk:
        data = sdk.tenant("acme").data
        for _ in range(5):
            reads = [asyncio.create_task(data.count(Setting)) for _ in range(6)]
            await _kill(arena)
            assert set(await asyncio.gather(*reads)) == {2}


async def test_a_read_is_run_again_when_the_network_is_cut_in_the_middle(direct_arena: Arena) -> None:
    async with _behind_a_proxy(direct_arena) as (data, proxy):
        proxy.stall(to_server=False)
        reading = asyncio.create_task(data.count(Setting))
        await asyncio.sleep(0.05)
        await proxy.cut()
        proxy.resume()
        assert await reading == 2


class TestAWrite:
    async def test_that_may_have_been_committed_is_never_run_again(self, arena: Arena) -> None:
        """The server has carried it out, and its answer is lost."""
        async with _behind_a_proxy(arena) as (data, proxy):
            await data.update(Setting, "theme", value="x")  # so that the statement is prepared
            proxy.stall(to_server=False)
            writing = asyncio.create_task(data.update(Setting, "theme", value="once"))
            if (
                arena.app.pooled
            ):  # the commit is a message of its own, which waits for the answer to the statement
                await asyncio.sleep(0.1)
            else:
                await _until(lambda: self._arrived(arena))
            await proxy.cut()
            proxy.resume()
            outcome = await outcome_of(writing)
            if arena.app.pooled:  # and so it is certain that it was not sent
                assert isinstance(outcome, Setting)
            else:
                assert isinstance(outcome, DatabaseUnavailable)
                assert not outcome.nothing_written
            await asyncio.sleep(0.1)
            assert await _version(arena) == 3

    async def _arrived(self, arena: Arena) -> bool:
        return await _version(arena) == 3

    async def test_that_was_not_sent_is_run_again(self, arena: Arena) -> None:
        async with _behind_a_proxy(arena) as (data, proxy):
            await proxy.refuse()
            await proxy.cut()
            writing = asyncio.create_task(data.update(Setting, "theme", value="once"))
            await asyncio.sleep(0.02)
            await proxy.accept()
            await writing
            assert await _version(arena) == 2

    async def test_of_several_rows_that_was_lost_before_the_commit_is_run_again(
        self, direct_arena: Arena
    ) -> None:
        arena = direct_arena
        announced: list[Operation] = []

        def also(operation: Operation) -> list[Write]:
            assert operation.collection is not None
            record = operation.collection.to_record(Setting(id="also", value="x", version=1))
            return [Insert(operation.collection, [record])]

        async with another_sdk(arena, database=PATIENT) as sdk:
            sdk.add_within_hook(also)
            sdk.add_after_hook(announced.append)
            async with arena.judge.transaction():
                await arena.judge.execute("SELECT FROM settings WHERE id = 'theme' FOR UPDATE")
                writing = asyncio.create_task(sdk.tenant("acme").data.update(Setting, "theme", value="once"))
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                await _until(lambda: arena.judge.fetchval(waits))
                await _kill(arena)
            await writing
        assert (await _version(arena), await _version(arena, "also")) == (2, 1)
        assert [operation.error for operation in announced if operation.verb == "update"] == [None]

    async def test_with_a_key_is_safe_to_run_again_and_is(self, direct_arena: Arena) -> None:
        arena = direct_arena
        async with _behind_a_proxy(arena) as (data, proxy):
            proxy.stall(to_server=False)
            new = Setting(id="keyed", value="x")
            writing = asyncio.create_task(data.create(new, idempotency_key="k"))
            await asyncio.sleep(0.1)
            proxy.resume()
            await asyncio.sleep(0)
            await proxy.cut()
            assert (await writing).id == "keyed"
            assert await _version(arena, "keyed") == 1

    async def test_that_failed_for_a_reason_of_its_own_is_not_run_again(self, direct_arena: Arena) -> None:
        data, started = direct_arena.acme.data, asyncio.get_running_loop().time()
        for _ in range(20):
            with pytest.raises(UniqueViolation):
                await data.create(Setting(id="theme", value="x"))
            with pytest.raises(Conflict):
                await data.update(Setting, "theme", {"value": "x"}, version=7)
        assert asyncio.get_running_loop().time() - started < 10


async def test_in_an_outage_the_attempts_are_bounded(direct_arena: Arena) -> None:
    async with _behind_a_proxy(direct_arena, retry_attempts=10) as (data, proxy):
        await proxy.refuse()
        await proxy.cut()
        before = proxy.accepted
        outcomes = [await outcome_of(data.get(Setting, "theme")) for _ in range(60)]
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert proxy.accepted == before
        retry = data._runtime.database._retry  # type: ignore[attr-defined]
        assert retry._credit < 1, "it is spent, and was not paid in again"
        await proxy.accept()
        await data.get(Setting, "theme")


class TestARepeatedTransaction:
    async def test_of_two_serialisable_racers_both_win_and_none_twice(self, arena: Arena) -> None:
        announced: list[Operation] = []
        arena.sdk.add_after_hook(announced.append)
        await arena.acme.data.create(Setting(id="count", value="0"))
        attempts, both_have_read = 0, asyncio.Event()

        async def add(tx: DataManager) -> None:
            nonlocal attempts
            found = await tx.get(Setting, "count")
            attempts += 1
            if attempts == 2:
                both_have_read.set()
            await both_have_read.wait()
            await tx.update(Setting, "count", value=str(int(found.value) + 1))

        await asyncio.gather(*(arena.acme.data.run_transaction(add, attempts=100) for _ in range(10)))
        assert (await arena.acme.data.get(Setting, "count")).value == "10"
        assert attempts > 10, "nobody raced"
        updates = [operation for operation in announced if operation.verb == "update"]
        assert sum(operation.error is None for operation in updates) == 10

    async def test_after_a_deadlock(self, direct_arena: Arena) -> None:
        data = direct_arena.acme.data
        for id in ("a", "b"):
            await data.create(Setting(id=id, value="x"))
        met = asyncio.Barrier(2)

        async def both(tx: DataManager, first: str, second: str) -> None:
            await tx.update(Setting, first, value="y")
            if met.n_waiting < 2 and not met.broken:
                try:
                    async with asyncio.timeout(0.2):
                        await met.wait()
                except (TimeoutError, asyncio.BrokenBarrierError):
                    pass
            await tx.update(Setting, second, value="y")

        await asyncio.gather(
            data.run_transaction(lambda tx: both(tx, "a", "b"), isolation="read_committed"),
            data.run_transaction(lambda tx: both(tx, "b", "a"), isolation="read_committed"),
        )
        assert [await _version(direct_arena, id) for id in ("a", "b")] == [3, 3]

    async def test_whose_commit_may_have_taken_place_is_not_run_again(self, direct_arena: Arena) -> None:
        arena, attempts = direct_arena, 0
        async with _behind_a_proxy(arena) as (data, proxy):

            async def work(tx: DataManager) -> None:
                nonlocal attempts
                attempts += 1
                await tx.update(Setting, "theme", value="once")
                proxy.stall(to_server=False)

            running = asyncio.create_task(data.run_transaction(work))

            async def arrived() -> bool:
                return await _version(arena) == 2

            await _until(arrived)
            await proxy.cut()
            proxy.resume()
            with pytest.raises(DatabaseUnavailable) as caught:
                await running
            assert not caught.value.nothing_written
        assert (attempts, await _version(arena)) == (1, 2)

    async def test_gives_up_after_the_last_attempt(self, direct_arena: Arena) -> None:
        attempts = 0

        async def fail(tx: DataManager) -> None:
            nonlocal attempts
            attempts += 1
            raise SerializationFailure("again")

        with pytest.raises(SerializationFailure):
            await direct_arena.acme.data.run_transaction(fail, attempts=3)
        assert attempts == 3
        with pytest.raises(InvalidQuery, match="attempts"):
            await direct_arena.acme.data.run_transaction(fail, attempts=0)


async def test_a_server_that_crashes_loses_nothing_and_applies_nothing_twice() -> None:
    """One of its processes is killed, so it ends all others, recovers from its log and starts again."""
    with PostgresServer.start({"synchronous_commit": "on", "restart_after_crash": "on"}) as server:
        admin_url = server.create_database("crash")
        built = await build_arena(admin_url)
        async with enter_arena(admin_url, built, database={"retry_attempts": 10, "pool_size": 4}) as arena:
            rows = [f"row {number}" for number in range(4)]
            for row in rows:
                await arena.acme.data.create(Setting(id=row, value="x"))
            stopped = asyncio.Event()
            writers = [asyncio.create_task(_write_until(arena.sdk, row, stopped)) for row in rows]
            await asyncio.sleep(0.3)
            os.kill(await arena.judge.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
            await asyncio.sleep(0.3)
            async with asyncio.timeout(20):
                while isinstance(await outcome_of(arena.acme.data.count(Setting)), Unavailable):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            stopped.set()
            counts = await asyncio.gather(*writers)
            judge = await asyncpg.connect(admin_url)
            rows_now = await judge.fetch(
                "SELECT id, version - 1 AS times FROM settings WHERE tenant_id = 'acme'"
            )
            stored: dict[str, int] = {row["id"]: row["times"] for row in rows_now}
            await judge.close()
            for row, (acknowledged, in_doubt) in zip(rows, counts, strict=True):
                assert acknowledged > 0
                assert acknowledged <= stored[row] <= acknowledged + in_doubt


async def _write_until(sdk: MultiTenantSDK, row: str, stopped: asyncio.Event) -> tuple[int, int]:
    """Add to the version of a row; return how often that was confirmed, and how often nobody knows."""
    acknowledged = in_doubt = 0
    while not stopped.is_set():
        outcome = await outcome_of(sdk.tenant("acme").data.update(Setting, row, value="y"))
        if isinstance(outcome, Setting):
            acknowledged += 1
        else:
            assert isinstance(outcome, Unavailable), outcome
            in_doubt += not getattr(outcome, "nothing_written", False)
            await asyncio.sleep(0.01)
    return acknowledged, in_doubt
