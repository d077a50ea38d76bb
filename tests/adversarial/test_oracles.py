"""Errors as oracles: what is another tenant's answers as what never existed, to the byte."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tenantry.data import DataManager
from tenantry.errors import (
    InvalidQuery,
    IsolationError,
    NotFound,
    ReferenceViolation,
    TenantryError,
    Unsupported,
)
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.models import Customer, Order, Setting

OWN_ORDER = uuid.uuid4()
OWN_CUSTOMER = uuid.uuid4()
TIMES = {"id", "created_at", "updated_at"}
Attempt = Callable[[DataManager, Any, Any], Awaitable[Any]]

# Each with an id of a customer: globex' or nobody's, and one of an order.
BY_ID: dict[str, Attempt] = {
    "get": lambda data, id, _: data.get(Customer, id),
    "get a record": lambda data, id, _: data.get("customers", id),
    "read": lambda data, id, _: data.read(Customer, {"id": id}),
    "read any of": lambda data, id, _: data.read(Customer, {"id": {"in": [id]}}),
    "read what refers to it": lambda data, id, _: data.read(Order, {"customer_id": id}, include=["customer"]),
    "count": lambda data, id, _: data.count(Customer, {"id": id}),
    "exists": lambda data, id, _: data.exists(Customer, {"id": id}),
    "update": lambda data, id, _: data.update(Customer, id, name="x"),
    "update a version": lambda data, id, _: data.update(Customer, id, version=1, name="x"),
    "update a wrong version": lambda data, id, _: data.update(Customer, id, version=9, name="x"),
    "update once": lambda data, id, _: data.update(Customer, id, {"name": "x"}, idempotency_key="k"),
    "update an instance": lambda data, id, _: data.update(
        Customer(id=id, name="", email="", version=1), name="x"
    ),
    "update what is referred to": lambda data, _, order: data.update(Order, order, memo="x"),
    "delete": lambda data, id, _: data.delete(Customer, id),
    "delete a version": lambda data, id, _: data.delete(Customer, id, version=1),
    "delete a wrong version": lambda data, id, _: data.delete(Customer, id, version=9),
    "refer to it": lambda data, id, _: data.create(Order(customer_id=id, number=1, total="1")),
    "refer to it twice": lambda data, id, _: data.bulk_create(
        [Order(customer_id=id, number=number, total="1") for number in (1, 2)], atomic=True
    ),
    "refer to it from now on": lambda data, id, _: data.update("orders", OWN_ORDER, {"customer_id": id}),
    "refer to it by upsert": lambda data, id, _: data.upsert(
        Order(id=OWN_ORDER, customer_id=id, number=5, total="1")
    ),
    "take its id": lambda data, id, _: data.create(Customer(id=id, name="x", email="x")),
    "take its id by upsert": lambda data, id, _: data.upsert(Customer(id=id, name="x", email="x")),
    "take its order's id": lambda data, _, order: data.create(
        Order(id=order, customer_id=OWN_CUSTOMER, number=77, total="1")
    ),
}
BY_SQL = {
    "read": "SELECT * FROM customers WHERE id = '{}'",
    "lock": "SELECT * FROM customers WHERE id = '{}' FOR UPDATE NOWAIT",
    "refer to it": "INSERT INTO orders (id, customer_id, number, total, status) "
    "VALUES (gen_random_uuid(), '{}', 3, 1, 'open') RETURNING version",
    "refer to it across": "INSERT INTO orders (tenant_id, id, customer_id, number, total, status) "
    "VALUES ('globex', gen_random_uuid(), '{}', 3, 1, 'open')",
    "take its id across": "INSERT INTO customers (tenant_id, id, name, email, notes, tags) "
    "VALUES ('globex', '{}', 'x', 'x', '{{}}', '[]')",
    "take its id across, unless": "INSERT INTO customers (tenant_id, id, name, email, notes, tags) "
    "VALUES ('globex', '{}', 'x', 'x', '{{}}', '[]') ON CONFLICT DO NOTHING",
    "take its id across, or else": "INSERT INTO customers (tenant_id, id, name, email, notes, tags) "
    "VALUES ('globex', '{}', 'x', 'x', '{{}}', '[]') ON CONFLICT (tenant_id, id) DO UPDATE SET name = 'x'",
    "move to its id": "UPDATE customers SET tenant_id = 'globex', id = '{}'",
    "move it here": "UPDATE customers SET tenant_id = 'acme' WHERE id = '{}'",
    "update": "UPDATE customers SET name = 'x' WHERE id = '{}' RETURNING 1",
    "delete": "DELETE FROM customers WHERE id = '{}' RETURNING 1",
    "delete across": "DELETE FROM customers WHERE tenant_id = 'globex' AND id = '{}' RETURNING 1",
}


def _form(found: Any, *ids: object) -> str:
    """Return what a caller sees, with the ids that it passed in and the times taken out."""
    if isinstance(found, TenantryError):
        inner = {name: value for name, value in vars(found).items() if not name.startswith("_")}
        text = f"{type(found).__name__} {found} {sorted(map(str, inner.items()))}"
    elif isinstance(found, Customer | Order):
        text = repr(sorted((name, str(value)) for name, value in found.model_dump(exclude=TIMES).items()))
    else:
        text = repr(found)
    for id in ids:
        text = text.replace(str(id), "ID")
    return text


async def _attempt(arena: Arena, attempt: Attempt, *ids: object) -> str:
    """Attempt it in a transaction that is rolled back, so that every attempt finds the same rows."""

    class Undo(Exception):
        pass

    found: Any = None
    try:
        async with arena.acme.data.transaction() as unit:
            found = await outcome_of(attempt(unit, *ids))
            raise Undo
    except Undo:
        return _form(found, *ids)


async def _prepare(arena: Arena) -> None:
    data = arena.acme.data
    await data.create(Customer(id=OWN_CUSTOMER, name="own", email="own"))
    await data.create(Order(id=OWN_ORDER, customer_id=OWN_CUSTOMER, number=5, total="1"))


async def test_an_id_of_another_tenant_answers_as_one_that_never_was(arena: Arena) -> None:
    await _prepare(arena)
    async with arena.unharmed():
        for name, attempt in BY_ID.items():
            theirs = await _attempt(arena, attempt, arena.victim, arena.victim_order)
            nobodys = await _attempt(arena, attempt, uuid.uuid4(), uuid.uuid4())
            assert theirs == nobodys, name
            assert "MissingGreenlet" not in theirs


async def test_the_same_outside_of_a_transaction(arena: Arena) -> None:
    await _prepare(arena)
    async with arena.unharmed():
        for name, attempt in BY_ID.items():
            if name.startswith("take"):
                continue  # these succeed
            ids = [(arena.victim, arena.victim_order), (uuid.uuid4(), uuid.uuid4())]
            theirs, nobodys = [
                _form(await outcome_of(attempt(arena.acme.data, *pair)), *pair) for pair in ids
            ]
            assert theirs == nobodys, name


async def test_the_same_in_sql_of_ones_own(arena: Arena) -> None:
    await _prepare(arena)
    async with arena.unharmed():
        for name, text in BY_SQL.items():
            nobody = uuid.uuid4()
            ids = (arena.victim, nobody)
            theirs, nobodys = [
                _form(await outcome_of(arena.acme.data.sql(text.format(id))), id) for id in ids
            ]
            assert theirs == nobodys, name


async def test_what_the_errors_are(direct_arena: Arena) -> None:
    """That the answers are alike says nothing if every call fails for another reason."""
    data, victim = direct_arena.acme.data, direct_arena.victim
    for name, expected in {"get": NotFound, "update": NotFound, "delete a version": NotFound}.items():
        with pytest.raises(expected):
            await BY_ID[name](data, victim, None)
    with pytest.raises(ReferenceViolation) as caught:
        await BY_ID["refer to it"](data, victim, None)
    assert (caught.value.collection, caught.value.field) == ("orders", "customer_id")
    with pytest.raises(IsolationError):
        await data.sql(BY_SQL["take its id across, unless"].format(victim))


async def test_a_value_that_another_tenant_has_is_free(arena: Arena) -> None:
    secret, before = arena.secret, await arena.fingerprint("globex")
    for email in (f"0@{secret}.example", "nobody@example.com"):
        made = await arena.acme.data.create(Customer(name="x", email=email))
        assert made.version == 1
        assert (await arena.acme.data.upsert(Customer(name="y", email=email), on=["email"])).id == made.id
    for id in (f"only {secret}", "nobody's"):
        assert (await arena.acme.data.upsert(Setting(id=id, value="x"))).version == 1
    assert await arena.fingerprint("globex") == before


async def test_an_idempotency_key_that_another_tenant_used_is_free(arena: Arena) -> None:
    before = await arena.fingerprint("globex")
    for key in (f"key {arena.secret}", "nobody's"):
        setting = Setting(id=f"by {key}", value="x")
        made = await arena.acme.data.create(setting, idempotency_key=key)
        assert made.value == "x"
        assert made == await arena.acme.data.create(setting, idempotency_key=key)
    assert await arena.fingerprint("globex") == before


async def test_a_cursor_of_another_tenant_is_refused_like_a_forged_one(arena: Arena) -> None:
    arguments: dict[str, Any] = {"order_by": ["name"], "limit": 1}
    theirs = (await arena.globex.data.read(Customer, **arguments)).next_cursor
    own = (await arena.acme.data.read(Customer, **arguments)).next_cursor
    assert theirs
    assert own
    async with arena.sdk.system(reason="test") as system:
        systems = (await system.data.read("customers", **arguments)).next_cursor
    assert systems
    flipped = own[:-1] + ("A" if own[-1] != "A" else "B")
    forms = {
        _form(await outcome_of(arena.acme.data.read(Customer, cursor=cursor, **arguments)))
        for cursor in (
            theirs,
            systems,
            flipped,
            own[:20] + theirs[20:],
            theirs[:22] + own[22:],
            "A" * 40,
            "",
            "é",
        )
    }
    assert len(forms) == 1
    assert forms.pop().startswith(InvalidQuery.__name__)
    assert len(await arena.acme.data.read(Customer, cursor=own, **arguments)) == 1
    # nor does it fit another question of the same tenant
    for order in (["-name"], ["email"], []):
        with pytest.raises(InvalidQuery):
            await arena.acme.data.read(Customer, cursor=own, order_by=order)


async def test_include_brings_rows_of_this_tenant_only(arena: Arena) -> None:
    """Both tenants have a customer with the id `twin`."""
    await arena.acme.data.create(Order(customer_id=arena.twin, number=8, total="1"))
    page = await arena.acme.data.read(Order, {"number": 8}, include=["customer"])
    assert page.included["customer"][arena.twin].name == "acme 0 plain"
    mixed = await arena.acme.data.read("orders", include=["customer"])
    assert not arena.reveals(mixed)


async def test_the_system_keeps_rows_of_two_tenants_with_one_id_apart(arena: Arena) -> None:
    """No tenant sees these pages, but a report made of them must not skip or mix rows either."""
    async with arena.sdk.system(reason="test") as system:
        seen: list[tuple[str, uuid.UUID]] = []
        cursor: str | None = None
        while True:
            page = await system.data.read("customers", limit=1, cursor=cursor)
            seen += [(row["tenant_id"], row["id"]) for row in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        rows = await arena.judge.fetch("SELECT tenant_id, id FROM customers")
        assert sorted(seen) == sorted((row["tenant_id"], row["id"]) for row in rows)


async def test_the_system_is_not_given_the_row_of_the_wrong_tenant(arena: Arena) -> None:
    for handle in (arena.acme, arena.globex):
        await handle.data.create(Order(customer_id=arena.twin, number=8, total="1"))
    async with arena.sdk.system(reason="test") as system:
        with pytest.raises(Unsupported):
            await system.data.get("customers", arena.twin)
        with pytest.raises(Unsupported):
            await system.data.read("orders", {"number": 8}, include=["customer"])
    async with arena.sdk.system(reason="test", tenant="globex") as system:
        page = await system.data.read("orders", {"number": 8}, include=["customer"])
        assert page.included["customer"][arena.twin]["tenant_id"] == "globex"
        assert (await system.data.get("customers", arena.twin))["tenant_id"] == "globex"
