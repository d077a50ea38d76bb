"""Changes to a table that is in use: none of them keeps others waiting for as long as it takes to read the table.

Each step is a transaction of its own, so they stand in a revision of their own, and each can be run again after a
run that was killed. On a table that this run has made, or that is empty, all is one short step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations, ops, toimpl

from tenantry.alembic.declared import Key, governs
from tenantry.alembic.guard import guard_of, has_rows
from tenantry.alembic.operations import sight_of, verbatim
from tenantry.databases.postgres.policies import quote, table_name


class OnlineOp(MigrateOperation):
    """An operation in steps.

    Attributes:
        plain: Alembic's operation with the same outcome.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    @property
    def key(self) -> Key:
        """The table."""
        table = (
            self.plain.source_table
            if isinstance(self.plain, ops.CreateForeignKeyOp)
            else self.plain.table_name
        )
        schema = (
            self.plain.kw.get("source_schema")
            if isinstance(self.plain, ops.CreateForeignKeyOp)
            else self.plain.schema
        )
        return (schema, table)

    def reverse(self) -> MigrateOperation:
        """Return the plain way back."""
        reverse: MigrateOperation = self.plain.reverse()
        return reverse

    def to_diff_tuple(self) -> Any:
        """Return what ``alembic check`` prints."""
        return self.plain.to_diff_tuple()


