"""The guard: what it decides, and what stays as it is beside it."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import typing
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tenantry import Model, MultiTenantSDK, SoftDelete, ports
from tenantry.context import TenantContext
from tenantry.errors import (
    AccessDenied,
    ConfigurationError,
    FieldHidden,
    InvalidQuery,
    NotFound,
    TransactionFailed,
    UniqueViolation,
    Unsupported,
)
from tenantry.filters import parse_where
from tenantry.ports import Delete, Executor, Insert, Purge, Update
from tenantry.schema import collection_of
from tenantry.security.access import AccessPolicy, Role, RoleSource, allow, allow_all
from tenantry.security.access.guard import _DECIDED, Guard, GuardedDatabase
from tests.security.shop import MODELS, Order, Product, Shop, opened


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with opened() as shop:
        yield shop


# -- nothing goes around it


def test_every_call_of_an_executor_is_decided() -> None:
    """What a later version adds to the port must be decided before anybody can call it."""
    asked = {name for name, member in vars(Executor).items() if inspect.isfunction(member) and name[0] != "_"}
    assert asked <= set(vars(Guard))
    of_a_database = {name for name, member in vars(ports.Database).items() if inspect.isfunction(member)}
    assert {name for name in of_a_database if name[0] != "_"} <= {*vars(GuardedDatabase), *vars(Guard)}
    assert not hasattr(Guard, "__getattr__")


def test_every_write_is_decided_or_refused() -> None:
    assert set(typing.get_args(ports.Write)) - set(_DECIDED) == {Purge}


def test_every_port_that_takes_a_context_is_the_guards_or_asks_it() -> None:
    """Others are the SDK's: it asks for raw access before `SessionAdapter`, and `Explains` tells no user anything."""
    asked = set()
    for name, port in vars(ports).items():
        if inspect.isclass(port) and getattr(port, "_is_protocol", False):
            for member in vars(port).values():
                if inspect.isfunction(member) and "context" in inspect.signature(member).parameters:
                    asked.add(name)
    assert asked == {"Executor", "Database", "SessionAdapter", "Explains"}
    assert not hasattr(GuardedDatabase, "session")
    assert not hasattr(GuardedDatabase, "explain")


async def test_a_write_that_it_does_not_know_is_refused(shop: Shop) -> None:
    guard = shop.sdk._guard
    assert guard is not None
    with pytest.raises(AccessDenied, match="knows nothing of Purge"):
        await guard.execute(shop.admin._context, [Purge(collection_of(Order))])  # type: ignore[arg-type]


async def test_without_a_policy_nothing_stands_in_between() -> None:
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        assert sdk._runtime is not None
        assert sdk._runtime.database is sdk._database
        await sdk.tenants.create("acme")
        with pytest.raises(Unsupported, match="no access policy"):
            await sdk.explain_access("acme", "read", Order, user="ann")


# -- who


async def test_what_no_rule_allows_is_denied(shop: Shop) -> None:
    order = await shop.admin.create(Order(owner="ann"))
    for handle in (
        shop.user("ann"),
        shop.user("ann", "king"),
        shop.user(None, "admin"),
        shop.sdk.tenant("acme"),
        shop.sdk.tenant("acme", user="root"),
        shop.user("ann", "author"),
    ):
        with pytest.raises(AccessDenied) as caught:
            await handle.data.get(Order, order.id)
        assert (caught.value.action, caught.value.collection) == ("read", "orders")
        assert "allow(" in str(caught.value)
        for call in (
            handle.data.delete(Order, order.id),
            handle.data.sql("SELECT 1"),
            handle.data.count(Product),
        ):
            with pytest.raises(AccessDenied):
                await call


@pytest.mark.parametrize("claimed", ["admin", {"admin": True}, ["admin", 5], 7, None])
async def test_a_claim_that_is_no_list_of_names_gives_no_role(shop: Shop, claimed: Any) -> None:
    handle = shop.sdk.tenant("acme", user="ann", claims={"roles": claimed})
    with pytest.raises(AccessDenied):
        await handle.data.read(Order)


