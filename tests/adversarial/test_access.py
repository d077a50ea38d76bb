"""A user of the tenant attacks its other users on every path: nothing hidden shows, nothing out of reach changes."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import text

from tenantry import MultiTenantSDK, TenantHandle, contains, ilike, is_null, not_
from tenantry.aggregates import Count, Max, Sum
from tenantry.data import DataManager
from tenantry.errors import AccessDenied, NotFound, TenantryError
from tenantry.security.access import AccessPolicy, Role, allow, allow_all, hide
from tests.adversarial.arena import Arena, _shown, another_sdk
from tests.adversarial.models import MODELS, Country, Customer, Order, Setting

SECRET = "c0nfidential"

POLICY = AccessPolicy(
    Role("admin", allow_all()),
    Role("raw", allow("raw")),
    Role(
        "clerk",
        allow(
            ["read", "update", "delete"],
            Customer,
            where=lambda c, u: c.name == u.id,
            fields=hide("email", "notes"),
        ),
        allow("create", Customer, where=lambda c, u: c.name == u.id, fields=["name", "email", "tags"]),
        allow(
            "read", Order, where=lambda o, u: contains(o.memo, u.claims["desk"]), fields=hide("memo", "total")
        ),
        allow("read", Country),
    ),
)


@dataclasses.dataclass
class View:
    """Names what is hidden."""

    name: str
    email: str


@dataclasses.dataclass
class House:
    """A tenant with two customers: mallory, who attacks, and victim."""

    sdk: MultiTenantSDK
    admin: DataManager
    mallory: TenantHandle
    own: Customer
    victim: Customer
    other: Customer
    order: Order
    cursor: str = ""

    @property
    def data(self) -> DataManager:
        return self.mallory.data


@asynccontextmanager
async def house(sdk: MultiTenantSDK) -> AsyncIterator[House]:
    """Give a tenant of an SDK that has the policy."""
    tenant = f"house-{uuid.uuid4().hex[:12]}"
    await sdk.tenants.create(tenant)
    admin = sdk.tenant(tenant, user="root", claims={"roles": ["admin"]}).data
    mallory = sdk.tenant(tenant, user="mallory", claims={"roles": ["clerk"], "desk": "d1"})
    made = [
        await admin.create(
            Customer(name=name, email=f"{name}@{SECRET}.example", notes={"key": SECRET}, tags=[name])
        )
        for name in ("mallory", "victim", "z")
    ]
    order = await admin.create(
        Order(customer_id=made[1].id, number=7, total=Decimal(987), memo=f"d1 {SECRET}")
    )
    await admin.create(Order(customer_id=made[1].id, number=8, total=Decimal(988), memo=f"d2 {SECRET}"))
    await admin.create(Setting(id="theme", value=SECRET))
    await admin.create(Setting(id="mine", value=SECRET), idempotency_key="k")
    page = await admin.read(Customer, order_by="email", limit=1)
    yield House(sdk, admin, mallory, made[0], made[1], made[2], order, page.next_cursor or "")


Opening = Callable[[], AbstractAsyncContextManager[MultiTenantSDK]]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Give what opens an SDK with the policy on each database."""
    if request.param == "postgresql":
        return partial(_on_postgresql, request.getfixturevalue("direct_entrance"))
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/house.db"
    return partial(MultiTenantSDK.open, url, models=MODELS, schema="create", access=POLICY, env={})


@asynccontextmanager
async def _on_postgresql(entrance: Callable[[], Any]) -> AsyncIterator[MultiTenantSDK]:
    async with entrance() as arena, another_sdk(arena, access=POLICY) as sdk:
        yield sdk


@pytest_asyncio.fixture
async def scene(opening: Opening) -> AsyncIterator[House]:
    """Give the house."""
    async with opening() as sdk, house(sdk) as made:
        yield made


Attack = Callable[[House], Awaitable[Any]]

