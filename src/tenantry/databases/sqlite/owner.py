"""A connection without the authorizer, as SQLAlchemy's: what migrations run through."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool


def owner_engine(url: str) -> sa.Engine:
    """Return an engine on the file, whose transactions hold changes of the schema too and exclude other writers."""
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": 60.0})

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver would begin transactions of its own, and none for DDL

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
