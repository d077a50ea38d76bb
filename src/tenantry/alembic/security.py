"""How tables are guarded in a database, and how they are to be: facts from the catalogs, compared as text.

What is expected is not written down a second time: a table of the same shape is made, given its policies, and read
back by the same query, then rolled back. So whatever ``policies.py`` says is compared, in the words of this server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa

from tenantry.alembic.operations import SIGHT_POLICY, verbatim
from tenantry.databases.postgres.findings import ExpectedTable
from tenantry.databases.postgres.policies import (
    APP_POLICY,
    CONTROL_POLICY,
    KEEP_TRIGGER,
    OWNER_POLICY,
    RAW_POLICY,
    RAW_TRIGGER,
    TENANT_COLUMN,
    Roles,
)
from tenantry.databases.postgres.search import SEARCH_TRIGGER
from tenantry.errors import ConfigurationError

Facts = frozenset[str]
_PROBE: Final = "tenantry_probe"
_SCHEMA: Final = "tenantry"


def unguarded(
    connection: sa.Connection, expected: Iterable[ExpectedTable], roles: Roles
) -> list[ExpectedTable]:
    """Return the tables that exist and are not guarded as they are to be.

    Args:
        connection: The owner's, inside a transaction.
        expected: The tables.
        roles: The names of the roles, all of which exist.

    Raises:
        ConfigurationError: The database was never prepared, or lacks a role.
    """
    wanted = list(expected)
    check_prepared(connection, roles)
    found = _facts(connection, wanted, roles)
    probes = _probes(connection, wanted, roles)
    return [
        table
        for table in wanted
        if table.name in found
        and _relevant(table, found[table.name]) != _relevant(table, probes[_shape(table)])
    ]


def _relevant(table: ExpectedTable, facts: Facts) -> Facts:
    """A table of reference data may have policies of the user's own."""
    if table.kind != "shared":
        return facts
    return frozenset(fact for fact in facts if fact.startswith(("grant", "trigger")))


def guarded_as(
    connection: sa.Connection, schema: str | None, table: str, roles: Roles
) -> ExpectedTable | None:
    """Return how a table is guarded, as nearly as can be told; ``None`` if it is none of ours."""
    tenant = ExpectedTable(schema or "public", table, "tenant")
    found = _facts(connection, [tenant], roles).get(tenant.name, frozenset())
    searchable = any(SEARCH_TRIGGER in fact for fact in found)
    if any(fact.startswith(f"policy {APP_POLICY} ") for fact in found):
        return tenant._replace(
            raw=any(fact.startswith(f"policy {RAW_POLICY} ") for fact in found),
            versioned=any(RAW_TRIGGER in fact for fact in found),
            searchable=searchable,
        )
    shared = tenant._replace(kind="shared", searchable=searchable)
    return None if unguarded(connection, [shared], roles) else shared


def check_prepared(connection: sa.Connection, roles: Roles) -> None:
    """Return if the schema and the roles exist.

    Raises:
        ConfigurationError: They do not.
    """
    missing = connection.scalars(_MISSING, {"roles": list(roles)}).all()
    if missing:
        raise ConfigurationError(
            f"This database was not prepared for tenantry: it lacks {', '.join(missing)}.",
            field="database.owner_url",
            fix="Run: tenantry init --admin-url postgresql://postgres@HOST/DATABASE",
        )


def _shape(table: ExpectedTable) -> ExpectedTable:
    """Return what tables that are guarded alike have in common."""
    return table._replace(schema=_SCHEMA, table=_PROBE)


def _probes(
    connection: sa.Connection, expected: Iterable[ExpectedTable], roles: Roles
) -> Mapping[ExpectedTable, Facts]:
    facts = {}
    for shape in {_shape(table) for table in expected}:
        with connection.begin_nested() as savepoint:
            connection.execute(sa.text(_PROBE_TABLE))
            for statement in [*shape.defaults(), *shape.statements(roles)]:
                connection.execute(verbatim(statement))
            facts[shape] = _facts(connection, [shape], roles)[shape.name]
            savepoint.rollback()
    return facts


