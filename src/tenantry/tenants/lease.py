"""Which tenants this process may serve, and for how long it may believe so."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn

from tenantry.errors import (
    DirectoryUnavailable,
    TenantDeleted,
    TenantNotFound,
    TenantSuspended,
    Unavailable,
)
from tenantry.ports import Executor
from tenantry.query import Comparison, Query, Sort
from tenantry.tenants.directory import (
    EPOCH,
    EPOCH_ROW,
    SYSTEM,
    TENANTS,
    TenantStatus,
)
from tenantry.tenants.lookups import LookUps

logger = logging.getLogger("tenantry.tenants")

LEASE_SECONDS = 0.9
LONGEST_LEASE = 1.0  # that the configuration allows to any process
_MAX_CHANGES = 1_000
_MAX_ABSENT = 10_000
_MISSES = 100  # look-ups of tenants that do not exist, for each lease, that ask the directory in any case
_ATTEMPTS = 3  # a process that was held up for a moment asks again


class TenantLease:
    """Which tenants this process may serve. It holds for less than a second and is then renewed, or nobody is served.

    A renewal reads one row, the directory's epoch; only when that moved, what changed since. Of the tenants that it
    knows it forgets the one that was asked for longest ago. Those that do not exist are kept apart, for one lease: a
    flood of them evicts nobody, and the same ones again do not reach the directory.
    """

    def __init__(
        self, database: Executor, *, seconds: float = LEASE_SECONDS, max_tenants: int = 100_000
    ) -> None:
        self._database = database
        self._seconds = seconds
        self._max_tenants = max_tenants
        self._known: OrderedDict[str, TenantStatus] = OrderedDict()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._misses = 0
        self._lookups = LookUps(database)
        self._until = 0.0
        self._renew_from = 0.0
        self._epoch = -1
        self._renewing: asyncio.Task[None] | None = None
        self._watchers: list[Callable[[str | None], None]] = []

    @property
    def epoch(self) -> int:
        """The count of the directory's changes that this process has heard of."""
        return self._epoch

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Call ``changed`` with each tenant that changed; with ``None`` where it may have been any."""
        self._watchers.append(changed)

    def admits(self, tenant_id: str) -> bool:
        """Whether the tenant may be served right now. ``False`` may only mean that :meth:`admit` has to look."""
        now = time.monotonic()
        if now >= self._renew_from:
            if now >= self._until:
                return False
            self._renewing = self._renewal()
        if self._known.get(tenant_id) is not TenantStatus.ACTIVE:
            return False
        self._known.move_to_end(tenant_id)
        return True

    async def admit(self, tenant_id: str) -> None:
        """Return if the tenant may be served.

        Raises:
            TenantNotFound, TenantSuspended, TenantDeleted: It may not.
            DirectoryUnavailable: The directory could not be read in time, so nobody is served.
        """
        for _ in range(_ATTEMPTS):
            if time.monotonic() >= self._until:
                await asyncio.shield(self._renewal())
            status, until = self._known.get(tenant_id), self._until
            if status is None:
                until = time.monotonic() + self._seconds
                status = await self._load(tenant_id)
            if time.monotonic() < until:
                break  # otherwise the answer was true when it was given, and came late
        else:
            raise DirectoryUnavailable("The tenant directory answered too late, so no tenant is served.")
        if status is not TenantStatus.ACTIVE:
            refuse(tenant_id, status)

    def forget(self, tenant_id: str) -> None:
        """Read this tenant again before it is served; the process that changes a tenant need not wait."""
        self._known.pop(tenant_id, None)
        self._absent.pop(tenant_id, None)
        self._tell(tenant_id)

    def _tell(self, tenant_id: str | None) -> None:
        for changed in self._watchers:
            changed(tenant_id)

    def size(self) -> tuple[int, int]:
        """Return how many tenants it knows, and how many bytes that takes."""
        known = self._known
        return len(known), sys.getsizeof(known) + sum(map(sys.getsizeof, known))

    async def close(self) -> None:
        """Stop renewing."""
        await self._lookups.close()
        if self._renewing is not None:
            await asyncio.gather(self._renewing, return_exceptions=True)

    def _renewal(self) -> asyncio.Task[None]:
        """Return the renewal under way, or start one. Everybody who waits shares it."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._read_epoch())
            self._renewing.add_done_callback(_note_failure)
        return self._renewing

    async def _read_epoch(self) -> None:
        asked_at = time.monotonic()
        try:
            rows = await self._database.fetch(SYSTEM, EPOCH, [EPOCH_ROW])
            epoch = rows[0]["version"] if rows else 0
            if epoch != self._epoch:
                await self._read_changes()
            self._epoch = epoch
        except Unavailable as error:
            raise DirectoryUnavailable(
                "The tenant directory cannot be read, so no tenant is served.", fix=str(error)
            ) from error
        self._absent.clear()
        self._misses = 0
        self._until = asked_at + self._seconds
        self._renew_from = asked_at + self._seconds / 2

    async def _read_changes(self) -> None:
        changed = Comparison(TENANTS.fields["change"], "gt", self._epoch)
        # In this order the index on it answers, however many tenants there are.
        query = Query(TENANTS, (TENANTS.key,), changed, (Sort(TENANTS.fields["change"]),), limit=_MAX_CHANGES)
        rows = await self._database.select(SYSTEM, query) if self._known else []
        if len(rows) == _MAX_CHANGES:
            self._known.clear()
            self._tell(None)
        for row in rows:
            self._known.pop(row["id"], None)
            self._tell(row["id"])

    async def _load(self, tenant_id: str) -> TenantStatus:
        if tenant_id in self._absent and self._misses >= _MISSES:
            raise _not_found(tenant_id)
        epoch = self._epoch
        try:
            status = await self._lookups.status(tenant_id)
        except Unavailable as error:
            raise DirectoryUnavailable("The tenant directory cannot be read.", fix=str(error)) from error
        if status is None:
            self._misses += 1
            self._absent[tenant_id] = None
            if len(self._absent) > _MAX_ABSENT:
                self._absent.popitem(last=False)
            raise _not_found(tenant_id)
        if epoch == self._epoch:
            self._known[tenant_id] = status
            if len(self._known) > self._max_tenants:
                self._known.popitem(last=False)
        return status


def _not_found(tenant_id: str) -> TenantNotFound:
    return TenantNotFound(
        f"There is no tenant {tenant_id!r}.",
        tenant_id=tenant_id,
        fix=f'Create it: await sdk.tenants.create("{tenant_id}", name="…").',
    )


def _note_failure(task: asyncio.Task[None]) -> None:
    """A renewal in the background may fail with nobody waiting; the lease then runs out, which is the answer."""
    if not task.cancelled() and task.exception() is not None:
        logger.warning("The tenant lease was not renewed: %s", task.exception())


def refuse(tenant_id: str, status: TenantStatus) -> NoReturn:
    """Raise what a status means for whoever asks for the tenant."""
    if status is TenantStatus.SUSPENDED:
        raise TenantSuspended(
            f"Tenant {tenant_id!r} is suspended.",
            tenant_id=tenant_id,
            fix=f'Resume it: await sdk.tenants.resume("{tenant_id}").',
        )
    if status is TenantStatus.IMPORTING:
        raise TenantSuspended(
            f"Tenant {tenant_id!r} is not all there yet: its import is under way, or was broken off.",
            tenant_id=tenant_id,
            fix="Wait for it, or import it again.",
        )
    raise TenantDeleted(f"Tenant {tenant_id!r} is {status.value}.", tenant_id=tenant_id)
