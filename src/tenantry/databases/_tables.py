"""Collections as tables: keys, constraints and indexes that all begin with the tenant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from tenantry.databases._dialect import SQLDialect
from tenantry.errors import SchemaError
from tenantry.ports import Index
from tenantry.schema import MARK, TENANT, Collection, Field, Kind
from tenantry.searching import searchable_fields

TERM = Field("term", Kind.TEXT)
"""The column of a table of words that has the word."""

ADVISED: Final = "adv"
"""Ends the name of an index that was made on advice, until a model declares it."""


class ExistingColumn(NamedTuple):
    """A column as the database describes it.

    Attributes:
        type: The type, in the database's own words.
        nullable: Whether it may be null.
        required: Whether an INSERT must name it.
    """

    type: str
    nullable: bool
    required: bool


Existing = Mapping[tuple[str | None, str], Mapping[str, ExistingColumn]]
"""The columns that exist, by schema and table."""


class Tables(Mapping[str, sa.Table]):
    """The table of each collection, by the collection's name."""

    def __init__(self, dialect: SQLDialect, collections: Mapping[str, Collection]) -> None:
        self._dialect = dialect
        self._collections = collections
        self.metadata = sa.MetaData()
        self._tables = {name: self._table(collection) for name, collection in collections.items()}
        self.indexes = {
            name: self._index_of(self._tables[name], fields)
            for name, collection in collections.items()
            if (fields := searchable_fields(collection))
        }
        """The table of the words of each collection that can be searched, by the collection's name."""

    def __getitem__(self, name: str) -> sa.Table:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def collection_of(self, table: sa.Table) -> Collection:
        """Return the collection whose table this is, or whose words are in it."""
        known = [*self._tables.items(), *self.indexes.items()]
        return next(self._collections[name] for name, item in known if item is table)

    def holds_words(self, table: sa.Table) -> bool:
        """Whether this is a table of words."""
        return any(index is table for index in self.indexes.values())

    def _index_of(self, table: sa.Table, fields: Sequence[Field]) -> sa.Table:
        """Return the table of the words: how much each counts in each field of each row; 0 where it is missing."""
        name = word_table(table.name)
        if name in self._collections:
            raise SchemaError(
                f"{name!r} is the table of the words of {table.name!r}.",
                field=name,
                fix="Rename the collection.",
            )
        first = ["tenant_id"] if "tenant_id" in table.c else []
        keys: list[sa.schema.SchemaItem] = [
            sa.Column(column, table.c[column].type, nullable=False) for column in (*first, "id")
        ]
        index = sa.Table(
            name,
            self.metadata,
            *keys,
            sa.Column("term", self._dialect.column_type(TERM), nullable=False),
            *(
                sa.Column(rank_column(field.name), sa.Integer(), nullable=False, server_default=sa.text("0"))
                for field in fields
            ),
            sa.PrimaryKeyConstraint(*first, "term", "id", name=f"{name}_pkey"),
            sa.ForeignKeyConstraint(
                [*first, "id"],
                [f"{table.name}.{column}" for column in (*first, "id")],
                name=f"{name}_fkey",
                ondelete="CASCADE",
            ),
            sqlite_with_rowid=False,
        )
        sa.Index(f"{name}_idx", *(index.c[column] for column in (*first, "id")))
        return index

    def _table(self, collection: Collection) -> sa.Table:
        tenant = collection.scope == "tenant"
        control = collection.scope == "control" or collection.name.startswith("tenantry_")
        schema = self._dialect.schema if control else None
        columns: list[sa.schema.SchemaItem] = []
        if tenant:
            columns.append(sa.Column("tenant_id", self._dialect.column_type(TENANT), nullable=False))
        columns.extend(
            sa.Column(field.name, self._dialect.column_type(field), nullable=field.nullable)
            for field in collection.fields.values()
        )
        first = ("tenant_id",) if tenant else ()
        name = collection.name.removeprefix("tenantry_") if schema else collection.name
        columns.append(sa.PrimaryKeyConstraint(*first, "id", name=f"{name}_pkey"))
        if not collection.soft:
            columns.extend(
                sa.UniqueConstraint(*first, *group, name=_name(name, group, "key"))
                for group in collection.unique
            )
        columns.extend(self._foreign_keys(collection, first))
        table = sa.Table(name, self.metadata, *columns, schema=schema, sqlite_with_rowid=False)
        for group in collection.unique if collection.soft else ():
            live = table.c[MARK].is_(None)
            parts = (table.c[part] for part in (*first, *group))
            sa.Index(_name(name, group, "key"), *parts, unique=True, postgresql_where=live, sqlite_where=live)
        for group in collection.indexes:
            sa.Index(_name(name, group, "idx"), *(table.c[part] for part in (*first, *group)))
        for group in collection.across:
            sa.Index(_name(name, group, "across"), *(table.c[part] for part in group))
        return table

    def _foreign_keys(self, collection: Collection, first: tuple[str, ...]) -> list[sa.ForeignKeyConstraint]:
        keys = []
        for field in collection.fields.values():
            if field.ref is None:
                continue
            target = self._collections.get(field.ref.collection)
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
            statements = [str(CreateTable(table, if_not_exists=True).compile(dialect=self._dialect.engine))]
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                create = CreateIndex(index, if_not_exists=True)
                statements.append(str(create.compile(dialect=self._dialect.engine)))
            script.append((table, statements))
        return script

    def differences(self, existing: Existing) -> list[str]:
        """Return how the tables that exist differ from those declared."""
        found = []
        for table in self.metadata.sorted_tables:
            columns = existing.get((table.schema, table.name))
            if columns is None:
                found.append(f"table {table.fullname} is missing")
                continue
            for column in table.columns:
                difference = self._difference(column, columns.get(column.name))
                found += [f"column {table.fullname}.{column.name} {difference}"] if difference else []
            strangers = sorted(name for name in columns if name not in table.columns)
            found += [
                f"column {table.fullname}.{name} is required and not declared"
                for name in strangers
                if columns[name].required
            ]
        return found

    def _difference(self, column: sa.Column[Any], existing: ExistingColumn | None) -> str | None:
        if existing is None:
            return "is missing"
        declared = _plain(column.type.compile(dialect=self._dialect.engine))
        if _plain(existing.type) != declared:
            return f"is {existing.type}, not {declared}"
        if existing.nullable is not column.nullable:
            return f"{'may' if existing.nullable else 'may not'} be null"
        return None

    def undeclared(self, existing: Existing) -> list[str]:
        """Return the tables that hold rows of tenants and belong to no collection."""
        tables = (*self._tables.values(), *self.indexes.values())
        declared = {(table.schema, table.name) for table in tables}
        return sorted(
            name
            for (schema, name), columns in existing.items()
            if TENANT.name in columns and (schema, name) not in declared
        )

    def advised(self, collection: Collection, fields: Sequence[str]) -> Index:
        """Return the index on ``fields`` under the name of one that no model declares, and that an advice made."""
        first = (TENANT.name,) if collection.scope == "tenant" else ()
        name = _name(collection.name, tuple(fields), ADVISED)
        return Index(collection.name, (*first, *fields), name)

    def violated(self, constraint: str) -> tuple[str, tuple[str, ...]] | None:
        """Return the collection and the fields of a constraint or index by its name, without the tenant."""
        for collection in self._collections.values():
            table = self._tables[collection.name]
            named: list[sa.Constraint | sa.Index] = [*table.constraints, *table.indexes]
            for item in named:
                if item.name == constraint and isinstance(
                    item, sa.schema.ColumnCollectionConstraint | sa.Index
                ):
                    names = tuple(str(column.name) for column in item.columns if column.name != "tenant_id")
                    return collection.name, names
        return None


def word_table(table: str) -> str:
    """Return the name of the table with the words of another one."""
    return f"{table}_search"


def rank_column(field: str) -> str:
    """Return the column of a table of words that says how much a word counts in a field."""
    return f"rank_{field}"


def _plain(type_name: str) -> str:
    return type_name.lower().partition(" collate ")[0].replace(", ", ",")


def _name(table: str, fields: Sequence[str], suffix: str) -> str:
    """Return a constraint name that is unique in a database, of at most 63 characters."""
    full = f"{table}_{'_'.join(fields)}_{suffix}"
    if len(full) <= 63:
        return full
    digest = hashlib.blake2b(full.encode(), digest_size=5).hexdigest()
    return f"{full[:48]}_{digest}_{suffix}"
