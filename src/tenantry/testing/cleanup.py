"""Getting rid of tenants that a test has made."""

from __future__ import annotations

from tenantry.sdk import MultiTenantSDK
from tenantry.tenants import TenantStatus


async def forget(sdk: MultiTenantSDK, tenant_id: str) -> None:
    """Purge a tenant at once. No other process has heard of it, so no lease has to run out first."""
    tenant = await sdk.tenants.get(tenant_id)
    if tenant.status is TenantStatus.PURGED:
        return
    await sdk.tenants.delete(tenant_id, reason="the test is over")
    await sdk.tenants._delete_rows(tenant_id)
    await sdk.tenants._move(tenant_id, TenantStatus.PURGED, "the test is over")
