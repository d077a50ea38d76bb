"""Many writes in one statement: the values of each column travel as one array, and ``unnest`` makes rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from tenantry.context import Context
from tenantry.databases._sql import Compiler, Statement, Step
from tenantry.ports import Delete, Insert, Update, Upsert
from tenantry.query import Deleted
from tenantry.schema import TENANT, Collection, Field, Kind
from tenantry.types import Record

_GIVEN = Field("given", Kind.BOOL)
_IN_COMMON = frozenset({"version", "created_at", "updated_at"})


class BulkCompiler(Compiler):
    """Compiles many writes of one kind to one collection as one statement."""

    def insert_many(self, context: Context, writes: Sequence[Insert]) -> Step:
        """Compile the insert of each write's one record; the server takes them in their order."""
        collection = writes[0].collection
        key = ("insert many", collection.name)
        return self._from_records(context, collection, key, [write.records[0] for write in writes], None)

    def upsert_many(self, context: Context, writes: Sequence[Upsert]) -> Step:
        """Compile upserts that agree in ``on`` and ``changes``, and of which no two meet one row."""
        first = writes[0]
        key = ("upsert many", first.collection.name, first.on, first.changes)
        return self._from_records(context, first.collection, key, [write.record for write in writes], first)

    def update_many(self, context: Context, writes: Sequence[Update]) -> Step:
        """Compile updates of different rows; the statement yields those rows that were there in their version."""
        collection = writes[0].collection
        self._check(context, collection, write=True)
        names = tuple(dict.fromkeys(name for write in writes for name in write.changes))
        partial = tuple(name for name in names if not all(name in write.changes for write in writes))
        versioned = any(write.expected_version is not None for write in writes)
        key = ("update many", collection.name, names, partial, versioned)  # of rows that live
        statement = self._statements.get(key)
        if statement is None:
            statement = self._update_statement(key, collection, names, partial, versioned)
        columns = [self._ids(collection, writes)]
        for name in names:
            column = [write.changes.get(name) for write in writes]
            columns.append(self._encoded(collection, collection.fields[name], column))
        columns += [[name in write.changes for write in writes] for name in partial]
        if versioned:
            columns.append([write.expected_version for write in writes])
        return Step(statement, statement.pick((context.tenant_id, *columns)))

    def delete_many(self, context: Context, writes: Sequence[Delete]) -> Step:
        """Compile deletes of different rows; the statement yields the ids of those that were there."""
        collection = writes[0].collection
        self._check(context, collection, write=True)
        key = ("delete many", collection.name)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            given = self._given([collection.key, collection.fields["version"]])
            built: Any = self._matching(sa.delete(table), collection, given.c.p0, given.c.p1, "with")
            built = built.returning(table.c.id)
            statement = self._remember(key, built, collection, (collection.key,), values=2)
        columns = [self._ids(collection, writes), [write.expected_version for write in writes]]
        return Step(statement, statement.pick((context.tenant_id, *columns)))

    # -- building blocks

    def _from_records(
        self,
        context: Context,
        collection: Collection,
        key: Any,
        records: Sequence[Record],
        upsert: Upsert | None,
    ) -> Step:
        self._check(context, collection, write=True)
        fields = tuple(collection.fields.values())
        columns = [list(map(itemgetter(field.name), records)) for field in fields]
        # Rows that are made together have these in common: one value in place of an array of it.
        same = tuple(
            field.name in _IN_COMMON and column.count(column[0]) == len(column)
            for field, column in zip(fields, columns, strict=True)
        )
        statement = self._statements.get((key, same))
        if statement is None:
            built = self._insert_from(collection, fields, same)
            if upsert is not None:
                built = self._on_conflict(built, collection, upsert)
            returned = () if upsert is None else fields
            statement = self._remember((key, same), built, collection, returned, values=len(fields))
        values = [
            column[0] if one else self._encoded(collection, field, column)
            for field, column, one in zip(fields, columns, same, strict=True)
        ]
        return Step(statement, statement.pick((context.tenant_id, *values)))

    def _insert_from(self, collection: Collection, fields: Sequence[Field], same: Sequence[bool]) -> Any:
        given = self._given([None if one else field for field, one in zip(fields, same, strict=True)])
        columns = iter(given.c)
        names = [field.name for field in fields]
        values: list[Any] = [
            self._param(field, f"p{number}") if one else next(columns)
            for number, (field, one) in enumerate(zip(fields, same, strict=True))
        ]
        if collection.scope == "tenant":
            names.insert(0, "tenant_id")
            values.insert(0, self._param(TENANT, "tenant"))
        insert = self.dialect.insert(self.tables[collection.name])
        return insert.from_select(names, sa.select(*values), include_defaults=False)

    def _update_statement(
        self,
        key: Any,
        collection: Collection,
        names: tuple[str, ...],
        partial: tuple[str, ...],
        versioned: bool,
    ) -> Statement:
        table, fields = self.tables[collection.name], collection.fields
        given = self._given(
            [
                fields["id"],
                *(fields[name] for name in names),
                *(_GIVEN for _ in partial),
                *([fields["version"]] if versioned else []),
            ]
        )
        id, *values = given.c
        flags = dict(zip(partial, values[len(names) :], strict=False))
        changes: dict[str, Any] = {"version": table.c.version + sa.literal_column("1")}
        for name, value in zip(names, values, strict=False):
            changes[name] = sa.case((flags[name], value), else_=table.c[name]) if name in flags else value
        version = values[-1] if versioned else None
        built: Any = self._matching(sa.update(table).values(changes), collection, id, version, "without")
        built = built.returning(*(table.c[name] for name in fields))
        return self._remember(key, built, collection, tuple(fields.values()), values=len(values) + 1)

    def _matching(self, built: Any, collection: Collection, id: Any, version: Any, deleted: Deleted) -> Any:
        """Return the statement for the rows with these ids, in these versions where one is named."""
        table = self.tables[collection.name]
        built = self._scoped(built, collection, deleted=deleted)
        built = built.where(table.c.id == id)
        return built if version is None else built.where(version.is_(None) | (table.c.version == version))

    def _given(self, fields: Sequence[Field | None]) -> Any:
        """Return rows made of one array for each field; a field's column has the name of its parameter."""
        types = {
            f"p{number}": self.dialect.parameter_type(field)
            for number, field in enumerate(fields)
            if field is not None
        }
        arrays = [sa.bindparam(name, type_=postgresql.ARRAY(kind)) for name, kind in types.items()]
        columns = [sa.column(name, kind) for name, kind in types.items()]
        return sa.func.unnest(*arrays).table_valued(*columns, name="given").render_derived()

    def _ids(self, collection: Collection, writes: Sequence[Update | Delete]) -> list[Any]:
        return self._encoded(collection, collection.key, list(map(attrgetter("id"), writes)))

    def _encoded(self, collection: Collection, field: Field, values: list[Any]) -> list[Any]:
        encode = self._encoders[collection.name, field.name]
        return values if encode is None else [None if value is None else encode(value) for value in values]
