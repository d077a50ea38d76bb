"""Sessions of SQLAlchemy: whatever the ORM emits, a tenant gets what it would get in a database of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased, joinedload, selectinload, subqueryload
from sqlalchemy.orm.exc import StaleDataError

from tenantry.context import use_context
from tenantry.errors import (
    ConfigurationError,
    ContextMismatch,
    TenantNotFound,
    TenantSuspended,
    Unsupported,
)
from tenantry.sdk import MultiTenantSDK
from tests.orm.conftest import ANN, ATLAS, BIBLE, BOB, WAR, Library
from tests.orm.models import MODELS, TABLES, Author, Book, BookTag, Language, Review, Tag

Call = Callable[[AsyncSession], Awaitable[Any]]

_other = aliased(Book)


def _rows(statement: Any) -> Call:
    async def call(session: AsyncSession) -> Any:
        return [tuple(row) for row in (await session.execute(statement)).unique().all()]

    return call


def _tree(load: Any) -> Call:
    """Read authors with all that hangs on them, loaded as ``load`` says."""

    async def call(session: AsyncSession) -> Any:
        books = load(Author.books).options(load(Book.tags), load(Book.reviews))
        statement = sa.select(Author).options(books, load(Author.pupils)).order_by(Author.name)
        return [
            (
                author.name,
                [pupil.name for pupil in author.pupils],
                [(book.title, [tag.word for tag in book.tags], len(book.reviews)) for book in author.books],
            )
            for author in (await session.scalars(statement)).unique().all()
        ]

    return call


async def _lazy(session: AsyncSession) -> Any:
    ann = await session.get_one(Author, ANN)
    return await session.run_sync(
        lambda _: [(book.title, [tag.word for tag in book.tags]) for book in ann.books]
    )


async def _streamed(session: AsyncSession) -> Any:
    rows = await session.stream_scalars(
        sa.select(Book.title).order_by(Book.title).execution_options(yield_per=1)
    )
    return [title async for title in rows]


async def _from_text(session: AsyncSession) -> Any:
    statement = sa.select(Book).from_statement(sa.text("SELECT * FROM books WHERE true OR id IS NULL"))
    return sorted(book.title for book in (await session.scalars(statement)).all())


async def _core(session: AsyncSession) -> Any:
    connection = await session.connection()
    return [
        tuple(row) for row in await connection.execute(sa.select(Book.__table__.c.title).order_by("title"))
    ]


async def _raw_driver(session: AsyncSession) -> Any:
    raw = await (await session.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    return [tuple(row) for row in await raw.driver_connection.fetch("SELECT title FROM books ORDER BY 1")]


READINGS: dict[str, Call] = {
    "select": _rows(sa.select(Author.name).order_by(Author.name)),
    "selectin": _tree(selectinload),
    "joined": _tree(joinedload),
    "subquery load": _tree(subqueryload),
    "lazy": _lazy,
    "join": _rows(sa.select(Author.name, Book.title).join(Author.books).order_by(Book.title)),
    "cross join": _rows(
        sa.select(Author.name, Book.title).join(Book, sa.true()).order_by(Author.name, Book.title)
    ),
    "subquery in from": _rows(sa.select(sa.func.count()).select_from(sa.select(Book.id).subquery())),
    "scalar subquery": _rows(sa.select(sa.select(sa.func.count(Book.id)).scalar_subquery())),
    "exists": _rows(sa.select(Author.name).where(Author.books.any(Book.title.contains("globex")))),
    "in a subquery": _rows(sa.select(Tag.word).where(Tag.id.in_(sa.select(BookTag.tag_id)))),
    "union": _rows(sa.union_all(sa.select(Book.title), sa.select(Tag.word)).order_by(sa.text("1"))),
    "cte": _rows(sa.select(sa.select(Book.title).cte("found").c.title).order_by(sa.text("1"))),
    "window": _rows(sa.select(Book.title, sa.func.count().over()).order_by(Book.title)),
    "aggregate": _rows(sa.select(sa.func.count(), sa.func.min(Book.title), sa.func.max(Book.title))),
    "self join": _rows(
        sa.select(Book.title, _other.title)
        .where(Book.author_id == _other.author_id)
        .order_by(Book.title, _other.title)
    ),
    "column property": _rows(sa.select(Author.name, Author.everybody).order_by(Author.name)),  # type: ignore[attr-defined]
    "for update": _rows(sa.select(Book.title).order_by(Book.title).with_for_update()),
    "stream": _streamed,
    "text": _rows(sa.text("SELECT title FROM books ORDER BY title")),
    "text with or": _rows(sa.text("SELECT name FROM authors WHERE tenant_id = 'globex' OR true ORDER BY 1")),
    "orm from text": _from_text,
    "core": _core,
    "raw driver": _raw_driver,
    "shared": _rows(sa.select(Language.name)),
}


async def _outcomes(library: Library, calls: Mapping[str, Call]) -> dict[str, Any]:
    """Return what comes of each call in a session of acme's own, which is rolled back."""
    outcomes = {}
    for name, call in calls.items():
        async with library.sdk.tenant("acme").session() as session:
            outcomes[name] = await call(session)
    return outcomes


