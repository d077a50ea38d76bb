"""Which indexes PostgreSQL has, and how one is made while others write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final

import asyncpg

from tenantry.databases.postgres.connection import describe, translate
from tenantry.databases.postgres.policies import quote, table_name
from tenantry.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DataError,
    OperationTimeout,
    TenantryError,
    UnsafeRole,
)
from tenantry.ports import Catalog, Index, Progress
from tenantry.schema import Kind

# numeric_eq, numeric_lt and their like are not LEAKPROOF, so that they are never asked before the policy.
ANSWERED: Final = frozenset(Kind) - {Kind.DECIMAL, Kind.JSON, Kind.LIST}

INDEX_LOCK: Final = 0x7465_6E61_6964
"""The advisory lock under which one process at a time makes indexes: in ASCII, tenaid.

It is tried and never waited for in the database: whoever waits there holds a snapshot, and CREATE INDEX CONCURRENTLY
waits for all snapshots.
"""

_LOCK_SECONDS = 20.0
_TURN_SECONDS = 60.0
_ATTEMPTS = 3
_PAUSE = 0.2
_SETTINGS: Final = {
    "application_name": "tenantry insights",
    "search_path": "public, pg_temp",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_INDEXES: Final = """
SELECT t.relname AS table, c.relname AS name, x.indisunique AS unique,
  ARRAY(SELECT coalesce(a.attname, '') FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (number, position)
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
    WHERE k.position <= x.indnkeyatts ORDER BY k.position)::text[] AS columns,
  x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL AND m.amname = 'btree' AS plain,
  x.indisunique OR x.indisexclusion OR x.indisreplident OR x.indisclustered OR EXISTS (
    SELECT FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conrelid = x.indrelid
      AND (x.indkey::int2[])[0:pg_catalog.cardinality(f.conkey) - 1] = f.conkey) AS required,
  pg_catalog.pg_stat_get_numscans(c.oid) AS scans, pg_catalog.pg_relation_size(c.oid) AS size
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE n.nspname = 'public' AND x.indislive ORDER BY 1, 2
"""
_SINCE: Final = """
SELECT coalesce(stats_reset, pg_catalog.pg_postmaster_start_time()) FROM pg_catalog.pg_stat_database
WHERE datname = pg_catalog.current_database()
"""
_STATE: Final = """
SELECT x.indisvalid FROM pg_catalog.pg_index x WHERE x.indexrelid = pg_catalog.to_regclass($1)
"""
_PROGRESS: Final = """
SELECT phase, CASE WHEN blocks_total > 0 THEN blocks_done::float8 / blocks_total END AS share
FROM pg_catalog.pg_stat_progress_create_index WHERE pid = $1
"""


async def catalog(connection: Any) -> Catalog:
    """Return the indexes of the default schema."""
    rows = await connection.fetch(_INDEXES)
    found = [Index(**{**dict(row), "columns": tuple(row["columns"])}) for row in rows]
    return Catalog(tuple(found), await connection.fetchval(_SINCE))


def create_statement(index: Index) -> str:
    """Return the DDL that makes an index while others write."""
    columns = ", ".join(map(quote, index.columns))
    return f"CREATE INDEX CONCURRENTLY {quote(index.name)} ON {table_name('public', index.table)} ({columns})"


def drop_statement(index: Index) -> str:
    """Return the DDL that drops an index while others write."""
    return f"DROP INDEX CONCURRENTLY IF EXISTS {table_name('public', index.name)}"


async def create(owner_url: str, index: Index, progress: Progress) -> bool:
    """Make an index as the owner. Return whether it had to be made."""
    async with _turn(owner_url, progress) as connection:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await _create(owner_url, connection, index, progress)
            except asyncpg.LockNotAvailableError as error:
                if attempt == _ATTEMPTS:
                    raise _held(index) from error
                progress(f"waiting for a transaction that holds on to {index.table}", None)
    raise AssertionError("the last attempt returns or raises")


async def _create(owner_url: str, connection: Any, index: Index, progress: Progress) -> bool:
    valid = await connection.fetchval(_STATE, table_name("public", index.name))
    if valid:
        return False
    if valid is not None:
        # What a run that was killed, or gave up, has left: it is kept up to date and serves nobody.
        progress(f"dropping what is left of {index.name}", None)
        await connection.execute(drop_statement(index))
    async with _watched(owner_url, connection, index, progress):
        await connection.execute(create_statement(index))
    return True


async def drop(owner_url: str, index: Index) -> None:
    """Drop an index as the owner."""
    async with _turn(owner_url, lambda *_: None) as connection:
        try:
            await connection.execute(drop_statement(index))
        except asyncpg.LockNotAvailableError as error:
            raise _held(index) from error


def _held(index: Index) -> OperationTimeout:
    return OperationTimeout(
        f"A transaction has held on to {index.table!r} for too long, so that nothing became of {index.name}.",
        fix="Look for it in pg_stat_activity, by xact_start; then run this again.",
    )


@asynccontextmanager
async def _turn(owner_url: str, progress: Progress) -> AsyncIterator[Any]:
    """Connect as the owner, and be the only one that makes indexes."""
    connection = await _connect(owner_url)
    try:
        until, told = monotonic() + _TURN_SECONDS, False
        while not await connection.fetchval("SELECT pg_catalog.pg_try_advisory_lock($1)", INDEX_LOCK):
            if monotonic() > until:
                raise OperationTimeout("Another run makes indexes.", fix="Wait for it, and run this again.")
            if not told:
                progress("waiting for another run", None)
                told = True
            await asyncio.sleep(_PAUSE)
        await connection.execute(f"SET lock_timeout = {round(_LOCK_SECONDS * 1000)}")
        yield connection
    except TenantryError:
        raise  # one of them is an OSError too
    except asyncpg.InsufficientPrivilegeError as error:
        raise UnsafeRole(
            f"{describe(owner_url)} does not own the table: {error}.",
            fix="Set TENANTRY_DATABASE_OWNER_URL as `tenantry init` printed it.",
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise _translated(error) from error
    finally:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.close(timeout=5)


def _translated(error: Exception) -> TenantryError:
    return translate(error) or DataError(f"PostgreSQL: {error}")


async def _connect(owner_url: str) -> Any:
    try:
        return await asyncpg.connect(owner_url, server_settings=dict(_SETTINGS), timeout=15)
    except (OSError, asyncpg.PostgresError) as error:
        raise DatabaseUnavailable(f"Cannot connect to {describe(owner_url)}: {error}") from error
    except (asyncpg.InterfaceError, ValueError):
        raise ConfigurationError(
            "The owner's URL cannot be read.",
            field="database.owner_url",
            fix="Use postgresql://role@HOST/DATABASE.",
        ) from None


@asynccontextmanager
async def _watched(owner_url: str, connection: Any, index: Index, progress: Progress) -> AsyncIterator[None]:
    """Tell how far the server is, from a second connection, while the block runs."""
    pid = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()")
    progress(f"making {index.name}", None)
    watch = asyncio.create_task(_watch(owner_url, pid, index, progress))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait([watch])


async def _watch(owner_url: str, pid: int, index: Index, progress: Progress) -> None:
    await asyncio.sleep(_PAUSE)
    watcher = await _connect(owner_url)
    try:
        while True:
            row = await watcher.fetchrow(_PROGRESS, pid)
            if row is not None:
                progress(f"making {index.name}: {row['phase']}", row["share"])
            await asyncio.sleep(_PAUSE)
    finally:
        watcher.terminate()
