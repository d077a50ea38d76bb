"""Rights on a database, beyond its tables: what is granted and revoked, and what of it does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from tenantry.databases.postgres.policies import Roles, quote


class Unmet(NamedTuple):
    """Something that the admin role may not do.

    Attributes:
        what: What was not done.
        consequence: What remains possible because of it.
        fix: The SQL that a more powerful role can run.
    """

    what: str
    consequence: str
    fix: str


class FunctionGroup(NamedTuple):
    """Functions that PUBLIC has and a user's own SQL must not have."""

    name: str
    schema: str | None
    pattern: str
    keep: tuple[str, ...]
    consequence: str


FUNCTION_GROUPS: Final = (
    FunctionGroup(
        "large objects",
        "pg_catalog",
        r"^(lo_.*|loread|lowrite)$",
        ("owner",),
        "One tenant's SQL can leave a large object that another tenant's SQL reads.",
    ),
    FunctionGroup(
        "advisory locks",
        "pg_catalog",
        r"^pg_(try_)?advisory_(xact_)?(un)?lock(_shared)?$",
        ("owner", "control", "pg_database_owner"),
        "One tenant's SQL can hold a lock, or leave a number in pg_locks, that another tenant's SQL meets.",
    ),
    FunctionGroup(
        "notifications",
        "pg_catalog",
        "^pg_notify$",
        ("owner", "control", "app"),
        "One tenant's SQL can send text to whoever listens on this database.",
    ),
    FunctionGroup(
        "signals",
        "pg_catalog",
        "^pg_(cancel|terminate)_backend$",
        ("owner", "control", "pg_signal_backend"),
        "One tenant's SQL can cancel another tenant's statement.",
    ),
    FunctionGroup(
        "prepared statements",
        "pg_catalog",
        "^pg_prepared_statement$",
        ("owner", "control"),
        "Injected SQL can learn what our prepared statements are called and put its own in their place.",
    ),
    FunctionGroup(
        "logical messages",
        "pg_catalog",
        "^pg_logical_emit_message$",
        ("owner", "control"),
        "One tenant's SQL can forge messages for whoever decodes the log.",
    ),
    FunctionGroup(
        "statement statistics",
        None,
        "^pg_stat_statements$",
        ("pg_read_all_stats",),
        "One tenant's SQL can read the statement texts of another's.",
    ),
)

_TRUSTED_LANGUAGES: Final = "SELECT lanname FROM pg_language WHERE lanpltrusted AND lanname <> 'sql'"
_ANY_ROLE: Final = "SELECT bool_or({condition}) FROM unnest($1::text[]) role"
_GROUP_QUERY: Final = """SELECT p.oid, p.oid::regprocedure::text AS signature
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE ($1::text IS NULL OR n.nspname = $1) AND p.proname ~ $2 AND p.prokind = 'f' ORDER BY 2"""


async def grant_rights(connection: Any, roles: Roles, schema: str, *, harden: bool) -> None:
    """Make the schemas, let the roles in, and take from PUBLIC what a tenant's own SQL must not have.

    What the role of ``connection`` may not do is passed over; :func:`unmet_rights` finds it.

    Args:
        connection: An asyncpg connection of the admin role.
        roles: The names of the roles.
        schema: Where the tables of the models live.
        harden: Whether to revoke rights that other programs in the database may use.
    """
    database = quote(await connection.fetchval("SELECT current_database()"))
    owner, namespace = quote(roles.owner), quote(schema)
    others = ", ".join(quote(role) for role in (roles.app, roles.raw, roles.control))
    everyone = f"{owner}, {others}"
    await _run(
        connection,
        f"GRANT CONNECT ON DATABASE {database} TO {everyone}",
        f"CREATE SCHEMA IF NOT EXISTS {namespace} AUTHORIZATION {owner}",
        f"CREATE SCHEMA IF NOT EXISTS tenantry AUTHORIZATION {owner}",
        f"GRANT USAGE, CREATE ON SCHEMA {namespace} TO {owner}",
        f"GRANT USAGE ON SCHEMA {namespace}, tenantry TO {others}",
        f"REVOKE CREATE ON SCHEMA {namespace}, tenantry FROM PUBLIC, {others}",
    )
    # Set by a superuser, it cannot be set back by the role itself.
    await _run(connection, *(f"ALTER ROLE {quote(role)} SET track_activities = off" for role in roles[1:3]))
    if not harden:
        return
    await _run(
        connection,
        f"REVOKE CREATE ON SCHEMA public FROM PUBLIC, {others}",
        f"REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC, {others}",
        f"GRANT TEMPORARY ON DATABASE {database} TO {owner}",
    )
    for row in await connection.fetch(_TRUSTED_LANGUAGES):
        await _run(connection, *_take_away(f"USAGE ON LANGUAGE {quote(row['lanname'])}", roles, ("owner",)))
    for group in FUNCTION_GROUPS:
        for row in await connection.fetch(_GROUP_QUERY, group.schema, group.pattern):
            await _run(connection, *_take_away(f"EXECUTE ON FUNCTION {row['signature']}", roles, group.keep))