async def _remove_globex(library: Library) -> None:
    for table in reversed(TABLES):
        await library.judge.execute(f"DELETE FROM {table} WHERE tenant_id = 'globex'")


async def test_a_tenant_reads_what_it_would_read_alone(library: Library) -> None:
    beside = await _outcomes(library, READINGS)
    await _remove_globex(library)
    assert beside == await _outcomes(library, READINGS)
    assert "globex" not in repr(beside)
    assert [name for name, found in beside.items() if not found] == ["exists"]


def _statement(text: Any) -> Call:
    async def call(session: AsyncSession) -> Any:
        found: Any = await session.execute(text)
        return found.rowcount

    return call


async def _change(session: AsyncSession) -> Any:
    atlas = await session.get_one(Book, ATLAS)
    atlas.title, atlas.price = "changed", Decimal("1.00")
    await session.flush()
    return atlas.version


async def _cascade(session: AsyncSession) -> Any:
    await session.delete(
        await session.get_one(Author, ANN, options=[selectinload(Author.books), selectinload(Author.pupils)])
    )
    await session.flush()
    return (await session.scalar(sa.select(sa.func.count(Book.id)))), (
        await session.get_one(Author, BOB)
    ).mentor_id


async def _link(session: AsyncSession) -> Any:
    war = await session.get_one(Book, WAR, options=[selectinload(Book.tags)])
    war.tags.extend((await session.scalars(sa.select(Tag))).all())
    await session.flush()
    return await session.scalar(sa.select(sa.func.count(BookTag.id)))


async def _unlink(session: AsyncSession) -> Any:
    atlas = await session.get_one(Book, ATLAS, options=[selectinload(Book.tags)])
    atlas.tags.clear()
    await session.flush()
    return await session.scalar(sa.select(sa.func.count(BookTag.id)))


async def _bulk(session: AsyncSession) -> Any:
    rows = [{"title": f"new {number}", "author_id": ANN} for number in range(50)]
    made = await session.scalars(sa.insert(Book).returning(Book.version), rows)
    return sum(made.all())


async def _bulk_by_key(session: AsyncSession) -> Any:
    changes = [{"id": ATLAS, "version": 1, "title": "a"}, {"id": WAR, "version": 1, "title": "w"}]
    await session.execute(sa.update(Book), changes)
    return sorted((await session.scalars(sa.select(Book.title))).all())


async def _merge(session: AsyncSession) -> Any:
    merged = await session.merge(Author(id=BOB, name="merged"))
    await session.flush()
    return merged.name, merged.version


async def _savepoint(session: AsyncSession) -> Any:
    point = await session.begin_nested()
    session.add(Tag(word="acme maps"))
    with pytest.raises(IntegrityError):
        await session.flush()
    await point.rollback()
    session.add(Tag(word="after the savepoint"))
    await session.flush()
    return sorted((await session.scalars(sa.select(Tag.word))).all())


WRITES: dict[str, Call] = {
    "unit of work": _change,
    "cascade": _cascade,
    "link": _link,
    "unlink": _unlink,
    "bulk insert": _bulk,
    "bulk update by key": _bulk_by_key,
    "merge": _merge,
    "savepoint": _savepoint,
    "update all": _statement(sa.update(Book).values(copies=7)),
    "update where": _statement(sa.update(Author).where(Author.id == ANN).values(name="x")),
    "update from": _statement(sa.update(Book).where(Book.author_id == Author.id).values(copies=9)),
    "delete all": _statement(sa.delete(Review)),
    "delete in": _statement(sa.delete(Book).where(Book.id.in_(sa.select(Book.id)))),
    "upsert": _statement(
        upsert(Tag)
        .values(id=uuid.UUID(int=5), word="acme maps")
        .on_conflict_do_update(index_elements=["tenant_id", "word"], set_={"word": "renamed"})
    ),
    "text": _statement(
        sa.text("UPDATE books SET title = 'x' || id::text WHERE tenant_id = 'globex' OR true")
    ),
    "insert from select": _statement(
        sa.text("INSERT INTO tags (id, word) SELECT gen_random_uuid(), 'copy of ' || title FROM books")
    ),
}


