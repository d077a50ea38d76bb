"""Runs steps against a database in use: short locks, many tries, small batches, and a note of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import asyncpg

from tenantry.databases.postgres.adopt.journal import Entry, Journal
from tenantry.databases.postgres.adopt.steps import Step
from tenantry.databases.postgres.policies import TENANT_COLUMN
from tenantry.errors import AdoptionError

_BUSY: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.QueryCanceledError)
_STUCK: Final = (asyncpg.IntegrityConstraintViolationError, asyncpg.DependentObjectsStillExistError)
_GONE: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)
# Building an index waits for transactions that were there before; that keeps nobody else waiting.
_INDEX_LOCK_TIMEOUT: Final = "30min"
_PAGES_A_SWEEP: Final = 1_000_000_000
_SWEEPS: Final = 100


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        step: The step at work.
        number: Which it is, counted from 1.
        steps: How many there are.
        share: How much of this step is done, 0 to 1.
        note: What happened, such as a lock that could not be had yet; else empty.
    """

    step: str
    number: int
    steps: int
    share: float
    note: str = ""


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard a run pushes.

    Attributes:
        batch_rows: About how many rows one batch fills.
        pause: How long to rest after a batch, as a multiple of the time that it took.
        lock_timeout: Seconds to wait for a lock at a time: others may queue behind us for no longer.
        patience: Seconds to go on trying for one lock.
    """

    batch_rows: int = 5_000
    pause: float = 0.5
    lock_timeout: float = 2.0
    patience: float = 600.0


class Runner:
    """Runs steps, one after the other, each at most once.

    Args:
        connection: An asyncpg connection of a role that owns the tables, or a superuser.
        journal: Where the steps are noted.
        pace: How hard to push.
        report: Is told of each step, batch and retry.
    """

    def __init__(self, connection: Any, journal: Journal, pace: Pace, report: Report) -> None:
        self._connection = connection
        self._journal = journal
        self._pace = pace
        self._report = report
        self._number = 0
        self._steps = 0

    async def run(self, steps: Sequence[Step]) -> None:
        """Run the steps that are not done yet.

        Raises:
            AdoptionError: A step is impossible, or its lock could not be had.
        """
        done = {entry.step for entry in await self._journal.entries() if entry.done}
        self._steps = len(steps)
        for self._number, step in enumerate(steps, 1):
            if step.name in done:
                continue
            self._tell(step, 0.0)
            if step.how == "transaction":
                await self.transaction(step)
            elif step.how == "concurrently":
                await self._concurrently(step)
            else:
                await self._backfill(step)
            self._tell(step, 1.0)

    def _tell(self, step: Step, share: float, note: str = "") -> None:
        self._report(Progress(step.name, self._number, self._steps, share, note))

    async def transaction(self, step: Step) -> None:
        """Run a step as one transaction that notes itself, as often as it takes to get its locks."""
        try:
            await self._until_free(step, lambda: self._do(step))
        except asyncpg.CheckViolationError as error:
            raise AdoptionError(
                f"{step.name}: rows without a tenant were found ({error}).",
                fix='Mend them, or write orphans = "<tenant id>" into a new plan: tenantry adopt revert, then plan.',
            ) from error

    async def _do(self, step: Step) -> None:
        async with self._connection.transaction():
            await self.lock(step)
            for statement in step.statements:
                await self._connection.execute(statement)
            await self._journal.begin(step.name, step.undo, {"tables": step.tables})
            await self._journal.finish(step.name)

    async def _until_free(self, step: Step, work: Callable[[], Awaitable[None]]) -> None:
        deadline = time.monotonic() + self._pace.patience
        wait = 0.1
        while True:
            try:
                return await work()
            except _BUSY as error:
                if time.monotonic() >= deadline:
                    raise AdoptionError(
                        f"{step.name}: the lock could not be had in {self._pace.patience:g} s ({error}).",
                        fix="Look for long transactions in pg_stat_activity, or try again when less is going on.",
                    ) from error
                self._tell(step, 0.0, "waits for a lock")
            await asyncio.sleep(wait)
            wait = min(wait * 2, 5.0)

    async def undo(self, entry: Entry) -> None:
        """Undo a step as one transaction that strikes it from the journal.

        Raises:
            AdoptionError: It cannot be undone now.
        """
        tables = [name for name in entry.progress.get("tables", ()) if await self._exists(name)]
        lock = "as the step that it undoes"
        step = Step(f"undo {entry.step}", "transaction", entry.undo, lock, tables=tuple(tables))
        self._number += 1
        self._tell(step, 0.0)
        try:
            await self._until_free(step, lambda: self._undo(entry, step))
        except _STUCK as error:
            raise AdoptionError(
                f"{entry.step} cannot be undone now: {error}.",
                fix="Mend what stands in the way, and run again: tenantry adopt revert",
            ) from error
        self._tell(step, 1.0)

    async def _undo(self, entry: Entry, step: Step) -> None:
        async with self._connection.transaction():
            await self.lock(step)
            for statement in entry.undo:
                await self._undo_statement(statement)
            await self._journal.forget(entry.step)

    async def _undo_statement(self, statement: str) -> None:
        try:
            async with self._connection.transaction():
                await self._connection.execute(statement)
        except _GONE:
            pass  # somebody dropped it since, and what we did to it is gone with it

    async def _exists(self, name: str) -> bool:
        return await self._connection.fetchval("SELECT to_regclass($1)", name) is not None

    async def lock(self, step: Step) -> None:
        """Lock a step's tables, or give up before anybody who waits for us can suspect a deadlock.

        With several tables we may hold one and wait for the next; a writer that waits for the first looks for a
        deadlock after `deadlock_timeout`, and would be the one to fail. We give up sooner than that.
        """
        seconds = self._pace.lock_timeout
        if len(step.tables) > 1:
            patience = await self._connection.fetchval(_DEADLOCK_TIMEOUT)
            seconds = min(seconds, 0.8 * float(patience))
        milliseconds = max(1, int(seconds * 1000))
        await self._connection.execute(f"SET LOCAL lock_timeout = {milliseconds}")
        if step.tables:
            await self._connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
            await self._connection.execute(f"LOCK TABLE {', '.join(step.tables)} IN {step.mode} MODE")
        await self._connection.execute("SET LOCAL statement_timeout = 0")

    async def _concurrently(self, step: Step) -> None:
        await self._journal.begin(step.name, step.undo)
        await self._until_free(step, lambda: self._build(step))
        await self._journal.finish(step.name)

    async def _build(self, step: Step) -> None:
        await self._connection.execute(f"SET lock_timeout = '{_INDEX_LOCK_TIMEOUT}'")
        try:
            # What a killed run left behind is invalid, and a second one of its name cannot be made.
            state = await self._connection.fetchval(_INDEX_STATE, step.index)
            if state is False:
                await self._connection.execute(f"DROP INDEX CONCURRENTLY {step.index}")
            if state is not True:
                for statement in step.statements:
                    await self._connection.execute(statement)
        finally:
            await self._connection.execute("RESET lock_timeout")

    async def _backfill(self, step: Step) -> None:
        (leaf,) = step.tables
        await self._journal.begin(step.name)
        pages, rows_a_page = await self._connection.fetchrow(_PAGES, leaf)
        batch = max(1, int(self._pace.batch_rows / max(rows_a_page, 1.0)))
        at = await self._progress(step)
        while at < pages:
            began = time.monotonic()
            upto = min(at + batch, pages)
            async with self._connection.transaction():
                await quietly(self._connection)
                await self._connection.execute(step.statements[0], _page(at), _page(upto))
                await self._journal.advance(step.name, {"page": upto})
            at = upto
            self._tell(step, at / pages)
            await asyncio.sleep((time.monotonic() - began) * self._pace.pause)
        await self._sweep(step, leaf)
        await self._journal.finish(step.name)

    async def _sweep(self, step: Step, leaf: str) -> None:
        """Fill what a writer had locked when we came by. What then is left, finds no tenant."""
        left = f"SELECT EXISTS (SELECT FROM {leaf} WHERE {TENANT_COLUMN} IS NULL)"
        for attempt in range(_SWEEPS):
            if not await self._connection.fetchval(left):
                return
            async with self._connection.transaction():
                await quietly(self._connection)
                status = await self._connection.execute(step.statements[0], _page(0), _page(_PAGES_A_SWEEP))
            if attempt:
                self._tell(step, 1.0, "waits for rows that others have locked")
                await asyncio.sleep(0.0 if status != "UPDATE 0" else min(0.1 * attempt, 3.0))
        raise AdoptionError(
            f"{step.name}: rows of {leaf} find no tenant, or stay locked by others.",
            fix=f"Look at them: SELECT * FROM {leaf} WHERE {TENANT_COLUMN} IS NULL",
        )

    async def _progress(self, step: Step) -> int:
        for entry in await self._journal.entries():
            if entry.step == step.name:
                return int(entry.progress.get("page", 0))
        return 0


async def quietly(connection: Any) -> None:
    """For this transaction, keep the application's own triggers out of it, where we may: for them nothing changes."""
    await connection.execute("SET LOCAL lock_timeout = '10s'")
    if await connection.fetchval(_MAY_BE_QUIET):
        await connection.execute("SET LOCAL session_replication_role = replica")
    else:  # they fire, and expect to find their tables
        await connection.execute('SET LOCAL search_path = "$user", public')


def _page(number: int) -> tuple[int, int]:
    return (number, 0)


_DEADLOCK_TIMEOUT: Final = "SELECT extract(epoch FROM current_setting('deadlock_timeout')::interval)"
_MAY_BE_QUIET: Final = "SELECT has_parameter_privilege('session_replication_role', 'SET')"
_INDEX_STATE: Final = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
_PAGES: Final = """SELECT pg_relation_size(c.oid) / current_setting('block_size')::int8 AS pages,
  CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 100 END::float8 AS rows_a_page
FROM pg_class c WHERE c.oid = to_regclass($1)"""
