"""PostgreSQL: row-level security that a seal unlocks, under roles that can do no more than they need."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    suppress,
)
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from tenantry import _values
from tenantry.config import DatabaseConfig
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.databases._sql import Step
from tenantry.databases._tables import Existing, ExistingColumn
from tenantry.databases.postgres import policies, seal
from tenantry.databases.postgres.attest import attest
from tenantry.databases.postgres.binding import Scope, bind
from tenantry.databases.postgres.bulk import REFUSED, Each
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.databases.postgres.findings import SCHEMA_LOCK, expected_tables, refuse
from tenantry.databases.postgres.inspect import inspect_database
from tenantry.databases.postgres.pool import INIT_HINT, TenantPool, translate
from tenantry.databases.postgres.purge import check_sight, fence
from tenantry.databases.postgres.unnest import BulkCompiler
from tenantry.errors import (
    Closed,
    ConfigurationError,
    ContextMismatch,
    DatabaseUnavailable,
    DataError,
    InvalidQuery,
    InvalidRecord,
    IsolationError,
    ReferenceViolation,
    TenantryError,
    UniqueViolation,
    Unsupported,
)
from tenantry.ports import Capability, Executor, Outcome, Purge, Write
from tenantry.query import Query
from tenantry.schema import Collection
from tenantry.types import Record

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.databases.postgres.sessions import Sessions

_BUILTIN_COLLATIONS = (17, 0)
_CONTROL_POOL = 4
_RAW_POOL = 4
# The server nests comments and ends a line at a carriage return too. A comment inside of one is refused.
_FIRST_WORD = re.compile(r"(?:[\s(]|--[^\r\n]*[\r\n]|/\*(?:(?!/\*|\*/).)*\*/)*([A-Za-z]+)", re.DOTALL)
_STATEMENTS = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "WITH", "EXPLAIN", "TABLE"}
)
_COLUMNS = """
SELECT n.nspname AS schema, c.relname AS table, a.attname AS column,
  pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull, a.atthasdef
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
"""


class PostgresAdapter:
    """Tenant-isolated data on PostgreSQL, directly or behind a transaction pooler."""

    name = "postgresql"
    capabilities = frozenset(
        {
            Capability.TRANSACTIONS,
            Capability.FOREIGN_KEYS,
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.FORK,
            Capability.ROW_LEVEL_SECURITY,
            Capability.RAW_SQL,
            Capability.SESSIONS,
        }
    )

    def __init__(self, config: DatabaseConfig) -> None:
        keys = _required(config, "seal_key")
        control_url = _required(config, "control_url")
        self._timeout = config.timeout
        self._owner_url = config.owner_url.get_secret_value() if config.owner_url else None
        timeouts: dict[str, Any] = {
            "acquire_timeout": config.acquire_timeout,
            "connect_timeout": config.connect_timeout,
            "command_timeout": config.timeout,
            "statement_timeout": config.timeout,
        }
        sealed = {"keys": seal.parse_keys(keys), **timeouts}
        self._app = TenantPool(config.url.get_secret_value(), max_size=config.pool_size, **sealed)
        self._control = TenantPool(control_url, max_size=_CONTROL_POOL, **timeouts)
        self._raw: TenantPool | None = None
        self._sessions: Sessions | None = None
        self._acquire_timeout = config.acquire_timeout
        if config.raw_url is not None:
            raw_url = config.raw_url.get_secret_value()
            self._raw = TenantPool(raw_url, min_size=0, max_size=_RAW_POOL, wipe=True, **sealed)

    # -- life

    async def open(self, collections: Sequence[Collection]) -> None:
        """Connect as each role, and find out whether a pooler stands in between."""
        for pool in self._pools():
            await pool.open()
        async with self._control.statement(None) as connection:
            version = connection.get_server_version()
        collation = "pg_c_utf8" if version >= _BUILTIN_COLLATIONS else "und-x-icu"
        self._compiler = BulkCompiler(PostgresDialect(collation), collections)

    async def close(self) -> None:
        """Let what runs finish, then close every connection."""
        if self._sessions is not None:
            await self._sessions.close()
        for pool in self._pools():
            await pool.close()

    def _pools(self) -> list[TenantPool]:
        pools = [self._app, self._control]
        return pools if self._raw is None else [*pools, self._raw]

    async def create_schema(self) -> None:
        """As the owner, create the tables that do not exist yet, with their policies, in one transaction."""
        if self._owner_url is None:
            raise ConfigurationError(
                'schema="create" needs the owner\'s URL.',
                field="database.owner_url",
                fix="Set TENANTRY_DATABASE_OWNER_URL as `tenantry init` printed it.",
            )
        owner = TenantPool(self._owner_url, max_size=1)
        await owner.open()
        try:
            async with owner.transaction(None) as connection:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
                existing = await _existing(connection)
                roles = await self._roles()
                for expected, (table, statements) in zip(
                    expected_tables(self._compiler.tables), self._compiler.tables.ddl(), strict=True
                ):
                    if (table.schema, table.name) in existing:
                        continue
                    for text in [*statements, *expected.defaults(), *expected.statements(roles)]:
                        await connection.execute(text)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error
        finally:
            await owner.close()

    async def _roles(self) -> policies.Roles:
        """Return the names of the four roles, as the URLs say them."""
        names = {"owner": self._owner_url or "", "app": self._app, "control": self._control, "raw": self._raw}
        found = {}
        for role, source in names.items():
            if isinstance(source, TenantPool):
                async with source.statement(None) as connection:
                    found[role] = await connection.fetchval("SELECT current_user")
        owner = f"{found['app'].removesuffix('_app')}_owner"
        raw = found.get("raw", f"{found['app'].removesuffix('_app')}_raw")
        return policies.Roles(owner=owner, app=found["app"], raw=raw, control=found["control"])

    async def check_schema(self) -> list[str]:
        """Return how the tables differ from the collections."""
        return self._compiler.tables.differences(await self._existing())

    async def undeclared_tables(self) -> list[str]:
        """Return the tables with rows of tenants that belong to no collection."""
        return self._compiler.tables.undeclared(await self._existing())

    async def _existing(self) -> Existing:
        try:
            async with self._control.statement(None) as connection:
                return await _existing(connection)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def fence(self, tenant_id: str) -> None:
        """Let no seal open this tenant any more, and wait for the statements that one has opened."""
        try:
            await fence(self._control, tenant_id, await self._roles(), self._timeout)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def attest(self) -> None:
        """Check roles, rights and policies, then let one canary tenant try to reach another's rows."""
        try:
            roles = await self._roles()
            async with self._app.statement(None) as connection:
                refuse(await inspect_database(connection, roles, expected_tables(self._compiler.tables)))
            await attest(self._app, self._compiler)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    # -- the executor

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return the rows with these ids."""
        return await self._query(context, self._compiler.fetch(context, collection, ids))

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return the rows of ``query``."""
        return await self._query(context, self._compiler.select(context, query))

    async def count(self, context: Context, query: Query) -> int:
        """Return how many rows meet the filter of ``query``."""
        rows = await self._query(context, self._compiler.count(context, query))
        return int(rows[0]["count"])

    async def _query(self, context: Context, step: Step) -> list[Record]:
        pool, tenant = self._scope(context)
        statement = step.statement
        try:
            async with pool.statement(tenant) as connection:
                rows = await connection.fetch(statement.text, *step.args)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error
        return statement.records(rows)

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes or none."""
        pool, tenant = self._scope(context)
        alone = len(writes) == 1 and not isinstance(writes[0], Purge)
        block = pool.statement(tenant) if alone else pool.transaction(tenant)
        try:
            await self._check_sight([write.collection for write in writes if isinstance(write, Purge)])
            async with block as connection:
                return await self._perform(connection, context, writes)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes, as many as possible in one statement; those that are refused leave nothing."""
        pool, tenant = self._scope(context)
        try:
            if not added:
                with suppress(*REFUSED):  # one of them was, and so nothing was written
                    async with pool.statement(tenant) as connection:
                        outcomes = await self._each(connection, context).at_once(writes)
                    if outcomes is not None:
                        return outcomes
            async with pool.transaction(tenant) as connection:
                return await self._each(connection, context).run(writes, added)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    def _each(self, connection: Any, context: Context) -> Each:
        return Each(self._compiler, connection, context, self._drive, self._translated)

    async def _check_sight(self, collections: Sequence[Collection]) -> None:
        if collections:
            tables = [self._compiler.tables[collection.name] for collection in collections]
            names = [policies.table_name(table.schema, table.name) for table in tables]
            await check_sight(self._control, names)

    @asynccontextmanager
    async def transaction(self, context: Context) -> AsyncIterator[Executor]:
        """One connection and one transaction for a unit of work."""
        pool, tenant = self._scope(context)
        try:
            async with pool.transaction(tenant) as connection:
                unit = _Transaction(self, connection, context)
                try:
                    yield unit
                finally:
                    unit.over = True
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Run one statement of the user's own as the raw role."""
        raw = self._raw_pool()
        try:
            word = _FIRST_WORD.match(_values.text(text))
        except (ValueError, TypeError) as error:
            raise InvalidQuery(str(error), path="text") from None
        if word is None or word[1].upper() not in _STATEMENTS:
            raise InvalidQuery(
                "this is not a statement that reads or writes rows.",
                path="text",
                fix=f"Begin with one of {', '.join(sorted(_STATEMENTS))}.",
            )
        try:
            async with raw.statement(context.tenant_id) as connection:
                return [dict(row) for row in await connection.fetch(text, *params)]
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    def session(
        self, context: TenantContext, admit: Callable[[], Awaitable[None]], options: dict[str, Any]
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session of SQLAlchemy's ORM, each of whose transactions is bound to the tenant."""
        from tenantry.databases.postgres.sessions import Sessions  # the ORM, on first use

        if self._sessions is None:
            pool = self._raw_pool()
            self._sessions = Sessions(
                pool.connector, self._app.connector.ticket, size=_RAW_POOL, timeout=self._acquire_timeout
            )
        return self._sessions.open(context.tenant_id, admit, options)

    def bind(
        self, connection: Any, context: TenantContext, admit: Callable[[], None]
    ) -> AbstractContextManager[Any]:
        """Bind a user's own connection, which is logged in as the raw role, to the tenant."""
        ticket = partial(self._app.connector.ticket, context.tenant_id)
        return bind(connection, Scope(context.tenant_id, admit, ticket))

    # -- inside

    def _raw_pool(self) -> TenantPool:
        if self._raw is None:
            raise Unsupported(
                "A user's own SQL needs a role of its own.",
                fix="Set TENANTRY_DATABASE_RAW_URL as `tenantry init` printed it.",
            )
        return self._raw

    def _scope(self, context: Context) -> tuple[TenantPool, str | None]:
        """Return the pool of the role that serves ``context``, and whom to bind."""
        if isinstance(context, SystemContext):
            return self._control, None
        return self._app, context.tenant_id

    async def _perform(
        self, connection: Any, context: Context, writes: Sequence[Write]
    ) -> list[list[Record]]:
        return [await self._drive(connection, context, write) for write in writes]

    async def _drive(self, connection: Any, context: Context, write: Write) -> list[Record]:
        plan = self._compiler.perform(context, write)
        try:
            step = next(plan)
            while True:
                if step.many:
                    await connection.executemany(step.statement.text, step.args)
                    step = plan.send([])
                else:
                    step = plan.send(await connection.fetch(step.statement.text, *step.args))
        except StopIteration as done:
            records: list[Record] = done.value
            return records

    def _translated(self, error: Exception) -> TenantryError:
        """Return our error for the driver's; one that names a constraint says which fields it is about."""
        if isinstance(error, asyncpg.InternalClientError) and "decoder" in str(error):
            return InvalidQuery("a column has a type that cannot be read; cast it to text.", path="text")
        known = translate(error)
        if known is not None:
            return known
        if isinstance(error, asyncpg.IntegrityConstraintViolationError):
            name, fields = self._compiler.tables.violated(error.constraint_name or "") or (
                error.table_name or "",
                (),
            )
            if isinstance(error, asyncpg.ForeignKeyViolationError):
                return ReferenceViolation(name, fields[0] if fields else None)
            if isinstance(error, asyncpg.UniqueViolationError):
                return UniqueViolation(name, fields)
        if isinstance(error, asyncpg.ProgramLimitExceededError):
            _, fields = self._compiler.tables.violated(error.constraint_name or "") or ("", ())
            # Up to 8 kB the server says which index it was.
            return InvalidRecord(
                "holds a text that is too long to be indexed.", field=", ".join(fields) or "record"
            )
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            return IsolationError(f"PostgreSQL refused: {error}.")
        if isinstance(error, asyncpg.DeadlockDetectedError | asyncpg.SerializationError):
            return DatabaseUnavailable(f"PostgreSQL: {error}; nothing was written.", fix="Run it again.")
        if isinstance(error, asyncpg.DataError | asyncpg.SyntaxOrAccessError):
            return InvalidQuery(str(error), path="text")
        return DataError(f"PostgreSQL: {error}")


_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class _Transaction:
    """The executor of one unit of work."""

    def __init__(self, adapter: PostgresAdapter, connection: Any, context: Context) -> None:
        self._adapter = adapter
        self._connection = connection
        self._context = context
        self._turn = (
            asyncio.Lock()
        )  # tasks may share the transaction; its connection runs one statement at a time
        self.over = False

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        return await self._query(context, self._adapter._compiler.fetch(context, collection, ids))

    async def select(self, context: Context, query: Query) -> list[Record]:
        return await self._query(context, self._adapter._compiler.select(context, query))

    async def count(self, context: Context, query: Query) -> int:
        rows = await self._query(context, self._adapter._compiler.count(context, query))
        return int(rows[0]["count"])

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        self._check(context)
        try:
            async with self._turn:
                return await self._adapter._perform(self._connection, context, writes)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error) from error

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        self._check(context)
        try:
            async with self._turn:
                return await self._adapter._each(self._connection, context).run(writes, added)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error) from error

    async def _query(self, context: Context, step: Step) -> list[Record]:
        self._check(context)
        try:
            async with self._turn:
                rows = await self._connection.fetch(step.statement.text, *step.args)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error) from error
        return step.statement.records(rows)

    def _check(self, context: Context) -> None:
        if self.over:
            raise Closed("This transaction is over.", fix="Use it inside its `async with` block.")
        if context != self._context:
            raise ContextMismatch("This transaction belongs to another tenant.")


async def _existing(connection: Any) -> Existing:
    found: dict[tuple[str | None, str], dict[str, ExistingColumn]] = {}
    for row in await connection.fetch(_COLUMNS, ["public", PostgresDialect.schema]):
        schema = None if row["schema"] == "public" else row["schema"]
        required = row["attnotnull"] and not row["atthasdef"]
        described = ExistingColumn(row["type"], not row["attnotnull"], required)
        found.setdefault((schema, row["table"]), {})[row["column"]] = described
    return found


def _required(config: DatabaseConfig, option: str) -> str:
    value = getattr(config, option)
    if value is None:
        raise ConfigurationError(
            f"PostgreSQL needs database.{option}.",
            field=f"database.{option}",
            fix=f"{INIT_HINT}; it prints all options.",
        )
    return str(value.get_secret_value())