# What names a hidden field, or reaches for a row of another: refused, or as if there were nothing.
ATTACKS: dict[str, Attack] = {
    "get": lambda h: h.data.get(Customer, h.victim.id),
    "get by name": lambda h: h.data.get("customers", str(h.victim.id)),
    "read": lambda h: h.data.read("customers"),
    "read typed": lambda h: h.data.read(Customer),
    "filter": lambda h: h.data.read("customers", {"email": f"mallory@{SECRET}.example"}),
    "filter in not": lambda h: h.data.read(Customer, lambda c: not_(c.email > "n")),
    "filter in or": lambda h: h.data.count(Customer, lambda c: (c.name == "x") | ilike(c.email, "m%")),
    "filter in json": lambda h: h.data.exists(Customer, {"notes.key": SECRET}),
    "filter null": lambda h: h.data.count(Customer, lambda c: is_null(c.notes)),
    "filter of a rule's own field": lambda h: h.data.read(Order, lambda o: contains(o.memo, SECRET)),
    "count of others": lambda h: h.data.count(Customer, {"name": "victim"}),
    "existence of others": lambda h: h.data.exists(Customer, {"name": "victim"}),
    "sort": lambda h: h.data.read("customers", order_by="-email"),
    "sort and cursor": lambda h: h.data.read("customers", order_by="email", cursor=h.cursor),
    "cursor alone": lambda h: h.data.read("customers", cursor=h.cursor),
    "fields": lambda h: h.data.read("customers", fields=["name", "email"]),
    "into": lambda h: h.data.read(Customer, into=View),
    "distinct": lambda h: h.data.read("customers", fields=["email"], distinct=True),
    "distinct all": lambda h: h.data.read("customers", fields=list(Customer.model_fields), distinct=True),
    "include": lambda h: h.data.read(Order, include=["customer"]),
    "update another": lambda h: h.data.update(Customer, h.victim.id, tags=["x"]),
    "update another's version": lambda h: h.data.update(Customer, h.victim.id, tags=["x"], version=99),
    "update hidden": lambda h: h.data.update(Customer, h.own.id, notes={}),
    "update an instance": lambda h: h.data.update(h.victim, tags=["x"]),
    "become another": lambda h: h.data.update(Customer, h.own.id, name="victim"),
    "delete another": lambda h: h.data.delete(Customer, h.victim.id),
    "delete what nothing refers to": lambda h: h.data.delete(Customer, h.other.id),
    "delete an instance": lambda h: h.data.delete(h.other),
    "create for another": lambda h: h.data.create(Customer(name="victim", email="x")),
    "create hidden": lambda h: h.data.create(Customer(name="mallory", email="x", notes={"a": 1})),
    "create elsewhere": lambda h: h.data.create(Setting(id="new", value="x")),
    "create one bad of two": lambda h: h.data.bulk_create(
        [Customer(name="mallory", email="y"), Customer(name="victim", email="z")], atomic=True
    ),
    "upsert another": lambda h: h.data.upsert(
        Customer(id=h.victim.id, name="mallory", email="x", tags=["x"])
    ),
    "upsert by a hidden value": lambda h: h.data.upsert(
        Customer(name="mallory", email=f"victim@{SECRET}.example"), on="email"
    ),
    "bulk update another": lambda h: h.data.bulk_update(
        Customer, [(h.victim.id, {"tags": ["x"]}), (h.own.id, {"notes": {}}), (h.own.id, {"name": "victim"})]
    ),
    "bulk upsert another": lambda h: h.data.bulk_upsert(
        [Customer(id=h.victim.id, name="mallory", email="x"), Customer(name="victim", email="y")]
    ),
    "bulk delete another": lambda h: h.data.bulk_delete(Customer, [h.victim.id, h.other.id]),
    "aggregate": lambda h: h.data.aggregate(Customer, {"most": Max("email")}),
    "aggregate by a hidden field": lambda h: h.data.aggregate(
        "customers", {"n": Count()}, group_by=["email"]
    ),
    "aggregate of some": lambda h: h.data.aggregate(Customer, {"n": Count()}, {"email": {"gt": "n"}}),
    "sum": lambda h: h.data.aggregate(Order, {"all": Sum("total")}, group_by=["number"]),
    "having": lambda h: h.data.aggregate(Order, {"all": Sum("total")}, having={"all": {"gt": 5}}),
    "search": lambda h: h.data.search(Customer, "victim", highlight=True),
    "search with a filter": lambda h: h.data.search(Customer, "mallory", where={"email": {"gt": "a"}}),
    "search for the like": lambda h: h.data.search("customers", "victin", typos=True),
    "an unlisted collection": lambda h: h.data.read(Setting),
    "its rows": lambda h: h.data.get(Setting, "theme"),
    "its replays": lambda h: h.data.create(Setting(id="mine", value=SECRET), idempotency_key="k"),
    "an unlisted action": lambda h: h.data.update(Order, h.order.id, number=9),
    "shared rows": lambda h: h.data.create("countries", {"code": "XX", "name": "x"}),
    "sql": lambda h: h.data.sql("SELECT * FROM customers"),
    "other claims": lambda h: h.data.read(Customer, context=h.sdk.tenant("x", user="root").context),
}


async def outcome_of(attack: Attack, house: House) -> Any:
    try:
        return await attack(house)
    except TenantryError as error:
        return error


async def fingerprint(house: House) -> Any:
    """Return what is stored, as the admin sees it."""
    return [
        (await house.admin.read(name, limit=1000)).items
        for name in ("customers", "orders", "lines", "settings")
    ]


