"""What a type checker knows of results. Checked by mypy, never run."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, assert_type

from tenantry import (
    BulkResult,
    Count,
    Model,
    MultiTenantSDK,
    Page,
    PurgeCertificate,
    Record,
    Ref,
    Searchable,
    SoftDelete,
    Sum,
    SystemHandle,
    Tenant,
    TenantHandle,
    TenantStatus,
    Unique,
)
from tenantry.data import DataManager
from tenantry.ports import Capability


class Product(Model):
    __collection__ = "products"

    name: Annotated[str, Searchable]
    sku: Annotated[str, Unique]
    price: Decimal
    stock: int = 0
    maker_id: Annotated[uuid.UUID | None, Ref("makers")] = None


@dataclass
class Line:
    name: str
    price: Decimal


async def reading(data: DataManager, id: uuid.UUID) -> None:
    assert_type(await data.get(Product, id), Product)
    assert_type(await data.get("products", id), dict[str, Any])
    assert_type(await data.read(Product), Page[Product])
    assert_type(await data.read(Product, {"price": {"lt": 5}}, order_by=["-price"], limit=5), Page[Product])
    assert_type(await data.read(Product, lambda p: p.price < 5, include=["maker"]), Page[Product])
    assert_type(await data.read("products"), Page[dict[str, Any]])
    assert_type(await data.read("products", {"price": 5}), Page[Record])
    assert_type(await data.read(Product, fields=["name"]), Page[dict[str, Any]])
    assert_type(await data.read(Product, lambda p: p.stock > 0, fields=["name"], distinct=True), Page[Record])
    assert_type(await data.read(Product, into=Line), Page[Line])
    assert_type(await data.read("products", into=Line), Page[Line])
    assert_type(await data.read(Product, into=Line, distinct=True), Page[Line])
    assert_type(await data.count(Product), int)
    assert_type(await data.exists("products", {"price": 5}), bool)
    assert_type(await data.aggregate(Product, {"n": Count(), "sum": Sum("price")}), list[Record])
    assert_type([row async for row in data.stream(Product, lambda p: p.price < 5)], list[Product])
    assert_type([row async for row in data.stream("products")], list[Record])
    assert_type([row async for row in data.stream(Product, fields=["name"])], list[Record])
    assert_type([rows async for rows in data.stream(Product, into=Line).batches()], list[list[Line]])


class Order(SoftDelete, Model):
    __collection__ = "orders"

    number: str


async def deleting(data: DataManager, id: uuid.UUID) -> None:
    order = Order(number="1")
    assert_type(order.deleted_at, dt.datetime | None)
    assert_type(await data.read(Order, lambda o: o.number == "1", deleted="only"), Page[Order])
    assert_type(await data.restore(order), Order)
    assert_type(await data.restore(Order, id), Order)
    assert_type(await data.restore("orders", id, version=2), Record)
    assert_type(await data.purge_deleted(Order, older_than=dt.timedelta(days=30)), int)


async def pages(data: DataManager) -> None:
    page = await data.read(Product)
    assert_type(page[0], Product)
    assert_type(page[1:], list[Product])
    assert_type([product.price for product in page], list[Decimal])
    assert_type(page.next_cursor, str | None)
    assert_type(page.has_more, bool)
    assert_type(page.included, Mapping[str, Mapping[Any, Any]])


async def writing(data: DataManager, product: Product, id: uuid.UUID) -> None:
    assert_type(await data.create(product), Product)
    assert_type(await data.create(product, idempotency_key="k"), Product)
    assert_type(await data.create("products", {"name": "x"}), dict[str, Any])
    made = await data.bulk_create([product])
    assert_type(made, BulkResult[Product])
    assert_type(made.rows, list[Product])
    assert_type(made[0].row, Product | None)
    assert_type(await data.bulk_create(Product, [{"name": "x"}]), BulkResult[Product])
    assert_type(await data.bulk_create("products", [{"name": "x"}]), BulkResult[Record])
    assert_type(await data.bulk_update([product]), BulkResult[Product])
    assert_type(await data.bulk_update("products", [(id, {"name": "x"})]), BulkResult[Record])
    assert_type(await data.bulk_upsert(Product, [{"sku": "x"}], on=["sku"]), BulkResult[Product])
    assert_type(await data.bulk_delete(Product, [id], atomic=True), BulkResult[None])
    assert_type(await data.update(product, price="5"), Product)
    assert_type(await data.update(Product, id, price="5"), Product)
    assert_type(await data.update(Product, id, {"price": "5"}, version=2), Product)
    assert_type(await data.update("products", id, {"price": "5"}), Record)
    assert_type(await data.upsert(product, on=["sku"]), Product)
    assert_type(await data.upsert("products", {"sku": "x"}, on=["sku"]), Record)
    await data.delete(product)
    await data.delete(Product, id, version=2)
    async with data.transaction() as unit:
        assert_type(unit, DataManager)
        assert_type(await unit.get(Product, id), Product)
    assert_type(await data.sql("SELECT 1"), list[Record])


async def tenants(sdk: MultiTenantSDK) -> None:
    assert_type(await sdk.tenants.create("acme", name="Acme"), Tenant)
    assert_type(await sdk.tenants.list(), Page[Tenant])
    assert_type((await sdk.tenants.get("acme")).status, TenantStatus)
    assert_type(await sdk.tenants.purge("acme"), PurgeCertificate)
    assert_type(sdk.tenant("acme"), TenantHandle)
    assert_type(sdk.capabilities, frozenset[Capability])
    async with sdk.tenant("acme", user="u", claims={"role": "x"}) as acme:
        assert_type(acme, TenantHandle)
        assert_type(acme.data, DataManager)
    async with sdk.system(reason="why") as system:
        assert_type(system, SystemHandle)
    async with MultiTenantSDK.open("memory://", models=[Product]) as opened:
        assert_type(opened, MultiTenantSDK)
