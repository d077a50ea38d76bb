"""SQLite: one file, one writer thread, a few reader threads, and an authorizer as the second lock."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from tenantry.config import DatabaseConfig
from tenantry.context import Context, TenantContext
from tenantry.databases._sql import Compiler, Step
from tenantry.databases._tables import Existing, ExistingColumn
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
from tenantry.ports import REFUSALS, Capability, Executor, Insert, Outcome, Write
from tenantry.query import Query
from tenantry.schema import Collection
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
        self._turn = asyncio.Lock()
        self._closed = False

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
        tables = [text for _, statements in self._compiler.tables.ddl() for text in statements]
        script = [CREATE_FENCES, *tables]

        def create(connection: Connection) -> None:
            with connection.trusted():
                in_transaction(connection, lambda: connection.script(script))

        await self._write(create)

    async def check_schema(self) -> list[str]:
        """Return how the tables differ from the collections."""
        existing = await self._write(_existing)
        missing = [] if (None, FENCES_TABLE) in existing else [f"table {FENCES_TABLE} is missing"]
        return [*missing, *self._compiler.tables.differences(existing)]

    async def undeclared_tables(self) -> list[str]:
        """Return the tables with rows of tenants that belong to no collection."""
        return self._compiler.tables.undeclared(await self._write(_existing))

    async def fence(self, tenant_id: str) -> None:
        """Refuse this tenant's writes for good; a transaction from before holds the file until it is over."""

        def fence(connection: Connection) -> None:
            in_transaction(connection, lambda: connection.fence(tenant_id))

        async with self._my_turn():
            await self._write(fence)

    async def attest(self) -> None:
        """Prove that the authorizer refuses every tenant table outside compiled statements."""

        def attempt(connection: Connection) -> None:
            for table in self._compiler.tables.values():
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

    # -- the executor

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return the rows with these ids."""
        return await self._read(self._query(self._compiler.fetch(context, collection, ids)))

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return the rows of ``query``."""
        return await self._read(self._query(self._compiler.select(context, query)))

    async def count(self, context: Context, query: Query) -> int:
        """Return how many rows meet the filter of ``query``."""
        step = self._compiler.count(context, query)
        return await self._read(lambda connection: int(self._run(connection, step)[0][0]))

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes or none."""

        def work(connection: Connection) -> list[list[Record]]:
            connection.check_fence(context)
            return self._perform(connection, context, writes)

        async with self._my_turn():
            return await self._write(lambda connection: in_transaction(connection, lambda: work(connection)))

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes one after the other; those that are refused leave nothing."""

        def work(connection: Connection) -> list[Outcome]:
            connection.check_fence(context)
            return self._each(connection, context, writes, added)

        async with self._my_turn():
            return await self._write(lambda connection: in_transaction(connection, lambda: work(connection)))

    @asynccontextmanager
    async def transaction(self, context: Context) -> AsyncIterator[Executor]:
        """Hold the writer for one unit of work."""

        def begin(connection: Connection) -> None:
            connection.control("BEGIN IMMEDIATE")
            connection.check_fence(context)

        async with self._my_turn():
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
    async def _my_turn(self) -> AsyncIterator[None]:
        """Wait for the one writer, but not for ever."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._turn.acquire()
        except TimeoutError:
            raise OperationTimeout(
                "Another transaction holds SQLite's one writer.", fix="Keep transactions short."
            ) from None
        try:
            yield
        finally:
            self._turn.release()

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Refused: SQLite has no role that would hold a foreign statement to the tenant."""
        raise Unsupported(
            "Raw SQL is refused on SQLite: nothing below would hold it to the tenant.",
            fix="Use read(…) with a filter, or PostgreSQL, where raw SQL runs under row-level security.",
        )

    # -- threads

    def _query(self, step: Step) -> Callable[[Connection], list[Record]]:
        return lambda connection: step.statement.records(self._run(connection, step))

    def _run(self, connection: Connection, step: Step) -> list[Any]:
        reach = self._reaches[step.statement.table, step.statement.writes]
        return connection.run(step, reach, self._timeout)

    def _perform(
        self, connection: Connection, context: Context, writes: Sequence[Write]
    ) -> list[list[Record]]:
        return [self._drive(connection, context, write) for write in writes]

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

    async def _read(self, job: Callable[[Connection], T]) -> T:
        return await self._submit(self._reader_threads, lambda: _translated(job, self._reader))

    async def _submit(self, threads: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        if self._closed:
            raise Closed("The database is closed.")
        return await asyncio.get_running_loop().run_in_executor(threads, job)


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
        raise DatabaseUnavailable(f"SQLite: {error}.") from error
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
