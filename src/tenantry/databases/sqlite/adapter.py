"""SQLite: one file, one writer thread, a few reader threads, and an authorizer as the second lock."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from msgspec.structs import replace

from tenantry.aggregation import Aggregation
from tenantry.config import DatabaseConfig
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.databases._search import WordsOfRows
from tenantry.databases._sql import Compiler, Step
from tenantry.databases._tables import Existing, ExistingColumn
from tenantry.databases.sqlite import counting, indexes
from tenantry.databases.sqlite.connection import (
    CREATE_FENCES,
    FENCES_TABLE,
    Connection,
    abandon,
    in_transaction,
    is_refusal,
    reaches_of,
    rolled_back,
)
from tenantry.databases.sqlite.dialect import SQLiteDialect
from tenantry.errors import (
    Closed,
    ConfigurationError,
    ContextMismatch,
    DatabaseUnavailable,
    IsolationError,
    OperationTimeout,
    ReferenceViolation,
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
    Insert,
    Isolation,
    Outcome,
    Plan,
    Progress,
    Write,
)
from tenantry.query import Query
from tenantry.resilience.fairness import FairGate
from tenantry.schema import Collection
from tenantry.searching import Search
from tenantry.types import Record

T = TypeVar("T")

_OLDEST = (3, 35, 0)  # RETURNING
_COLUMNS = """
SELECT m.name, c.name, c.type, c."notnull", c.dflt_value
FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'
"""
_LATE_FOREIGN_KEY = "FOREIGN KEY constraint failed"


class SQLiteAdapter:
    """Tenant-isolated data in one SQLite file."""

    name = "sqlite"
    capabilities = frozenset(
        {
            Capability.TRANSACTIONS,
            Capability.FOREIGN_KEYS,
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.FORK,
        }
    )

    def __init__(self, config: DatabaseConfig) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} is too old.", fix="tenantry needs 3.35 or newer."
            )
        self._path = _path_of(config.url.get_secret_value())
        self._timeout = config.timeout
        self._durability = config.durability
        self._writer_thread = ThreadPoolExecutor(1, "tenantry-sqlite-writer")
        self._readers = config.readers
        self._reader_threads = ThreadPoolExecutor(config.readers, "tenantry-sqlite-reader")
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._turn = FairGate(1)
        self._reading = FairGate(config.readers)
        self._closed = False
        self._counting = False  # whether the file has the triggers

    # -- life

    async def open(self, collections: Sequence[Collection]) -> None:
        """Open the file, in write-ahead mode."""
        self._compiler = Compiler(SQLiteDialect(), collections)
        self._reaches = reaches_of(self._compiler)
        await self._write(lambda connection: connection.control("SELECT 1"))

    def _connect(self, *, readonly: bool) -> Connection:
        try:
            connection = Connection(self._path, timeout=self._timeout, readonly=readonly)
            if not readonly:
                connection.write_ahead(self._timeout)
                connection.raw.execute(f"PRAGMA synchronous={self._durability}")
        except sqlite3.OperationalError as error:
            raise DatabaseUnavailable(
                f"SQLite cannot open {self._path}: {error}.", fix="Its folder must exist and be writable."
            ) from error
        connection.restrict()
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Let what runs finish, then close the file."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        for threads in (self._writer_thread, self._reader_threads):
            try:
                await loop.run_in_executor(None, threads.shutdown)
            except RuntimeError:  # the interpreter is ending, and has joined them
                threads.shutdown()
        for connection in self._connections:
            connection.raw.close()

    async def rest(self) -> None:
        """Close the file until its next use: a child process inherits SQLite's idea of the locks, not the locks."""
        met = threading.Barrier(
            self._readers
        )  # so that each thread has finished what a cancelled call left it
        waiting = [self._reader_threads.submit(met.wait) for _ in range(self._readers)]
        waiting.append(self._writer_thread.submit(lambda: 0))
        await asyncio.gather(*map(asyncio.wrap_future, waiting))
        connections, self._connections, self._local = self._connections, [], threading.local()
        for connection in connections:
            connection.raw.close()

    async def create_schema(self) -> None:
        """Create the tables that do not exist yet."""
        tables = self._compiler.tables
        script = [CREATE_FENCES, *(text for _, statements in tables.ddl() for text in statements)]

        def make(connection: Connection, old: Existing) -> None:
            connection.script(script)
            for name, index in tables.indexes.items():
                if (None, index.name) not in old and (None, tables[name].name) in old:
                    connection.index(WordsOfRows(tables[name], index), self._compiler.dialect.engine)

        def create(connection: Connection) -> None:
            old = _existing(connection)
            with connection.trusted():
                in_transaction(connection, lambda: make(connection, old))

        await self._write(create)

    async def check_schema(self) -> list[str]:
        """Return how the tables differ from the collections."""
        existing = await self._write(_existing)
        self._counting = await self._write(lambda c: counting.counts_already(c, self._counted_tables()))
        missing = [] if (None, FENCES_TABLE) in existing else [f"table {FENCES_TABLE} is missing"]
        return [*missing, *self._compiler.tables.differences(existing)]

    async def undeclared_tables(self) -> list[str]:
        """Return the tables with rows of tenants that belong to no collection."""
        return self._compiler.tables.undeclared(await self._write(_existing))

    async def fence(self, tenant_id: str) -> None:
        """Refuse this tenant's writes for good; a transaction from before holds the file until it is over."""

        def fence(connection: Connection) -> None:
            in_transaction(connection, lambda: connection.fence(tenant_id))

        async with self._my_turn(tenant_id):
            await self._write(fence)

    async def attest(self) -> None:
        """Prove that the authorizer refuses every tenant table outside compiled statements."""

        def attempt(connection: Connection) -> None:
            for table in self._compiler.tables.metadata.sorted_tables:
                for foreign in (sa.select(sa.text("1")).select_from(table), sa.delete(table)):
                    try:
                        connection.control(str(foreign))
                    except sqlite3.DatabaseError as error:
                        if is_refusal(error):
                            continue
                        raise
                    raise IsolationError(f"SQLite's authorizer let a foreign statement reach {table.name!r}.")

        await self._write(lambda c: rolled_back(c, lambda: attempt(c)))
        await self._read(attempt)

    # -- counting

    async def counted(self, tenant_id: str) -> list[Count]:
        """Return what the triggers have counted; without them, what there is."""
        if self._counting:
            return await self._read(lambda c: counting.counted(c, tenant_id))
        return await self._read(lambda c: counting.true_counts(c, self._counted_tables(), tenant_id))

    async def recount(self, tenant_id: str) -> list[Count]:
        """Count the rows themselves, and mend the counters."""
        if not self._counting:
            return []

        def work(connection: Connection) -> list[Count]:
            return counting.recount(connection, self._counted_tables(), tenant_id)

        async with self._my_turn(None):
            return await self._write(lambda c: in_transaction(c, lambda: work(c)))

    async def prepare_counting(self) -> list[str]:
        """Make the triggers that are missing."""
        if not self._counting:
            async with self._my_turn(None):
                await self._write(
                    lambda c: in_transaction(c, lambda: counting.begin_counting(c, self._counted_tables()))
                )
            self._counting = True
        return []

    def _counted_tables(self) -> list[sa.Table]:
        tables = self._compiler.tables
        return [
            table
            for name, table in tables.items()
            if tables.collection_of(table).scope == "tenant" and not name.startswith("tenantry_")
        ]

    # -- the executor

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return the rows with these ids."""
        step = self._compiler.fetch(context, collection, ids)
        return await self._read(self._query(step), context.tenant_id)

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return the rows of ``query``."""
        return await self._read(self._query(self._compiler.select(context, query)), context.tenant_id)

    async def count(self, context: Context, query: Query) -> int:
        """Return how many rows meet the filter of ``query``."""
        step = self._compiler.count(context, query)
        return await self._read(lambda c: int(self._run(c, step)[0][0]), context.tenant_id)

    async def search(self, context: Context, search: Search) -> list[Record]:
        """Return the rows that a search finds, the best first."""
        return await self._read(self._searching(context, search))

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        """Return the groups of ``aggregation``."""
        return await self._read(self._query(self._compiler.aggregate(context, aggregation)))

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes or none."""

        def work(connection: Connection) -> list[list[Record]]:
            connection.check_fence(context)
            return self._perform(connection, context, writes)

        async with self._my_turn(context.tenant_id):
            return await self._write(lambda connection: in_transaction(connection, lambda: work(connection)))

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes one after the other; those that are refused leave nothing."""

        def work(connection: Connection) -> list[Outcome]:
            connection.check_fence(context)
            return self._each(connection, context, writes, added)

        async with self._my_turn(context.tenant_id):
            return await self._write(lambda connection: in_transaction(connection, lambda: work(connection)))

    @asynccontextmanager
    async def transaction(
        self, context: Context, isolation: Isolation | None = None
    ) -> AsyncIterator[Executor]:
        """Hold the writer for one unit of work."""

        def begin(connection: Connection) -> None:
            connection.control("BEGIN IMMEDIATE")
            connection.check_fence(context)

        async with self._my_turn(context.tenant_id):
            unit = _Transaction(self, context)
            try:
                await self._write(begin)
                yield unit
                await self._write(lambda connection: connection.control("COMMIT"))
            finally:
                unit.over = True
                # The writer is one thread: whatever a cancelled call still runs there ends before this, and what
                # the next holder of the turn asks for comes after it.
                if not self._closed:
                    self._writer_thread.submit(lambda: abandon(self._writer()))

    @asynccontextmanager
    async def _my_turn(self, tenant_id: str | None) -> AsyncIterator[None]:
        """Wait for the one writer, but not for ever."""
        try:
            await self._turn.enter(tenant_id, self._timeout)
        except TimeoutError:
            raise OperationTimeout(
                "Another transaction holds SQLite's one writer.", fix="Keep transactions short."
            ) from None
        try:
            yield
        finally:
            self._turn.leave()

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Refused: SQLite has no role that would hold a foreign statement to the tenant."""
        raise Unsupported(
            "Raw SQL is refused on SQLite: nothing below would hold it to the tenant.",
            fix="Use read(…) with a filter, or PostgreSQL, where raw SQL runs under row-level security.",
        )

    def measure(self) -> dict[str, Any]:
        """Return how its one writer and its readers are waited for."""
        waiting = {"writer": self._turn.queue, "readers": self._reading.queue}
        return {name: {"waiting": len(line), **line.waits.snapshot()} for name, line in waiting.items()}

    # -- how queries run

    answered = indexes.ANSWERED

    async def explain(self, context: TenantContext, query: Query, *, count: bool, seconds: float) -> Plan:
        """Return how a query would run, and count the rows that it looks at, where that is all of the tenant."""
        step = (self._compiler.count if count else self._compiler.select)(context, query)
        own = self._compiler.count(context, Query(query.collection, ()))
        met = self._compiler.count(context, query)
        nothing = self._compiler.fetch(context, query.collection, [])
        reach = self._reaches[step.statement.table, False]

        def work(connection: Connection) -> Plan:
            connection.run(
                nothing, reach, seconds
            )  # notices indexes that were made since, as EXPLAIN does not
            details = [str(row[3]) for row in connection.explain(step, reach, seconds)]
            plan = indexes.plan_of(details)
            if not plan.reads_all:
                return plan.plan
            scanned = int(connection.run(own, reach, seconds)[0][0])
            kept = int(connection.run(met, reach, seconds)[0][0])
            return replace(plan.plan, scanned=scanned, kept=kept)

        return await self._read(work)

    async def indexes(self) -> Catalog:
        """Return the indexes there are. SQLite does not count their uses."""
        return await self._write(indexes.catalog)

    def advised(self, collection: Collection, fields: Sequence[str]) -> tuple[Index, str]:
        """Return an index that was advised, and its DDL."""
        index = self._compiler.tables.advised(collection, fields)
        return index, indexes.create_statement(index)

    def drop_statement(self, index: Index) -> str:
        """Return the DDL that drops an index."""
        return indexes.drop_statement(index)

    async def create_index(self, index: Index, progress: Progress) -> bool:
        """Make an index. Other writers of the file wait until it is made."""
        progress(f"making {index.name}", None)
        async with self._my_turn(None):
            return await self._write(lambda connection: indexes.create(connection, index))

    async def drop_index(self, index: Index) -> None:
        """Drop an index."""
        async with self._my_turn(None):
            await self._write(lambda connection: indexes.drop(connection, index))

    # -- threads

    def _query(self, step: Step) -> Callable[[Connection], list[Record]]:
        return lambda connection: step.statement.records(self._run(connection, step))

    def _searching(self, context: Context, search: Search) -> Callable[[Connection], list[Record]]:
        def work(connection: Connection) -> list[Record]:
            words: list[str] = []
            for low, high in search.ranges():
                step = self._compiler.vocabulary(context, search.collection, low, high)
                words += [row[0] for row in self._run(connection, step)]
            return self._query(self._compiler.search(context, search.widened(words)))(connection)

        return work

    def _run(self, connection: Connection, step: Step) -> list[Any]:
        reach = self._reaches[step.statement.table, step.statement.writes]
        return connection.run(step, reach, self._timeout)

    def _perform(
        self, connection: Connection, context: Context, writes: Sequence[Write]
    ) -> list[list[Record]]:
        if not self._counting or isinstance(context, SystemContext):
            return [self._drive(connection, context, write) for write in writes]
        tenant = context.tenant_id
        return [
            counting.limited(connection, tenant, partial(self._drive, connection, context, write))
            for write in writes
        ]

    def _each(
        self,
        connection: Connection,
        context: Context,
        writes: Sequence[Write],
        added: Mapping[int, Sequence[Write]],
    ) -> list[Outcome]:
        records = [write.records[0] for write in writes if isinstance(write, Insert)]
        if not added and len(records) == len(writes) > 1:
            together = Insert(writes[0].collection, records)
            if not isinstance(self._one(connection, context, together), TenantryError):
                return list(records)
        return [
            self._one(connection, context, write, *added.get(number, ()))
            for number, write in enumerate(writes)
        ]

    def _one(self, connection: Connection, context: Context, *unit: Write) -> Outcome:
        connection.control("SAVEPOINT unit")
        try:
            rows = self._perform(connection, context, unit)[0]
            outcome: Outcome = rows[0] if rows else None
        except REFUSALS as error:
            connection.control("ROLLBACK TO unit")
            outcome = error
        connection.control("RELEASE unit")
        return outcome

    def _drive(self, connection: Connection, context: Context, write: Write) -> list[Record]:
        plan = self._compiler.perform(context, write)
        try:
            step = next(plan)
            while True:
                step = plan.send(self._run(connection, step))
        except StopIteration as done:
            records: list[Record] = done.value
            return records
        except sqlite3.IntegrityError as error:
            raise self._violation(write, error) from error

    def _violation(self, write: Write, error: sqlite3.IntegrityError) -> TenantryError:
        text = str(error)
        if text == _LATE_FOREIGN_KEY:
            return ReferenceViolation(write.collection.name)
        columns = [part.rpartition(".")[2] for part in text.rpartition(": ")[2].split(", ")]
        return UniqueViolation(write.collection.name, [name for name in columns if name != "tenant_id"])

    def _writer(self) -> Connection:
        found: Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect(readonly=False)
        return found

    def _reader(self) -> Connection:
        found: Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect(readonly=True)
        return found

    async def _write(self, job: Callable[[Connection], T]) -> T:
        return await self._submit(self._writer_thread, lambda: _translated(job, self._writer))

    async def _read(self, job: Callable[[Connection], T], tenant_id: str | None = None) -> T:
        self._check_open()
        await self._reading.enter(tenant_id)
        try:
            self._check_open()
            running = self._reader_threads.submit(lambda: _translated(job, self._reader))
        except BaseException:
            self._reading.leave()
            raise
        try:
            return await asyncio.wrap_future(running)
        finally:
            if running.done():
                self._reading.leave()
            else:  # cancelled; the thread is free once it is done with it
                leave = partial(_soon, asyncio.get_running_loop(), self._reading.leave)
                running.add_done_callback(leave)

    async def _submit(self, threads: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(threads, job)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The database is closed.")


class _Transaction:
    """The executor of one unit of work; it runs on the writer."""

    def __init__(self, adapter: SQLiteAdapter, context: Context) -> None:
        self._adapter = adapter
        self._context = context
        self.over = False

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        self._check(context)
        step = self._adapter._compiler.fetch(context, collection, ids)
        return await self._adapter._write(self._adapter._query(step))

    async def select(self, context: Context, query: Query) -> list[Record]:
        self._check(context)
        step = self._adapter._compiler.select(context, query)
        return await self._adapter._write(self._adapter._query(step))

    async def count(self, context: Context, query: Query) -> int:
        self._check(context)
        step = self._adapter._compiler.count(context, query)
        return await self._adapter._write(lambda c: int(self._adapter._run(c, step)[0][0]))

    async def search(self, context: Context, search: Search) -> list[Record]:
        self._check(context)
        return await self._adapter._write(self._adapter._searching(context, search))

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        self._check(context)
        step = self._adapter._compiler.aggregate(context, aggregation)
        return await self._adapter._write(self._adapter._query(step))

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        self._check(context)
        return await self._adapter._write(lambda c: self._adapter._perform(c, context, writes))

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        self._check(context)
        return await self._adapter._write(lambda c: self._adapter._each(c, context, writes, added))

    def _check(self, context: Context) -> None:
        if self.over:
            raise Closed("This transaction is over.", fix="Use it inside its `async with` block.")
        if context != self._context:
            raise ContextMismatch("This transaction belongs to another tenant.")


def _soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None], _: object) -> None:
    with suppress(RuntimeError):  # the loop is over, and nobody waits on it any more
        loop.call_soon_threadsafe(work)


def _existing(connection: Connection) -> Existing:
    found: dict[tuple[str | None, str], dict[str, ExistingColumn]] = {}
    with connection.trusted():
        for table, column, type_name, not_null, default in connection.raw.execute(_COLUMNS):
            described = ExistingColumn(type_name, not not_null, bool(not_null) and default is None)
            found.setdefault((None, table), {})[column] = described
    return found


def _translated(job: Callable[[Connection], T], connection: Callable[[], Connection]) -> T:
    try:
        return job(connection())
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise OperationTimeout("The statement took longer than database.timeout.") from error
        # Whoever waits for the lock has written nothing, and what a statement did is rolled back with its transaction.
        busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        raise DatabaseUnavailable(f"SQLite: {error}.", nothing_written=busy) from error
    except sqlite3.DatabaseError as error:
        if is_refusal(error):
            raise IsolationError("SQLite's authorizer refused the statement.") from error
        raise DatabaseUnavailable(f"SQLite: {error}.") from error


def _path_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    path = rest.removeprefix("/")
    if scheme != "sqlite" or not rest.startswith("/") or path in ("", ":memory:"):
        raise ConfigurationError(
            "The URL names no SQLite file.",
            field="database.url",
            fix="Write sqlite:///relative.db or sqlite:////absolute.db; for nothing on disk use memory://.",
        )
    return str(Path(path))