@Operations.register_operation("create_index_online", "create_index_online")
class CreateIndexOnlineOp(OnlineOp):
    """An index made while the table is written to."""

    @classmethod
    def create_index_online(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        columns: Sequence[str],
        *,
        unique: bool = False,
        where: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Create an index; outside of a transaction and CONCURRENTLY where the table has rows.

        Args:
            operations: Alembic's.
            index_name: Its name.
            table_name: The table.
            columns: The columns.
            unique: Whether two rows may not have the same values.
            where: The rows that are in it, as SQL; all of them by default.
            schema: The table's schema.
        """
        rows: dict[str, Any] = {} if where is None else {"postgresql_where": sa.text(where)}
        plain = ops.CreateIndexOp(index_name, table_name, list(columns), unique=unique, schema=schema, **rows)
        operations.invoke(cls(plain))

    @property
    def where(self) -> str | None:
        """The rows that are in the index, as SQL."""
        found = self.plain.kw.get("postgresql_where")
        options = {"include_table": False, "literal_binds": True}
        return None if found is None else str(found.compile(compile_kwargs=options))


@Operations.register_operation("create_unique_online", "create_unique_online")
class CreateUniqueOnlineOp(OnlineOp):
    """A unique constraint whose index is made while the table is written to."""

    @classmethod
    def create_unique_online(
        cls,
        operations: Operations,
        constraint_name: str,
        table_name: str,
        columns: Sequence[str],
        *,
        schema: str | None = None,
    ) -> None:
        """Create a unique constraint from an index that is made first, CONCURRENTLY where the table has rows."""
        plain = ops.CreateUniqueConstraintOp(constraint_name, table_name, list(columns), schema=schema)
        operations.invoke(cls(plain))


@Operations.register_operation("create_foreign_key_online", "create_foreign_key_online")
class CreateForeignKeyOnlineOp(OnlineOp):
    """A reference that is checked for the rows there are in a second step."""

    @classmethod
    def create_foreign_key_online(
        cls,
        operations: Operations,
        constraint_name: str,
        source_table: str,
        referent_table: str,
        local_cols: Sequence[str],
        remote_cols: Sequence[str],
        *,
        ondelete: str | None = None,
        source_schema: str | None = None,
        referent_schema: str | None = None,
    ) -> None:
        """Create a reference NOT VALID, then VALIDATE it, which only keeps other changes of the schema waiting."""
        plain = ops.CreateForeignKeyOp(
            constraint_name,
            source_table,
            referent_table,
            list(local_cols),
            list(remote_cols),
            ondelete=ondelete,
            source_schema=source_schema,
            referent_schema=referent_schema,
        )
        operations.invoke(cls(plain))


@Operations.register_operation("require_column_online", "require_column_online")
class RequireColumnOnlineOp(OnlineOp):
    """A column that may no longer be null, checked while the table is written to."""

    @classmethod
    def require_column_online(
        cls, operations: Operations, table_name: str, column_name: str, *, schema: str | None = None
    ) -> None:
        """Set NOT NULL, after a check constraint has been validated, so that the table is not read under a lock."""
        plain = ops.AlterColumnOp(table_name, column_name, schema=schema, modify_nullable=False)
        operations.invoke(cls(plain))


@Operations.implementation_for(OnlineOp)
def _online(operations: Operations, operation: OnlineOp) -> None:
    context = operations.migration_context
    if isinstance(operation, RequireColumnOnlineOp) and governs(context):
        column = f"{operation.key[1]}.{operation.plain.column_name}"
        if has_rows(operations, operation.key):
            guard_of(context).check(
                operation.key, f"makes {column} required, which fails where a row has no value"
            )
    if context.dialect.name != "postgresql" or not has_rows(operations, operation.key):
        operations.invoke(operation.plain)
        return
    with context.autocommit_block():
        for statement in _steps(operation):
            context.impl.execute(verbatim(statement))


def _steps(operation: OnlineOp) -> Iterator[str]:
    plain: Any = operation.plain
    schema, name = operation.key
    table = table_name(schema, name)
    if isinstance(operation, CreateIndexOnlineOp):
        columns = [getattr(column, "name", column) for column in plain.columns]
        unique, where = bool(plain.unique), operation.where
        yield from _index(schema, table, plain.index_name, columns, unique=unique, where=where)
    elif isinstance(operation, CreateUniqueOnlineOp):
        constraint = quote(plain.constraint_name)
        yield f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}"
        yield from _index(schema, table, plain.constraint_name, plain.columns, unique=True)
        yield f"ALTER TABLE {table} ADD CONSTRAINT {constraint} UNIQUE USING INDEX {constraint}"
    elif isinstance(operation, CreateForeignKeyOnlineOp):
        yield from _foreign_key(table, plain)
    else:
        yield from _required(table, name, plain.column_name)


def _index(
    schema: str | None,
    table: str,
    name: str,
    columns: Sequence[str],
    *,
    unique: bool,
    where: str | None = None,
) -> Iterator[str]:
    # A run that was killed, or met a duplicate, leaves an index that is not valid.
    yield f"DROP INDEX CONCURRENTLY IF EXISTS {table_name(schema, name)}"
    listed = ", ".join(map(quote, columns))
    kind = "UNIQUE INDEX" if unique else "INDEX"
    rows = "" if where is None else f" WHERE {where}"
    yield f"CREATE {kind} CONCURRENTLY {quote(name)} ON {table} ({listed}){rows}"


def _foreign_key(table: str, plain: ops.CreateForeignKeyOp) -> Iterator[str]:
    name = quote(str(plain.constraint_name))
    target = table_name(plain.kw.get("referent_schema"), plain.referent_table)
    local, remote = (", ".join(map(quote, columns)) for columns in (plain.local_cols, plain.remote_cols))
    ondelete = plain.kw.get("ondelete")
    action = f" ON DELETE {ondelete}" if ondelete else ""
    yield f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}"
    reference = f"FOREIGN KEY ({local}) REFERENCES {target} ({remote}){action}"
    yield f"ALTER TABLE {table} ADD CONSTRAINT {name} {reference} NOT VALID"
    sights = [sight_of(*key) for key in _ends(plain)]
    yield from (text for show, hide in sights for text in (hide, show))
    yield f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}"
    yield from (hide for _, hide in sights)


def _ends(plain: ops.CreateForeignKeyOp) -> list[Key]:
    """Return the tables at both ends of a reference."""
    source = (plain.kw.get("source_schema"), plain.source_table)
    return list(dict.fromkeys([source, (plain.kw.get("referent_schema"), plain.referent_table)]))


@Operations.implementation_for(ops.CreateForeignKeyOp)
def _create_foreign_key(operations: Operations, operation: ops.CreateForeignKeyOp) -> None:
    """Let a reference that is made in one step be checked against every row as well."""
    context = operations.migration_context
    seen = context.dialect.name == "postgresql" and governs(context)
    sights = [sight_of(*key) for key in _ends(operation)] if seen else []
    for text in (text for show, hide in sights for text in (hide, show)):
        context.impl.execute(verbatim(text))
    toimpl.create_constraint(operations, operation)
    for _, hide in sights:
        context.impl.execute(verbatim(hide))


def _required(table: str, name: str, column: str) -> Iterator[str]:
    check = quote(f"{name[:40]}_{column[:15]}_set")
    yield f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}"
    yield f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({quote(column)} IS NOT NULL) NOT VALID"
    yield f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}"
    yield f"ALTER TABLE {table} ALTER COLUMN {quote(column)} SET NOT NULL"
    yield f"ALTER TABLE {table} DROP CONSTRAINT {check}"