async def test_roles_may_come_from_elsewhere_and_change(shop: Shop) -> None:
    class Members:
        held: frozenset[str] = frozenset()

        async def roles(self, context: TenantContext) -> frozenset[str]:
            await asyncio.sleep(0)
            return self.held

    members = Members()
    source: RoleSource = members
    policy = AccessPolicy(Role("admin", allow_all()), source=source)
    async with opened(policy) as other:
        ann = other.user("ann", "admin")
        with pytest.raises(AccessDenied):
            await ann.data.count(Order)
        members.held = frozenset({"admin"})
        assert await ann.data.count(Order) == 0
        members.held = frozenset()
        with pytest.raises(AccessDenied):
            await ann.data.count(Order)


async def test_roles_may_be_those_of_the_members() -> None:
    """Whatever the claims say; and a member who is removed is refused within a second."""
    policy = AccessPolicy(Role("clerk", allow("read", Order)), source="members")
    async with opened(policy, performance={"lease_seconds": 0.05}) as shop:
        ann = shop.user("ann", "clerk")
        for handle in (ann, shop.user(None, "clerk")):
            with pytest.raises(AccessDenied):
                await handle.data.count(Order)
        await shop.sdk.tenant("acme").members.add("ann", roles=["clerk"])
        await asyncio.sleep(0.06)
        assert await ann.data.count(Order) == 0
        await shop.sdk.tenant("acme").members.remove("ann")
        await asyncio.sleep(0.06)
        with pytest.raises(AccessDenied):
            await ann.data.count(Order)
    with pytest.raises(ConfigurationError, match="source"):
        AccessPolicy(Role("a"), source="member")  # type: ignore[arg-type]


async def test_what_a_user_is_in_one_tenant_is_not_believed_of_another() -> None:
    async with opened(AccessPolicy(Role("clerk", allow("read", Order)), source="members")) as shop:
        await shop.sdk.tenants.create("globex")
        await shop.sdk.tenant("acme").members.add("ann", roles=["clerk"])
        assert await shop.sdk.tenant("acme", user="ann").data.count(Order) == 0
        with pytest.raises(AccessDenied):
            await shop.sdk.tenant("globex", user="ann").data.count(Order)


async def test_a_missing_claim_never_means_all_rows(shop: Shop) -> None:
    await shop.admin.create(Order(owner="ann", team=None))
    for claims in ({}, {"team": None}, {"team": ["red"]}, {"team": {"a": 1}}):
        leader = shop.user("ann", "leader", **claims)
        with pytest.raises(AccessDenied, match="claims"):
            await leader.data.read(Order)
    assert len(await shop.user("ann", "leader", "viewer").data.read(Order)) == 1
    assert len(await shop.user("ann", "leader", team="red").data.read(Order)) == 0


async def test_a_denial_outweighs_what_is_allowed(shop: Shop) -> None:
    order = await shop.admin.create(Order(owner="ann", team="red"))
    frozen = shop.user("ann", "frozen", "leader", "admin", team="red")
    with pytest.raises(AccessDenied, match="frozen: deny update"):
        await frozen.data.update(order, status="paid")
    assert await frozen.data.get(Order, order.id) == order


# -- hidden fields


async def test_a_hidden_field_is_absent_and_says_so(shop: Shop) -> None:
    stored = await shop.admin.create(Product(name="Laptop", sku="L", cost=Decimal(9), tags=["a"]))
    product = await shop.user("ann", "viewer").data.get(Product, stored.id)
    assert product.name == "Laptop"
    assert not hasattr(product, "cost")
    with pytest.raises(FieldHidden, match=r"Product\.cost: the access policy"):
        product.cost  # noqa: B018 - to see what it says
    with pytest.raises(AttributeError, match="nothing"):
        product.nothing  # type: ignore[attr-defined] # noqa: B018 - to see what it says
    assert "cost" not in product.model_dump()
    assert "cost" not in repr(product)
    assert "cost" not in product.model_dump_json()
    page = await shop.user("ann", "viewer").data.read(Product)
    assert "cost" not in repr(page) + page._repr_html_()


