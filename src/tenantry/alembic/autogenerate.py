"""What autogenerate finds beyond columns: renames that are marked, and tables that are not guarded as they must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from alembic.util import DispatchPriority

from tenantry.alembic.advised import keep_advised
from tenantry.alembic.declared import Declared, Key, declared_in
from tenantry.alembic.filling import fill_required
from tenantry.alembic.guard import is_allowed
from tenantry.alembic.online import (
    CreateForeignKeyOnlineOp,
    CreateIndexOnlineOp,
    CreateUniqueOnlineOp,
    OnlineOp,
    RequireColumnOnlineOp,
)
from tenantry.alembic.operations import KeepGuardOp, RenameOp, guard_op
from tenantry.alembic.renames import RenameColumnOp, RenameTableOp, rename_marked
from tenantry.alembic.roles import roles_of
from tenantry.alembic.security import guarded_as, unguarded
from tenantry.alembic.words import index_words
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.databases.postgres.policies import TENANT_COLUMN
from tenantry.errors import ConfigurationError, MigrationRefused
from tenantry.schema import CARRIED

_SAVEPOINT: Final = "tenantry_savepoint"
_OWN: Final = PostgresDialect.schema


@comparators.dispatch_for("schema", priority=DispatchPriority.FIRST)
def before(context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None]) -> None:
    """Look at the SDK's own schema too, and rename what is marked, so that the rest is compared by its new names."""
    declared = declared_in(context.metadata)
    if declared is None:
        return
    if declared.database != context.dialect.name:
        raise ConfigurationError(
            f"The metadata is for {declared.database}, and the database is {context.dialect.name}.",
            field="database",
            fix=f'Write tenantry.alembic.metadata(models, database="{context.dialect.name}").',
        )
    if declared.database == "postgresql":
        schemas.add(_OWN)
    assert context.connection is not None
    context.opts[_SAVEPOINT] = context.connection.begin_nested()
    upgrade.ops.extend(rename_marked(context.migration_context, declared))


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def after(context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None]) -> None:
    """Refuse what is ambiguous; add what guards the tables; undo the renames, which were made to compare by."""
    declared = declared_in(context.metadata)
    if declared is None:
        return
    upgrade.ops[:] = [item for item in upgrade.ops if not _foreign(item, declared)]
    _without_tenant_default(upgrade, declared)
    upgrade.ops.extend(keep_advised(list(table_ops(upgrade, declared)), declared.database))
    _check_keys(context, declared, upgrade)
    if not is_allowed(context.migration_context):
        _check_ambiguous(upgrade, declared)
    _references_first(upgrade)
    fill_required(context, upgrade, declared)
    if declared.database == "postgresql":
        _guard(context, upgrade, declared)
        _guard_again(context, upgrade)
        _online(upgrade, declared)
    index_words(upgrade, declared)
    context.opts.pop(_SAVEPOINT).rollback()


def table_ops(upgrade: ops.UpgradeOps, declared: Declared) -> Iterator[ops.ModifyTableOps]:
    """Yield the changes to tables of ours."""
    for item in upgrade.ops:
        if isinstance(item, ops.ModifyTableOps) and (item.schema, item.table_name) in declared.tables:
            yield item


def _foreign(item: MigrateOperation, declared: Declared) -> bool:
    """Whether an operation is about a table in our schema that no revision makes, such as the seal's keys."""
    if not isinstance(item, ops.ModifyTableOps | ops.DropTableOp) or item.schema != _OWN:
        return False
    return (item.schema, item.table_name) not in declared.tables


def _without_tenant_default(upgrade: ops.UpgradeOps, declared: Declared) -> None:
    """The default of the tenant's column is the guard's, and compared there."""
    for table in table_ops(upgrade, declared):
        for item in list(table.ops):
            if isinstance(item, ops.AlterColumnOp) and item.column_name == TENANT_COLUMN:
                item.modify_server_default = False
                if not item.has_changes():
                    table.ops.remove(item)


def _references_first(upgrade: ops.UpgradeOps) -> None:
    """Drop references before the tables that they refer to; on the way down they come back last."""
    first: list[MigrateOperation] = []
    for table in upgrade.ops:
        if isinstance(table, ops.ModifyTableOps):
            gone = [item for item in table.ops if _is_reference(item)]
            table.ops[:] = [item for item in table.ops if not _is_reference(item)]
            first += [ops.ModifyTableOps(table.table_name, gone, schema=table.schema)] if gone else []
    names = [item for item in upgrade.ops if isinstance(item, RenameTableOp | RenameColumnOp | RenameOp)]
    rest = [item for item in upgrade.ops if item not in names and not _is_empty(item)]
    upgrade.ops[:] = [*names, *first, *rest]


def _is_reference(item: MigrateOperation) -> bool:
    return isinstance(item, ops.DropConstraintOp) and item.constraint_type == "foreignkey"


def _created(upgrade: ops.UpgradeOps) -> set[Key]:
    return {(item.schema, item.table_name) for item in upgrade.ops if isinstance(item, ops.CreateTableOp)}


