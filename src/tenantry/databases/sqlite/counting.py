"""Counting rows in the file itself, and holding tenants to their limits.

Triggers add each row that is written or deleted, also by a cascade, to ``tenantry_usage``. They are made when an SDK
first opens the file with plans that limit rows or storage, and again when a table was made anew; from then on every
process counts. Since the file has one writer at a time, what a write has made of the counters can simply be looked at
before its transaction ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa

from tenantry.databases.sqlite.connection import COUNT_TRIGGER, Connection, Reach
from tenantry.plans.quotas import Count, amounts, check_growth, stored_limits

T = TypeVar("T")

_EVENTS: Final = ("insert", "update", "delete")
_LIMITS: Final = """SELECT t.plan, t.quotas, p.quotas, EXISTS (SELECT 1 FROM tenantry_plans)
FROM tenantry_tenants t LEFT JOIN tenantry_plans p ON p.id = t.plan WHERE t.id = ?"""
_COUNTED: Final = """SELECT collection, sum(row_count), sum(byte_count) FROM tenantry_usage
WHERE tenant = ? GROUP BY collection"""
_REACH: Final = Reach(frozenset({"tenantry_tenants", "tenantry_plans", "tenantry_usage"}))


def triggers_of(tables: Iterable[sa.Table]) -> dict[str, str]:
    """Return the statement that makes each trigger, by its name."""
    found = {}
    for table in tables:
        for event in _EVENTS:
            name = f"{COUNT_TRIGGER}{event}_{table.name}"
            found[name] = _trigger(name, event, table)
    return found


def _trigger(name: str, event: str, table: sa.Table) -> str:
    new, old = _size("NEW", table), _size("OLD", table)
    row, rows, size = {
        "insert": ("NEW", "1", new),
        "update": ("NEW", "0", f"({new}) - ({old})"),
        "delete": ("OLD", "-1", f"-({old})"),
    }[event]
    return (
        f"CREATE TRIGGER {_quote(name)} AFTER {event.upper()} ON {_quote(table.name)} BEGIN "  # noqa: S608 - names
        "INSERT INTO tenantry_usage "
        "(id, tenant, collection, row_count, byte_count, version, created_at, updated_at) VALUES "
        f"({row}.tenant_id || '/' || {_text(table.name)}, {row}.tenant_id, {_text(table.name)}, {rows}, {size}, "
        "1, 0, 0) ON CONFLICT (id) DO UPDATE SET row_count = row_count + excluded.row_count, "
        "byte_count = byte_count + excluded.byte_count; END"
    )


def _size(row: str, table: sa.Table) -> str:
    columns = (f"coalesce(length(CAST({row}.{_quote(column.name)} AS BLOB)), 0)" for column in table.columns)
    return " + ".join(columns)


def counts_already(connection: Connection, tables: Iterable[sa.Table]) -> bool:
    """Whether every trigger is there, and as it is to be."""
    with connection.trusted():
        found = dict(connection.raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    return all(found.get(name) == text for name, text in triggers_of(tables).items())


def begin_counting(connection: Connection, tables: Iterable[sa.Table]) -> None:
    """Make the triggers, and count what is there already. To be called in a transaction."""
    listed = list(tables)
    if counts_already(connection, listed):
        return  # another process was first
    with connection.trusted():
        connection.raw.execute("DELETE FROM tenantry_usage")
        for name, text in triggers_of(listed).items():
            connection.raw.execute(f"DROP TRIGGER IF EXISTS {_quote(name)}")
            connection.raw.execute(text)
        for table in listed:
            connection.raw.execute(_base(table))


def _base(table: sa.Table) -> str:
    name = _quote(table.name)
    return (
        "INSERT INTO tenantry_usage (id, tenant, collection, row_count, byte_count, version, created_at, updated_at) "  # noqa: S608
        f"SELECT tenant_id || '/' || {_text(table.name)}, tenant_id, {_text(table.name)}, count(*), "
        f"sum({_size(name, table)}), 1, 0, 0 FROM {name} GROUP BY tenant_id"
    )


def counted(connection: Connection, tenant_id: str) -> list[Count]:
    """Return what the counters say that a tenant has."""
    rows = connection.look(_COUNTED, (tenant_id,), _REACH)
    return [Count(*row) for row in rows]


def true_counts(connection: Connection, tables: Iterable[sa.Table], tenant_id: str) -> list[Count]:
    """Count a tenant's rows themselves."""
    found = []
    with connection.trusted():
        for table in tables:
            text = f"SELECT count(*), coalesce(sum({_size(_quote(table.name), table)}), 0) FROM {_quote(table.name)}"  # noqa: S608
            row = connection.raw.execute(f"{text} WHERE tenant_id = ?", (tenant_id,)).fetchone()
            found.append(Count(str(table.name), *row))
    return found


def recount(connection: Connection, tables: Iterable[sa.Table], tenant_id: str) -> list[Count]:
    """Mend the counters of a tenant. Return by how much each was wrong. To be called in a transaction."""
    known = {count.collection: count for count in counted(connection, tenant_id)}
    drift = []
    for truth in true_counts(connection, tables, tenant_id):
        had = known.get(truth.collection, Count(truth.collection, 0, 0))
        if (truth.rows, truth.size) != (had.rows, had.size):
            drift.append(Count(truth.collection, truth.rows - had.rows, truth.size - had.size))
    with connection.trusted():
        for wrong in drift:
            connection.raw.execute(
                _MEND,
                (
                    f"{tenant_id}/{wrong.collection}",
                    tenant_id,
                    wrong.collection,
                    wrong.rows,
                    wrong.size,
                ),
            )
    return drift


_MEND: Final = """INSERT INTO tenantry_usage
(id, tenant, collection, row_count, byte_count, version, created_at, updated_at) VALUES (?, ?, ?, ?, ?, 1, 0, 0)
ON CONFLICT (id) DO UPDATE SET row_count = row_count + excluded.row_count,
  byte_count = byte_count + excluded.byte_count"""


def limited(connection: Connection, tenant_id: str, work: Callable[[], T]) -> T:
    """Do ``work``, which writes, and refuse it where it made the tenant grow past a limit.

    Raises:
        QuotaExceeded: It did. What it wrote goes with the transaction.
    """
    rows = connection.look(_LIMITS, (tenant_id,), _REACH)
    plan, own, of_plan, any_plan = rows[0] if rows else (None, "{}", None, False)
    plans: dict[str | None, Any] = {None: {}} if any_plan else {}
    if of_plan is not None:
        plans[plan] = msgspec.json.decode(of_plan)
    limits = stored_limits(plan, plans, msgspec.json.decode(own))
    if not limits:
        return work()
    before = amounts(counted(connection, tenant_id))
    done = work()
    check_growth(before, amounts(counted(connection, tenant_id)), limits, tenant_id=tenant_id, plan=plan)
    return done


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
