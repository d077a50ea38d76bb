"""Two tenants at work at once, each checking every answer: whatever breaks, no row of the other ever shows."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tenantry import MultiTenantSDK, TenantHandle
from tenantry.data import DataManager
from tenantry.errors import NotFound, TenantryError
from tests.adversarial.models import Setting

TENANTS = ("acme", "globex")
SHARED_IDS = [f"row {number}" for number in range(8)]


class Leak(AssertionError):
    """A tenant was given, or refused, what is not its own to be."""


class Load:
    """Workers of both tenants over rows that have the same ids in both, whose values name their tenant.

    Attributes:
        acknowledged: The ids that each tenant was told to be stored.
        outcomes: How often each kind of outcome came.
    """

    def __init__(self, sdk: MultiTenantSDK, seed: int = 1) -> None:
        self.sdk = sdk
        self.acknowledged: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
        self.outcomes: Counter[str] = Counter()
        self._choice = random.Random(seed)
        self._numbers = itertools.count()
        self._stopped = False

    async def prepare(self) -> None:
        """Store the rows that are read."""
        for tenant in TENANTS:
            rows = [Setting(id=id, value=f"{tenant}'s") for id in SHARED_IDS]
            await self.sdk.tenant(tenant).data.bulk_create(rows, atomic=True)

    async def run(self, workers: int = 4) -> None:
        """Work until stopped.

        Raises:
            Leak: A tenant saw what is not its own.
        """
        async with asyncio.TaskGroup() as group:
            for tenant in TENANTS:
                for _ in range(workers):
                    group.create_task(self._work(self.sdk.tenant(tenant)))

    def stop(self) -> None:
        """Let every worker finish what it does."""
        self._stopped = True

    async def once(self) -> None:
        """Carry out every kind of operation once for each tenant, and let errors out."""
        for tenant in TENANTS:
            for action in self._actions:
                await action(self, self.sdk.tenant(tenant))

    async def _work(self, handle: TenantHandle) -> None:
        while not self._stopped:
            action = self._choice.choice(self._actions)
            try:
                await action(self, handle)
            except NotFound as error:
                raise Leak(f"{handle} does not see its own row: {error}") from error
            except TenantryError as error:
                self.outcomes[type(error).__name__] += 1
                await asyncio.sleep(0.005)
            else:
                self.outcomes["done"] += 1

    def _check(self, handle: TenantHandle, values: Iterable[str]) -> None:
        for value in values:
            if value != f"{handle.context.tenant_id}'s":
                raise Leak(f"{handle} was given {value!r}")

    async def _get(self, handle: TenantHandle) -> None:
        found = await handle.data.get(Setting, self._choice.choice(SHARED_IDS))
        self._check(handle, [found.value])

    async def _read(self, handle: TenantHandle) -> None:
        page = await handle.data.read(Setting, {"id": {"in": SHARED_IDS}})
        if len(page) != len(SHARED_IDS):
            raise Leak(f"{handle} saw {len(page)} of its {len(SHARED_IDS)} rows")
        self._check(handle, [row.value for row in page])

    async def _update(self, handle: TenantHandle) -> None:
        id = self._choice.choice(SHARED_IDS)
        row = await handle.data.update(Setting, id, value=f"{handle.context.tenant_id}'s")
        self._check(handle, [row.value])

    async def _create(self, handle: TenantHandle) -> None:
        id = f"new {next(self._numbers)}"
        row = await handle.data.create(Setting(id=id, value=f"{handle.context.tenant_id}'s"))
        self.acknowledged[handle.context.tenant_id].add(id)
        self._check(handle, [row.value])

    async def _create_once(self, handle: TenantHandle) -> None:
        """Try with one key until it is known to be stored."""
        id, tenant = f"once {next(self._numbers)}", handle.context.tenant_id
        while True:
            try:
                await handle.data.create(Setting(id=id, value=f"{tenant}'s"), idempotency_key=id)
            except TenantryError:
                if self._stopped:
                    raise
                await asyncio.sleep(0.005)
            else:
                self.acknowledged[tenant].add(id)
                return

    async def _transaction(self, handle: TenantHandle) -> None:
        tenant, number = handle.context.tenant_id, next(self._numbers)
        ids = [f"pair {number} a", f"pair {number} b"]
        async with handle.data.transaction() as unit:
            await self._pair(unit, ids, tenant)
            self._check(handle, [row.value for row in await unit.read(Setting, {"id": {"in": SHARED_IDS}})])
        self.acknowledged[tenant].update(ids)

    async def _pair(self, unit: DataManager, ids: list[str], tenant: str) -> None:
        for id in ids:
            await unit.create(Setting(id=id, value=f"{tenant}'s"))

    async def _sql(self, handle: TenantHandle) -> None:
        rows = await handle.data.sql("SELECT value FROM settings WHERE id = ANY ($1)", [SHARED_IDS])
        if len(rows) != len(SHARED_IDS):
            raise Leak(f"{handle} saw {len(rows)} of its {len(SHARED_IDS)} rows")
        self._check(handle, [row["value"] for row in rows])

    _actions: tuple[Callable[[Load, TenantHandle], Awaitable[None]], ...] = (
        _get,
        _read,
        _update,
        _create,
        _create_once,
        _transaction,
        _sql,
    )


async def check_stored(load: Load, judge: Any) -> None:
    """Check what the judge sees: each acknowledged row, no half of a pair, no row with the other tenant's value."""
    rows = await judge.fetch("SELECT tenant_id, id, value FROM settings WHERE value LIKE '%''s'")
    stored: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
    for row in rows:
        assert row["value"] == f"{row['tenant_id']}'s"
        stored[row["tenant_id"]].add(row["id"])
    for tenant in TENANTS:
        assert load.acknowledged[tenant] <= stored[tenant]
        pairs = Counter(id.split()[1] for id in stored[tenant] if id.startswith("pair"))
        assert set(pairs.values()) <= {2}
