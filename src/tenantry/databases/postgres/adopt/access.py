"""Who may reach what of an adopted schema, and how it was before, as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tenantry.databases.postgres.adopt.journal import expected_tables
from tenantry.databases.postgres.adopt.plan import Plan
from tenantry.databases.postgres.adopt.schema import Schema, Table, View
from tenantry.databases.postgres.policies import (
    ALL_PRIVILEGES,
    APP_POLICY,
    CONTROL_POLICY,
    KEEP_TRIGGER,
    RAW_POLICY,
    Roles,
    quote,
)

LEGACY_POLICY: Final = "tenantry_legacy"


def role_name(role: str) -> str:
    """Return a role as GRANT writes it; ``""`` is PUBLIC."""
    return quote(role) if role else "PUBLIC"


def three(roles: Roles) -> str:
    """Return the roles that reach tables, as GRANT lists them."""
    return ", ".join(map(quote, (roles.app, roles.raw, roles.control)))


def enter_schemas(schema: Schema, plan: Plan, roles: Roles) -> list[str]:
    """Return what lets tenantry's roles into the schemas of a plan."""
    return [f"GRANT USAGE ON SCHEMA {quote(name)} TO {three(roles)}" for name in _schemas(schema, plan)]


def leave_schemas(schema: Schema, plan: Plan, roles: Roles) -> list[str]:
    """Return what undoes it. `tenantry init` let the roles into public, and that is not ours to take back."""
    return [
        f"REVOKE USAGE ON SCHEMA {quote(name)} FROM {three(roles)}"
        for name in _schemas(schema, plan)
        if name != "public"
    ]


def _schemas(schema: Schema, plan: Plan) -> list[str]:
    return sorted({table.schema for table in expected_tables(plan)} | {view.schema for view in schema.views})


def use_sequences(table: Table, roles: Roles) -> list[str]:
    """Return what lets tenantry's roles number new rows."""
    return [f"GRANT USAGE ON SEQUENCE {sequence} TO {three(roles)}" for sequence in table.sequences]


def let_legacy(table: Table, name: str, roles: Roles) -> list[str]:
    """Return what lets those who use a table today, without being its owner, go on for the time being.

    Args:
        table: The table.
        name: The quoted name of the table or of a part of it.
        roles: The names of the roles.
    """
    # A policy for PUBLIC would hold for tenantry's roles as well.
    users = [role for role in table.readers if role and role not in (table.owner, *roles)]
    if not users:
        return []
    listed = ", ".join(map(quote, users))
    return [
        f"DROP POLICY IF EXISTS {LEGACY_POLICY} ON {name}",
        f"CREATE POLICY {LEGACY_POLICY} ON {name} TO {listed} USING (true) WITH CHECK (true)",
    ]


def close_table(table: Table, roles: Roles) -> list[str]:
    """Return what takes policies and rights away again, and gives PUBLIC back what it had."""
    policies = (APP_POLICY, RAW_POLICY, CONTROL_POLICY, LEGACY_POLICY)
    back = [f"DROP POLICY IF EXISTS {policy} ON {table.sql}" for policy in policies]
    back += [f"DROP TRIGGER IF EXISTS {quote(KEEP_TRIGGER)} ON {table.sql}"]
    for name in (table.sql, *table.parts):
        back += [
            f"DROP POLICY IF EXISTS {LEGACY_POLICY} ON {name}",
            f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
        ]
    back += [f"REVOKE ALL ON TABLE {table.sql} FROM {three(roles)}"]
    back += [f"REVOKE USAGE ON SEQUENCE {sequence} FROM {three(roles)}" for sequence in table.sequences]
    return back + _to_public(table.sql, table.public)


def _to_public(name: str, rights: Sequence[str]) -> list[str]:
    return [f"GRANT {', '.join(rights)} ON TABLE {name} TO PUBLIC"] if rights else []


def _has_tenants(view: View, plan: Plan) -> bool:
    return any(plan.tables[name].has_tenant for name in view.tables)


def changed_views(schema: Schema, plan: Plan) -> list[View]:
    """Return the views of tenant rows that are to ask with their reader's rights."""
    return [view for view in schema.views if _has_tenants(view, plan) and not view.materialized]


def open_view(view: View, plan: Plan, roles: Roles) -> list[str]:
    """Return what makes a view safe, and opens it; one that stores tenant rows is closed to tenants instead."""
    if not _has_tenants(view, plan):
        return [f"GRANT SELECT ON TABLE {view.sql} TO {three(roles)}"]
    closed = f"REVOKE ALL ON TABLE {view.sql} FROM PUBLIC, {three(roles)}"
    if view.materialized:
        return [closed]
    return [
        *([] if view.invoker else [f"ALTER VIEW {view.sql} SET (security_invoker = true)"]),
        closed,
        f"GRANT {', '.join(ALL_PRIVILEGES)} ON TABLE {view.sql} TO {three(roles)}",
    ]


def close_view(view: View, plan: Plan, roles: Roles) -> list[str]:
    """Return what makes a view as it was."""
    back = [f"REVOKE ALL ON TABLE {view.sql} FROM {three(roles)}"]
    if _has_tenants(view, plan):
        if not (view.invoker or view.materialized):
            back.append(f"ALTER VIEW {view.sql} RESET (security_invoker)")
        back += _to_public(view.sql, view.public)
    return back
