"""The doctor's checks of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from tenantry.cli.checks import Diagnosis, collections_of, examine_adapter, failed_attestation
from tenantry.cli.connect import SEAL_KEY, VARIABLES, Place, connected, driver, driver_errors, place
from tenantry.cli.project import Project
from tenantry.databases._tables import Tables
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.databases.postgres.findings import INIT_COMMAND, ExpectedTable, Finding, expected_tables
from tenantry.databases.postgres.policies import ALL_PRIVILEGES, TENANT_COLUMN, Privilege, Roles
from tenantry.errors import ConfigurationError, DatabaseUnavailable, DataError, TenantryError
from tenantry.registry import adapter_for

SCHEMA = "public"
_OWN_SCHEMA = "tenantry"
# What our trigger keeps true under a user's own SQL; a table without one of these is out of its reach.
_CARRIED = frozenset({"id", "version", "created_at", "updated_at"})


async def examine_postgres(project: Project) -> Diagnosis:
    """Check options, roles, rights, tables and the server, then let one canary tenant try to reach another.

    Raises:
        DatabaseUnavailable: No role reaches the database.
    """
    urls = urls_of(project)
    places, findings = await _reached(urls)
    diagnosis = Diagnosis("postgresql", places[next(iter(places))].where)
    diagnosis.note(
        [*findings, *_options(project), *_apart(places)], f"{len(places)} roles reach one database"
    )
    if any(finding.severity == "error" for finding in diagnosis.findings):
        return diagnosis
    async with connected(urls["control"]) as connection:
        roles = await roles_of(connection, places)
        if roles is None:
            message = f"It was never prepared for tenantry: it has no schema {_OWN_SCHEMA}."
            diagnosis.findings.append(
                Finding("error", "never-provisioned", diagnosis.where, message, INIT_COMMAND)
            )
            return diagnosis
        await _inspect(connection, roles, project, diagnosis)
    await _attest(project, diagnosis)
    return diagnosis


def urls_of(project: Project) -> dict[str, str]:
    """Return the URL of each role that has one; that of the app role first."""
    options = project.settings.database
    given = {
        "app": options.url,
        "control": options.control_url,
        "raw": options.raw_url,
        "owner": options.owner_url,
    }
    return {role: url.get_secret_value() for role, url in given.items() if url is not None}


async def _reached(urls: Mapping[str, str]) -> tuple[dict[str, Place], list[Finding]]:
    """Return where each role's URL leads, and those that lead nowhere; where all do, raise the first's error."""
    places: dict[str, Place] = {}
    findings = []
    failures: list[TenantryError] = []
    for role, url in urls.items():
        try:
            places[role] = await place(url)
        except (ConfigurationError, DatabaseUnavailable) as error:
            failures.append(error)
            fix = f"Correct {VARIABLES[role]}; for a new password: {INIT_COMMAND} --reset-passwords"
            findings.append(Finding("error", "role-unreachable", VARIABLES[role], error.message, fix))
    if failures and not places:
        raise failures[0]
    return places, findings


def _options(project: Project) -> list[Finding]:
    """Return what is not set."""
    options = project.settings.database
    needed = {VARIABLES["control"]: options.control_url, SEAL_KEY: options.seal_key}
    findings = [
        Finding("error", "option-missing", name, "It is not set; the SDK does not start.", INIT_COMMAND)
        for name, value in needed.items()
        if value is None
    ]
    if options.raw_url is None:
        message = "It is not set, so a user's own SQL is refused."
        findings.append(Finding("warning", "option-missing", VARIABLES["raw"], message, INIT_COMMAND))
    return findings


def _apart(places: Mapping[str, Place]) -> list[Finding]:
    """Return the roles that work on another database than the app role."""
    first = next(iter(places.values()))
    return [
        Finding(
            "error",
            "database-differs",
            VARIABLES[role],
            f"It leads to {found.where}, and the app role works on {first.where}.",
            f"Correct {VARIABLES[role]}.",
        )
        for role, found in places.items()
        if found.is_apart_from(first)
    ]


async def roles_of(connection: Any, places: Mapping[str, Place]) -> Roles | None:
    """Return the names of the roles; ``None`` where the database was never prepared."""
    owner = await connection.fetchval(
        "SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = $1",
        _OWN_SCHEMA,
    )
    if owner is None:
        return None
    app = places["app"].role
    raw = places["raw"].role if "raw" in places else f"{app.removesuffix('_app')}_raw"
    return Roles(owner=owner, app=app, raw=raw, control=places["control"].role)


async def _inspect(connection: Any, roles: Roles, project: Project, diagnosis: Diagnosis) -> None:
    with driver():
        from tenantry.databases.postgres.adopt.journal import adopted_tables
        from tenantry.databases.postgres.inspect import inspect_roles, inspect_server, inspect_tables

    declared = with_adopted(declared_tables(project), await adopted_tables(connection))
    others = await unlisted(connection, declared, [roles.app, roles.raw])
    expected = [*declared, *(other.table for other in others)]
    tables = [
        *await inspect_tables(connection, roles, expected),
        *await _lacking(connection, roles, declared),
    ]
    count = sum(table.kind == "tenant" for table in expected)
    absent = await _absent(connection, roles)
    diagnosis.note(
        [*await inspect_roles(connection, roles), *absent], "the roles can do no more than they need"
    )
    diagnosis.findings += _with_models_in_mind(_without_noise(tables, others), project)
    if not (tables or absent):
        diagnosis.passed.append(f"policies, keys and rights of {count} tenant tables")
    diagnosis.note(
        await inspect_server(connection, roles, schema=SCHEMA),
        "the server's version, the seal, the rights of PUBLIC",
    )


async def _absent(connection: Any, roles: Roles) -> list[Finding]:
    """Return the roles for whose sake policies cannot be compared: nothing is said of policies without all four."""
    rows = await connection.fetch(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY($1)", list(roles)
    )
    message = "There is no such role, so the policies cannot be checked."
    return [
        Finding("error", "role-missing", role, message, INIT_COMMAND)
        for role in sorted({roles.owner, roles.raw} - {row["rolname"] for row in rows})
    ]


async def _lacking(connection: Any, roles: Roles, declared: Sequence[ExpectedTable]) -> list[Finding]:
    """Return the tables on which the app or control role lacks a right: they leak nothing, and do not work."""
    findings = []
    for table in declared:
        for role, needed in _needed(table, roles).items():
            held = await connection.fetchval(_HELD, table.schema, table.table, role)
            lacking = sorted(set(needed) - set(held)) if held is not None else []
            if lacking:
                message = f"{role} lacks {', '.join(lacking)} on it, so the SDK cannot work with it."
                findings.append(Finding("warning", "grant-missing", table.name, message, table.fix(roles)))
    return findings


def _needed(table: ExpectedTable, roles: Roles) -> dict[str, Sequence[Privilege]]:
    if table.kind == "tenant":
        return {roles.app: ALL_PRIVILEGES, roles.control: ("SELECT", "DELETE")}
    if table.kind == "open":
        return {roles.app: ALL_PRIVILEGES, roles.control: ALL_PRIVILEGES}
    app: Sequence[Privilege] = ("SELECT",) if table.kind == "shared" else table.app
    return {roles.app: app, roles.control: ALL_PRIVILEGES}


def with_adopted(declared: Sequence[ExpectedTable], adopted: Sequence[ExpectedTable]) -> list[ExpectedTable]:
    """Return the tables of the models and those that were adopted; one that is both is as it was adopted."""
    known = {(table.schema, table.table) for table in adopted}
    return [*(table for table in declared if (table.schema, table.table) not in known), *adopted]


def declared_tables(project: Project) -> list[ExpectedTable]:
    """Return the tables of the models and of the SDK itself."""
    collections = {collection.name: collection for collection in collections_of(project)}
    return expected_tables(Tables(PostgresDialect(), collections))


class Unlisted(NamedTuple):
    """A table with a tenant column that no model names.

    Attributes:
        table: The table, as it is meant to be.
        reachable: Whether a tenant's role has any right on it.
    """

    table: ExpectedTable
    reachable: bool


async def unlisted(
    connection: Any, declared: Sequence[ExpectedTable], tenant_roles: Sequence[str]
) -> list[Unlisted]:
    """Return the tables with a tenant column that are not among ``declared``."""
    known = [table.table for table in declared if table.schema == SCHEMA]
    rows = await connection.fetch(_UNLISTED, SCHEMA, TENANT_COLUMN, known, list(tenant_roles))
    return [
        Unlisted(
            ExpectedTable(
                SCHEMA,
                row["name"],
                "tenant",
                raw=set(row["columns"]) >= _CARRIED,
                adopted=not row["tenant_first"],
            ),
            row["reachable"],
        )
        for row in rows
    ]


def _without_noise(findings: Sequence[Finding], others: Sequence[Unlisted]) -> list[Finding]:
    """Say one thing, not five, of a table that is in no model and that no tenant's SQL can reach anyway."""
    quiet = {other.table.name for other in others if not other.reachable}
    return [
        *(finding for finding in findings if finding.subject.partition(" ")[0] not in quiet),
        *(
            Finding(
                "warning",
                "table-unlisted",
                name,
                f"It has a column {TENANT_COLUMN} and is in no model. No tenant's role can reach it.",
                "Name its model with --models; or leave it, if another program looks after it.",
            )
            for name in sorted(quiet)
        ),
    ]


