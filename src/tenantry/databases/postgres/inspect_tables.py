"""What the catalogs say of tables: policies, keys, references, rights, and the views above them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenantry.databases.postgres.findings import ExpectedTable, Finding, Severity
from tenantry.databases.postgres.policies import (
    ALL_PRIVILEGES,
    APP_POLICY,
    CONTROL_POLICY,
    KEEP_TRIGGER,
    OWNER_POLICY,
    RAW_POLICY,
    RAW_TRIGGER,
    TENANT_COLUMN,
    Roles,
    quote,
)
from tenantry.databases.postgres.search import SEARCH_TRIGGER

# How the server spells our predicate.
_PREDICATE: Final = re.compile(
    rf"\({TENANT_COLUMN} = \( SELECT tenantry\.current_tenant\(\) AS current_tenant\)\)|"
    rf"\(\({TENANT_COLUMN}\)::text = \( SELECT tenantry\.current_tenant\(\) AS current_tenant\)\)"
)
_NEVER: Final = ("TRUNCATE", "REFERENCES", "TRIGGER")


async def inspect_tables(connection: Any, roles: Roles, expected: Sequence[ExpectedTable]) -> list[Finding]:
    """Check every expected table, and what app and raw can reach besides.

    Args:
        connection: An asyncpg connection of any role.
        roles: The names of the roles; those that do not exist are passed over.
        expected: Every table of the models and of the SDK itself. One that is missing is passed over.
    """
    names = [[table.schema for table in expected], [table.table for table in expected]]
    rows = {(row["schema"], row["name"]): row for row in await connection.fetch(_TABLES, *names)}
    tables = {row["oid"]: table for table in expected if (row := rows.get((table.schema, table.table)))}
    known = {row["rolname"] for row in await connection.fetch(_KNOWN, list(roles))}
    tenants = sorted({roles.app, roles.raw} & known)
    catalog = _Catalog(roles, tables, {row["oid"]: row for row in rows.values()}, has_raw=roles.raw in known)
    oids = list(tables)
    findings = catalog.security(await connection.fetch(_POLICIES, oids, tenants))
    findings += catalog.keys(await connection.fetch(_INDEXES, oids))
    findings += catalog.references(await connection.fetch(_REFERENCES, oids))
    findings += catalog.triggers(await connection.fetch(_TRIGGERS, oids))
    findings += catalog.rights(await connection.fetch(_RIGHTS, oids, tenants))
    of_tenants = [oid for oid, table in tables.items() if table.kind not in ("shared", "open")]
    views = await connection.fetch(_VIEWS, of_tenants, tenants)
    findings += [_view(row, roles) for row in views]
    findings += [
        _stranger(row, roles)
        for row in await connection.fetch(_STRANGERS, [*oids, *(row["oid"] for row in views)], tenants)
    ]
    return findings


class _Catalog:
    """The expected tables that exist, by oid, and the checks on them."""

    def __init__(
        self, roles: Roles, tables: Mapping[int, ExpectedTable], rows: Mapping[int, Any], *, has_raw: bool
    ) -> None:
        self._roles = roles
        self._has_raw = has_raw
        self._tables = tables
        self._rows = rows

    def _finding(self, severity: Severity, code: str, table: ExpectedTable, message: str) -> Finding:
        return Finding(severity, code, table.name, message, table.fix(self._roles))

    def security(self, policies: Iterable[Any]) -> list[Finding]:
        """Row-level security is on and forced, our policies are as we make them, and nothing widens them."""
        by_table: defaultdict[int, list[Any]] = defaultdict(list)
        for policy in policies:
            by_table[policy["oid"]].append(policy)
        findings = []
        for oid, table in self._tables.items():
            if table.kind == "open":
                message = "Every tenant reads and writes all its rows."
                fix = "Let its rows find a tenant, or accept it; see the page on adopting."
                findings.append(Finding("warning", "table-open", table.name, message, fix))
            if table.kind in ("shared", "open"):
                continue
            row = self._rows[oid]
            if not (row["enabled"] and row["forced"]):
                missing = (
                    "not enabled" if not row["enabled"] else "not forced, so its owner sees every tenant"
                )
                findings.append(self._finding("error", "rls-off", table, f"Row-level security is {missing}."))
            findings += self._policies(table, by_table[oid])
        return findings

    def _policies(self, table: ExpectedTable, policies: list[Any]) -> list[Finding]:
        found = {policy["name"]: policy for policy in policies}
        scoped = {APP_POLICY: self._roles.app, RAW_POLICY: self._roles.raw}
        wanted = {
            APP_POLICY: table.kind == "tenant" or bool(table.app),
            RAW_POLICY: table.kind == "tenant" and table.raw and self._has_raw,
        }
        findings = []
        for name, role in scoped.items():
            policy = found.pop(name, None)
            if not wanted[name]:
                if policy is not None:
                    findings.append(
                        self._finding("error", "policy-extra", table, f"It has a policy for {role}.")
                    )
            elif policy is None:
                findings.append(
                    self._finding("error", "policy-missing", table, f"It has no policy for {role}.")
                )
            elif not _is_ours(policy, role):
                findings.append(
                    self._finding(
                        "error",
                        "policy-changed",
                        table,
                        f"The policy for {role} is not as tenantry makes it.",
                    )
                )
        if found.pop(CONTROL_POLICY, None) is None:
            findings.append(
                self._finding(
                    "warning", "policy-missing", table, f"It has no policy for {self._roles.control}."
                )
            )
        if table.owner and found.pop(OWNER_POLICY, None) is None:
            findings.append(
                self._finding(
                    "warning", "policy-missing", table, f"It has no policy for {self._roles.owner}."
                )
            )
        extra = [policy for policy in found.values() if policy["permissive"] and policy["applies"]]
        return findings + [
            Finding(
                "error",
                "policy-extra",
                table.name,
                f"The policy {policy['name']} also applies to {policy['applies']} and shows more rows.",
                f"DROP POLICY {quote(policy['name'])} ON {table.name}",
            )
            for policy in extra
        ]

    def keys(self, indexes: Iterable[Any]) -> list[Finding]:
        """Keys and indexes begin with the tenant: a uniqueness error then says nothing of other tenants."""
        findings = []
        for row in indexes:
            table = self._tables[row["oid"]]
            tenant = self._rows[row["oid"]]["tenant"]
            if table.kind != "tenant" or tenant is None or row["columns"][0] == tenant:
                continue
            if row["is_unique"] and tenant not in row["columns"]:
                severity: Severity = "warning" if table.adopted else "error"
                message = "It is unique over all tenants: that a value is taken tells a tenant that another one has it."
                code = "unique-unscoped"
            elif row["is_unique"] or row["method"] == "btree":
                severity, code = "warning", "index-order"
                message = (
                    f"It does not begin with {TENANT_COLUMN}, so it is scanned past other tenants' rows."
                )
            else:
                continue
            fix = f"drop it and make it anew with {TENANT_COLUMN} as its first column"
            findings.append(Finding(severity, code, f"{table.name} {row['index']}", message, fix))
        for oid, table in self._tables.items():
            row = self._rows[oid]
            if table.kind == "tenant" and not row["tenant_not_null"]:
                fix = f"ALTER TABLE {table.name} ALTER COLUMN {TENANT_COLUMN} SET NOT NULL"
                message = f"{TENANT_COLUMN} is missing or may be NULL."
                findings.append(Finding("error", "tenant-nullable", table.name, message, fix))
        return findings

    def references(self, rows: Iterable[Any]) -> list[Finding]:
        """A reference between tenant tables carries the tenant, so that it cannot reach another's row."""
        findings = []
        for row in rows:
            source, target = self._tables.get(row["source"]), self._tables.get(row["target"])
            if target is None or target.kind != "tenant":
                continue
            pairs = zip(row["source_columns"], row["target_columns"], strict=True)
            wanted = (row["source_tenant"], self._rows[row["target"]]["tenant"])
            if source is not None and source.kind == "tenant" and wanted in set(pairs):
                continue
            relaxed = target.adopted or (source is not None and source.adopted)
            findings.append(
                Finding(
                    "warning" if relaxed else "error",
                    "reference-unscoped",
                    f"{row['source_name']} {row['constraint']}",
                    f"It refers to {target.name} without {TENANT_COLUMN}: it can point at another tenant's row, and "
                    "tells whether that exists.",
                    f"ALTER TABLE {row['source_name']} DROP CONSTRAINT {quote(row['constraint'])}, and add it with "
                    f"{TENANT_COLUMN} on both sides",
                )
            )
        return findings

    def triggers(self, rows: Iterable[Any]) -> list[Finding]:
        """The triggers that keep ``tenant_id``, and ``version`` under a user's own SQL."""
        found = {(row["oid"], row["name"]) for row in rows}
        return [
            self._finding("warning", "trigger-missing", table, f"The trigger {name} is missing or disabled.")
            for oid, table in self._tables.items()
            if table.kind == "tenant"
            for name in ([KEEP_TRIGGER, RAW_TRIGGER] if table.raw and table.versioned else [KEEP_TRIGGER])
            if (oid, name) not in found
        ] + [
            self._finding(
                "warning", "trigger-missing", table, "Rows written from now on are not found by a search."
            )
            for oid, table in self._tables.items()
            if table.searchable and (oid, SEARCH_TRIGGER) not in found
        ]

    def rights(self, rows: Iterable[Any]) -> list[Finding]:
        """App and raw have the rights they need and no others."""
        findings = []
        for row in rows:
            table, role = self._tables[row["oid"]], row["role"]
            excess = sorted(set(row["privileges"]) - self._allowed(table, role))
            if excess:
                findings.append(
                    self._finding("error", "grant-excess", table, f"{role} has {', '.join(excess)} on it.")
                )
        return findings

    def _allowed(self, table: ExpectedTable, role: str) -> set[str]:
        if table.kind == "shared":
            return {"SELECT"}
        if table.kind == "open":
            return set(ALL_PRIVILEGES)
        if table.kind == "control":
            return set(table.app) if role == self._roles.app else set()
        return set(ALL_PRIVILEGES) if table.raw or role == self._roles.app else set()