def _take_away(right: str, roles: Roles, keep: Sequence[str]) -> list[str]:
    """Return what revokes a right from everybody, ourselves included, and gives it back to a few."""
    others = ", ".join(quote(role) for role in (roles.app, roles.raw, roles.control))
    few = ", ".join(quote(getattr(roles, name, name)) for name in keep)
    return [f"REVOKE {right} FROM PUBLIC, {others}", f"GRANT {right} TO {few}"]


async def unmet_rights(connection: Any, roles: Roles, schema: str) -> list[Unmet]:
    """Return what of the rights described above does not hold.

    Args:
        connection: An asyncpg connection of any role.
        roles: The names of the roles.
        schema: Where the tables of the models live.
    """
    database = await connection.fetchval("SELECT current_database()")
    trusted = [row["lanname"] for row in await connection.fetch(_TRUSTED_LANGUAGES)]
    return [
        *[
            Unmet(
                f"CREATE on schema {namespace} is granted to PUBLIC or to a tenant role",
                "A tenant's own SQL can leave tables and functions for another tenant.",
                f"REVOKE CREATE ON SCHEMA {quote(namespace)} FROM PUBLIC",
            )
            for namespace in sorted({schema, "public", "tenantry"})
            if await _any_role(connection, "has_schema_privilege(role, $2, 'CREATE')", roles, namespace)
        ],
        *[
            Unmet(
                f"{privilege} on the database is granted to PUBLIC or to a tenant role",
                "A tenant's own SQL can make schemas or temporary tables; only the latter are discarded after use.",
                f"REVOKE {privilege} ON DATABASE {quote(database)} FROM PUBLIC",
            )
            for privilege in ("CREATE", "TEMPORARY")
            if await _any_role(
                connection, f"has_database_privilege(role, $2, '{privilege}')", roles, database
            )
        ],
        *[
            Unmet(
                f"USAGE on language {language} is granted to PUBLIC",
                "DO blocks are possible in SQL that reaches the server past the SDK's own check.",
                "; ".join(_take_away(f"USAGE ON LANGUAGE {quote(language)}", roles, ("owner",))),
            )
            for language in trusted
            if await _any_role(connection, "has_language_privilege(role, $2, 'USAGE')", roles, language)
        ],
        *await _open_functions(connection, roles),
        *await _tracked(connection, roles),
    ]


async def _open_functions(connection: Any, roles: Roles) -> list[Unmet]:
    unmet = []
    for group in FUNCTION_GROUPS:
        rows = await connection.fetch(_GROUP_QUERY, group.schema, group.pattern)
        still = [
            row["signature"]
            for row in rows
            if await connection.fetchval(
                "SELECT has_function_privilege($1, $2::oid, 'EXECUTE')", roles.raw, row["oid"]
            )
        ]
        if still:
            right = f"EXECUTE ON FUNCTION {', '.join(still)}"
            fix = "; ".join(_take_away(right, roles, group.keep))
            unmet.append(Unmet(f"{group.name}: EXECUTE is granted to PUBLIC", group.consequence, fix))
    return unmet


async def _tracked(connection: Any, roles: Roles) -> list[Unmet]:
    unmet = []
    for role in (roles.app, roles.raw):
        settings = await connection.fetchval("SELECT rolconfig FROM pg_roles WHERE rolname = $1", role)
        if "track_activities=off" not in (settings or ()):
            unmet.append(
                Unmet(
                    f"track_activities is on for {role}",
                    "SQL of one tenant can read in pg_stat_activity the statements that other tenants run as this "
                    "role, with every value that is written into the text.",
                    f"ALTER ROLE {quote(role)} SET track_activities = off",
                )
            )
    return unmet


async def _any_role(connection: Any, condition: str, roles: Roles, subject: str) -> bool:
    """Whether ``condition`` holds for one of the roles that have no business to own anything."""
    names = [roles.app, roles.raw, roles.control]
    return bool(await connection.fetchval(_ANY_ROLE.format(condition=condition), names, subject))


async def _run(connection: Any, *statements: str) -> None:
    for statement in statements:
        try:
            async with connection.transaction():
                await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            pass
