"""Many rows at once: what came of each item, whatever the batches, and that a bad one takes no good one with it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest

from tenantry.errors import (
    BulkFailed,
    Conflict,
    InvalidQuery,
    InvalidRecord,
    NotFound,
    ReferenceViolation,
    TenantryError,
    TenantSuspended,
    TransactionFailed,
    UniqueViolation,
    Unsupported,
)
from tenantry.hooks import Operation
from tenantry.ports import Capability, Insert, Write
from tenantry.schema import collection_of
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, fresh, needs
from tenantry.testing.models import Author, Book, Colour, Folder, Mention, Note, Sample
from tenantry.types import BulkResult

_SIZES = (1, 2, 3, 100)
_MISSING = uuid.UUID(int=7)


def told(result: BulkResult[Any]) -> list[type[TenantryError] | None]:
    """Return for each item the type of its error."""
    assert [outcome.index for outcome in result] == list(range(len(result)))
    assert all(outcome.error is None or outcome.error.index == outcome.index for outcome in result)
    assert result.ok is all(outcome.ok for outcome in result)
    assert result.succeeded == len(result) - len(result.errors)
    return [None if outcome.error is None else type(outcome.error) for outcome in result]


def sample(number: int) -> Sample:
    """Return a row with a value of every kind, or none."""
    if number % 3 == 0:
        return Sample()
    return Sample(
        label=f"Ünïcode '{number}' 😀",
        number=-(2**63) + number,
        exact=Decimal(number).scaleb(-3),
        money=Decimal(number).scaleb(-2),
        ratio=number / 7,
        flag=number % 2 == 0,
        day=dt.date(2026, 1, number + 1),
        moment=dt.datetime(2026, 1, 1, 0, 0, 0, number, dt.UTC),
        token=uuid.UUID(int=number),
        blob=bytes([0, number]),
        colour=Colour.GREEN,
        data={"a": [1, None, {"b": number}]},
        labels=["a", "{}", '"', str(number)],
        numbers=[number, 2**62],
        exacts=[Decimal("1.50")],
        blobs=[b"", b"\xff"],
        tokens=[_MISSING],
    )


class Bulk(Setting):
    """The four calls that write many rows."""

    @pytest.mark.parametrize("size", _SIZES)
    async def test_created_items_are_judged_one_by_one(
        self, sdk: MultiTenantSDK, acme: TenantHandle, size: int
    ) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        taken = await acme.data.create(Book(title="taken", isbn="1"))
        again = Book(title="twice")
        items: list[Any] = [
            Book(title="first", isbn="2"),
            Book(title="of a row", isbn="1"),
            Book(title="of an item", isbn="2"),
            Book(title="of nobody", author_id=_MISSING),
            again,
            again,
            Book.model_construct(**Book(title="x").model_dump() | {"copies": 2**70}),
            Note(id="another collection"),
            Book(id=taken.id, title="id"),
            Book(title="last"),
        ]
        result: BulkResult[Book] = await acme.data.bulk_create(items, batch_size=size)
        refused = UniqueViolation
        expected = [None, refused, refused, ReferenceViolation, None, refused, InvalidRecord, InvalidRecord]
        assert told(result) == [*expected, refused, None]
        assert [row.title for row in result.rows] == ["first", "twice", "last"]
        assert {row.title for row in await acme.data.read(Book)} == {"first", "twice", "last", "taken"}
        errors = result.refused
        assert (errors[1].fields, errors[8].fields) == (("isbn",), ("id",))  # type: ignore[attr-defined]
        assert errors[6].field == "copies"  # type: ignore[attr-defined]
        assert str(errors[3]).startswith("Item 3: ")
        with pytest.raises(BulkFailed, match=r"7 of 10 items were refused. The first: Item 1: ") as failed:
            result.raise_for_errors()
        assert [error.index for error in failed.value.errors] == [1, 2, 3, 5, 6, 7, 8]

    @pytest.mark.parametrize("size", _SIZES)
    async def test_changed_and_deleted_items_are_judged_one_by_one(
        self, sdk: MultiTenantSDK, acme: TenantHandle, size: int
    ) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        made = (await acme.data.bulk_create(Book(title=f"{n}", isbn=f"{n}") for n in range(6))).rows
        author = await acme.data.create(Author(name="a"))
        changes: list[Any] = [
            (made[0].id, {"isbn": "1"}),  # which the next one frees too late
            (made[1].id, {"isbn": "x", "copies": 5}, 1),
            (made[2].id, {"isbn": "1"}, None),  # free by now
            (made[1].id, {"title": "one"}, 1),  # stale by now
            (_MISSING, {"title": "x"}),
            (made[3].id, {"author_id": _MISSING}),
            (made[3].id, {"author_id": author.id}),
            (made[4].id, {"id": _MISSING}),
            ("not a uuid", {}),
            {"id": made[4].id},
            (str(made[1].id), {"price": "2.5"}, 2),
        ]
        result = await acme.data.bulk_update(Book, changes, batch_size=size)
        expected = [UniqueViolation, None, None, Conflict, NotFound, ReferenceViolation, None, InvalidRecord]
        assert told(result) == [*expected, InvalidQuery, InvalidQuery, None]
        assert result.refused[3].current_version == 2  # type: ignore[attr-defined]
        assert [await acme.data.get(Book, row.id) for row in result.rows[2:]] == result.rows[2:]
        stored = await acme.data.get(Book, made[1].id)
        assert (stored.isbn, stored.copies, stored.price, stored.version) == ("x", 5, Decimal("2.50"), 3)
        assert await acme.data.get(Book, made[0].id) == made[0]
        stale = [row.model_copy(update={"title": f"new {row.title}"}) for row in made[3:]]
        result = await acme.data.bulk_update(stale, batch_size=size)
        assert told(result) == [Conflict, None, None]
        ids = [made[0].id, made[0].id, "no", author.id, _MISSING, made[1].id]
        assert told(await acme.data.bulk_delete(Book, ids, batch_size=size)) == [
            None,
            NotFound,
            InvalidQuery,
            NotFound,
            NotFound,
            None,
        ]
        gone = await acme.data.bulk_delete([made[2], *result.rows], batch_size=size)
        assert (told(gone), gone.rows) == ([Conflict, None, None], [])
        assert told(await acme.data.bulk_delete(Author, [author.id], batch_size=size)) == [ReferenceViolation]
        assert {row.id for row in await acme.data.read(Book)} == {made[2].id, made[3].id}

    @pytest.mark.parametrize("size", _SIZES)
    async def test_upserted_items_are_judged_one_by_one(self, acme: TenantHandle, size: int) -> None:
        kept = await acme.data.create(Book(title="kept", isbn="1", copies=3))
        records: list[Any] = [
            {"isbn": "1", "title": "new"},
            {"isbn": "2", "title": "two"},
            {"isbn": "2", "title": "two again", "copies": 9},
            {"isbn": None, "title": "none"},
            {"isbn": None, "title": "none"},
            {"isbn": "3", "title": "id", "id": kept.id},
            {"isbn": "4"},
            "no record",
        ]
        result = await acme.data.bulk_upsert("books", records, on=["isbn"], batch_size=size)
        assert told(result) == [None, None, None, None, None, UniqueViolation, InvalidRecord, InvalidRecord]
        rows = result.rows
        assert [(row["title"], row["copies"], row["version"]) for row in rows] == [
            ("new", 3, 2),
            ("two", 0, 1),
            ("two again", 9, 2),
            ("none", 0, 1),
            ("none", 0, 1),
        ]
        assert rows[0]["id"] == kept.id
        assert rows[1]["id"] == rows[2]["id"]
        assert await acme.data.count(Book) == 4
        with pytest.raises(InvalidQuery, match="unique"):
            await acme.data.bulk_upsert("books", records, on=["title"])

    async def test_items_come_one_after_the_other(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.FOREIGN_KEYS)
        forest = [(1, None), (3, 2), (2, 1), (4, 2), (5, 5), (7, 6)]
        folders = [Folder(id=id, parent_id=parent) for id, parent in forest]
        missing = ReferenceViolation
        assert told(await acme.data.bulk_create(folders)) == [None, missing, None, None, None, missing]
        again = [*folders, Folder(id=6)]
        assert told(await acme.data.bulk_upsert(again)) == [None, None, None, None, None, missing, None]
        gone = await acme.data.bulk_delete(
            Folder, [3, 2, 4, 1, 1, 6]
        )  # what goes with 2 is not there any more
        assert told(gone) == [None, None, NotFound, None, NotFound, None]
        assert [row.id for row in await acme.data.read(Folder)] == [5]
        books = (await acme.data.bulk_create(Book(title="x", isbn=f"{n}") for n in range(4))).rows
        shifted = [(book.id, {"isbn": f"{n + 1}"}) for n, book in enumerate(books)]
        assert told(await acme.data.bulk_update(Book, shifted)) == [UniqueViolation] * 3 + [None]
        result = await acme.data.bulk_update(Book, shifted[::-1])
        assert told(result) == [None] * 4
        assert [row.isbn for row in result.rows] == ["4", "3", "2", "1"]

    @pytest.mark.parametrize("size", [2, 100])
    async def test_atomic_is_all_or_none(self, acme: TenantHandle, size: int) -> None:
        row, other = (await acme.data.bulk_create([Note(id="a"), Note(id="b")], atomic=True)).rows
        new = [Note(id=f"{n}") for n in range(5)]
        options: dict[str, Any] = {"batch_size": size, "atomic": True}
        bad: list[Any] = [{"id": "x"}, {"id": "y", "text": 5}, {"id": "a"}]
        for index, expected, call in (
            (5, UniqueViolation, lambda: acme.data.bulk_create([*new, row], **options)),
            (1, InvalidRecord, lambda: acme.data.bulk_create(Note, bad, **options)),
            (1, InvalidRecord, lambda: acme.data.bulk_upsert(Note, bad, **options)),
            (1, NotFound, lambda: acme.data.bulk_update([other, new[0]], **options)),
            (2, NotFound, lambda: acme.data.bulk_delete(Note, ["a", "b", "c"], **options)),
        ):
            with pytest.raises(expected) as refused:
                await call()
            assert refused.value.index == index
            assert refused.value.partial is None
            assert list(await acme.data.read(Note, order_by="id")) == [row, other]
        assert (await acme.data.bulk_delete([row, other], **options)).ok

    async def test_in_a_transaction_a_refused_item_leaves_the_rest(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        async with acme.data.transaction() as unit:
            await unit.create(Note(id="a"))
            made = await unit.bulk_create([Note(id="b"), Note(id="a"), Note(id="c")], batch_size=2)
            assert told(made) == [None, UniqueViolation, None]
            changed = await unit.bulk_update(Note, [("x", {}), ("b", {"text": "new"})])
            assert told(changed) == [NotFound, None]
            assert told(await unit.bulk_delete(Note, ["x", "c"])) == [NotFound, None]
            with pytest.raises(Unsupported):
                await acme.data.bulk_create([Note(id="beside")])
        assert [(row.id, row.text) for row in await acme.data.read(Note, order_by="id")] == [
            ("a", ""),
            ("b", "new"),
        ]
        with pytest.raises(TransactionFailed):
            await self._swallowed(acme)
        assert await acme.data.count(Note) == 2

    @staticmethod
    async def _swallowed(acme: TenantHandle) -> None:
        async with acme.data.transaction() as unit:
            with pytest.raises(UniqueViolation):
                await unit.bulk_create([Note(id="d"), Note(id="a")], atomic=True)

    async def test_values_of_every_kind_travel_in_bulk(self, acme: TenantHandle) -> None:
        given = [sample(number) for number in range(12)]
        made = (await acme.data.bulk_create(given)).rows
        assert [row.model_dump(exclude={"version", "created_at", "updated_at"}) for row in made] == [
            row.model_dump(exclude={"version", "created_at", "updated_at"}) for row in given
        ]
        assert {row.id: row for row in await acme.data.read(Sample)} == {row.id: row for row in made}
        for row, other in zip(made, made[1:] + made[:1], strict=True):
            for name in set(Sample.model_fields) - {"id", "version", "created_at", "updated_at"}:
                setattr(row, name, getattr(other, name))
        for call in (acme.data.bulk_update, acme.data.bulk_upsert):
            result: BulkResult[Sample] = await call(made)
            for row, wanted in zip(result.raise_for_errors().rows, made, strict=True):
                untold = {"version", "updated_at", "created_at"}
                assert row.model_dump(exclude=untold) == wanted.model_dump(exclude=untold)
                assert await acme.data.get(Sample, row.id) == row

    async def test_what_a_hook_adds_shares_the_fate_of_its_item(
        self, database_config: Mapping[str, Any]
    ) -> None:
        async with self.open_database(database_config) as sdk:
            acme = await self.new_tenant(sdk, "acme")
            mentions, heard = collection_of(Mention), list[Operation]()

            def log(operation: Operation) -> list[Write]:
                (id,) = operation.ids
                if id == "forbidden":
                    raise (
                        Unsupported("Not that one.") if operation.verb == "delete" else NotFound("notes", id)
                    )
                return [Insert(mentions, [mentions.to_record(Mention(country=f"{operation.verb} {id}"))])]

            sdk.add_within_hook(log)
            sdk.add_after_hook(heard.append)
            made = await acme.data.bulk_create([Note(id=id) for id in ("a", "b", "a", "forbidden", "c")])
            assert told(made) == [None, None, UniqueViolation, NotFound, None]
            gone = await acme.data.bulk_delete(Note, ["b", "x", "a"])
            assert told(gone) == [None, NotFound, None]
            with pytest.raises(Unsupported):
                await acme.data.bulk_delete(Note, ["c", "forbidden"])
            assert [(o.verb, list(o.ids), o.rows, type(o.error)) for o in heard] == [
                ("create", ["a", "b", "c"], 3, type(None)),
                ("create", [], 0, UniqueViolation),
                ("delete", ["b", "a"], 2, type(None)),
                ("delete", [], 0, NotFound),
                ("delete", [], 0, Unsupported),
            ]
            logged = {row.country for row in await acme.data.read(Mention)}
            assert logged == {"create a", "create b", "create c", "delete b", "delete a"}

    async def test_items_are_taken_in_batches(self, acme: TenantHandle) -> None:
        asked: list[int] = []

        def items() -> Iterator[Note]:
            for number in range(100):
                asked.append(number)
                yield Note(id=f"{number}")

        async def later() -> AsyncIterator[Note]:
            for note in items():
                assert await acme.data.count(Note) >= len(asked) - 3 * 10
                yield note

        assert (await acme.data.bulk_create(later(), batch_size=10)).succeeded == 100
        assert (await acme.data.bulk_delete(items(), batch_size=7)).errors[0].index == 0
        assert (await acme.data.bulk_delete(Note, (f"{n}" for n in range(100)), batch_size=7)).ok
        assert (await acme.data.bulk_create([])).rows == (await acme.data.bulk_delete(Note, [])).rows == []
        for wrong in (0, -1, 10**9, True, "5"):
            with pytest.raises(InvalidQuery, match="batch_size"):
                await acme.data.bulk_create(items(), batch_size=wrong)  # type: ignore[arg-type]
        no_items: list[Any] = ["a", {"id": "a"}, None, 5, Note(id="a")]
        for none in no_items:
            with pytest.raises(InvalidRecord):
                await acme.data.bulk_create("notes", none)
        assert len(asked) == 200

    async def test_where_it_breaks_off_it_tells_what_is_stored(self, sdk: MultiTenantSDK) -> None:
        tenant = await sdk.tenants.create(fresh("acme"))
        handle = sdk.tenant(tenant.id)

        async def items() -> AsyncIterator[Note]:
            for number in range(50):
                if number == 25:
                    await sdk.tenants.suspend(tenant.id, reason="test")
                yield Note(id=f"{number:02}")

        with pytest.raises(TenantSuspended) as refused:
            await handle.data.bulk_create(items(), batch_size=10)
        partial = refused.value.partial
        assert partial is not None
        assert [outcome.row.id for outcome in partial] == [f"{number:02}" for number in range(20)]
        await sdk.tenants.resume(tenant.id)
        assert await handle.data.count(Note) == 20

    async def test_the_rows_of_others_are_not_there(self, acme: TenantHandle, globex: TenantHandle) -> None:
        theirs = (await globex.data.bulk_create(Book(title="theirs", isbn=f"{n}") for n in range(3))).rows
        ids = [book.id for book in theirs]
        assert told(await acme.data.bulk_update(theirs)) == [NotFound] * 3
        assert told(await acme.data.bulk_update(Book, [(id, {"title": "x"}) for id in ids])) == [NotFound] * 3
        assert told(await acme.data.bulk_delete(Book, ids)) == told(await acme.data.bulk_delete(theirs))
        ours = [Book(id=id, title="ours", isbn=f"{n}") for n, id in enumerate(ids)]
        for result in (await acme.data.bulk_upsert(ours), await acme.data.bulk_upsert(ours, on=["isbn"])):
            assert [row.title for row in result.raise_for_errors().rows] == ["ours"] * 3
        assert told(await acme.data.bulk_delete(Book, ids)) == [None] * 3
        assert list(await globex.data.read(Book, order_by="isbn")) == theirs
