"""``op.index_words("products", ["name"])``: the words of the rows there are, for fields that become searchable."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations, ops

from tenantry.alembic.declared import Declared
from tenantry.alembic.operations import GuardOp, every_row, verbatim
from tenantry.databases._search import WordsOfRows
from tenantry.databases._tables import rank_column, word_table
from tenantry.databases.postgres.search import fill_words
from tenantry.searching import searchable_fields


@Operations.register_operation("index_words", "index_words")
class IndexWordsOp(MigrateOperation):
    """Makes the words of a table's rows anew."""

    def __init__(
        self, table_name: str, fields: Sequence[str], *, schema: str | None = None, tenant: bool = True
    ) -> None:
        self.table_name = table_name
        self.fields = tuple(fields)
        self.schema = schema
        self.tenant = tenant

    @classmethod
    def index_words(
        cls,
        operations: Operations,
        table_name: str,
        fields: Sequence[str],
        *,
        schema: str | None = None,
        tenant: bool = True,
    ) -> None:
        """Make the words of the rows there are, every tenant's. Nobody else uses the table meanwhile.

        Args:
            operations: Alembic's.
            table_name: The table.
            fields: Its searchable fields.
            schema: Its schema.
            tenant: Whether its rows belong to tenants.
        """
        operations.invoke(cls(table_name, fields, schema=schema, tenant=tenant))

    def reverse(self) -> MigrateOperation:
        """Return nothing to do: on the way down the words go, or stay as they are."""
        return KeepWordsOp(self)

    def to_diff_tuple(self) -> tuple[str, str]:
        """Return what ``alembic check`` prints."""
        return ("index_words", self.table_name)


class KeepWordsOp(MigrateOperation):
    """Nothing: the way down leaves the words, or drops them."""

    def __init__(self, kept: IndexWordsOp) -> None:
        self.kept = kept

    def reverse(self) -> MigrateOperation:
        """Return the operation that makes them."""
        return self.kept


def index_words(upgrade: ops.UpgradeOps, declared: Declared) -> None:
    """Add what makes the words of rows that were written before anything kept their words."""
    tables = [item.table_name for item in upgrade.ops if isinstance(item, ops.CreateTableOp)]
    added = [
        item.table_name
        for item in upgrade.ops
        if isinstance(item, ops.ModifyTableOps)
        and any(isinstance(change, ops.AddColumnOp) for change in item.ops)
    ]
    guarded = [item.expected.table for item in upgrade.ops if isinstance(item, GuardOp)]
    for schema, name in declared.words:
        collection = declared.words[schema, name]
        table = collection.name
        if table not in tables and {*tables, *added} & {name} | {*guarded} & {table}:
            fields = [field.name for field in searchable_fields(collection)]
            upgrade.ops.append(
                IndexWordsOp(table, fields, schema=schema, tenant=collection.scope == "tenant")
            )


@Operations.implementation_for(IndexWordsOp)
def _index(operations: Operations, operation: IndexWordsOp) -> None:
    if operations.migration_context.dialect.name != "postgresql":
        _index_here(operations.get_bind(), operation)
        return
    schema, name = key = (operation.schema, operation.table_name)
    statements = fill_words(*key, operation.fields, tenant=operation.tenant)
    if not operation.tenant:
        _run(operations, statements)
        return
    with every_row(operations, name, schema), every_row(operations, word_table(name), schema):
        _run(operations, statements)


def _run(operations: Operations, statements: Sequence[str]) -> None:
    for statement in statements:
        operations.migration_context.impl.execute(verbatim(statement))


def _index_here(connection: sa.Connection, operation: IndexWordsOp) -> None:
    """Cut the texts here: SQLite has no functions of its own to do it."""
    keys = ["tenant_id", "id"] if operation.tenant else ["id"]
    counted = [rank_column(field) for field in operation.fields]
    metadata = sa.MetaData()
    rows = sa.Table(operation.table_name, metadata, *(sa.Column(name) for name in (*keys, *operation.fields)))
    index = sa.Table(
        word_table(operation.table_name), metadata, *(sa.Column(name) for name in (*keys, "term", *counted))
    )
    words = WordsOfRows(rows, index)
    connection.execute(sa.delete(index))
    for row in connection.execute(words.rows).all():
        made = [dict(zip(words.names, values, strict=True)) for values in words.of(row)]
        if made:
            connection.execute(words.insert, made)