async def test_no_path_shows_or_changes_what_is_not_ones_own(scene: House) -> None:
    before = await fingerprint(scene)
    for name, attack in ATTACKS.items():
        seen = await outcome_of(attack, scene)
        assert SECRET not in _shown(seen), name
        assert "victim" not in _shown(seen) or isinstance(seen, NotFound | AccessDenied), name
        assert await fingerprint(scene) == before, name


async def test_no_path_of_a_transaction_does(scene: House) -> None:
    before = await fingerprint(scene)
    for name, attack in ATTACKS.items():
        if name in ("sql", "other claims"):
            continue

        async def within(attack: Attack = attack) -> Any:
            async with scene.data.transaction() as unit:
                inside = dataclasses.replace(scene, mallory=_Bound(unit))  # type: ignore[arg-type]
                return await attack(inside)

        try:
            seen: Any = await within()
        except TenantryError as error:
            seen = error
        assert SECRET not in _shown(seen), name
        assert await fingerprint(scene) == before, name


@dataclasses.dataclass
class _Bound:
    data: DataManager


async def test_what_is_ones_own_still_works(scene: House) -> None:
    """Else the tests above would prove nothing."""
    assert [row["name"] for row in await scene.data.read("customers")] == ["mallory"]
    assert await scene.data.count(Customer) == await scene.data.count(Order) == 1
    assert await scene.data.aggregate(Order, {"n": Count(), "most": Max("number")}) == [{"n": 1, "most": 7}]
    assert await scene.data.aggregate(Customer, {"n": Count()}, group_by=["name"]) == [
        {"name": "mallory", "n": 1}
    ]
    [hit] = await scene.data.search("customers", "mall", highlight=True)
    assert (hit.row["name"], "email" in hit.row) == ("mallory", False)
    assert len(await scene.data.search(Customer, "victim")) == 0
    done = await scene.data.bulk_update(
        Customer, [(scene.own.id, {"tags": ["b"]}), (scene.victim.id, {"tags": []})]
    )
    assert [outcome.ok for outcome in done] == [True, False]
    assert (await scene.data.update(Customer, scene.own.id, tags=["new"])).tags == ["new"]
    new = await scene.data.create(Customer(name="mallory", email="new"))
    await scene.data.delete(Customer, new.id)
    page = await scene.data.read(Order, include=["customer"], order_by="number")
    assert [order.number for order in page] == [7]
    assert page.included["customer"] == {}


async def test_two_users_in_one_tick_share_nothing(scene: House) -> None:
    ids = [scene.own.id, scene.victim.id]
    handles = (scene.admin, scene.data, scene.admin, scene.data)
    found = await asyncio.gather(
        *(data.get("customers", id) for data in handles for id in ids), return_exceptions=True
    )
    for index, row in enumerate(found):
        if index // 2 % 2 == 0:
            assert isinstance(row, dict)
            assert row["email"].endswith(".example")
        elif index % 2 == 0:
            assert isinstance(row, dict)
            assert "email" not in row
        else:
            assert isinstance(row, NotFound)


# -- raw access, which is a permission of its own


async def test_raw_access_needs_its_permission_on_each_path(direct_arena: Arena) -> None:
    async with another_sdk(direct_arena, access=POLICY) as sdk:
        for roles in ([], ["admin"], ["clerk"]):
            handle = sdk.tenant("acme", user="ann", claims={"roles": roles})
            with pytest.raises(AccessDenied, match="raw"):
                await handle.data.sql("SELECT 1")
            with pytest.raises(AccessDenied, match="raw"):
                async with handle.session():
                    pass
        raw = sdk.tenant("acme", user="ann", claims={"roles": ["raw"]})
        assert len(await raw.data.sql("SELECT * FROM customers")) == 2
        async with raw.session() as session:
            assert len((await session.execute(text("SELECT * FROM customers"))).all()) == 2
        with pytest.raises(AccessDenied):
            await raw.data.read(Customer)


async def test_a_connection_of_ones_own_needs_it_too(direct_arena: Arena) -> None:
    url = direct_arena.options["database"]["raw_url"]

    def count(sdk: MultiTenantSDK, **who: Any) -> int:
        with psycopg.connect(url) as connection, sdk.bind(connection, "acme", **who) as bound:
            return len(bound.execute("SELECT * FROM customers").fetchall())

    async with another_sdk(direct_arena, access=POLICY) as sdk:
        for who in ({}, {"user": "ann"}, {"user": "ann", "claims": {"roles": ["admin"]}}):
            with pytest.raises(AccessDenied, match="raw"):
                await asyncio.to_thread(count, sdk, **who)
        assert await asyncio.to_thread(count, sdk, user="ann", claims={"roles": ["raw"]}) == 2
