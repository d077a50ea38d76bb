"""What `apply` does, step by step: each with its SQL, the locks that it takes, and what undoes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tenantry.databases.postgres.adopt.access import role_name
from tenantry.databases.postgres.adopt.paths import Paths
from tenantry.databases.postgres.adopt.plan import Plan, TablePlan
from tenantry.databases.postgres.adopt.schema import Schema, Table, UniqueKey
from tenantry.databases.postgres.adopt.triggers import (
    fill_function,
    fill_triggers,
    move_function,
    move_trigger,
)
from tenantry.databases.postgres.policies import TENANT_COLUMN, quote, table_name

_PLAIN: Final = re.compile(r"UNIQUE \([^()]+\)( DEFERRABLE.*)?")
CHECK: Final = "tenantry_has_tenant"
How = Literal["transaction", "concurrently", "backfill"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step, done once.

    Attributes:
        name: Names it in the journal.
        how: As one transaction; as statements that wait for others instead of locking them out; or row by row.
        statements: The SQL. A backfill has one statement for a range of pages, ``$1`` to ``$2``.
        lock: What it locks and for how long, for people.
        tables: The quoted names of the tables to lock first.
        mode: In which mode.
        undo: What undoes it.
        index: For an index that is made concurrently: its quoted name, since a failed one stays behind, invalid.
        table: The full name of the table it is about.
    """

    name: str
    how: How
    statements: tuple[str, ...]
    lock: str
    tables: tuple[str, ...] = ()
    mode: str = "ACCESS EXCLUSIVE"
    undo: tuple[str, ...] = ()
    index: str | None = None
    table: str | None = None


def apply_steps(schema: Schema, plan: Plan, writers: Sequence[str], owner: str) -> list[Step]:
    """Return the steps of `apply`, in their order.

    Args:
        schema: What the database holds.
        plan: The plan.
        writers: The roles that write today and cannot call ``tenantry.current_tenant()`` yet; ``""`` is PUBLIC.
        owner: Who owns the schema ``tenantry``.
    """
    paths = Paths(plan, adopted=True)
    ordered = plan.ordered()
    return [
        *_grants(writers),
        *(_column(schema.tables[table.table], table, paths, owner) for table in ordered),
        *(step for table in ordered for step in _follow(schema.tables[table.table], plan, owner)),
        *(step for table in ordered for step in _backfill(schema.tables[table.table], table, paths)),
        *(step for table in ordered for step in _not_null(schema.tables[table.table])),
        *(step for table in ordered for step in _indexes(schema, plan, schema.tables[table.table])),
    ]


def _grants(writers: Sequence[str]) -> Iterator[Step]:
    if not writers:
        return
    listed = ", ".join(map(role_name, writers))
    rights = ("USAGE ON SCHEMA tenantry", "EXECUTE ON FUNCTION tenantry.current_tenant()")
    yield Step(
        "writers",
        "transaction",
        tuple(f"GRANT {right} TO {listed}" for right in rights),
        "no table; the roles that write today may then ask who the connection's tenant is",
        undo=tuple(f"REVOKE {right} FROM {listed}" for right in reversed(rights)),
    )


def _column(table: Table, planned: TablePlan, paths: Paths, owner: str) -> Step:
    function, triggers = fill_function(table, planned, paths, owner), fill_triggers(table, planned)
    return Step(
        f"column {table.full}",
        "transaction",
        (
            f"ALTER TABLE {table.sql} ADD COLUMN {TENANT_COLUMN} text",
            f"ALTER TABLE {table.sql} ALTER COLUMN {TENANT_COLUMN} SET DEFAULT tenantry.current_tenant()",
            *function.create,
            *triggers.create,
        ),
        f"ACCESS EXCLUSIVE on {table.full}, for milliseconds: the catalog changes, no row does",
        tables=(table.sql,),
        undo=(
            *triggers.drop,
            *function.drop,
            f"ALTER TABLE {table.sql} DROP COLUMN IF EXISTS {TENANT_COLUMN}",
        ),
        table=table.full,
    )


def _follow(table: Table, plan: Plan, owner: str) -> Iterator[Step]:
    # Only once the children have the column as well.
    function, trigger = move_function(table, plan, owner), move_trigger(table, plan)
    if trigger.create:
        yield Step(
            f"follow {table.full}",
            "transaction",
            (*function.create, *trigger.create),
            f"SHARE ROW EXCLUSIVE on {table.full}, for milliseconds: the catalog changes, no row does",
            tables=(table.sql,),
            mode="SHARE ROW EXCLUSIVE",
            undo=(*trigger.drop, *function.drop),
            table=table.full,
        )


