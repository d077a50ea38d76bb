"""SQLite: one file, one writer thread, a few reader threads, and an authorizer as the second lock.

The engine has no roles, so nothing but our own statements may run: while the adapter prepares a compiled statement,
the authorizer admits that statement's one table, and at any other time no table at all.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.sql.elements import ColumnElement

from tenantry import _values
from tenantry.config import DatabaseConfig
from tenantry.context import Context, TenantContext
from tenantry.databases._dialect import Decoder, Encoder, SQLDialect, json_scalar
from tenantry.databases._sql import Compiler, Step
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
from tenantry.ports import Capability, Executor, Write
from tenantry.query import Query
from tenantry.schema import Collection, Field, Kind
from tenantry.types import Record

T = TypeVar("T")

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_OLDEST = (3, 35, 0)  # RETURNING
_STEPS_BETWEEN_CHECKS = 100_000
_LATE_FOREIGN_KEY = "FOREIGN KEY constraint failed"

# Actions that reach no table by themselves; everything else is judged by the table it names.
_HARMLESS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_TRANSACTION})
_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


class SQLiteDialect(SQLDialect):
    """SQLite's types. Decimals are kept as text that sorts as the numbers do; instants as microseconds."""

    json_types: Mapping[type, tuple[str, ...]] = MappingProxyType(
        {str: ("text",), float: ("integer", "real"), bool: ("true", "false")}
    )

    def __init__(self) -> None:
        self.engine = sqlite_dialect.dialect(paramstyle="qmark")

    def insert(self, table: sa.Table) -> Any:
        """Return SQLite's insert."""
        return sqlite_dialect.insert(table)

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of the column for ``field``."""
        return _COLUMN_TYPES.get(field.kind, sa.Text())

    def encoder(self, field: Field) -> Encoder | None:
        """Return what turns a canonical value into what the driver takes."""
        if field.kind is Kind.DECIMAL:
            return _decimal_encoder(field)
        if field.kind is Kind.LIST and field.item is not None:
            return _list_encoder(field.item)
        return _ENCODERS.get(field.kind)

    def decoder(self, field: Field) -> Decoder | None:
        """Return the reverse of :meth:`encoder`."""
        if field.kind is Kind.DECIMAL:
            return _decimal_decoder(field)
        if field.kind is Kind.ENUM:
            return field.enum
        if field.kind is Kind.LIST:
            return lambda text: field.normalise(msgspec.json.decode(text))
        return _DECODERS.get(field.kind)

    def any_of(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """``column`` is one of the values in one JSON parameter."""
        items = sa.func.json_each(sa.bindparam(name, type_=sa.Text())).table_valued("value")
        value: ColumnElement[Any] = items.c.value
        if field.kind in (Kind.UUID, Kind.BYTES):
            value = sa.func.tenantry_unhex(value)
        return column.in_(sa.select(value))

    def encode_items(self, field: Field, values: Iterable[Any]) -> Any:
        """Return the values as a JSON array; bytes in hexadecimal."""
        encode = self.encoder(field)
        items = [value if encode is None else encode(value) for value in values]
        return msgspec.json.encode([i.hex() if isinstance(i, bytes) else i for i in items]).decode()

    def contains(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` holds ``value``."""
        return sa.func.instr(column, value) > 0

    def ends_with(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` ends with ``value``, which is not empty."""
        return sa.func.substr(column, -sa.func.length(value)) == value

    def ilike(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` matches the pattern ``value``."""
        return sa.func.tenantry_ilike(column, value) == sa.literal_column("1")

    def has(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """The list ``column`` has the element."""
        items = sa.func.json_each(column).table_valued("value")
        value = sa.bindparam(name, type_=sa.types.NullType())
        found = sa.exists(sa.select(sa.literal_column("1")).select_from(items).where(items.c.value == value))
        return sa.case((column.is_(None), sa.null()), else_=found)

    def encode_item(self, field: Field, value: Any) -> Any:
        """Return the element as it stands in the stored JSON."""
        return value if field.item is None else json_scalar(value)

    def json_path(self, path: tuple[str | int, ...]) -> list[Any]:
        """Return the path in SQLite's own notation, as one parameter for each use."""
        text = "$" + "".join(f"[{part}]" if isinstance(part, int) else f'."{part}"' for part in path)
        return [text]

    def json_at(
        self, column: ColumnElement[Any], path: tuple[str | int, ...], names: list[str]
    ) -> tuple[ColumnElement[str], Callable[[type], ColumnElement[Any]]]:
        """Return the type of the value at a path, and the value."""
        where = sa.bindparam(names[0], type_=sa.Text())
        return sa.func.json_type(column, where), lambda _: sa.func.json_extract(column, where)


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _list_encoder(item: Field) -> Encoder:
    return lambda values: _encode_json([json_scalar(value) for value in values])


def _decimal_encoder(field: Field) -> Encoder:
    """Encode so that text order is numeric order: a sign digit, then the scaled integer or its complement."""
    width, modulus = field.digits, 10**field.digits

    def encode(value: Decimal) -> str:
        scaled = int(value.scaleb(field.places, context=_WIDE))
        return f"1{scaled:0{width}d}" if scaled >= 0 else f"0{modulus + scaled:0{width}d}"

    return encode


def _decimal_decoder(field: Field) -> Decoder:
    modulus = 10**field.digits

    def decode(text: str) -> Decimal:
        scaled = int(text[1:]) if text[0] == "1" else int(text[1:]) - modulus
        value = Decimal(scaled).scaleb(-field.places, context=_WIDE)
        return value if field.fixed_places else _values.canonical_decimal(value)

    return decode


_WIDE = _values.EXACT
_COLUMN_TYPES: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.INT: sa.BigInteger(),
    Kind.BOOL: sa.Integer(),
    Kind.FLOAT: sa.Float(),
    Kind.DATETIME: sa.BigInteger(),
    Kind.UUID: sa.LargeBinary(),
    Kind.BYTES: sa.LargeBinary(),
}
_ENCODERS: dict[Kind, Encoder] = {
    Kind.BOOL: int,
    Kind.DATE: dt.date.isoformat,
    Kind.DATETIME: lambda value: (value - _EPOCH) // _MICROSECOND,
    Kind.UUID: lambda value: value.bytes,
    Kind.JSON: _encode_json,
    Kind.ENUM: lambda value: value.value,
}
_DECODERS: dict[Kind, Decoder] = {
    Kind.BOOL: bool,
    Kind.FLOAT: float,  # RETURNING yields whole numbers as integers
    Kind.DATE: dt.date.fromisoformat,
    Kind.DATETIME: lambda value: _EPOCH + dt.timedelta(microseconds=value),
    Kind.UUID: lambda value: uuid.UUID(bytes=value),
    Kind.JSON: msgspec.json.decode,
}