def _with_models_in_mind(findings: Sequence[Finding], project: Project) -> list[Finding]:
    """Where no model was named, any table may be one of theirs; advise to name them first."""
    if project.models:
        return list(findings)
    hint = "If it is a table of your models, name them: --models package.module:attribute. Otherwise: "
    return [
        replace(finding, fix=hint + finding.fix) if finding.code == "table-reachable" else finding
        for finding in findings
    ]


async def _attest(project: Project, diagnosis: Diagnosis) -> None:
    adapter = adapter_for(project.url)(project.settings.database)
    try:
        with driver_errors():
            await examine_adapter(adapter, project, diagnosis)
    except DataError as error:
        diagnosis.findings.append(failed_attestation(error))
    finally:
        await adapter.close()


_HELD: Final = """
SELECT ARRAY(SELECT privilege FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
  WHERE pg_catalog.has_table_privilege(r.oid, c.oid, privilege))
FROM pg_catalog.pg_roles r, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND r.rolname = $3"""

_UNLISTED: Final = """
SELECT c.relname AS name,
  ARRAY(SELECT b.attname::text FROM pg_catalog.pg_attribute b
    WHERE b.attrelid = c.oid AND b.attnum > 0 AND NOT b.attisdropped) AS columns,
  EXISTS (SELECT FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisprimary AND i.indkey[0] = a.attnum) AS tenant_first,
  EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = ANY($4)
    AND (pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
      OR pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE, TRUNCATE, TRIGGER'))) AS reachable
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relname = ANY($3)
ORDER BY 1"""
