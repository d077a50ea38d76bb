"""Reading rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, overload

from msgspec.structs import replace

from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.data.records import (
    M,
    T,
    check_typed,
    key_of,
)
from tenantry.errors import (
    NotFound,
)
from tenantry.filters import Where, parse_where
from tenantry.query import And, Deleted, Query, after, parse_deleted, parse_limit, parse_order, total_order
from tenantry.schema import TENANT, KeyedModel
from tenantry.shapes import Shape, extended
from tenantry.types import Page, Record


class Reads(Calls):
    """The calls that read rows."""

    @overload
    async def get(self, collection: type[M], id: Any, *, context: Context | None = None) -> M: ...
    @overload
    async def get(self, collection: str, id: Any, *, context: Context | None = None) -> Record: ...
    async def get(self, collection: type[M] | str, id: Any, *, context: Context | None = None) -> M | Record:
        """Return the row with this id.

        Raises:
            NotFound: This tenant has no such row. Another tenant's row is not found either.
        """
        found, typed = self._readable(collection)
        scope = await self._admitted(context)
        check_typed(found, scope, typed)
        key = key_of(found, id)
        started = time.perf_counter()
        try:
            record = await self._fetch_one(scope, found, key)
            if record is None:
                raise NotFound(found.name, id)
        except BaseException as error:
            self._after("get", found, scope, started, ids=(key,), error=error)
            raise
        self._after("get", found, scope, started, ids=(key,), rows=1)
        return cast(M, found.instantiate(record)) if typed else record

    @overload
    async def read(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        into: type[T],
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fields: Sequence[str] | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[T]: ...
    @overload
    async def read(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        include: Sequence[str] = (),
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[M]: ...
    @overload
    async def read(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        fields: Sequence[str],
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[Record]: ...
    @overload
    async def read(
        self,
        collection: str,
        where: Where = None,
        *,
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fields: Sequence[str] | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[Record]: ...
    async def read(
        self,
        collection: Any,
        where: Any = None,
        *,
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fields: Sequence[str] | None = None,
        into: type[Any] | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[Any]:
        """Return a page of rows.

        Args:
            collection: A model, for typed results, or a name, for plain records.
            where: ``lambda p: (p.price < 10) & p.name.startswith("L")`` or ``{"price": {"lt": 10}}``.
            order_by: Field names, ``-`` in front for descending. Ties are broken by id.
            limit: The most rows, 1 to 10,000.
            cursor: The ``next_cursor`` of the page before.
            fields: Return plain records of these fields only.
            into: Return instances of this class, made of the fields that it names.
            include: Names of references; their rows come in ``page.included[name][id]``, in one query each.
            distinct: Return equal rows once. Needs ``fields`` or ``into``.
            deleted: ``with`` rows that are marked as deleted, or those ``only``.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault.
        """
        found, typed = self._readable(collection)
        shape = Shape(found, fields, into, include, distinct)
        query = Query(
            found,
            shape.fields,
            parse_where(found, where),
            parse_order(found, order_by),
            parse_limit(limit) + 1,
            distinct,
            parse_deleted(found, deleted),
        )
        scope = await self._admitted(context)
        foreign = check_typed(found, scope, typed)
        query = replace(query, order=total_order(query, across_tenants=foreign and scope.tenant_id is None))
        sort_fields = (sort.field for sort in query.order if sort.field is not TENANT)
        query = replace(query, fields=extended(query.fields, sort_fields))
        if cursor is not None:
            position = after(query.order, self._runtime.cursors.open(scope, query, query.order, cursor))
            query = replace(query, filter=And((query.filter, position)))
        started = time.perf_counter()
        try:
            rows = await self._executor.select(scope, query)
            following = None
            if len(rows) > limit:
                rows = rows[:limit]
                following = self._runtime.cursors.sign(scope, query, query.order, rows[-1])
            included = {
                name: await self._include(scope, item, rows, typed) for name, item in shape.refs.items()
            }
        except BaseException as error:
            self._after("read", found, scope, started, error=error, query=query)
            raise
        self._after("read", found, scope, started, rows=len(rows), query=query)
        return Page(shape.finish(rows, typed, query.fields), following, included)

    async def count(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> int:
        """Return how many rows there are, or meet ``where``."""
        found, _ = self._readable(collection)
        query = Query(found, (), parse_where(found, where), deleted=parse_deleted(found, deleted))
        scope = await self._admitted(context)
        started = time.perf_counter()
        try:
            number = await self._executor.count(scope, query)
        except BaseException as error:
            self._after("count", found, scope, started, error=error, query=query)
            raise
        self._after("count", found, scope, started, rows=1, query=query)
        return number

    async def exists(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> bool:
        """Return whether any row meets ``where``."""
        found, _ = self._readable(collection)
        condition, deleted = parse_where(found, where), parse_deleted(found, deleted)
        query = Query(found, (found.key,), condition, limit=1, deleted=deleted)
        scope = await self._admitted(context)
        started = time.perf_counter()
        try:
            rows = await self._executor.select(scope, query)
        except BaseException as error:
            self._after("read", found, scope, started, error=error, query=query)
            raise
        self._after("read", found, scope, started, rows=len(rows), query=query)
        return bool(rows)
