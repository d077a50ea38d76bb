"""The shop's models."""

from __future__ import annotations

import uuid
from decimal import Decimal

from sqlalchemy import ForeignKey, Numeric
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantry.orm import TenantMixin


class Base(DeclarativeBase):
    pass


class Category(TenantMixin, Base):
    __tablename__ = "categories"

    name: Mapped[str] = mapped_column(unique=True)
    products: Mapped[list[Product]] = relationship(back_populates="category")


class Product(TenantMixin, Base):
    __tablename__ = "products"

    name: Mapped[str]
    sku: Mapped[str] = mapped_column(unique=True)
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    category_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("categories.id"))
    category: Mapped[Category] = relationship(back_populates="products")


MODELS = (Category, Product)
