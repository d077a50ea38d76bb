"""The application: one model, one broker, three tasks. With Redis, only the broker's line is another one."""

from __future__ import annotations

from taskiq import InMemoryBroker, SimpleRetryMiddleware, TaskiqDepends

from tenantry import Model, MultiTenantSDK, TenantHandle
from tenantry.jobs import enqueue_for, untenanted
from tenantry.jobs.taskiq import TenantMiddleware, current_tenant


class Invoice(Model):
    __collection__ = "invoices"

    number: int
    total: int
    reminders: int = 0


sdk = MultiTenantSDK.open("memory://", models=[Invoice], schema="create", env={})
broker = InMemoryBroker().with_middlewares(
    SimpleRetryMiddleware(default_retry_count=5, no_result_on_retry=True), TenantMiddleware(sdk)
)

attempts: list[str] = []


@broker.task(retry_on_error=True)
async def remind(number: int, tenant: TenantHandle = TaskiqDepends(current_tenant)) -> None:
    """Remind a customer of one invoice. The mail server is away at the first attempt."""
    attempts.append(tenant.context.tenant_id)
    if attempts.count(tenant.context.tenant_id) == 1:
        raise ConnectionError("the mail server is away")
    [invoice] = await tenant.data.read(Invoice, lambda row: row.number == number)
    await tenant.data.update(invoice, reminders=invoice.reminders + 1)


@broker.task
async def remind_all(tenant: TenantHandle = TaskiqDepends(current_tenant)) -> int:
    """Enqueue a job for each invoice; they inherit the tenant."""
    invoices = await tenant.data.read(Invoice, lambda row: row.reminders == 0, order_by="number")
    for invoice in invoices:
        await remind.kiq(invoice.number)
    return len(invoices)


@broker.task
@untenanted
async def nightly() -> int:
    """Begin with all tenants, as a schedule would. A clock has no tenant, so it names each."""
    tenants = await sdk.tenants.list(status="active")
    for tenant in tenants:
        with enqueue_for(tenant.id):
            await remind_all.kiq()
    return len(tenants)