async def test_a_tenant_writes_what_it_would_write_alone(library: Library) -> None:
    theirs = await library.print_of("globex")
    beside = await _outcomes(library, WRITES)
    assert await library.print_of("globex") == theirs
    await _remove_globex(library)
    assert beside == await _outcomes(library, WRITES)
    assert all(beside.values())


async def test_what_a_tenant_commits_reaches_no_other(library: Library) -> None:
    theirs = await library.print_of("globex")
    for call in (_change, _link, _bulk, WRITES["update all"], WRITES["text"], WRITES["delete in"]):
        async with library.sdk.tenant("acme").session() as session:
            await call(session)
            await session.commit()
        assert await library.print_of("globex") == theirs


class TestForeignRows:
    """Rows of globex, aimed at by their ids, from acme's session."""

    FOREIGN = uuid.UUID(int=99)

    async def plant(self, library: Library) -> None:
        async with library.sdk.tenant("globex").session() as session:
            session.add(Author(id=self.FOREIGN, name="secret", email="secret@example.com"))
            await session.commit()

    async def test_are_not_found(self, library: Library) -> None:
        await self.plant(library)
        async with library.sdk.tenant("acme").session() as session:
            assert await session.get(Author, self.FOREIGN) is None
            for statement in (sa.update(Author).values(name="x"), sa.delete(Author)):
                found: Any = await session.execute(statement.where(Author.id == self.FOREIGN))
                assert found.rowcount == 0

    async def test_cannot_be_referred_to_and_do_not_show_that_they_exist(self, library: Library) -> None:
        await self.plant(library)
        messages = []
        for id in (self.FOREIGN, uuid.UUID(int=98)):
            async with library.sdk.tenant("acme").session() as session:
                session.add(Book(id=uuid.UUID(int=1), title="t", author_id=id))
                with pytest.raises(IntegrityError) as caught:
                    await session.commit()
                messages.append(str(caught.value.orig).replace(str(id), "ID"))
        assert messages[0] == messages[1]

    async def test_do_not_take_ids_or_unique_values(self, library: Library) -> None:
        await self.plant(library)
        async with library.sdk.tenant("acme").session() as session:
            session.add(Author(id=self.FOREIGN, name="mine", email="secret@example.com"))
            await session.commit()

    async def test_a_detached_one_cannot_be_written_back_elsewhere(self, library: Library) -> None:
        await self.plant(library)
        async with library.sdk.tenant("globex").session(expire_on_commit=False) as session:
            author = await session.get_one(Author, self.FOREIGN)
        before = await library.print_of("globex")
        async with library.sdk.tenant("acme").session() as session:
            session.add(author)
            author.name = "taken over"
            with pytest.raises(StaleDataError):
                await session.commit()
        assert await library.print_of("globex") == before

    @pytest.mark.parametrize("tenant_id", ["globex", "", "acme' OR '1'='1", None])
    async def test_cannot_be_made(self, library: Library, tenant_id: str | None) -> None:
        before = await library.print_of("globex")
        text = sa.text("INSERT INTO tags (tenant_id, id, word) VALUES (:tenant, gen_random_uuid(), 'x')")
        async with library.sdk.tenant("acme").session() as session:
            with pytest.raises(DBAPIError):
                await session.execute(text, {"tenant": tenant_id})
        async with library.sdk.tenant("acme").session() as session:
            with pytest.raises(DBAPIError):
                await session.execute(sa.text("UPDATE tags SET tenant_id = 'globex'"))
        assert await library.print_of("globex") == before


