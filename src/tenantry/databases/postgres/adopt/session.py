"""The connection that adopts: of a powerful role, straight to the server, with nothing left to chance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from tenantry.errors import ConfigurationError, DatabaseUnavailable

# No timeout of the role's or the database's own may cut a step short; ours are set where they belong.
_SETTINGS: Final = {
    "application_name": "tenantry adopt",
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    """Connect to the server itself, not through a transaction pooler.

    Raises:
        DatabaseUnavailable: The server cannot be reached, or refuses the role.
        ConfigurationError: The URL cannot be read.
    """
    try:
        connection = await asyncpg.connect(url, server_settings=dict(_SETTINGS), timeout=15)
    except (OSError, asyncpg.PostgresError) as error:
        raise DatabaseUnavailable(f"Cannot connect as the admin role: {error}") from error
    except (asyncpg.InterfaceError, ValueError):
        raise ConfigurationError(
            "The admin URL cannot be read.", field="admin_url", fix="Use postgresql://postgres@HOST/DATABASE."
        ) from None
    try:
        yield connection
    finally:
        await connection.close()
