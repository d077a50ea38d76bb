"""A connection on which nothing but compiled statements may reach a table.

The engine has no roles, so the adapter's own connections are the only way in: while one prepares a compiled statement,
the authorizer admits that statement's tables, and at any other time no table at all.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from sqlalchemy.engine.interfaces import Dialect

from tenantry import _values, words
from tenantry.context import Context, SystemContext
from tenantry.databases._search import WordsOfRows
from tenantry.databases._sql import Compiler, Step
from tenantry.databases.sqlite.dialect import Mean, Total, begin_of, first_day_of
from tenantry.errors import TenantDeleted
from tenantry.plans import USAGE

T = TypeVar("T")

_STEPS_BETWEEN_CHECKS = 100_000
_PAUSE = 0.01

# Actions that reach no table by themselves; everything else is judged by the table it names.
_HARMLESS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT}
)
_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


@dataclass(frozen=True, slots=True)
class Reach:
    """The tables that a statement may read and write while it is prepared."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


NOTHING = Reach()
COUNT_TRIGGER = "tenantry_count_"
# The tenants whose writes are refused. No column tenant_id, since no tenant's row is in it.
FENCES_TABLE = "tenantry_fences"
CREATE_FENCES = "CREATE TABLE IF NOT EXISTS tenantry_fences (id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID"
FENCES = Reach(frozenset({FENCES_TABLE}))
_FENCE = "INSERT OR IGNORE INTO tenantry_fences (id) VALUES (?)"
_FENCED = "SELECT 1 FROM tenantry_fences WHERE id = ?"
# What SQLite itself touches when it sets up json_each, the function behind "in".
_ENGINE = frozenset({"json_each", "sqlite_master"})
# Loaded with the schema, whatever is prepared just then: averages by which SQLite chooses between indexes.
_AVERAGES = "sqlite_stat1"


def reaches_of(compiler: Compiler) -> dict[tuple[str, bool], Reach]:
    """For each table, what a statement that reads it or writes it (``True``) reaches.

    A write also deletes in the tables that cascade, and the engine looks at the other ends of foreign keys.
    """
    of_words = {table.name for table in compiler.tables.indexes.values()}
    tables = {table.name: table for table in compiler.tables.metadata.tables.values()}
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
        # A search joins the words with their rows.
        joined = {name} | (parents[name] if name in of_words else set())
        reaches[name, False] = Reach(_ENGINE | joined, frozenset({"sqlite_master"}))
        reaches[name, True] = Reach(_ENGINE | looked_at, frozenset({*written, "sqlite_master"}))
    return reaches


