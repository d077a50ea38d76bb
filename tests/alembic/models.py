"""What the tests migrate."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantry import Indexed, KeyedModel, Model, Ref, Searchable, Shared, Unique


class Country(Shared, KeyedModel):
    __collection__ = "countries"

    id: str
    name: str


class Product(Model):
    __collection__ = "products"
    __unique__ = (("name", "sku"),)

    name: Annotated[str, Indexed]
    sku: Annotated[str, Unique]
    price: Decimal
    weight: float = 0.0
    live: bool = True
    details: dict[str, Any] = Field(default_factory=dict)
    blob: bytes | None = None
    country_id: Annotated[str | None, Ref("countries")] = None


class Review(Model):
    __collection__ = "reviews"

    product: Annotated[uuid.UUID, Ref("products", on_delete="cascade")]
    text: Annotated[str, Searchable]


class Base(DeclarativeBase):
    pass


class Invoice(Base):
    """A table of the user's own, which is no business of tenantry."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    note: Mapped[str | None]


MODELS = (Country, Product, Review)