def _is_ours(policy: Any, role: str) -> bool:
    return (
        policy["permissive"]
        and policy["command"] == "*"
        and policy["roles"] == [role]
        and _PREDICATE.fullmatch(policy["using"] or "") is not None
        and _PREDICATE.fullmatch(policy["check"] or "") is not None
    )


def _view(row: Any, roles: Roles) -> Finding:
    powerful = row["is_super"] or row["is_bypass"] or row["owner"] == roles.control
    if row["kind"] == "m":
        message = "It is a materialized view of tenant rows: row-level security does not apply to it."
        fix = f"REVOKE ALL ON {row['name']} FROM PUBLIC, {quote(roles.app)}, {quote(roles.raw)}"
    else:
        message = f"It shows tenant rows with the rights of {row['owner']}, not of the one who asks."
        fix = f"ALTER VIEW {row['name']} SET (security_invoker = true)"
    severity: Severity = "error" if powerful or row["kind"] == "m" else "warning"
    return Finding(severity, "view-definer", row["name"], message, fix)


def _stranger(row: Any, roles: Roles) -> Finding:
    own = row["schema"] == "tenantry"
    return Finding(
        "error" if own or (row["of_tenant_table"] and not row["secured"]) else "warning",
        "table-reachable",
        row["name"],
        f"{row['callers']} may use it, and it is no table of the models"
        f"{': it is a part of one, past whose policies it leads' if row['of_tenant_table'] else ''}.",
        f"REVOKE ALL ON {row['name']} FROM PUBLIC, {quote(roles.app)}, {quote(roles.raw)}",
    )


