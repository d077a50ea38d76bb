"""One compiler for every SQL database.

SQLAlchemy Core writes each statement once per *shape*: the same filter with other values is the same shape. Every
statement over a tenant collection carries the predicate ``tenant_id = …`` here, in one place, whatever the
database enforces below. Drivers then run the text with plain positional arguments.
"""

from __future__ import annotations

import abc
import datetime as dt
import enum
import hashlib
import operator
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect as SADialect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.elements import ColumnElement

from tenantry.context import Context, SystemContext
from tenantry.errors import Conflict, IsolationError, NotFound, ReadOnlyCollection, SchemaError
from tenantry.ports import Delete, Insert, Purge, Update, Upsert, Write
from tenantry.query import And, Comparison, Filter, Not, Or, Query
from tenantry.schema import TENANT, Collection, Field, Kind
from tenantry.types import Record

Decoder = Callable[[Any], Any]
Encoder = Callable[[Any], Any]

_MAX_SHAPES = 2_000
_TENANT = "tenant"
_ONE: ColumnElement[int] = sa.literal_column("1")


class SQLDialect(abc.ABC):
    """What differs between SQL databases: types, the form of values, and a few operators.

    ``schema`` is the schema of the SDK's own tables, for databases that have schemas.
    """

    engine: SADialect
    schema: str | None = None
    rows_are_mappings = False
    json_types: Mapping[type, tuple[str, ...]]

    @abc.abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """Return the dialect's own insert, which knows ``on_conflict_do_update``."""

    @abc.abstractmethod
    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of the column for ``field``."""

    def parameter_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of a parameter that is compared with or stored in the column for ``field``."""
        return self.column_type(field)

    @abc.abstractmethod
    def encoder(self, field: Field) -> Encoder | None:
        """Return what turns a canonical value into what the driver takes; ``None`` if nothing has to."""

    @abc.abstractmethod
    def decoder(self, field: Field) -> Decoder | None:
        """Return the reverse of :meth:`encoder`."""

    @abc.abstractmethod
    def any_of(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """``column`` is one of the values in the one parameter ``name``, whatever their number."""

    @abc.abstractmethod
    def encode_items(self, field: Field, values: Iterable[Any]) -> Any:
        """Return the parameter for :meth:`any_of`."""

    @abc.abstractmethod
    def contains(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` holds ``value``, case and all."""

    @abc.abstractmethod
    def ends_with(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` ends with ``value``."""

    @abc.abstractmethod
    def ilike(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` matches the pattern ``value``, whatever the case."""

    @abc.abstractmethod
    def has(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """The list ``column`` has the element in parameter ``name``."""

    @abc.abstractmethod
    def encode_item(self, field: Field, value: Any) -> Any:
        """Return the parameter for :meth:`has`."""

    def json_value(self, value: Any) -> Any:
        """Return the parameter for a text, number or boolean compared with a value inside JSON."""
        return value

    @abc.abstractmethod
    def json_path(self, path: tuple[str | int, ...]) -> list[Any]:
        """Return the parameters that name a path inside a JSON value."""

    @abc.abstractmethod
    def json_at(
        self, column: ColumnElement[Any], path: tuple[str | int, ...], names: list[str]
    ) -> tuple[ColumnElement[str], Callable[[type], ColumnElement[Any]]]:
        """Return the type of the value at a path (as SQL text) and the value itself as text, number or bool."""

    def order(self, column: ColumnElement[Any], *, descending: bool, nullable: bool) -> ColumnElement[Any]:
        """Return the sort key; nulls are the greatest value."""
        key = column.desc() if descending else column.asc()
        if not nullable:
            return key
        return key.nulls_first() if descending else key.nulls_last()


class _Reach(enum.Enum):
    """Whose rows of a tenant collection a statement reaches."""

    TENANT = "its own"
    NARROWED = "one tenant's, for the system"
    SYSTEM = "every tenant's"


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement.

    Attributes:
        text: The SQL.
        pick: Puts ``[tenant id, *values]`` into the order of the statement's parameters.
        names: The columns of the result.
        decoders: The columns whose values are decoded.
        mapping: Whether the driver's rows are mappings.
        table: The one table it names.
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


@dataclass(frozen=True, slots=True)
class Step:
    """One statement to run: once with ``args``, or with ``many`` once for each of them."""

    statement: Statement
    args: Any
    many: bool = False


class Compiler:
    """Compiles queries and writes over a set of collections for one dialect."""

    def __init__(self, dialect: SQLDialect, collections: Iterable[Collection]) -> None:
        self.dialect = dialect
        self.metadata = sa.MetaData()
        self.collections = {collection.name: collection for collection in collections}
        self.tables: dict[str, sa.Table] = {}
        for collection in self.collections.values():
            self.tables[collection.name] = self._table(collection)
        self._encoders = {
            (name, field.name): dialect.encoder(field)
            for name, collection in self.collections.items()
            for field in (*collection.fields.values(), TENANT)
        }
        self._statements: dict[Any, Statement] = {}

    # -- reading

    def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> Step:
        """Compile the look-up of rows by id."""
        reach = self._check(context, collection, write=False)
        single = len(ids) == 1
        key = ("fetch", collection.name, single, reach)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            column = table.c.id
            if single:
                matches = column == self._param(collection.key, "p0")
            else:
                matches = self.dialect.any_of(column, collection.key, "p0")
            fields = tuple(collection.fields.values())
            built = self._select(collection, fields, reach).where(matches)
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
        shape = self._shape(query.collection, query.filter, values)
        key = (
            "select",
            query.collection.name,
            tuple(field.name for field in query.fields),
            shape,
            tuple((sort.field.name, sort.descending) for sort in query.order),
            query.limit is not None,
            query.distinct,
            reach,
        )
        statement = self._statements.get(key)
        if statement is None:
            built = self._select(query.collection, query.fields, reach)
            built = built.where(self._filter(query.collection, query.filter))
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
        key = ("count", query.collection.name, self._shape(query.collection, query.filter, values), reach)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[query.collection.name]
            built = sa.select(sa.func.count().label("count")).select_from(table)
            if reach is not _Reach.SYSTEM and query.collection.scope == "tenant":
                built = built.where(self._tenant_predicate(table))
            built = built.where(self._filter(query.collection, query.filter))
            statement = self._remember(key, built, query.collection, (), _Reach.TENANT, len(values) - 1)
        return Step(statement, statement.pick(values))

    # -- writing

    def perform(self, context: Context, write: Write) -> Generator[Step, list[Any], list[Record]]:
        """Run one write without doing any I/O: yields steps, is sent their rows, returns the write's records.

        Drivers drive it, in a thread or in an event loop, inside a transaction of theirs.
        """
        if isinstance(write, Insert):
            yield self._insert(context, write)
            return list(write.records)
        if isinstance(write, Purge):
            return (yield from self._purge(context, write))
        if isinstance(write, Upsert):
            step = self._upsert(context, write)
            return step.statement.records((yield step))
        step = self._update(context, write) if isinstance(write, Update) else self._delete(context, write)
        rows = yield step
        if rows:
            return step.statement.records(rows) if isinstance(write, Update) else []
        check = self.fetch(context, write.collection, [write.id])
        found = check.statement.records((yield check))
        if not found or write.expected_version is None:
            raise NotFound(write.collection.name, write.id)
        raise Conflict(
            write.collection.name, write.id, expected=write.expected_version, current=found[0]["version"]
        )

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
        key = ("update", collection.name, names, versioned)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            changes: dict[str, Any] = {
                name: self._param(collection.fields[name], f"p{index}") for index, name in enumerate(names)
            }
            changes["version"] = table.c.version + _ONE
            built = sa.update(table).values(changes)
            built = self._one_row(built, collection, len(names), versioned)
            fields = tuple(collection.fields.values())
            built = built.returning(*(table.c[field.name] for field in fields))
            statement = self._remember(
                key, built, collection, fields, _Reach.TENANT, len(names) + 1 + versioned
            )
        values = self._encode(collection, names, write.changes)
        return Step(statement, statement.pick((_tenant_of(context), *values, *self._key_values(write))))

    def _delete(self, context: Context, write: Delete) -> Step:
        collection, versioned = write.collection, write.expected_version is not None
        self._check(context, collection, write=True)
        key = ("delete", collection.name, versioned)
        statement = self._statements.get(key)
        if statement is None:
            table = self.tables[collection.name]
            built = self._one_row(sa.delete(table), collection, 0, versioned).returning(table.c.version)
            version = (collection.fields["version"],)
            statement = self._remember(key, built, collection, version, _Reach.TENANT, 1 + versioned)
        return Step(statement, statement.pick((_tenant_of(context), *self._key_values(write))))

    def _upsert(self, context: Context, write: Upsert) -> Step:
        collection = write.collection
        self._check(context, collection, write=True)
        key = ("upsert", collection.name, write.on, write.changes)
        statement = self._statements.get(key)
        if statement is None:
            built = self._upsert_statement(collection, write)
            fields = tuple(collection.fields.values())
            statement = self._remember(key, built, collection, fields, _Reach.TENANT, len(collection.fields))
        values = self._encode(collection, tuple(collection.fields), write.record)
        return Step(statement, statement.pick((_tenant_of(context), *values)))

    def _upsert_statement(self, collection: Collection, write: Upsert) -> Any:
        table = self.tables[collection.name]
        insert = self.dialect.insert(table).values(self._values_of(collection))
        target = [table.c[name] for name in write.on]
        if collection.scope == "tenant":
            target.insert(0, table.c.tenant_id)
        changes: dict[str, Any] = {name: insert.excluded[name] for name in write.changes}
        changes["version"] = table.c.version + _ONE
        update = insert.on_conflict_do_update(index_elements=target, set_=changes)
        return update.returning(*(table.c[name] for name in collection.fields))

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
        count = self.count(context, Query(collection, ()))
        before = (yield count)[0][0]
        yield Step(statement, statement.pick((context.tenant_id,)))
        remaining = (yield count)[0][0]
        return [{"deleted": before - remaining, "remaining": remaining}]

    # -- building blocks

    def _check(self, context: Context, collection: Collection, *, write: bool) -> _Reach:
        """Refuse what the context may not do with the collection. Return whose rows it reaches."""
        if collection.name not in self.tables:
            raise IsolationError(f"Collection {collection.name!r} is not registered with this database.")
        if isinstance(context, SystemContext):
            if write and collection.scope == "tenant":
                raise IsolationError(
                    "The system does not write rows of tenants; use the tenant's own handle."
                )
            return _Reach.SYSTEM if context.tenant_id is None else _Reach.NARROWED
        if collection.scope == "control":
            raise IsolationError(f"No tenant reaches {collection.name!r}.")
        if write and collection.scope == "shared":
            raise ReadOnlyCollection(collection.name)
        return _Reach.TENANT

    def _select(self, collection: Collection, fields: tuple[Field, ...], reach: _Reach) -> sa.Select[Any]:
        table = self.tables[collection.name]
        columns = [table.c[field.name] for field in fields]
        if collection.scope != "tenant":
            return sa.select(*columns)
        if reach is not _Reach.TENANT:
            columns.insert(0, table.c.tenant_id)
        if reach is _Reach.SYSTEM:
            return sa.select(*columns)
        return sa.select(*columns).where(self._tenant_predicate(table))

    def _tenant_predicate(self, table: sa.Table) -> ColumnElement[bool]:
        return table.c.tenant_id == self._param(TENANT, _TENANT)

    def _one_row(self, built: Any, collection: Collection, position: int, versioned: bool) -> Any:
        table = self.tables[collection.name]
        if collection.scope == "tenant":
            built = built.where(self._tenant_predicate(table))
        built = built.where(table.c.id == self._param(collection.key, f"p{position}"))
        if versioned:
            version = self._param(collection.fields["version"], f"p{position + 1}")
            built = built.where(table.c.version == version)
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
    ) -> Statement:
        compiled = built.compile(dialect=self.dialect.engine, compile_kwargs={"render_postcompile": True})
        positions = {_TENANT: 0, "limit": values + 1} | {f"p{index}": index + 1 for index in range(values)}
        # SQLAlchemy adds parameters of its own, such as SQLite's OFFSET 0; their values never change.
        given = values + 1 + ("limit" in compiled.params)
        constants = [name for name in compiled.params if name not in positions]
        positions |= {name: given + index for index, name in enumerate(constants)}
        order = [positions[name] for name in compiled.positiontup or ()]
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
            table=self.tables[collection.name].name,
            writes=not isinstance(built, sa.Select),
        )
        if len(self._statements) >= _MAX_SHAPES:
            self._statements.clear()
        self._statements[key] = statement
        return statement

    # -- filters: _shape collects the values, _filter names them, both in the same order

    def _shape(self, collection: Collection, node: Filter, values: list[Any]) -> Any:
        if isinstance(node, Comparison):
            return self._comparison_shape(collection, node, values)
        if isinstance(node, Not):
            return ("not", self._shape(collection, node.item, values))
        kind = "and" if isinstance(node, And) else "or"
        return (kind, *(self._shape(collection, item, values) for item in node.items))

    def _comparison_shape(self, collection: Collection, node: Comparison, values: list[Any]) -> Any:
        field = node.field
        if field.kind is Kind.JSON:
            values.extend(self.dialect.json_path(node.path))
            types = tuple(type(part) for part in node.path)
            if node.operator == "is_null":
                return (field.name, "is_null", types)
            values.append(self.dialect.json_value(node.value))
            return (field.name, node.operator, types, _json_type(node.value))
        if node.operator == "is_null":
            return (field.name, "is_null")
        if node.operator == "in":
            values.append(self.dialect.encode_items(field, node.value))
        elif node.operator == "has":
            values.append(self.dialect.encode_item(field, node.value))
        else:
            encode = self._encoders[collection.name, field.name]
            values.append(node.value if encode is None else encode(node.value))
        return (field.name, node.operator)

    def _filter(self, collection: Collection, root: Filter) -> ColumnElement[bool]:
        table = self.tables[collection.name]
        counter = iter(range(1_000_000))

        def build(node: Filter) -> ColumnElement[bool]:
            if isinstance(node, Not):
                return sa.not_(build(node.item).self_group())
            if isinstance(node, And):
                return sa.and_(sa.true(), *[build(item) for item in node.items])
            if isinstance(node, Or):
                return sa.or_(sa.false(), *[build(item) for item in node.items])
            column = table.c[node.field.name]
            if node.field.kind is Kind.JSON:
                names = [f"p{next(counter)}" for _ in self.dialect.json_path(node.path)]
                name = None if node.operator == "is_null" else f"p{next(counter)}"
                return self._json(column, node, names, name)
            if node.operator == "is_null":
                return column.is_(None)
            return self._comparison(column, node, f"p{next(counter)}")

        return build(root)

    def _comparison(self, column: ColumnElement[Any], node: Comparison, name: str) -> ColumnElement[bool]:
        if node.operator == "in":
            return self.dialect.any_of(column, node.field, name)
        if node.operator == "has":
            return self.dialect.has(column, node.field, name)
        value = self._param(node.field, name)
        compare = _COMPARE.get(node.operator)
        if compare is not None:
            return compare(column, value)  # type: ignore[no-any-return]
        method: Callable[..., ColumnElement[bool]] = getattr(self.dialect, node.operator)
        return method(column, value)

    def _json(
        self, column: ColumnElement[Any], node: Comparison, names: list[str], name: str | None
    ) -> ColumnElement[bool]:
        """A value of another type than the one compared with is unequal; a missing one is null."""
        kind, value_as = self.dialect.json_at(column, node.path, names)
        missing = sa.or_(kind.is_(None), kind == sa.literal_column("'null'"))
        if name is None:
            return missing
        wanted = _json_type(node.value)
        types: list[ColumnElement[str]] = [
            sa.literal_column(f"'{item}'") for item in self.dialect.json_types[wanted]
        ]
        value = sa.bindparam(name, type_=_JSON_SQL_TYPES[wanted])
        matches = _COMPARE[node.operator](value_as(wanted), value)
        return sa.case((missing, sa.null()), (kind.in_(types), matches), else_=sa.false())

    # -- tables

    def _table(self, collection: Collection) -> sa.Table:
        tenant = collection.scope == "tenant"
        control = collection.scope == "control" or collection.name.startswith("tenantry_")
        schema = self.dialect.schema if control else None
        columns: list[sa.schema.SchemaItem] = []
        if tenant:
            columns.append(sa.Column("tenant_id", self.dialect.column_type(TENANT), nullable=False))
        columns.extend(
            sa.Column(field.name, self.dialect.column_type(field), nullable=field.nullable)
            for field in collection.fields.values()
        )
        first = ("tenant_id",) if tenant else ()
        name = collection.name.removeprefix("tenantry_") if schema else collection.name
        columns.append(sa.PrimaryKeyConstraint(*first, "id", name=f"{name}_pkey"))
        columns.extend(
            sa.UniqueConstraint(*first, *group, name=_name(name, group, "key")) for group in collection.unique
        )
        columns.extend(self._foreign_keys(collection, first))
        table = sa.Table(name, self.metadata, *columns, schema=schema, sqlite_with_rowid=False)
        for group in collection.indexes:
            sa.Index(_name(name, group, "idx"), *(table.c[part] for part in (*first, *group)))
        return table

    def _foreign_keys(self, collection: Collection, first: tuple[str, ...]) -> list[sa.ForeignKeyConstraint]:
        keys = []
        for field in collection.fields.values():
            if field.ref is None:
                continue
            target = self.collections.get(field.ref.collection)
            if target is None:
                raise SchemaError(
                    f"{collection.name}.{field.name} refers to {field.ref.collection!r}, which is not registered.",
                    field=field.name,
                )
            if target.scope == "tenant" and collection.scope != "tenant":
                raise SchemaError(
                    f"{collection.name}.{field.name}: shared rows cannot refer to a tenant's rows."
                )
            if not field.ref.enforced:
                continue
            scoped = first if target.scope == "tenant" else ()
            keys.append(
                sa.ForeignKeyConstraint(
                    [*scoped, field.name],
                    [f"{target.name}.{name}" for name in (*scoped, "id")],
                    name=_name(collection.name, (field.name,), "fkey"),
                    ondelete="CASCADE" if field.ref.on_delete == "cascade" else None,
                )
            )
        return keys

    def ddl(self) -> list[tuple[sa.Table, list[str]]]:
        """Return what creates each table with its indexes where missing, tables referred to first."""
        script = []
        for table in self.metadata.sorted_tables:
            statements = [str(CreateTable(table, if_not_exists=True).compile(dialect=self.dialect.engine))]
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                create = CreateIndex(index, if_not_exists=True)
                statements.append(str(create.compile(dialect=self.dialect.engine)))
            script.append((table, statements))
        return script

    def differences(self, existing: dict[tuple[str | None, str], set[str]]) -> list[str]:
        """Compare the columns that exist, by (schema, table), with those declared."""
        found = []
        for table in self.metadata.sorted_tables:
            columns = existing.get((table.schema, table.name))
            if columns is None:
                found.append(f"table {table.fullname} is missing")
                continue
            declared = {column.name for column in table.columns}
            found += [f"column {table.fullname}.{name} is missing" for name in sorted(declared - columns)]
            required = columns - declared
            found += [f"column {table.fullname}.{name} is not declared" for name in sorted(required)]
        return found

    def violated(self, constraint: str) -> tuple[str, tuple[str, ...]] | None:
        """Return the collection and the fields of a constraint by its name, without the tenant."""
        for collection in self.collections.values():
            for item in self.tables[collection.name].constraints:
                if item.name == constraint and isinstance(item, sa.schema.ColumnCollectionConstraint):
                    names = tuple(column.name for column in item.columns if column.name != "tenant_id")
                    return collection.name, names
        return None


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def json_scalar(value: Any) -> Any:
    """Return a list's element as a JSON scalar; ``Field.normalise`` reads it back."""
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return msgspec.json.decode(msgspec.json.encode(value))
    return value


_JSON_SQL_TYPES: dict[type, sa.types.TypeEngine[Any]] = {
    str: sa.Text(),
    float: sa.Numeric(),
    bool: sa.Boolean(),
}


def _json_type(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else float


def _tenant_of(context: Context) -> str | None:
    return context.tenant_id


def _picker(order: list[int], constants: list[Any]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if constants:
        return lambda values: tuple([*values, *constants][index] for index in order)
    if len(order) > 1:
        return operator.itemgetter(*order)
    return lambda values: tuple(values[index] for index in order)


def _name(table: str, fields: Sequence[str], suffix: str) -> str:
    """Return a constraint name that is unique in a database, of at most 63 characters."""
    full = f"{table}_{'_'.join(fields)}_{suffix}"
    if len(full) <= 63:
        return full
    digest = hashlib.blake2b(full.encode(), digest_size=5).hexdigest()
    return f"{full[:48]}_{digest}_{suffix}"
