"""Proposes a plan: which table is the root, and how the rows of the others find their tenant."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from tenantry.databases.postgres.adopt.paths import Paths, sql_name
from tenantry.databases.postgres.adopt.plan import Plan, TablePlan
from tenantry.databases.postgres.adopt.schema import ForeignKey, Schema, Table
from tenantry.databases.postgres.policies import TENANT_COLUMN, quote
from tenantry.errors import AdoptionError, ConfigurationError

_ROOT_NAMES: Final = re.compile(
    r"(^|_)(organi[sz]ation|tenant|account|company|companie|customer|workspace|team|client|shop|store)s?$"
)
# Rows of these are written for people who may have no tenant yet.
_SESSIONS: Final = re.compile(r"(^|_)(session|sessions)$")
_CONTENT_TYPES: Final = "public.django_content_type"
_PEOPLE: Final = re.compile(r"(^|_)(user|users|member|members|person|people|profile|profiles)$")


class Candidate(NamedTuple):
    """A table that may be the root.

    Attributes:
        table: Its full name.
        score: The higher the likelier.
        reasons: Why.
    """

    table: str
    score: int
    reasons: tuple[str, ...]


def guess_root(schema: Schema) -> list[Candidate]:
    """Return the tables that may be the root, the likeliest first."""
    referring: defaultdict[str, set[str]] = defaultdict(set)
    for table in schema.tables.values():
        for key in table.foreign_keys:
            if key.target != table.full:
                referring[key.target].add(table.full)
    found = []
    for table in schema.tables.values():
        named = _ROOT_NAMES.search(table.name) is not None
        below = len(_reaching(table.full, referring))
        direct = len(referring[table.full])
        if direct:
            reasons = (
                *(("its name",) if named else ()),
                f"{direct} tables refer to it, {below} lead to it",
            )
            found.append(
                Candidate(table.full, below + direct + (len(schema.tables) if named else 0), reasons)
            )
    return sorted(found, key=lambda candidate: (-candidate.score, candidate.table))


def _reaching(root: str, referring: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [root]
    while todo:
        new = referring.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen - {root}


def choose_root(schema: Schema, named: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the root's full name, and why it was chosen.

    Raises:
        ConfigurationError: There is no such table, or none stands out.
    """
    if named is not None:
        full = named if "." in named else f"public.{named}"
        if full not in schema.tables:
            raise ConfigurationError(f"There is no table {full}.", field="tenant_table")
        return full, ("you named it",)
    candidates = guess_root(schema)
    if not candidates or (len(candidates) > 1 and candidates[0].score == candidates[1].score):
        listed = "; ".join(f"{found.table} ({', '.join(found.reasons)})" for found in candidates[:5])
        raise ConfigurationError(
            f"No table stands out as the one whose rows are the tenants{f': {listed}' if listed else ''}.",
            field="tenant_table",
            fix="Name it: --tenant-table public.organizations",
        )
    return candidates[0].table, candidates[0].reasons


def choose_key(table: Table, named: str | None) -> str:
    """Return the column of the root that becomes the tenant's id.

    Raises:
        ConfigurationError: There is no such column, or two rows may share a value of it.
    """
    name = named or (table.key[0] if len(table.key) == 1 else "")
    if not name:
        raise ConfigurationError(
            f"{table.full} has no primary key of one column.",
            field="tenant_key",
            fix="Name a unique column of it: --tenant-key slug",
        )
    if name not in table.columns:
        raise ConfigurationError(f"{table.full} has no column {name}.", field="tenant_key")
    if table.columns[name].nullable or not table.is_unique([name]):
        raise ConfigurationError(
            f"{table.full}.{name} may be NULL or be shared by two rows, so it names no tenant.",
            field="tenant_key",
            fix=f"Name another column with --tenant-key, or first run: ALTER TABLE {table.sql} ALTER COLUMN "
            f"{quote(name)} SET NOT NULL, ADD UNIQUE ({quote(name)})",
        )
    return name


@dataclass(frozen=True, slots=True)
class _Hop:
    """The way from a table to its parent.

    Attributes:
        cost: How many nullable references, then how many at all, lead to the root.
        key: The first of them.
    """

    cost: tuple[int, int]
    key: ForeignKey


def propose(
    schema: Schema, root: str, key: str, *, reasons: Sequence[str] = (), scope_unique: bool = False
) -> Plan:
    """Propose a plan from the references alone.

    Args:
        schema: What the database holds.
        root: The full name of the root.
        key: Its column that becomes the tenant's id.
        reasons: Why it is the root.
        scope_unique: Whether unique constraints are to be widened.

    Raises:
        AdoptionError: A table cannot be adopted as it is.
    """
    _check(schema)
    tables = {
        name: TablePlan(name, "skip", reasons=("it is tenantry's already",))
        for name, table in schema.tables.items()
        if table.adopted
    }
    tables[root] = TablePlan(root, "root", reasons=(f"chosen because {', '.join(reasons)}",))
    hops = _hops(schema, root, set(tables) - {root})
    people = _people(schema, root, hops)
    for name in people:
        hops = {at: hop for at, hop in hops.items() if at != name}
    hops = _hops(schema, root, (set(tables) - {root}) | set(people))
    for name, found in hops.items():
        tables[name] = _tenant(schema, name, found)
    tables |= {name: TablePlan(name, "open", reasons=(why,)) for name, why in people.items()}
    for name in _leftover(schema, tables):
        tables[name] = _without_path(schema, name, tables)
    return Plan(root, key, tables, scope_unique, tuple(_notes(schema, tables)))


