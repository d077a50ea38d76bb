"""Reading and writing the rows of one tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tenantry.context import Context, SystemContext, TenantContext
from tenantry.data.bulk import Bulk
from tenantry.data.reads import Reads
from tenantry.data.units import Unit, check_no_unit, forget, open_unit
from tenantry.data.writes import Writes
from tenantry.errors import (
    TransactionFailed,
    Unsupported,
)
from tenantry.hooks import Operation
from tenantry.types import Record


class DataManager(Reads, Writes, Bulk):
    """Reads and writes rows. Bound to a context by :meth:`bind`; unbound, each call names its context.

    A model class gives typed results (``read(Product) -> Page[Product]``); a name gives plain records.
    """

    def bind(self, context: Context) -> DataManager:
        """Return the same manager for one tenant. It ignores the ambient tenant and raises where they disagree."""
        if self._unit is not None:
            raise Unsupported("A transaction stays with its tenant.")
        return DataManager(self._runtime, self._checked(context))

    @asynccontextmanager
    async def transaction(self, *, context: Context | None = None) -> AsyncIterator[DataManager]:
        """Give a manager whose writes take place together when the block ends, or not at all.

        A write that fails dooms the transaction, on every database: nothing of it is kept.
        """
        if self._unit is not None:
            raise Unsupported("This is a transaction already; one inside another is not offered.")
        check_no_unit(self._runtime)
        scope = await self._admitted(context)
        finished: list[Operation] = []
        async with self._runtime.database.transaction(scope) as executor:
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