async def test_a_row_with_hidden_fields_is_changed_and_never_copied(shop: Shop) -> None:
    order = await shop.admin.create(Order(owner="ann", note="secret"))
    seller = shop.user("ann", "seller").data
    mine = await seller.get(Order, order.id)
    assert not hasattr(mine, "note")
    paid = await seller.update(mine, status="paid")
    assert (paid.status, paid.version) == ("paid", 2)
    assert (await shop.admin.get(Order, order.id)).note == "secret"
    for call in (
        shop.admin.create(mine),
        shop.admin.upsert(mine),
        shop.admin.bulk_create([mine], atomic=True),
        shop.admin.bulk_update([mine], atomic=True),
    ):
        with pytest.raises(FieldHidden, match=r"Order\.team"):
            await call


async def test_what_a_write_returns_is_masked(shop: Shop) -> None:
    author = shop.user("ann", "author").data
    order = await author.create(Order(owner="ann", note="mine"))
    assert set(order.model_dump()) == {"id", "version", "created_at", "updated_at"}
    both = shop.user("ann", "author", "seller").data
    record = await both.create("orders", {"owner": "ann", "note": "mine"})
    assert set(record) == {"id", "owner", "status", "version", "created_at", "updated_at"}
    assert (await shop.admin.get(Order, record["id"])).note == "mine"


async def test_only_writable_fields_are_written(shop: Shop) -> None:
    author, seller = shop.user("ann", "author").data, shop.user("ann", "seller").data
    merger = shop.user("ann", "merger").data
    order = await shop.admin.create(Order(owner="ann"))
    for call, path in (
        (author.create(Order(owner="ann", status="paid")), "record.status"),
        (author.create(Order(owner="ann", team="red")), "record.team"),
        (author.bulk_create([Order(owner="ann", team="red")], atomic=True), "record.team"),
        (seller.update(Order, order.id, note="x"), "changes.note"),
        (seller.update(Order, order.id, {"status": "x", "team": "red"}), "changes.team"),
        (merger.upsert(Product(name="x", sku="guess", cost=Decimal(1)), on="sku"), "on.sku"),
    ):
        with pytest.raises(FieldHidden) as caught:
            await call
        assert caught.value.path == path
    assert await shop.admin.count(Order) == 1


async def test_what_an_include_may_not_show_is_absent() -> None:
    first, second = (Product(name=name, sku=name, cost=Decimal(1)) for name in "ab")
    policy = AccessPolicy(
        Role("admin", allow_all()),
        Role("half", allow("read", Order), allow("read", Product, where={"sku": "a"})),
        Role("blind", allow("read", Order, fields=["owner"]), allow("read", Product)),
        Role("none", allow("read", Order)),
    )
    async with opened(policy) as other:
        for product in (first, second):
            await other.admin.create(product)
            await other.admin.create(Order(owner="ann", product_id=product.id))
        half = await other.user("x", "half").data.read(Order, include=["product"])
        assert list(half.included["product"]) == [first.id]
        blind = await other.user("x", "blind").data.read("orders", include=["product"])
        assert (len(blind), blind.included) == (2, {"product": {}})
        with pytest.raises(AccessDenied):
            await other.user("x", "none").data.read(Order, include=["product"])


# -- writes


async def test_a_row_never_leaves_its_condition_in_a_write(shop: Shop) -> None:
    order = await shop.admin.create(Order(owner="ann", team="red"))
    leader = shop.user("bob", "leader", team="red").data
    with pytest.raises(AccessDenied, match="would lie outside"):
        await leader.update(Order, order.id, team="blue")

    async def swallow() -> None:
        async with leader.transaction() as unit:
            await unit.update(Order, order.id, status="paid")
            with pytest.raises(AccessDenied):
                await unit.update(Order, order.id, team="blue")

    with pytest.raises(TransactionFailed):
        await swallow()
    assert await shop.admin.get(Order, order.id) == order


