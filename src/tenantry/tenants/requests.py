"""Counting requests: shared by all processes, and without a round trip to the database for most of them."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from tenantry.errors import QuotaExceeded, UniqueViolation
from tenantry.plans import REQUESTS, Catalog, Period, Rate, Usage
from tenantry.plans.counters import RequestCounter
from tenantry.plans.quotas import rate_of
from tenantry.ports import DatabaseAdapter, Executor, Insert, Update
from tenantry.tenants.directory import SYSTEM
from tenantry.tenants.standing import Standing, Standings

_SHARE = 10  # of what is left, a process takes one part in ten
_MOST_AT_ONCE = 500


@dataclass(slots=True)
class _Lease:
    """Requests that this process may let pass, until the window ends."""

    rate: Rate
    ends: dt.datetime
    left: int = 0
    given_out: int = 0


class RequestMeter:
    """Lets requests pass while the tenant's quota lasts.

    Each process takes a few from a counter in the database: a tenth of what is left, at most 500, at least one. So
    never more pass than the limit says, over all processes; and of a process that ends, or serves the tenant no more,
    what it had taken is lost to the tenant until the window ends.
    """

    def __init__(
        self,
        database: DatabaseAdapter,
        standings: Standings,
        catalog: Catalog,
        *,
        max_tenants: int = 100_000,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._database = database
        self._standings = standings
        self._catalog = catalog
        self._max_tenants = max_tenants
        self._clock = clock
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._turns: dict[str, asyncio.Lock] = {}

    async def count(self, tenant_id: str) -> None:
        """Count one request of a tenant, which is admitted by the directory.

        Raises:
            QuotaExceeded: None is left in this window; ``retry_after`` says when the next one begins.
        """
        standing = await self._standings.of(tenant_id)
        rate = self._rate(standing)
        if rate is None:
            return
        lease = self._current(tenant_id, rate)
        if lease.left <= 0 and lease.given_out < rate.limit:
            await self._take(tenant_id, rate)
            lease = self._current(tenant_id, rate)
        if lease.left <= 0:
            raise QuotaExceeded(
                quota="requests",
                used=rate.limit,
                limit=rate.limit,
                plan=standing.plan,
                tenant_id=tenant_id,
                retry_after=max(0.0, (lease.ends - self._clock()).total_seconds()),
            )
        lease.left -= 1

    async def usage(self, standing: Standing) -> Usage | None:
        """Return how many requests of the window that runs were given out; ``None`` without a quota."""
        rate = self._rate(standing)
        if rate is None:
            return None
        start, _ = rate.window(self._clock())
        rows = await self._database.fetch(SYSTEM, REQUESTS, [_row_id(standing.tenant_id, rate)])
        given_out = rows[0]["used"] if rows and rows[0]["window"] == start else 0
        lease = self._leases.get(standing.tenant_id)
        unused = lease.left if lease is not None and lease.rate == rate and lease.ends > self._clock() else 0
        return Usage("requests", max(0, given_out - unused), rate.limit)

    def _rate(self, standing: Standing) -> Rate | None:
        return rate_of(self._catalog.limits(standing.plan, standing.quotas))

    def _current(self, tenant_id: str, rate: Rate) -> _Lease:
        lease = self._leases.get(tenant_id)
        now = self._clock()
        if lease is None or lease.rate != rate or now >= lease.ends:
            lease = self._leases[tenant_id] = _Lease(rate, rate.window(now)[1])
            if len(self._leases) > self._max_tenants:
                self._leases.popitem(last=False)
        return lease

    async def _take(self, tenant_id: str, rate: Rate) -> None:
        """Take some requests from the counter. One task asks; those that wait meanwhile find what it brought."""
        turn = self._turns.setdefault(tenant_id, asyncio.Lock())
        async with turn:
            lease = self._current(tenant_id, rate)
            if lease.left > 0 or lease.given_out >= rate.limit:
                return
            taken, given_out = await self._lease_some(tenant_id, rate, lease.ends)
            if self._clock() < lease.ends:
                lease.left += taken
                lease.given_out = given_out
        if not turn.locked():
            self._turns.pop(tenant_id, None)

    async def _lease_some(self, tenant_id: str, rate: Rate, ends: dt.datetime) -> tuple[int, int]:
        """Return how many were taken, and how many are given out to all processes."""
        start, following = rate.window(ends - dt.timedelta(microseconds=1))
        assert following == ends
        row_id = _row_id(tenant_id, rate)
        if not await self._database.fetch(SYSTEM, REQUESTS, [row_id]):
            with suppress(UniqueViolation):  # another process was first
                made = RequestCounter(id=row_id, window=start, version=1)
                await self._database.execute(SYSTEM, [Insert(REQUESTS, [REQUESTS.to_record(made)])])
        async with self._database.transaction(SYSTEM) as unit:
            return await _take_from(unit, row_id, start, rate.limit)


async def _take_from(unit: Executor, row_id: str, start: dt.datetime, limit: int) -> tuple[int, int]:
    # Changed first, so that the row stays locked until the unit ends.
    row = (await unit.execute(SYSTEM, [Update(REQUESTS, row_id, {})]))[0][0]
    if row["window"] > start:  # another process's clock is ahead: this window is over
        return 0, limit
    used = row["used"] if row["window"] == start else 0
    left = limit - used
    taken = max(0, min(left, max(1, left // _SHARE), _MOST_AT_ONCE))
    await unit.execute(SYSTEM, [Update(REQUESTS, row_id, {"window": start, "used": used + taken})])
    return taken, used + taken


def request_counters(tenant_id: str) -> list[str]:
    """Return the ids of the rows in which a tenant's requests may be counted."""
    return [f"{tenant_id}/{per}" for per in get_args(Period)]


def _row_id(tenant_id: str, rate: Rate) -> str:
    return f"{tenant_id}/{rate.per}"
