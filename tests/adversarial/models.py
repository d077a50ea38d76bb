"""The models under attack: one of each kind of column that a filter, a cast or a constraint could leak through."""

from __future__ import annotations

import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any

import pydantic

from tenantry import Indexed, KeyedModel, Model, Ref, Searchable, Shared, Unique


class Status(enum.Enum):
    OPEN = "open"
    PAID = "paid"


class Country(Shared, Model):
    __collection__ = "countries"

    code: Annotated[str, Unique]
    name: str


class Customer(Model):
    __collection__ = "customers"

    name: Annotated[str, Searchable]
    email: Annotated[str, Unique]
    country_id: Annotated[uuid.UUID | None, Ref("countries")] = None
    notes: dict[str, Any] = pydantic.Field(default_factory=dict)
    tags: list[str] = pydantic.Field(default_factory=list)


class Order(Model):
    __collection__ = "orders"
    __unique__ = (("customer_id", "number"),)

    customer_id: Annotated[uuid.UUID, Ref("customers")]
    number: Annotated[int, Indexed]
    total: Decimal
    status: Status = Status.OPEN
    memo: str | None = None


class Line(Model):
    """Goes with its order."""

    __collection__ = "lines"

    order_id: Annotated[uuid.UUID, Ref("orders", on_delete="cascade")]
    text: str


class Setting(KeyedModel):
    """Its id is text that the tenant chooses, so that ids meet."""

    __collection__ = "settings"

    id: str
    value: str


MODELS: tuple[type[KeyedModel], ...] = (Country, Customer, Order, Line, Setting)
TENANT_TABLES = ("customers", "orders", "lines", "settings")
WORD_TABLES = ("customers_search",)
