"""What a type checker accepts as a lambda filter. Checked by mypy, never run."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

from tenantry import between, contains, ilike, is_in, is_null, not_
from tenantry.data import DataManager
from tenantry.testing.models import Colour, Sample
from tests.typing.results import Product


async def accepted(data: DataManager, id: uuid.UUID, day: dt.date) -> None:
    await data.read(Product, lambda p: p.price < 2000)
    await data.read(Product, lambda p: (p.price < 2000) & p.name.startswith("L"))
    await data.read(Product, lambda p: (p.price <= Decimal("9.99")) | (p.stock == 0))
    await data.read(Product, lambda p: p.id == id)
    await data.read(Product, lambda p: p.maker_id == None)  # noqa: E711 - it is how one writes it here
    await data.read(Product, lambda p: not_(p.stock > 5))
    await data.read(Product, lambda p: is_in(p.sku, ["a", "b"]) & not_(is_null(p.maker_id)))
    await data.read(Product, lambda p: between(p.price, Decimal(1), Decimal(2)))
    await data.read(Product, lambda p: contains(p.name, "x") | ilike(p.name, "%x%"))
    await data.read(Product, lambda p: p.version > 1)
    await data.read(Sample, lambda s: is_in(s.colour, [Colour.RED, None]))
    await data.read(Sample, lambda s: s.colour == Colour.RED)
    await data.read(Sample, lambda s: between(s.day, day, day))
    await data.read(Sample, lambda s: is_null(s.labels))
    await data.read(Sample, lambda s: bool(s.flag))


async def refused(data: DataManager, id: uuid.UUID) -> None:
    """Each line holds the one error that is named behind it; mypy reports a comment that none needs."""
    await data.read(Product, lambda p: p.prize < 5)  # type: ignore[attr-defined]
    await data.read(Product, lambda p: p.tenant_id == "globex")  # type: ignore[attr-defined]
    await data.read(Product, lambda p: p.price < "5")  # type: ignore[operator]
    await data.read(Product, lambda p: p.name < 5)  # type: ignore[operator]
    await data.read(Product, lambda p: p.name == 5)  # type: ignore[comparison-overlap]
    await data.read(Product, lambda p: p.stock.startswith("x"))  # type: ignore[attr-defined]
    await data.read(Product, lambda p: p.name)  # type: ignore[arg-type, return-value]
    await data.read(Product, lambda p: ilike(p.stock, "x"))  # type: ignore[arg-type]
    await data.read(Product, lambda: True)  # type: ignore[arg-type, misc]
    await data.read(Product, "price < 5")  # type: ignore[call-overload]
    await data.read(Product, limit="5")  # type: ignore[call-overload]
    await data.read(Product, distinct=True)  # type: ignore[call-overload]
    await data.read(int)  # type: ignore[type-var]
    await data.get(Product)  # type: ignore[call-overload]
    await data.create(Product, {"name": "x"})  # type: ignore[call-overload]
    await data.create(Product(name="x", sku="y"))  # type: ignore[call-arg]
    await data.create(Product(name="x", sku="y", price=1, colour="red"))  # type: ignore[call-arg]
    await data.create("products")  # type: ignore[call-overload]
    await data.bulk_create(Product(name="x", sku="y", price=Decimal(1)))  # type: ignore[type-var]
    await data.delete(Product)  # type: ignore[call-overload]
    (await data.get(Product, id)).prize  # type: ignore[attr-defined]  # noqa: B018
    data.create(Product(name="x", sku="y", price=Decimal(1)))  # type: ignore[unused-coroutine]