class Connection:
    """A connection that belongs to one thread. Only :meth:`run` can reach a table of a tenant."""

    def __init__(self, path: str, *, timeout: float, readonly: bool) -> None:
        self._deadline = 0.0
        self._explained = 0
        self._reach = NOTHING
        self._trusted = True
        # It is closed by another thread than the one that uses it.
        self.raw = sqlite3.connect(path, isolation_level=None, timeout=timeout, check_same_thread=False)
        self.raw.create_function("tenantry_ilike", 2, _ilike, deterministic=True)
        self.raw.create_function("tenantry_unhex", 1, bytes.fromhex, deterministic=True)
        self.raw.create_function("tenantry_words", 1, words.line, deterministic=True)
        self.raw.create_function("tenantry_begin", 3, begin_of, deterministic=True)
        self.raw.create_function("tenantry_first_day", 2, first_day_of, deterministic=True)
        aggregates: dict[str, Any] = {"tenantry_sum": Total, "tenantry_mean": Mean}
        for name, made in aggregates.items():
            self.raw.create_aggregate(name, 3, made)
        self.raw.execute("PRAGMA foreign_keys=ON")
        self.raw.execute("PRAGMA trusted_schema=OFF")
        if readonly:
            self.raw.execute("PRAGMA query_only=ON")
        self.raw.set_authorizer(self._authorize)
        self.raw.set_progress_handler(self._is_late, _STEPS_BETWEEN_CHECKS)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _authorize(self, action: int, first: str | None, *rest: str | None) -> int:
        if self._trusted or action in _HARMLESS:
            return sqlite3.SQLITE_OK
        if (
            action == sqlite3.SQLITE_RECURSIVE
        ):  # the look-up of a vocabulary is; what it reads is judged below
            return sqlite3.SQLITE_DENY if self._reach is NOTHING else sqlite3.SQLITE_OK
        if first == USAGE.name and (rest[-1] or "").startswith(COUNT_TRIGGER):
            return (
                sqlite3.SQLITE_OK
            )  # a trigger counts what the statement, which was judged itself, has written
        if action == sqlite3.SQLITE_READ:
            if first == _AVERAGES:
                return sqlite3.SQLITE_OK
            allowed = self._reach.reads
        else:
            allowed = self._reach.writes if action in _WRITES else NOTHING.writes
        return sqlite3.SQLITE_OK if first in allowed else sqlite3.SQLITE_DENY

    def write_ahead(self, timeout: float) -> None:
        """Turn write-ahead mode on. Two processes that make the file at once get in each other's way for a moment."""
        until = time.monotonic() + timeout
        while True:
            try:
                self.raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # This statement does not wait for the lock, whatever the connection's timeout is.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)

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

    def run(self, step: Step, reach: Reach, timeout: float) -> list[Any]:
        """Run a compiled statement; while it is prepared, its own table can be reached."""
        self._reach, self._deadline = reach, time.monotonic() + timeout
        try:
            if step.many:
                return self.raw.executemany(step.statement.text, step.args).fetchall()
            return self.raw.execute(step.statement.text, step.args).fetchall()
        finally:
            self._reach = NOTHING

    def explain(self, step: Step, reach: Reach, timeout: float) -> list[Any]:
        """Return how a compiled statement would run. It is prepared under the same authorizer, and not run."""
        # A text of its own each time: the driver would keep the statement, whose plan nothing ever renews.
        self._explained += 1
        text = f"EXPLAIN QUERY PLAN /* {self._explained} */ {step.statement.text}"
        explained = msgspec.structs.replace(step.statement, text=text)
        return self.run(Step(explained, step.args), reach, timeout)

    def look(self, text: str, params: Sequence[Any], reach: Reach) -> list[Any]:
        """Run a query of the adapter's own."""
        self._reach, self._deadline = reach, float("inf")
        try:
            return self.raw.execute(text, params).fetchall()
        finally:
            self._reach = NOTHING

    def check_fence(self, context: Context) -> None:
        """Refuse a tenant that is fenced off. To be asked inside the transaction that would write.

        Raises:
            TenantDeleted: It is.
        """
        if isinstance(context, SystemContext):
            return
        self._reach = FENCES
        try:
            fenced = self.raw.execute(_FENCED, (context.tenant_id,)).fetchone()
        finally:
            self._reach = NOTHING
        if fenced:
            raise TenantDeleted(f"Tenant {context.tenant_id!r} was deleted.", tenant_id=context.tenant_id)

    def fence(self, tenant_id: str) -> None:
        """Refuse a tenant's writes for good."""
        with self.trusted():
            self.raw.execute(_FENCE, (tenant_id,))

    def script(self, statements: Sequence[str]) -> None:
        """Run the adapter's own statements."""
        for text in statements:
            self.raw.execute(text)

    def index(self, words: WordsOfRows, engine: Dialect) -> None:
        """Make the words of rows that were there before them."""
        insert = str(words.insert.compile(dialect=engine))
        for row in self.raw.execute(str(words.rows.compile(dialect=engine))).fetchall():
            self.raw.executemany(insert, words.of(row))

    def control(self, text: str) -> None:
        """Begin, commit or roll back."""
        self._deadline = float("inf")
        self.raw.execute(text)


def _ilike(value: str | None, pattern: str) -> bool | None:
    return None if value is None else _values.like(pattern)(value)


def is_refusal(error: sqlite3.DatabaseError) -> bool:
    """Whether the authorizer refused a statement."""
    return "not authorized" in str(error) or "prohibited" in str(error)


def in_transaction(connection: Connection, work: Callable[[], T]) -> T:
    """Run ``work`` in a transaction: all of it, or nothing."""
    connection.control("BEGIN IMMEDIATE")
    try:
        outcome = work()
        connection.control("COMMIT")
    except BaseException:
        abandon(connection)
        raise
    return outcome


def rolled_back(connection: Connection, work: Callable[[], None]) -> None:
    """Run ``work`` in a transaction that is rolled back."""
    connection.control("BEGIN IMMEDIATE")
    try:
        work()
    finally:
        abandon(connection)


def abandon(connection: Connection) -> None:
    """Roll back the transaction that is open, if one is."""
    if connection.raw.in_transaction:
        connection.control("ROLLBACK")
