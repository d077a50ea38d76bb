"""What the rows say about a plan: which find no tenant, and which refer to another tenant's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from tenantry.databases.postgres.adopt.paths import Paths, sql_name
from tenantry.databases.postgres.adopt.plan import KEEP, Plan, TablePlan
from tenantry.databases.postgres.adopt.schema import ForeignKey, Schema
from tenantry.databases.postgres.policies import TENANT_COLUMN, quote, quote_literal
from tenantry.errors import AdoptionError

# As `types.tenant_id` has it.
_TENANT_ID: Final = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_SHOWN: Final = 3


class Disagreement(NamedTuple):
    """A reference, and how many rows point with it at another tenant's row.

    Attributes:
        constraint: The foreign key's name.
        target: The full name of the table that it refers to.
        rows: How many rows do.
        examples: The keys of a few of them.
    """

    constraint: str
    target: str
    rows: int
    examples: tuple[str, ...]


class Evidence(NamedTuple):
    """What the rows of one table say.

    Attributes:
        table: Its full name.
        rows: How many there are.
        orphans: How many find no tenant.
        examples: The keys of a few of those.
        disagreements: The references to another tenant's rows; those without any are left out.
        agreeing: The references whose rows were compared and all agree.
        wrong: How many rows carry another ``tenant_id`` than their path gives; 0 before there is such a column.
    """

    table: str
    rows: int
    orphans: int
    examples: tuple[str, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    agreeing: tuple[str, ...] = ()
    wrong: int = 0


async def gather(connection: Any, schema: Schema, plan: Plan, *, adopted: bool = False) -> list[Evidence]:
    """Read every row of every tenant table once, and say what is odd. It locks nothing.

    Args:
        connection: An asyncpg connection that sees all rows.
        schema: What the database holds.
        plan: The plan.
        adopted: Whether the tables have their column ``tenant_id`` already, which is then compared.
    """
    paths = Paths(plan, adopted=adopted)
    return [await _of_table(connection, schema, plan, table, paths, adopted) for table in plan.ordered()]


async def _of_table(
    connection: Any, schema: Schema, plan: Plan, table: TablePlan, paths: Paths, adopted: bool
) -> Evidence:
    keys = references(schema, plan, table)
    tenant = f"t.{TENANT_COLUMN}" if adopted else paths.tenant(table, "t")
    conditions = [f"{paths.through(key, 't')} <> {tenant}" for key in keys]
    counts = [f"{tenant} IS NULL", _wrong(table, paths) if adopted else "false", *conditions]
    columns = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in counts)
    row = await connection.fetchrow(f"SELECT count(*), {columns} FROM {sql_name(table.table)} t")
    total, orphans, misled, *numbers = row
    return Evidence(
        table.table,
        total,
        orphans,
        await _examples(connection, schema, table, counts[0]) if orphans else (),
        tuple(
            [
                Disagreement(key.name, key.target, number, await _examples(connection, schema, table, where))
                for key, where, number in zip(keys, conditions, numbers, strict=True)
                if number
            ]
        ),
        tuple(key.name for key, number in zip(keys, numbers, strict=True) if not number),
        misled,
    )


def _wrong(table: TablePlan, paths: Paths) -> str:
    """Return the condition that a row carries another tenant than its path gives.

    One whose path leads nowhere any more, since a reference was set to NULL, keeps the tenant that it had; so does one
    of the root, whose key may change, such as a slug.
    """
    return "false" if table.kind == "root" else f"{paths.found(table, 't')} <> t.{TENANT_COLUMN}"


def references(schema: Schema, plan: Plan, table: TablePlan) -> list[ForeignKey]:
    """Return the references of a tenant table to tenant tables, without the one by which it finds its tenant.

    A reference of the root to itself joins tenants and is none that could be wrong.
    """
    return [
        key
        for key in schema.tables[table.table].foreign_keys
        if key.target in plan.tables
        and plan.tables[key.target].has_tenant
        and not (table.kind == "root" and key.target == plan.root)
        and not (key.target == table.parent and key.columns == table.by)
    ]


async def _examples(connection: Any, schema: Schema, table: TablePlan, condition: str) -> tuple[str, ...]:
    key = schema.tables[table.table].key
    shown = ", ".join(f"t.{quote(name)}" for name in key) or "t.ctid"
    rows = await connection.fetch(
        f"SELECT ROW({shown})::text AS key FROM {sql_name(table.table)} t WHERE {condition} ORDER BY 1 LIMIT {_SHOWN}"
    )
    return tuple(row["key"].strip("()") for row in rows)


def judge(plan: Plan, evidence: Iterable[Evidence]) -> list[str]:
    """Return what keeps the plan from being applied until the user decides."""
    problems = [
        f"{table.table}: kind is undecided: {'; '.join(table.reasons) or 'write what it is'}"
        for table in plan.of_kind("undecided")
    ]
    for found in evidence:
        table = plan.tables[found.table]
        if found.orphans:
            problems.append(
                f"{found.table}: {found.orphans} of {found.rows} rows find no tenant (such as "
                f"{', '.join(found.examples)}): "
                'mend them, or write orphans = "<tenant id>"'
            )
        if found.disagreements and table.disagreements != KEEP:
            problems += [
                f"{found.table}: {item.rows} rows refer by {item.constraint} to a row of {item.target} that is another "
                f'tenant\'s (such as {", ".join(item.examples)}): mend them, or write disagreements = "{KEEP}"'
                for item in found.disagreements
            ]
    return problems


async def with_people(connection: Any, schema: Schema, plan: Plan) -> Plan:
    """Say of each open table of people how many of them belong to several tenants."""
    tables = dict(plan.tables)
    for table in plan.of_kind("open"):
        for link in schema.tables.values():
            ours = [key for key in link.foreign_keys if key.target == table.table]
            roots = [key for key in link.foreign_keys if key.target == plan.root]
            if ours and roots and link.is_unique({*ours[0].columns, *roots[0].columns}):
                who, what = _listed(ours[0].columns), _listed(roots[0].columns)
                row = await connection.fetchrow(
                    f"SELECT count(*), count(*) FILTER (WHERE tenants > 1) FROM (SELECT count(DISTINCT ({what})) AS "
                    f"tenants FROM {link.sql} GROUP BY {who}) t"
                )
                why = (
                    f"{row[1]} of its rows belong to several tenants by {link.full}, {row[0]} to at least one"
                )
                tables[table.table] = replace(table, reasons=(why,))
    return replace(plan, tables=tables)


def with_orphans(plan: Plan, found: Iterable[Evidence], tenant: str) -> Plan:
    """Give a tenant the rows that find none, of each table that has such and does not get them by its parent."""
    tables = dict(plan.tables)
    lost = {item.table for item in found if item.orphans}
    for name in lost:
        if tables[name].parent not in lost:
            tables[name] = replace(tables[name], orphans=tenant)
    return replace(plan, tables=tables)


def with_agreement(plan: Plan, found: Iterable[Evidence]) -> Plan:
    """Say of each table which other references of its rows lead to the same tenant, and which do not."""
    tables = dict(plan.tables)
    for item in found:
        reasons = [f"all {item.rows} rows agree with {', '.join(item.agreeing)}"] if item.agreeing else []
        reasons += [
            f"{one.rows} of {item.rows} rows disagree with {one.constraint}" for one in item.disagreements
        ]
        tables[item.table] = replace(tables[item.table], reasons=(*tables[item.table].reasons, *reasons))
    return replace(plan, tables=tables)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))


async def check_keys(connection: Any, plan: Plan) -> None:
    """Check that the root's keys can be tenant ids.

    Raises:
        AdoptionError: Some cannot; the fix makes a column that can.
    """
    root, key = sql_name(plan.root), quote(plan.key)
    rows = await connection.fetch(
        f"SELECT {key}::text AS key FROM {root} WHERE {key}::text !~ {quote_literal(_TENANT_ID)} LIMIT {_SHOWN}"
    )
    if rows:
        shown = ", ".join(repr(row["key"]) for row in rows)
        made = f"left(trim(BOTH '-' FROM regexp_replace({key}::text, '[^A-Za-z0-9_.-]+', '-', 'g')), 63)"
        raise AdoptionError(
            f"{plan.root}.{plan.key} holds {shown}, which cannot be tenant ids: 1 to 63 of A-Z a-z 0-9 _ . - are.",
            fix=f"Use another column with --tenant-key, or make one: ALTER TABLE {root} ADD COLUMN tenant_key text "
            f"UNIQUE; UPDATE {root} SET tenant_key = {made}; ALTER TABLE {root} ALTER COLUMN tenant_key SET NOT NULL; "
            "then --tenant-key tenant_key. The application must fill it for new rows.",
        )


async def tenants(connection: Any, plan: Plan, schema: Schema) -> list[tuple[str, str]]:
    """Return the id and the name of each tenant, from the root's rows and from where the plan sends orphans."""
    columns = schema.tables[plan.root].columns
    name = next((name for name in ("name", "title", "display_name") if name in columns), plan.key)
    rows = await connection.fetch(
        f"SELECT {TENANT_COLUMN} AS id, COALESCE(NULLIF({quote(name)}::text, ''), {TENANT_COLUMN}) AS name "
        f"FROM {sql_name(plan.root)} ORDER BY 1"
    )
    found = {row["id"]: row["name"] for row in rows}
    for table in plan.of_kind("tenant"):
        if table.fallback is not None:
            found.setdefault(table.fallback, table.fallback)
    return sorted(found.items())


def correction(plan: Plan, name: str) -> str:
    """Return the statement that gives rows the tenant of their path, where they carry another."""
    table, paths = plan.tables[name], Paths(plan, adopted=True)
    return (
        f"WITH wrong AS (SELECT t.tableoid, t.ctid, {paths.found(table, 't')} AS tenant FROM {sql_name(name)} t "
        f"WHERE {_wrong(table, paths)} FOR NO KEY UPDATE OF t SKIP LOCKED) "
        f"UPDATE {sql_name(name)} t SET {TENANT_COLUMN} = wrong.tenant FROM wrong "
        "WHERE t.tableoid = wrong.tableoid AND t.ctid = wrong.ctid"
    )
