"""The operations that a revision needs for tenants' tables: ``op.isolate_table("products")`` and its like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Self

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations

from tenantry.alembic.roles import roles_of
from tenantry.databases.postgres.findings import ExpectedTable
from tenantry.databases.postgres.policies import Privilege, Reach, quote, table_name

SIGHT_POLICY: Final = "tenantry_migration"


class GuardOp(MigrateOperation):
    """Gives a table its policies, rights and triggers, anew or for the first time."""

    verb: ClassVar[str]

    def __init__(self, expected: ExpectedTable) -> None:
        self.expected = expected

    @property
    def schema(self) -> str | None:
        """The table's schema, ``None`` for the default one."""
        return None if self.expected.schema == "public" else self.expected.schema

    def reverse(self) -> MigrateOperation:
        """Return what leaves the table guarded: no downgrade opens a table."""
        return KeepGuardOp(self.expected)

    def to_diff_tuple(self) -> tuple[str, str]:
        """Return what ``alembic check`` prints."""
        return (self.verb, self.expected.name)


@Operations.register_operation("isolate_table", "isolate_table")
class IsolateTableOp(GuardOp):
    """A table of tenants' rows."""

    verb = "isolate_table"

    @classmethod
    def isolate_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        schema: str | None = None,
        raw: bool = True,
        versioned: bool = True,
        searchable: bool = False,
    ) -> None:
        """Give a table of tenants' rows its policies, grants, triggers and the default of ``tenant_id``.

        Args:
            operations: Alembic's.
            table_name: The table, which has the columns of a model.
            schema: Its schema.
            raw: Whether a user's own SQL may reach it.
            versioned: Whether it has the columns that are kept true under a user's own SQL.
            searchable: Whether the words of some of its fields are kept.
        """
        expected = ExpectedTable(schema or "public", table_name, "tenant", raw=raw, versioned=versioned)
        operations.invoke(cls(expected._replace(searchable=searchable)))


@Operations.register_operation("share_table", "share_table")
class ShareTableOp(GuardOp):
    """A table of reference data."""

    verb = "share_table"

    @classmethod
    def share_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        schema: str | None = None,
        searchable: bool = False,
    ) -> None:
        """Give a table of reference data its grants: every tenant reads it, the system writes it."""
        expected = ExpectedTable(schema or "public", table_name, "shared", searchable=searchable)
        operations.invoke(cls(expected))


@Operations.register_operation("reserve_table", "reserve_table")
class ReserveTableOp(GuardOp):
    """A table of the SDK's own."""

    verb = "reserve_table"

    @classmethod
    def reserve_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        schema: str | None = None,
        app: Sequence[Privilege] = (),
        owner: Reach | None = None,
    ) -> None:
        """Give a table of the SDK's own its policies and grants.

        Args:
            operations: Alembic's.
            table_name: The table.
            schema: Its schema.
            app: What the app role may do with the sealed tenant's rows.
            owner: How the owner's functions, which count, reach its rows: ``read`` or ``write``.
        """
        expected = ExpectedTable(schema or "public", table_name, "control", app=tuple(app), owner=owner)
        operations.invoke(cls(expected))


class KeepGuardOp(MigrateOperation):
    """Nothing: the way down leaves a table guarded, or drops it."""

    def __init__(self, expected: ExpectedTable) -> None:
        self.expected = expected

    def reverse(self) -> MigrateOperation:
        """Return the operation that guards it."""
        return guard_op(self.expected)


_OPERATIONS: dict[str, type[GuardOp]] = {
    "tenant": IsolateTableOp,
    "shared": ShareTableOp,
    "control": ReserveTableOp,
}


def guard_op(expected: ExpectedTable) -> GuardOp:
    """Return the operation that makes a table what it is expected to be."""
    return _OPERATIONS[expected.kind](expected)


@Operations.implementation_for(GuardOp)
def _guard(operations: Operations, operation: GuardOp) -> None:
    context = operations.migration_context
    if context.dialect.name != "postgresql":
        return
    expected = operation.expected
    _, hide = sight_of(expected.schema, expected.table)
    for statement in [hide, *expected.defaults(), *expected.statements(roles_of(context))]:
        context.impl.execute(verbatim(statement))


