"""How our operations stand in a revision, and how those that lose something are set apart in it."""

from __future__ import annotations

from typing import Any, Final

from alembic.autogenerate import render, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops

from tenantry.alembic.declared import declared_in
from tenantry.alembic.filling import AddFilledColumnOp
from tenantry.alembic.guard import loss_of
from tenantry.alembic.online import (
    CreateForeignKeyOnlineOp,
    CreateIndexOnlineOp,
    CreateUniqueOnlineOp,
    OnlineOp,
    RequireColumnOnlineOp,
)
from tenantry.alembic.operations import (
    IsolateTableOp,
    KeepGuardOp,
    RenameOp,
    ReserveTableOp,
    ShareTableOp,
)
from tenantry.alembic.renames import RenameTableOp
from tenantry.alembic.words import IndexWordsOp, KeepWordsOp
from tenantry.databases.postgres.policies import quote

_END: Final = ""  # what ends a block for Alembic's printer


def call(name: str, *args: Any, **options: Any) -> str:
    """Return ``op.name(…)``; options that are ``None`` are left out."""
    given = [repr(arg) for arg in args]
    given += [f"{option}={value!r}" for option, value in options.items() if value is not None]
    return f"op.{name}({', '.join(given)})"


@renderers.dispatch_for(IsolateTableOp)
def _isolate(context: AutogenContext, operation: IsolateTableOp) -> str:
    expected = operation.expected
    return call(
        "isolate_table",
        expected.table,
        schema=operation.schema,
        raw=expected.raw,
        versioned=None if expected.versioned else False,
        searchable=expected.searchable or None,
    )


@renderers.dispatch_for(ShareTableOp)
def _share(context: AutogenContext, operation: ShareTableOp) -> str:
    searchable = operation.expected.searchable or None
    return call("share_table", operation.expected.table, schema=operation.schema, searchable=searchable)


@renderers.dispatch_for(ReserveTableOp)
def _reserve(context: AutogenContext, operation: ReserveTableOp) -> str:
    expected = operation.expected
    return call(
        "reserve_table",
        expected.table,
        schema=operation.schema,
        app=list(expected.app) if expected.app else None,
        owner=expected.owner,
    )


@renderers.dispatch_for(IndexWordsOp)
def _index_words(context: AutogenContext, operation: IndexWordsOp) -> str:
    return call(
        "index_words",
        operation.table_name,
        list(operation.fields),
        schema=operation.schema,
        tenant=None if operation.tenant else False,
    )


@renderers.dispatch_for(KeepWordsOp)
@renderers.dispatch_for(KeepGuardOp)
def _keep(context: AutogenContext, operation: MigrateOperation) -> list[str]:
    return []


@renderers.dispatch_for(RenameOp)
def _rename(context: AutogenContext, operation: RenameOp) -> str:
    return call(operation.verb, operation.table, operation.old, operation.new, schema=operation.schema)


@renderers.dispatch_for(RenameTableOp)
def _rename_table(context: AutogenContext, operation: RenameTableOp) -> str:
    return call("rename_table", operation.table_name, operation.new_table_name, schema=operation.schema)


@renderers.dispatch_for(AddFilledColumnOp)
def _filled(context: AutogenContext, operation: AddFilledColumnOp) -> str:
    plain = ops.AddColumnOp(operation.table_name, operation.column, schema=operation.schema)
    text = render.render_op_text(context, plain)
    return f"{text.replace('add_column(', 'add_filled_column(', 1)[:-1]}, value={operation.value!r})"


@renderers.dispatch_for(OnlineOp)
def _online(context: AutogenContext, operation: OnlineOp) -> str:
    plain: Any = operation.plain
    if isinstance(operation, CreateIndexOnlineOp):
        columns = [getattr(column, "name", column) for column in plain.columns]
        names = (plain.index_name, plain.table_name, columns)
        options = {"unique": bool(plain.unique) or None, "where": operation.where, "schema": plain.schema}
        return call("create_index_online", *names, **options)
    if isinstance(operation, CreateUniqueOnlineOp):
        columns = [getattr(column, "name", column) for column in plain.columns]
        return call(
            "create_unique_online", plain.constraint_name, plain.table_name, columns, schema=plain.schema
        )
    assert isinstance(operation, CreateForeignKeyOnlineOp)
    names = (plain.constraint_name, plain.source_table, plain.referent_table)
    options = {name: plain.kw.get(name) for name in ("ondelete", "source_schema", "referent_schema")}
    return call(
        "create_foreign_key_online", *names, list(plain.local_cols), list(plain.remote_cols), **options
    )


@renderers.dispatch_for(RequireColumnOnlineOp)
def _require(context: AutogenContext, operation: RequireColumnOnlineOp) -> list[str]:
    plain = operation.plain
    text = call("require_column_online", plain.table_name, plain.column_name, schema=plain.schema)
    return _set_apart(context, plain, [text])


_modify_table = renderers.dispatch(ops.ModifyTableOps)


@renderers.dispatch_for(ops.ModifyTableOps, replace=True)
def _batch(context: AutogenContext, operation: ops.ModifyTableOps) -> list[str]:
    """Let SQLite's copy of a table be made like the table: its key is the table, without another one beside it."""
    lines: list[str] = _modify_table(context, operation)
    declared = declared_in(context.metadata)
    table = None if declared is None else declared.tables.get((operation.schema, operation.table_name))
    if table is None or not lines or not lines[0].startswith("with op.batch_alter_table("):
        return lines
    head, _, tail = lines[0].rpartition(")")
    return [f"{head}, table_kwargs={dict(table.kwargs)!r}){tail}", *lines[1:]]


def _set_apart(context: AutogenContext, operation: MigrateOperation, lines: list[str]) -> list[str]:
    """Put what loses something into ``with op.destructive(…)``."""
    loss = loss_of(operation) if declared_in(context.metadata) is not None else None
    return lines if loss is None else [f'with op.destructive("{loss}"):', *lines, _END]


def _cast(context: AutogenContext, operation: MigrateOperation, lines: list[str]) -> list[str]:
    """PostgreSQL converts few types by itself; through text it converts all, or says which value it cannot."""
    if not isinstance(operation, ops.AlterColumnOp) or operation.modify_type is None:
        return lines
    if context.dialect.name != "postgresql" or declared_in(context.metadata) is None:
        return lines
    target = operation.modify_type.compile(dialect=context.dialect).partition(" COLLATE ")[0]
    using = f"{quote(operation.column_name)}::text::{target}"
    return [*lines[:-1], f"{lines[-1].removesuffix(')')}, postgresql_using={using!r})"]


def _set_apart_all(*kinds: type[MigrateOperation]) -> None:
    for kind in kinds:
        plain = renderers.dispatch(kind)

        def rendered(context: AutogenContext, operation: MigrateOperation, plain: Any = plain) -> list[str]:
            found = plain(context, operation)
            lines = [found] if isinstance(found, str) else list(found)
            return _set_apart(context, operation, _cast(context, operation, lines))

        renderers.dispatch_for(kind, replace=True)(rendered)


_set_apart_all(ops.DropTableOp, ops.DropColumnOp, ops.AlterColumnOp)
