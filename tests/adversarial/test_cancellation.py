"""Cancellation at every await: the connection goes to the next tenant clean, or it goes."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from tenantry.errors import OperationTimeout, TenantryError
from tests.adversarial.arena import Arena, another_sdk, outcome_of
from tests.adversarial.conftest import Entrance
from tests.adversarial.models import Customer, Setting
from tests.adversarial.steps import MOMENTS, Moment, interrupt
from tests.adversarial.test_injected_sql import both_roles

Operation = Callable[[Arena, str], Awaitable[Any]]

_numbers = itertools.count()


async def _get(arena: Arena, id: str) -> Any:
    return await arena.acme.data.get(Customer, arena.twin)


async def _read(arena: Arena, id: str) -> Any:
    return await arena.acme.data.read(Customer, {"name": {"contains": "acme"}}, order_by="name")


async def _create(arena: Arena, id: str) -> Any:
    return await arena.acme.data.create(Setting(id=f"{id} 1", value="x"))


async def _create_once(arena: Arena, id: str) -> Any:
    return await arena.acme.data.create(Setting(id=f"{id} 1", value="x"), idempotency_key=id)


async def _create_many(arena: Arena, id: str) -> Any:
    return (
        await arena.acme.data.bulk_create(
            [Setting(id=f"{id} {part}", value="x") for part in range(5)], atomic=True
        )
    ).rows


async def _update(arena: Arena, id: str) -> Any:
    return await arena.acme.data.update(Customer, arena.twin, tags=[id])


async def _transaction(arena: Arena, id: str) -> Any:
    async with arena.acme.data.transaction() as unit:
        await unit.create(Setting(id=f"{id} 1", value="x"))
        await unit.get(Customer, arena.twin)
        await unit.create(Setting(id=f"{id} 2", value="x"))


async def _sql(arena: Arena, id: str) -> Any:
    return await arena.acme.data.sql(
        "WITH one AS (INSERT INTO settings (id, value) VALUES ($1 || ' 1', 'x')) "
        "INSERT INTO settings (id, value) VALUES ($1 || ' 2', 'x')",
        [id],
    )


OPERATIONS: dict[str, tuple[Operation, int]] = {  # and how many rows it writes
    "get": (_get, 0),
    "read": (_read, 0),
    "create": (_create, 1),
    "create once": (_create_once, 1),
    "create many": (_create_many, 5),
    "update": (_update, 0),
    "transaction": (_transaction, 2),
    "sql": (_sql, 2),
}


async def _pools_are_whole(arena: Arena) -> None:
    """Every connection is back, soon: none was lost and none is made beyond the bound."""
    for pool in (arena.app, arena.raw, arena.adapter._control):
        assert pool.size <= pool.max_size
        async with asyncio.timeout(5):
            while pool.size != pool.idle or pool.waiting:
                await asyncio.sleep(0.002)


async def _globex_sees_its_own(arena: Arena) -> None:
    rows = [*await arena.globex.data.read(Customer), *await arena.globex.data.read("settings")]
    assert len(rows) == 4
    assert all(arena.secret in repr(row) for row in rows)
    seen = await arena.globex.data.sql("SELECT tenant_id, name FROM customers")
    assert [row["tenant_id"] for row in seen] == ["globex", "globex"]


async def _acme_sees_its_own(arena: Arena) -> None:
    found = await arena.acme.data.read(Customer, order_by="name")
    assert [row.id for row in found] == [arena.twin, arena.own]
    assert not arena.reveals(found)


async def _all_or_nothing(arena: Arena, id: str, rows: int, outcome: Any) -> None:
    stored = await arena.judge.fetch("SELECT tenant_id FROM settings WHERE id LIKE $1", f"{id} %")
    assert {row["tenant_id"] for row in stored} <= {"acme"}
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, asyncio.CancelledError | TenantryError), outcome
        assert len(stored) in (0, rows)
    else:
        assert len(stored) == rows


@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "single"])
async def test_at_every_await(entrance: Entrance, coalesce: bool) -> None:
    """One connection, so that the next user always gets the one that was interrupted, or its successor."""
    options = {"database": {"pool_size": 1}, "performance": {"coalesce": coalesce}}
    async with entrance(**options) as arena:
        interruptions = 0
        for name, (operation, rows) in OPERATIONS.items():
            if coalesce and name not in ("get", "read"):
                continue  # only look-ups differ
            for moment in MOMENTS:
                interruptions += await _interrupt_everywhere(arena, operation, rows, moment)
        assert interruptions >= (10 if coalesce else 60)


async def _interrupt_everywhere(arena: Arena, operation: Operation, rows: int, moment: Moment) -> int:
    for step in itertools.count(1):
        await _globex_sees_its_own(arena)  # which also leaves every connection bound to globex
        id = f"row {next(_numbers)}"
        reached, outcome = await interrupt(partial(operation, arena, id), step, moment)
        if step % 2:  # whoever comes next: the same tenant may be given the connection without a new binding
            await _acme_sees_its_own(arena)
        await _globex_sees_its_own(arena)
        await _all_or_nothing(arena, id, rows, outcome)
        await _pools_are_whole(arena)
        if not reached:
            assert not isinstance(outcome, BaseException), outcome
            return step - 1
    raise AssertionError


async def test_while_waiting_in_line(arena: Arena) -> None:
    """The connection may be handed over in the moment of the cancellation; then it goes to the next in line."""
    for moment in MOMENTS:
        for step in range(1, 8):
            holders = [asyncio.create_task(_hold(arena)) for _ in range(arena.app.max_size)]
            await asyncio.sleep(0.01)
            waiters = [
                asyncio.create_task(interrupt(lambda: arena.acme.data.read(Customer), step, moment)),
                asyncio.create_task(interrupt(lambda: arena.globex.data.read(Customer), step + 1, moment)),
            ]
            last = asyncio.create_task(arena.globex.data.read(Customer))
            await asyncio.gather(*holders)
            for waiter in waiters:
                _, outcome = await waiter
                assert isinstance(outcome, asyncio.CancelledError | TenantryError) or len(outcome) == 2
            assert all(arena.secret in row.name for row in await last)
            await _pools_are_whole(arena)


async def _hold(arena: Arena) -> None:
    async with arena.acme.data.transaction() as unit:
        await unit.read(Customer)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("swallowed", ["write", "read"])
async def test_a_cancellation_that_is_swallowed_inside_of_a_transaction(arena: Arena, swallowed: str) -> None:
    """Whoever catches it and goes on keeps neither half of the work nor the connection, and is told so."""
    before = await arena.fingerprint("acme")

    async def block() -> None:
        async with arena.acme.data.transaction() as unit:
            await unit.create(Setting(id="half", value="x"))
            if swallowed == "write":
                _, outcome = await interrupt(lambda: unit.create(Setting(id="lost", value="x")), 1, "at once")
            else:
                _, outcome = await interrupt(lambda: unit.read(Customer), 1, "at once")
            assert isinstance(outcome, asyncio.CancelledError)

    with pytest.raises(TenantryError):
        await block()
    assert await arena.fingerprint("acme") == before
    await _globex_sees_its_own(arena)
    await _pools_are_whole(arena)


@both_roles
async def test_a_connection_on_which_a_cancellation_was_swallowed_is_not_used_again(
    arena: Arena, role: str
) -> None:
    """The server is told in the background, and may cancel what comes next instead."""
    pool = arena.pool(role)
    for _ in range(pool.max_size):
        connection: Any = None
        try:
            async with pool.statement("acme") as connection:
                statement = await connection.prepare("SELECT pg_sleep(1)")
                _, outcome = await interrupt(statement.fetch, 1, "at once")
                assert isinstance(outcome, asyncio.CancelledError)
        except TenantryError:
            pass  # where the block was a transaction, it is told
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(pool.statement("globex")) for _ in range(pool.max_size)]
            assert connection not in others
            for other in others:
                assert await other.fetchval("SELECT tenantry.current_tenant()") == "globex"


async def test_a_cancelled_reader_takes_nobody_with_it(arena: Arena) -> None:
    """Look-ups of one tick share a statement; one of those who wait for it is cancelled."""
    for step in (1, 2):
        ids = [arena.twin, arena.own, arena.twin]
        others = [asyncio.create_task(arena.acme.data.get(Customer, id)) for id in ids]
        _, outcome = await interrupt(lambda: arena.acme.data.get(Customer, arena.twin), step, "at once")
        found = await asyncio.gather(*others)
        assert [row.id for row in found] == ids
        assert isinstance(outcome, asyncio.CancelledError | Customer)


async def test_a_timeout_of_the_caller(arena: Arena) -> None:
    for tenths in range(30):
        async with _suppressed(TimeoutError):
            async with asyncio.timeout(tenths / 10_000):
                async with arena.acme.data.transaction() as unit:
                    await unit.update(Customer, arena.twin, name="acme in time")
        await _globex_sees_its_own(arena)
    await _pools_are_whole(arena)


async def test_a_timeout_of_the_server(arena: Arena) -> None:
    async with another_sdk(arena, database={"timeout": 1.0, "pool_size": 1}) as sdk:
        acme, globex = sdk.tenant("acme").data, sdk.tenant("globex").data
        for _ in range(2):
            async with arena.acme.data.transaction() as unit:
                await unit.update(Customer, arena.twin, name="locked")
                with pytest.raises(OperationTimeout):
                    await acme.update(Customer, arena.twin, name="waits for the lock")
            with pytest.raises(OperationTimeout):
                await acme.sql("SELECT pg_sleep(5)")
            assert len(await globex.sql("SELECT 1 FROM customers")) == 2
            assert all(arena.secret in row.name for row in await globex.read(Customer))


class _suppressed:  # noqa: N801 - as contextlib.suppress is
    """`contextlib.suppress`, for a block that awaits."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self._kind)


@pytest.mark.soak
async def test_at_random_under_load(arena: Arena) -> None:
    choice = random.Random(7)
    for _ in range(300):
        tasks = []
        for _ in range(20):
            operation, rows = choice.choice(list(OPERATIONS.values()))
            id, step = f"row {next(_numbers)}", choice.randint(1, 12)
            job = interrupt(partial(operation, arena, id), step, choice.choice(MOMENTS))
            tasks.append((id, rows, asyncio.create_task(job)))
        readers = [asyncio.create_task(_globex_sees_its_own(arena)) for _ in range(5)]
        for id, rows, task in tasks:
            _, outcome = await task
            await _all_or_nothing(arena, id, rows, outcome)
        assert not [error for error in [await outcome_of(reader) for reader in readers] if error]
    await _pools_are_whole(arena)
