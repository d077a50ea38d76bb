"""Unique values and references: held within a tenant, blind beyond it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest

from tenantry.errors import ReferenceViolation, UniqueViolation
from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, needs
from tenantry.testing.models import Author, Book, Country, Folder, Mention, Note, Review


class Constraints(Setting):
    """What a tenant's rows may not do, and that other tenants do not matter for it."""

    # -- unique

    async def test_a_unique_value_is_taken_once_in_a_tenant(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma", isbn="1"))
        other = await acme.data.create(Book(title="Persuasion", isbn="2"))
        for call in (
            acme.data.create(Book(title="Emma", isbn="1")),
            acme.data.bulk_create([Book(title="a", isbn="3"), Book(title="b", isbn="3")], atomic=True),
            acme.data.update(other, isbn="1"),
            acme.data.upsert(Book(title="new", isbn="1")),
        ):
            with pytest.raises(UniqueViolation) as taken:
                await call
            assert (taken.value.collection, taken.value.fields) == ("books", ("isbn",))
        assert await acme.data.get(Book, book.id) == book
        assert await acme.data.get(Book, other.id) == other
        assert await acme.data.count(Book) == 2

    async def test_unique_values_are_compared_to_the_letter(self, acme: TenantHandle) -> None:
        values = ["a", "A", "á", "a\u0301", "a ", " a", "", "ß", "ss", "1", "01"]
        await acme.data.bulk_create((Book(title="x", isbn=value) for value in values), atomic=True)
        assert await acme.data.count(Book) == len(values)

    async def test_nulls_are_never_equal(self, acme: TenantHandle) -> None:
        await acme.data.bulk_create((Book(title="x", isbn=None) for _ in range(3)), atomic=True)
        author = await acme.data.create(Author(name="a"))
        await acme.data.bulk_create((Book(title="y") for _ in range(2)), atomic=True)
        await acme.data.create(Book(title="y", author_id=author.id))
        assert await acme.data.count(Book) == 6

    async def test_fields_that_are_unique_together(self, acme: TenantHandle) -> None:
        one, two = (await acme.data.bulk_create([Author(name="one"), Author(name="two")], atomic=True)).rows
        await acme.data.create(Book(title="Emma", author_id=one.id))
        book = await acme.data.create(Book(title="Emma", author_id=two.id))
        with pytest.raises(UniqueViolation) as taken:
            await acme.data.update(book, author_id=one.id)
        assert set(taken.value.fields) == {"author_id", "title"}

    async def test_a_freed_value_may_be_taken(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma", isbn="1"))
        await acme.data.update(book, isbn="2")
        again = await acme.data.create(Book(title="Emma", isbn="1"))
        await acme.data.delete(again)
        await acme.data.create(Book(title="Emma", isbn="1"))

    async def test_of_many_creators_of_one_value_exactly_one_wins(self, acme: TenantHandle) -> None:
        outcomes = await asyncio.gather(
            *(acme.data.create(Book(title=f"{number}", isbn="1")) for number in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, Book) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, UniqueViolation) for outcome in outcomes) == 9

    async def test_other_tenants_may_have_the_same_ids_and_values(
        self, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        ours = await acme.data.create(Book(title="Emma", isbn="1"))
        theirs = await globex.data.create(Book(id=ours.id, title="Theirs", isbn="1"))
        assert (theirs.id, theirs.version) == (ours.id, 1)
        await acme.data.create(Note(id="n", text="ours"))
        await globex.data.upsert(Note(id="n", text="theirs"))
        assert (await acme.data.get(Note, "n")).text == "ours"
        await globex.data.update(theirs, title="Changed")
        assert await acme.data.get(Book, ours.id) == ours
        await globex.data.delete(Book, ours.id)
        assert await acme.data.get(Book, ours.id) == ours
        assert (await acme.data.upsert("books", {"title": "Emma II", "isbn": "1"}, on=["isbn"]))[
            "id"
        ] == ours.id

    # -- references

    async def test_a_reference_to_a_missing_row_is_refused(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        author = await acme.data.create(Author(name="a"))
        book = await acme.data.create(Book(title="Emma", author_id=author.id))
        missing = uuid.uuid4()
        for call in (
            acme.data.create(Book(title="x", author_id=missing)),
            acme.data.create(Author(name="b", country_id="atlantis")),
            acme.data.bulk_create([Book(title="y"), Book(title="x", author_id=missing)], atomic=True),
            acme.data.update(book, author_id=missing),
            acme.data.upsert(Book(title="x", author_id=missing)),
            acme.data.upsert(Book(id=book.id, title="x", author_id=missing)),
            acme.data.create(Folder(id=1, parent_id=2)),
        ):
            with pytest.raises(ReferenceViolation):
                await call
        assert await acme.data.get(Book, book.id) == book
        assert (await acme.data.count(Book), await acme.data.count(Folder)) == (1, 0)

    async def test_a_row_that_is_referred_to_stays(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        author = await acme.data.create(Author(name="a"))
        book = await acme.data.create(Book(title="Emma", author_id=author.id))
        with pytest.raises(ReferenceViolation):
            await acme.data.delete(author)
        assert await acme.data.get(Author, author.id) == author
        await acme.data.update(book, author_id=None)
        await acme.data.delete(author)

    async def test_a_cascade_takes_what_refers_and_no_more(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        book = await acme.data.create(Book(title="Emma"))
        other = await acme.data.create(Book(title="Persuasion"))
        await globex.data.create(Book(id=book.id, title="Theirs"))
        for handle in (acme, globex):
            await handle.data.bulk_create(
                (Review(book_id=book.id, stars=stars) for stars in range(3)), atomic=True
            )
        kept = await acme.data.create(Review(book_id=other.id))
        await acme.data.delete(book)
        assert [row.id for row in await acme.data.read(Review)] == [kept.id]
        assert await globex.data.count(Review) == 3

    async def test_a_cascade_goes_all_the_way(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        await acme.data.bulk_create(
            (Folder(id=id, parent_id=id - 1 or None) for id in range(1, 30)), atomic=True
        )
        await acme.data.create(Folder(id=99))
        await acme.data.delete(Folder, 10)
        assert {row.id for row in await acme.data.read(Folder)} == {*range(1, 10), 99}

    async def test_a_row_may_refer_to_itself(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        await acme.data.create(Folder(id=1, parent_id=1))
        await acme.data.delete(Folder, 1)
        assert await acme.data.count(Folder) == 0

    async def test_a_shared_row_that_a_tenant_refers_to_stays(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        async with sdk.system(reason="reference data") as system:
            await system.data.upsert(Country(id="it", name="Italy"))
            await acme.data.create(Author(name="Eco", country_id="it"))
            with pytest.raises(ReferenceViolation):
                await system.data.delete(Country, "it")
        assert (await acme.data.get(Country, "it")).name == "Italy"

    async def test_references_that_are_not_enforced_may_dangle(self, acme: TenantHandle) -> None:
        mention = await acme.data.create(Mention(book_id=uuid.uuid4(), country="atlantis"))
        book = await acme.data.create(Book(title="Emma"))
        await acme.data.update(mention, book_id=book.id)
        await acme.data.delete(book)
        assert (await acme.data.get(Mention, mention.id)).book_id == book.id

    async def test_another_tenants_row_cannot_be_told_from_a_missing_one(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        theirs = await globex.data.create(Author(name="theirs"))
        book = await acme.data.create(Book(title="Emma"))
        missing = uuid.uuid4()
        attempts: list[Callable[[uuid.UUID], Awaitable[object]]] = [
            lambda id: acme.data.create(Book(title="x", author_id=id)),
            lambda id: acme.data.update(book, author_id=id),
            lambda id: acme.data.upsert(Book(id=book.id, title="x", author_id=id)),
            lambda id: acme.data.bulk_create([Book(title="x", author_id=id)], atomic=True),
        ]
        for attempt in attempts:
            refusals = []
            for id in (theirs.id, missing):
                with pytest.raises(ReferenceViolation) as refused:
                    await attempt(id)
                refusals.append((str(refused.value), refused.value.collection, refused.value.field))
            assert refusals[0] == refusals[1]
        mention = await acme.data.create(Mention(book_id=theirs.id))
        assert (await acme.data.read(Mention, {"id": mention.id}, include=["book"])).included == {"book": {}}

    async def test_another_tenants_references_do_not_hold_a_row(
        self, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        author = await acme.data.create(Author(name="ours"))
        await globex.data.create(Author(id=author.id, name="theirs"))
        await globex.data.create(Book(title="Emma", author_id=author.id))
        await acme.data.delete(author)
        assert await globex.data.count(Book) == 1
        assert (await globex.data.get(Author, author.id)).name == "theirs"
