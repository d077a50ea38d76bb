"""Indexes that were made on advice: kept while no model declares them, and renamed once one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic.operations import ops

from tenantry.alembic.declared import Database
from tenantry.alembic.operations import RenameIndexOp
from tenantry.databases._tables import ADVISED


def keep_advised(tables: Sequence[ops.ModifyTableOps], database: Database) -> list[RenameIndexOp]:
    """Take out of ``tables`` what would drop an index that was made on advice.

    One whose columns a model declares by now is renamed, where the database can, and is not made a second time.

    Returns:
        The renames.
    """
    renames = []
    for table in tables:
        gone = {item.column_name for item in table.ops if isinstance(item, ops.DropColumnOp)}
        made = {_columns(item): item for item in table.ops if isinstance(item, ops.CreateIndexOp)}
        for drop in _advised(table):
            columns = _columns(drop.reverse())
            if gone & set(columns):
                continue  # it goes with its column
            create = made.get(columns)
            if create is None:
                table.ops.remove(drop)
            elif database == "postgresql":
                table.ops.remove(drop)
                table.ops.remove(create)
                old, new = str(drop.index_name), str(create.index_name)
                renames.append(RenameIndexOp(table.table_name, old, new, table.schema))
    return renames


def _advised(table: ops.ModifyTableOps) -> list[ops.DropIndexOp]:
    dropped = [item for item in table.ops if isinstance(item, ops.DropIndexOp)]
    return [item for item in dropped if str(item.index_name).endswith(f"_{ADVISED}")]


def _columns(item: Any) -> tuple[str, ...]:
    return tuple(column if isinstance(column, str) else str(column.name) for column in item.columns)