_KNOWN: Final = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY($1)"

_TABLES: Final = f"""
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
  a.attnum AS tenant, a.attnotnull AS tenant_not_null
FROM unnest($1::text[], $2::text[]) wanted(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p')
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = '{TENANT_COLUMN}' AND NOT a.attisdropped"""

_POLICIES: Final = """
SELECT p.polrelid AS oid, p.polname AS name, p.polpermissive AS permissive, p.polcmd::text AS command,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS using, pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS check,
  ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.oid = ANY(p.polroles)) AS roles,
  (SELECT pg_catalog.string_agg(role, ' and ') FROM pg_catalog.unnest($2::text[]) role
    WHERE 0 = ANY(p.polroles) OR EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) target
      WHERE target <> 0 AND pg_catalog.pg_has_role(role, target, 'MEMBER'))) AS applies
FROM pg_catalog.pg_policy p WHERE p.polrelid = ANY($1::oid[]) ORDER BY p.polname"""

_INDEXES: Final = """
SELECT i.indrelid AS oid, c.relname AS index, i.indisunique OR i.indisexclusion AS is_unique, m.amname AS method,
  (i.indkey::int2[])[0:i.indnkeyatts - 1] AS columns
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE i.indrelid = ANY($1::oid[]) ORDER BY 2"""

