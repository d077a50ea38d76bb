"""A connection of one role to PostgreSQL. The driver stays behind the adapter's own modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from tenantry.errors import DataError, MissingExtra, TenantryError

VARIABLES = {
    "app": "TENANTRY_DATABASE_URL",
    "control": "TENANTRY_DATABASE_CONTROL_URL",
    "raw": "TENANTRY_DATABASE_RAW_URL",
    "owner": "TENANTRY_DATABASE_OWNER_URL",
}
SEAL_KEY = "TENANTRY_DATABASE_SEAL_KEY"


class Place(NamedTuple):
    """Where a URL leads.

    Attributes:
        role: The role.
        database: The database's name.
        started: When the server started, which no two servers share.
        where: ``host:port/database``, for messages.
    """

    role: str
    database: str
    started: Any
    where: str

    def is_apart_from(self, other: Place) -> bool:
        """Whether the two are different databases."""
        return (self.database, self.started) != (other.database, other.started)


@contextmanager
def driver() -> Iterator[None]:
    """Turn a missing driver into the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "asyncpg":
            raise
        raise MissingExtra("asyncpg", "postgres") from error


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn what the driver raises into an error of ours."""
    with driver():
        from tenantry.databases.postgres.connection import DRIVER_ERRORS, translate

    try:
        yield
    except DRIVER_ERRORS as error:
        known: TenantryError | None = translate(error)
        raise known or DataError(f"PostgreSQL: {error}.") from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Connect as the role of ``url``, bound to no tenant.

    Raises:
        DatabaseUnavailable: The server cannot be reached, or refuses the role.
        DataError: It refused a statement in the block.
    """
    with driver_errors():
        from tenantry.databases.postgres.pool import TenantPool

        pool = TenantPool(url, max_size=1)
        await pool.open()
        try:
            async with pool.statement(None) as connection:
                yield connection
        finally:
            await pool.close()


async def place(url: str) -> Place:
    """Connect and ask where that led."""
    async with connected(url) as connection:
        row = await connection.fetchrow(
            "SELECT current_user, current_database(), pg_catalog.pg_postmaster_start_time()"
        )
    from tenantry.databases.postgres.connection import describe

    role, database, started = row
    return Place(role, database, started, describe(url).rpartition("@")[2])
