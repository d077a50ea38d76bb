"""Databases that leak, each in one way, to prove that the checks would see it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from tenantry.aggregation import Aggregation
from tenantry.config import DatabaseConfig
from tenantry.context import Context, SystemContext
from tenantry.databases.memory import MemoryAdapter
from tenantry.errors import NotFound, ReferenceViolation, UniqueViolation
from tenantry.ports import Delete, Insert, Isolation, Purge, Update, Upsert, Write
from tenantry.query import And, Query
from tenantry.schema import Collection
from tenantry.searching import Search
from tenantry.types import Record

T = TypeVar("T")

# which guard is taken out -> what the check must say
LEAKS = {
    "fetch": "teams: .*tenant A gets a row of B by id",
    "select": "teams: tenant A reads rows of B by no filter",
    "count": "teams: tenant A counts rows of B by no filter",
    "aggregate": "teams: tenant A aggregates rows of B",
    "search": "teams: tenant A finds rows of B by search",
    "filters by or": "teams: tenant A reads rows of B by or",
    "update": "teams: tenant A updates a row of B",
    "delete": "tenant A deletes a row of B",
    "upsert": "teams: tenant A changed rows of B",
    "insert hears of ids": "teams: tenant B hears of another's values",
    "insert hears of values": "teams: tenant B hears of another's values",
    "missing rows are told apart": "teams: tenant A updates a row of B: the error tells it from a missing one",
    "references": "items: tenant A refers to a row of B through team_id",
    "references are told apart": "through team_id: the error tells it from a missing one",
    "shared rows are written": "plans: a tenant creates shared rows",
    "purge": "teams: purging A took rows of B",
    "transaction": "teams: .* in a transaction",
}


class LeakyAdapter(MemoryAdapter):
    """The memory database with one guard taken out: the one that `leak` names."""

    leak = ""

    def __init__(self, config: DatabaseConfig | None = None) -> None:
        super().__init__(config)
        self._open = False  # whether reads reach every tenant's rows right now

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        return await self._leaking(self.leak == "fetch", super().fetch(context, collection, ids))

    async def select(self, context: Context, query: Query) -> list[Record]:
        if self.leak == "filters by or":
            # The classic: WHERE tenant_id = … AND a OR b, without the parentheses.
            is_or = not isinstance(query.filter, And) and hasattr(query.filter, "items")
            return await self._leaking(is_or, super().select(context, query))
        return await self._leaking(self.leak == "select", super().select(context, query))

    async def search(self, context: Context, search: Search) -> list[Record]:
        return await self._leaking(self.leak == "search", super().search(context, search))

    async def count(self, context: Context, query: Query) -> int:
        return await self._leaking(self.leak == "count", super().count(context, query))

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        return await self._leaking(self.leak == "aggregate", super().aggregate(context, aggregation))

    async def _leaking(self, leaks: bool, call: Awaitable[T]) -> T:
        self._open = leaks
        try:
            return await call
        finally:
            self._open = False

    def _reachable(self, context: Context, collection: Collection) -> list[Record]:
        rows = super()._reachable(context, collection)
        if self._open and collection.scope == "tenant" and not isinstance(context, SystemContext):
            rows = rows + [row for other in self._others(context, collection) for row in other.values()]
        return rows

    def _others(self, context: Context, collection: Collection) -> list[dict[Any, Record]]:
        return [
            rows
            for (name, tenant), rows in self._tables.items()
            if name == collection.name and tenant not in (None, context.tenant_id)
        ]

    def _write(self, context: Context, write: Write) -> list[Record]:
        if isinstance(context, SystemContext):
            if isinstance(write, Purge) and self.leak == "purge":
                for rows in self._others(context, write.collection):
                    rows.clear()
            return super()._write(context, write)
        if self.leak == "shared rows are written" and write.collection.scope == "shared":
            return super()._write(SystemContext("leak"), write)
        for rows in self._others(context, write.collection):
            self._spill(write, rows)
        try:
            return super()._write(context, write)
        except NotFound as error:
            foreign = any(error.id in rows for rows in self._others(context, write.collection))
            if not foreign:
                raise
            return self._reached(context, write, error)
        except ReferenceViolation:
            return self._referred(context, write)

    def _spill(self, write: Write, rows: dict[Any, Record]) -> None:
        """What another tenant's rows do to an insert."""
        if isinstance(write, Upsert) and self.leak == "upsert" and write.record["id"] in rows:
            rows[write.record["id"]] = {**rows[write.record["id"]], "version": 99}
        if not isinstance(write, Insert):
            return
        for record in write.records:
            if self.leak == "insert hears of ids" and record["id"] in rows:
                raise UniqueViolation(write.collection.name, ["id"])
            for group in write.collection.unique if self.leak == "insert hears of values" else ():
                taken = any(all(row[name] == record[name] for name in group) for row in rows.values())
                if taken and all(record[name] is not None for name in group):
                    raise UniqueViolation(write.collection.name, group)

    def _reached(self, context: Context, write: Write, error: NotFound) -> list[Record]:
        """What becomes of a write to a row that another tenant has."""
        if self.leak == "missing rows are told apart":
            raise NotFound(write.collection.name, f"{error.id} of yours") from None
        for rows in self._others(context, write.collection):
            if isinstance(write, Delete) and self.leak == "delete" and write.id in rows:
                del rows[write.id]
                return []
            if isinstance(write, Update) and self.leak == "update" and write.id in rows:
                rows[write.id] = {**rows[write.id], "version": rows[write.id]["version"] + 1}
                return [rows[write.id]]
        raise error

    def _referred(self, context: Context, write: Write) -> list[Record]:
        """What becomes of a reference to a row that is not the tenant's."""
        if isinstance(write, Insert) and self.leak == "references":
            return self._dangling(context, write)
        if not isinstance(write, Update):
            raise ReferenceViolation(write.collection.name)
        for field in write.collection.fields.values():
            if field.ref is None or field.name not in write.changes:
                continue
            target = self._collections[field.ref.collection]
            if not any(write.changes[field.name] in rows for rows in self._others(context, target)):
                continue
            if self.leak == "references are told apart":
                raise ReferenceViolation(write.collection.name, f"{field.name} of another")
            if self.leak == "references":
                rows = self._rows(context, write.collection)
                row = copy.copy(rows[write.id]) | write.changes
                rows[write.id] = row
                return [row]
        raise ReferenceViolation(write.collection.name)

    def _dangling(self, context: Context, write: Insert) -> list[Record]:
        """Store a row whatever it refers to, if another tenant has that."""
        record = write.records[0]
        for field in write.collection.fields.values() if len(write.records) == 1 else ():
            if field.ref is None:
                continue
            target = self._collections[field.ref.collection]
            if any(record[field.name] in rows for rows in self._others(context, target)):
                self._rows(context, write.collection)[record["id"]] = copy.copy(record)
                return [record]
        raise ReferenceViolation(write.collection.name)

    def transaction(self, context: Context, isolation: Isolation | None = None) -> Any:
        return _LeakyTransaction(self, super().transaction(context, isolation), context)


class _LeakyTransaction:
    """Reads through the database itself, with every row in reach."""

    def __init__(self, adapter: LeakyAdapter, inner: Any, context: Context) -> None:
        self._adapter = adapter
        self._inner = inner
        self._context = context

    async def __aenter__(self) -> Any:
        executor = await self._inner.__aenter__()
        if self._adapter.leak == "transaction" and not isinstance(self._context, SystemContext):
            inner = executor._adapter
            original = inner._reachable

            def everything(context: Context, collection: Collection) -> list[Record]:
                rows: list[Record] = original(context, collection)
                if collection.scope == "tenant":
                    rows = rows + [
                        r for other in self._adapter._others(context, collection) for r in other.values()
                    ]
                return rows

            inner._reachable = everything
        return executor

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)
