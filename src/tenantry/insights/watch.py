"""Counts while the application works: the hook, the clock behind it, and the life of both."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import logging
from collections.abc import Callable

from tenantry.errors import Closed, TenantryError
from tenantry.hooks import Operation
from tenantry.insights.collector import Collector
from tenantry.insights.counts import Counts
from tenantry.insights.sampler import Sampler
from tenantry.insights.store import RETENTION, Store, hour_of
from tenantry.ports import DatabaseAdapter, Explains

logger = logging.getLogger("tenantry.insights")

_LOOKED_INTO = 0.2  # of the time from which on a query is slow
_EXPLAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0


class Watch:
    """Counts the operations of one SDK, has slow ones explained, and writes the counts every so often.

    Args:
        slow: From how many seconds on a query is slow.
        interval: Seconds between two writes of the counts; in each, at most one slow query is explained.

    Attributes:
        began: Since when it counts.
        failures: How often the counts could not be written.
    """

    def __init__(self, *, slow: float, interval: float) -> None:
        self._interval = interval
        self.sampler = Sampler(slow * _LOOKED_INTO)
        self._database: DatabaseAdapter | None = None
        self._task: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self.sampler.begin_anew()
        self.collector = Collector(self.sampler)
        self.began = now()
        self._hour = hour_of(self.began)
        self.failures = 0

    @property
    def database(self) -> DatabaseAdapter:
        """The database.

        Raises:
            Closed: There is none at the moment.
        """
        if self._database is None:
            raise Closed("The SDK is not open.")
        return self._database

    def start(self, database: DatabaseAdapter, admits: Callable[[str], bool]) -> None:
        """Count for this database from now on, from zero.

        Args:
            database: The database.
            admits: Whether a tenant is served, as far as is known without looking.
        """
        self._reset()
        self._task = None  # in a child process, what is left of the parent's
        self._database, self._admits, self.store = database, admits, Store(database)

    def observe(self, operation: Operation) -> None:
        """Count one operation: the after hook."""
        if self._database is None:
            return
        self.collector(operation)
        if self._task is None:
            # In a context of its own: it works for all tenants and must not act in the name of this one.
            empty = contextvars.Context()
            self._task = asyncio.get_running_loop().create_task(self._run(), context=empty)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.explain()
            await self.save()

    async def rest(self) -> None:
        """Do nothing until the next operation."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """Write what was counted, if the database takes it within two seconds."""
        if self._database is None:
            return
        await self.rest()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.save()
        except TimeoutError:
            logger.warning("The counts of the last queries were not stored: the database took too long.")
        self._database = None

    async def explain(self) -> None:
        """Ask the database about the slowest query that waits, if its tenant is still served."""
        database = self.database
        sample = self.sampler.take() if isinstance(database, Explains) else None
        if sample is None or not isinstance(database, Explains):
            return
        if not self._admits(sample.context.tenant_id):
            return
        try:
            plan = await database.explain(
                sample.context, sample.query, count=sample.counted, seconds=_EXPLAIN_SECONDS
            )
        except TenantryError as error:
            logger.debug("A slow query could not be explained: %s", type(error).__name__)
            return
        self.collector.explained(sample.key, Counts(plan=plan))

    async def save(self) -> None:
        """Write the counts. The application never suffers from a failure; it is counted, and tried again."""
        collector = self.collector
        if not collector.changed:
            return
        collector.changed = False
        hour, current = self._hour, hour_of(now())
        try:
            await self.store.save(hour, collector.of_this_hour())
            if current != hour:
                self._hour = current
                collector.turn()
                await self.store.prune(current - RETENTION)
        except TenantryError as error:
            collector.changed = True
            self.failures += 1
            logger.warning("The counts of queries could not be stored: %s", error)


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)
