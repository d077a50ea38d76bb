"""A database of plain dicts: the reference model that every other database is compared with."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tenantry.config import DatabaseConfig
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.errors import (
    Closed,
    Conflict,
    ContextMismatch,
    IsolationError,
    NotFound,
    ReadOnlyCollection,
    ReferenceViolation,
    TenantDeleted,
    UniqueViolation,
    Unsupported,
)
from tenantry.evaluation import holds
from tenantry.ports import (
    REFUSALS,
    Capability,
    Delete,
    Executor,
    Insert,
    Outcome,
    Purge,
    Update,
    Upsert,
    Write,
)
from tenantry.query import Query, Sort
from tenantry.schema import Collection, Field, Kind
from tenantry.types import Record

Rows = dict[Any, Record]
# (collection, tenant) -> id -> record; rows that belong to no tenant are kept under None
Tables = dict[tuple[str, str | None], Rows]


class MemoryAdapter:
    """Keeps everything in this process. For tests and as the model that defines what is right."""

    name = "memory"
    capabilities = frozenset({Capability.TRANSACTIONS, Capability.FOREIGN_KEYS})

    def __init__(self, config: DatabaseConfig | None = None) -> None:
        self._tables: Tables = {}
        self._fenced: set[str] = set()
        self._collections: dict[str, Collection] = {}
        self._turn = asyncio.Lock()
        self._closed = False

    async def open(self, collections: Sequence[Collection]) -> None:
        """Learn the collections."""
        self._collections = {collection.name: collection for collection in collections}

    async def create_schema(self) -> None:
        """There is nothing to create."""

    async def check_schema(self) -> list[str]:
        """There is nothing to differ."""
        return []

    async def undeclared_tables(self) -> list[str]:
        """There is no table that no collection has made."""
        return []

    async def fence(self, tenant_id: str) -> None:
        """Refuse this tenant's writes for good, once the unit of work that has its turn is over."""
        async with self._turn:
            self._fenced.add(tenant_id)

    async def attest(self) -> None:
        """Tenants are kept in dicts of their own; there is no shared table to leak."""

    async def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._tables.clear()

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Refused: there is no SQL here."""
        raise Unsupported("Raw SQL is refused: this database has none.", fix="Use read(…) with a filter.")

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return the rows with these ids."""
        wanted = set(ids)
        return [_clone(row) for row in self._visible(context, collection) if row["id"] in wanted]

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return the rows of ``query``."""
        rows = [row for row in self._visible(context, query.collection) if holds(query.filter, row)]
        for sort in reversed(query.order):
            rows.sort(key=_sort_key(sort), reverse=sort.descending)
        names = [field.name for field in query.fields]
        if isinstance(context, SystemContext) and query.collection.scope == "tenant":
            names.insert(0, "tenant_id")
        records = [{name: row[name] for name in names} for row in rows]
        if query.distinct:
            records = _distinct(records)
        return [_clone(record) for record in records[: query.limit]]

    async def count(self, context: Context, query: Query) -> int:
        """Return how many rows meet the filter of ``query``."""
        return sum(holds(query.filter, row) for row in self._visible(context, query.collection))

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes or none."""
        async with self._turn:
            self._check_fence(context)
            return self._unit(context, writes)

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes one after the other; those that are refused leave nothing."""
        async with self._turn:
            self._check_fence(context)
            return self._each(context, writes, added)

    @asynccontextmanager
    async def transaction(self, context: Context) -> AsyncIterator[Executor]:
        """One unit of work on a copy, which becomes the database when it ends well."""
        async with self._turn:
            if self._closed:
                raise Closed("The database is closed.")
            self._check_fence(context)
            inner = MemoryAdapter()
            inner._collections, inner._tables = self._collections, _copy(self._tables)
            unit = _Transaction(inner, context)
            try:
                yield unit
                self._tables = inner._tables
            finally:
                unit.over = True

    def _check_fence(self, context: Context) -> None:
        if isinstance(context, TenantContext) and context.tenant_id in self._fenced:
            raise TenantDeleted(f"Tenant {context.tenant_id!r} was deleted.", tenant_id=context.tenant_id)

    def _unit(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        before = _copy(self._tables)
        try:
            return [[_clone(row) for row in self._write(context, write)] for write in writes]
        except BaseException:
            self._tables = before
            raise

    def _each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        before = _copy(self._tables)
        try:
            return [self._one(context, write, added.get(number, ())) for number, write in enumerate(writes)]
        except BaseException:
            self._tables = before
            raise

    def _one(self, context: Context, write: Write, added: Sequence[Write]) -> Outcome:
        try:
            if added or isinstance(write, Delete):
                rows = self._unit(context, [write, *added])[0]
            else:  # it changes one row at its very end, so that nothing has to be put back
                rows = [_clone(row) for row in self._write(context, write)]
        except REFUSALS as error:
            return error
        return rows[0] if rows else None

    def _visible(self, context: Context, collection: Collection) -> list[Record]:
        """Return the rows that the context may read, themselves."""
        own = self._rows(context, collection).values()
        if isinstance(context, SystemContext) and collection.scope == "tenant":
            return [
                {"tenant_id": tenant, **row}
                for (name, tenant), rows in self._tables.items()
                if name == collection.name and context.tenant_id in (None, tenant)
                for row in rows.values()
            ]
        return list(own)

    def _rows(self, context: Context, collection: Collection, *, write: bool = False) -> Rows:
        """Return the rows of the one table of the context, or refuse."""
        if self._closed:
            raise Closed("The database is closed.")
        if collection.name not in self._collections:
            raise IsolationError(f"Collection {collection.name!r} is not registered with this database.")
        tenant: str | None = None
        if isinstance(context, SystemContext):
            if write and collection.scope == "tenant":
                raise IsolationError(
                    "The system does not write rows of tenants; use the tenant's own handle."
                )
        elif collection.scope == "control":
            raise IsolationError(f"No tenant reaches {collection.name!r}.")
        elif collection.scope == "shared":
            if write:
                raise ReadOnlyCollection(collection.name)
        else:
            tenant = context.tenant_id
        return self._tables.setdefault((collection.name, tenant), {})

    def _write(self, context: Context, write: Write) -> list[Record]:
        if isinstance(write, Purge):
            return self._purge(context, write)
        rows = self._rows(context, write.collection, write=True)
        if isinstance(write, Insert):
            return [self._insert(context, write.collection, rows, record) for record in write.records]
        if isinstance(write, Upsert):
            return [self._upsert(context, rows, write)]
        current = rows.get(write.id)
        if current is None:
            raise NotFound(write.collection.name, write.id)
        if write.expected_version not in (None, current["version"]):
            raise Conflict(
                write.collection.name,
                write.id,
                expected=write.expected_version or 0,
                current=current["version"],
            )
        if isinstance(write, Delete):
            self._delete(context, write.collection, write.id)
            return []
        return [self._update(context, write, rows, current)]

    def _purge(self, context: Context, write: Purge) -> list[Record]:
        one_tenant = isinstance(context, SystemContext) and context.tenant_id is not None
        if not one_tenant or write.collection.scope != "tenant":
            raise IsolationError(
                "Only the system can purge, one tenant at a time, and only tenant collections."
            )
        rows = self._tables.pop((write.collection.name, context.tenant_id), {})
        return [{"deleted": len(rows), "remaining": 0}]

    def _insert(self, context: Context, collection: Collection, rows: Rows, record: Record) -> Record:
        if record["id"] in rows:
            raise UniqueViolation(collection.name, ["id"])
        return self._put(context, collection, rows, _clone(record))

    def _update(self, context: Context, write: Update, rows: Rows, current: Record) -> Record:
        changed = current | _clone(write.changes) | {"version": current["version"] + 1}
        return self._put(context, write.collection, rows, changed)

    def _upsert(self, context: Context, rows: Rows, write: Upsert) -> Record:
        key = [write.record[name] for name in write.on]
        taken = [row for row in rows.values() if [row[name] for name in write.on] == key]
        if not taken or None in key:
            return self._insert(context, write.collection, rows, write.record)
        changes = {name: write.record[name] for name in write.changes}
        return self._update(context, Update(write.collection, taken[0]["id"], changes), rows, taken[0])

    def _put(self, context: Context, collection: Collection, rows: Rows, record: Record) -> Record:
        for group in collection.unique:
            values = [record[name] for name in group]
            others = (row for row in rows.values() if row["id"] != record["id"])
            if None not in values and any([row[name] for name in group] == values for row in others):
                raise UniqueViolation(collection.name, group)
        for field in collection.fields.values():
            if field.ref is not None and field.ref.enforced and record[field.name] is not None:
                target = self._rows(context, self._collections[field.ref.collection])
                own = target is rows and record[field.name] == record["id"]
                if not own and record[field.name] not in target:
                    raise ReferenceViolation(collection.name, field.name)
        rows[record["id"]] = record
        return record

    def _delete(self, context: Context, collection: Collection, id: Any) -> None:
        """Delete a row and what cascades from it, unless a row that stays refers to one of them."""
        tenant = context.tenant_id if collection.scope == "tenant" else None
        doomed: list[tuple[str, str | None, Any]] = [(collection.name, tenant, id)]
        for target in doomed:  # it grows meanwhile
            found = self._referring(*target)
            doomed += [row for row, field in found if _cascades(field) and row not in doomed]
        for name, owner, key in doomed:
            del self._tables[name, owner][key]
        for target in doomed:
            for (name, _, _), field in self._referring(*target):
                raise ReferenceViolation(name, field.name)

    def _referring(
        self, target: str, tenant: str | None, id: Any
    ) -> list[tuple[tuple[str, str | None, Any], Field]]:
        """Return the rows that refer to one row; to a shared one, those of every tenant."""
        fields = [
            (child.name, field)
            for child in self._collections.values()
            for field in child.fields.values()
            if field.ref is not None and field.ref.enforced and field.ref.collection == target
        ]
        return [
            ((name, owner, key), field)
            for name, field in fields
            for (table, owner), rows in self._tables.items()
            if table == name and tenant in (None, owner)
            for key, row in rows.items()
            if row[field.name] == id
        ]


class _Transaction:
    """The executor of one unit of work."""

    def __init__(self, adapter: MemoryAdapter, context: Context) -> None:
        self._adapter = adapter
        self._context = context
        self.over = False

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        self._check(context)
        return await self._adapter.fetch(context, collection, ids)

    async def select(self, context: Context, query: Query) -> list[Record]:
        self._check(context)
        return await self._adapter.select(context, query)

    async def count(self, context: Context, query: Query) -> int:
        self._check(context)
        return await self._adapter.count(context, query)

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        self._check(context)
        return self._adapter._unit(context, writes)

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        self._check(context)
        return self._adapter._each(context, writes, added)

    def _check(self, context: Context) -> None:
        if self.over:
            raise Closed("This transaction is over.", fix="Use it inside its `async with` block.")
        if context != self._context:
            raise ContextMismatch("This transaction belongs to another tenant.")


def _cascades(field: Field) -> bool:
    return field.ref is not None and field.ref.on_delete == "cascade"


def _clone(record: Record) -> Record:
    """Return a copy that shares nothing which could be changed."""
    return {
        name: copy.deepcopy(value) if isinstance(value, list | dict) else value
        for name, value in record.items()
    }


def _copy(tables: Tables) -> Tables:
    # Records are replaced and never changed in place, so the rows need no deep copy.
    return {key: dict(rows) for key, rows in tables.items()}


def _distinct(records: list[Record]) -> list[Record]:
    return list({tuple(map(repr, record.values())): record for record in reversed(records)}.values())[::-1]


def _sort_key(sort: Sort) -> Callable[[Record], tuple[bool, Any]]:
    name, kind = sort.field.name, sort.field.kind

    def key(row: Record) -> tuple[bool, Any]:
        value = row[name]
        if value is None:
            return True, 0
        return False, value.value if kind is Kind.ENUM else value

    return key