class TestTransactions:
    async def test_a_commit_in_the_middle_keeps_the_tenant(self, library: Library) -> None:
        async with library.sdk.tenant("acme").session() as session:
            ann = await session.get_one(Author, ANN)
            ann.name = "acme Anna"
            await session.commit()
            assert await session.run_sync(lambda _: [book.title for book in ann.books]) == [
                "acme atlas",
                "acme bible",
            ]
            await session.rollback()
            assert await session.scalar(sa.select(sa.func.count(Book.id))) == 3

    async def test_an_error_in_the_middle_keeps_the_tenant(self, library: Library) -> None:
        async with library.sdk.tenant("acme").session() as session:
            with pytest.raises(ProgrammingError):
                await session.execute(sa.text("SELECT * FROM nowhere"))
            await session.rollback()
            assert await session.scalar(sa.select(sa.func.count(Book.id))) == 3

    async def test_a_row_changed_meanwhile_is_a_conflict(self, library: Library) -> None:
        acme = library.sdk.tenant("acme")
        async with acme.session() as session:
            ann = await session.get_one(Author, ANN)
            await acme.data.update("authors", ANN, {"name": "changed by data"})
            ann.name = "changed by the session"
            with pytest.raises(StaleDataError):
                await session.commit()

    async def test_versions_and_times_are_those_of_data(self, library: Library) -> None:
        acme = library.sdk.tenant("acme")
        async with acme.session(expire_on_commit=False) as session:
            ann = await session.get_one(Author, ANN)
            assert ann.version == 1
            ann.name = "changed"
            await session.commit()
            record = await acme.data.get("authors", ANN)
            assert (record["version"], record["name"]) == (2, "changed")
            assert (ann.version, ann.updated_at) == (2, record["updated_at"])
            assert record["updated_at"] > record["created_at"]

    async def test_one_that_commits_by_itself_is_refused(self, library: Library) -> None:
        async with library.sdk.tenant("acme").session() as session:
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                _ = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    async def test_of_another_isolation_level_is_bound_too(self, library: Library, level: str) -> None:
        async with library.sdk.tenant("acme").session() as session:
            _ = await session.connection(execution_options={"isolation_level": level})
            assert await session.scalar(sa.select(sa.func.count(Book.id))) == 3
            shown = await session.scalar(sa.text("SHOW transaction_isolation"))
            assert str(shown).upper() == level

    async def test_nothing_is_left_on_the_connection(self, library: Library) -> None:
        """Six sessions share four connections, so that each meets one on which another has been."""
        async with library.sdk.tenant("globex").session() as session:
            for text in (
                "SET statement_timeout = 54321",
                "SET my.secret = 'globex'",
                "PREPARE mine AS SELECT 'globex'",
                "LISTEN globex",
                "DECLARE mine CURSOR WITH HOLD FOR SELECT title FROM books",
                "SELECT set_config('tenantry.seal', current_setting('tenantry.seal'), false)",
                "SET search_path = tenantry",
            ):
                await session.execute(sa.text(text))
            await session.commit()
        for _ in range(6):
            async with library.sdk.tenant("acme").session() as session:
                settings = [
                    await session.scalar(sa.text(f"SELECT current_setting('{name}', true)"))
                    for name in ("search_path", "statement_timeout", "my.secret")
                ]
                assert settings[0] != "tenantry"
                assert settings[1] != "54321ms"
                assert not settings[2]
                assert not (await session.scalars(sa.text("SELECT pg_listening_channels()"))).all()
                for text in ("FETCH ALL FROM mine", "EXECUTE mine"):
                    async with session.begin_nested() as point:
                        with pytest.raises(DBAPIError):
                            await session.execute(sa.text(text))
                        await point.rollback()
                assert await session.scalar(sa.select(sa.func.count(Book.id))) == 3

    async def test_many_at_once_never_mix(self, library: Library) -> None:
        async def work(tenant: str, number: int) -> None:
            for _ in range(5):
                async with library.sdk.tenant(tenant).session() as session:
                    session.add(Tag(word=f"{tenant} {number} {uuid.uuid4()}"))
                    await session.flush()
                    if number % 3 == 0:
                        await session.commit()
                    await asyncio.sleep(0)
                    words = (await session.scalars(sa.select(Tag.word))).all()
                    assert all(word.startswith(tenant) for word in words)

        await asyncio.gather(*(work(("acme", "globex")[number % 2], number) for number in range(16)))

    async def test_a_connection_that_died_while_idle_is_replaced(self, library: Library) -> None:
        for _ in range(3):
            async with library.sdk.tenant("acme").session() as session:
                pid = await session.scalar(sa.text("SELECT pg_backend_pid()"))
            await library.judge.execute("SELECT pg_terminate_backend($1, 5000)", pid)
            await asyncio.sleep(0.05)
        async with library.sdk.tenant("acme").session() as session:
            assert await session.scalar(sa.select(sa.func.count(Book.id))) == 3

    async def test_cancelled_anywhere_it_leaves_nothing_behind(self, library: Library) -> None:
        async def work() -> None:
            async with library.sdk.tenant("globex").session() as session:
                session.add(Tag(word=str(uuid.uuid4())))
                await session.flush()
                await session.execute(sa.text("SELECT pg_sleep(0.01)"))
                await session.rollback()

        for number in range(40):
            task = asyncio.create_task(work())
            await asyncio.sleep(number / 2_000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with library.sdk.tenant("acme").session() as session:
                assert await session.scalar(sa.select(sa.func.count(Book.id))) == 3
                assert "globex" not in repr((await session.scalars(sa.select(Tag.word))).all())


class TestAdmission:
    async def test_a_suspended_tenant_has_no_session(self, library: Library) -> None:
        acme = library.sdk.tenant("acme")
        async with acme.session() as session:
            await session.get_one(Author, ANN)
            await session.commit()
            await library.sdk.tenants.suspend("acme", reason="test")
            with pytest.raises(TenantSuspended):
                await session.get_one(Book, ATLAS)
        with pytest.raises(TenantSuspended):
            async with acme.session():
                pass

    async def test_who_goes_on_past_a_refusal_meets_nothing_of_the_last_tenant(
        self, library: Library
    ) -> None:
        async with library.sdk.tenant("globex").session() as session:
            left = "DECLARE mine CURSOR WITH HOLD FOR SELECT title FROM books"
            await session.execute(sa.text(left))
            await session.commit()
        acme = library.sdk.tenant("acme")
        async with acme.session() as session:
            await library.sdk.tenants.suspend("acme", reason="test")
            with pytest.raises(TenantSuspended):
                await session.execute(sa.text("SELECT 1"))
            with pytest.raises(SQLAlchemyError):
                await session.execute(sa.text("FETCH ALL FROM mine"))

    async def test_a_purged_tenant_writes_nothing_from_a_session_of_before(self, library: Library) -> None:
        async with library.sdk.tenant("acme").session() as session:
            await session.get_one(Author, ANN)
            await library.judge.execute("INSERT INTO tenantry.fences (id) VALUES ('acme')")
            session.add(Tag(word="late"))
            with pytest.raises(DBAPIError, match="deleted"):
                await session.commit()

    async def test_an_unknown_tenant_has_none(self, library: Library) -> None:
        with pytest.raises(TenantNotFound):
            async with library.sdk.tenant("nobody").session():
                pass

    async def test_another_tenant_than_the_ambient_one_is_refused(self, library: Library) -> None:
        with use_context(library.sdk.tenant("globex").context), pytest.raises(ContextMismatch):
            async with library.sdk.tenant("acme").session():
                pass

    async def test_the_directory_and_the_keys_are_out_of_reach(self, library: Library) -> None:
        for table in ("tenants", "audit", "seal_keys", "idempotency", "secrets", "fences"):
            async with library.sdk.tenant("acme").session() as session:
                with pytest.raises(ProgrammingError, match="permission denied"):
                    await session.execute(sa.text(f"SELECT * FROM tenantry.{table}"))

    async def test_the_engine_itself_is_bound_to_nobody(self, library: Library) -> None:
        async with library.sdk.tenant("acme").session() as session:
            engine: Any = session.get_bind()
            await session.run_sync(lambda _: None)

            def look(_: Any) -> int:
                with engine.connect() as connection:
                    return int(connection.scalar(sa.select(sa.func.count()).select_from(Book.__table__)))

            assert await session.run_sync(look) == 0


async def test_a_database_that_would_not_hold_a_session_refuses_it() -> None:
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        await sdk.tenants.create("acme")
        with pytest.raises(Unsupported):
            async with sdk.tenant("acme").session():
                pass


async def test_reads_of_data_and_of_the_session_are_the_same(library: Library) -> None:
    acme = library.sdk.tenant("acme")
    async with acme.session() as session:
        for model in (Author, Book, Tag, BookTag, Review):
            names = [column.name for column in model.__table__.columns]
            records = (await acme.data.read(model.__tablename__, order_by="id")).items
            mapped = (await session.scalars(sa.select(model).order_by(model.id))).all()
            assert [{name: getattr(row, name) for name in names} for row in mapped] == records
        assert BIBLE in {book.id for book in (await session.scalars(sa.select(Book))).all()}
