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

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal

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
from tenantry.databases.postgres.seal import SEAL_SECONDS, SealKey
from tenantry.errors import (
    Closed,
    ConfigurationError,
    DatabaseUnavailable,
    DataError,
    OperationTimeout,
)

__all__ = ["INIT_HINT", "Isolation", "TenantConnection", "TenantPool", "describe", "translate"]

Isolation = Literal["read_committed", "repeatable_read", "serializable"]

# A checkout finds at least this much life left in its seal, however many statements it then runs.
_MARGIN = SEAL_SECONDS / 2
_RETIRE_SECONDS = 2.0
_WIPE_SECONDS = 5.0
_BIND_ATTEMPTS = 3
_WIPE_LOCAL: Final = "RESET ALL; SET SESSION AUTHORIZATION DEFAULT; CLOSE ALL; UNLISTEN *"
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
        self._connector = Connector(
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
        self._shelf = _Shelf(self._connector, min_size, max_size, acquire_timeout, max_idle, wipe)
        self._search_path = search_path

    def __repr__(self) -> str:
        return f"<TenantPool {self._connector.where} size={self.size}/{self.max_size} idle={self.idle}>"

    @property
    def pooled(self) -> bool:
        """Whether a transaction pooler stands between us and the server. Known once the pool is open."""
        return self._connector.pooled

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
        return sum(not waiter.done() for waiter in self._shelf.waiters)

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
            return _Transaction(self._shelf, tenant, "BEGIN", self._search_path)
        return _Checkout(self._shelf, tenant)

    def transaction(
        self, tenant: str | None, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Yield a connection in a transaction of ``tenant``; commit at the end, roll back on an exception.

        Raises:
            DataError: A statement had failed and the block went on as if nothing had happened; it was rolled back.
            TenantryError: As for :meth:`statement`.
        """
        begin = _BEGIN[isolation]
        return _Transaction(
            self._shelf, tenant, f"{begin} READ ONLY" if readonly else begin, self._search_path
        )

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
            await self._connector.scout()
            await self._shelf.open()

    async def close(self, timeout: float = 10.0) -> None:
        """Close every connection. Those in use have ``timeout`` seconds to come back; then they are cut.

        Waiting tasks get :class:`~tenantry.errors.Closed`. Closing twice does nothing.
        """
        await self._shelf.close(timeout)


class _Shelf:
    """The connections of a pool, who uses them, and the line of those who wait.

    Either some connection is idle or somebody waits, never both.
    """

    def __init__(
        self,
        connector: Connector,
        min_size: int,
        max_size: int,
        acquire_timeout: float,
        max_idle: float,
        wipe: bool,
    ) -> None:
        self.connector = connector
        self.max_size = max_size
        self.wipe = wipe
        self.opened = False
        self.closing = False
        self.careful = wipe  # whether a returned connection needs more than being put back
        # Idle connections by the tenant they are bound to; no list is empty. Roughly, the tenants that were served
        # longest ago come first.
        self.idle: dict[str | None, list[Slot]] = {}
        self.waiters: deque[asyncio.Future[Slot | None]] = deque()
        self.size = 0  # open, opening and closing
        self._min_size = min_size
        self._acquire_timeout = acquire_timeout
        self._max_idle = max_idle
        self._slots: set[Slot] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._reaper: asyncio.TimerHandle | None = None

    def slot_of(self, connection: TenantConnection) -> Slot:
        return next(slot for slot in self._slots if slot.connection is connection)

    @property
    def local(self) -> bool:
        """Whether a tenant is bound to a transaction and not to a connection."""
        return self.wipe or self.connector.pooled

    async def open(self) -> None:
        self.opened = True
        try:
            for _ in range(max(1, self._min_size)):
                self.size += 1
                self.put_idle(await self._connect())
        except BaseException:
            await self.close(0)
            raise
        self._schedule_reaper()

    async def close(self, timeout: float) -> None:
        self.closing = self.careful = True
        if self._reaper is not None:
            self._reaper.cancel()
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_exception(Closed("The database pool is closed."))
        stacks, self.idle = self.idle, {}
        for stack in stacks.values():
            for slot in stack:
                self.discard(slot)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while self.size:
                        self._drained.clear()
                        await self._drained.wait()
        finally:
            for slot in list(self._slots):
                slot.connection.terminate()
                self._forget(slot)
        await asyncio.gather(*self._retiring, return_exceptions=True)

    # -- handing out

    async def take(self, tenant: str | None) -> Slot:
        """Return a connection that is bound to ``tenant``; one that is bound to nobody if transactions are."""
        if tenant is not None and not self.connector.sealed:
            raise ConfigurationError(
                "This pool has no seal key, so it cannot serve a tenant.", field="database.seal_key"
            )
        if self.local:
            tenant = None
        for attempt in range(_BIND_ATTEMPTS):
            slot = self._pick(tenant) or await self._obtain()
            if slot.tenant == tenant and monotonic() < slot.fresh_until:
                return slot
            try:
                await self._bind(slot, tenant)
            except DRIVER_ERRORS as error:
                # It may have died while it was idle. Nothing has been asked of it yet, so another one may do.
                dead = slot.connection.is_closed() or isinstance(error, asyncpg.InternalClientError)
                if not dead or attempt + 1 == _BIND_ATTEMPTS:
                    raise _unbindable(error) from error
            else:
                return slot
        raise AssertionError("the last attempt returns or raises")

    def _pick(self, tenant: str | None) -> Slot | None:
        """Take an idle connection: best one of this tenant, else of the tenant served longest ago."""
        idle = self.idle
        while idle:
            key = tenant if tenant in idle else next(iter(idle))
            stack = idle[key]
            slot = stack.pop() if key == tenant else stack.pop(0)
            if not stack:
                del idle[key]
            if not slot.connection.is_closed():
                return slot
            self.discard(slot)
        return None

    async def _obtain(self) -> Slot:
        """Open a connection, or wait for one."""
        self._check_open()
        if self.size < self.max_size:
            self.size += 1
        else:
            slot = await self._wait()
            if slot is not None:
                return slot
        slot = await self._connect()
        try:
            self._check_open()
        except Closed:
            self.discard(slot)
            raise
        return slot

    def _check_open(self) -> None:
        if self.closing or not self.opened:
            raise Closed(f"The database pool is {'closed' if self.closing else 'not open'}.")

    async def _connect(self) -> Slot:
        """Open a connection that is counted in ``size`` already."""
        try:
            slot = await self.connector.connect()
        except BaseException:
            self.size -= 1
            self._wake()
            raise
        self._slots.add(slot)
        return slot

    async def _wait(self) -> Slot | None:
        """Wait in line for a connection, or for the permission (``None``) to open one."""
        future: asyncio.Future[Slot | None] = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        try:
            async with asyncio.timeout(self._acquire_timeout):
                return await future
        except TimeoutError:
            self._leave_line(future)
            raise OperationTimeout(
                f"No database connection became free within {self._acquire_timeout:g} s: "
                f"all {self.max_size} are in use.",
                fix="Raise database.pool_size, or hold connections for a shorter time.",
            ) from None
        except BaseException:
            self._leave_line(future)
            raise

    def _leave_line(self, future: asyncio.Future[Slot | None]) -> None:
        """Give up waiting. What was handed to us in the same moment goes to the next in line."""
        if not future.done() or future.cancelled():
            future.cancel()
            with suppress(ValueError):
                self.waiters.remove(future)
        elif future.exception() is None:
            slot = future.result()
            if slot is not None:
                self.release(slot)
            else:
                self.size -= 1
                self._wake()

    async def _bind(self, slot: Slot, tenant: str | None) -> None:
        """Name the tenant to the server. A connection on which that fails is gone."""
        slot.tenant, slot.fresh_until = None, 0.0
        now, seal = monotonic(), ""
        try:
            if tenant is not None:
                assert slot.sealer is not None
                seal = slot.sealer.sign(tenant, slot.backend, now + slot.clock)
            await slot.bind.fetchval(seal)
        except BaseException:
            self.discard(slot)
            raise
        slot.tenant, slot.fresh_until = tenant, math.inf if tenant is None else now + _MARGIN

    # -- taking back

    def put_idle(self, slot: Slot) -> None:
        """Put back a sound connection that nobody waits for."""
        slot.released_at = monotonic()
        stack = self.idle.get(slot.tenant)
        if stack is None:
            self.idle[slot.tenant] = [slot]
        else:
            stack.append(slot)

    def release(self, slot: Slot) -> None:
        """Pass a sound connection to the next in line, or put it back."""
        if self.closing:
            self.discard(slot)
            return
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        self.put_idle(slot)

    async def give_back(self, slot: Slot, error: BaseException | None) -> None:
        """Take back a connection after anything but a plain success, and decide whether it can be used again."""
        connection = slot.connection
        if connection.is_closed() or connection.tainted or self.closing or spoils(error):
            self.discard(slot)
        elif self.wipe and not self.connector.pooled:
            await self._wipe(slot)
        elif connection.is_in_transaction():
            self.discard(slot)
        else:
            self.release(slot)

    async def _wipe(self, slot: Slot) -> None:
        try:
            if slot.connection.is_in_transaction():
                await slot.connection.execute("ROLLBACK", timeout=_WIPE_SECONDS)
            await slot.connection.execute("DISCARD ALL", timeout=_WIPE_SECONDS)
        except DRIVER_ERRORS:
            self.discard(slot)
        except BaseException:
            self.discard(slot)
            raise
        else:
            self.release(slot)

    def discard(self, slot: Slot) -> None:
        """Close a connection for good. It counts until it is closed, so that the server never sees more."""
        if slot.connection.is_closed():
            slot.connection.terminate()
            self._forget(slot)
            return
        task = asyncio.get_running_loop().create_task(self._retire(slot))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, slot: Slot) -> None:
        """Let the server cancel what still runs, then close."""
        try:
            with suppress(*DRIVER_ERRORS):
                await slot.connection.close(timeout=_RETIRE_SECONDS)
        finally:
            slot.connection.terminate()
            self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        if slot in self._slots:
            self._slots.remove(slot)
            self.size -= 1
            self._wake()

    def _wake(self) -> None:
        """There is room for one more: let the first in line open it."""
        if self.closing:
            self._drained.set()
            return
        while self.waiters and self.size < self.max_size:
            waiter = self.waiters.popleft()
            if not waiter.done():
                self.size += 1
                waiter.set_result(None)

    # -- idle connections

    def _schedule_reaper(self) -> None:
        delay = max(0.05, self._max_idle / 4)
        self._reaper = asyncio.get_running_loop().call_later(delay, self._reap)

    def _reap(self) -> None:
        """Close what was idle for too long, oldest first, down to ``min_size``."""
        limit = monotonic() - self._max_idle
        old = [slot for stack in self.idle.values() for slot in stack if slot.released_at < limit]
        old.sort(key=lambda slot: slot.released_at)
        for slot in old[: max(0, self.size - self._min_size)]:
            stack = self.idle[slot.tenant]
            stack.remove(slot)
            if not stack:
                del self.idle[slot.tenant]
            self.discard(slot)
        self._schedule_reaper()


class _Checkout:
    """One bound connection for the time of a block. Hand-written, since every read passes through here."""

    __slots__ = ("_shelf", "_slot", "_tenant")

    def __init__(self, shelf: _Shelf, tenant: str | None) -> None:
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

    def __init__(self, shelf: _Shelf, tenant: str | None, begin: str, search_path: str) -> None:
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
            raise _unbindable(error) from error
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
            return
        try:
            if error is not None:
                await connection.execute("ROLLBACK")
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
        if self._shelf.wipe and self._shelf.connector.pooled:
            with suppress(asyncpg.InFailedSQLTransactionError):
                await connection.execute(_WIPE_LOCAL)
        return await connection.execute("COMMIT") != "ROLLBACK"


def _unbindable(error: Exception) -> Exception:
    return translate(error) or DatabaseUnavailable(f"The connection could not be bound: {error}")


def _milliseconds(seconds: float | None) -> str:
    return "0" if seconds is None else str(max(1, round(seconds * 1000)))
