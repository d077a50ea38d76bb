"""One compiler for every SQL database.

SQLAlchemy Core writes each statement once per *shape*: the same filter with other values is the same shape. Every
statement over a tenant collection carries the predicate ``tenant_id = …`` here, in one place, whatever the
database enforces below. Drivers then run the text with plain positional arguments.
"""

from __future__ import annotations

import enum
import itertools
import operator
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from tenantry.aggregation import Aggregation
from tenantry.context import Context, SystemContext
from tenantry.databases._aggregates import AggregateCompiler
from tenantry.databases._dialect import Decoder, SQLDialect
from tenantry.databases._filters import FilterCompiler
from tenantry.databases._search import SearchCompiler, concerns, word_rows
from tenantry.databases._tables import TERM, Tables
from tenantry.errors import (
    Conflict,
    IsolationError,
    NotFound,
    ReadOnlyCollection,
    UniqueViolation,
    Unsupported,
)
from tenantry.internal import administers, check_rights
from tenantry.ports import Delete, Discard, Insert, Purge, Update, Upsert, Write
from tenantry.query import EVERYTHING, And, Comparison, Deleted, Filter, Query
from tenantry.schema import MARK, TENANT, Collection, Field
from tenantry.searching import SCORE, Search
from tenantry.types import Record

_MAX_SHAPES = 2_000
_TENANT = "tenant"
_ONE: ColumnElement[int] = sa.literal_column("1")


class _Reach(enum.Enum):
    """Whose rows of a tenant collection a statement reaches."""

    TENANT = "its own"
    NARROWED = "one tenant's, for the system"
    SYSTEM = "every tenant's"


class Statement(msgspec.Struct, frozen=True):
    """A compiled statement.

    Attributes:
        text: The SQL.
        pick: Puts ``[tenant id, *values]`` into the order of the statement's parameters.
        names: The columns of the result.
        decoders: The columns whose values are decoded.
        mapping: Whether the driver's rows are mappings.
        table: The one table it names; a table of words stands for that of the rows as well.
        writes: Whether it writes to that.
    """

    text: str
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]
    names: tuple[str, ...]
    decoders: tuple[tuple[str, Decoder], ...]
    mapping: bool
    table: str
    writes: bool

    def records(self, rows: Sequence[Any]) -> list[Record]:
        """Return the driver's rows as canonical records."""
        if self.mapping:
            records = [dict(row) for row in rows]
        else:
            names = self.names
            records = [dict(zip(names, row, strict=True)) for row in rows]
        for name, decode in self.decoders:
            for record in records:
                value = record[name]
                if value is not None:
                    record[name] = decode(value)
        return records


class Step(msgspec.Struct, frozen=True):
    """One statement to run: once with ``args``, or with ``many`` once for each of them."""

    statement: Statement
    args: Any
    many: bool = False


