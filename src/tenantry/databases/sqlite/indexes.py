"""How SQLite runs a query, which indexes it has, and how one is made."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from tenantry.databases.sqlite.connection import Connection, in_transaction
from tenantry.ports import Catalog, Index, Plan
from tenantry.schema import Kind

ANSWERED: Final = frozenset(Kind) - {Kind.JSON, Kind.LIST}

_SCAN: Final = re.compile(
    r"(SCAN|SEARCH) (?!json_each)\w+(?: USING (?:COVERING )?(?:INDEX (\w+)|(PRIMARY KEY)))?(?: \((.*)\))?"
)
_INDEXES: Final = """
SELECT m.name, il.name, il."unique", il.partial, ii.name
FROM sqlite_schema m JOIN pragma_index_list(m.name) il JOIN pragma_index_info(il.name) ii
WHERE m.type = 'table' ORDER BY m.name, il.name, ii.seqno
"""
_REFERENCES: Final = """
SELECT m.name, fk.id, fk."from" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) fk
WHERE m.type = 'table' ORDER BY m.name, fk.id, fk.seq
"""


class Found(NamedTuple):
    """How a query would run, and whether it reads all rows of the tenant, or of the table."""

    plan: Plan
    reads_all: bool


def plan_of(details: Sequence[str]) -> Found:
    """Return what a query plan says: names of indexes and columns, and no values."""
    sorts = any("TEMP B-TREE" in detail for detail in details)
    for detail in details:
        scan = _SCAN.match(detail)
        if scan is not None:
            kind, index, key, terms = scan.groups()
            node = f"{kind} {'INDEX' if index else key or 'TABLE'}"
            # With no other term than the tenant's, an index gives at most the order.
            reads_all = terms in (None, "tenant_id=?") and (sorts or index is None)
            return Found(Plan(node, index, sorts=sorts), reads_all)
    return Found(Plan(details[0] if details else "", sorts=sorts), reads_all=False)


def catalog(connection: Connection) -> Catalog:
    """Return the indexes there are."""
    columns: defaultdict[tuple[str, str, bool, bool], list[str]] = defaultdict(list)
    references: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    with connection.trusted():
        for table, name, unique, partial, column in connection.raw.execute(_INDEXES):
            columns[table, name, bool(unique), bool(partial)].append(column or "")
        for table, number, column in connection.raw.execute(_REFERENCES):
            references[table, number].append(column)
    found = []
    for (table, name, unique, partial), names in columns.items():
        behind = any(of == table and names[: len(keys)] == keys for (of, _), keys in references.items())
        plain = not partial and "" not in names
        found.append(Index(table, tuple(names), name, unique=unique, required=unique or behind, plain=plain))
    return Catalog(tuple(found))


def create_statement(index: Index) -> str:
    """Return the DDL that makes an index."""
    columns = ", ".join(f'"{name}"' for name in index.columns)
    return f'CREATE INDEX IF NOT EXISTS "{index.name}" ON "{index.table}" ({columns})'


def drop_statement(index: Index) -> str:
    """Return the DDL that drops an index."""
    return f'DROP INDEX IF EXISTS "{index.name}"'


def create(connection: Connection, index: Index) -> bool:
    """Make an index, unless it exists. Return whether it had to be made."""

    def work() -> bool:
        exists = "SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?"
        if connection.raw.execute(exists, (index.name,)).fetchone():
            return False
        connection.raw.execute(create_statement(index))
        _measure(connection, index)
        return True

    with connection.trusted():
        return in_transaction(connection, work)


def _measure(connection: Connection, index: Index) -> None:
    """Have the indexes of a table measured: unmeasured, SQLite takes it that a tenant has ten rows, and reads them all.

    It keeps averages. Where it was built to keep samples too, these would be values of tenants that outlive a purge.
    """
    connection.raw.execute("PRAGMA analysis_limit=1000")
    connection.raw.execute(f'ANALYZE "{index.table}"')
    if connection.raw.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat4'").fetchone():
        connection.raw.execute("DELETE FROM sqlite_stat4")


def drop(connection: Connection, index: Index) -> None:
    """Drop an index, if it exists."""
    with connection.trusted():
        in_transaction(connection, lambda: connection.script([drop_statement(index)]))
