"""A marked row is out of sight, and back when it is restored; what others decide meanwhile is kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from tenantry import Count, Model, MultiTenantSDK, Searchable, SoftDelete, Unique
from tenantry.data import DataManager
from tenantry.errors import InvalidRecord, NotFound, UniqueViolation
from tenantry.hooks import Operation
from tenantry.ports import Discard
from tenantry.schema import collection_of


class Order(SoftDelete, Model):
    __collection__ = "orders"

    number: Annotated[str, Unique, Searchable]


class Plain(Model):
    """Has a field of that name, and no soft deletion."""

    __collection__ = "plain"

    deleted_at: dt.datetime | None = None


@pytest.fixture(params=["memory", "sqlite"])
async def sdk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MultiTenantSDK]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/orders.db"
    async with MultiTenantSDK.open(url, models=[Order, Plain], schema="create", env={}) as sdk:
        await sdk.tenants.create("acme")
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> DataManager:
    return sdk.tenant("acme").data


async def test_no_read_finds_a_marked_row(acme: DataManager) -> None:
    live, gone = (await acme.bulk_create([Order(number="1"), Order(number="2")])).rows
    await acme.delete(gone)
    with pytest.raises(NotFound):
        await acme.get(Order, gone.id)
    assert list(await acme.read(Order)) == [live]
    assert await acme.count(Order) == 1
    assert await acme.aggregate(Order, {"n": Count()}) == [{"n": 1}]
    assert [order async for order in acme.stream(Order)] == [live]


async def test_a_search_finds_rows_that_live(acme: DataManager) -> None:
    order = await acme.create(Order(number="first order"))
    await acme.delete(order)
    new = await acme.create(Order(number="second order"))
    assert [hit.row.id for hit in await acme.search(Order, "order")] == [new.id]
    await acme.restore(Order, order.id)
    assert len(await acme.search(Order, "order")) == 2
    await acme.delete(Order, order.id)
    await acme.purge_deleted(Order, older_than=dt.timedelta())
    assert len(await acme.search(Order, "order")) == 1


async def test_a_marked_row_is_not_changed(acme: DataManager) -> None:
    order = await acme.create(Order(number="1"))
    await acme.delete(order)
    with pytest.raises(NotFound):
        await acme.update(Order, order.id, number="2")
    with pytest.raises(NotFound):
        await acme.delete(Order, order.id)
    with pytest.raises(InvalidRecord):
        await acme.update(Order, order.id, deleted_at=None)


async def test_an_upsert_meets_rows_that_live(acme: DataManager) -> None:
    order = await acme.create(Order(number="1"))
    await acme.delete(order)
    new = await acme.upsert(Order(number="1"), on=["number"])
    assert (new.version, new.id == order.id) == (1, False)
    with pytest.raises(UniqueViolation):
        await acme.upsert(Order(id=order.id, number="9"))
    (marked,) = await acme.read(Order, deleted="only")
    assert (marked.number, marked.version) == ("1", 2)


async def test_only_marked_rows_are_purged(sdk: MultiTenantSDK, acme: DataManager) -> None:
    restored, old, young = (await acme.bulk_create([Order(number=str(number)) for number in range(3)])).rows
    await acme.delete(old)
    before = dt.datetime.now(dt.UTC)
    await acme.delete(young)
    orders = collection_of(Order)
    # As if each had been found marked, and one was restored and one marked anew before its batch was deleted.
    write = Discard(orders, [restored.id, old.id, young.id], before)
    database: Any = sdk._database
    (gone,) = await database.execute(sdk.tenant("acme").context, [write])
    assert gone == [{"id": old.id}]
    assert [order.id for order in await acme.read(Order, deleted="with")] == [restored.id, young.id]


async def test_a_purged_tenant_leaves_no_marked_row(sdk: MultiTenantSDK, acme: DataManager) -> None:
    await acme.delete(await acme.create(Order(number="1")))
    await sdk.tenants.delete("acme", reason="gone")
    certificate = await sdk.tenants.purge("acme")
    assert (certificate.deleted["orders"], certificate.remaining["orders"]) == (1, 0)


async def test_a_field_of_that_name_alone_means_nothing(acme: DataManager) -> None:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    row = await acme.create(Plain(deleted_at=moment))
    assert await acme.get(Plain, row.id) == row
    assert (await acme.update(row, deleted_at=None)).deleted_at is None
    await acme.delete(Plain, row.id)
    assert await acme.count(Plain) == 0


async def test_hooks_hear_what_was_asked(sdk: MultiTenantSDK, acme: DataManager) -> None:
    heard: list[Operation] = []
    sdk.add_after_hook(heard.append)
    order = await acme.create(Order(number="1"))
    await acme.delete(order)
    await acme.restore(Order, order.id)
    await acme.delete(Order, order.id)
    await acme.purge_deleted(Order, older_than=dt.timedelta())
    told: list[tuple[Any, ...]] = [(item.verb, list(item.ids), item.rows) for item in heard]
    assert told == [
        ("create", [order.id], 1),
        ("delete", [order.id], 1),
        ("restore", [order.id], 1),
        ("delete", [order.id], 1),
        ("delete", [order.id], 1),
    ]
    assert heard[1].changes["deleted_at"] is not None
    assert heard[2].changes["deleted_at"] is None
