"""A shop with a policy, for tests of one thing at a time."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any

import pydantic

from tenantry import Model, MultiTenantSDK, Ref, TenantHandle, Unique
from tenantry.security.access import AccessPolicy, Role, allow, allow_all, deny, hide


class Product(Model):
    __collection__ = "products"

    name: str
    sku: Annotated[str, Unique]
    cost: Decimal
    tags: list[str] = pydantic.Field(default_factory=list)
    details: dict[str, Any] = pydantic.Field(default_factory=dict)


class Order(Model):
    __collection__ = "orders"

    owner: str
    status: str = "open"
    team: str | None = None
    product_id: Annotated[uuid.UUID | None, Ref("products")] = None
    note: str | None = None


MODELS = (Product, Order)
POLICY = AccessPolicy(
    Role("admin", allow_all(), allow("raw")),
    Role("viewer", allow("read", Product, Order, fields=hide("cost"))),
    Role(
        "seller",
        allow(
            ["read", "update"], Order, where=lambda o, user: o.owner == user.id, fields=["owner", "status"]
        ),
    ),
    Role("leader", allow(["read", "update"], Order, where=lambda o, user: o.team == user.claims["team"])),
    Role(
        "author", allow("create", Order, where=lambda o, user: o.owner == user.id, fields=["owner", "note"])
    ),
    Role("merger", allow(["create", "update"], Product), allow("read", Product, fields=["name"])),
    Role("frozen", deny("update"), inherits=["leader"]),
)


class Shop:
    """An SDK with one tenant, and its users."""

    def __init__(self, sdk: MultiTenantSDK) -> None:
        self.sdk = sdk
        self.admin = self.user("root", "admin").data

    def user(self, id: str | None, *roles: str, **claims: Any) -> TenantHandle:
        return self.sdk.tenant("acme", user=id, claims={"roles": list(roles), **claims})


@asynccontextmanager
async def opened(
    policy: AccessPolicy = POLICY, url: str = "memory://", **options: Any
) -> AsyncIterator[Shop]:
    """Give a shop with one tenant and no rows."""
    given: dict[str, Any] = {"models": MODELS, "schema": "create", "env": {}, **options}
    async with MultiTenantSDK.open(url, access=policy, **given) as sdk:
        await sdk.tenants.create("acme")
        yield Shop(sdk)
