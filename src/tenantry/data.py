"""Reading and writing the rows of one tenant."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast, overload

from msgspec.structs import replace

from tenantry.coalescer import Coalescer
from tenantry.context import Context, SystemContext, TenantContext, check_ambient, current_context
from tenantry.cursors import CursorSigner
from tenantry.errors import (
    ContextMismatch,
    DataError,
    IdempotencyConflict,
    InvalidQuery,
    InvalidRecord,
    IsolationError,
    NotFound,
    TenantRequired,
    TransactionFailed,
    UniqueViolation,
    UnknownCollection,
    Unsupported,
)
from tenantry.filters import Where, parse_where
from tenantry.hooks import Hooks, Operation, Verb
from tenantry.idempotency import IDEMPOTENCY, IdempotencyKey, request_key
from tenantry.ports import DatabaseAdapter, Delete, Executor, Insert, Update, Upsert, Write
from tenantry.query import And, Query, after, parse_limit, parse_order, total_order
from tenantry.schema import (
    CARRIED,
    TENANT,
    Collection,
    Field,
    KeyedModel,
)
from tenantry.shapes import Shape, extended
from tenantry.types import Page, Record

M = TypeVar("M", bound=KeyedModel)
T = TypeVar("T")

_FETCH_AT_ONCE = 1_000


class Admission(Protocol):
    """Says whether a tenant may be served; see :class:`tenantry.tenants.TenantLease`."""

    def admits(self, tenant_id: str) -> bool:
        """Whether it may, as far as is known without looking."""

    async def admit(self, tenant_id: str) -> None:
        """Look, and raise unless it may."""


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """What every bound :class:`DataManager` of one SDK shares."""

    database: DatabaseAdapter
    collections: Mapping[str, Collection]
    models: Mapping[type[KeyedModel], Collection]
    lease: Admission
    hooks: Hooks
    cursors: CursorSigner
    coalescer: Coalescer | None
    logs: Mapping[str, Collection] = field(default_factory=dict)
    systems: set[SystemContext] = field(default_factory=set)

    def collection(self, target: object) -> tuple[Collection, bool]:
        """Return the collection that ``target``, a model or a name, stands for, and whether it was a model."""
        typed = isinstance(target, type)
        if isinstance(target, type):
            found = self.models.get(target)
        else:
            found = self.collections.get(target) if isinstance(target, str) else None
        if found is None:
            name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
            raise UnknownCollection(str(name)[:80], list(self.collections))
        return found, typed


class DataManager:
    """Reads and writes rows. Bound to a context by :meth:`bind`; unbound, each call names its context.

    A model class gives typed results (``read(Product) -> Page[Product]``); a name gives plain records.
    """

    def __init__(self, runtime: Runtime, context: Context | None = None, unit: _Unit | None = None) -> None:
        self._runtime = runtime
        self._context = context
        self._unit = unit

    def bind(self, context: Context) -> DataManager:
        """Return the same manager for one tenant. It ignores the ambient tenant and raises where they disagree."""
        if self._unit is not None:
            raise Unsupported("A transaction stays with its tenant.")
        return DataManager(self._runtime, self._checked(context))

    # -- reading

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
        _check_typed(found, scope, typed)
        key = _key(found, id)
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
        )
        scope = await self._admitted(context)
        foreign = _check_typed(found, scope, typed)
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
            self._after("read", found, scope, started, error=error)
            raise
        self._after("read", found, scope, started, rows=len(rows))
        return Page(shape.finish(rows, typed, query.fields), following, included)

    async def count(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        context: Context | None = None,
    ) -> int:
        """Return how many rows there are, or meet ``where``."""
        found, _ = self._readable(collection)
        query = Query(found, (), parse_where(found, where))
        scope = await self._admitted(context)
        started = time.perf_counter()
        try:
            number = await self._executor.count(scope, query)
        except BaseException as error:
            self._after("count", found, scope, started, error=error)
            raise
        self._after("count", found, scope, started, rows=1)
        return number

    async def exists(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        context: Context | None = None,
    ) -> bool:
        """Return whether any row meets ``where``."""
        found, _ = self._readable(collection)
        query = Query(found, (found.key,), parse_where(found, where), limit=1)
        scope = await self._admitted(context)
        started = time.perf_counter()
        try:
            rows = await self._executor.select(scope, query)
        except BaseException as error:
            self._after("read", found, scope, started, error=error)
            raise
        self._after("read", found, scope, started, rows=len(rows))
        return bool(rows)

    # -- writing

    @overload
    async def create(
        self, record: M, /, *, idempotency_key: str | None = None, context: Context | None = None
    ) -> M: ...
    @overload
    async def create(
        self,
        collection: str,
        record: Mapping[str, Any],
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
    ) -> Record: ...
    async def create(
        self,
        target: Any,
        record: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
    ) -> Any:
        """Store a new row and return it as stored.

        Args:
            target: An instance of a model, or the name of a collection followed by the record.
            record: The values, for a collection given by name.
            idempotency_key: A repeated call with the same key returns the row of the first.
            context: For an unbound manager, who asks.

        Raises:
            InvalidRecord: A value cannot be stored; carries the field.
            UniqueViolation: A unique value is taken in this tenant.
            ReferenceViolation: A reference names a row that this tenant does not have.
            IdempotencyConflict: The key was used for something else.
        """
        found, typed, instance = self._instance(target, record)
        values = _new(found, instance)
        print_of = _given(found, instance, record)
        rows = await self._write(
            "create", found, [Insert(found, [values])], context, idempotency_key, print_of
        )
        return found.instantiate(rows[0]) if typed else rows[0]

    @overload
    async def bulk_create(self, records: Iterable[M], /, *, context: Context | None = None) -> list[M]: ...
    @overload
    async def bulk_create(
        self, collection: str, records: Iterable[Mapping[str, Any]], /, *, context: Context | None = None
    ) -> list[Record]: ...
    async def bulk_create(
        self, target: Any, records: Any = None, /, *, context: Context | None = None
    ) -> list[Any]:
        """Store many new rows of one collection, all or none, and return them as stored."""
        by_name = isinstance(target, str)
        items = list(records if by_name else target)
        if not items:
            return []
        made = [self._instance(target, item) if by_name else self._instance(item, None) for item in items]
        found, typed, _ = made[0]
        if any(other is not found for other, _, _ in made):
            raise InvalidRecord("the records belong to different collections.", field="records")
        values = [_new(found, instance) for _, _, instance in made]
        rows = await self._write("create", found, [Insert(found, values)], context)
        return [found.instantiate(row) for row in rows] if typed else rows

    @overload
    async def update(
        self,
        record: M,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> M: ...
    @overload
    async def update(
        self,
        collection: type[M],
        id: Any,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> M: ...
    @overload
    async def update(
        self,
        collection: str,
        id: Any,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> Record: ...
    async def update(
        self,
        target: Any,
        id: Any = None,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> Any:
        """Change some fields of a row and return it as stored.

        Given an instance, its version is the one that must be stored still; given a model or name and an id,
        ``version`` is, and without it the last writer wins.

        Raises:
            NotFound: This tenant has no such row.
            Conflict: Another writer was first; carries the current version.
        """
        if isinstance(target, KeyedModel):
            found, typed = self._runtime.collection(type(target))
            wanted = {**_changes_of_instance(id, changes, version), **fields}
            if not wanted:
                raise InvalidRecord("name what changes: update(row, price=…).", field="changes")
            id, version = target.id, target.version
            validated = _revalidated(found, target, wanted)
        else:
            found, typed = self._runtime.collection(target)
            validated = found.validate_changes({**(changes or {}), **fields})
        key = _key(found, id)
        version = _version(version)
        print_of = [key, version, validated]
        write = Update(found, key, {**validated, "updated_at": _now()}, version)
        rows = await self._write("update", found, [write], context, idempotency_key, print_of)
        return found.instantiate(rows[0]) if typed else rows[0]

    @overload
    async def upsert(
        self,
        record: M,
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> M: ...
    @overload
    async def upsert(
        self,
        collection: str,
        record: Mapping[str, Any],
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> Record: ...
    async def upsert(
        self,
        target: Any,
        record: Mapping[str, Any] | None = None,
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> Any:
        """Store a new row, or where this tenant has one with the same ``on``, set the given fields in it.

        Args:
            target: As for :meth:`create`.
            record: As for :meth:`create`.
            on: ``("id",)`` or one of the unique groups of the collection.
            context: For an unbound manager, who asks.
        """
        found, typed, instance = self._instance(target, record)
        group = (on,) if isinstance(on, str) else tuple(on)
        if group != ("id",) and group not in found.unique:
            raise InvalidQuery(
                f"{group!r} is not unique in {found.name!r}.",
                path="on",
                fix=f"Use ('id',) or one of {list(found.unique)}.",
            )
        values = _new(found, instance)
        given = _given(found, instance, record)
        changes = tuple(name for name in given if name not in CARRIED and name not in group)
        write = Upsert(found, values, group, (*changes, "updated_at"))
        rows = await self._write("upsert", found, [write], context)
        return found.instantiate(rows[0]) if typed else rows[0]

    @overload
    async def delete(self, record: KeyedModel, /, *, context: Context | None = None) -> None: ...
    @overload
    async def delete(
        self,
        collection: type[KeyedModel] | str,
        id: Any,
        /,
        *,
        version: int | None = None,
        context: Context | None = None,
    ) -> None: ...
    async def delete(
        self,
        target: Any,
        id: Any = None,
        /,
        *,
        version: int | None = None,
        context: Context | None = None,
    ) -> None:
        """Delete a row; given an instance, only if its version is stored still.

        Raises:
            NotFound: This tenant has no such row.
            Conflict: Another writer was first.
            ReferenceViolation: Another row refers to it.
        """
        if isinstance(target, KeyedModel):
            found, _ = self._runtime.collection(type(target))
            _changes_of_instance(id, None, version)
            id, version = target.id, target.version
        else:
            found, _ = self._runtime.collection(target)
        await self._write("delete", found, [Delete(found, _key(found, id), _version(version))], context)

    @asynccontextmanager
    async def transaction(self, *, context: Context | None = None) -> AsyncIterator[DataManager]:
        """Give a manager whose writes take place together when the block ends, or not at all.

        A write that fails dooms the transaction, on every database: nothing of it is kept.
        """
        if self._unit is not None:
            raise Unsupported("This is a transaction already; one inside another is not offered.")
        _check_no_unit(self._runtime)
        scope = await self._admitted(context)
        finished: list[Operation] = []
        async with self._runtime.database.transaction(scope) as executor:
            unit = _Unit(self._runtime, executor, finished, asyncio.current_task())
            token = _open_unit.set(unit)
            try:
                yield DataManager(self._runtime, scope, unit)
            finally:
                unit.over = True
                _reset(token)
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
        started = time.perf_counter()
        try:
            rows = await self._runtime.database.sql(scope, text, params)
        except BaseException as error:
            self._after("sql", None, scope, started, error=error)
            raise
        self._after("sql", None, scope, started, rows=len(rows))
        return rows

    def _readable(self, target: object) -> tuple[Collection, bool]:
        """Return what ``target`` stands for; the system also reads the audit log, by its name."""
        if isinstance(self._context, SystemContext) and isinstance(target, str):
            log = self._runtime.logs.get(target)
            if log is not None:
                return log, False
        return self._runtime.collection(target)

    # -- who asks

    async def _admitted(self, given: Context | None) -> Context:
        """Return whose data this call is about, once that tenant may be served."""
        context = self._scope(given)
        if isinstance(context, TenantContext):
            lease = self._runtime.lease
            if not lease.admits(context.tenant_id):
                await lease.admit(context.tenant_id)
        return context

    def _scope(self, given: Context | None) -> Context:
        bound = self._context
        context = bound or given or current_context()
        if context is None:
            raise TenantRequired
        if given is not None and given is not context and given != context:
            raise ContextMismatch("This handle is bound to one tenant and the call names another context.")
        if isinstance(context, TenantContext):
            check_ambient(context)
        return self._checked(context)

    def _checked(self, context: Context) -> Context:
        if isinstance(context, TenantContext):
            return context
        if not isinstance(context, SystemContext):
            raise TenantRequired
        if context not in self._runtime.systems:
            raise IsolationError(
                "This system context was not opened, or is closed: use sdk.system(reason=…)."
            )
        return context

    # -- running

    @property
    def _executor(self) -> Executor:
        if self._unit is None:
            return self._runtime.database
        if self._unit.failed:
            raise TransactionFailed
        return self._unit.executor

    async def _fetch_one(self, scope: Context, found: Collection, key: Any) -> Record | None:
        coalescer = self._runtime.coalescer
        if coalescer is not None and self._unit is None and isinstance(scope, TenantContext):
            return await coalescer.get(scope, found, key)
        rows = await self._executor.fetch(scope, found, (key,))
        if len(rows) > 1:
            raise Unsupported(
                f"Several tenants have a row {str(key)!r} in {found.name!r}.",
                fix="Name one: sdk.system(…, tenant=…).",
            )
        return rows[0] if rows else None

    async def _include(
        self, scope: Context, ref: Field, rows: Sequence[Record], typed: bool
    ) -> Mapping[Any, Any]:
        assert ref.ref is not None
        target = self._runtime.collections[ref.ref.collection]
        if target.scope == "tenant" and scope.tenant_id is None:
            raise Unsupported(
                f"Several tenants may have one row of {target.name!r} each.",
                fix="Name one: sdk.system(…, tenant=…).",
            )
        ids = list(dict.fromkeys(row[ref.name] for row in rows if row[ref.name] is not None))
        related: dict[Any, Any] = {}
        for start in range(0, len(ids), _FETCH_AT_ONCE):
            for row in await self._executor.fetch(scope, target, ids[start : start + _FETCH_AT_ONCE]):
                related[row["id"]] = target.instantiate(row) if typed else row
        return related

    async def _write(
        self,
        verb: Verb,
        found: Collection,
        writes: list[Write],
        context: Context | None,
        idempotency_key: str | None = None,
        request: Any = None,
    ) -> list[Record]:
        """Run one write and what the within hooks add to it, as one unit. Return the rows of the write."""
        unit = self._unit
        if unit is None:
            _check_no_unit(self._runtime)
        elif unit.failed:
            raise TransactionFailed
        scope = await self._admitted(context)
        ids, changes = _touched(writes[0])
        operation = Operation(verb, found, scope, ids, changes)
        started = time.perf_counter()
        try:
            everything = [*writes, *self._runtime.hooks.within(operation)]
            if idempotency_key is None:
                rows = (await self._executor.execute(scope, everything))[0]
            else:
                rows = await self._once(
                    scope, found, everything, request_key(idempotency_key, verb, found, request)
                )
        except BaseException as error:
            if unit is not None:
                unit.failed = True
            self._after(verb, found, scope, started, ids=ids, changes=changes, error=error)
            raise
        self._after(verb, found, scope, started, ids=ids, changes=changes, rows=len(rows))
        return rows

    async def _once(
        self, scope: Context, found: Collection, writes: list[Write], print_of: IdempotencyKey
    ) -> list[Record]:
        """Run the unit unless its key says that it was run before."""
        if isinstance(scope, SystemContext):
            raise Unsupported("Idempotency keys belong to a tenant.")
        earlier = await self._earlier(scope, found, print_of)
        if earlier is not None:
            return earlier
        record = IDEMPOTENCY.to_record(print_of.model_copy(update={"row": str(_touched(writes[0])[0][0])}))
        try:
            return (await self._executor.execute(scope, [*writes, Insert(IDEMPOTENCY, [record])]))[0]
        except DataError as error:
            # The same request, run twice at once: the loser finds the key, or trips over the winner's row.
            if self._unit is None and not (
                isinstance(error, UniqueViolation) and error.collection not in (IDEMPOTENCY.name, found.name)
            ):
                earlier = await self._earlier(scope, found, print_of)
                if earlier is not None:
                    return earlier
            raise

    async def _earlier(
        self, scope: Context, found: Collection, print_of: IdempotencyKey
    ) -> list[Record] | None:
        known = await self._executor.fetch(scope, IDEMPOTENCY, [print_of.id])
        if not known:
            return None
        if known[0]["fingerprint"] != print_of.fingerprint:
            raise IdempotencyConflict(print_of.id)
        row_id = found.key.normalise(known[0]["row"])
        rows = await self._executor.fetch(scope, found, [row_id])
        if not rows:
            raise NotFound(found.name, row_id)
        return rows

    def _after(
        self,
        verb: Verb,
        found: Collection | None,
        scope: Context,
        started: float,
        *,
        ids: Sequence[Any] = (),
        changes: Mapping[str, Any] | None = None,
        rows: int = 0,
        error: BaseException | None = None,
    ) -> None:
        """Tell the after hooks; for a write in a transaction, only once that has committed."""
        seconds = time.perf_counter() - started
        operation = Operation(verb, found, scope, ids, changes or {}, rows, seconds, error)
        if self._unit is not None and error is not None and not isinstance(error, Exception):
            self._unit.failed = True  # cancelled: nobody knows how far its connection got
        if self._unit is not None and changes is not None and error is None:
            self._unit.finished.append(operation)
        else:
            self._runtime.hooks.after(operation)

    def _instance(self, target: Any, record: Mapping[str, Any] | None) -> tuple[Collection, bool, KeyedModel]:
        if isinstance(target, KeyedModel):
            if record is not None:
                raise InvalidRecord("an instance is the record; give no other beside it.", field="record")
            found, _ = self._runtime.collection(type(target))
            return found, True, target
        found, typed = self._runtime.collection(target)
        if not isinstance(record, Mapping):
            raise InvalidRecord(f"expected a mapping, got {type(record).__name__}.", field="record")
        if "tenant_id" in record:
            raise InvalidRecord("the tenant comes from the context, never from a record.", field="tenant_id")
        return found, typed, found.validate(record)


@dataclass(slots=True, eq=False)
class _Unit:
    """One transaction: its executor, the operations to announce when it commits, and whether it is doomed."""

    runtime: Runtime
    executor: Executor
    finished: list[Operation]
    task: asyncio.Task[Any] | None
    failed: bool = False
    over: bool = False


# The transaction that the running task is inside of. A write beside it would not be part of it, and on a database
# with one writer would wait for it for ever.
_open_unit: ContextVar[_Unit | None] = ContextVar("tenantry_unit", default=None)


def _check_no_unit(runtime: Runtime) -> None:
    unit = _open_unit.get()
    if unit is None or unit.over or unit.runtime is not runtime:
        return
    if unit.task is asyncio.current_task():  # a task that was started inside has work of its own
        raise Unsupported(
            "A transaction is open here, and this write would not be part of it.",
            fix="Write through its handle: `async with acme.data.transaction() as tx: await tx.create(…)`.",
        )


def _reset(token: Token[_Unit | None]) -> None:
    """Forget the transaction; a block that ends in another task than it began in has nothing to forget."""
    with suppress(ValueError):
        _open_unit.reset(token)


def _check_typed(collection: Collection, scope: Context, typed: bool) -> bool:
    """Return whether ``scope`` reads rows that are not its own; they carry a tenant, which no model has."""
    foreign = isinstance(scope, SystemContext) and collection.scope == "tenant"
    if foreign and typed:
        raise Unsupported(
            "The system reads rows of tenants as plain records.", fix=f"Read {collection.name!r} by its name."
        )
    return foreign


def _key(collection: Collection, id: Any) -> Any:
    try:
        return collection.key.normalise(id)
    except (ValueError, TypeError) as error:
        raise InvalidQuery(str(error), path="id") from None


def _changes_of_instance(given: Any, changes: object, version: object) -> Mapping[str, Any]:
    """Return the changes given with an instance, which has an id and a version of its own."""
    if version is not None:
        raise InvalidQuery("an instance has its own version; give a model and an id instead.", path="version")
    if changes is not None or not (given is None or isinstance(given, Mapping)):
        raise InvalidQuery("an instance has its own id; give a model and an id instead.", path="id")
    return given or {}


def _version(version: object) -> int | None:
    if version is None:
        return None
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version < 2**63:
        raise InvalidQuery("expected a whole number, 0 or more.", path="version")
    return version


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new(collection: Collection, instance: KeyedModel) -> Record:
    """Return the record of a new row: version 1, made now."""
    record = collection.to_record(instance)
    record["version"] = 1
    record["created_at"] = record["updated_at"] = _now()
    return record


def _given(collection: Collection, instance: KeyedModel, record: Mapping[str, Any] | None) -> Record:
    """Return the values that the caller gave, without those that were filled in."""
    names = instance.model_fields_set if record is None else set(record)
    values = instance.__dict__
    return {
        name: collection.normalise(item, values[name])
        for name, item in collection.fields.items()
        if name in names
    }


def _revalidated(collection: Collection, instance: KeyedModel, changes: Mapping[str, Any]) -> Record:
    """Return ``changes`` as canonical values, after the whole model has accepted the instance with them."""
    checked = collection.validate_changes(changes)
    whole = collection.validate({**instance.__dict__, **changes})
    return {name: collection.normalise(collection.fields[name], whole.__dict__[name]) for name in checked}


def _touched(write: Write) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(write, Insert):
        single = write.records[0] if len(write.records) == 1 else {}
        return [record["id"] for record in write.records], single
    if isinstance(write, Update):
        return (write.id,), write.changes
    if isinstance(write, Upsert):
        return (write.record["id"],), write.record
    return (getattr(write, "id", None),), {}
