"""A bounded pool whose connections are bound to a tenant.

Binding is what this pool exists for. A stock pool spends a round trip on resetting a connection that comes back;
this one spends it on naming the tenant, and not even that when the connection already serves the same tenant::

    async with pool.statement("acme") as connection:      # autocommit statements
        row = await connection.fetchrow(text, "acme", id)
    async with pool.transaction("acme") as connection:    # BEGIN … COMMIT
        ...

Both work alike on a direct connection and behind a transaction pooler such as PgBouncer, which is detected when the
pool opens: there each block becomes one transaction, with the seal in a setting that is local to it.

What keeps one tenant's connection from another:

- Only a connection whose last binding was seen to succeed counts as bound; the mark is taken off before the next
  binding is sent.
- A connection on which a command was cancelled or timed out, or which is still in a transaction when it comes back,
  is closed and never used again.
- A pool with ``wipe=True``, for connections that run a user's own SQL, discards all session state in between, and its
  blocks are transactions as they are behind a pooler: a seal that such SQL has copied is void once its block has ended.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Final

import asyncpg

from tenantry.databases.postgres.connection import (
    BIND_LOCAL,
    DRIVER_ERRORS,
    INIT_HINT,
    REBIND,
    Connector,
    Slot,
    TenantConnection,
    describe,
    spoils,
    translate,
)
from tenantry.databases.postgres.seal import SealKey
from tenantry.databases.postgres.shelf import Shelf, unbindable
from tenantry.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DataError,
    OperationTimeout,
)
from tenantry.ports import Isolation
from tenantry.resilience.fairness import FairShares

__all__ = ["INIT_HINT", "Isolation", "TenantConnection", "TenantPool", "describe", "translate"]

_WIPE_LOCAL: Final = "RESET ALL; SET SESSION AUTHORIZATION DEFAULT; CLOSE ALL; UNLISTEN *; DEALLOCATE ALL"
_BEGIN: Final[Mapping[Isolation | None, str]] = {
    None: "BEGIN",
    "read_committed": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "repeatable_read": "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "serializable": "BEGIN ISOLATION LEVEL SERIALIZABLE",
}


class TenantPool:
    """A bounded pool of connections for one role.

    Args:
        dsn: ``postgresql://role:password@host/database``; ``?sslmode=verify-full`` and the other parameters of
            asyncpg work.
        keys: The seal keys, newest first. Without one the pool binds nothing: for the control role.
        min_size: Connections that stay open when idle.
        max_size: Connections at most.
        tenant_share: Connections that one tenant holds at a time at most; by default as many as there are.
        acquire_timeout: Seconds to wait for a free connection.
        command_timeout: Seconds one command may take; then the server is asked to cancel it and the connection closed.
        connect_timeout: Seconds to open a connection.
        max_idle: Seconds after which an idle connection above ``min_size`` is closed.
        wipe: Discard all session state between two uses; for connections that run a user's own SQL.
        search_path: Pinned, with ``pg_temp`` last, so that no temporary table shadows a real one.
        statement_timeout: Seconds, enforced by the server; not behind a pooler.
        idle_in_transaction_timeout: Seconds, enforced by the server; not behind a pooler.
        application_name: What the server's activity view shows.
        ssl: As in :func:`asyncpg.connect`; usually better said in the DSN.
    """

    def __init__(
        self,
        dsn: str,
        *,
        keys: Sequence[SealKey] = (),
        min_size: int = 1,
        max_size: int = 10,
        tenant_share: int | None = None,
        acquire_timeout: float = 10.0,
        command_timeout: float | None = 60.0,
        connect_timeout: float = 10.0,
        max_idle: float = 300.0,
        wipe: bool = False,
        search_path: str = "public, pg_temp",
        statement_timeout: float | None = 60.0,
        idle_in_transaction_timeout: float | None = 60.0,
        application_name: str = "tenantry",
        ssl: Any = None,
    ) -> None:
        if not 0 <= min_size <= max_size or max_size < 1:
            raise ConfigurationError(
                "A pool needs 0 ≤ min_size ≤ max_size and max_size ≥ 1.", field="database.pool_size"
            )
        options: dict[str, Any] = {"timeout": connect_timeout, "command_timeout": command_timeout}
        if ssl is not None:
            options["ssl"] = ssl
        self.connector = Connector(
            dsn,
            keys,
            keep_statements=not wipe,
            settings={"application_name": application_name},
            direct_settings={
                "search_path": search_path,
                "statement_timeout": _milliseconds(statement_timeout),
                "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout),
            },
            options=options,
        )
        self._shelf = Shelf(self.connector, min_size, max_size, acquire_timeout, max_idle, wipe)
        self._search_path = search_path
        self._acquire_timeout = acquire_timeout
        self._shares = None if tenant_share is None else FairShares(tenant_share)

    def __repr__(self) -> str:
        return f"<TenantPool {self.connector.where} size={self.size}/{self.max_size} idle={self.idle}>"

    @property
    def pooled(self) -> bool:
        """Whether a transaction pooler stands between us and the server. Known once the pool is open."""
        return self.connector.pooled

    @property
    def size(self) -> int:
        """Connections that are open, opening or closing."""
        return self._shelf.size

    @property
    def max_size(self) -> int:
        """Connections at most."""
        return self._shelf.max_size

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return sum(map(len, self._shelf.idle.values()))

    @property
    def waiting(self) -> int:
        """Tasks that wait for a connection."""
        return len(self._shelf.waiters)

    def measure(self) -> dict[str, Any]:
        """Return ``size``, ``idle``, ``waiting``, and what :meth:`~tenantry.resilience.waits.Waits.snapshot` says."""
        waits = self._shelf.waiters.waits.snapshot()
        return {"size": self.size, "idle": self.idle, "waiting": self.waiting, **waits}

    def statement(self, tenant: str | None) -> AbstractAsyncContextManager[TenantConnection]:
        """Yield a connection for one or more autocommit statements of ``tenant``.

        Behind a pooler, or with ``wipe=True``, the block is one transaction. ``None`` binds nobody: row-level
        security then shows no row. A block that lasts longer than five minutes may see its seal expire; a
        transaction's does not.

        Raises:
            DatabaseUnavailable: No connection could be opened, or none would take the binding.
            OperationTimeout: None became free in time.
            SealRejected: The server refused the ticket.
            ConfigurationError: A tenant was named to a pool without a seal key.
            Closed: The pool is closed, or was never opened.
        """
        if self._shelf.local:
            return self._shared(tenant, _Transaction(self._shelf, tenant, "BEGIN", self._search_path))
        block = _Checkout(self._shelf, tenant)
        return block if self._shares is None else self._shared(tenant, block)

    def transaction(
        self, tenant: str | None, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Yield a connection in a transaction of ``tenant``; commit at the end, roll back on an exception.

        Raises:
            DataError: A statement had failed and the block went on as if nothing had happened; it was rolled back.
            TenantryError: As for :meth:`statement`.
        """
        begin = f"{_BEGIN[isolation]} READ ONLY" if readonly else _BEGIN[isolation]
        return self._shared(tenant, _Transaction(self._shelf, tenant, begin, self._search_path))

    def _shared(
        self, tenant: str | None, block: AbstractAsyncContextManager[TenantConnection]
    ) -> AbstractAsyncContextManager[TenantConnection]:
        if self._shares is None or tenant is None:
            return block
        return self._within_share(self._shares, tenant, block)

    @asynccontextmanager
    async def _within_share(
        self, shares: FairShares, tenant: str, block: AbstractAsyncContextManager[TenantConnection]
    ) -> AsyncIterator[TenantConnection]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(shares.turn(tenant, self._acquire_timeout))
            except TimeoutError:
                raise OperationTimeout(
                    f"Tenant {tenant!r} holds its share of the database connections, and gave none back within "
                    f"{self._acquire_timeout:g} s.",
                    fix="Raise database.max_connections_per_tenant, or hold connections for a shorter time.",
                ) from None
            yield await stack.enter_async_context(block)

    async def rebind(self, connection: TenantConnection, tenant: str | None) -> None:
        """Inside a transaction of this pool, name another tenant, or nobody, until it ends. For attestation only."""
        slot = self._shelf.slot_of(connection)
        assert slot.sealer is not None
        if self.pooled and tenant is not None:
            ticket = slot.sealer.sign(tenant, None, monotonic() + slot.clock)
            await connection.execute(BIND_LOCAL, ticket, self._search_path)
            return
        seal = "" if tenant is None else slot.sealer.sign(tenant, slot.backend, monotonic() + slot.clock)
        await connection.execute(REBIND, seal)

    async def open(self) -> None:
        """Find out whether a pooler stands in between, and open ``min_size`` connections, at least one.

        Raises:
            DatabaseUnavailable: The server cannot be reached or refuses the role.
            ConfigurationError: The URL cannot be read.
            UnsafeRole: The database was never provisioned.
        """
        if not self._shelf.opened:
            await self.connector.scout()
            await self._shelf.open()

    async def close(self, timeout: float = 10.0) -> None:
        """Close every connection. Those in use have ``timeout`` seconds to come back; then they are cut.

        Waiting tasks get :class:`~tenantry.errors.Closed`. Closing twice does nothing.
        """
        await self._shelf.close(timeout)