def _check(schema: Schema) -> None:
    for table in schema.tables.values():
        if table.adopted:
            continue
        if TENANT_COLUMN in table.columns:
            raise AdoptionError(
                f"{table.full} already has a column {TENANT_COLUMN}, which is the one that tenantry would add.",
                fix=f"Rename it first: ALTER TABLE {table.sql} RENAME COLUMN {TENANT_COLUMN} TO tenant_ref "
                "(in Django: db_column), and let the application use the new name.",
            )
        if table.secured:
            raise AdoptionError(
                f"{table.full} has row-level security of its own.",
                fix=f"Look at its policies; then: ALTER TABLE {table.sql} DISABLE ROW LEVEL SECURITY, and drop them.",
            )
        if len(table.parts) > len(table.leaves):
            raise AdoptionError(
                f"{table.full} has partitions of partitions, which cannot be adopted yet.",
                fix="Give it one level of partitions, or leave it out with the rest of its schema.",
            )
        if table.inherits:
            raise AdoptionError(
                f"{table.full} takes part in table inheritance: policies of one table do not hold for the other.",
                fix="Make it a partitioned table, or end the inheritance: ALTER TABLE … NO INHERIT …",
            )
        if "." in table.schema:
            raise AdoptionError(
                f"The schema {table.schema!r} has a dot in its name.",
                fix="Rename it: ALTER SCHEMA … RENAME TO …",
            )


def _hops(schema: Schema, root: str, barred: set[str]) -> dict[str, _Hop]:
    """Return for each table that leads to the root its best first step: first the fewest that may be NULL."""
    cost: dict[str, tuple[int, int]] = {root: (0, 0)}
    best: dict[str, _Hop] = {}
    open_tables = {root}
    while open_tables:
        at = min(open_tables, key=lambda name: (cost[name], name))
        open_tables.remove(at)
        for table, key in _referring(schema, at):
            if table in (root, at) or table in barred:
                continue
            new = (cost[at][0] + key.nullable, cost[at][1] + 1)
            if table not in cost or new < cost[table]:
                cost[table], best[table] = new, _Hop(new, key)
                open_tables.add(table)
    return best


def _referring(schema: Schema, target: str) -> Iterator[tuple[str, ForeignKey]]:
    for table in schema.tables.values():
        for key in table.foreign_keys:
            if key.target == target:
                yield table.full, key


def _tenant(schema: Schema, name: str, hop: _Hop) -> TablePlan:
    key = hop.key
    reasons = []
    if hop.cost[0]:
        reasons.append(f"{hop.cost[0]} reference(s) on its way may be NULL")
    others = [
        other
        for other in schema.tables[name].foreign_keys
        if other is not key and other.target == key.target and other.target != name
    ]
    if others:
        listed = ", ".join("(" + ", ".join(other.columns) + ")" for other in others)
        reasons.append(f"also refers to {key.target} by {listed}")
    return TablePlan(
        name, "tenant", parent=key.target, by=key.columns, references=key.references, reasons=tuple(reasons)
    )


def _people(schema: Schema, root: str, hops: Mapping[str, _Hop]) -> dict[str, str]:
    """Return tables of people who may belong to several tenants: linked with the root, not owned by one row of it."""
    found = {}
    for name, table in schema.tables.items():
        if name == root or _PEOPLE.search(table.name) is None:
            continue
        links = [
            link.full
            for link in schema.tables.values()
            if link.full not in (root, name)
            and {root, name} <= {key.target for key in link.foreign_keys}
            and _links(link, root, name)
        ]
        direct = hops.get(name)
        if links and (direct is None or direct.cost[0] or direct.key.target != root):
            found[name] = f"its rows may belong to several tenants, by {', '.join(sorted(links))}"
    return found


def _links(link: Table, root: str, other: str) -> bool:
    """Whether a table pairs rows of the two: their references together are unique, and each is required."""
    pairs = [
        {*one.columns, *two.columns}
        for one in link.foreign_keys
        for two in link.foreign_keys
        if one.target == root and two.target == other and not (one.nullable or two.nullable)
    ]
    return any(link.is_unique(pair) for pair in pairs)


def _leftover(schema: Schema, tables: Mapping[str, TablePlan]) -> list[str]:
    """Return the tables that are not planned yet, those referred to first where that can be."""
    left = {name for name in schema.tables if name not in tables}
    ordered: list[str] = []
    while left:
        ready = {
            name
            for name in left
            if not any(key.target in left - {name} for key in schema.tables[name].foreign_keys)
        }
        batch = sorted(ready or left)
        ordered += batch
        left -= set(batch)
    return ordered


