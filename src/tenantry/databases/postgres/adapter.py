"""PostgreSQL: row-level security that a seal unlocks, under roles that can do no more than they need."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg
import sqlalchemy as sa

from tenantry import _values
from tenantry.aggregation import Aggregation
from tenantry.config import DatabaseConfig
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.databases._sql import Step
from tenantry.databases._tables import Existing, ExistingColumn
from tenantry.databases.postgres import counting, indexes, policies, seal
from tenantry.databases.postgres.attest import attest
from tenantry.databases.postgres.binding import Scope, bind
from tenantry.databases.postgres.bulk import Each, is_about_one
from tenantry.databases.postgres.create import missing_tables
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.databases.postgres.explain import explain
from tenantry.databases.postgres.findings import SCHEMA_LOCK, expected_tables, refuse
from tenantry.databases.postgres.inspect import inspect_database
from tenantry.databases.postgres.pool import INIT_HINT, TenantPool, translate
from tenantry.databases.postgres.purge import check_sight, fence
from tenantry.databases.postgres.replicas import Replicas
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
    OperationTimeout,
    ReferenceViolation,
    SerializationFailure,
    TenantryError,
    UniqueViolation,
    Unsupported,
)
from tenantry.plans.quotas import Count
from tenantry.ports import (
    REFUSALS,
    Capability,
    Catalog,
    Executor,
    Index,
    Isolation,
    Outcome,
    Plan,
    Progress,
    Purge,
    Write,
)
from tenantry.query import Query
from tenantry.resilience.retry import Retry
from tenantry.schema import Collection
from tenantry.searching import Search
from tenantry.types import Record

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.databases.postgres.sessions import Sessions

_BUILTIN_COLLATIONS = (17, 0)
_CONTROL_POOL = 4
_RAW_POOL = 4
_SCHEMA_SECONDS = 60.0
_SCHEMA_PAUSE = 0.05
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
        self._creates = config.schema_mode == "create"
        self._owner_url = config.owner_url.get_secret_value() if config.owner_url else None
        timeouts: dict[str, Any] = {
            "acquire_timeout": config.acquire_timeout,
            "connect_timeout": config.connect_timeout,
            "command_timeout": config.timeout,
            "statement_timeout": config.timeout,
        }
        sealed = {"keys": seal.parse_keys(keys), **timeouts}
        self._app = TenantPool(
            config.url.get_secret_value(),
            max_size=config.pool_size,
            tenant_share=config.max_connections_per_tenant,
            **sealed,
        )
        self._retry = Retry(config.retry_attempts, config.timeout)
        self._control = TenantPool(control_url, max_size=_CONTROL_POOL, **timeouts)
        self._replicas = self._replicas_of(config, sealed) if config.replicas else None
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
        if self._replicas is not None:
            await self._replicas.open()
        collation = "pg_c_utf8" if version >= _BUILTIN_COLLATIONS else "und-x-icu"
        self._compiler = BulkCompiler(PostgresDialect(collation), collections)

    async def close(self) -> None:
        """Let what runs finish, then close every connection."""
        if self._replicas is not None:
            await self._replicas.close()
        if self._sessions is not None:
            await self._sessions.close()
        for pool in self._pools():
            await pool.close()

    def _replicas_of(self, config: DatabaseConfig, options: dict[str, Any]) -> Replicas:
        make = partial(
            TenantPool, max_size=config.pool_size, tenant_share=config.max_connections_per_tenant, **options
        )
        urls = [url.get_secret_value() for url in config.replicas]
        connectors = self._control.connector, self._app.connector
        return Replicas(*connectors, [partial(make, url) for url in urls], config.max_replica_lag)

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
            until = monotonic() + _SCHEMA_SECONDS
            while not await self._created(owner):
                if monotonic() > until:
                    raise OperationTimeout(
                        "Another process changes the schema.", fix="Try again when it is done."
                    )
                await asyncio.sleep(_SCHEMA_PAUSE)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error
        finally:
            await owner.close()

    async def _created(self, owner: TenantPool) -> bool:
        """Create the tables, unless another process is at it.

        Asking again and again holds no snapshot, for which the other one's CREATE INDEX CONCURRENTLY would wait.
        """
        async with owner.transaction(None) as connection:
            if not await connection.fetchval("SELECT pg_catalog.pg_try_advisory_xact_lock($1)", SCHEMA_LOCK):
                return False
            existing = await _existing(connection)
            for statement in missing_tables(self._compiler.tables, existing, await self._roles()):
                await connection.execute(statement)
        return True

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

    # -- counting

    async def counted(self, tenant_id: str) -> list[Count]:
        """Return what the triggers have counted; without them, what there is."""
        tables = [str(table.name) for table in self._compiler.tables.values() if self._is_counted(table)]
        try:
            if await counting.uncounted(self._control, tables):
                return await counting.true_counts(self._control, tenant_id, tables)
            return await counting.counted(self._control, tenant_id)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def recount(self, tenant_id: str) -> list[Count]:
        """Count the rows themselves, and mend the counters."""
        tables = [str(table.name) for table in self._compiler.tables.values() if self._is_counted(table)]
        try:
            return await counting.recount(self._control, tenant_id, tables)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def prepare_counting(self) -> list[str]:
        """Return the tables whose triggers do not count, after ``schema="create"`` has made them."""
        tables = [str(table.name) for table in self._compiler.tables.values() if self._is_counted(table)]
        try:
            uncounted = await counting.uncounted(self._control, tables)
            if uncounted and self._creates and self._owner_url is not None:
                await self._begin_counting(self._owner_url, uncounted)
                uncounted = await counting.uncounted(self._control, tables)
            return uncounted
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def _begin_counting(self, owner_url: str, tables: Sequence[str]) -> None:
        owner = TenantPool(owner_url, max_size=1)
        await owner.open()
        try:
            async with owner.statement(None) as connection:
                await connection.execute("SELECT pg_advisory_lock($1)", SCHEMA_LOCK)
                for table in await counting.uncounted(self._control, tables):
                    await counting.begin_counting(connection, table)
                await connection.execute("SELECT pg_advisory_unlock($1)", SCHEMA_LOCK)
        finally:
            await owner.close()

    def _is_counted(self, table: sa.Table) -> bool:
        return table.schema is None and self._compiler.tables.collection_of(table).scope == "tenant"

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

    async def search(self, context: Context, search: Search) -> list[Record]:
        """Return the rows that a search finds, the best first."""
        return await self._read(context, lambda connection: self._searched(connection, context, search))

    async def _searched(self, connection: Any, context: Context, search: Search) -> list[Record]:
        words: list[str] = []
        for low, high in search.ranges():
            step = self._compiler.vocabulary(context, search.collection, low, high)
            words += [row[0] for row in await connection.fetch(step.statement.text, *step.args)]
        step = self._compiler.search(context, search.widened(words))
        return step.statement.records(await connection.fetch(step.statement.text, *step.args))

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        """Return the groups of ``aggregation``."""
        return await self._query(context, self._compiler.aggregate(context, aggregation))

    async def _query(self, context: Context, step: Step) -> list[Record]:
        return await self._read(context, partial(_rows_of, step))

    async def _read(self, context: Context, ask: Ask) -> list[Record]:
        """Ask whoever may answer, and again if the connection was lost."""
        return await self._retry.run(partial(self._read_once, context, ask), _nothing_written)

    async def _read_once(self, context: Context, ask: Ask) -> list[Record]:
        pool, tenant = self._scope(context)
        if self._replicas is None or not isinstance(context, TenantContext):
            return await self._read_from(ask, pool, tenant)
        read = partial(self._read_from, ask)
        return await self._replicas.read(context.tenant_id, pool, read, demanded=context.primary)

    async def _read_from(self, ask: Ask, pool: TenantPool, tenant: str | None) -> list[Record]:
        try:
            async with pool.statement(tenant) as connection:
                return await ask(connection)
        except DatabaseUnavailable as error:
            error.nothing_written = True
            raise
        except _DRIVER_ERRORS as error:
            raise self._translated(error, nothing_written=True) from error

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes or none; again only if it is certain that it was none."""
        with self._writing(context, writes):
            return await self._retry.run(partial(self._execute, context, writes), _nothing_written)

    def _writing(
        self, context: Context, writes: Sequence[Write] | None = None
    ) -> AbstractContextManager[None]:
        """Keep whom it concerns from reading on a replica that does not have what is written meanwhile."""
        if self._replicas is None:
            return nullcontext()
        if isinstance(context, TenantContext):
            return self._replicas.contacts.writing(context.tenant_id)
        if writes is not None and all(write.collection.scope == "control" for write in writes):
            return nullcontext()
        return self._replicas.contacts.writing(None)

    async def _execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        pool, tenant = self._scope(context)
        alone = len(writes) == 1 and not isinstance(writes[0], Purge)
        block = pool.statement(tenant) if alone else pool.transaction(tenant)
        unwritten = True  # until the server is asked for something that commits
        try:
            await self._check_sight([write.collection for write in writes if isinstance(write, Purge)])
            async with block as connection:
                unwritten = not alone or pool.pooled  # which makes a transaction of every block
                results = await self._perform(connection, context, writes)
                unwritten = False
        except DatabaseUnavailable as error:
            error.nothing_written |= unwritten
            raise
        except _DRIVER_ERRORS as error:
            raise self._translated(error, nothing_written=unwritten) from error
        return results

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes, as many as possible in one statement; those that are refused leave nothing."""
        pool, tenant = self._scope(context)
        everything = [*writes, *(write for unit in added.values() for write in unit)]
        with self._writing(context, everything):
            outcomes = None if added else await self._at_once(pool, tenant, context, writes)
            if outcomes is not None:
                return outcomes
            async with self._begun(pool, tenant, None) as connection:
                return await self._each(connection, context).run(writes, added)

    async def _at_once(
        self, pool: TenantPool, tenant: str | None, context: Context, writes: Sequence[Write]
    ) -> list[Outcome] | None:
        """Do them in one statement, without a transaction around it; nothing came of it where one was refused."""
        try:
            async with pool.statement(tenant) as connection:
                return await self._each(connection, context).at_once(writes)
        except REFUSALS:
            return None
        except _DRIVER_ERRORS as error:
            if isinstance(error, asyncpg.PostgresError) and is_about_one(error):
                return None
            raise self._translated(error) from error

    def _each(self, connection: Any, context: Context) -> Each:
        return Each(self._compiler, connection, context, self._drive, self._translated)

    async def _check_sight(self, collections: Sequence[Collection]) -> None:
        if collections:
            known, indexes = self._compiler.tables, self._compiler.tables.indexes
            tables = [known[collection.name] for collection in collections]
            tables += [indexes[collection.name] for collection in collections if collection.name in indexes]
            names = [policies.table_name(table.schema, table.name) for table in tables]
            await check_sight(self._control, names)

    @asynccontextmanager
    async def transaction(
        self, context: Context, isolation: Isolation | None = None
    ) -> AsyncIterator[Executor]:
        """One connection and one transaction for a unit of work."""
        pool, tenant = self._scope(context)
        with ExitStack() as noted:
            if tenant is not None:
                noted.enter_context(self._writing(context))
            async with self._begun(pool, tenant, isolation) as connection:
                unit = _Transaction(self, connection, context, noted)
                try:
                    yield unit
                finally:
                    unit.over = True

    @asynccontextmanager
    async def _begun(
        self, pool: TenantPool, tenant: str | None, isolation: Isolation | None
    ) -> AsyncIterator[Any]:
        begun = False
        try:
            async with pool.transaction(tenant, isolation=isolation) as connection:
                begun = True
                yield connection
        except DatabaseUnavailable as error:
            error.nothing_written |= not begun
            raise
        except _DRIVER_ERRORS as error:
            raise self._translated(error, nothing_written=not begun) from error

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
            with self._writing(context):
                async with raw.statement(context.tenant_id) as connection:
                    return [dict(row) for row in await connection.fetch(text, *params)]
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    @asynccontextmanager
    async def session(
        self, context: TenantContext, admit: Callable[[], Awaitable[None]], options: dict[str, Any]
    ) -> AsyncIterator[AsyncSession]:
        """Open a session of SQLAlchemy's ORM, each of whose transactions is bound to the tenant."""
        from tenantry.databases.postgres.sessions import Sessions  # the ORM, on first use

        if self._sessions is None:
            pool = self._raw_pool()
            self._sessions = Sessions(
                pool.connector, self._app.connector.ticket, size=_RAW_POOL, timeout=self._acquire_timeout
            )
        with self._writing(context):
            async with self._sessions.open(context.tenant_id, admit, options) as session:
                yield session

    @contextmanager
    def bind(self, connection: Any, context: TenantContext, admit: Callable[[], None]) -> Iterator[Any]:
        """Bind a user's own connection, which is logged in as the raw role, to the tenant."""
        ticket = partial(self._app.connector.ticket, context.tenant_id)
        with self._writing(context), bind(connection, Scope(context.tenant_id, admit, ticket)) as bound:
            yield bound

    def measure(self) -> dict[str, Any]:
        """Return how much of the pool is in use, who waits and for how long; for *raw* and *control* beside it."""
        others = {"control": self._control, "raw": self._raw}
        found = self._app.measure() | {
            role: pool.measure() for role, pool in others.items() if pool is not None
        }
        return found if self._replicas is None else found | {"replicas": self._replicas.measure()}

    # -- how queries run

    answered = indexes.ANSWERED

    async def explain(self, context: TenantContext, query: Query, *, count: bool, seconds: float) -> Plan:
        """Run a query once more under EXPLAIN ANALYZE, as the app role and bound to the tenant, unable to write."""
        compile_ = self._compiler.count if count else self._compiler.select
        step = compile_(context, query)
        try:
            async with self._app.transaction(context.tenant_id, readonly=True) as connection:
                return await explain(connection, step.statement.text, step.args, seconds)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def indexes(self) -> Catalog:
        """Return the indexes of the default schema, with how often each was used."""
        try:
            async with self._control.statement(None) as connection:
                return await indexes.catalog(connection)
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error

    def advised(self, collection: Collection, fields: Sequence[str]) -> tuple[Index, str]:
        """Return an index that was advised, and its DDL."""
        index = self._compiler.tables.advised(collection, fields)
        return index, indexes.create_statement(index)

    def drop_statement(self, index: Index) -> str:
        """Return the DDL that drops an index."""
        return indexes.drop_statement(index)

    async def create_index(self, index: Index, progress: Progress) -> bool:
        """Make an index as the owner, CONCURRENTLY."""
        return await indexes.create(self._owner(), index, progress)

    async def drop_index(self, index: Index) -> None:
        """Drop an index as the owner, CONCURRENTLY."""
        await indexes.drop(self._owner(), index)

    def _owner(self) -> str:
        if self._owner_url is None:
            raise ConfigurationError(
                "Making an index needs the owner's URL.",
                field="database.owner_url",
                fix="Set TENANTRY_DATABASE_OWNER_URL as `tenantry init` printed it.",
            )
        return self._owner_url

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

    def _translated(self, error: Exception, *, nothing_written: bool = False) -> TenantryError:
        """Return our error for the driver's, which says so if it is certain that nothing was written."""
        translated = self._named(error)
        if nothing_written and isinstance(translated, DatabaseUnavailable):
            translated.nothing_written = True
        return translated

    def _named(self, error: Exception) -> TenantryError:
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
        if getattr(error, "sqlstate", None) == counting.SQLSTATE_QUOTA:
            return counting.quota_exceeded(getattr(error, "detail", None))
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            return IsolationError(f"PostgreSQL refused: {error}.")
        if isinstance(error, asyncpg.DeadlockDetectedError | asyncpg.SerializationError):
            return SerializationFailure(f"PostgreSQL: {error}; nothing was written.", fix="Run it again.")
        if isinstance(error, asyncpg.DataError | asyncpg.SyntaxOrAccessError):
            return InvalidQuery(str(error), path="text")
        return DataError(f"PostgreSQL: {error}")


