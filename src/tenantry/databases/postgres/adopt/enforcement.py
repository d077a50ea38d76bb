"""The last steps: policies and grants, then row-level security for everybody, each in one short transaction."""

from __future__ import annotations

from collections.abc import Iterator

from tenantry.databases.postgres.adopt.access import (
    LEGACY_POLICY,
    changed_views,
    close_table,
    close_view,
    enter_schemas,
    leave_schemas,
    let_legacy,
    open_view,
    use_sequences,
)
from tenantry.databases.postgres.adopt.journal import CANARY, ENFORCED, OWNER, expected_tables
from tenantry.databases.postgres.adopt.plan import Plan
from tenantry.databases.postgres.adopt.schema import Schema, Table
from tenantry.databases.postgres.adopt.steps import Step, index_name, widened
from tenantry.databases.postgres.adopt.triggers import Made, fill_triggers, move_trigger
from tenantry.databases.postgres.findings import ExpectedTable
from tenantry.databases.postgres.policies import KEEP_TRIGGER, Roles, quote


def canary_step(schema: Schema, plan: Plan, roles: Roles) -> Step:
    """Return the step that isolates tenantry's roles, and lets everybody who writes today go on as before.

    The tables' owner is not subject to policies that are not forced; the others of today get a policy that lets them.
    """
    statements, undo = enter_schemas(schema, plan, roles), list[str]()
    for expected, table in _tables(schema, plan):
        statements += [*_unforced_policies(expected, roles), *use_sequences(table, roles)]
        if expected.kind == "tenant":
            # Who may reach a part of a table must not get round the table's policies that way.
            statements += [f"ALTER TABLE {part} ENABLE ROW LEVEL SECURITY" for part in table.parts]
            for name in (table.sql, *table.parts):
                statements += let_legacy(table, name, roles)
        undo += close_table(table, roles)
    for view in schema.views:
        statements += open_view(view, plan, roles)
        undo += close_view(view, plan, roles)
    return _step(CANARY, schema, plan, statements, [*undo, *leave_schemas(schema, plan, roles)])


def enforce_step(schema: Schema, plan: Plan, roles: Roles) -> Step:
    """Return the step after which a connection that is bound to no tenant sees no row, the owner's included."""
    statements, undo = list[str](), list[str]()
    for expected, table in _tables(schema, plan):
        if expected.kind == "tenant":
            made = _forced(expected, table, plan, roles)
            statements += made.create
            undo += made.drop
    return _step(ENFORCED, schema, plan, statements, undo)


def owner_step(schema: Schema, plan: Plan, roles: Roles) -> Step:
    """Return the step after which tenantry's owner role owns the tables."""
    statements, undo = list[str](), list[str]()
    for _, table in _tables(schema, plan):
        if table.owner != roles.owner:
            for name in (table.sql, *table.parts):
                statements.append(f"ALTER TABLE {name} OWNER TO {quote(roles.owner)}")
                undo.append(f"ALTER TABLE {name} OWNER TO {quote(table.owner)}")
    return _step(OWNER, schema, plan, statements, undo)


def _tables(schema: Schema, plan: Plan) -> Iterator[tuple[ExpectedTable, Table]]:
    for expected in expected_tables(plan):
        yield expected, schema.tables[f"{expected.schema}.{expected.table}"]


def _step(name: str, schema: Schema, plan: Plan, statements: list[str], undo: list[str]) -> Step:
    # Views come first, since whoever asks one has it locked before its tables.
    locked = [view.sql for view in changed_views(schema, plan)]
    locked += [table.sql for _, table in _tables(schema, plan)]
    return Step(
        name,
        "transaction",
        tuple(statements),
        f"ACCESS EXCLUSIVE on {len(locked)} tables and views, for milliseconds: the catalog changes, no row does",
        tables=tuple(locked),
        undo=tuple(undo),
    )


def _unforced_policies(expected: ExpectedTable, roles: Roles) -> list[str]:
    # What keeps a row's tenant would keep it from following its parent, too.
    statements = [text for text in expected.statements(roles) if KEEP_TRIGGER not in text]
    return [text for text in statements if not text.endswith(" FORCE ROW LEVEL SECURITY")]


def _forced(expected: ExpectedTable, table: Table, plan: Plan, roles: Roles) -> Made:
    names, triggers = (table.sql, *table.parts), _filling(table, plan)
    create = [f"DROP POLICY IF EXISTS {LEGACY_POLICY} ON {name}" for name in names]
    create += [*triggers.drop, *expected.statements(roles)]
    create += [f"ALTER TABLE {part} FORCE ROW LEVEL SECURITY" for part in table.parts]
    back = [f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY" for name in names]
    back += [f"DROP TRIGGER IF EXISTS {quote(KEEP_TRIGGER)} ON {table.sql}", *triggers.create]
    back += [text for name in names for text in let_legacy(table, name, roles)]
    wider = list(_widened(table)) if plan.scope_unique else []
    return Made((*create, *(new for new, _ in wider)), (*(old for _, old in wider), *back))


def _filling(table: Table, plan: Plan) -> Made:
    """Return the triggers that serve writers who know of no tenant; from now on there are none."""
    fill, move = fill_triggers(table, plan.tables[table.full]), move_trigger(table, plan)
    return Made((*fill.create, *move.create), (*fill.drop, *move.drop))


def _widened(table: Table) -> Iterator[tuple[str, str]]:
    """Yield what makes each unique constraint begin with the tenant, and what makes it as it was."""
    for key in widened(table):
        drop = f"ALTER TABLE {table.sql} DROP CONSTRAINT {quote(key.name)}"
        add = f"ADD CONSTRAINT {quote(key.name)}"
        when = key.definition.rpartition(")")[2]
        index = quote(index_name(table, key.columns))
        yield f"{drop}, {add} UNIQUE USING INDEX {index}{when}", f"{drop}, {add} {key.definition}"
