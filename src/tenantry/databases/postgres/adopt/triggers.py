"""Triggers that name the tenant for writers that know of none, from `apply` until the tables are enforced.

They run as the table's owner, since a writer need not have the right to read the parents. Nobody may call them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from tenantry.databases.postgres.adopt.paths import Paths, sql_name
from tenantry.databases.postgres.adopt.plan import Plan, TablePlan
from tenantry.databases.postgres.adopt.schema import Table
from tenantry.databases.postgres.policies import TENANT_COLUMN, quote

# Triggers fire in the order of their names; the application's own may still set the columns that ours looks at.
FILL: Final = "zz_tenantry_fill"
FOLLOW: Final = "zz_tenantry_follow"
MOVE: Final = "zz_tenantry_move"


class Made(NamedTuple):
    """Statements that make something, and those that take it away."""

    create: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


def fill_function(table: Table, planned: TablePlan, paths: Paths, owner: str) -> Made:
    """Return what makes the function that names the tenant of a row.

    Args:
        table: The table.
        planned: What becomes of it.
        paths: The expressions of the plan.
        owner: Who owns the schema ``tenantry``.
    """
    body = f"NEW.{TENANT_COLUMN} := {paths.kept(planned, 'NEW')};\n  RETURN NEW;"
    return _definition(_function("fill", table), body, table, owner)


def move_function(table: Table, plan: Plan, owner: str) -> Made:
    """Return what makes the function that lets rows follow their parent to another tenant, if it has children."""
    children = list(_children(plan, table))
    if not children:
        return Made()
    body = "\n  ".join([*map(_follow, children), "RETURN NULL;"])
    # The children's own triggers fire within, and expect to find their tables.
    path = ", ".join(dict.fromkeys(["pg_catalog", quote(table.schema), quote("public"), "pg_temp"]))
    return _definition(_function("move", table), body, table, owner, path)


def fill_triggers(table: Table, planned: TablePlan) -> Made:
    """Return what makes the triggers that name the tenant of a row, where it has none or moves to another parent."""
    fill = f"EXECUTE FUNCTION {_function('fill', table)}()"
    looked_at = planned.by or (tuple(table.columns) if planned.sql else ())
    changed = " OR ".join(f"OLD.{quote(name)} IS DISTINCT FROM NEW.{quote(name)}" for name in looked_at)
    create = {
        FILL: f"BEFORE INSERT OR UPDATE ON {table.sql} FOR EACH ROW WHEN (NEW.{TENANT_COLUMN} IS NULL) {fill}"
    }
    if changed:
        create[FOLLOW] = f"BEFORE UPDATE ON {table.sql} FOR EACH ROW WHEN ({changed}) {fill}"
    return _triggers(table, create)


def move_trigger(table: Table, plan: Plan) -> Made:
    """Return what makes the trigger that lets rows follow their parent to another tenant, if it has children."""
    if not any(True for _ in _children(plan, table)):
        return Made()
    moved = f"OLD.{TENANT_COLUMN} IS NOT NULL AND OLD.{TENANT_COLUMN} IS DISTINCT FROM NEW.{TENANT_COLUMN}"
    call = f"EXECUTE FUNCTION {_function('move', table)}()"
    return _triggers(table, {MOVE: f"AFTER UPDATE ON {table.sql} FOR EACH ROW WHEN ({moved}) {call}"})


def _triggers(table: Table, create: Mapping[str, str]) -> Made:
    return Made(
        tuple(f"CREATE TRIGGER {quote(name)} {text}" for name, text in create.items()),
        tuple(f"DROP TRIGGER IF EXISTS {quote(name)} ON {table.sql}" for name in create),
    )


def _function(what: str, table: Table) -> str:
    return f"tenantry.adopt_{what}_{table.oid}"


def _definition(name: str, body: str, table: Table, owner: str, path: str = "pg_catalog, pg_temp") -> Made:
    create = [
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
        f"SET search_path = {path} AS $tenantry$\nBEGIN\n  {body}\nEND $tenantry$",
        f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC",
        f"ALTER FUNCTION {name}() OWNER TO {quote(table.owner)}",
    ]
    if table.owner != owner:
        # Who is to own a function in a schema must be allowed to make it there, for as long as that takes.
        create.insert(0, f"GRANT CREATE ON SCHEMA tenantry TO {quote(table.owner)}")
        create.append(f"REVOKE CREATE ON SCHEMA tenantry FROM {quote(table.owner)}")
    return Made(tuple(create), (f"DROP FUNCTION IF EXISTS {name}()",))


def _children(plan: Plan, table: Table) -> Iterator[TablePlan]:
    return (child for child in plan.of_kind("tenant") if child.parent == table.full)


def _follow(child: TablePlan) -> str:
    match = " AND ".join(
        f"c.{quote(here)} = NEW.{quote(there)}"
        for here, there in zip(child.by, child.references, strict=True)
    )
    return (
        f"UPDATE {sql_name(child.table)} c SET {TENANT_COLUMN} = NEW.{TENANT_COLUMN} "
        f"WHERE {match} AND c.{TENANT_COLUMN} IS NOT NULL AND c.{TENANT_COLUMN} IS DISTINCT FROM NEW.{TENANT_COLUMN};"
    )
