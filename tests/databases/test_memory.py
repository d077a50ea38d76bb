"""The memory database: what makes it fit to be the model of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tenantry import MultiTenantSDK, TenantHandle
from tenantry.databases.memory import MemoryAdapter
from tenantry.errors import NotFound, ReferenceViolation, UniqueViolation
from tenantry.testing.models import MODELS, Author, Book, Country, Folder, Note, Review


@pytest.fixture
async def sdk() -> AsyncIterator[MultiTenantSDK]:
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        for name in ("acme", "globex"):
            await sdk.tenants.create(name)
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme")


async def test_each_sdk_has_a_database_of_its_own(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    await acme.data.create(Note(id="a"))
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as other:
        assert list(await other.tenants.list()) == []


async def test_tenants_are_kept_in_dicts_of_their_own(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    await acme.data.create(Note(id="a"))
    await sdk.tenant("globex").data.create(Note(id="a"))
    database = sdk._database
    assert isinstance(database, MemoryAdapter)
    assert {tenant for name, tenant in database._tables if name == "notes"} == {"acme", "globex"}
    assert database._tables["notes", "acme"] is not database._tables["notes", "globex"]


async def test_a_transaction_works_on_a_copy(acme: TenantHandle) -> None:
    """Readers see what was committed, as on every other database, and never a half."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with acme.data.transaction() as unit:
            await unit.create(Note(id="a"))
            inside.set()
            await go.wait()
            await unit.create(Note(id="b"))

    task = asyncio.create_task(write())
    await inside.wait()
    assert await acme.data.count(Note) == 0
    go.set()
    await task
    assert await acme.data.count(Note) == 2


async def test_writers_wait_for_one_another(acme: TenantHandle) -> None:
    await acme.data.create(Note(id="n", text="0"))

    async def add() -> None:
        async with acme.data.transaction() as unit:
            note = await unit.get(Note, "n")
            await asyncio.sleep(0)
            await unit.update(note, text=str(int(note.text) + 1))

    await asyncio.gather(*(add() for _ in range(20)))
    assert (await acme.data.get(Note, "n")).text == "20"


async def test_one_who_is_cancelled_while_waiting_leaves_the_turn_to_others(acme: TenantHandle) -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with acme.data.transaction():
            inside.set()
            await go.wait()

    holder = asyncio.create_task(hold())
    await inside.wait()
    waiting = [asyncio.create_task(acme.data.create(Note(id=id))) for id in "ab"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go.set()
    await asyncio.gather(holder, *waiting, return_exceptions=True)
    assert [row.id for row in await acme.data.read(Note)] == ["b"]


async def test_a_delete_that_is_refused_deletes_nothing_of_what_it_would_have_taken(
    sdk: MultiTenantSDK, acme: TenantHandle
) -> None:
    author = await acme.data.create(Author(name="a"))
    book = await acme.data.create(Book(title="b", author_id=author.id))
    await acme.data.bulk_create((Review(book_id=book.id) for _ in range(3)), atomic=True)
    await acme.data.bulk_create(
        [Folder(id=1), Folder(id=2, parent_id=1), Folder(id=3, parent_id=2)], atomic=True
    )
    with pytest.raises(ReferenceViolation):
        await acme.data.delete(author)
    assert (await acme.data.count(Book), await acme.data.count(Review)) == (1, 3)
    await acme.data.delete(Folder, 1)
    assert await acme.data.count(Folder) == 0


async def test_a_circle_of_cascades_ends(acme: TenantHandle) -> None:
    await acme.data.create(Folder(id=1))
    await acme.data.bulk_create([Folder(id=2, parent_id=1), Folder(id=3, parent_id=2)], atomic=True)
    await acme.data.update(Folder, 1, parent_id=3)
    await acme.data.delete(Folder, 2)
    assert await acme.data.count(Folder) == 0


async def test_a_shared_row_is_held_by_any_tenant(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    async with sdk.system(reason="test") as system:
        await system.data.create(Country(id="at", name="Austria"))
        await acme.data.create(Author(name="a", country_id="at"))
        with pytest.raises(ReferenceViolation):
            await system.data.delete(Country, "at")
        await acme.data.delete(Author, (await acme.data.read(Author))[0].id)
        await system.data.delete(Country, "at")


async def test_a_unit_that_fails_leaves_everything_as_it_was(acme: TenantHandle) -> None:
    await acme.data.create(Note(id="b"))
    before = list(await acme.data.read(Note))
    with pytest.raises(UniqueViolation):
        await acme.data.bulk_create([Note(id="a"), Note(id="b")], atomic=True)
    with pytest.raises(NotFound):
        await acme.data.get(Note, "a")
    assert list(await acme.data.read(Note)) == before