class _Checkout:
    """One bound connection for the time of a block. Hand-written, since every read passes through here."""

    __slots__ = ("_shelf", "_slot", "_tenant")

    def __init__(self, shelf: Shelf, tenant: str | None) -> None:
        self._shelf = shelf
        self._tenant = tenant

    async def __aenter__(self) -> TenantConnection:
        shelf, tenant = self._shelf, self._tenant
        stack = shelf.idle.get(tenant)
        if stack is not None and monotonic() < stack[-1].fresh_until:
            slot = stack.pop()
            if not stack:
                del shelf.idle[tenant]
            if not slot.connection.is_closed():
                self._slot = slot
                return slot.connection
            shelf.discard(slot)
        self._slot = slot = await shelf.take(tenant)
        return slot.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shelf, slot = self._shelf, self._slot
        connection = slot.connection
        if (
            error is not None
            or shelf.careful
            or connection.tainted
            or connection.is_closed()
            or connection.is_in_transaction()
        ):
            await shelf.give_back(slot, error)
        elif shelf.waiters:
            shelf.release(slot)
        else:
            shelf.put_idle(slot)


class _Transaction:
    """One bound connection in a transaction for the time of a block."""

    __slots__ = ("_begin", "_search_path", "_shelf", "_slot", "_tenant")

    def __init__(self, shelf: Shelf, tenant: str | None, begin: str, search_path: str) -> None:
        self._shelf = shelf
        self._tenant = tenant
        self._begin = begin
        self._search_path = search_path

    async def __aenter__(self) -> TenantConnection:
        self._slot = slot = await self._shelf.take(self._tenant)
        try:
            await slot.connection.execute(self._begin)
            if self._tenant is not None and self._shelf.local:
                await self._bind(slot, self._tenant)
        except DRIVER_ERRORS as error:
            self._shelf.discard(slot)
            raise unbindable(error) from error
        except BaseException:
            self._shelf.discard(slot)
            raise
        return slot.connection

    async def _bind(self, slot: Slot, tenant: str) -> None:
        assert slot.sealer is not None
        ticket = slot.sealer.sign(tenant, None, monotonic() + slot.clock)
        seed = (secrets.randbelow(2**31) / 2**31,) if self._shelf.wipe else ()
        await slot.bind.fetchval(ticket, self._search_path, *seed)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shelf, slot = self._shelf, self._slot
        connection = slot.connection
        if connection.tainted or connection.is_closed() or spoils(error):
            shelf.discard(slot)
            if error is None:
                raise DatabaseUnavailable(
                    "The connection was lost, or a call on it cancelled, before the commit; nothing was written.",
                    fix="Run it again.",
                    nothing_written=True,
                )
            return
        try:
            if error is not None:
                await self._roll_back(connection)
                committed = True  # nobody asked for more
            else:
                committed = await self._commit(connection)
        except asyncpg.PostgresError as refusal:
            await shelf.give_back(slot, refusal)
            if error is None:
                raise
            return
        except BaseException:
            shelf.discard(slot)
            raise
        await shelf.give_back(slot, None)
        if not committed:
            raise DataError(
                "The transaction was rolled back: a statement in it had failed.",
                fix="Let the statement's error leave the block.",
            )

    async def _commit(self, connection: TenantConnection) -> bool:
        """Commit; PostgreSQL answers ROLLBACK if a statement had failed."""
        if self._wipes_locally:
            try:
                await connection.execute(_WIPE_LOCAL)
            except asyncpg.InFailedSQLTransactionError:
                await self._roll_back(connection)
                return False
        return await connection.execute("COMMIT") != "ROLLBACK"

    async def _roll_back(self, connection: TenantConnection) -> None:
        # In one message, so that a pooler sends all of it to the same server.
        await connection.execute(f"ROLLBACK; {_WIPE_LOCAL}" if self._wipes_locally else "ROLLBACK")

    @property
    def _wipes_locally(self) -> bool:
        return self._shelf.wipe and self._shelf.connector.pooled


def _milliseconds(seconds: float | None) -> str:
    return "0" if seconds is None else str(max(1, round(seconds * 1000)))
