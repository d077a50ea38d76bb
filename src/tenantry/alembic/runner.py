"""What ``env.py`` calls: connects as the owner, lets one process at a time migrate, and runs the revisions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from alembic import context as environment
from sqlalchemy.engine import Connection

from tenantry.alembic.declared import Database, metadata
from tenantry.alembic.roles import SETTINGS
from tenantry.alembic.splitting import split_online
from tenantry.config import Settings, load_settings
from tenantry.databases.postgres.findings import SCHEMA_LOCK
from tenantry.errors import ConfigurationError, DatabaseUnavailable, MigrationRefused, MissingExtra
from tenantry.schema import KeyedModel

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

LOCK_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 600.0
_PAUSE: Final = 0.1
# SQLite has no lock to take a turn by but that of a transaction, so one holds the whole run.
_TRANSACTIONS: Final[dict[Database, dict[str, Any]]] = {
    "postgresql": {"transaction_per_migration": True},
    "sqlite": {"transactional_ddl": True, "render_as_batch": True},
}


def run(
    models: Sequence[type[KeyedModel]],
    *,
    metadata: sa.MetaData | Sequence[sa.MetaData] = (),
    settings: Settings | None = None,
    lock_timeout: float = LOCK_SECONDS,
    wait: float = WAIT_SECONDS,
    **options: Any,
) -> None:
    """Run what Alembic was asked for: the whole of ``env.py``.

    Args:
        models: The models.
        metadata: The tables of the user's own, beside those of the models.
        settings: The configuration, by default that of the environment.
        lock_timeout: Seconds that a statement waits for a lock on a table, while others queue behind it.
        wait: Seconds to wait for another process that migrates.
        **options: Of Alembic's ``context.configure``.

    Raises:
        ConfigurationError: The owner's URL is not set, or the database was never prepared.
        MigrationRefused: A revision would lose data and the run does not allow it.
    """
    settings = environment.config.attributes.get(SETTINGS) or settings or load_settings()
    database, url = _target(settings)
    own = [metadata] if isinstance(metadata, sa.MetaData) else list(metadata)
    given: dict[str, Any] = {
        "target_metadata": [*own, _tables_of(models, database=database)],
        "process_revision_directives": split_online,
        **_TRANSACTIONS[database],
        SETTINGS: settings,
        **options,
    }
    if environment.is_offline_mode():
        environment.configure(dialect_name=database, literal_binds=True, **given)
        with environment.begin_transaction():
            environment.run_migrations()
    elif database == "sqlite":
        _run_sqlite(url, given)
    else:
        asyncio.run(_run_postgres(url, given, lock_timeout, wait))


_tables_of = metadata


def _target(settings: Settings) -> tuple[Database, str]:
    options = settings.database
    url = options.url.get_secret_value()
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        return "sqlite", url
    if scheme not in ("", "postgresql", "postgres"):
        raise ConfigurationError(f"There are no migrations for {scheme}://.", field="database.url")
    if options.owner_url is not None:
        return "postgresql", options.owner_url.get_secret_value()
    if environment.is_offline_mode():
        return "postgresql", ""
    raise ConfigurationError(
        "Migrations run as the owner of the tables, whose URL is not set.",
        field="database.owner_url",
        fix="Set TENANTRY_DATABASE_OWNER_URL as `tenantry init` printed it.",
    )


def _migrate(connection: Connection, options: dict[str, Any]) -> None:
    environment.configure(connection=connection, **options)
    with environment.begin_transaction():
        environment.run_migrations()


async def _run_postgres(url: str, options: dict[str, Any], lock_timeout: float, wait: float) -> None:
    try:
        from tenantry.databases.postgres.connection import DRIVER_ERRORS, translate
        from tenantry.databases.postgres.owner import owner_engine
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise MissingExtra("asyncpg", "postgres") from error

    engine: AsyncEngine = owner_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_take_turn, wait)
            await connection.run_sync(_limit_locks, lock_timeout)
            await connection.run_sync(_migrate, options)
    except DRIVER_ERRORS as error:
        raise translate(error) or DatabaseUnavailable(f"Cannot connect as the owner: {error}.") from error
    finally:
        await engine.dispose()


def _take_turn(connection: Connection, wait: float) -> None:
    """Wait until no other process migrates. The lock is the session's, and ends with it however it ends.

    Asking again and again holds no snapshot, for which the other one's CREATE INDEX CONCURRENTLY would wait.
    """
    until = time.monotonic() + wait
    while not connection.scalar(
        sa.select(sa.func.pg_try_advisory_lock(sa.literal(SCHEMA_LOCK, sa.BigInteger)))
    ):
        connection.rollback()
        if time.monotonic() > until:
            raise MigrationRefused(
                f"Another process has been migrating for {wait:g} s.", fix="Try again when it is done."
            )
        time.sleep(_PAUSE)
    connection.rollback()


def _limit_locks(connection: Connection, seconds: float) -> None:
    """A statement that waits for a lock keeps everybody waiting who comes later."""
    connection.execute(sa.select(sa.func.set_config("lock_timeout", f"{int(seconds * 1000)}ms", False)))
    connection.commit()


def _run_sqlite(url: str, options: dict[str, Any]) -> None:
    from tenantry.databases.sqlite.owner import owner_engine

    engine = owner_engine(url)
    try:
        with engine.connect() as connection:
            _migrate(connection, options)
    finally:
        engine.dispose()
