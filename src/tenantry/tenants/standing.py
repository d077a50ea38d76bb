"""What the directory says of the tenants that this process serves: plan, settings, flags and quotas."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from tenantry.errors import DirectoryUnavailable, TenantNotFound, Unavailable
from tenantry.plans.flags import Override, stored_overrides
from tenantry.ports import Executor
from tenantry.tenants.directory import SYSTEM, TENANTS
from tenantry.tenants.lease import TenantLease


class Standing(msgspec.Struct, frozen=True):
    """What the directory says of one tenant, besides its status.

    Attributes:
        tenant_id: The tenant.
        plan: Its plan.
        settings: Its settings, as stored.
        flags: Flags that it was given itself.
        quotas: Quotas that it was given itself.
    """

    tenant_id: str
    plan: str | None
    settings: Mapping[str, Any]
    flags: Mapping[str, Override]
    quotas: Mapping[str, Any]


class Standings:
    """Reads each tenant once, and again when the lease has heard that it changed."""

    def __init__(self, database: Executor, lease: TenantLease, *, max_tenants: int) -> None:
        self._database = database
        self._lease = lease
        self._max_tenants = max_tenants
        self._known: OrderedDict[str, Standing] = OrderedDict()
        lease.watch(self._forget)

    async def of(self, tenant_id: str) -> Standing:
        """Return what the directory said of a tenant less than a second ago, and admit it.

        Raises:
            TenantNotFound, TenantSuspended, TenantDeleted: It may not be served.
            DirectoryUnavailable: The directory could not be read in time.
        """
        if not self._lease.admits(tenant_id):
            await self._lease.admit(tenant_id)
        known = self._known.get(tenant_id)
        if known is not None:
            return known
        epoch = self._lease.epoch
        try:
            rows = await self._database.fetch(SYSTEM, TENANTS, [tenant_id])
        except Unavailable as error:
            raise DirectoryUnavailable("The tenant directory cannot be read.", fix=str(error)) from error
        if not rows:
            raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
        row = rows[0]
        flags = stored_overrides(row["flags"])
        found = Standing(tenant_id, row["plan"], row["settings"], flags, row["quotas"])
        if epoch == self._lease.epoch:
            self._known[tenant_id] = found
            if len(self._known) > self._max_tenants:
                self._known.popitem(last=False)
        return found

    def _forget(self, tenant_id: str | None) -> None:
        if tenant_id is None:
            self._known.clear()
        else:
            self._known.pop(tenant_id, None)
