"""Read replicas: physical hot standbys that answer reads while they are fresh enough.

Each is watched over a connection of its own. One that is away, stalled, promoted, behind, or no standby of this
primary is left out, its connections are cut so that nobody waits on them, and it comes back by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final
from zlib import crc32

from tenantry.databases.postgres.connection import DRIVER_ERRORS, Connector, TenantConnection
from tenantry.databases.postgres.freshness import Contacts, Marks
from tenantry.databases.postgres.pool import TenantPool
from tenantry.errors import ConfigurationError, OperationTimeout, TenantDeleted, TenantryError, Unavailable
from tenantry.types import Record

logger = logging.getLogger("tenantry.replicas")

_CHECKS_PER_LAG: Final = 20
_FASTEST, _SLOWEST = 0.01, 0.1
# In checks: how long a tenant reads from the primary without a pause before its reads wait, and how long they do.
_PATIENCE: Final = 5
_LONGEST_WAIT: Final = 4
_ANSWER_SECONDS: Final = 0.25  # a replica is given that long at least
_COMES_BACK_SECONDS: Final = 0.5
_PRIMARY: Final = """
SELECT pg_catalog.pg_current_wal_insert_lsn() AS position,
  ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline
"""
_REPLICA: Final = """
SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.pg_last_wal_replay_lsn() AS position,
  (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()) AS timeline
