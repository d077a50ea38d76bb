"""Reading and writing the rows of one tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from tenantry.context import Context, SystemContext, TenantContext
from tenantry.data.aggregates import Aggregates
from tenantry.data.bulk import Bulk
from tenantry.data.deletes import Deletes
from tenantry.data.reads import Reads
from tenantry.data.searches import Searches
from tenantry.data.streams import Streams
from tenantry.data.units import Unit, attempts_of, check_no_unit, forget, open_unit
from tenantry.data.writes import Writes
from tenantry.errors import (
    DatabaseUnavailable,
    TransactionFailed,
    Unsupported,
)
from tenantry.hooks import Operation
from tenantry.ports import Isolation
from tenantry.resilience.retry import pause
from tenantry.types import Record

R = TypeVar("R")


class DataManager(Reads, Streams, Aggregates, Searches, Writes, Deletes, Bulk):
    """Reads and writes rows. Bound to a context by :meth:`bind`; unbound, each call names its context.

    A model class gives typed results (``read(Product) -> Page[Product]``); a name gives plain records.
    """

    def bind(self, context: Context) -> DataManager:
        """Return the same manager for one tenant. It ignores the ambient tenant and raises where they disagree."""
        if self._unit is not None:
            raise Unsupported("A transaction stays with its tenant.")
        return DataManager(self._runtime, self._checked(context))

    @property
    def primary(self) -> DataManager:
        """The same manager, whose reads no replica answers: for what must be seen as of now, whoever wrote it.

        Without replicas there is no difference. What was written through this process is read back in any case.
        """
        if self._unit is not None or not isinstance(self._context, TenantContext):
            raise Unsupported(
                "This reads from the primary already, or is bound to no tenant.",
                fix="Use sdk.tenant(…).data.primary.",
            )
        return DataManager(self._runtime, replace(self._context, primary=True))

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, context: Context | None = None
    ) -> AsyncIterator[DataManager]:
        """Give a manager whose writes take place together when the block ends, or not at all.

        A write that fails dooms the transaction, on every database: nothing of it is kept.

        Args:
            isolation: ``read_committed``, ``repeatable_read`` or ``serializable``: how much it may see of transactions
                beside it, at most. By default what the database does.
            context: For an unbound manager, who asks.

        Raises:
            SerializationFailure: It got in another's way, and nothing of it was written. :meth:`run_transaction`
                runs it again.
        """
        if self._unit is not None:
            raise Unsupported("This is a transaction already; one inside another is not offered.")
        check_no_unit(self._runtime)
        scope = await self._admitted(context)
        finished: list[Operation] = []
        async with self._runtime.database.transaction(scope, isolation) as executor:
            unit = Unit(self._runtime, executor, finished, asyncio.current_task())
            token = open_unit.set(unit)
            try:
                yield DataManager(self._runtime, scope, unit)
            finally:
                unit.over = True
                forget(token)
            if unit.failed:
                raise TransactionFailed
        for operation in finished:
            self._runtime.hooks.after(operation)

    async def run_transaction(
        self,
        work: Callable[[DataManager], Awaitable[R]],
        *,
        isolation: Isolation = "serializable",
        attempts: int = 5,
        context: Context | None = None,
    ) -> R:
        """Run ``work`` in a transaction, and again in a new one if it is certain that nothing of it was written.

        That is so after a serialisation failure or a deadlock, and when the connection was lost before the commit. A
        commit whose answer was lost is never run again: it raises, and it may have taken place.

        Args:
            work: Is given the manager of each transaction. What it does elsewhere it does once an attempt.
            isolation: As for :meth:`transaction`.
            attempts: The most attempts, the first one included.
            context: For an unbound manager, who asks.

        Returns:
            What ``work`` returned in the transaction that committed.

        Raises:
            SerializationFailure: The last attempt failed as well.
            InvalidQuery: There is to be less than one attempt.
        """
        for number in attempts_of(attempts):
            try:
                async with self.transaction(isolation=isolation, context=context) as unit:
                    return await work(unit)
            except DatabaseUnavailable as error:
                if number == attempts or not error.nothing_written:
                    raise
            await asyncio.sleep(pause(number))
        raise AssertionError("the last attempt returns or raises")

    async def sql(
        self, text: str, params: Sequence[Any] = (), *, context: TenantContext | None = None
    ) -> list[Record]:
        """Run one SQL statement of your own, held to the tenant by the database; PostgreSQL only.

        It runs as a role of its own, under row-level security, on a connection that is wiped before its next use.
        """
        scope = await self._admitted(context)
        if isinstance(scope, SystemContext) or self._unit is not None:
            raise Unsupported("Raw SQL runs for one tenant, and outside transactions.")
        if not self._runtime.raw:
            raise Unsupported("Raw SQL is refused here: what it writes would not be recorded.")
        started = time.perf_counter()
        try:
            rows = await self._runtime.database.sql(scope, text, params)
        except BaseException as error:
            self._after("sql", None, scope, started, error=error)
            raise
        self._after("sql", None, scope, started, rows=len(rows))
        return rows
