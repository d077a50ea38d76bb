"""The connections of a pool: handed out, taken back, and waited for."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from time import monotonic

import asyncpg

from tenantry.databases.postgres.connection import (
    DRIVER_ERRORS,
    Connector,
    Slot,
    TenantConnection,
    spoils,
    translate,
)
from tenantry.databases.postgres.seal import SEAL_SECONDS
from tenantry.errors import Closed, ConfigurationError, DatabaseUnavailable, OperationTimeout
from tenantry.resilience.fairness import FairQueue

# A checkout finds at least this much life left in its seal, however many statements it then runs.
_MARGIN = SEAL_SECONDS / 2
_RETIRE_SECONDS = 2.0
_WIPE_SECONDS = 5.0
_BIND_ATTEMPTS = 3


class Shelf:
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
        self.waiters: FairQueue[Slot | None] = FairQueue()
        self.size = 0  # open, opening and closing
        self._min_size = min_size
        self._acquire_timeout = acquire_timeout
        self._max_idle = max_idle
        self._slots: set[Slot] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._reaper: asyncio.TimerHandle | None = None

    def slot_of(self, connection: TenantConnection) -> Slot:
        """Return the slot of a connection of this pool."""
        return next(slot for slot in self._slots if slot.connection is connection)

    @property
    def local(self) -> bool:
        """Whether a tenant is bound to a transaction and not to a connection."""
        return self.wipe or self.connector.pooled

    async def open(self) -> None:
        """Open the least number of connections, at least one."""
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
        """Close all connections; cut those that are still in use after ``timeout`` seconds."""
        self.closing = self.careful = True
        if self._reaper is not None:
            self._reaper.cancel()
        while (waiter := self.waiters.next()) is not None:
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
        asker = tenant
        if self.local:
            tenant = None
        for attempt in range(_BIND_ATTEMPTS):
            slot = self._pick(tenant) or await self._obtain(asker)
            if slot.tenant == tenant and monotonic() < slot.fresh_until:
                return slot
            try:
                await self._bind(slot, tenant)
            except DRIVER_ERRORS as error:
                # It may have died while it was idle. Nothing has been asked of it yet, so another one may do.
                dead = slot.connection.is_closed() or isinstance(error, asyncpg.InternalClientError)
                if not dead or attempt + 1 == _BIND_ATTEMPTS:
                    raise unbindable(error) from error
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

    async def _obtain(self, asker: str | None) -> Slot:
        """Open a connection, or wait for one in the asker's name."""
        self._check_open()
        if self.size < self.max_size:
            self.size += 1
        else:
            slot = await self._wait(asker)
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

    async def _wait(self, asker: str | None) -> Slot | None:
        """Wait in line for a connection, or for the permission (``None``) to open one."""
        future = self.waiters.join(asker)
        try:
            with self.waiters.waits.measured():
                async with asyncio.timeout(self._acquire_timeout):
                    return await future
        except TimeoutError:
            self._leave_line(asker, future)
            raise OperationTimeout(
                f"No database connection became free within {self._acquire_timeout:g} s: "
                f"all {self.max_size} are in use.",
                fix="Raise database.pool_size, or hold connections for a shorter time.",
            ) from None
        except BaseException:
            self._leave_line(asker, future)
            raise

    def _leave_line(self, asker: str | None, future: asyncio.Future[Slot | None]) -> None:
        """Give up waiting. What was handed to us in the same moment goes to the next in line."""
        self.waiters.leave(asker, future)
        if not future.done() or future.cancelled():
            future.cancel()
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
        """Pass a sound connection to the next in line, best one of its own tenant, or put it back."""
        if self.closing:
            self.discard(slot)
            return
        waiter = self.waiters.next(slot.tenant)
        if waiter is None:
            self.put_idle(slot)
        else:
            waiter.set_result(slot)

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
        while self.size < self.max_size and (waiter := self.waiters.next()) is not None:
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


def unbindable(error: Exception) -> Exception:
    """Return our error for one that kept a connection from being bound."""
    return translate(error) or DatabaseUnavailable(f"The connection could not be bound: {error}")
