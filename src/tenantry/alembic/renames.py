"""Renames: what is marked in the models becomes ``ALTER … RENAME``, with the names of keys and indexes that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations, ops
from alembic.runtime.migration import MigrationContext

from tenantry.alembic.declared import Declared, Key
from tenantry.alembic.operations import RenameConstraintOp, RenameIndexOp
from tenantry.databases._tables import rank_column, word_table
from tenantry.searching import searchable_fields


class RenameTableOp(ops.RenameTableOp):
    """Alembic's, with a way back."""

    def reverse(self) -> RenameTableOp:
        """Return the way back."""
        return RenameTableOp(self.new_table_name, self.table_name, schema=self.schema)

    def to_diff_tuple(self) -> tuple[str, str, str]:
        """Return what ``alembic check`` prints."""
        return ("rename_table", self.table_name, self.new_table_name)


class RenameColumnOp(ops.AlterColumnOp):
    """Alembic's, with a way back."""

    def reverse(self) -> RenameColumnOp:
        """Return the way back."""
        return RenameColumnOp(
            self.table_name,
            str(self.modify_name),
            schema=self.schema,
            modify_name=self.column_name,
            existing_type=self.existing_type,
            existing_nullable=self.existing_nullable,
        )

    def to_diff_tuple(self) -> Any:
        """Return what ``alembic check`` prints."""
        return ("rename_column", self.table_name, self.column_name, self.modify_name)


def rename_marked(context: MigrationContext, declared: Declared) -> list[MigrateOperation]:
    """Rename what is marked and has its former name still, and return the operations that did."""
    assert context.connection is not None
    done: list[MigrateOperation] = []
    operations = Operations(context)
    for key, collection in declared.collections.items():
        done += _run(operations, _table(sa.inspect(context.connection), key, collection.renamed_from))
        marked = {
            field.name: field.renamed_from for field in collection.fields.values() if field.renamed_from
        }
        done += _run(operations, _columns(sa.inspect(context.connection), key, marked))
    for key, collection in declared.words.items():
        former = word_table(collection.renamed_from) if collection.renamed_from else None
        done += _run(operations, _table(sa.inspect(context.connection), key, former))
        marked = {
            rank_column(field.name): rank_column(field.renamed_from)
            for field in searchable_fields(collection)
            if field.renamed_from
        }
        done += _run(operations, _columns(sa.inspect(context.connection), key, marked))
    if done and declared.database == "postgresql":
        for key in (*declared.collections, *declared.words):
            done += _run(operations, _names(sa.inspect(context.connection), declared.tables[key]))
    return done


def _run(operations: Operations, renames: Iterator[MigrateOperation]) -> list[MigrateOperation]:
    found = list(renames)
    for rename in found:
        operations.invoke(rename)
    return found


def _table(inspector: sa.Inspector, key: Key, former: str | None) -> Iterator[MigrateOperation]:
    schema, name = key
    if former and not inspector.has_table(name, schema) and inspector.has_table(former, schema):
        yield RenameTableOp(former, name, schema=schema)


def _columns(inspector: sa.Inspector, key: Key, marked: Mapping[str, str]) -> Iterator[MigrateOperation]:
    """Yield renames of columns, of which ``marked`` has the former name of each."""
    schema, name = key
    if not marked or not inspector.has_table(name, schema):
        return
    found = {column["name"]: column for column in inspector.get_columns(name, schema)}
    for column, former in marked.items():
        if former in found and column not in found:
            yield RenameColumnOp(
                name,
                former,
                schema=schema,
                modify_name=column,
                existing_type=found[former]["type"],
                existing_nullable=found[former]["nullable"],
            )


def _names(inspector: sa.Inspector, table: sa.Table) -> Iterator[MigrateOperation]:
    """Yield renames of what has the columns of a declared key, reference or index, and another name."""
    if not inspector.has_table(table.name, table.schema):
        return
    for kind, columns, name in _found(inspector, table):
        wanted = _wanted(table).get((kind, columns))
        if wanted and name and wanted != name and name not in _wanted(table).values():
            rename = RenameIndexOp if kind == "index" else RenameConstraintOp
            yield rename(table.name, name, wanted, table.schema)


def _found(inspector: sa.Inspector, table: sa.Table) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    name, schema = table.name, table.schema
    key = inspector.get_pk_constraint(name, schema)
    yield "key", tuple(key["constrained_columns"]), key["name"]
    for unique in inspector.get_unique_constraints(name, schema):
        yield "unique", tuple(unique["column_names"]), unique["name"]
    for reference in inspector.get_foreign_keys(name, schema):
        yield "reference", tuple(reference["constrained_columns"]), reference["name"]
    for index in inspector.get_indexes(name, schema):
        if not index.get("duplicates_constraint"):
            yield "index", tuple(str(column) for column in index["column_names"]), index["name"]


def _wanted(table: sa.Table) -> dict[tuple[str, tuple[str, ...]], str]:
    kinds = {
        sa.PrimaryKeyConstraint: "key",
        sa.UniqueConstraint: "unique",
        sa.ForeignKeyConstraint: "reference",
    }
    wanted = {
        (kinds[type(item)], tuple(column.name for column in item.columns)): str(item.name)
        for item in table.constraints
        if isinstance(item, sa.schema.ColumnCollectionConstraint) and type(item) in kinds
    }
    for index in table.indexes:
        wanted["index", tuple(column.name for column in index.columns)] = str(index.name)
    return wanted
