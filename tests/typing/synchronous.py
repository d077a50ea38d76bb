"""What a type checker knows of the results of `tenantry.sync`. Checked by mypy, never run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, assert_type

import pandas as pd
import polars as pl

from tenantry import BulkResult, Page, PurgeCertificate, Record, Tenant, TenantStatus
from tenantry.ports import Capability
from tenantry.sync import DataManager, MultiTenantSDK, SystemHandle, TenantHandle, TenantManager
from tests.typing.results import Line, Product


def reading(data: DataManager, id: uuid.UUID) -> None:
    assert_type(data.get(Product, id), Product)
    assert_type(data.get("products", id), dict[str, Any])
    assert_type(data.read(Product), Page[Product])
    assert_type(data.read(Product, {"price": {"lt": 5}}, order_by=["-price"], limit=5), Page[Product])
    assert_type(data.read(Product, lambda p: p.price < 5, include=["maker"]), Page[Product])
    assert_type(data.read("products"), Page[dict[str, Any]])
    assert_type(data.read("products", {"price": 5}), Page[Record])
    assert_type(data.read(Product, fields=["name"]), Page[dict[str, Any]])
    assert_type(data.read(Product, lambda p: p.stock > 0, fields=["name"], distinct=True), Page[Record])
    assert_type(data.read(Product, into=Line), Page[Line])
    assert_type(data.read("products", into=Line), Page[Line])
    assert_type(data.read(Product, into=Line, distinct=True), Page[Line])
    assert_type(data.count(Product), int)
    assert_type(data.exists("products", {"price": 5}), bool)


def pages(data: DataManager) -> None:
    page = data.read(Product)
    assert_type(page[0], Product)
    assert_type(page[1:], list[Product])
    assert_type([product.price for product in page], list[Decimal])
    assert_type(page.next_cursor, str | None)
    assert_type(page.has_more, bool)
    assert_type(page.to_df(), pd.DataFrame)
    assert_type(page.to_df("polars"), pl.DataFrame)
    assert_type(page.included, Mapping[str, Mapping[Any, Any]])


def writing(data: DataManager, product: Product, id: uuid.UUID) -> None:
    assert_type(data.create(product), Product)
    assert_type(data.create(product, idempotency_key="k"), Product)
    assert_type(data.create("products", {"name": "x"}), dict[str, Any])
    made = data.bulk_create([product])
    assert_type(made, BulkResult[Product])
    assert_type(made.rows, list[Product])
    assert_type(made[0].row, Product | None)
    assert_type(data.bulk_create(Product, [{"name": "x"}]), BulkResult[Product])
    assert_type(data.bulk_create("products", [{"name": "x"}]), BulkResult[Record])
    assert_type(data.bulk_update([product]), BulkResult[Product])
    assert_type(data.bulk_update("products", [(id, {"name": "x"})]), BulkResult[Record])
    assert_type(data.bulk_upsert(Product, [{"sku": "x"}], on=["sku"]), BulkResult[Product])
    assert_type(data.bulk_delete(Product, [id], atomic=True), BulkResult[None])
    assert_type(data.update(product, price="5"), Product)
    assert_type(data.update(Product, id, price="5"), Product)
    assert_type(data.update(Product, id, {"price": "5"}, version=2), Product)
    assert_type(data.update("products", id, {"price": "5"}), Record)
    assert_type(data.upsert(product, on=["sku"]), Product)
    assert_type(data.upsert("products", {"sku": "x"}, on=["sku"]), Record)
    data.delete(product)
    data.delete(Product, id, version=2)
    with data.transaction() as unit:
        assert_type(unit, DataManager)
        assert_type(unit.get(Product, id), Product)
    assert_type(data.sql("SELECT 1"), list[Record])


def tenants(sdk: MultiTenantSDK) -> None:
    assert_type(sdk.tenants.create("acme", name="Acme"), Tenant)
    assert_type(sdk.tenants.list(), Page[Tenant])
    assert_type((sdk.tenants.get("acme")).status, TenantStatus)
    assert_type(sdk.tenants.purge("acme"), PurgeCertificate)
    assert_type(sdk.tenant("acme"), TenantHandle)
    assert_type(sdk.capabilities, frozenset[Capability])
    with sdk.tenant("acme", user="u", claims={"role": "x"}) as acme:
        assert_type(acme, TenantHandle)
        assert_type(acme.data, DataManager)
    with sdk.system(reason="why") as system:
        assert_type(system, SystemHandle)
    with MultiTenantSDK.open("memory://", models=[Product]) as opened:
        assert_type(opened, MultiTenantSDK)


def handles(sdk: MultiTenantSDK, data: DataManager) -> None:
    assert_type(sdk.tenants, TenantManager)
    assert_type(sdk.data, DataManager)
    assert_type(data.bind(sdk.tenant("acme").context), DataManager)
    with sdk.system(reason="why") as system:
        assert_type(system.data, DataManager)


def refused(data: DataManager, id: uuid.UUID) -> None:
    """Each line holds the one error that is named behind it; mypy reports a comment that none needs."""
    data.read(Product, lambda p: p.prize < 5)  # type: ignore[attr-defined]
    data.read(Product, limit="5")  # type: ignore[call-overload]
    data.get(Product)  # type: ignore[call-overload]
    data.get(Product, id).prize  # type: ignore[attr-defined]  # noqa: B018
    data.create("products")  # type: ignore[call-overload]