class Compiler:
    """Compiles queries and writes over a set of collections for one dialect."""

    def __init__(self, dialect: SQLDialect, collections: Iterable[Collection]) -> None:
        self.dialect = dialect
        self.collections = {collection.name: collection for collection in collections}
        self.tables = Tables(dialect, self.collections)
        self._encoders = {
            (name, field.name): dialect.encoder(field)
            for name, collection in self.collections.items()
            for field in (*collection.fields.values(), TENANT)
        }
        columns = {name: dict(table.c) for name, table in self.tables.items()}
        self._filters = FilterCompiler(dialect, columns, self._encoders)
        self._aggregates = AggregateCompiler(dialect, self._filters)
        self._search = SearchCompiler(dialect, self.tables, self._tenant_predicate)
        self._statements: dict[Any, Statement] = {}

    # -- reading

    def fetch(
        self, context: Context, collection: Collection, ids: Sequence[Any], deleted: Deleted = "without"
    ) -> Step:
        """Compile the look-up of rows by id."""
        reach = self._check(context, collection, write=False)
        single = len(ids) == 1
        key = ("fetch", collection.name, single, reach, deleted)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            column = table.c.id
            if single:
                matches = column == self._param(collection.key, "p0")
            else:
                matches = self.dialect.any_of(column, collection.key, "p0")
            fields = tuple(collection.fields.values())
            built = self._select(collection, fields, reach, deleted).where(matches)
            statement = self._remember(key, built, collection, fields, reach)
        if single:
            encode = self._encoders[collection.name, "id"]
            value = ids[0] if encode is None else encode(ids[0])
        else:
            value = self.dialect.encode_items(collection.key, ids)
        return Step(statement, statement.pick((_tenant_of(context), value)))

    def select(self, context: Context, query: Query) -> Step:
        """Compile a query."""
        reach = self._check(context, query.collection, write=False)
        values: list[Any] = [_tenant_of(context)]
        shape = self._filters.shape(query.collection, query.filter, values)
        key = (
            "select",
            query.collection.name,
            tuple(field.name for field in query.fields),
            shape,
            tuple((sort.field.name, sort.descending) for sort in query.order),
            query.limit is not None,
            query.distinct,
            reach,
            query.deleted,
        )
        statement = self._statements.get(key)
        if statement is None:
            built = self._select(query.collection, query.fields, reach, query.deleted)
            built = built.where(self._filters.expression(query.collection, query.filter))
            table = self.tables[query.collection.name]
            for sort in query.order:
                column = table.c[sort.field.name]
                nullable = sort.field.nullable
                built = built.order_by(
                    self.dialect.order(column, descending=sort.descending, nullable=nullable)
                )
            if query.distinct:
                built = built.distinct()
            if query.limit is not None:
                built = built.limit(sa.bindparam("limit", type_=sa.BigInteger()))
            statement = self._remember(key, built, query.collection, query.fields, reach, len(values) - 1)
        if query.limit is not None:
            values.append(query.limit)
        return Step(statement, statement.pick(values))

    def count(self, context: Context, query: Query) -> Step:
        """Compile the count of the rows that meet a query's filter."""
        reach = self._check(context, query.collection, write=False)
        values: list[Any] = [_tenant_of(context)]
        key = (
            "count",
            query.collection.name,
            self._filters.shape(query.collection, query.filter, values),
            reach,
            query.deleted,
        )
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[query.collection.name]
            built = sa.select(sa.func.count().label("count")).select_from(table)
            built = self._scoped(built, query.collection, reach, query.deleted)
            built = built.where(self._filters.expression(query.collection, query.filter))
            statement = self._remember(key, built, query.collection, (), _Reach.TENANT, len(values) - 1)
        return Step(statement, statement.pick(values))

    def search(self, context: Context, search: Search) -> Step:
        """Compile a search."""
        self._check_search(context, search.collection)
        values: list[Any] = [_tenant_of(context)]
        condition = self._filters.shape(search.collection, search.filter, values)
        first = len(values) - 1
        encode = self._encoders[search.collection.name, "id"] or (lambda id: id)
        key = ("search", search.collection.name, condition, self._search.shape(search, encode, values))
        statement = self._statements.get(key)
        if statement is None:
            where = self._filters.expression(search.collection, search.filter)
            built = self._among(self._search.statement(search, where, first), search.collection)
            fields = (*search.collection.fields.values(), SCORE)
            statement = self._remember(
                key, built, search.collection, fields, values=len(values) - 1, index=True
            )
        if search.limit is not None:
            values.append(search.limit)
        return Step(statement, statement.pick(values))

    def vocabulary(self, context: Context, collection: Collection, low: str, high: str) -> Step:
        """Compile the look-up of the words from ``low`` up to ``high`` that some row of the tenant has."""
        self._check_search(context, collection)
        key = ("vocabulary", collection.name)
        statement = self._statements.get(key)
        if statement is None:
            built = self._search.vocabulary(collection)
            statement = self._remember(key, built, collection, (TERM,), values=2, index=True)
        return Step(statement, statement.pick((_tenant_of(context), low, high)))

    def _check_search(self, context: Context, collection: Collection) -> None:
        if (
            self._check(context, collection, write=False) is not _Reach.TENANT
            and collection.scope == "tenant"
        ):
            raise Unsupported("A search is a tenant's own.", fix="Search with the tenant's own handle.")

    def aggregate(self, context: Context, aggregation: Aggregation) -> Step:
        """Compile an aggregation; that of the system is over the rows of all tenants together."""
        collection = aggregation.collection
        reach = self._check(context, collection, write=False)
        values: list[Any] = [_tenant_of(context)]
        shape = self._aggregates.shape(aggregation, values)
        key = ("aggregate", collection.name, shape, reach, aggregation.deleted)
        statement = self._statements.get(key)
        if statement is None:
            built = self._aggregates.statement(aggregation, self.tables[collection.name])
            built = self._scoped(built, collection, reach, aggregation.deleted)
            if aggregation.limit is not None:
                built = built.limit(sa.bindparam("limit", type_=sa.BigInteger()))
            statement = self._remember(
                key,
                built,
                collection,
                aggregation.results,
                values=len(values) - 1,
                decoders=self._aggregates.decoders(aggregation),
            )
        if aggregation.limit is not None:
            values.append(aggregation.limit)
        return Step(statement, statement.pick(values))

    # -- writing

    def perform(self, context: Context, write: Write) -> Generator[Step, list[Any], list[Record]]:
        """Run one write without doing any I/O: yields steps, is sent their rows, returns the write's records.

        Drivers drive it, in a thread or in an event loop, inside a transaction of theirs.
        """
        records = yield from self._perform(context, write)
        if self.dialect.indexes_words and write.collection.name in self.tables.indexes:
            yield from self._index(context, write, records)
        return records

    def _index(
        self, context: Context, write: Write, records: Sequence[Record]
    ) -> Generator[Step, list[Any], None]:
        """Keep the words of the rows that were written; those of deleted rows go with them."""
        collection, tenant = write.collection, _tenant_of(context)
        if isinstance(write, Delete | Discard | Purge) or (
            isinstance(write, Update) and not concerns(collection, tuple(write.changes))
        ):
            return
        encode = self._encoders[collection.name, "id"] or (lambda id: id)
        if not isinstance(write, Insert):
            rows = [(tenant, encode(record["id"])) for record in records]
            yield self._words_step(collection, "unindex", rows)
        rows = [
            (tenant, encode(record["id"]), *row)
            for record in records
            for row in word_rows(collection, record)
        ]
        if rows:
            yield self._words_step(collection, "index", rows)

    def _words_left(self, context: Context, collection: Collection) -> Step:
        """Compile the count of a tenant's words, which went with their rows if all is well."""
        key = ("words left", collection.name)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables.indexes[collection.name]
            built = sa.select(sa.func.count().label("count")).select_from(table)
            built = built.where(self._tenant_predicate(table))
            statement = self._remember(key, built, collection, (), values=0, index=True)
        return Step(statement, statement.pick((_tenant_of(context),)))

    def _words_step(self, collection: Collection, verb: str, rows: Sequence[tuple[Any, ...]]) -> Step:
        key = (verb, collection.name)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables.indexes[collection.name]
            held = [self._tenant_predicate(table)] if collection.scope == "tenant" else []
            others = [column for column in table.c if column.name != TENANT.name]
            params = {c.name: sa.bindparam(f"p{n}", type_=c.type) for n, c in enumerate(others)}
            built: Any = sa.delete(table).where(*held, table.c.id == params["id"])
            if verb == "index":
                owner = {TENANT.name: self._param(TENANT, _TENANT)} if held else {}
                built = sa.insert(table).values(owner | params)
            statement = self._remember(key, built, collection, (), values=len(rows[0]) - 1, index=True)
        return Step(statement, [statement.pick(row) for row in rows], many=True)

    def _perform(self, context: Context, write: Write) -> Generator[Step, list[Any], list[Record]]:
        if isinstance(write, Insert):
            yield self._insert(context, write)
            return list(write.records)
        if isinstance(write, Purge):
            return (yield from self._purge(context, write))
        if isinstance(write, Upsert):
            step = self._upsert(context, write)
            stored = step.statement.records((yield step))
            if not stored:
                raise UniqueViolation(write.collection.name, write.on)
            return stored
        if isinstance(write, Discard):
            step = self._discard(context, write)
            return step.statement.records((yield step))
        step = self._update(context, write) if isinstance(write, Update) else self._delete(context, write)
        rows = yield step
        if rows:
            return step.statement.records(rows) if isinstance(write, Update) else []
        check = self._still_there(context, write)
        found = check.statement.records((yield check))
        if not found or write.expected_version is None:
            raise NotFound(write.collection.name, write.id)
        raise Conflict(
            write.collection.name, write.id, expected=write.expected_version, current=found[0]["version"]
        )

    def _still_there(self, context: Context, write: Update | Delete) -> Step:
        """Compile the look-up of a row that a write did not find at its version."""
        collection = write.collection
        deleted = write.deleted if isinstance(write, Update) else "with"
        if write.where is EVERYTHING:
            return self.fetch(context, collection, [write.id], deleted)
        within = And((Comparison(collection.key, "eq", write.id), write.where))
        version = (collection.fields["version"],)
        return self.select(context, Query(collection, version, within, deleted=deleted))

    def _insert(self, context: Context, write: Insert) -> Step:
        collection = write.collection
        self._check(context, collection, write=True)
        key = ("insert", collection.name)
        statement = self._statements.get(key)
        if statement is None:
            built = sa.insert(self.tables[collection.name]).values(self._values_of(collection))
            statement = self._remember(key, built, collection, (), _Reach.TENANT, len(collection.fields))
        tenant = _tenant_of(context)
        names = tuple(collection.fields)
        rows = [
            statement.pick((tenant, *self._encode(collection, names, record))) for record in write.records
        ]
        return Step(statement, rows[0]) if len(rows) == 1 else Step(statement, rows, many=True)

    def _update(self, context: Context, write: Update) -> Step:
        collection, versioned = write.collection, write.expected_version is not None
        self._check(context, collection, write=True)
        names = tuple(write.changes)
        within: list[Any] = []
        shape = self._filters.shape(collection, write.where, within)
        key = ("update", collection.name, names, versioned, shape, write.deleted)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            changes: dict[str, Any] = {
                name: self._param(collection.fields[name], f"p{index}") for index, name in enumerate(names)
            }
            changes["version"] = table.c.version + _ONE
            built = sa.update(table).values(changes)
            built = self._one_row(built, collection, len(names), versioned, write.where, write.deleted)
            fields = tuple(collection.fields.values())
            built = built.returning(*(table.c[field.name] for field in fields))
            number = len(names) + 1 + versioned + len(within)
            statement = self._remember(key, built, collection, fields, _Reach.TENANT, number)
        values = self._encode(collection, names, write.changes)
        given = (_tenant_of(context), *values, *self._key_values(write), *within)
        return Step(statement, statement.pick(given))

    def _delete(self, context: Context, write: Delete) -> Step:
        collection, versioned = write.collection, write.expected_version is not None
        self._check(context, collection, write=True)
        within: list[Any] = []
        key = ("delete", collection.name, versioned, self._filters.shape(collection, write.where, within))
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            built = self._one_row(sa.delete(table), collection, 0, versioned, write.where, "with")
            built = built.returning(table.c.version)
            version = (collection.fields["version"],)
            number = 1 + versioned + len(within)
            statement = self._remember(key, built, collection, version, _Reach.TENANT, number)
        return Step(statement, statement.pick((_tenant_of(context), *self._key_values(write), *within)))

    def _upsert(self, context: Context, write: Upsert) -> Step:
        collection = write.collection
        self._check(context, collection, write=True)
        within: list[Any] = []
        shape = self._filters.shape(collection, write.where, within)
        key = ("upsert", collection.name, write.on, write.changes, shape)
        statement = self._statements.get(key)
        if statement is None:
            built = self._upsert_statement(collection, write)
            fields = tuple(collection.fields.values())
            number = len(fields) + len(within)
            statement = self._remember(key, built, collection, fields, _Reach.TENANT, number)
        values = self._encode(collection, tuple(collection.fields), write.record)
        return Step(statement, statement.pick((_tenant_of(context), *values, *within)))

    def _upsert_statement(self, collection: Collection, write: Upsert) -> Any:
        insert = self.dialect.insert(self.tables[collection.name]).values(self._values_of(collection))
        return self._on_conflict(insert, collection, write)

    def _on_conflict(self, insert: Any, collection: Collection, write: Upsert) -> Any:
        """Return the insert with what it does where a row with the same ``on`` is there."""
        table = self.tables[collection.name]
        target = [table.c[name] for name in write.on]
        if collection.scope == "tenant":
            target.insert(0, table.c.tenant_id)
        changes: dict[str, Any] = {name: insert.excluded[name] for name in write.changes}
        changes["version"] = table.c.version + _ONE
        within = None
        if write.where is not EVERYTHING:
            within = self._filters.expression(
                collection, write.where, itertools.count(len(collection.fields))
            )
        live = table.c[MARK].is_(None) if collection.soft else None
        # The key is unique among all rows; the other groups are, among those that live.
        partial = None if write.on == ("id",) else live
        met = [part for part in (within, live) if part is not None]
        update = insert.on_conflict_do_update(
            index_elements=target, index_where=partial, set_=changes, where=sa.and_(*met) if met else None
        )
        return update.returning(*(table.c[name] for name in collection.fields))

    def _discard(self, context: Context, write: Discard) -> Step:
        collection, mark = write.collection, write.collection.fields[MARK]
        self._check(context, collection, write=True)
        key = ("discard", collection.name)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            built = self._scoped(sa.delete(table), collection, _Reach.TENANT, "only")
            built = built.where(self.dialect.any_of(table.c.id, collection.key, "p0"))
            built = built.where(table.c[MARK] < self._param(mark, "p1")).returning(table.c.id)
            statement = self._remember(key, built, collection, (collection.key,), values=2)
        ids = self.dialect.encode_items(collection.key, write.ids)
        before = self._encode(collection, (MARK,), {MARK: write.before})
        return Step(statement, statement.pick((_tenant_of(context), ids, *before)))

    def _purge(self, context: Context, write: Purge) -> Generator[Step, list[Any], list[Record]]:
        collection = write.collection
        if not isinstance(context, SystemContext) or not context.tenant_id or collection.scope != "tenant":
            raise IsolationError(
                "Only the system can purge, one tenant at a time, and only tenant collections."
            )
        key = ("purge", collection.name)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            built = sa.delete(table).where(self._tenant_predicate(table))
            statement = self._remember(key, built, collection, ())
        count = self.count(context, Query(collection, (), deleted="with"))
        before = (yield count)[0][0]
        yield Step(statement, statement.pick((context.tenant_id,)))
        remaining = (yield count)[0][0]
        if collection.name in self.tables.indexes:
            remaining += (yield self._words_left(context, collection))[0][0]
        return [{"deleted": before - remaining, "remaining": remaining}]

    # -- building blocks

    def _check(self, context: Context, collection: Collection, *, write: bool) -> _Reach:
        """Refuse what the context may not do with the collection. Return whose rows it reaches."""
        if collection.name not in self.tables:
            raise IsolationError(f"Collection {collection.name!r} is not registered with this database.")
        if isinstance(context, SystemContext):
            if write and collection.scope == "tenant" and not administers(context, collection):
                raise IsolationError(
                    "The system does not write rows of tenants; use the tenant's own handle."
                )
            return _Reach.SYSTEM if context.tenant_id is None else _Reach.NARROWED
        if collection.scope == "control":
            raise IsolationError(f"No tenant reaches {collection.name!r}.")
        if write and collection.scope == "shared":
            raise ReadOnlyCollection(collection.name)
        check_rights(context, collection, write=write)
        return _Reach.TENANT

    def _select(
        self, collection: Collection, fields: tuple[Field, ...], reach: _Reach, deleted: Deleted
    ) -> sa.Select[Any]:
        table = self.tables[collection.name]
        columns = [table.c[field.name] for field in fields]
        if collection.scope == "tenant" and reach is not _Reach.TENANT:
            columns.insert(0, table.c.tenant_id)
        scoped: sa.Select[Any] = self._scoped(sa.select(*columns), collection, reach, deleted)
        return scoped

    def _scoped(
        self,
        built: Any,
        collection: Collection,
        reach: _Reach = _Reach.TENANT,
        deleted: Deleted = "without",
    ) -> Any:
        """Add whose rows a statement reaches, and whether those that are marked as deleted are among them."""
        table = self.tables[collection.name]
        if collection.scope == "tenant" and reach is not _Reach.SYSTEM:
            built = built.where(self._tenant_predicate(table))
        return self._among(built, collection, deleted)

    def _among(self, built: Any, collection: Collection, deleted: Deleted = "without") -> Any:
        if collection.soft and deleted != "with":
            live = self.tables[collection.name].c[MARK].is_(None)
            built = built.where(live if deleted == "without" else sa.not_(live))
        return built

    def _tenant_predicate(self, table: sa.FromClause) -> ColumnElement[bool]:
        return table.c.tenant_id == self._param(TENANT, _TENANT)

    def _one_row(
        self,
        built: Any,
        collection: Collection,
        position: int,
        versioned: bool,
        within: Filter,
        deleted: Deleted,
    ) -> Any:
        table = self.tables[collection.name]
        built = self._scoped(built, collection, _Reach.TENANT, deleted)
        built = built.where(table.c.id == self._param(collection.key, f"p{position}"))
        if versioned:
            version = self._param(collection.fields["version"], f"p{position + 1}")
            built = built.where(table.c.version == version)
        if within is not EVERYTHING:
            built = built.where(
                self._filters.expression(collection, within, itertools.count(position + 1 + versioned))
            )
        return built

    def _values_of(self, collection: Collection) -> dict[str, Any]:
        values: dict[str, Any] = {
            field.name: self._param(field, f"p{index}")
            for index, field in enumerate(collection.fields.values())
        }
        if collection.scope == "tenant":
            values["tenant_id"] = self._param(TENANT, _TENANT)
        return values

    def _key_values(self, write: Update | Delete) -> list[Any]:
        encode = self._encoders[write.collection.name, "id"]
        values = [write.id if encode is None else encode(write.id)]
        if write.expected_version is not None:
            values.append(write.expected_version)
        return values

    def _encode(self, collection: Collection, names: Sequence[str], record: Record) -> list[Any]:
        """Return the values of ``record`` for the driver, in the order of ``names``."""
        encoders, owner = self._encoders, collection.name
        values = []
        for name in names:
            value = record[name]
            encode = encoders[owner, name]
            values.append(value if encode is None or value is None else encode(value))
        return values

    def _param(self, field: Field, name: str) -> sa.BindParameter[Any]:
        return sa.bindparam(name, type_=self.dialect.parameter_type(field))

    def _remember(
        self,
        key: Any,
        built: Any,
        collection: Collection,
        fields: tuple[Field, ...],
        reach: _Reach = _Reach.TENANT,
        values: int = 1,
        index: bool = False,
        decoders: Iterable[tuple[str, Decoder | None]] | None = None,
    ) -> Statement:
        compiled = built.compile(dialect=self.dialect.engine, compile_kwargs={"render_postcompile": True})
        positions = {_TENANT: 0, "limit": values + 1} | {f"p{index}": index + 1 for index in range(values)}
        # SQLAlchemy adds parameters of its own, such as SQLite's OFFSET 0; their values never change.
        given = values + 1 + ("limit" in compiled.params)
        constants = [name for name in compiled.params if name not in positions]
        positions |= {name: given + index for index, name in enumerate(constants)}
        order = [positions[name] for name in compiled.positiontup or ()]
        if decoders is None:
            decoders = ((field.name, self.dialect.decoder(field)) for field in fields)
        names = tuple(field.name for field in fields)
        if reach is not _Reach.TENANT and collection.scope == "tenant":
            names = ("tenant_id", *names)
        statement = Statement(
            text=str(compiled),
            pick=_picker(order, [compiled.params[name] for name in constants]),
            names=names,
            decoders=tuple((name, decode) for name, decode in decoders if decode is not None),
            mapping=self.dialect.rows_are_mappings,
            table=(self.tables.indexes if index else self.tables)[collection.name].name,
            writes=not isinstance(built, sa.Select),
        )
        if len(self._statements) >= _MAX_SHAPES:
            self._statements.clear()
        self._statements[key] = statement
        return statement


def _tenant_of(context: Context) -> str | None:
    return context.tenant_id


def _picker(order: list[int], constants: list[Any]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if constants:
        return lambda values: tuple([*values, *constants][index] for index in order)
    if len(order) > 1:
        return operator.itemgetter(*order)
    return lambda values: tuple(values[index] for index in order)