def _facts(connection: sa.Connection, tables: Iterable[ExpectedTable], roles: Roles) -> dict[str, Facts]:
    """Return what is so of the tables that exist, by their quoted names."""
    listed = list(tables)
    names = {(table.schema, table.table): table.name for table in listed}
    rows = connection.execute(
        _FACTS,
        {
            "schemas": [table.schema for table in listed],
            "tables": [table.table for table in listed],
            "roles": [roles.app, roles.raw, roles.control],
            "policies": [APP_POLICY, RAW_POLICY, CONTROL_POLICY, OWNER_POLICY, SIGHT_POLICY],
            "triggers": [KEEP_TRIGGER, RAW_TRIGGER, SEARCH_TRIGGER],
            "tenant": TENANT_COLUMN,
        },
    )
    return {names[row.schema, row.name]: frozenset(row.facts) for row in rows}


_PROBE_TABLE: Final = f"""
CREATE TABLE {_SCHEMA}.{_PROBE} (
  {TENANT_COLUMN} text NOT NULL, id text, version bigint, created_at timestamptz, updated_at timestamptz
)"""

_MISSING: Final = sa.text(
    """
SELECT 'the role ' || r FROM unnest(CAST(:roles AS text[])) r
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r)
UNION ALL SELECT 'the schema tenantry' WHERE to_regnamespace('tenantry') IS NULL
ORDER BY 1"""
).bindparams(sa.bindparam("roles", type_=sa.ARRAY(sa.Text())))

_FACTS: Final = sa.text(
    """
SELECT n.nspname AS schema, c.relname AS name, ARRAY(
  SELECT pg_catalog.format('row security %s, forced %s', c.relrowsecurity, c.relforcerowsecurity)
  UNION ALL
  SELECT pg_catalog.format('policy %s %s %s %s: %s / %s', p.polname, p.polpermissive, p.polcmd,
    ARRAY(SELECT pg_catalog.pg_get_userbyid(o) FROM pg_catalog.unnest(p.polroles) o ORDER BY 1),
    pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = ANY(CAST(:policies AS text[]))
  UNION ALL
  SELECT pg_catalog.format('trigger %s %s', t.tgenabled,
    pg_catalog.regexp_replace(pg_catalog.pg_get_triggerdef(t.oid), ' ON .* FOR EACH ROW', ' FOR EACH ROW'))
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = ANY(CAST(:triggers AS text[]))
  UNION ALL
  SELECT pg_catalog.format('grant %s to %s', a.privilege_type, COALESCE(r.rolname, 'PUBLIC'))
  FROM pg_catalog.aclexplode(c.relacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
  WHERE a.grantee = 0 OR r.rolname = ANY(CAST(:roles AS text[]))
  UNION ALL
  SELECT pg_catalog.format('grant %s (%s) to %s', a.privilege_type, b.attname, COALESCE(r.rolname, 'PUBLIC'))
  FROM pg_catalog.pg_attribute b, pg_catalog.aclexplode(b.attacl) a
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
  WHERE b.attrelid = c.oid AND NOT b.attisdropped
    AND (a.grantee = 0 OR r.rolname = ANY(CAST(:roles AS text[])))
  UNION ALL
  SELECT 'default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid)
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute b ON b.attrelid = d.adrelid AND b.attnum = d.adnum
  WHERE d.adrelid = c.oid AND b.attname = CAST(:tenant AS text)
) AS facts
FROM ROWS FROM (pg_catalog.unnest(CAST(:schemas AS text[])), pg_catalog.unnest(CAST(:tables AS text[])))
  AS wanted(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p')"""
).bindparams(
    *(
        sa.bindparam(name, type_=sa.ARRAY(sa.Text()))
        for name in ("roles", "policies", "triggers", "schemas", "tables")
    )
)