@dataclass(frozen=True, slots=True)
class _Reach:
    """The tables that a statement may read and write while it is prepared."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


_NOTHING = _Reach()
# What SQLite itself touches when it sets up json_each, the function behind "in".
_ENGINE = frozenset({"json_each", "sqlite_master"})


class _Connection:
    """A connection that belongs to one thread. Only :meth:`run` can reach a table of a tenant."""

    def __init__(self, path: str, *, timeout: float, readonly: bool) -> None:
        self._deadline = 0.0
        self._reach = _NOTHING
        self._trusted = True
        # It is closed by another thread than the one that uses it.
        self.raw = sqlite3.connect(path, isolation_level=None, timeout=timeout, check_same_thread=False)
        self.raw.create_function("tenantry_ilike", 2, _ilike, deterministic=True)
        self.raw.create_function("tenantry_unhex", 1, bytes.fromhex, deterministic=True)
        self.raw.execute("PRAGMA foreign_keys=ON")
        self.raw.execute("PRAGMA trusted_schema=OFF")
        if readonly:
            self.raw.execute("PRAGMA query_only=ON")
        self.raw.set_authorizer(self._authorize)
        self.raw.set_progress_handler(self._is_late, _STEPS_BETWEEN_CHECKS)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _authorize(self, action: int, first: str | None, *_: object) -> int:
        if self._trusted or action in _HARMLESS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            allowed = self._reach.reads
        else:
            allowed = self._reach.writes if action in _WRITES else _NOTHING.writes
        return sqlite3.SQLITE_OK if first in allowed else sqlite3.SQLITE_DENY

    def restrict(self) -> None:
        """From now on admit nothing but compiled statements."""
        self._trusted = False

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Admit the adapter's own work on the schema."""
        self._trusted, self._deadline = True, float("inf")
        try:
            yield
        finally:
            self._trusted = False

    def run(self, step: Step, reach: _Reach, timeout: float) -> list[Any]:
        """Run a compiled statement; while it is prepared, its own table can be reached."""
        self._reach, self._deadline = reach, time.monotonic() + timeout
        try:
            if step.many:
                return self.raw.executemany(step.statement.text, step.args).fetchall()
            return self.raw.execute(step.statement.text, step.args).fetchall()
        finally:
            self._reach = _NOTHING

    def script(self, statements: Sequence[str]) -> None:
        """Run the adapter's own statements."""
        for text in statements:
            self.raw.execute(text)

    def control(self, text: str) -> None:
        """Begin, commit or roll back."""
        self._deadline = float("inf")
        self.raw.execute(text)


