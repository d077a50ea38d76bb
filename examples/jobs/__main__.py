"""``python -m examples.jobs``."""

from __future__ import annotations

import asyncio
from collections import Counter

from examples.jobs.app import Invoice, attempts, broker, nightly, remind, sdk
from tenantry.errors import TenantRequired

INVOICES = {"acme": 3, "globex": 2, "initech": 1}


async def run() -> dict[str, list[int]]:
    """Make three tenants, start the night, and return how often each invoice was reminded of."""
    attempts.clear()
    await broker.startup()
    async with sdk:
        for tenant, count in INVOICES.items():
            await sdk.tenants.create(tenant)
            data = sdk.tenant(tenant).data
            await data.bulk_create(
                [Invoice(number=n, total=100 * n) for n in range(1, count + 1)], atomic=True
            )
        await sdk.tenants.suspend("initech", reason="left")

        try:
            await remind.kiq(1)
        except TenantRequired as error:
            print("Without a tenant:", error.message)
        print("Tenants tonight:", (await (await nightly.kiq()).wait_result(timeout=30)).return_value)
        for _ in ("one job for each tenant", "one for each invoice", "those that are tried again"):
            await broker.wait_all()
        await broker.shutdown()
        print("Attempts:", dict(sorted(Counter(attempts).items())))

        await sdk.tenants.resume("initech")
        found = {
            tenant: await sdk.tenant(tenant).data.read(Invoice, order_by="number") for tenant in INVOICES
        }
    reminders = {tenant: [invoice.reminders for invoice in page] for tenant, page in found.items()}
    print("Reminders:", reminders)
    return reminders


if __name__ == "__main__":
    asyncio.run(run())
