"""Look-ups by key that arrive in the same tick of the event loop become one statement."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tenantry.context import Context, TenantContext
from tenantry.schema import Collection, Kind
from tenantry.types import Record

Fetch = Callable[[Context, Collection, Sequence[Any]], Awaitable[list[Record]]]

MAX_BATCH = 1_000
_MUTABLE = (Kind.JSON, Kind.LIST)


class _Batch:
    __slots__ = ("collection", "context", "waiters")

    def __init__(self, context: TenantContext, collection: Collection) -> None:
        self.context = context
        self.collection = collection
        self.waiters: dict[Any, list[asyncio.Future[Record | None]]] = {}


class Coalescer:
    """Batches look-ups. A batch has one tenant, one user and claims, and one collection: its key says so."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._batches: dict[tuple[str, bytes, str], _Batch] = {}
        self._running: set[asyncio.Task[None]] = set()

    def get(self, context: TenantContext, collection: Collection, id: Any) -> asyncio.Future[Record | None]:
        """Return the row, which the caller may change, or ``None``, once the batch of this tick has run."""
        loop = asyncio.get_running_loop()
        key = (context.tenant_id, context.claims_digest, collection.name)
        batch = self._batches.get(key)
        if batch is None or len(batch.waiters) >= MAX_BATCH:
            batch = self._batches[key] = _Batch(context, collection)
            loop.call_soon(self._send, key, batch)
        future: asyncio.Future[Record | None] = loop.create_future()
        batch.waiters.setdefault(id, []).append(future)
        return future

    def _send(self, key: tuple[str, bytes, str], batch: _Batch) -> None:
        if self._batches.get(key) is batch:
            del self._batches[key]
        # An empty context: the batch serves many callers and must not act in the name of the first.
        task = asyncio.get_running_loop().create_task(self._run(batch), context=contextvars.Context())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: _Batch) -> None:
        try:
            rows = await self._fetch(batch.context, batch.collection, list(batch.waiters))
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return
        found = {row["id"]: row for row in rows}
        for id, futures in batch.waiters.items():
            row = found.get(id)
            for index, future in enumerate(futures):
                if not future.done():
                    future.set_result(row if index == 0 or row is None else _clone(batch.collection, row))

    async def close(self) -> None:
        """Wait for the batches under way."""
        await asyncio.gather(*self._running, return_exceptions=True)


def _fail(batch: _Batch, error: BaseException) -> None:
    for futures in batch.waiters.values():
        for future in futures:
            if not future.done():
                future.set_exception(error) if isinstance(error, Exception) else future.cancel()


def _clone(collection: Collection, row: Record) -> Record:
    clone = dict(row)
    for name, field in collection.fields.items():
        if field.kind in _MUTABLE and name in clone:
            clone[name] = copy.deepcopy(clone[name])
    return clone