"""
_IDENTITY: Final = """
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), current_user, current_database()
"""
_BROKEN: Final = (*DRIVER_ERRORS, Unavailable)

Fetch = Callable[[TenantPool, str], Awaitable[list[Record]]]


class Replica:
    """One replica.

    Attributes:
        pool: The app role's connections to it; ``None`` while it is left out.
        life: Another object each time it comes back: after a crash it may show an earlier state than before.
        fresh_as_of: All that was committed before this moment, by ``monotonic()``, shows.
        reads: How many reads it has answered.
    """

    def __init__(self, make_pool: Callable[[], TenantPool], marks: Marks, max_lag: float) -> None:
        self._make_pool = make_pool
        self._marks = marks
        self._max_lag = max_lag
        self.where = make_pool().connector.where
        self.pool: TenantPool | None = None
        self.life = object()
        self.fresh_as_of = -inf
        self.reads = 0

    @property
    def serves(self) -> bool:
        """Whether it is up, and behind by no more than is allowed."""
        return self.pool is not None and monotonic() - self.fresh_as_of <= self._max_lag

    async def watch(self, identity: Callable[[], Awaitable[Any]], interval: float) -> None:
        """Follow it for ever, whatever happens to it."""
        while True:
            try:
                await self.follow(identity, interval)
            except ConfigurationError as error:
                logger.error("%s", error)
            except (*_BROKEN, TenantryError) as error:
                logger.warning("Replica %s is left out: %s", self.where, error)
            finally:
                await self._leave_out()
            await asyncio.sleep(_COMES_BACK_SECONDS)

    async def follow(
        self, identity: Callable[[], Awaitable[Any]], interval: float, *, once: bool = False
    ) -> None:
        """Connect, see that it is what it should be, and keep asking how far it is until it fails.

        Raises:
            ConfigurationError: It is no standby of this primary.
            TenantryError: It is away, or does not answer in time.
        """
        pool = self._make_pool()
        connection = await pool.connector.dial()
        try:
            if await connection.fetchrow(_IDENTITY) != await identity():
                raise self._unfit("is not of the same system, database and role")
            await self._ask(connection)
            if once:
                return
            await pool.open()
            self.pool, self.life = pool, object()
            while True:
                await self._ask(connection)
                await asyncio.sleep(interval)
        finally:
            connection.terminate()

    async def _ask(self, connection: TenantConnection) -> None:
        async with asyncio.timeout(max(self._max_lag, _ANSWER_SECONDS)):
            found = await connection.fetchrow(_REPLICA)
        if found is None or not found["standby"]:
            raise self._unfit("is no hot standby: it takes writes of its own")
        # Positions on another timeline, of a primary that is one no more, cannot be compared with ours.
        same = found["timeline"] == self._marks.timeline
        self.fresh_as_of = self._marks.reached(found["position"] or 0) if same else -inf

    def _unfit(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The replica {self.where} {why}.",
            field="database.replicas",
            fix="Name physical standbys of the database's own server, with the URL of the app role.",
        )

    async def _leave_out(self) -> None:
        pool, self.pool, self.fresh_as_of = self.pool, None, -inf
        if pool is not None:
            await pool.close(0)  # whoever waits for an answer is sent to the primary


class Replicas:
    """The replicas of one primary.

    Args:
        primary: Connects to it; for its position in the log.
        make_pools: Each makes the app role's pool of one replica.
        max_lag: Seconds that a replica may be behind at most.
    """

    def __init__(
        self,
        primary: Connector,
        app: Connector,
        make_pools: Sequence[Callable[[], TenantPool]],
        max_lag: float,
    ) -> None:
        self._primary = primary
        self._app = app
        self._max_lag = max_lag
        self._interval = min(_SLOWEST, max(_FASTEST, max_lag / _CHECKS_PER_LAG))
        self._marks = Marks()
        self.contacts = Contacts()
        self.replicas = [Replica(make, self._marks, max_lag) for make in make_pools]
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """See that those that answer are standbys of this primary, and begin to watch all of them.

        Raises:
            ConfigurationError: One is not.
        """
        for replica in self.replicas:
            try:
                await replica.follow(self._identity, self._interval, once=True)
            except _BROKEN as error:
                logger.warning("Replica %s is left out for now: %s", replica.where, error)
        watching = [replica.watch(self._identity, self._interval) for replica in self.replicas]
        self._tasks = [asyncio.create_task(work) for work in (self._sample(), *watching)]

    async def close(self) -> None:
        """Stop watching, and close every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def read(self, tenant: str, primary: TenantPool, fetch: Fetch, *, demanded: bool) -> list[Record]:
        """Let a replica answer if one may, and else the primary.

        Args:
            tenant: Who asks.
            primary: The app role's pool of the primary.
            fetch: Asks one pool.
            demanded: Whether it has to be the primary.
        """
        replica = None if demanded else self._choose(tenant) or await self._caught_up(tenant)
        if replica is not None and replica.pool is not None:
            life = replica.life
            try:
                records = await fetch(replica.pool, tenant)
            except (OperationTimeout, TenantDeleted):
                raise
            except TenantryError as error:  # its schema or keys may be behind, too: the primary decides
                logger.info("Replica %s did not answer, so the primary is asked: %s", replica.where, error)
            else:
                self.contacts.answered(tenant, life)
                replica.reads += 1
                return records
        records = await fetch(primary, tenant)
        self.contacts.answered(tenant, None)
        return records

    def measure(self) -> list[dict[str, Any]]:
        """Return for each replica whether it serves, how far it is behind in seconds, and its reads."""
        now = monotonic()
        return [
            {
                "replica": replica.where,
                "serves": replica.serves,
                "lag": now - replica.fresh_as_of,
                "reads": replica.reads,
                **({} if replica.pool is None else replica.pool.measure()),
            }
            for replica in self.replicas
        ]

    def _choose(self, tenant: str) -> Replica | None:
        for replica in self._in_order(tenant):
            if replica.serves and self.contacts.allows(tenant, replica.life, replica.fresh_as_of):
                return replica
        return None

    def _in_order(self, tenant: str) -> Iterator[Replica]:
        """Yield the tenant's own replica, then those that stand in for it."""
        count = len(self.replicas)
        first = crc32(tenant.encode()) % count
        yield from (self.replicas[(first + step) % count] for step in range(count))

    async def _caught_up(self, tenant: str) -> Replica | None:
        """Give a tenant that reads all the time a chance to leave the primary.

        Each of its reads there puts off the moment from which on a replica may answer. So once that has gone on for
        long enough, its reads wait until a replica has come up with the last one.
        """
        if monotonic() - self.contacts.waits_since(tenant) < _PATIENCE * self._interval:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT * self._interval):
                while True:
                    replica = self._choose(tenant)
                    if replica is not None:
                        return replica
                    await asyncio.sleep(self._interval / 4)
        return None

    # -- watching the primary

    async def _sample(self) -> None:
        while True:
            with suppress(*_BROKEN, ConfigurationError):
                connection = await self._primary.dial()
                try:
                    while True:
                        moment = monotonic()
                        async with asyncio.timeout(max(self._max_lag, _ANSWER_SECONDS)):
                            found = await connection.fetchrow(_PRIMARY)
                        assert found is not None
                        self._marks.add(moment, found["position"], found["timeline"])
                        await asyncio.sleep(self._interval)
                finally:
                    connection.terminate()
            await asyncio.sleep(_COMES_BACK_SECONDS)

    async def _identity(self) -> Any:
        connection = await self._app.dial()
        try:
            return await connection.fetchrow(_IDENTITY)
        finally:
            connection.terminate()
