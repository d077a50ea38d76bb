"""What loses data or isolation does not run by accident, online or offline.

An operation that does is refused unless the run allows it (``tenantry migrate upgrade --allow-destructive``, or
``alembic -x allow_destructive=1 upgrade head``), except on a table that this very run has made: it holds nobody's rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations, ops, toimpl

from tenantry.alembic.declared import Key, governs
from tenantry.databases.postgres.policies import table_name
from tenantry.errors import MigrationRefused

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

ALLOW: Final = "allow_destructive"
_STATE: Final = "tenantry_guard"
_FIX: Final = (
    "Once you are sure: tenantry migrate upgrade --allow-destructive, "
    f"or: alembic -x {ALLOW}=1 upgrade head (the same for downgrade)."
)
_TEXT: Final = re.compile(
    r"\balter\s+table\b.*?\bdrop\b(?!\s+(constraint|default|not\s+null|identity|expression)\b)|"
    r"\b(drop\s+(table|column|schema|policy|owned)|truncate|(disable|no\s+force)\s+row\s+level|"
    r"alter\s+(table\s+.*?\s)?alter\s+(column\s+)?\S+\s+(set\s+data\s+)?type)\b",
    re.IGNORECASE | re.DOTALL,
)


class Guard:
    """What one run allows, and which tables it has made.

    Attributes:
        allowed: Whether the run may lose data.
        made: The tables that it made.
    """

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self.made: set[Key] = set()
        self._reasons: list[str] = []

    @contextmanager
    def because(self, reason: str) -> Iterator[None]:
        """Name what the operations inside are for."""
        self._reasons.append(reason)
        try:
            yield
        finally:
            self._reasons.pop()

    def check(self, key: Key | None, loss: str) -> None:
        """Refuse a loss on a table.

        Args:
            key: The table, if it is known.
            loss: What happens, such as ``drops the column products.color``.

        Raises:
            MigrationRefused: The run does not allow it, and has not made the table itself.
        """
        if self.allowed or key in self.made:
            return
        reason = f" ({self._reasons[-1]})" if self._reasons and self._reasons[-1] != loss else ""
        raise MigrationRefused(f"This migration {loss}{reason}. Nothing of it was run.", fix=_FIX)


def guard_of(context: MigrationContext) -> Guard:
    """Return the guard of a run."""
    if _STATE not in context.opts:
        context.opts[_STATE] = Guard(allowed=is_allowed(context))
    guard: Guard = context.opts[_STATE]
    return guard


def is_allowed(context: MigrationContext) -> bool:
    """Whether the run was told that it may lose data."""
    config = context.config
    if config is not None and config.attributes.get(ALLOW):
        return True
    environment = context.environment_context
    given: Any = environment.get_x_argument(as_dictionary=True) if environment is not None else {}
    return str(given.get(ALLOW, "")).lower() in ("1", "true", "yes")


@Operations.register_operation("destructive", "destructive")
class DestructiveOp(MigrateOperation):
    """Says why data may be lost."""

    @classmethod
    def destructive(cls, operations: Operations, reason: str) -> Any:
        """In ``with``: say what the operations inside lose. The run must allow it nevertheless."""
        return guard_of(operations.migration_context).because(reason)


def has_rows(operations: Operations, key: Key) -> bool:
    """Whether a table may hold rows; where that cannot be known, it may.

    Row-level security hides rows from the owner, so it is the size of the table that tells.
    """
    context = operations.migration_context
    if key in guard_of(context).made:
        return False
    if context.as_sql or context.connection is None:
        return True
    if context.dialect.name != "postgresql":
        found = context.connection.scalar(
            sa.select(sa.literal(1)).select_from(sa.table(key[1], schema=key[0])).limit(1)
        )
        return found is not None
    size = sa.select(sa.func.pg_relation_size(sa.func.to_regclass(table_name(*key))))
    return bool(context.connection.scalar(size))


# --- what loses something ------------------------------------------------------------------------------------------


def loss_of(operation: MigrateOperation) -> str | None:
    """Return what an operation loses; ``None`` if it loses nothing."""
    if isinstance(operation, ops.DropTableOp):
        return f"drops the table {operation.table_name}"
    if isinstance(operation, ops.DropColumnOp):
        return f"drops the column {operation.table_name}.{operation.column_name}"
    if isinstance(operation, ops.AlterColumnOp):
        return _alteration(operation)
    if isinstance(operation, ops.ExecuteSQLOp):
        found = _TEXT.search(str(operation.sqltext))
        return None if found is None else f"runs {' '.join(found[0].split())!r}"
    return None


def _alteration(operation: ops.AlterColumnOp) -> str | None:
    column = f"{operation.table_name}.{operation.column_name}"
    new = operation.modify_type
    if new is not None and not _holds(new, operation.existing_type):
        return f"changes the type of {column} to one that may not hold its values"
    if operation.modify_nullable is False:
        return f"makes {column} required, which fails where a row has no value"
    return None


def _holds(new: sa.types.TypeEngine[Any], old: Any) -> bool:
    """Whether every value of the type ``old`` is one of ``new``."""
    if isinstance(new, sa.Numeric) and isinstance(old, sa.Numeric) and not isinstance(old, sa.Float):
        return _holds_number(new, old)
    if isinstance(new, sa.Integer) and isinstance(old, sa.Integer):
        return _width(new) >= _width(old)
    if isinstance(new, sa.String) and isinstance(old, sa.String):
        return new.length is None or (old.length is not None and new.length >= old.length)
    return False


def _holds_number(new: sa.Numeric[Any], old: sa.Numeric[Any]) -> bool:
    if isinstance(new, sa.Float):
        return False
    if new.precision is None:
        return True
    if old.precision is None:
        return False
    places, before = new.scale or 0, old.scale or 0
    return places >= before and new.precision - places >= old.precision - before


def _width(kind: sa.Integer) -> int:
    return 2 if isinstance(kind, sa.SmallInteger) else 8 if isinstance(kind, sa.BigInteger) else 4


# --- at run time ---------------------------------------------------------------------------------------------------


def _key(operation: Any) -> Key:
    return (operation.schema, operation.table_name)


def _check(operations: Operations, operation: MigrateOperation) -> None:
    context = operations.migration_context
    loss = loss_of(operation)
    if loss is None or not governs(context):
        return
    if _only_requires(operation) and not has_rows(operations, _key(operation)):
        return
    key = None if isinstance(operation, ops.ExecuteSQLOp) else _key(operation)
    guard_of(context).check(key, loss)


def _only_requires(operation: MigrateOperation) -> bool:
    return isinstance(operation, ops.AlterColumnOp) and operation.modify_type is None


@Operations.implementation_for(ops.DropTableOp, replace=True)
def _drop_table(operations: Operations, operation: ops.DropTableOp) -> None:
    _check(operations, operation)
    toimpl.drop_table(operations, operation)


@Operations.implementation_for(ops.DropColumnOp, replace=True)
def _drop_column(operations: Operations, operation: ops.DropColumnOp) -> None:
    _check(operations, operation)
    toimpl.drop_column(operations, operation)


@Operations.implementation_for(ops.AlterColumnOp, replace=True)
def _alter_column(operations: Operations, operation: ops.AlterColumnOp) -> None:
    _check(operations, operation)
    toimpl.alter_column(operations, operation)


@Operations.implementation_for(ops.ExecuteSQLOp, replace=True)
def _execute(operations: Operations, operation: ops.ExecuteSQLOp) -> None:
    _check(operations, operation)
    toimpl.execute_sql(operations, operation)


@Operations.implementation_for(ops.AddColumnOp, replace=True)
def _add_column(operations: Operations, operation: ops.AddColumnOp) -> None:
    context, column = operations.migration_context, operation.column
    bare = not column.nullable and column.server_default is None
    if bare and governs(context) and has_rows(operations, _key(operation)):
        name = f"{operation.table_name}.{column.name}"
        guard_of(context).check(
            _key(operation), f"adds the required column {name} without a value for the rows there are"
        )
    toimpl.add_column(operations, operation)


@Operations.implementation_for(ops.CreateTableOp, replace=True)
def _create_table(operations: Operations, operation: ops.CreateTableOp) -> sa.Table:
    made = toimpl.create_table(operations, operation)
    guard_of(operations.migration_context).made.add(_key(operation))
    return made


@Operations.implementation_for(ops.RenameTableOp, replace=True)
def _rename_table(operations: Operations, operation: ops.RenameTableOp) -> None:
    toimpl.rename_table(operations, operation)
    made = guard_of(operations.migration_context).made
    if _key(operation) in made:
        made.discard(_key(operation))
        made.add((operation.schema, operation.new_table_name))