def verbatim(statement: str) -> sa.TextClause:
    """Return a statement as it is; what looks like a parameter in it is none."""
    return sa.text(statement.replace(":", "\\:"))


# --- names ---------------------------------------------------------------------------------------------------------


class RenameOp(MigrateOperation):
    """Renames a constraint or an index."""

    verb: ClassVar[str]

    def __init__(self, table: str, old: str, new: str, schema: str | None) -> None:
        self.table = table
        self.old = old
        self.new = new
        self.schema = schema

    def reverse(self) -> Self:
        """Return the way back."""
        return type(self)(self.table, self.new, self.old, self.schema)

    def to_diff_tuple(self) -> tuple[str, str, str, str]:
        """Return what ``alembic check`` prints."""
        return (self.verb, self.table, self.old, self.new)


@Operations.register_operation("rename_constraint", "rename_constraint")
class RenameConstraintOp(RenameOp):
    """Renames a constraint, and the index behind it."""

    verb = "rename_constraint"

    @classmethod
    def rename_constraint(
        cls, operations: Operations, table_name: str, old: str, new: str, *, schema: str | None = None
    ) -> None:
        """Rename a constraint, and the index behind it."""
        operations.invoke(cls(table_name, old, new, schema))


@Operations.register_operation("rename_index", "rename_index")
class RenameIndexOp(RenameOp):
    """Renames an index."""

    verb = "rename_index"

    @classmethod
    def rename_index(
        cls, operations: Operations, table_name: str, old: str, new: str, *, schema: str | None = None
    ) -> None:
        """Rename an index."""
        operations.invoke(cls(table_name, old, new, schema))


@Operations.implementation_for(RenameConstraintOp)
def _rename_constraint(operations: Operations, operation: RenameConstraintOp) -> None:
    table = table_name(operation.schema, operation.table)
    text = f"ALTER TABLE {table} RENAME CONSTRAINT {quote(operation.old)} TO {quote(operation.new)}"
    operations.migration_context.impl.execute(verbatim(text))


@Operations.implementation_for(RenameIndexOp)
def _rename_index(operations: Operations, operation: RenameIndexOp) -> None:
    index = table_name(operation.schema, operation.old)
    operations.migration_context.impl.execute(
        verbatim(f"ALTER INDEX {index} RENAME TO {quote(operation.new)}")
    )


# --- rows ----------------------------------------------------------------------------------------------------------


@Operations.register_operation("every_row", "every_row")
class EveryRowOp(MigrateOperation):
    """Lifts the policies of a table for its owner."""

    @classmethod
    def every_row(cls, operations: Operations, table_name: str, *, schema: str | None = None) -> Any:
        """In ``with``: let the migration see and change every tenant's rows of a table.

        Forced row-level security holds for the owner too, whose UPDATE finds no rows otherwise. It is lifted and set
        again in the same transaction, and nobody else uses the table meanwhile.
        """
        return every_row(operations, table_name, schema)


def sight_of(schema: str | None, table: str) -> tuple[str, str]:
    """Return what lets the owner see every row of a table, and what ends that.

    The server checks a new reference as the owner: where policies hide the rows from it, it finds no row that is wrong.
    """
    name, policy = table_name(schema, table), quote(SIGHT_POLICY)
    hide = f"DROP POLICY IF EXISTS {policy} ON {name}"
    return f"CREATE POLICY {policy} ON {name} FOR SELECT TO CURRENT_USER USING (true)", hide


@contextmanager
def every_row(operations: Operations, table: str, schema: str | None) -> Iterator[None]:
    """Lift the policies of a table for its owner."""
    if operations.migration_context.dialect.name != "postgresql":
        yield
        return
    name = table_name(schema, table)
    execute = operations.migration_context.impl.execute
    execute(verbatim(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"))
    yield  # after an error the transaction is rolled back, and with it what was lifted
    execute(verbatim(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"))
