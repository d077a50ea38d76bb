"""Connections of other drivers, bound to a tenant: psycopg, SQLAlchemy's synchronous sessions, Django's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import pytest
import sqlalchemy as sa
from django.db import connections, transaction
from sqlalchemy.orm import Session

import tenantry.sync
from tenantry import MultiTenantSDK
from tenantry.context import use_context
from tenantry.errors import (
    ConfigurationError,
    ContextMismatch,
    DirectoryUnavailable,
    TenantNotFound,
    TenantSuspended,
    Unsupported,
)
from tests.django.project import databases, entry
from tests.orm.conftest import ANN, Library
from tests.orm.models import MODELS, Author, Book, Tag

T = TypeVar("T")

COUNT = "SELECT count(*) FROM books"
TITLES = "SELECT title FROM books ORDER BY title"
LEFTOVERS = (
    "SET my.secret = 'globex'",
    "PREPARE mine AS SELECT 'globex'",
    "LISTEN globex",
    "SET statement_timeout = 54321",
    "SELECT set_config('tenantry.seal', current_setting('tenantry.seal'), false)",
    "SET search_path = tenantry",
)


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run synchronous code beside the event loop, as a web server's threads do."""
    return await asyncio.to_thread(work, *args)


@contextmanager
def psycopg_connection(library: Library) -> Iterator[psycopg.Connection]:
    with psycopg.connect(library.raw_url, autocommit=True) as connection:
        yield connection