async def test_each_item_of_a_bulk_write_is_decided_by_itself(shop: Shop) -> None:
    """Items that would leave their condition are found once they are stored, and the others run again without them."""
    leader = shop.user("ann", "leader", team="red").data
    made = await shop.admin.bulk_create(
        [Order(owner=str(n), team="red" if n % 3 else "blue") for n in range(9)]
    )
    changes = [(made.rows[n].id, {"team": "red" if n % 2 else "blue", "status": "paid"}) for n in range(9)]
    done = await leader.bulk_update(Order, changes)
    outside = {0: NotFound, 3: NotFound, 6: NotFound, 2: AccessDenied, 4: AccessDenied, 8: AccessDenied}
    assert {index: type(error) for index, error in done.refused.items()} == outside
    stored = {
        order.owner: (order.team, order.status, order.version) for order in await shop.admin.read(Order)
    }
    assert {owner for owner, values in stored.items() if values == ("red", "paid", 2)} == {"1", "5", "7"}
    assert all(values[1:] == ("open", 1) for owner, values in stored.items() if owner not in {"1", "5", "7"})
    author = shop.user("ann", "author").data
    created = await author.bulk_create([Order(owner="ann"), Order(owner="bob"), Order(owner="ann", note="n")])
    assert list(created.refused) == [1]
    assert not hasattr(created.rows[0], "owner")
    gone = await leader.bulk_delete(Order, [made.rows[1].id])
    assert isinstance(gone.errors[0], AccessDenied)

    async def within_a_transaction() -> None:
        async with leader.transaction() as unit:
            await unit.bulk_update(
                Order, [(made.rows[1].id, {"status": "x"}), (made.rows[5].id, {"team": "x"})]
            )

    with pytest.raises(AccessDenied, match="would lie outside"):
        await within_a_transaction()
    assert (await shop.admin.get(Order, made.rows[1].id)).status == "paid"


async def test_a_guarded_transaction_is_behind_the_guard(shop: Shop) -> None:
    await shop.admin.create(Order(owner="ann", team="red", note="n"))
    async with shop.user("ann", "seller").data.transaction() as unit:
        [row] = await unit.read("orders")
        assert "note" not in row
        for call in (
            unit.count(Order, {"note": "n"}),
            unit.read(Order, order_by="note"),
            unit.count(Product),
        ):
            with pytest.raises(AccessDenied):
                await call
        assert await unit.get("orders", row["id"]) == row


async def test_the_conditions_of_a_caller_are_kept(shop: Shop) -> None:
    """A write that carries a condition of its own is narrowed, never widened."""
    order = await shop.admin.create(Order(owner="ann", status="paid"))
    seller = shop.user("ann", "seller")
    guard, orders = shop.sdk._guard, collection_of(Order)
    assert guard is not None
    where = parse_where(orders, {"status": "open"})
    for write in (
        Update(orders, order.id, {"status": "x"}, None, where),
        Delete(orders, order.id, None, where),
    ):
        with pytest.raises(NotFound):
            await guard.execute(shop.user("root", "admin", "seller").context, [write])
    with pytest.raises(AccessDenied):
        await guard.execute(seller.context, [Delete(orders, order.id, None, where)])


async def test_a_hook_writes_what_its_user_may_not(shop: Shop) -> None:
    products = collection_of(Product)

    def log(operation: Any) -> list[Any]:
        if operation.collection.name != "orders":
            return []
        entry = Product(
            name=f"{operation.verb} {operation.context.user_id}", sku=str(operation.ids[0]), cost=0
        )
        return [Insert(products, [{**products.to_record(entry), "version": 1}])]

    shop.sdk.add_within_hook(log)
    author = shop.user("ann", "author").data
    await author.create(Order(owner="ann"))
    assert [product.name for product in await shop.admin.read(Product)] == ["create ann"]
    with pytest.raises(AccessDenied):
        await author.create(Product(name="forged", sku="f", cost=0))


async def test_a_replay_shows_no_more_than_a_read(shop: Shop) -> None:
    """An idempotency key is the tenant's: whoever repeats the request reads its row, as their own rules say."""
    request = Order(owner="ann", note="secret")
    ann, bob = (shop.user(name, "seller", "author").data for name in ("ann", "bob"))
    first = await ann.create(request, idempotency_key="k")
    assert await ann.create(request, idempotency_key="k") == first
    assert not hasattr(first, "note")
    with pytest.raises(NotFound):
        await bob.create(request, idempotency_key="k")
    assert await shop.admin.count(Order) == 1