_REFERENCES: Final = f"""
SELECT k.conname AS constraint, k.conrelid AS source, k.conrelid::pg_catalog.regclass::text AS source_name,
  k.confrelid AS target, k.conkey AS source_columns, k.confkey AS target_columns, a.attnum AS source_tenant
FROM pg_catalog.pg_constraint k
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attname = '{TENANT_COLUMN}' AND NOT a.attisdropped
WHERE k.contype = 'f' AND k.confrelid = ANY($1::oid[]) ORDER BY 1"""

_TRIGGERS: Final = """
SELECT t.tgrelid AS oid, t.tgname AS name FROM pg_catalog.pg_trigger t
WHERE t.tgrelid = ANY($1::oid[]) AND t.tgenabled IN ('O', 'A')"""

_RIGHTS: Final = """
SELECT c.oid, role, pg_catalog.array_agg(privilege) AS privileges
FROM pg_catalog.unnest($1::oid[]) c(oid), pg_catalog.unnest($2::text[]) role,
  pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) privilege
WHERE pg_catalog.has_table_privilege(role, c.oid, privilege)
  OR (privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
    AND pg_catalog.has_any_column_privilege(role, c.oid, privilege))
GROUP BY c.oid, role ORDER BY 1, 2"""

_VIEWS: Final = """
WITH RECURSIVE above AS (
  SELECT pg_catalog.unnest($1::oid[]) AS oid
  UNION
  SELECT w.ev_class FROM above
  JOIN pg_catalog.pg_depend d ON d.refobjid = above.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
)
SELECT v.oid, v.oid::pg_catalog.regclass::text AS name, v.relkind::text AS kind, o.rolname AS owner,
  o.rolsuper AS is_super, o.rolbypassrls AS is_bypass
FROM above JOIN pg_catalog.pg_class v ON v.oid = above.oid JOIN pg_catalog.pg_roles o ON o.oid = v.relowner
WHERE v.relkind IN ('v', 'm')
  AND NOT (v.relkind = 'v' AND COALESCE(v.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on',
    'security_invoker=1', 'security_invoker=yes'])
  AND EXISTS (SELECT FROM pg_catalog.unnest($2::text[]) role
    WHERE pg_catalog.has_any_column_privilege(role, v.oid, 'SELECT, INSERT, UPDATE')
      OR pg_catalog.has_table_privilege(role, v.oid, 'DELETE'))
ORDER BY 2"""

_STRANGERS: Final = """
SELECT c.oid::pg_catalog.regclass::text AS name, n.nspname AS schema, pg_catalog.string_agg(role, ' and ') AS callers,
  c.relrowsecurity AND c.relforcerowsecurity AS secured,
  EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = ANY($1::oid[]))
    AS of_tenant_table
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN pg_catalog.unnest($2::text[]) role
WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND NOT c.oid = ANY($1::oid[]) AND pg_catalog.has_schema_privilege(role, n.oid, 'USAGE')
  AND NOT (c.relkind = 'v' AND COALESCE(c.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on'])
  AND (pg_catalog.has_any_column_privilege(role, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
    OR pg_catalog.has_table_privilege(role, c.oid, 'DELETE, TRUNCATE, TRIGGER'))
GROUP BY c.oid, n.nspname ORDER BY 1"""
