"""What the catalogs say: whether roles, rights and tables are such that isolation holds.

Every check only reads the catalogs, which any role may do, and each finding brings what mends it. Under an *error* one
tenant may reach another's rows: the SDK refuses to start. The *warnings* are for ``tenantry doctor``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tenantry.databases.postgres.counting import counting_functions
from tenantry.databases.postgres.findings import INIT_COMMAND, ExpectedTable, Finding, refuse
from tenantry.databases.postgres.inspect_tables import inspect_tables
from tenantry.databases.postgres.policies import Roles, quote
from tenantry.databases.postgres.rights import unmet_rights
from tenantry.databases.postgres.seal import seal_functions
from tenantry.databases.postgres.search import search_functions

__all__ = [
    "ExpectedTable",
    "Finding",
    "inspect_database",
    "inspect_roles",
    "inspect_server",
    "inspect_tables",
    "refuse",
]


class _Leak(NamedTuple):
    name: str
    what: str
    fixed_in: dict[int, int]  # major version: first minor version without it


_KNOWN_LEAKS: Final = (
    _Leak(
        "CVE-2025-8713",
        "statistics of a table show rows past its policies",
        {17: 6, 16: 10, 15: 14, 14: 19, 13: 22},
    ),
    _Leak(
        "CVE-2024-10976",
        "a plan is reused for another role's policies",
        {17: 1, 16: 5, 15: 9, 14: 14, 13: 17},
    ),
    _Leak("CVE-2024-4317", "extended statistics show values to everyone", {16: 3, 15: 7, 14: 12}),
    _Leak("CVE-2023-2455", "a plan is reused for another role's policies", {15: 3, 14: 8, 13: 11}),
)
_OLDEST: Final = 13
_HARMLESS_SETTINGS: Final = frozenset({"track_activities=off"})
_REACHING_EXTENSIONS: Final = ("dblink", "file_fdw", "postgres_fdw", "plpython3u", "plperlu", "adminpack")


async def inspect_database(
    connection: Any, roles: Roles, expected: Sequence[ExpectedTable], *, schema: str = "public"
) -> list[Finding]:
    """Run every check.

    Args:
        connection: An asyncpg connection of any role.
        roles: The names of the roles.
        expected: Every table of the models and of the SDK itself.
        schema: Where the tables of the models live.
    """
    return [
        *await inspect_roles(connection, roles),
        *await inspect_tables(connection, roles, expected),
        *await inspect_server(connection, roles, schema=schema),
    ]


async def inspect_roles(connection: Any, roles: Roles) -> list[Finding]:
    """Check what the app, raw and control roles are, own and belong to."""
    rows = {row["rolname"]: row for row in await connection.fetch(_ROLES, list(roles))}
    findings = [
        Finding("error", "role-missing", role, "There is no such role.", INIT_COMMAND)
        for role in (roles.app, roles.control)
        if role not in rows
    ]
    if len(set(roles)) < len(roles):
        findings.append(
            Finding(
                "error", "role-shared", ", ".join(roles), "Each role needs a name of its own.", INIT_COMMAND
            )
        )
    for role in sorted({roles.app, roles.raw, roles.control} & rows.keys()):
        findings += _attributes(rows[role], "warning" if role == roles.control else "error")
    known = [role for role in (roles.app, roles.raw, roles.control) if role in rows]
    findings += [_membership(row, roles) for row in await connection.fetch(_MEMBERSHIPS, known)]
    findings += [
        Finding(
            "error",
            "role-owns",
            row["rolname"],
            f"It owns {row['what']}, so it can change who may see what.",
            f"REASSIGN OWNED BY {quote(row['rolname'])} TO {quote(roles.owner)}",
        )
        for row in await connection.fetch(_OWNED, known)
    ]
    return findings + await _settings(connection, known)


def _attributes(row: Any, severity: Any) -> list[Finding]:
    role = row["rolname"]
    consequences = {
        "SUPERUSER": (severity, "Row-level security does not apply to a superuser."),
        "BYPASSRLS": (severity, "Row-level security does not apply to it."),
        "CREATEROLE": (severity, "It can give itself other roles."),
        "REPLICATION": (severity, "It can stream every tenant's rows."),
        "CREATEDB": ("warning", "It can make databases, and has no need to."),
    }
    return [
        Finding(
            level, f"role-{name.lower()}", role, f"It is {name}. {what}", f"ALTER ROLE {quote(role)} NO{name}"
        )
        for name, (level, what) in consequences.items()
        if row[f"is_{name.lower()}"]
    ]


def _membership(row: Any, roles: Roles) -> Finding:
    member, role = row["member"], row["role"]
    dangerous = (
        row["is_super"] or row["is_bypass"] or row["owns_tables"] or role in roles or role.startswith("pg_")
    )
    return Finding(
        "error" if dangerous else "warning",
        "role-member",
        member,
        f"It belongs to {role} and so has, or can take on, that role's rights.",
        f"REVOKE {quote(role)} FROM {quote(member)}",
    )


async def _settings(connection: Any, known: list[str]) -> list[Finding]:
    return [
        Finding(
            "warning",
            "role-setting",
            row["rolname"],
            f"Every session of it starts with {row['setting']}. A role may change its own settings, so a tenant's SQL "
            "may have left this.",
            f"ALTER ROLE {quote(row['rolname'])}{row['place']} RESET {quote(row['setting'].partition('=')[0])}",
        )
        for row in await connection.fetch(_SETTINGS, known)
        if row["setting"] not in _HARMLESS_SETTINGS
    ]


async def inspect_server(connection: Any, roles: Roles, *, schema: str = "public") -> list[Finding]:
    """Check the engine's version, our functions, and what app and raw may do beyond their tables."""
    number = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    known = {row["rolname"] for row in await connection.fetch(_ROLES, list(roles))}
    if not {roles.app, roles.raw, roles.control} <= known:
        return known_leaks(number)  # inspect_roles has said which are missing
    return [
        *known_leaks(number),
        *await _seal(connection, roles, number // 10_000),
        *await _rights(connection, roles, schema),
        *await _definers(connection, roles),
        *await _surroundings(connection),
    ]


def known_leaks(version: int) -> list[Finding]:
    """Return what is known to leak in a server.

    Args:
        version: As in ``server_version_num``: 170005 is 17.5.
    """
    major, minor = divmod(version, 10_000)
    if major < _OLDEST:
        what = f"PostgreSQL {major} gets no fixes any more."
        return [
            Finding("warning", "engine-leak", "server", what, f"Update to PostgreSQL {_OLDEST} or later.")
        ]
    return [
        Finding(
            "warning",
            "engine-leak",
            leak.name,
            f"PostgreSQL {major}.{minor}: {leak.what}.",
            f"Update to {major}.{leak.fixed_in[major]}.",
        )
        for leak in _KNOWN_LEAKS
        if minor < leak.fixed_in.get(major, 0)
    ]


async def _seal(connection: Any, roles: Roles, version: int) -> list[Finding]:
    found = {row["name"]: row for row in await connection.fetch(_SEAL_FUNCTIONS)}
    findings = []
    for name, body in _expected_bodies(version).items():
        row = found.get(name)
        if row is None or _body(row["source"]) != body or row["owner"] != roles.owner or not row["pinned"]:
            what = "is missing" if row is None else "is not as this version of tenantry makes it"
            findings.append(
                Finding("error", "seal-function", f"tenantry.{name}", f"The function {what}.", INIT_COMMAND)
            )
    readers = await connection.fetchval(_KEY_READERS, [roles.app, roles.raw, roles.control])
    if readers:
        findings.append(
            Finding(
                "error",
                "seal-readable",
                ", ".join(readers),
                "It may read or change the seal keys, and with them make any tenant's seal.",
                "REVOKE ALL ON TABLE tenantry.seal_keys FROM PUBLIC, " + ", ".join(map(quote, readers)),
            )
        )
    return findings


def _expected_bodies(version: int) -> dict[str, str]:
    bodies = {}
    for statement in [*seal_functions("0", version), *search_functions(version), *counting_functions()]:
        match = re.match(r"CREATE OR REPLACE FUNCTION tenantry\.(\w+)", statement)
        if match:
            bodies[match[1]] = _body(statement.split("$function$")[1])
    return bodies


def _body(source: str) -> str:
    """Return a function's body without the number that differs from installation to installation."""
    return re.sub(r"'\d+'(?=,| \|\||;|\))", "'0'", source)


async def _rights(connection: Any, roles: Roles, schema: str) -> list[Finding]:
    findings = []
    for unmet in await unmet_rights(connection, roles, schema):
        # Whoever makes an operator in a schema on everybody's path runs code as everybody.
        severity: Any = "error" if unmet.what.startswith("CREATE on") else "warning"
        findings.append(Finding(severity, "right-open", unmet.what, unmet.consequence, unmet.fix))
    return findings


async def _definers(connection: Any, roles: Roles) -> list[Finding]:
    findings = []
    for row in await connection.fetch(_DEFINERS, [roles.app, roles.raw]):
        powerful = row["is_super"] or row["is_bypass"] or row["owner"] == roles.control
        findings.append(
            Finding(
                "error" if powerful and not row["of_extension"] else "warning",
                "definer-function",
                row["function"],
                f"{row['callers']} may call it, and it runs with the rights of {row['owner']}"
                f"{', to whom row-level security does not apply' if powerful else ''}.",
                f"REVOKE EXECUTE ON FUNCTION {row['function']} FROM PUBLIC, {quote(roles.app)}, {quote(roles.raw)}",
            )
        )
    return findings


async def _surroundings(connection: Any) -> list[Finding]:
    findings = []
    if int(await connection.fetchval("SELECT current_setting('max_prepared_transactions')")):
        findings.append(
            Finding(
                "warning",
                "prepared-transactions",
                "max_prepared_transactions",
                "PREPARE TRANSACTION is possible: it outlives the connection, and its name is visible to all.",
                "ALTER SYSTEM SET max_prepared_transactions = 0, then restart the server",
            )
        )
    rows = await connection.fetch(
        "SELECT extname FROM pg_extension WHERE extname = ANY($1)", _REACHING_EXTENSIONS
    )
    findings += [
        Finding(
            "warning",
            "extension",
            row["extname"],
            "It can reach other databases, files or programs; see who may use it.",
            f"DROP EXTENSION {quote(row['extname'])}, or revoke its functions and servers from PUBLIC",
        )
        for row in rows
    ]
    return findings


_ROLES: Final = """
SELECT rolname, rolsuper AS is_superuser, rolbypassrls AS is_bypassrls, rolcreaterole AS is_createrole,
  rolreplication AS is_replication, rolcreatedb AS is_createdb
FROM pg_catalog.pg_roles WHERE rolname = ANY($1)"""

_MEMBERSHIPS: Final = """
SELECT m.rolname AS member, r.rolname AS role, r.rolsuper AS is_super, r.rolbypassrls AS is_bypass,
  EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p')) AS owns_tables
FROM pg_catalog.pg_roles m JOIN pg_catalog.pg_roles r ON r.oid <> m.oid
WHERE m.rolname = ANY($1) AND NOT m.rolsuper AND pg_catalog.pg_has_role(m.oid, r.oid, 'MEMBER')
ORDER BY 1, 2"""

_OWNED: Final = """
SELECT r.rolname, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) AS what
FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'o' AND r.rolname = ANY($1)
  AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
ORDER BY 1, 2 LIMIT 50"""

_SETTINGS: Final = """
SELECT r.rolname, pg_catalog.unnest(s.setconfig) AS setting,
  CASE WHEN s.setdatabase = 0 THEN '' ELSE pg_catalog.format(' IN DATABASE %I', d.datname) END AS place
FROM pg_catalog.pg_db_role_setting s
JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE r.rolname = ANY($1) AND (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
ORDER BY 1, 2"""

_SEAL_FUNCTIONS: Final = """
SELECT p.proname AS name, p.prosrc AS source, pg_catalog.pg_get_userbyid(p.proowner) AS owner,
  p.proconfig IS NOT NULL AND p.proconfig[1] = 'search_path=pg_catalog, pg_temp' AS pinned
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'tenantry'"""

_KEY_READERS: Final = """
SELECT pg_catalog.array_agg(role) FROM pg_catalog.unnest($1::text[]) role, pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tenantry' AND c.relname = 'seal_keys'
  AND (pg_catalog.has_any_column_privilege(role, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
    OR pg_catalog.has_table_privilege(role, c.oid, 'DELETE, TRUNCATE, TRIGGER'))"""

_DEFINERS: Final = """
SELECT p.oid::pg_catalog.regprocedure::text AS function, o.rolname AS owner, o.rolsuper AS is_super,
  o.rolbypassrls AS is_bypass, pg_catalog.string_agg(role, ' and ' ORDER BY role) AS callers,
  EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.objid = p.oid AND d.deptype = 'e') AS of_extension
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
CROSS JOIN pg_catalog.unnest($1::text[]) role
WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT (n.nspname = 'tenantry' AND p.proname IN ('session', 'bind', 'current_tenant'))
  AND pg_catalog.has_function_privilege(role, p.oid, 'EXECUTE')
  AND pg_catalog.has_schema_privilege(role, n.oid, 'USAGE')
GROUP BY p.oid, o.rolname, o.rolsuper, o.rolbypassrls ORDER BY 1"""
