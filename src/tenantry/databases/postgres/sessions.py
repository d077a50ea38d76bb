"""Sessions of SQLAlchemy's own ORM, bound to one tenant.

They run as the raw role: whatever the ORM emits, in whatever order, row-level security holds it to the tenant. Each
transaction of a session is bound anew when it begins, so a commit in the middle loses nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import await_only

from tenantry.databases.postgres.binding import BIND, UNLISTEN, WIPE, usable_if_bound
from tenantry.databases.postgres.connection import DRIVER_ERRORS, Connector, translate
from tenantry.errors import ConfigurationError

Admit = Callable[[], Awaitable[None]]


class Sessions:
    """Makes sessions over one engine.

    Args:
        connector: Opens the raw role's connections.
        ticket: Makes a ticket for a tenant.
        size: Connections at most.
        timeout: Seconds to wait for a free one.
    """

    def __init__(
        self, connector: Connector, ticket: Callable[[str], str], *, size: int, timeout: float
    ) -> None:
        self._connector = connector
        self._ticket = ticket
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            pool_size=size,
            max_overflow=0,
            pool_timeout=timeout,
            connect_args={
                "async_creator_fn": connector.dial,
                # Unnamed and parsed anew with each use: SQL that is injected cannot put its own in its place, and a
                # pooler need not know of it.
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: "",
            },
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_spoilt)

    async def close(self) -> None:
        """Close every connection that no session holds."""
        await self._engine.dispose()

    @asynccontextmanager
    async def open(self, tenant: str, admit: Admit, options: dict[str, Any]) -> AsyncIterator[AsyncSession]:
        """Yield a session of one tenant.

        Args:
            tenant: The tenant.
            admit: Returns if it may be served, and raises if not. Awaited for each transaction.
            options: Those of :class:`~sqlalchemy.ext.asyncio.AsyncSession`.
        """

        def begin(_: Any, transaction: Any, connection: Any) -> None:
            if not transaction.nested:
                with usable_if_bound(connection):
                    self._bind(connection, tenant, admit)

        async with AsyncSession(self._engine, **options) as session:
            event.listen(session.sync_session, "after_begin", begin)
            yield session

    def _bind(self, connection: Any, tenant: str, admit: Admit) -> None:
        """Bind the transaction that has just begun."""
        raw = connection.connection.dbapi_connection
        if raw.autocommit:
            raise ConfigurationError(
                "A session in AUTOCOMMIT has no transaction that would hold its tenant.",
                field="isolation_level",
                fix="Choose another isolation level.",
            )
        await_only(admit())
        cursor = raw.cursor()
        try:
            if self._connector.pooled:
                # The driver begins with the first statement, and all has to reach the same server.
                cursor.execute("SELECT", ())
                event.listen(connection, "commit", _unlisten)
            raw.run_async(lambda driver: driver.execute(WIPE))
            cursor.execute(BIND.replace("%s", "$1"), (self._ticket(tenant),))
        except (raw.dbapi.Error, *DRIVER_ERRORS) as error:
            raise translate(error.__cause__ or error) or error from error
        finally:
            cursor.close()


def _unlisten(connection: Any) -> None:
    connection.connection.dbapi_connection.run_async(lambda driver: driver.execute(UNLISTEN))


def _refuse_spoilt(connection: Any, *_: Any) -> None:
    """Have another connection taken for one that is dead, or on which a command was cancelled.

    Such a cancellation may reach the server late and meet the next command instead.
    """
    driver = connection.driver_connection
    if driver.tainted or driver.is_closed():
        raise DisconnectionError
