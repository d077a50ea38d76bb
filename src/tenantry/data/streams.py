"""Reading all rows, however many, a page at a time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from msgspec.structs import replace

from tenantry.context import Context, SystemContext, use_context
from tenantry.data.calls import Calls
from tenantry.data.records import M, T, check_typed
from tenantry.errors import Unsupported
from tenantry.filters import Where, parse_where
from tenantry.query import And, Deleted, Query, after, parse_deleted, parse_limit, parse_order, total_order
from tenantry.schema import TENANT, KeyedModel
from tenantry.shapes import Shape, extended
from tenantry.types import Record

Row = TypeVar("Row")


Position = tuple[Any, ...]
# Given where the last batch ended, reads the next one and says where that ends; no position is the end of all.
Read = Callable[[Position | None], Awaitable[tuple[list[Row], Position | None]]]


class Stream(AsyncIterator[Row], Generic[Row]):
    """The rows of :meth:`DataManager.stream`, to be consumed once.

    Between two batches it holds nothing: no connection, no transaction, and of the rows only where they ended. It
    keeps the tenant that it was made for, whoever consumes it, and asks before each batch whether that is still served.
    When a batch fails, nothing is skipped: the next call asks for the same one again.
    """

    def __init__(self, context: Context, read: Read[Row]) -> None:
        self._context = None if isinstance(context, SystemContext) else context
        self._read = read
        self._position: Position | None = None
        self._rows: list[Row] = []
        self._busy = False
        self._over = False

    async def next_batch(self) -> list[Row]:
        """Return the next rows, at most ``batch_size``; none at the end."""
        if self._rows:
            rest, self._rows = self._rows[::-1], []
            return rest
        if self._over:
            return []
        if self._busy:
            raise Unsupported("Another task reads this stream.", fix="Make a stream for each task.")
        self._busy = True
        try:
            with use_context(self._context):
                rows, self._position = await self._read(self._position)
        finally:
            self._busy = False
        if self._position is None:
            self._over = True
        return rows

    async def __anext__(self) -> Row:
        if not self._rows:
            self._rows = (await self.next_batch())[::-1]
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.pop()

    async def batches(self) -> AsyncIterator[list[Row]]:
        """Iterate over lists of rows instead: ``async for rows in stream.batches()``."""
        while rows := await self.next_batch():
            yield rows

    def end(self) -> None:
        """End it early. One that is dropped holds nothing that would have to be given back."""
        self._over, self._rows = True, []

    async def aclose(self) -> None:
        """Do the same, under the name that `contextlib.aclosing` knows."""
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Streams(Calls):
    """The call that reads all rows."""

    @overload
    def stream(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        into: type[T],
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[M]: ...
    @overload
    def stream(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        fields: Sequence[str],
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[Record]: ...
    @overload
    def stream(
        self,
        collection: str,
        where: Where = None,
        *,
        fields: Sequence[str] | None = None,
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[Record]: ...
    def stream(
        self,
        collection: Any,
        where: Any = None,
        *,
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        fields: Sequence[str] | None = None,
        into: type[Any] | None = None,
        context: Context | None = None,
    ) -> Stream[Any]:
        """Return all rows, one after the other, in bounded memory.

        Rows are read in batches as they are consumed. One that was there all the time, and whose sort keys did not
        change, comes exactly once, whatever others write meanwhile.

        Args:
            collection: A model, for typed results, or a name, for plain records.
            where: As for :meth:`read`.
            order_by: Field names, ``-`` in front for descending. Ties are broken by id.
            deleted: ``with`` rows that are marked as deleted, or those ``only``.
            batch_size: The most rows to hold at a time, 1 to 10,000.
            fields: Return plain records of these fields only.
            into: Return instances of this class, made of the fields that it names.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault; at once, while other errors come with the first row.
        """
        found, typed = self._readable(collection)
        shape = Shape(found, fields, into, (), False)
        size = parse_limit(batch_size, "batch_size")
        condition, order = parse_where(found, where), parse_order(found, order_by)
        query = Query(found, shape.fields, condition, order, size, deleted=parse_deleted(found, deleted))
        scope = self._scope(context)
        foreign = check_typed(found, scope, typed)
        query = replace(query, order=total_order(query, across_tenants=foreign and scope.tenant_id is None))
        sort_fields = (sort.field for sort in query.order if sort.field is not TENANT)
        query = replace(query, fields=extended(query.fields, sort_fields))

        async def read(position: Position | None) -> tuple[list[Any], Position | None]:
            rows = await self._page(scope, query, position)
            ends = [rows[-1][sort.field.name] for sort in query.order] if len(rows) == size else None
            return shape.finish(rows, typed, query.fields), None if ends is None else tuple(ends)

        return Stream(scope, read)

    async def _page(self, scope: Context, query: Query, position: Position | None) -> list[Record]:
        if position is not None:
            query = replace(query, filter=And((query.filter, after(query.order, position))))
        await self._admitted(scope)
        started = time.perf_counter()
        try:
            rows = await self._executor.select(scope, query)
        except BaseException as error:
            self._after("read", query.collection, scope, started, error=error, query=query)
            raise
        self._after("read", query.collection, scope, started, rows=len(rows), query=query)
        return rows
