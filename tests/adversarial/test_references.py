"""Keys, references and cascades stay inside of a tenant, in the catalogs as in what happens."""

from __future__ import annotations

import uuid

import pytest

from tenantry.errors import ReferenceViolation
from tests.adversarial.arena import Arena
from tests.adversarial.models import TENANT_TABLES, WORD_TABLES, Customer, Line, Order

KEYS = """
SELECT conname, contype, confrelid::regclass::text AS target,
  ARRAY(SELECT attname FROM unnest(conkey) WITH ORDINALITY k(number, place)
    JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.number ORDER BY place) AS own,
  ARRAY(SELECT attname FROM unnest(confkey) WITH ORDINALITY k(number, place)
    JOIN pg_attribute a ON a.attrelid = confrelid AND a.attnum = k.number ORDER BY place) AS theirs
FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('p', 'u', 'f')
"""
INDEXES = """
SELECT i.indexrelid::regclass::text AS name, a.attname AS first
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = $1::regclass
"""


async def test_every_key_and_index_begins_with_the_tenant(direct_arena: Arena) -> None:
    seen = set()
    for table in (*TENANT_TABLES, *WORD_TABLES, "tenantry.idempotency"):
        for key in await direct_arena.judge.fetch(KEYS, table):
            seen.add(key["contype"])
            if key["target"] == "countries":
                assert key["own"] == ["country_id"]  # shared rows belong to nobody
                continue
            assert key["own"][0] == "tenant_id", key["conname"]
            if key["contype"] == b"f":
                assert key["theirs"][0] == "tenant_id", key["conname"]
        for index in await direct_arena.judge.fetch(INDEXES, table):
            assert index["first"] == "tenant_id", index["name"]
    assert seen == {b"p", b"u", b"f"}


async def _twins(arena: Arena) -> uuid.UUID:
    """Give both tenants an order of one id with two lines of the same ids, for the customers of one id."""
    order, lines = uuid.uuid4(), [uuid.uuid4(), uuid.uuid4()]
    for handle in (arena.acme, arena.globex):
        text = arena.secret if handle.context.tenant_id == "globex" else "plain"
        await handle.data.create(Order(id=order, customer_id=arena.twin, number=9, total="1", memo=text))
        await handle.data.bulk_create([Line(id=id, order_id=order, text=text) for id in lines], atomic=True)
    return order


async def test_the_same_ids_live_in_two_tenants(arena: Arena) -> None:
    order = await _twins(arena)
    async with arena.unharmed():
        data = arena.acme.data
        await data.update(Order, order, memo="changed")
        await data.upsert(Order(id=order, customer_id=arena.twin, number=9, total="2"))
        await data.upsert(Customer(id=arena.twin, name="changed", email="changed"))
        assert (await data.get(Order, order)).total == 2
    assert (await arena.globex.data.get(Order, order)).memo == arena.secret


async def test_a_cascade_stops_at_the_tenant(arena: Arena) -> None:
    order = await _twins(arena)
    async with arena.unharmed():
        await arena.acme.data.delete(Order, order)
        assert await arena.acme.data.count(Line, {"order_id": order}) == 0
    assert await arena.globex.data.count(Line, {"order_id": order}) == 2


async def test_a_cascade_in_sql_of_ones_own_stops_at_the_tenant(arena: Arena) -> None:
    order = await _twins(arena)
    async with arena.unharmed():
        await arena.acme.data.sql("DELETE FROM orders")
    assert await arena.globex.data.count(Line, {"order_id": order}) == 2


async def test_what_another_tenant_refers_to_can_be_deleted(arena: Arena) -> None:
    """The order of globex refers to its own customer of that id; acme's own is free."""
    await arena.globex.data.create(Order(customer_id=arena.twin, number=9, total="1"))
    async with arena.unharmed():
        await arena.acme.data.delete(Customer, arena.twin)
        with pytest.raises(ReferenceViolation):
            await arena.acme.data.delete(Customer, arena.own)  # which one of its own orders does refer to