def _without_path(schema: Schema, name: str, tables: Mapping[str, TablePlan]) -> TablePlan:
    table = schema.tables[name]
    if _is_generic(table):
        return TablePlan(
            name, "undecided", reasons=("it refers to rows of any table by content_type_id, object_id",)
        )
    for key in table.foreign_keys:
        target = tables.get(key.target)
        if target is not None and target.kind == "open":
            return TablePlan(name, "open", reasons=(f"it belongs to {key.target}, which is open",))
    if _SESSIONS.search(table.name):
        return TablePlan(name, "open", reasons=("sessions are read and written before the tenant is known",))
    if _PEOPLE.search(table.name):
        return TablePlan(
            name,
            "undecided",
            reasons=("it may hold people, and nothing in it leads to a tenant: shared, or open?",),
        )
    return TablePlan(name, "shared", reasons=("nothing in it leads to a tenant",))


def _is_generic(table: Table) -> bool:
    columns = table.columns
    return (
        any(
            key.target == _CONTENT_TYPES and key.columns == ("content_type_id",) for key in table.foreign_keys
        )
        and "object_id" in columns
        and not columns["content_type_id"].nullable
        and not columns["object_id"].nullable
    )


def _notes(schema: Schema, tables: Mapping[str, TablePlan]) -> Iterator[str]:
    for view in schema.views:
        below = sorted(name for name in view.tables if tables[name].has_tenant)
        if below and view.materialized:
            yield (
                f"{view.full} is a materialized view of tenant rows ({', '.join(below)}): row-level security does not "
                "apply to it, so no tenant's role will reach it; and its owner, once enforced, refreshes it to nothing."
            )
        elif below and not view.invoker:
            yield (
                f"{view.full} shows tenant rows; `enforce --canary` makes it ask with the reader's rights "
                "(security_invoker), so whoever reads it needs rights on its tables too."
            )
    for name, plan in sorted(tables.items()):
        if schema.tables[name].public and plan.kind not in ("skip", "undecided"):
            rights = ", ".join(schema.tables[name].public)
            yield f"{name}: PUBLIC has {rights}, which `enforce --canary` takes away; grant it to those who need it."
        if any(schema.tables[name].columns[column].nullable for column in plan.by):
            columns = ", ".join(plan.by)
            yield (
                f"{name} finds its tenant by {columns}, which may be NULL: from `apply` on, such a row is refused, "
                "unless its `orphans` names a tenant."
            )
        if plan.has_tenant and schema.tables[name].user_triggers:
            triggers = ", ".join(schema.tables[name].user_triggers)
            yield (
                f"{name} has triggers of its own on UPDATE ({triggers}); the backfill fires them unless its role "
                "may set session_replication_role."
            )


async def settle_generic(connection: Any, schema: Schema, plan: Plan) -> Plan:
    """Decide on tables that refer to any other by a Django content type, from the types that their rows have.

    Args:
        connection: An asyncpg connection that may read the tables.
        schema: What the database holds.
        plan: A proposal.
    """
    tables = dict(plan.tables)
    paths = Paths(plan, adopted=False)
    for table in plan.of_kind("undecided"):
        if not _is_generic(schema.tables[table.table]):
            continue
        rows = await connection.fetch(_TYPES_IN_USE.format(table=sql_name(table.table)))
        targets = {row["id"]: f"public.{row['app_label']}_{row['model']}" for row in rows}
        strangers = sorted(
            name for name in targets.values() if name not in tables or not tables[name].has_tenant
        )
        if strangers or not targets:
            what = f"rows of {', '.join(strangers)}, which have no tenant" if strangers else "no row yet"
            tables[table.table] = replace(table, reasons=(*table.reasons, f"it refers to {what}"))
            continue
        listed = ", ".join(sorted(targets.values()))
        cases = " ".join(_case(number, name, schema, paths, plan) for number, name in sorted(targets.items()))
        tables[table.table] = TablePlan(
            table.table,
            "tenant",
            sql=f"CASE {{row}}.content_type_id {cases} END",
            reasons=(
                f"its rows refer to {listed} by content_type_id, object_id",
                "a row of another content type is refused once it is adopted: add a WHEN for it first",
            ),
        )
    return replace(plan, tables=tables)


def _case(number: int, name: str, schema: Schema, paths: Paths, plan: Plan) -> str:
    table = schema.tables[name]
    (key,) = table.key
    found = paths.tenant(plan.tables[name], "target")
    cast = table.columns[key].type
    return (
        f"WHEN {int(number)} THEN (SELECT {found} FROM {sql_name(name)} target "
        f"WHERE target.{quote(key)} = {{row}}.object_id::{cast})"
    )


_TYPES_IN_USE: Final = """
SELECT DISTINCT c.id, c.app_label, c.model FROM {table} t
JOIN public.django_content_type c ON c.id = t.content_type_id ORDER BY 1"""
