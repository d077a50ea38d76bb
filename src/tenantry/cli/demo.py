"""``tenantry demo``: two tenants on one database, and every door between them tried."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pydantic

from tenantry.cli.output import AsJson, Output
from tenantry.errors import TenantryError, TenantSuspended
from tenantry.schema import Model, Unique
from tenantry.sdk import MultiTenantSDK

Attempt = dict[str, Any]


class Product(Model):
    """What both tenants sell."""

    __collection__ = "products"

    name: str
    sku: Annotated[str, Unique]
    price: Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)]


_STOCK = {
    "acme": [("Laptop 15", "L15", "1299.00"), ("Desk", "D1", "349.50")],
    "globex": [("Lamp", "L15", "30.00"), ("Desk", "D1", "5.00"), ("Chair", "C1", "89.00")],
}


def demo(as_json: AsJson = False) -> None:
    """Show in a second what is kept apart: two tenants in a temporary SQLite file, and attempts to reach over."""
    with tempfile.TemporaryDirectory(prefix="tenantry-demo-") as folder:
        found = asyncio.run(_play(f"sqlite:///{Path(folder) / 'demo.db'}"))
    output = Output(as_json)
    output.line(("Two tenants, one database", "bold"))
    for tenant, rows in found["rows"].items():
        output.line("")
        output.line((tenant, "bold cyan"), " reads its products")
        output.table(("NAME", "SKU", "PRICE"), [tuple(row) for row in rows])
    output.line("")
    output.line(("acme tries to reach globex", "bold"))
    for attempt in found["attempts"]:
        held = attempt["held"]
        output.line(
            ("  held  ", "green") if held else ("  LEAK  ", "bold red"),
            f"{attempt['what']}: {attempt['answer']}",
        )
    output.line("")
    output.line(f"globex is suspended, and refused {found['refused_after_ms']:.1f} ms later.")
    output.line("")
    output.line(("Next ", "bold"), "a project of your own:   tenantry init --help")
    output.line("     the rows of a tenant:    tenantry data read --help")
    output.result(found)


async def _play(url: str) -> dict[str, Any]:
    async with MultiTenantSDK.open(url, models=[Product], schema="create", env={}) as sdk:
        rows: dict[str, list[list[str]]] = {}
        for tenant, stock in _STOCK.items():
            await sdk.tenants.create(tenant)
            data = sdk.tenant(tenant).data
            await data.bulk_create(
                [Product(name=name, sku=sku, price=Decimal(price)) for name, sku, price in stock], atomic=True
            )
            page = await data.read(Product, order_by="name")
            rows[tenant] = [[item.name, item.sku, str(item.price)] for item in page]
        attempts = await _attempts(sdk)
        started = time.perf_counter()
        await sdk.tenants.suspend("globex", reason="demonstration")
        try:
            await sdk.tenant("globex").data.count(Product)
            refused_after = float("nan")
        except TenantSuspended:
            refused_after = (time.perf_counter() - started) * 1_000
    return {"rows": rows, "attempts": attempts, "refused_after_ms": refused_after}


async def _attempts(sdk: MultiTenantSDK) -> list[Attempt]:
    """Let acme try everything on a product of globex."""
    acme, globex = sdk.tenant("acme").data, sdk.tenant("globex").data
    page = await globex.read(Product, order_by="name", limit=1)
    theirs, cursor = page[0], page.next_cursor
    forged = {"name": "x", "sku": "x", "price": "1", "tenant_id": "globex"}
    tries: list[tuple[str, Awaitable[Any]]] = [
        ("read it by its id", acme.get(Product, theirs.id)),
        ("change it", acme.update(Product, theirs.id, {"price": "0.01"})),
        ("delete it", acme.delete(Product, theirs.id)),
        ("find it by a filter", acme.read(Product, {"id": theirs.id})),
        ("go on where their page ended", acme.read(Product, order_by="name", limit=1, cursor=cursor)),
        ("write a row in their name", acme.create("products", forged)),
        ("ask with SQL", acme.sql("SELECT * FROM products")),
        ("ask as nobody", sdk.data.count(Product)),
    ]
    attempts = [await _attempt(what, call) for what, call in tries]
    untouched = (await globex.get(Product, theirs.id)) == theirs
    attempts.append({"what": "and the product", "answer": "is as it was", "held": untouched})
    return attempts


async def _attempt(what: str, call: Awaitable[Any]) -> Attempt:
    try:
        found = await call
    except TenantryError as error:
        return {"what": what, "answer": type(error).__name__, "held": True}
    rows = len(found) if isinstance(found, Sequence) else 1
    return {"what": what, "answer": f"{rows} rows", "held": rows == 0}
