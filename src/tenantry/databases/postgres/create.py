"""The tables that do not exist yet, as the statements that make them: for development."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from tenantry.databases._tables import Existing, Tables
from tenantry.databases.postgres.findings import ExpectedTable, expected_table, expected_tables
from tenantry.databases.postgres.policies import Roles
from tenantry.databases.postgres.search import fill_words, search_trigger
from tenantry.searching import searchable_fields


def missing_tables(tables: Tables, existing: Existing, roles: Roles) -> Iterator[str]:
    """Yield what makes the tables that are missing, with their policies, for the owner in one transaction."""
    for expected, (table, statements) in zip(expected_tables(tables), tables.ddl(), strict=True):
        if (table.schema, table.name) in existing:
            continue
        yield from [*statements, *expected.defaults(), *expected.statements(roles)]
        if tables.holds_words(table):
            yield from _words_of_old_rows(tables, existing, expected, table)


def _words_of_old_rows(
    tables: Tables, existing: Existing, index: ExpectedTable, table: sa.Table
) -> Iterator[str]:
    """Yield what keeps and makes the words of a table that was there before them."""
    collection = tables.collection_of(table)
    rows = expected_table(tables[collection.name], collection)
    if (tables[collection.name].schema, rows.table) not in existing:
        return
    yield from search_trigger(rows.schema, rows.table, searchable=True)
    guarded = [rows.name, index.name] if rows.kind == "tenant" else []
    # The policies hide every row from the owner too; in this transaction nobody else sees them lifted.
    yield from (f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY" for name in guarded)
    fields = [field.name for field in searchable_fields(collection)]
    yield from fill_words(rows.schema, rows.table, fields, tenant=rows.kind == "tenant")
    yield from (f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY" for name in guarded)
