"""Creating, reading and changing rows: the operations of every day, and what they return."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from typing_extensions import TypedDict

from tenantry.errors import (
    Conflict,
    InvalidQuery,
    InvalidRecord,
    NotFound,
    ReadOnlyCollection,
    UniqueViolation,
    UnknownCollection,
)
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting
from tenantry.testing.models import Author, Book, Country, Folder, Mention, Note, Sample

_LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


class Title(pydantic.BaseModel):
    """A part of a book."""

    title: str
    copies: int


@dataclass
class Key:
    """What a dataclass inherits is read too."""

    id: uuid.UUID


@dataclass
class Named(Key):
    """A part of a book, with its id."""

    title: str


class Priced(TypedDict):
    """A part of a book as a typed dict."""

    title: str
    price: Decimal | None


class Rows(Setting):
    """One row at a time, and several."""

    # -- create

    async def test_a_new_row_is_version_one_and_made_now(self, acme: TenantHandle) -> None:
        given = Book(title="Emma", version=7, created_at=_LONG_AGO, updated_at=_LONG_AGO)
        before = dt.datetime.now(dt.UTC)
        book = await acme.data.create(given)
        assert (book.id, book.title, book.version) == (given.id, "Emma", 1)
        assert before <= book.created_at == book.updated_at <= dt.datetime.now(dt.UTC)
        assert type(book) is Book
        assert await acme.data.get(Book, book.id) == book

    async def test_a_record_is_stored_like_an_instance(self, acme: TenantHandle) -> None:
        record = await acme.data.create("books", {"title": "Emma", "price": "5", "author_id": None})
        assert set(record) == set(Book.model_fields)
        assert record["price"] == Decimal("5.00")
        assert (await acme.data.get(Book, record["id"])).model_dump() == record
        assert await acme.data.get("books", str(record["id"])) == record

    async def test_ids_of_each_type(self, acme: TenantHandle) -> None:
        for id in (0, -1, 2**63 - 1, -(2**63)):
            assert (await acme.data.create(Folder(id=id))).id == id
            assert (await acme.data.get(Folder, id)).id == id
        for text in ("", " ", "a:b", "Ünïcode/..%00", "😀" * 50, "'; --"):
            assert (await acme.data.create(Note(id=text))).id == text
            assert (await acme.data.get("notes", text))["id"] == text
        assert await acme.data.count(Folder) == 4
        assert await acme.data.count(Note) == 6

    async def test_an_id_is_taken_once(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma"))
        with pytest.raises(UniqueViolation) as taken:
            await acme.data.create(Book(id=book.id, title="Other"))
        assert (taken.value.collection, taken.value.fields) == ("books", ("id",))
        assert await acme.data.get(Book, book.id) == book

    async def test_a_record_cannot_name_the_tenant_or_unknown_fields(
        self, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        for extra in ({"tenant_id": globex.context.tenant_id}, {"colour": "red"}, {"": 1}):
            with pytest.raises(InvalidRecord):
                await acme.data.create("books", {"title": "Emma", **extra})
        with pytest.raises(InvalidRecord, match="title"):
            await acme.data.create("books", {})
        assert await acme.data.count(Book) == await globex.data.count(Book) == 0

    async def test_a_collection_that_is_not_registered_is_unknown(self, acme: TenantHandle) -> None:
        for name in (
            "",
            "nothing",
            "tenantry_tenants",
            "tenantry_audit",
            "tenantry_idempotency",
            "books; --",
            "BOOKS",
        ):
            with pytest.raises(UnknownCollection):
                await acme.data.read(name)
            with pytest.raises(UnknownCollection):
                await acme.data.create(name, {"id": "x"})

    async def test_many_at_once_are_stored_in_order(self, acme: TenantHandle) -> None:
        rows = (
            await acme.data.bulk_create((Book(title=f"{number}") for number in range(1_500)), atomic=True)
        ).rows
        assert [row.title for row in rows] == [f"{number}" for number in range(1_500)]
        assert {row.version for row in rows} == {1}
        assert await acme.data.count(Book) == 1_500
        assert (await acme.data.get(Book, rows[700].id)) == rows[700]
        assert (await acme.data.bulk_create("books", [], atomic=True)).rows == []

    async def test_many_at_once_are_all_or_none(self, acme: TenantHandle) -> None:
        good = [Book(title=f"{number}", isbn=f"{number}") for number in range(20)]
        with pytest.raises(UniqueViolation) as taken:
            await acme.data.bulk_create([*good, Book(title="again", isbn="7")], atomic=True)
        assert taken.value.fields == ("isbn",)
        with pytest.raises(InvalidRecord):
            await acme.data.bulk_create("books", [{"title": "fine"}, {"title": 5}], atomic=True)
        assert await acme.data.count(Book) == 0

    # -- get, count, exists

    async def test_what_is_not_there_is_not_found(self, acme: TenantHandle) -> None:
        missing = uuid.uuid4()
        for call in (
            acme.data.get(Book, missing),
            acme.data.update(Book, missing, title="x"),
            acme.data.update(Book, missing, {"title": "x"}, version=3),
            acme.data.delete(Book, missing),
            acme.data.delete(Book, missing, version=3),
            acme.data.delete(Book(id=missing, title="x")),
        ):
            with pytest.raises(NotFound) as absent:
                await call
            assert absent.value.collection == "books"
            assert str(absent.value.id) == str(missing)

    async def test_look_ups_that_arrive_together_each_get_their_own(self, acme: TenantHandle) -> None:
        rows = (
            await acme.data.bulk_create((Book(title=f"{number}") for number in range(30)), atomic=True)
        ).rows
        missing = uuid.uuid4()
        asked = [row.id for row in rows] * 2 + [missing]
        answers = await asyncio.gather(*(acme.data.get("books", id) for id in asked), return_exceptions=True)
        assert isinstance(answers[-1], NotFound)
        records = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert [record["title"] for record in records] == [row.title for row in rows] * 2
        assert len({id(record) for record in records}) == 60

    async def test_counting_and_existence(self, acme: TenantHandle) -> None:
        assert (await acme.data.count(Book), await acme.data.exists(Book)) == (0, False)
        await acme.data.bulk_create((Book(title="x", copies=number) for number in range(3)), atomic=True)
        assert await acme.data.count("books") == 3
        assert await acme.data.count(Book, lambda b: b.copies > 0) == 2
        assert await acme.data.exists(Book, {"copies": 2})
        assert not await acme.data.exists(Book, {"copies": 3})

    # -- update

    async def test_an_update_changes_what_is_named_and_nothing_else(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma", isbn="1", price=Decimal(5), copies=3))
        other = await acme.data.create(Book(title="Persuasion"))
        changed = await acme.data.update(book, price="6.50")
        assert changed.model_dump() == book.model_dump() | {
            "price": Decimal("6.50"),
            "version": 2,
            "updated_at": changed.updated_at,
        }
        assert changed.updated_at >= book.updated_at
        again = await acme.data.update(Book, book.id, {"isbn": None}, copies=0)
        assert (again.isbn, again.copies, again.price, again.version) == (None, 0, Decimal("6.50"), 3)
        assert (await acme.data.update("books", book.id))["version"] == 4
        assert await acme.data.get(Book, other.id) == other

    @pytest.mark.parametrize(
        "changes",
        [
            {"tenant_id": "other"},
            {"id": uuid.UUID(int=1)},
            {"version": 9},
            {"created_at": _LONG_AGO},
            {"updated_at": _LONG_AGO},
            {"nothing": 1},
            {"title": None},
            {"title": 5},
            {"price": "0.001"},
            {"copies": 2**63},
        ],
        ids=str,
    )
    async def test_an_update_that_must_not_be_is_refused(
        self, acme: TenantHandle, changes: dict[str, Any]
    ) -> None:
        book = await acme.data.create(Book(title="Emma"))
        with pytest.raises(InvalidRecord) as refused:
            await acme.data.update("books", book.id, changes)
        assert refused.value.field == next(iter(changes))
        assert await acme.data.get(Book, book.id) == book

    async def test_a_stale_version_conflicts_and_carries_the_current_one(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma"))
        await acme.data.update(book, copies=1)
        newest = await acme.data.update(Book, book.id, copies=2)
        for call in (
            acme.data.update(book, copies=9),
            acme.data.update(Book, book.id, {"copies": 9}, version=1),
            acme.data.delete(book),
            acme.data.delete("books", book.id, version=2),
        ):
            with pytest.raises(Conflict) as stale:
                await call
            assert (stale.value.current_version, stale.value.collection) == (3, "books")
            assert stale.value.expected_version in (1, 2)
        assert await acme.data.get(Book, book.id) == newest

    @pytest.mark.parametrize("version", ["1", 1.0, True, 2**70, -(2**70)], ids=repr)
    async def test_a_version_is_a_whole_number(self, acme: TenantHandle, version: Any) -> None:
        book = await acme.data.create(Book(title="Emma"))
        with pytest.raises(InvalidQuery) as refused:
            await acme.data.update(Book, book.id, {"copies": 1}, version=version)
        assert refused.value.path == "version"
        with pytest.raises(InvalidQuery):
            await acme.data.delete(Book, book.id, version=version)
        assert await acme.data.get(Book, book.id) == book

    @pytest.mark.parametrize("racers", [2, 16])
    async def test_of_many_racers_on_one_version_exactly_one_wins(
        self, acme: TenantHandle, racers: int
    ) -> None:
        book = await acme.data.create(Book(title="Emma"))
        outcomes = await asyncio.gather(
            *(acme.data.update(book, copies=number) for number in range(racers)), return_exceptions=True
        )
        winners = [outcome for outcome in outcomes if isinstance(outcome, Book)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert (len(winners), len(losers)) == (1, racers - 1), outcomes
        assert {loser.current_version for loser in losers} == {2}
        assert await acme.data.get(Book, book.id) == winners[0]

    async def test_without_a_version_every_writer_counts(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma"))
        rows = await asyncio.gather(*(acme.data.update(Book, book.id, copies=number) for number in range(12)))
        assert sorted(row.version for row in rows) == list(range(2, 14))

    # -- upsert

    async def test_an_upsert_inserts_then_changes_what_was_given(self, acme: TenantHandle) -> None:
        first = await acme.data.upsert(Book(title="Emma", isbn="1", copies=3))
        assert first.version == 1
        second = await acme.data.upsert("books", {"title": "Emma II", "isbn": "1"}, on=["isbn"])
        assert second["id"] == first.id
        assert (second["title"], second["copies"], second["version"]) == ("Emma II", 3, 2)
        assert second["created_at"] == first.created_at
        third = await acme.data.upsert(Book(id=first.id, title="Emma III"))
        assert (third.title, third.isbn, third.copies, third.version) == ("Emma III", "1", 3, 3)
        assert await acme.data.count(Book) == 1

    async def test_an_upsert_of_a_row_that_was_read_changes_that_row(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma", isbn="1"))
        again = await acme.data.upsert(book.model_copy(update={"title": "Emma II"}), on=["isbn"])
        assert (again.id, again.title, again.version) == (book.id, "Emma II", 2)

    async def test_an_upsert_on_a_group_of_fields(self, acme: TenantHandle) -> None:
        author = await acme.data.create(Author(name="Austen"))
        one = await acme.data.upsert(
            Book(title="Emma", author_id=author.id, copies=1), on=["author_id", "title"]
        )
        two = await acme.data.upsert(
            Book(title="Emma", author_id=author.id, copies=2), on=["author_id", "title"]
        )
        assert (one.id, two.version, two.copies) == (two.id, 2, 2)

    async def test_an_upsert_on_a_null_always_inserts(self, acme: TenantHandle) -> None:
        for _ in range(2):
            assert (await acme.data.upsert(Book(title="Emma"), on=["isbn"])).version == 1
        assert await acme.data.count(Book) == 2

    async def test_an_upsert_trips_over_other_unique_values(self, acme: TenantHandle) -> None:
        await acme.data.create(Book(title="Emma", isbn="1"))
        other = await acme.data.create(Book(title="Persuasion", isbn="2"))
        with pytest.raises(UniqueViolation):
            await acme.data.upsert(Book(id=other.id, title="Persuasion", isbn="1"))
        assert await acme.data.get(Book, other.id) == other

    @pytest.mark.parametrize("on", [["title"], [], ["isbn", "title"], ["tenant_id"], ["id", "isbn"]], ids=str)
    async def test_an_upsert_needs_a_unique_group(self, acme: TenantHandle, on: Sequence[str]) -> None:
        with pytest.raises(InvalidQuery) as refused:
            await acme.data.upsert(Book(title="Emma", isbn="1"), on=on)
        assert refused.value.path == "on"

    async def test_of_many_upserts_at_once_one_inserts(self, acme: TenantHandle) -> None:
        rows = await asyncio.gather(
            *(acme.data.upsert(Book(title=f"{number}", isbn="1"), on=["isbn"]) for number in range(8))
        )
        assert len({row.id for row in rows}) == 1
        assert sorted(row.version for row in rows) == list(range(1, 9))

    # -- delete

    async def test_a_deleted_row_is_gone_and_its_id_is_free(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma", isbn="1"))
        other = await acme.data.create(Book(title="Persuasion"))
        await acme.data.delete(book)
        for call in (
            acme.data.get(Book, book.id),
            acme.data.update(book, copies=1),
            acme.data.delete(Book, book.id),
        ):
            with pytest.raises(NotFound):
                await call
        assert [row.id for row in await acme.data.read(Book)] == [other.id]
        assert (await acme.data.create(Book(id=book.id, title="Emma", isbn="1"))).version == 1
        await acme.data.delete("books", str(book.id), version=1)
        await acme.data.delete(Book, other.id)
        assert await acme.data.count(Book) == 0

    # -- what a read returns

    async def test_fields_returns_those_and_no_others(self, acme: TenantHandle) -> None:
        await acme.data.bulk_create(
            (Book(title=title, copies=copies) for title, copies in (("b", 1), ("a", 2))), atomic=True
        )
        page = await acme.data.read(Book, fields=["copies", "title"], order_by="-copies")
        assert list(page) == [{"copies": 2, "title": "a"}, {"copies": 1, "title": "b"}]
        assert [list(row) for row in page] == [["copies", "title"]] * 2
        assert list(await acme.data.read("books", fields=["title"], order_by="copies")) == [
            {"title": "b"},
            {"title": "a"},
        ]

    async def test_into_returns_instances_of_the_class(self, acme: TenantHandle) -> None:
        book = await acme.data.create(Book(title="Emma", price=Decimal(5), copies=2))
        assert list(await acme.data.read(Book, into=Title)) == [Title(title="Emma", copies=2)]
        assert list(await acme.data.read("books", into=Named)) == [Named(id=book.id, title="Emma")]
        assert list(await acme.data.read("books", into=Priced)) == [
            {"title": "Emma", "price": Decimal("5.00")}
        ]

    async def test_distinct_returns_equal_rows_once(self, acme: TenantHandle, globex: TenantHandle) -> None:
        for handle in (acme, globex):
            await handle.data.bulk_create(
                (
                    Sample(label=label, number=number)
                    for label, number in [
                        ("a", 1),
                        ("a", 1),
                        ("a", None),
                        ("b", 1),
                        (None, None),
                        (None, None),
                        ("a", 2),
                    ]
                ),
                atomic=True,
            )
        page = await acme.data.read(Sample, fields=["label"], distinct=True)
        assert [row["label"] for row in page] == ["a", "b", None]
        page = await acme.data.read(Sample, fields=["label", "number"], distinct=True, order_by="-label")
        assert [tuple(row.values()) for row in page] == [
            (None, None),
            ("b", 1),
            ("a", 1),
            ("a", 2),
            ("a", None),
        ]
        pages: list[Any] = []
        cursor = None
        while len(pages) < 9:
            page = await acme.data.read(
                Sample, fields=["label", "number"], distinct=True, order_by="-label", limit=1, cursor=cursor
            )
            pages += list(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert [tuple(row.values()) for row in pages] == [
            (None, None),
            ("b", 1),
            ("a", 1),
            ("a", 2),
            ("a", None),
        ]

    @pytest.mark.parametrize(
        "more",
        [
            {"distinct": True},
            {"distinct": True, "fields": ["data"]},
            {"distinct": True, "fields": ["labels"]},
            {"distinct": True, "fields": ["label"], "order_by": "number"},
            {"fields": []},
            {"fields": ["label", "label"]},
            {"fields": ["tenant_id"]},
            {"fields": "label"},
            {"fields": 5},
            {"fields": ["label"], "into": Title},
            {"into": int},
            {"into": 5},
            {"into": list[int]},
            {"include": ["label"]},
            {"include": [None]},
            {"include": "label"},
            {"include": 5},
            {"order_by": "tenant_id"},
            {"order_by": "--label"},
            {"order_by": ["label", "-label"]},
            {"order_by": "data"},
            {"order_by": ["labels"]},
            {"order_by": 5},
            {"order_by": [5]},
            {"limit": 0},
            {"limit": -1},
            {"limit": 10_001},
            {"limit": True},
            {"limit": 1.0},
            {"limit": "5"},
            {"cursor": ""},
            {"cursor": "x" * 100_000_000},
            {"cursor": 5},
        ],
        ids=lambda more: str(more)[:60],
    )
    async def test_a_wrong_read_says_where(self, acme: TenantHandle, more: dict[str, Any]) -> None:
        with pytest.raises(InvalidQuery) as refused:
            await acme.data.read("samples", **more)
        assert refused.value.path.split("[")[0] in more

    # -- include

    async def test_include_brings_the_rows_referred_to(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        async with sdk.system(reason="reference data") as system:
            await system.data.upsert(Country(id="at", name="Austria"))
        author = await acme.data.create(Author(name="Bachmann", country_id="at"))
        await acme.data.bulk_create(
            [
                Book(title="Malina", author_id=author.id),
                Book(title="Simultan", author_id=author.id),
                Book(title="?"),
            ],
            atomic=True,
        )
        books = await acme.data.read(Book, include=["author"], order_by="title")
        assert dict(books.included) == {"author": {author.id: author}}
        authors = await acme.data.read("authors", include=["country"])
        assert authors.included["country"]["at"]["name"] == "Austria"
        assert (await acme.data.read(Book, {"title": "?"}, include=["author"])).included == {"author": {}}
        narrow = await acme.data.read(Book, fields=["title"], include=["author"], order_by="title")
        assert narrow[1] == {"title": "Malina"}
        assert set(narrow.included["author"]) == {author.id}

    async def test_include_of_a_missing_row_brings_nothing(self, acme: TenantHandle) -> None:
        await acme.data.create(Mention(book_id=uuid.uuid4(), country="atlantis"))
        page = await acme.data.read(Mention, include=["book", "land"])
        assert dict(page.included) == {"book": {}, "land": {}}

    # -- shared reference data

    async def test_tenants_read_shared_rows_and_cannot_write_them(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        async with sdk.system(reason="reference data") as system:
            stored = await system.data.upsert(Country(id="fr", name="France"))
        for handle in (acme, globex):
            assert await handle.data.get(Country, "fr") == stored
            assert [row.id for row in await handle.data.read(Country, {"id": "fr"})] == ["fr"]
            for call in (
                handle.data.create(Country(id="xx", name="")),
                handle.data.bulk_create([Country(id="xx", name="")], atomic=True),
                handle.data.update(stored, name=""),
                handle.data.update("countries", "xx", name=""),
                handle.data.upsert(Country(id="fr", name="")),
                handle.data.delete(stored),
            ):
                with pytest.raises(ReadOnlyCollection):
                    await call
        assert await acme.data.get(Country, "fr") == stored
