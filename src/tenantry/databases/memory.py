"""A database of plain dicts: the reference model that every other database is compared with."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tenantry.aggregation import Aggregation
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
from tenantry.grouping import grouped
from tenantry.internal import administers, check_rights
from tenantry.plans import PLANS
from tenantry.plans.quotas import Count, amounts, check_growth, stored_limits
from tenantry.ports import (
    REFUSALS,
    Capability,
    Delete,
    Discard,
    Executor,
    Insert,
    Isolation,
    Outcome,
    Purge,
    Update,
    Upsert,
    Write,
)
from tenantry.query import Deleted, Query, Sort
from tenantry.schema import MARK, Collection, Field, Kind
from tenantry.searching import SCORE, Search, searchable_fields
from tenantry.types import Record
from tenantry.words import ranks

Rows = dict[Any, Record]
TENANTS = "tenantry_tenants"
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
        visible = self._visible(context, query.collection, query.deleted)
        rows = [row for row in visible if holds(query.filter, row)]
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
        visible = self._visible(context, query.collection, query.deleted)
        return sum(holds(query.filter, row) for row in visible)

    async def search(self, context: Context, search: Search) -> list[Record]:
        """Return the rows that a search finds, the best first."""
        if isinstance(context, SystemContext) and search.collection.scope == "tenant":
            raise Unsupported("A search is a tenant's own.", fix="Search with the tenant's own handle.")
        rows = self._visible(context, search.collection)
        names = [field.name for field in searchable_fields(search.collection)]
        known = (
            {word for row in rows for word in ranks([row[name] for name in names])} if search.typos else ()
        )
        widened = search.widened(known)
        found = [_clone(row) | {SCORE.name: score} for row in rows if (score := widened.score(row))]
        for sort in reversed(search.order):
            found.sort(key=_sort_key(sort), reverse=sort.descending)
        if search.after is not None:
            score, id = search.after
            found = [row for row in found if (-row[SCORE.name], row["id"]) > (-score, id)]
        return found[: search.limit]

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        """Return the groups of ``aggregation``."""
        rows = self._visible(context, aggregation.collection, aggregation.deleted)
        groups = grouped(aggregation, [row for row in rows if holds(aggregation.filter, row)])
        for sort in reversed(aggregation.order):
            groups.sort(key=_sort_key(sort), reverse=sort.descending)
        return groups[: aggregation.limit]

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
    async def transaction(
        self, context: Context, isolation: Isolation | None = None
    ) -> AsyncIterator[Executor]:
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
            return [self._limited(context, write) for write in writes]
        except BaseException:
            self._tables = before
            raise

    # -- counting

    async def counted(self, tenant_id: str) -> list[Count]:
        """Return what there is; nothing is counted beforehand."""
        return self._counts(tenant_id)

    async def recount(self, tenant_id: str) -> list[Count]:
        """There is no counter that could be wrong."""
        return []

    async def prepare_counting(self) -> list[str]:
        """There is nothing that is not counted."""
        return []

    def _counts(self, tenant_id: str) -> list[Count]:
        return [
            Count(name, len(rows), sum(map(_size, rows.values())))
            for (name, tenant), rows in self._tables.items()
            if tenant == tenant_id and not name.startswith("tenantry_")
        ]

    def _limited(self, context: Context, write: Write) -> list[Record]:
        """Do one write, unless it makes the tenant exceed what it may use."""
        plan, limits = self._limits(context)
        if not limits:
            return [_clone(row) for row in self._write(context, write)]
        tenant = str(context.tenant_id)
        before = amounts(self._counts(tenant))
        records = [_clone(row) for row in self._write(context, write)]
        check_growth(before, amounts(self._counts(tenant)), limits, tenant_id=tenant, plan=plan)
        return records

    def _limits(self, context: Context) -> tuple[str | None, Record]:
        """Return the plan of the tenant, and what it may use of what."""
        row = self._tables.get((TENANTS, None), {}).get(context.tenant_id)
        if row is None or isinstance(context, SystemContext):
            return None, {}
        plans = self._tables.get((PLANS.name, None), {})
        quotas = {name: plan["quotas"] for name, plan in plans.items()}
        return row["plan"], stored_limits(row["plan"], quotas, row["quotas"])

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
            single = isinstance(write, Insert | Update | Upsert) and not added
            if single and not self._limits(context)[1]:
                # It changes one row at its very end, so that nothing has to be put back.
                rows = [_clone(row) for row in self._write(context, write)]
            else:
                rows = self._unit(context, [write, *added])[0]
        except REFUSALS as error:
            return error
        return rows[0] if rows else None

    def _visible(
        self, context: Context, collection: Collection, deleted: Deleted = "without"
    ) -> list[Record]:
        """Return the rows that the context may read, themselves."""
        return [row for row in self._reachable(context, collection) if _meant(collection, row, deleted)]

    def _reachable(self, context: Context, collection: Collection) -> list[Record]:
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
        check_rights(context, collection, write=write)
        if isinstance(context, SystemContext):
            if write and collection.scope == "tenant" and not administers(context, collection):
                raise IsolationError(
                    "The system does not write rows of tenants; use the tenant's own handle."
                )
            if collection.scope == "tenant":
                tenant = context.tenant_id
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
        if isinstance(write, Discard):
            return self._discard(context, rows, write)
        current = rows.get(write.id)
        deleted = write.deleted if isinstance(write, Update) else "with"
        meant = current is not None and _meant(write.collection, current, deleted)
        if current is None or not meant or not holds(write.where, current):
            raise NotFound(write.collection.name, write.id)
        if write.expected_version not in (None, current["version"]):
            raise Conflict(
                write.collection.name,
                write.id,
                expected=write.expected_version or 0,
                current=current["version"],
            )
        if isinstance(write, Delete):
            self._delete(context, write.collection, [write.id])
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

    def _discard(self, context: Context, rows: Rows, write: Discard) -> list[Record]:
        marked = [id for id in write.ids if id in rows and _marked(write.collection, rows[id])]
        doomed = [id for id in marked if rows[id][MARK] < write.before]
        self._delete(context, write.collection, doomed)
        return [{"id": id} for id in doomed]

    def _insert(self, context: Context, collection: Collection, rows: Rows, record: Record) -> Record:
        if record["id"] in rows:
            raise UniqueViolation(collection.name, ["id"])
        return self._put(context, collection, rows, _clone(record))

    def _update(self, context: Context, write: Update, rows: Rows, current: Record) -> Record:
        changed = current | _clone(write.changes) | {"version": current["version"] + 1}
        return self._put(context, write.collection, rows, changed)

    def _upsert(self, context: Context, rows: Rows, write: Upsert) -> Record:
        key = [write.record[name] for name in write.on]
        same = [row for row in rows.values() if [row[name] for name in write.on] == key]
        taken = [row for row in same if not _marked(write.collection, row)]
        if not taken or None in key:
            return self._insert(context, write.collection, rows, write.record)
        if not holds(write.where, taken[0]):
            raise UniqueViolation(write.collection.name, write.on)
        changes = {name: write.record[name] for name in write.changes}
        return self._update(context, Update(write.collection, taken[0]["id"], changes), rows, taken[0])

    def _put(self, context: Context, collection: Collection, rows: Rows, record: Record) -> Record:
        if not _marked(collection, record):
            self._check_unique(collection, rows, record)
        for field in collection.fields.values():
            if field.ref is not None and field.ref.enforced and record[field.name] is not None:
                target = self._rows(context, self._collections[field.ref.collection])
                own = target is rows and record[field.name] == record["id"]
                if not own and record[field.name] not in target:
                    raise ReferenceViolation(collection.name, field.name)
        rows[record["id"]] = record
        return record

    def _check_unique(self, collection: Collection, rows: Rows, record: Record) -> None:
        for group in collection.unique:
            values = [record[name] for name in group]
            if None in values:
                continue
            for row in rows.values():
                equal = [row[name] for name in group] == values
                if equal and row["id"] != record["id"] and not _marked(collection, row):
                    raise UniqueViolation(collection.name, group)

    def _delete(self, context: Context, collection: Collection, ids: Sequence[Any]) -> None:
        """Delete rows and what cascades from them, unless a row that stays refers to one of them."""
        tenant = context.tenant_id if collection.scope == "tenant" else None
        doomed: list[tuple[str, str | None, Any]] = [(collection.name, tenant, id) for id in ids]
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

    async def search(self, context: Context, search: Search) -> list[Record]:
        self._check(context)
        return await self._adapter.search(context, search)

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        self._check(context)
        return await self._adapter.aggregate(context, aggregation)

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


def _marked(collection: Collection, row: Record) -> bool:
    return collection.soft and row[MARK] is not None


def _meant(collection: Collection, row: Record, deleted: Deleted) -> bool:
    return deleted == "with" or _marked(collection, row) is (deleted == "only")


def _size(record: Record) -> int:
    return len(msgspec.json.encode(record, enc_hook=str))


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
