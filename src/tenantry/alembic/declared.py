"""What the models declare, as SQLAlchemy's metadata with what Alembic's own comparison needs besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa

from tenantry.databases._tables import Tables
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.databases.postgres.findings import ExpectedTable, expected_table, expected_words
from tenantry.databases.sqlite.dialect import SQLiteDialect
from tenantry.insights import INSIGHTS
from tenantry.schema import Collection, Field, KeyedModel, collection_of
from tenantry.tenants import OWN_COLLECTIONS

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

Database = Literal["postgresql", "sqlite"]
Key = tuple[str | None, str]
"""A table's schema, ``None`` for the default one, and its name."""

_INFO: Final = "tenantry"
_DIALECTS: Final = {"postgresql": PostgresDialect, "sqlite": SQLiteDialect}


@dataclass(frozen=True)
class Declared:
    """What the models declare.

    Attributes:
        database: The kind of database that the types are for.
        tables: The tables.
        collections: The collection of each table, except tables that no collection reaches.
        words: The collection whose words each of the other tables holds.
    """

    database: Database
    tables: Mapping[Key, sa.Table]
    collections: Mapping[Key, Collection]
    words: Mapping[Key, Collection]

    def expected(self) -> dict[Key, ExpectedTable]:
        """Return how each table is to be guarded; of none where the database has no policies."""
        if self.database != "postgresql":
            return {}
        rows = {key: expected_table(self.tables[key], item) for key, item in self.collections.items()}
        return rows | {key: expected_words(self.tables[key], item) for key, item in self.words.items()}

    def field(self, key: Key, column: str) -> Field | None:
        """Return the field behind a column, if it is one of a model's own."""
        collection = self.collections.get(key)
        return None if collection is None else collection.fields.get(column)


def metadata(models: Sequence[type[KeyedModel]], *, database: Database = "postgresql") -> sa.MetaData:
    """Return the tables of the models and of the SDK itself, for Alembic's ``target_metadata``.

    They are those that ``schema="create"`` makes: every key, reference and index begins with the tenant.

    Args:
        models: The models.
        database: The kind of database; revisions for one do not fit the other.

    Raises:
        SchemaError: A model cannot be declared like this; ``field`` names what.
    """
    collections = [*OWN_COLLECTIONS, INSIGHTS, *map(collection_of, models)]
    tables = Tables(_DIALECTS[database](), {collection.name: collection for collection in collections})
    found = tables.metadata
    declared = {(table.schema, table.name): tables.collection_of(table) for table in tables.values()}
    words = {(index.schema, index.name): tables.collection_of(index) for index in tables.indexes.values()}
    if database == "sqlite":
        sa.Table(
            "tenantry_fences", found, sa.Column("id", sa.Text, primary_key=True), sqlite_with_rowid=False
        )
    for table in found.tables.values():
        _drop_other_dialects(table, database)
    known = {(table.schema, table.name): table for table in found.tables.values()}
    found.info[_INFO] = Declared(database, known, declared, words)
    return found


def _drop_other_dialects(table: sa.Table, database: Database) -> None:
    """A revision for PostgreSQL need not say what SQLite would do."""
    items: list[sa.Table | sa.Index] = [table, *table.indexes]
    for item in items:
        for name in [name for name in item.kwargs if not name.startswith(f"{database}_")]:
            item.dialect_options.pop(name.partition("_")[0], None)


def declared_in(target: sa.MetaData | Sequence[sa.MetaData] | None) -> Declared | None:
    """Return what the models declare, if ``target_metadata`` holds it."""
    listed: Sequence[Any] = [] if target is None else [target] if isinstance(target, sa.MetaData) else target
    return next((item.info[_INFO] for item in listed if _INFO in item.info), None)


def governs(context: MigrationContext) -> bool:
    """Whether tenantry's guard applies: the environment's ``target_metadata`` holds our tables."""
    return declared_in(context.opts.get("target_metadata")) is not None