def _check_keys(context: AutogenContext, declared: Declared, upgrade: ops.UpgradeOps) -> None:
    """Alembic compares no primary keys, and ours say whose the rows are."""
    created = _created(upgrade)
    for (schema, name), table in declared.tables.items():
        if (schema, name) in created:
            continue
        found = context.inspector.get_pk_constraint(name, schema=schema)["constrained_columns"]
        wanted = [column.name for column in table.primary_key.columns]
        if found != wanted:
            raise MigrationRefused(
                f"The key of {name} is ({', '.join(found)}), and the model declares ({', '.join(wanted)}).",
                fix="Make a new collection and copy the rows; whose a table's rows are does not change in place.",
            )


def _check_ambiguous(upgrade: ops.UpgradeOps, declared: Declared) -> None:
    """One away and one anew may be a rename; it is marked, never guessed."""
    for table in table_ops(upgrade, declared):
        added = [item.column.name for item in table.ops if isinstance(item, ops.AddColumnOp)]
        dropped = [item.column_name for item in table.ops if isinstance(item, ops.DropColumnOp)]
        if added and dropped:
            raise _ambiguous(
                f"{table.table_name} loses {', '.join(dropped)} and gains {', '.join(added)}",
                f'{added[0]}: Annotated[…, RenamedFrom("{dropped[0]}")]',
            )
    created = [
        name for schema, name in _created(upgrade) if schema is None and (schema, name) in declared.tables
    ]
    gone = [item.table_name for item in upgrade.ops if isinstance(item, ops.DropTableOp) and _is_model(item)]
    if created and gone:
        raise _ambiguous(
            f"The table {', '.join(sorted(gone))} is dropped and {', '.join(sorted(created))} is made",
            f'__renamed_from__ = "{gone[0]}"',
        )


def _ambiguous(what: str, marker: str) -> MigrationRefused:
    return MigrationRefused(
        f"{what}: that may be a rename, and dropping would lose the values.",
        fix=f"If it is one, mark it: {marker}. If not, make one revision for what goes and another for what comes, or "
        "repeat with --allow-destructive.",
    )


def _is_model(item: ops.DropTableOp) -> bool:
    """Whether the table that is dropped was one of a model."""
    names = {column.name for column in item.to_table().columns}
    return names >= CARRIED


def _guard(context: AutogenContext, upgrade: ops.UpgradeOps, declared: Declared) -> None:
    assert context.connection is not None
    created = _created(upgrade)
    expected = declared.expected()
    found = unguarded(context.connection, expected.values(), roles_of(context.migration_context))
    wanted = [table for key, table in expected.items() if key in created or table in found]
    upgrade.ops.extend(guard_op(table) for table in wanted)


def _guard_again(context: AutogenContext, upgrade: ops.UpgradeOps) -> None:
    """Let the way down guard a table that it makes again, before anybody can use it."""
    assert context.connection is not None
    roles = roles_of(context.migration_context)
    kept: list[MigrateOperation] = []
    for item in upgrade.ops:
        if isinstance(item, ops.DropTableOp):
            expected = guarded_as(context.connection, item.schema, item.table_name, roles)
            kept += [KeepGuardOp(expected)] if expected is not None else []
        kept.append(item)
    upgrade.ops[:] = kept


def _online(upgrade: ops.UpgradeOps, declared: Declared) -> None:
    """Turn what would keep writers waiting into its online form, at the end."""
    created = _created(upgrade)
    for table in table_ops(upgrade, declared):
        if (table.schema, table.table_name) not in created:
            table.ops[:] = [changed for item in table.ops for changed in _online_form(item)]
    later = [
        item for table in table_ops(upgrade, declared) for item in table.ops if isinstance(item, OnlineOp)
    ]
    for table in table_ops(upgrade, declared):
        table.ops[:] = [item for item in table.ops if not isinstance(item, OnlineOp)]
    upgrade.ops[:] = [item for item in upgrade.ops if not _is_empty(item)]
    later.sort(key=lambda item: isinstance(item, CreateForeignKeyOnlineOp))  # they need the keys of others
    upgrade.ops.extend(later)


def _is_empty(item: MigrateOperation) -> bool:
    return isinstance(item, ops.ModifyTableOps) and not item.ops


def _online_form(item: Any) -> Iterable[MigrateOperation]:
    if isinstance(item, ops.CreateIndexOp):
        return [CreateIndexOnlineOp(item)]
    if isinstance(item, ops.CreateUniqueConstraintOp):
        return [CreateUniqueOnlineOp(item)]
    if isinstance(item, ops.CreateForeignKeyOp):
        return [CreateForeignKeyOnlineOp(item)]
    if isinstance(item, ops.AlterColumnOp) and item.modify_nullable is False:
        required = ops.AlterColumnOp(
            item.table_name,
            item.column_name,
            schema=item.schema,
            existing_type=item.modify_type or item.existing_type,
            existing_nullable=True,
            modify_nullable=False,
        )
        item.modify_nullable = None
        return [*([item] if item.has_changes() else []), RequireColumnOnlineOp(required)]
    return [item]
