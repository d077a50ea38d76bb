"""Writes that carry a condition on the stored row, and each user's view of the rows of one tenant."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tenantry.aggregates import Count, Max
from tenantry.conditions import is_in
from tenantry.errors import AccessDenied, Conflict, FieldHidden, NotFound, TenantryError, UniqueViolation
from tenantry.filters import parse_where
from tenantry.ports import Delete, Update, Upsert, Write
from tenantry.query import Filter
from tenantry.schema import collection_of
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.security.access import AccessPolicy, Role, allow, allow_all, deny, hide
from tenantry.testing.conformance.filters import FOUND, ROWS
from tenantry.testing.conformance.setting import Setting
from tenantry.testing.models import Author, Book, Note, Sample
from tenantry.types import Record

SAMPLES = collection_of(Sample)

POLICY = AccessPolicy(
    Role("admin", allow_all(), allow("raw")),
    Role("reader", allow("read", Book, Author, fields=hide("price"))),
    Role(
        "writer",
        allow(["read", "update"], Book, where=lambda b, user: b.isbn == user.id),
        inherits=["reader"],
    ),
    Role(
        "clerk",
        allow(
            ["read", "create", "update", "delete"],
            Book,
            where=lambda b, user: is_in(b.copies, user.claims["few"]),
        ),
        allow("read", Author, where=lambda a, user: a.name == user.id),
        deny("read", Book, fields=["isbn"]),
    ),
)


class Access(Setting):
    """Conditions on the rows that a write finds, and an access policy over the whole database."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def guarded(cls, database_config: Mapping[str, Any]) -> AsyncIterator[MultiTenantSDK]:
        """Give an SDK with an access policy."""
        async with cls.open_database(database_config, access=POLICY) as sdk:
            yield sdk

    @pytest_asyncio.fixture(loop_scope="class")
    async def library(self, guarded: MultiTenantSDK) -> TenantHandle:
        """Give the admin of a tenant with four books of two authors."""
        tenant = (await self.new_tenant(guarded, "library")).context.tenant_id
        admin = guarded.tenant(tenant, user="root", claims={"roles": ["admin"]})
        authors = [await admin.data.create(Author(name=name)) for name in ("ann", "bob")]
        for number in range(4):
            book = Book(
                title=f"book {number}",
                isbn=f"u{number}",
                author_id=authors[number % 2].id,
                price=Decimal(number),
                copies=number,
            )
            await admin.data.create(book)
        return admin

    @staticmethod
    def user(admin: TenantHandle, id: str, *roles: str, **claims: Any) -> TenantHandle:
        """Return a handle of a user of the same tenant."""
        return admin._sdk.tenant(admin.context.tenant_id, user=id, claims={"roles": list(roles), **claims})

    # -- conditions of the port

    async def test_a_write_finds_the_rows_that_a_filter_finds(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        """Each condition, in each kind of write, on a row that meets it and on one that does not."""
        ids = {}
        for name, values in ROWS.items():
            ids[name] = (await acme.data.create("samples", values))["id"]
        for index, (where, found) in enumerate(FOUND):
            meets = [name for name in ROWS if name in found][:1]
            others = [name for name in ROWS if name not in found][:1]
            for name in (*meets, *others):
                stored = await self._stored(acme, ids[name])
                write = self._write(index, stored, where)
                refusal = UniqueViolation if isinstance(write, Upsert) else NotFound
                with pytest.raises(_Undone if name in meets else refusal):
                    await self._undone(sdk, acme, write)

    @staticmethod
    async def _undone(sdk: MultiTenantSDK, acme: TenantHandle, write: Write) -> None:
        assert sdk._database is not None
        async with sdk._database.transaction(acme.context) as unit:
            await unit.execute(acme.context, [write])
            raise _Undone

    @staticmethod
    async def _stored(acme: TenantHandle, id: Any) -> Record:
        return SAMPLES.to_record(await acme.data.get(Sample, id))

    @staticmethod
    def _write(index: int, stored: Record, where: dict[str, Any]) -> Write:
        condition = parse_where(SAMPLES, where)
        if index % 3 == 0:
            return Delete(SAMPLES, stored["id"], stored["version"] if index % 2 else None, condition)
        changes = {"ratio": 7.0, "updated_at": dt.datetime.now(dt.UTC)}
        if index % 3 == 1:
            return Update(SAMPLES, stored["id"], changes, stored["version"] if index % 2 else None, condition)
        return Upsert(SAMPLES, {**stored, **changes}, ("id",), tuple(changes), condition)

    async def test_a_version_is_told_of_a_row_within_only(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        await acme.data.create(Note(id="n", text="x"))
        notes = collection_of(Note)
        assert sdk._database is not None
        for where, error in (({"text": "x"}, Conflict), ({"text": "y"}, NotFound)):
            condition = parse_where(notes, where)
            for write in (Update(notes, "n", {"text": "z"}, 9, condition), Delete(notes, "n", 9, condition)):
                with pytest.raises(error):
                    await sdk._database.execute(acme.context, [write])
        assert (await acme.data.get(Note, "n")).text == "x"

    async def test_each_of_many_writes_keeps_its_condition(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        notes, database = collection_of(Note), sdk._database
        assert database is not None
        await acme.data.bulk_create([Note(id=str(n), text="ab"[n % 2]) for n in range(6)])
        moment = dt.datetime.now(dt.UTC)
        record = {"text": "c", "version": 1, "created_at": moment, "updated_at": moment}
        changes: Record = {"text": "c", "updated_at": moment}

        def each(make: Callable[[str], Write]) -> list[Write]:
            return [make(str(n)) for n in range(6)]

        def where(text: str) -> Filter:
            return parse_where(notes, {"text": text})

        for writes, refusal in (
            (each(lambda id: Update(notes, id, changes, None, where("a"))), NotFound),
            (
                each(lambda id: Upsert(notes, {"id": id, **record}, ("id",), tuple(changes), where("c"))),
                UniqueViolation,
            ),
            (each(lambda id: Delete(notes, id, None, where("c"))), NotFound),
        ):
            done = await database.execute_each(acme.context, writes, {})
            assert [not isinstance(outcome, TenantryError) for outcome in done] == [True, False] * 3
            assert all(isinstance(outcome, refusal) for outcome in done[1::2])
        assert [row["text"] for row in await acme.data.read("notes")] == ["b", "b", "b"]

    # -- a policy

    async def test_users_of_one_tenant_see_what_is_theirs(self, library: TenantHandle) -> None:
        writer, clerk = self.user(library, "u1", "writer"), self.user(library, "ann", "clerk", few=[0, 2])
        seen = {row["title"]: "price" in row for row in await writer.data.read("books")}
        assert seen == {"book 0": False, "book 1": True, "book 2": False, "book 3": False}
        assert [book.title for book in await writer.data.read(Book, order_by="price")] == ["book 1"]
        assert await writer.data.count(Book, lambda b: b.price >= 0) == 1
        assert await writer.data.count(Book) == 4
        page = await clerk.data.read(Book, order_by="-copies", limit=1, include=["author"])
        rest = await clerk.data.read(Book, order_by="-copies", limit=9, cursor=page.next_cursor)
        assert [book.copies for book in (*page, *rest)] == [2, 0]
        assert [author.name for author in page.included["author"].values()] == ["ann"]
        assert not hasattr(page[0], "isbn")
        figures = {"most": Max("copies"), "books": Count()}
        assert await clerk.data.aggregate(Book, figures) == [{"most": 2, "books": 2}]
        for wrong in (
            clerk.data.aggregate(Book, {"first": Max("isbn")}),
            clerk.data.aggregate(Book, figures, group_by=["isbn"]),
            clerk.data.aggregate(Book, figures, {"isbn": "u1"}),
            clerk.data.read(Book, {"isbn": "u1"}),
            clerk.data.read("books", order_by="isbn"),
            clerk.data.read("books", fields=["isbn"]),
            clerk.data.count(Book, lambda b: b.isbn == "u1"),
            clerk.data.exists(Book, {"isbn": "u1"}),
        ):
            with pytest.raises(FieldHidden):
                await wrong
        for nobody in (
            self.user(library, "x"),
            self.user(library, "x", "king"),
            self.user(library, "x", "clerk"),
        ):
            with pytest.raises(AccessDenied):
                await nobody.data.read(Book)

    async def test_two_users_in_one_tick_share_no_row(self, library: TenantHandle) -> None:
        books = await library.data.read(Book, order_by="copies")
        users = [self.user(library, "u", "clerk", few=[number]) for number in range(4)]
        found = await asyncio.gather(
            *(user.data.get("books", book.id) for user in users for book in books), return_exceptions=True
        )
        for number, row in enumerate(found):
            if number // 4 == number % 4:
                assert isinstance(row, dict)
                assert row["copies"] == number % 4
            else:
                assert isinstance(row, NotFound)

    @staticmethod
    async def _renamed_and_moved(clerk: TenantHandle, book: Book) -> None:
        async with clerk.data.transaction() as unit:
            await unit.update(Book, book.id, title="doomed")
            await unit.update(Book, book.id, copies=5)

    async def test_a_row_is_written_only_within_its_rules(self, library: TenantHandle) -> None:
        clerk = self.user(library, "u1", "clerk", few=[0, 1])
        mine, theirs = [(await library.data.read(Book, {"copies": number}))[0] for number in (1, 2)]
        assert (await clerk.data.update(Book, mine.id, copies=0)).copies == 0
        assert "isbn" not in await clerk.data.update("books", mine.id, {"title": "mine"}, version=2)
        for write, error in (
            (clerk.data.update(Book, theirs.id, title="x"), NotFound),
            (clerk.data.delete(Book, theirs.id), NotFound),
            (clerk.data.update(Book, mine.id, copies=5), AccessDenied),
            (clerk.data.create(Book(title="new", copies=5)), AccessDenied),
            (clerk.data.upsert("books", {"id": mine.id, "title": "x", "copies": 5}), AccessDenied),
            (clerk.data.upsert("books", {"id": theirs.id, "title": "x", "copies": 1}), UniqueViolation),
            (
                clerk.data.bulk_create("books", [{"title": "1"}, {"title": "2", "copies": 2}], atomic=True),
                AccessDenied,
            ),
        ):
            with pytest.raises(error):
                await write
        with pytest.raises(AccessDenied):
            await self._renamed_and_moved(clerk, mine)
        assert (await clerk.data.upsert("books", {"id": mine.id, "title": "up", "copies": 1}))["version"] == 4
        stored = {book.title: book.copies for book in await library.data.read(Book)}
        assert stored == {"book 0": 0, "up": 1, "book 2": 2, "book 3": 3}
        await clerk.data.delete(Book, mine.id)
        assert await library.data.count(Book) == 3


class _Undone(Exception):
    """Ends a transaction that is to be taken back."""
