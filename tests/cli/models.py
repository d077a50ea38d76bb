"""What the commands under test look after."""

from __future__ import annotations

import uuid
from typing import Annotated

from tenantry import KeyedModel, Model, Ref, Shared, Unique


class Country(Shared, KeyedModel):
    __collection__ = "countries"

    id: str


class Product(Model):
    __collection__ = "products"

    name: str
    sku: Annotated[str, Unique]


class Review(Model):
    __collection__ = "reviews"

    product: Annotated[uuid.UUID, Ref("products")]
    text: str


MODELS = (Country, Product, Review)
NAME = f"{__name__}:MODELS"
