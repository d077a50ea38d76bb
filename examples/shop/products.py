"""Products of tenants."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from tenantry import Model, TenantHandle, Unique

PAGE = 500


class Product(Model):
    """A product; its number is unique within its tenant."""

    __collection__ = "products"

    name: str
    sku: Annotated[str, Unique]
    price: Decimal


class NewProduct(BaseModel):
    """What a client sends: no id, no version, no tenant."""

    name: str = Field(min_length=1, max_length=200)
    sku: str = Field(min_length=1, max_length=40)
    price: Decimal = Field(ge=0, max_digits=12, decimal_places=2)

    def product(self) -> Product:
        """Return the row that it becomes."""
        return Product(**self.model_dump())


async def as_csv(tenant: TenantHandle) -> AsyncIterator[str]:
    """Yield all products of a tenant as lines of CSV, however many there are."""
    yield "sku,name,price\r\n"
    cursor = None
    while True:
        page = await tenant.data.read(Product, order_by="sku", limit=PAGE, cursor=cursor)
        lines = io.StringIO()
        csv.writer(lines).writerows((row.sku, row.name, row.price) for row in page)
        yield lines.getvalue()
        cursor = page.next_cursor
        if cursor is None:
            return
