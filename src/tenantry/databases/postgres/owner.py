"""The owner's connection, as SQLAlchemy's: what migrations run through."""

from __future__ import annotations

from functools import partial

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool


def owner_engine(url: str) -> AsyncEngine:
    """Return an engine whose connections asyncpg makes from the URL, with every option that it knows.

    Args:
        url: The owner's, directly to the server: a session's lock does not survive a transaction pooler.
    """
    connect = partial(asyncpg.connect, url, timeout=15)
    return create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