def _ilike(value: str | None, pattern: str) -> bool | None:
    return None if value is None else _values.like(pattern)(value)


class SQLiteAdapter:
    """Tenant-isolated data in one SQLite file."""

    name = "sqlite"
    capabilities = frozenset(
        {Capability.TRANSACTIONS, Capability.FOREIGN_KEYS, Capability.DURABLE, Capability.MULTI_PROCESS}
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
        self._reader_threads = ThreadPoolExecutor(config.readers, "tenantry-sqlite-reader")
        self._local = threading.local()
        self._connections: list[_Connection] = []
        self._turn = asyncio.Lock()
        self._closed = False

    # -- life

    async def open(self, collections: Sequence[Collection]) -> None:
        """Open the file, in write-ahead mode."""
        self._compiler = Compiler(SQLiteDialect(), collections)
        self._reaches = _reaches_of(self._compiler)
        await self._write(lambda connection: connection.control("SELECT 1"))

    def _connect(self, *, readonly: bool) -> _Connection:
        try:
            connection = _Connection(self._path, timeout=self._timeout, readonly=readonly)
            if not readonly:
                connection.raw.execute("PRAGMA journal_mode=WAL")
                connection.raw.execute(f"PRAGMA synchronous={self._durability}")
        except sqlite3.OperationalError as error:
            raise DatabaseUnavailable(f"SQLite cannot open {self._path}: {error}.") from error
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
            await loop.run_in_executor(None, threads.shutdown)
        for connection in self._connections:
            connection.raw.close()

    async def create_schema(self) -> None:
        """Create the tables that do not exist yet."""
        script = [text for _, statements in self._compiler.tables.ddl() for text in statements]

        def create(connection: _Connection) -> None:
            with connection.trusted():
                _in_transaction(connection, lambda: connection.script(script))

        await self._write(create)

    async def check_schema(self) -> list[str]:
        """Return how the tables differ from the collections."""

        def columns(connection: _Connection) -> dict[tuple[str | None, str], set[str]]:
            query = (
                "SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c "
                "WHERE m.type = 'table'"
            )
            found: dict[tuple[str | None, str], set[str]] = {}
            with connection.trusted():
                for table, column in connection.raw.execute(query):
                    found.setdefault((None, table), set()).add(column)
            return found

        return self._compiler.tables.differences(await self._write(columns))

    async def attest(self) -> None:
        """Prove that the authorizer refuses every tenant table outside compiled statements."""

        def attempt(connection: _Connection) -> None:
            for table in self._compiler.tables.values():
                for foreign in (sa.select(sa.text("1")).select_from(table), sa.delete(table)):
                    try:
                        connection.control(str(foreign))
                    except sqlite3.DatabaseError as error:
                        if _is_refusal(error):
                            continue
                        raise
                    raise IsolationError(f"SQLite's authorizer let a foreign statement reach {table.name!r}.")

        await self._write(lambda c: _rolled_back(c, lambda: attempt(c)))
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

        def unit(connection: _Connection) -> list[list[Record]]:
            return _in_transaction(connection, lambda: self._perform(connection, context, writes))

        async with self._turn:
            return await self._write(unit)

    @asynccontextmanager
    async def transaction(self, context: Context) -> AsyncIterator[Executor]:
        """Hold the writer for one unit of work."""
        async with self._turn:
            unit = _Transaction(self, context)
            try:
                await self._write(lambda connection: connection.control("BEGIN IMMEDIATE"))
                yield unit
                await self._write(lambda connection: connection.control("COMMIT"))
            finally:
                unit.over = True
                # The writer is one thread: whatever a cancelled call still runs there ends before this, and what
                # the next holder of the turn asks for comes after it.
                if not self._closed:
                    self._writer_thread.submit(lambda: _abandon(self._writer()))

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Refused: SQLite has no role that would hold a foreign statement to the tenant."""
        raise Unsupported(
            "Raw SQL is refused on SQLite: nothing below would hold it to the tenant.",
            fix="Use read(…) with a filter, or PostgreSQL, where raw SQL runs under row-level security.",
        )

    # -- threads

    def _query(self, step: Step) -> Callable[[_Connection], list[Record]]:
        return lambda connection: step.statement.records(self._run(connection, step))

    def _run(self, connection: _Connection, step: Step) -> list[Any]:
        reach = self._reaches[step.statement.table, step.statement.writes]
        return connection.run(step, reach, self._timeout)

    def _perform(
        self, connection: _Connection, context: Context, writes: Sequence[Write]
    ) -> list[list[Record]]:
        return [self._drive(connection, context, write) for write in writes]

    def _drive(self, connection: _Connection, context: Context, write: Write) -> list[Record]:
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

    def _writer(self) -> _Connection:
        found: _Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect(readonly=False)
        return found

    def _reader(self) -> _Connection:
        found: _Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect(readonly=True)
        return found

    async def _write(self, job: Callable[[_Connection], T]) -> T:
        return await self._submit(self._writer_thread, lambda: _translated(job, self._writer))

    async def _read(self, job: Callable[[_Connection], T]) -> T:
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

    def _check(self, context: Context) -> None:
        if self.over:
            raise Closed("This transaction is over.", fix="Use it inside its `async with` block.")
        if context != self._context:
            raise ContextMismatch("This transaction belongs to another tenant.")


def _translated(job: Callable[[_Connection], T], connection: Callable[[], _Connection]) -> T:
    try:
        return job(connection())
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise OperationTimeout("The statement took longer than database.timeout.") from error
        raise DatabaseUnavailable(f"SQLite: {error}.") from error
    except sqlite3.DatabaseError as error:
        if _is_refusal(error):
            raise IsolationError("SQLite's authorizer refused the statement.") from error
        raise DatabaseUnavailable(f"SQLite: {error}.") from error


def _is_refusal(error: sqlite3.DatabaseError) -> bool:
    return "not authorized" in str(error) or "prohibited" in str(error)


def _in_transaction(connection: _Connection, work: Callable[[], T]) -> T:
    connection.control("BEGIN IMMEDIATE")
    try:
        outcome = work()
        connection.control("COMMIT")
    except BaseException:
        _abandon(connection)
        raise
    return outcome


def _rolled_back(connection: _Connection, work: Callable[[], None]) -> None:
    connection.control("BEGIN IMMEDIATE")
    try:
        work()
    finally:
        _abandon(connection)


def _abandon(connection: _Connection) -> None:
    if connection.raw.in_transaction:
        connection.control("ROLLBACK")


def _path_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    path = rest.removeprefix("/")
    if scheme != "sqlite" or not rest.startswith("/") or path in ("", ":memory:"):
        raise ConfigurationError(
            f"{url!r} names no SQLite file.",
            field="database.url",
            fix="Write sqlite:///relative.db or sqlite:////absolute.db; for nothing on disk use memory://.",
        )
    return str(Path(path))


def _reaches_of(compiler: Compiler) -> dict[tuple[str, bool], _Reach]:
    """For each table, what a statement that reads it or writes it (``True``) reaches.

    A write also deletes in the tables that cascade, and the engine looks at the other ends of foreign keys.
    """
    tables = {table.name: table for table in compiler.tables.values()}
    parents = {
        name: {key.referred_table.name for key in table.foreign_key_constraints}
        for name, table in tables.items()
    }
    reaches = {}
    for name in tables:
        written, todo = set[str](), [name]
        while todo:
            current = todo.pop()
            if current not in written:
                written.add(current)
                todo.extend(child for child, of in parents.items() if current in of)
        looked_at = written | {parent for table in written for parent in parents[table]}
        reaches[name, False] = _Reach(_ENGINE | {name}, frozenset({"sqlite_master"}))
        reaches[name, True] = _Reach(_ENGINE | looked_at, frozenset(written))
    return reaches
