"""Binds the transactions of a user's own connection to a tenant, whatever driver it is of.

Each transaction begins by discarding what the one before may have left in the session, then exchanges a ticket for a
seal of that one transaction (see :mod:`tenantry.databases.postgres.seal`). So nothing has to be put right afterwards:
not after a commit in the middle, nor an exception, a killed process or a pooler that hands the connection on.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from tenantry.databases.postgres.seal import SEAL_SETTING
from tenantry.errors import ConfigurationError, ContextMismatch, Unsupported

# What DISCARD ALL discards, in words that a transaction allows. The last user's SQL may have left any of it.
WIPE: Final = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; DEALLOCATE ALL; "
    "DISCARD SEQUENCES; DISCARD TEMP"
)
BIND: Final = f"SELECT pg_catalog.set_config('{SEAL_SETTING}', tenantry.bind(%s), true)"
# UNLISTEN takes effect with the commit, so at the next begin it comes too late for that transaction.
UNLISTEN: Final = "UNLISTEN *"
_TIME_ZONE: Final = "SELECT pg_catalog.set_config('TimeZone', %s, false)"
# For the session and not just for the transaction: the block's SQL may have copied the seal there.
_UNBIND: Final = f"{UNLISTEN}; SELECT pg_catalog.set_config('{SEAL_SETTING}', '', false)"


class Scope(NamedTuple):
    """For whom a connection is bound.

    Attributes:
        tenant_id: The tenant.
        admit: Returns if the tenant may be served right now, and raises if not. Called for each transaction.
        ticket: Makes a ticket.
    """

    tenant_id: str
    admit: Callable[[], None]
    ticket: Callable[[], str]


_bound: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@contextmanager
def bind(connection: Any, scope: Scope) -> Iterator[Any]:
    """Bind a connection while the block runs.

    Args:
        connection: A ``psycopg.Connection``, a ``Session`` or ``Connection`` of SQLAlchemy, or one of Django's
            ``django.db.connections``, logged in as the raw role.
        scope: For whom.

    Raises:
        Unsupported: It is none of these.
        ContextMismatch: It is bound already, by a block around this one.
        ConfigurationError: It is in autocommit mode, so that no transaction would hold the binding.
    """
    binder = _binder_of(connection)
    if connection in _bound:
        raise ContextMismatch(
            f"This connection is bound to {_bound[connection]!r} by a block around this one."
        )
    _bound[connection] = scope.tenant_id
    try:
        with binder(connection, scope):
            yield connection
    finally:
        del _bound[connection]


def bound_to(connection: Any) -> str | None:
    """Return the tenant that a connection is bound to by a block that is not over, if any."""
    return _bound.get(connection)


def _binder_of(connection: Any) -> Callable[[Any, Scope], AbstractContextManager[None]]:
    for kind in type(connection).__mro__:
        binder = _BINDERS.get((kind.__module__.partition(".")[0], kind.__name__))
        if binder is not None:
            return binder
    raise Unsupported(
        f"A {type(connection).__module__}.{type(connection).__qualname__} cannot be bound.",
        fix="Bind a psycopg.Connection, a Session or Connection of SQLAlchemy, or a connection of Django; in "
        "asynchronous code use `async with sdk.tenant(…).session()`.",
    )


@contextmanager
def _psycopg(connection: Any, scope: Scope) -> Iterator[None]:
    _keep_nothing_prepared(connection)
    scope.admit()
    with connection.transaction():
        connection.execute(WIPE)
        connection.execute(BIND, (scope.ticket(),))
        yield
        connection.execute(_UNBIND)


@contextmanager
def _django(connection: Any, scope: Scope) -> Iterator[None]:
    scope.admit()
    connection.ensure_connection()
    _keep_nothing_prepared(connection.connection)
    with importlib.import_module("django.db.transaction").atomic(using=connection.alias):
        with connection.cursor() as cursor:
            cursor.execute(WIPE)
            # Django reads times as being in the zone that it set when it connected, which the line above has reset.
            cursor.execute(_TIME_ZONE, [connection.timezone_name])
            cursor.execute(BIND, [scope.ticket()])
        before = len(connection.run_on_commit)
        yield
        connection.run_on_commit[before:] = [
            (savepoints, partial(_after_commit, connection, scope, work), robust)
            for savepoints, work, robust in connection.run_on_commit[before:]
        ]
        if not connection.needs_rollback:  # which undoes the binding too
            with connection.cursor() as cursor:
                cursor.execute(_UNBIND)


def _after_commit(connection: Any, scope: Scope, work: Callable[[], object]) -> None:
    """Do what was left for after the commit. The binding ended with it, so there is a new one."""
    with _django(connection, scope):
        work()


@contextmanager
def _session(session: Any, scope: Scope) -> Iterator[None]:
    def begin(_: Any, transaction: Any, connection: Any) -> None:
        if not transaction.nested:
            with usable_if_bound(connection):
                _begin(connection, scope)

    with _listening(session, "after_begin", begin):
        try:
            yield
        finally:
            session.close()


@contextmanager
def _sqlalchemy_connection(connection: Any, scope: Scope) -> Iterator[None]:
    def begin(begun: Any) -> None:
        with usable_if_bound(begun):
            _begin(begun, scope)

    with _listening(connection, "begin", begin):
        try:
            yield
        finally:
            connection.rollback()


@contextmanager
def usable_if_bound(connection: Any) -> Iterator[None]:
    """Close a connection of SQLAlchemy that could not be bound.

    It is in its transaction already: whoever goes on past the error would otherwise use what the last tenant left.
    """
    try:
        yield
    except BaseException:
        connection.invalidate()
        raise


@contextmanager
def _listening(target: Any, name: str, listener: Callable[..., None]) -> Iterator[None]:
    if target.in_transaction():
        raise ContextMismatch(
            "A transaction is open on this connection, so it is too late to bind it.",
            fix="Commit it or roll it back first.",
        )
    event = importlib.import_module("sqlalchemy.event")
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def _begin(connection: Any, scope: Scope) -> None:
    """Bind the transaction that has just begun on a connection of SQLAlchemy."""
    raw = connection.connection.dbapi_connection
    if raw.autocommit:
        raise ConfigurationError(
            "This connection is in AUTOCOMMIT, so no transaction would hold the binding.",
            field="isolation_level",
            fix="Choose another isolation level.",
        )
    scope.admit()
    _keep_nothing_prepared(raw)
    cursor = raw.cursor()
    cursor.execute(WIPE)
    cursor.execute(BIND, (scope.ticket(),))
    cursor.close()
    event = importlib.import_module("sqlalchemy.event")
    if not event.contains(connection, "commit", _unlisten):
        event.listen(connection, "commit", _unlisten)


def _unlisten(connection: Any) -> None:
    connection.connection.dbapi_connection.cursor().execute(UNLISTEN)


def _keep_nothing_prepared(connection: Any) -> None:
    """A statement that stays prepared on the server could be put out of place by the next tenant's SQL."""
    if hasattr(connection, "prepare_threshold"):
        connection.prepare_threshold = None


_BINDERS: Final[dict[tuple[str, str], Callable[[Any, Scope], AbstractContextManager[None]]]] = {
    ("psycopg", "Connection"): _psycopg,
    ("sqlalchemy", "Session"): _session,
    ("sqlalchemy", "Connection"): _sqlalchemy_connection,
    ("django", "BaseDatabaseWrapper"): _django,
}