async def test_a_taken_value_says_nothing_of_who_has_it(tmp_path: Path) -> None:
    policy = AccessPolicy(
        Role("maker", allow("create", Product, fields=["name", "sku", "cost"])), Role("admin", allow_all())
    )
    async with opened(policy, f"sqlite:///{tmp_path}/shop.db") as other:
        await other.admin.create(Product(name="secret name", sku="taken", cost=7))
        with pytest.raises(UniqueViolation) as caught:
            await other.user("ann", "maker").data.create(Product(name="x", sku="taken", cost=1))
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert "secret" not in str(caught.value)


# -- explanations


async def test_an_explanation_says_who_decides(shop: Shop) -> None:
    order = await shop.admin.create(Order(owner="ann", team="red"))
    told = await shop.sdk.explain_access(
        "acme", "update", Order, order.id, user="ann", claims={"roles": ["seller", "viewer"]}
    )
    assert told.allowed
    assert told.rules == ("seller: allow read, update on orders where owner == user.id of owner, status",)
    assert told.reason == told.rules[0]
    assert told.writable == ("owner", "status")
    assert "team" in told.visible
    for user, reason in (("bob", "outside"), (None, "no role")):
        told = await shop.sdk.explain_access(
            "acme", "update", "orders", order.id, user=user, claims={"roles": ["seller"]}
        )
        assert not told.allowed
        assert reason in told.reason or user is None
    told = await shop.sdk.explain_access("acme", "raw", user="ann", claims={"roles": ["<b>", "seller"]})
    assert (told.allowed, told.collection) == (False, None)
    assert "&lt;b&gt;" in told._repr_html_()


@pytest.mark.parametrize(
    ("action", "collection"), [("fly", Order), ("raw", Order), ("read", None), (["read"], Order)]
)
async def test_a_question_that_makes_no_sense_is_refused(shop: Shop, action: Any, collection: Any) -> None:
    with pytest.raises(InvalidQuery):
        await shop.sdk.explain_access("acme", action, collection, user="ann")


async def test_the_policy_of_a_row_that_is_missing(shop: Shop) -> None:
    told = await shop.sdk.explain_access(
        "acme",
        "read",
        Order,
        "00000000-0000-0000-0000-000000000000",
        user="ann",
        claims={"roles": ["viewer"]},
    )
    assert (told.allowed, told.reason) == (False, "there is no such row")


def test_a_policy_shows_its_roles() -> None:
    assert repr(Role("a", allow("raw"), inherits=["b"])) == "Role('a', 1 rules, inherits=['b'])"


# -- rows that are marked as deleted


async def test_marked_rows_are_as_far_away_as_others() -> None:
    class Draft(SoftDelete, Model):
        __collection__ = "drafts"
        owner: str
        text: str = ""

    own: Any = {"where": lambda d, user: d.owner == user.id}
    policy = AccessPolicy(
        Role("admin", allow_all()),
        Role("writer", allow(["read", "delete"], Draft, fields=["owner"], **own)),
        Role("reader", allow("read", Draft, **own)),
        Role("cleaner", allow(["read", "delete"], Draft)),
    )
    async with opened(policy, models=[Draft]) as shop:
        mine, theirs = [await shop.admin.create(Draft(owner=name, text="t")) for name in ("ann", "bob")]
        writer, reader = shop.user("ann", "writer").data, shop.user("ann", "reader").data
        for call in (
            writer.delete(theirs),
            writer.delete(Draft, theirs.id),
            writer.restore(Draft, theirs.id),
        ):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(AccessDenied):
            await reader.delete(mine)
        await writer.delete(mine)
        with pytest.raises(AccessDenied):
            await reader.restore(Draft, mine.id)
        assert [row["owner"] for row in await writer.read("drafts", deleted="only")] == ["ann"]
        assert "text" not in await writer.restore("drafts", mine.id)
        await shop.admin.delete(theirs)
        assert len(await writer.read(Draft, deleted="with")) == 1
        await writer.delete(Draft, mine.id)
        with pytest.raises(AccessDenied, match="not purge them all"):
            await writer.purge_deleted(Draft, older_than=dt.timedelta())
        assert await shop.user("x", "cleaner").data.purge_deleted(Draft, older_than=dt.timedelta()) == 2
