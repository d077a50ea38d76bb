"""A required column on a table with rows: what the rows there are shall have in it."""

from __future__ import annotations

from typing import Any

import pydantic_core
import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations, ops

from tenantry.alembic.declared import Declared, Key
from tenantry.alembic.guard import has_rows, is_allowed
from tenantry.databases._dialect import SQLDialect
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.databases.sqlite.dialect import SQLiteDialect
from tenantry.errors import InvalidRecord, MigrationRefused
from tenantry.schema import Collection, Field


@Operations.register_operation("add_filled_column", "add_filled_column")
class AddFilledColumnOp(ops.AddColumnOp):
    """A required column, with a value for the rows there are.

    Attributes:
        value: The value, as a literal's text.
    """

    def __init__(
        self, table_name: str, column: sa.Column[Any], value: str, *, schema: str | None = None
    ) -> None:
        super().__init__(table_name, column, schema=schema)
        self.value = value

    @classmethod
    def add_filled_column(
        cls,
        operations: Operations,
        table_name: str,
        column: sa.Column[Any],
        *,
        value: str,
        schema: str | None = None,
    ) -> None:
        """Add a required column. The rows there are get ``value``, without being rewritten; later ones name theirs.

        Args:
            operations: Alembic's.
            table_name: The table.
            column: The column.
            value: What the rows there are have in it, as the text of a literal.
            schema: The table's schema.
        """
        operations.invoke(cls(table_name, column, value, schema=schema))


@Operations.implementation_for(AddFilledColumnOp)
def _add_filled(operations: Operations, operation: AddFilledColumnOp) -> None:
    column = operation.column
    filled = sa.Column(column.name, column.type, nullable=False, server_default=operation.value)
    operations.invoke(ops.AddColumnOp(operation.table_name, filled, schema=operation.schema))
    without = ops.AlterColumnOp(
        operation.table_name, column.name, schema=operation.schema, modify_server_default=None
    )
    operations.invoke(without)


def fill_required(context: AutogenContext, upgrade: ops.UpgradeOps, declared: Declared) -> None:
    """Give required columns that are added the default of their field, for the rows there are.

    Raises:
        MigrationRefused: There are rows, and the field has no default.
    """
    for table in list(upgrade.ops):
        if isinstance(table, ops.ModifyTableOps) and (table.schema, table.table_name) in declared.collections:
            table.ops[:] = [_filled(context, item, declared) for item in table.ops]
            if declared.database == "sqlite":
                _in_two_batches(upgrade, table)


def _in_two_batches(upgrade: ops.UpgradeOps, table: ops.ModifyTableOps) -> None:
    """SQLite takes a default away by copying the table, which it can do once the column is there."""
    filled = [item for item in table.ops if isinstance(item, AddFilledColumnOp)]
    if not filled:
        return
    table.ops[:] = [_with_default(item) if item in filled else item for item in table.ops]
    without = [
        ops.AlterColumnOp(
            item.table_name,
            item.column.name,
            existing_type=item.column.type,
            existing_nullable=False,
            existing_server_default=sa.DefaultClause(item.value),
            modify_server_default=None,
        )
        for item in filled
    ]
    upgrade.ops.insert(upgrade.ops.index(table) + 1, ops.ModifyTableOps(table.table_name, without))


def _with_default(item: MigrateOperation) -> ops.AddColumnOp:
    assert isinstance(item, AddFilledColumnOp)
    column: sa.Column[Any] = sa.Column(
        item.column.name, item.column.type, nullable=False, server_default=item.value
    )
    return ops.AddColumnOp(item.table_name, column)


def _filled(context: AutogenContext, item: MigrateOperation, declared: Declared) -> MigrateOperation:
    if not isinstance(item, ops.AddColumnOp) or item.column.nullable:
        return item
    key = (item.schema, item.table_name)
    field = declared.field(key, item.column.name)
    value = None if field is None else literal(declared, key, field)
    if value is not None:
        return AddFilledColumnOp(item.table_name, item.column, value, schema=item.schema)
    if has_rows(Operations(context.migration_context), key) and not is_allowed(context.migration_context):
        name = f"{item.table_name}.{item.column.name}"
        raise MigrationRefused(
            f"{name} is required and has no default, and there are rows that would lack it.",
            fix="Give the field a default, which these rows get; or make it optional, and required once they have it.",
        )
    return item


def literal(declared: Declared, key: Key, field: Field) -> str | None:
    """Return the default of a field as the text of a literal; ``None`` if it has no default that is always the same."""
    collection: Collection = declared.collections[key]
    info = collection.model.model_fields[field.name]
    default = info.default
    if info.default_factory in (dict, list):
        default = info.get_default(call_default_factory=True, validated_data={})
    if default is pydantic_core.PydanticUndefined or default is None:
        return None
    dialect: SQLDialect = PostgresDialect() if declared.database == "postgresql" else SQLiteDialect()
    try:
        value = collection.normalise(field, default)
    except InvalidRecord as error:
        raise MigrationRefused(
            f"The default of {key[1]}.{field.name} cannot be stored: {error.message}",
            fix="Declare a default that the field accepts.",
        ) from error
    encode = dialect.encoder(field)
    stored = value if encode is None else encode(value)
    if isinstance(stored, bytes):
        return f"\\x{stored.hex()}" if declared.database == "postgresql" else None
    return str(stored).lower() if isinstance(stored, bool) else str(stored)
