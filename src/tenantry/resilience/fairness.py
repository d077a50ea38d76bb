"""Lines in which no tenant waits behind another's crowd.

Tenants take turns: in each round every tenant that waits is served once, and within a tenant who came first is served
first. Whoever was not served in this round joins it, so a single request of one tenant waits for at most one of each
other tenant that waits, however many those have.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from tenantry.resilience.waits import Waits

T = TypeVar("T")

_Line = OrderedDict["asyncio.Future[T]", None]


class FairQueue(Generic[T]):
    """Those who wait, by tenant. Joining, leaving and serving each take the same time whoever else waits."""

    __slots__ = ("_following", "_round", "_served", "_size", "waits")

    def __init__(self) -> None:
        self._round: OrderedDict[Hashable, _Line[T]] = OrderedDict()
        self._following: OrderedDict[Hashable, _Line[T]] = OrderedDict()
        self._served: set[Hashable] = set()
        self._size = 0
        self.waits = Waits()

    def __len__(self) -> int:
        return self._size

    def join(self, tenant: Hashable) -> asyncio.Future[T]:
        """Stand in line; return what will hold what is handed over."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        turns = self._following if tenant in self._served else self._round
        turns.setdefault(tenant, OrderedDict())[future] = None
        self._size += 1
        return future

    def leave(self, tenant: Hashable, future: asyncio.Future[T]) -> None:
        """Give up waiting. Nobody's turn changes by that."""
        for turns in (self._round, self._following):
            line = turns.get(tenant)
            if line is not None and future in line:
                del line[future]
                self._size -= 1
                if not line:
                    del turns[tenant]
        self._begin_anew()

    def next(self, preferred: Hashable = None) -> asyncio.Future[T] | None:
        """Take whoever is next out of the line.

        Args:
            preferred: The tenant that what is handed over suits best. It is served first if it has not had its turn in
                this round: that changes the order within the round, and costs nobody a turn.
        """
        while self._size:
            if not self._round:
                self._round, self._following = self._following, OrderedDict()
                self._served.clear()
            tenant = preferred if preferred in self._round else next(iter(self._round))
            line = self._round.pop(tenant)
            future, _ = line.popitem(last=False)
            self._size -= 1
            if future.done():  # cancelled, and about to leave: its tenant keeps its turn
                if line:
                    self._round[tenant] = line
                    self._round.move_to_end(tenant, last=False)
                continue
            self._served.add(tenant)
            if line:
                self._following[tenant] = line
            self._begin_anew()
            return future
        self._begin_anew()
        return None

    def waiting(self) -> dict[Hashable, int]:
        """Return how many wait, by tenant."""
        counts: dict[Hashable, int] = {}
        for turns in (self._round, self._following):
            for tenant, line in turns.items():
                counts[tenant] = counts.get(tenant, 0) + len(line)
        return counts

    def _begin_anew(self) -> None:
        """A round in which nobody waits is over."""
        if not self._size:
            self._served.clear()


class FairGate:
    """At most so many at a time; who must wait does so in a :class:`FairQueue`.

    Args:
        places: How many may be inside.
    """

    __slots__ = ("_free", "queue")

    def __init__(self, places: int) -> None:
        self._free = places
        self.queue: FairQueue[None] = FairQueue()

    async def enter(self, tenant: Hashable, timeout: float | None = None) -> None:
        """Take a place.

        Args:
            tenant: Whose turn it is.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: None became free in time.
        """
        if self._free:
            self._free -= 1
            return
        future = self.queue.join(tenant)
        try:
            with self.queue.waits.measured():
                async with asyncio.timeout(timeout):
                    await future
        except BaseException:
            self.queue.leave(tenant, future)
            if future.done() and not future.cancelled():  # the place came in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to whoever is next."""
        future = self.queue.next()
        if future is None:
            self._free += 1
        else:
            future.set_result(None)

    @asynccontextmanager
    async def turn(self, tenant: Hashable, timeout: float | None = None) -> AsyncIterator[None]:
        """Hold a place while the block runs."""
        await self.enter(tenant, timeout)
        try:
            yield
        finally:
            self.leave()


class FairShares:
    """At most so many at a time of one tenant. Knows only the tenants that are inside or wait.

    Args:
        share: How many of one tenant may be inside.
    """

    __slots__ = ("_gates", "_share")

    def __init__(self, share: int) -> None:
        self._share = share
        self._gates: dict[Hashable, tuple[FairGate, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._gates)

    @asynccontextmanager
    async def turn(self, tenant: Hashable, timeout: float | None = None) -> AsyncIterator[None]:
        """Hold one of the tenant's places while the block runs.

        Raises:
            TimeoutError: None became free in time.
        """
        gate, users = self._gates.setdefault(tenant, (FairGate(self._share), [0]))
        users[0] += 1
        try:
            async with gate.turn(tenant, timeout):
                yield
        finally:
            users[0] -= 1
            if not users[0]:
                del self._gates[tenant]