@contextmanager
def engine_of(library: Library, **options: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(sa.make_url(library.raw_url).set(drivername="postgresql+psycopg"), **options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def django_connection(library: Library) -> Iterator[Any]:
    with databases(default=entry(library.raw_url)):
        yield connections["default"]


def _fail_after(connection: Any, text: str) -> None:
    connection.execute(text)
    raise ZeroDivisionError


class TestPsycopg:
    async def test_the_block_is_a_transaction_of_the_tenant(self, library: Library) -> None:
        def work() -> None:
            with psycopg_connection(library) as connection:
                with library.sdk.bind(connection, "acme") as bound:
                    assert bound is connection
                    rows = connection.execute(TITLES).fetchall()
                    assert [row[0] for row in rows] == ["acme atlas", "acme bible", "acme war"]
                    connection.execute("INSERT INTO tags (id, word) VALUES (gen_random_uuid(), 'new')")
                assert connection.execute(COUNT).fetchone() == (0,)

        await in_thread(work)
        async with library.sdk.tenant("acme").session() as session:
            assert "new" in (await session.scalars(sa.select(Tag.word))).all()

    async def test_an_error_rolls_back_and_unbinds(self, library: Library) -> None:
        def work() -> None:
            with psycopg_connection(library) as connection:
                with pytest.raises(ZeroDivisionError), library.sdk.bind(connection, "acme"):
                    _fail_after(connection, "DELETE FROM reviews")
                with pytest.raises(psycopg.errors.UndefinedTable), library.sdk.bind(connection, "acme"):
                    connection.execute("SELECT * FROM nowhere")
                assert connection.execute(COUNT).fetchone() == (0,)
                with library.sdk.bind(connection, "globex"):
                    assert connection.execute("SELECT count(*) FROM reviews").fetchone() == (1,)

        before = await library.print_of("acme")
        await in_thread(work)
        assert await library.print_of("acme") == before

    async def test_nothing_is_left_for_the_next_tenant(self, library: Library) -> None:
        def work() -> None:
            with psycopg_connection(library) as connection:
                with library.sdk.bind(connection, "globex"):
                    for text in LEFTOVERS:
                        connection.execute(text)
                    for _ in range(10):  # psycopg would prepare it by now
                        connection.execute("SELECT %s::text", ("globex",))
                assert connection.execute("SELECT count(*) FROM public.books").fetchone() == (0,)
                with library.sdk.bind(connection, "acme"):
                    assert connection.execute(COUNT).fetchone() == (3,)
                    found = connection.execute(
                        "SELECT current_setting('my.secret', true), current_setting('statement_timeout')"
                    ).fetchone()
                    assert found is not None
                    assert (found[0] or "", found[1]) == ("", found[1].replace("54321", ""))
                    assert connection.execute("SELECT pg_listening_channels()").fetchall() == []
                    with pytest.raises(psycopg.errors.InvalidSqlStatementName), connection.transaction():
                        connection.execute("EXECUTE mine")

        await in_thread(work)

    async def test_inside_a_transaction_it_ends_with_its_block(self, library: Library) -> None:
        def work() -> None:
            with psycopg_connection(library) as connection, connection.transaction():
                with library.sdk.bind(connection, "acme"):
                    assert connection.execute(COUNT).fetchone() == (3,)
                assert connection.execute(COUNT).fetchone() == (0,)
                with pytest.raises(ZeroDivisionError), library.sdk.bind(connection, "globex"):
                    raise ZeroDivisionError
                assert connection.execute(COUNT).fetchone() == (0,)

        await in_thread(work)

    async def test_it_is_not_bound_twice(self, library: Library) -> None:
        def work() -> None:
            with psycopg_connection(library) as connection:
                with library.sdk.bind(connection, "acme"):
                    with pytest.raises(ContextMismatch, match="acme"), library.sdk.bind(connection, "globex"):
                        pass
                    assert connection.execute(TITLES).fetchone() == ("acme atlas",)
                with library.sdk.bind(connection, "globex"):
                    assert connection.execute(TITLES).fetchone() == ("globex atlas",)

        await in_thread(work)

    async def test_threads_with_connections_of_their_own_never_mix(self, library: Library) -> None:
        failures: list[BaseException] = []

        def work(tenant: str) -> None:
            try:
                with psycopg_connection(library) as connection:
                    for _ in range(30):
                        with library.sdk.bind(connection, tenant):
                            titles = connection.execute(TITLES).fetchall()
                            assert [title[0].split()[0] for title in titles] == [tenant] * 3
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work, args=(("acme", "globex")[n % 2],)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await in_thread(thread.join)
        assert not failures


class TestSQLAlchemy:
    async def test_each_transaction_of_a_session_is_bound(self, library: Library) -> None:
        def work() -> None:
            with engine_of(library) as engine, Session(engine) as session:
                with library.sdk.bind(session, "acme"):
                    ann = session.get_one(Author, ANN)
                    assert [book.title for book in ann.books] == ["acme atlas", "acme bible"]
                    ann.name = "changed"
                    session.commit()
                    assert ann.version == 2
                    session.expire_all()
                    assert [book.title for book in ann.books] == ["acme atlas", "acme bible"]
                    with session.begin_nested():
                        assert session.scalar(sa.select(sa.func.count(Book.id))) == 3
                    session.rollback()
                    assert session.scalar(sa.text(COUNT)) == 3
                assert not session.identity_map
                assert session.scalar(sa.text(COUNT)) == 0
                session.rollback()
                with library.sdk.bind(session, "globex"):
                    assert session.get_one(Author, ANN).name == "globex Ann"

        await in_thread(work)

    async def test_what_is_not_committed_is_lost(self, library: Library) -> None:
        def work() -> None:
            with engine_of(library) as engine, Session(engine) as session, library.sdk.bind(session, "acme"):
                session.execute(sa.delete(Book))

        before = await library.print_of("acme")
        await in_thread(work)
        assert await library.print_of("acme") == before

    async def test_a_connection_of_core(self, library: Library) -> None:
        def work() -> None:
            with engine_of(library) as engine, engine.connect() as connection:
                with library.sdk.bind(connection, "acme"):
                    assert connection.scalar(sa.text(COUNT)) == 3
                    connection.commit()
                    with connection.begin():
                        assert connection.scalar(sa.text(COUNT)) == 3
                assert connection.scalar(sa.text(COUNT)) == 0

        await in_thread(work)

    async def test_nothing_is_left_for_the_next_tenant(self, library: Library) -> None:
        def work() -> None:
            with engine_of(library, pool_size=1, max_overflow=0) as engine:
                with Session(engine) as session, library.sdk.bind(session, "globex"):
                    for text in LEFTOVERS:
                        session.execute(sa.text(text))
                    session.commit()
                with Session(engine) as session, library.sdk.bind(session, "acme"):
                    assert session.scalar(sa.text(COUNT)) == 3
                    assert not session.scalar(sa.text("SELECT current_setting('my.secret', true)"))
                    assert not session.scalars(sa.text("SELECT pg_listening_channels()")).all()

        await in_thread(work)

    async def test_one_that_commits_by_itself_is_refused(self, library: Library) -> None:
        def work() -> None:
            with (
                engine_of(library, isolation_level="AUTOCOMMIT") as engine,
                Session(engine) as session,
                library.sdk.bind(session, "acme"),
                pytest.raises(ConfigurationError, match="AUTOCOMMIT"),
            ):
                session.scalar(sa.text(COUNT))

        await in_thread(work)

    async def test_one_with_an_open_transaction_is_refused(self, library: Library) -> None:
        def work() -> None:
            with engine_of(library) as engine, Session(engine) as session:
                assert session.scalar(sa.text(COUNT)) == 0
                with pytest.raises(ContextMismatch, match="too late"), library.sdk.bind(session, "acme"):
                    pass

        await in_thread(work)


class TestDjango:
    async def test_the_block_is_atomic_and_of_the_tenant(self, library: Library) -> None:
        def work() -> None:
            with django_connection(library) as connection:
                with library.sdk.bind(connection, "acme"), connection.cursor() as cursor:
                    cursor.execute(TITLES)
                    assert [row[0] for row in cursor.fetchall()] == ["acme atlas", "acme bible", "acme war"]
                    cursor.execute("INSERT INTO tags (id, word) VALUES (gen_random_uuid(), %s)", ["django"])
                    with pytest.raises(ZeroDivisionError), transaction.atomic():
                        _fail_after(cursor, "DELETE FROM reviews")
                    cursor.execute("SELECT count(*) FROM reviews")
                    assert cursor.fetchone() == (1,)
                with connection.cursor() as cursor:
                    cursor.execute(COUNT)
                    assert cursor.fetchone() == (0,)
                with (
                    transaction.atomic(),
                    library.sdk.bind(connection, "globex"),
                    connection.cursor() as cursor,
                ):
                    cursor.execute("SELECT word FROM tags")
                    assert cursor.fetchall() == [("globex maps",)]

        await in_thread(work)
        async with library.sdk.tenant("acme").session() as session:
            assert "django" in (await session.scalars(sa.select(Tag.word))).all()


class TestSynchronousAPI:
    async def test_a_connection_is_bound_and_its_tenant_admitted(self, library: Library) -> None:
        def work() -> None:
            with tenantry.sync.MultiTenantSDK.open(**library.options, models=MODELS) as sdk:
                with psycopg_connection(library) as connection, sdk.bind(connection, "acme"):
                    assert connection.execute(TITLES).fetchone() == ("acme atlas",)
                with engine_of(library) as engine, Session(engine) as session, sdk.bind(session, "globex"):
                    assert session.get_one(Author, ANN).name == "globex Ann"
                    session.commit()
                    sdk.tenants.suspend("globex", reason="test")
                    with pytest.raises(TenantSuspended):
                        session.get_one(Author, ANN)

        await in_thread(work)


class TestAdmission:
    async def test_who_may_not_be_served_is_not_bound(self, library: Library) -> None:
        await library.sdk.tenants.suspend("globex", reason="test")

        def work() -> None:
            with psycopg_connection(library) as connection:
                for tenant, error in (("globex", TenantSuspended), ("nobody", TenantNotFound)):
                    with pytest.raises(error), library.sdk.bind(connection, tenant):
                        pass
                assert connection.execute(COUNT).fetchone() == (0,)

        await in_thread(work)

    async def test_another_tenant_than_the_ambient_one_is_refused(self, library: Library) -> None:
        def work() -> None:
            context = library.sdk.tenant("globex").context
            with (
                psycopg_connection(library) as connection,
                use_context(context),
                pytest.raises(ContextMismatch),
                library.sdk.bind(connection, "acme"),
            ):
                pass

        await in_thread(work)

    async def test_a_connection_of_a_strange_driver_is_refused(self, library: Library) -> None:
        with pytest.raises(Unsupported, match=r"psycopg\.Connection"), library.sdk.bind(object(), "acme"):
            pass

    async def test_inside_the_event_loop_the_lease_must_know_the_tenant(self, library: Library) -> None:
        with psycopg.connect(library.raw_url, autocommit=True) as connection:
            async with MultiTenantSDK.open(**library.options, models=MODELS) as sdk:
                with pytest.raises(DirectoryUnavailable, match="async with"), sdk.bind(connection, "acme"):
                    pass
                async with sdk.tenant("acme"):
                    with sdk.bind(connection, "acme"):
                        assert connection.execute(COUNT).fetchone() == (3,)

    async def test_a_database_that_would_not_hold_it_refuses(self) -> None:
        async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
            with pytest.raises(Unsupported), sdk.bind(object(), "acme"):
                pass