def _backfill(table: Table, planned: TablePlan, paths: Paths) -> Iterator[Step]:
    for leaf in table.leaves:
        found = paths.tenant(planned, "t")
        yield Step(
            f"backfill {table.full}" + (f" {leaf}" if len(table.leaves) > 1 else ""),
            "backfill",
            (
                f"WITH free AS (SELECT t.ctid, {found} AS tenant FROM {leaf} t "
                f"WHERE t.ctid >= $1::tid AND t.ctid < $2::tid AND t.{TENANT_COLUMN} IS NULL "
                "FOR NO KEY UPDATE OF t SKIP LOCKED) "
                f"UPDATE {leaf} t SET {TENANT_COLUMN} = free.tenant FROM free "
                # The range a second time, so that no plan reads the whole table for one batch.
                "WHERE t.ctid = free.ctid AND t.ctid >= $1::tid AND t.ctid < $2::tid AND free.tenant IS NOT NULL",
            ),
            f"the rows of one batch of {table.full} against other writers, until the batch commits; it waits for none",
            tables=(leaf,),
            table=table.full,
        )


def _not_null(table: Table) -> Iterator[Step]:
    name = table.sql
    yield Step(
        f"check {table.full}",
        "transaction",
        (f"ALTER TABLE {name} ADD CONSTRAINT {CHECK} CHECK ({TENANT_COLUMN} IS NOT NULL) NOT VALID",),
        f"ACCESS EXCLUSIVE on {table.full}, for milliseconds: it holds for new rows, old ones are not read",
        tables=(name,),
        table=table.full,
    )
    yield Step(
        f"validate {table.full}",
        "transaction",
        (f"ALTER TABLE {name} VALIDATE CONSTRAINT {CHECK}",),
        f"SHARE UPDATE EXCLUSIVE on {table.full}, while its rows are read: reads and writes go on",
        tables=(name,),
        mode="SHARE UPDATE EXCLUSIVE",
        table=table.full,
    )
    yield Step(
        f"not null {table.full}",
        "transaction",
        (
            f"ALTER TABLE {name} ALTER COLUMN {TENANT_COLUMN} SET NOT NULL",
            f"ALTER TABLE {name} DROP CONSTRAINT {CHECK}",
        ),
        f"ACCESS EXCLUSIVE on {table.full}, for milliseconds: the constraint proves it, no row is read",
        tables=(name,),
        table=table.full,
    )


def _indexes(schema: Schema, plan: Plan, table: Table) -> Iterator[Step]:
    wanted: dict[tuple[str, ...], bool] = {}
    if table.full == plan.root:
        wanted[()] = True
    if table.key:
        wanted[table.key] = True
    for key in table.foreign_keys:
        if key.target in plan.tables and plan.tables[key.target].has_tenant:
            wanted.setdefault(key.columns, False)
    if plan.scope_unique:
        wanted |= {unique.columns: True for unique in widened(table)}
    if not wanted:
        wanted[()] = False
    for columns, unique in wanted.items():
        yield from _index(table, columns, unique)


def widened(table: Table) -> list[UniqueKey]:
    """Return the unique constraints that `--scope-unique` widens: plain ones that no foreign key relies on."""
    if table.partitioned:
        return []  # a constraint of these cannot be made from an index
    return [
        key
        for key in table.unique
        if key.constraint and not key.referred_to and _PLAIN.fullmatch(key.definition)
    ]


def index_name(table: Table, columns: Sequence[str]) -> str:
    """Return the name of an index of ours, at most 63 bytes long."""
    full = "_".join(["tenantry", table.name, *columns, "idx"])
    if len(full.encode()) <= 63:
        return full
    digest = hashlib.blake2b(full.encode(), digest_size=6).hexdigest()
    return f"tenantry_{table.oid}_{digest}_idx"


def _index(table: Table, columns: tuple[str, ...], unique: bool) -> Iterator[Step]:
    name = index_name(table, columns)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    listed = ", ".join(map(quote, (TENANT_COLUMN, *columns)))
    if not table.partitioned:
        yield _concurrently(table, table.sql, table_name(table.schema, name), name, kind, listed)
        return
    whole = table_name(table.schema, name)
    yield Step(
        f"index {name}",
        "transaction",
        (f"CREATE {kind} {quote(name)} ON ONLY {table.sql} ({listed})",),
        f"SHARE on {table.full}, for milliseconds: the partitions get theirs one by one",
        tables=(table.sql,),
        mode="SHARE",
        undo=(f"DROP INDEX IF EXISTS {whole}",),
        table=table.full,
    )
    for leaf in table.leaves:
        part = f"tenantry_{hashlib.blake2b(f'{name} {leaf}'.encode(), digest_size=8).hexdigest()}_idx"
        schema = leaf.rpartition(".")[0]
        yield _concurrently(table, leaf, f"{schema}.{quote(part)}", part, kind, listed)
        yield Step(
            f"attach {part}",
            "transaction",
            (f"ALTER INDEX {whole} ATTACH PARTITION {schema}.{quote(part)}",),
            f"ACCESS EXCLUSIVE on an index of {leaf}, for milliseconds",
            table=table.full,
        )


def _concurrently(table: Table, on: str, index: str, name: str, kind: str, columns: str) -> Step:
    return Step(
        f"index {name}",
        "concurrently",
        (f"CREATE {kind} CONCURRENTLY {quote(name)} ON {on} ({columns})",),
        f"SHARE UPDATE EXCLUSIVE on {table.full}, while its rows are read twice: reads and writes go on",
        undo=() if table.partitioned else (f"DROP INDEX IF EXISTS {index}",),
        index=index,
        table=table.full,
    )