_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


Ask = Callable[[Any], Awaitable[list[Record]]]


async def _rows_of(step: Step, connection: Any) -> list[Record]:
    return step.statement.records(await connection.fetch(step.statement.text, *step.args))


def _nothing_written(error: TenantryError) -> bool:
    return isinstance(error, DatabaseUnavailable) and error.nothing_written


class _Transaction:
    """The executor of one unit of work."""

    def __init__(self, adapter: PostgresAdapter, connection: Any, context: Context, noted: ExitStack) -> None:
        self._adapter = adapter
        self._noted = noted  # what it writes, until it is over
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

    async def search(self, context: Context, search: Search) -> list[Record]:
        self._check(context)
        try:
            async with self._turn:
                return await self._adapter._searched(self._connection, context, search)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error) from error

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        return await self._query(context, self._adapter._compiler.aggregate(context, aggregation))

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        self._check(context)
        if isinstance(context, SystemContext):
            self._noted.enter_context(self._adapter._writing(context, writes))
        try:
            async with self._turn:
                return await self._adapter._perform(self._connection, context, writes)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error, nothing_written=True) from error

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        self._check(context)
        if isinstance(context, SystemContext):
            everything = [*writes, *(write for unit in added.values() for write in unit)]
            self._noted.enter_context(self._adapter._writing(context, everything))
        try:
            async with self._turn:
                return await self._adapter._each(self._connection, context).run(writes, added)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error, nothing_written=True) from error

    async def _query(self, context: Context, step: Step) -> list[Record]:
        self._check(context)
        try:
            async with self._turn:
                rows = await self._connection.fetch(step.statement.text, *step.args)
        except _DRIVER_ERRORS as error:
            raise self._adapter._translated(error, nothing_written=True) from error
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
