"""SQLite: what is stored and in which order, the authorizer, cancellation, killed and competing processes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import Model, MultiTenantSDK, TenantHandle
from tenantry.data import DataManager
from tenantry.databases._sql import Step
from tenantry.databases.sqlite.adapter import SQLiteAdapter
from tenantry.databases.sqlite.connection import Connection, Reach
from tenantry.databases.sqlite.dialect import SQLiteDialect
from tenantry.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    IsolationError,
    OperationTimeout,
    SchemaMismatch,
    TenantryError,
)
from tenantry.schema import Field, collection_of
from tenantry.testing.models import MODELS, Book, Folder, Note, Review, Sample


def at(path: Path, **more: Any) -> MultiTenantSDK:
    """Return an SDK on this file."""
    options: dict[str, Any] = {"models": MODELS, "schema": "create", "env": {}, **more}
    return MultiTenantSDK.open(f"sqlite:///{path}", **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
async def sdk(path: Path) -> AsyncIterator[MultiTenantSDK]:
    async with at(path) as sdk:
        for name in ("acme", "globex"):
            await sdk.tenants.create(name)
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme")


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def adapter_of(sdk: MultiTenantSDK) -> SQLiteAdapter:
    assert isinstance(sdk._database, SQLiteAdapter)
    return sdk._database


# --- what is stored ------------------------------------------------------------------------------


class Amounts(Model):
    __collection__ = "amounts"
    exact: Decimal = Decimal(0)
    money: Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)] = Decimal(0)
    whole: Annotated[Decimal, pydantic.Field(max_digits=5, decimal_places=0)] = Decimal(0)
    share: Annotated[Decimal, pydantic.Field(max_digits=9, decimal_places=9)] = Decimal(0)
    wide: Annotated[Decimal, pydantic.Field(max_digits=60, decimal_places=30)] = Decimal(0)


AMOUNTS = collection_of(Amounts).fields
DIALECT = SQLiteDialect()


def numbers(field: Field) -> st.SearchStrategy[Decimal]:
    """Every value that the field holds."""
    from tenantry._values import EXACT

    most = 10**field.digits - 1
    scaled = st.integers(-most, most) | st.integers(-1_000, 1_000) | st.sampled_from([-most, most, 0])
    return scaled.map(lambda value: field.normalise(Decimal(value).scaleb(-field.places, context=EXACT)))


class TestEncoding:
    @pytest.mark.parametrize("name", ["exact", "money", "whole", "share", "wide"])
    @given(data=st.data())
    def test_decimals_sort_as_text_as_they_do_as_numbers(self, name: str, data: st.DataObject) -> None:
        field = AMOUNTS[name]
        encode, decode = DIALECT.encoder(field), DIALECT.decoder(field)
        assert encode is not None
        assert decode is not None
        left, right = data.draw(numbers(field)), data.draw(numbers(field))
        assert (encode(left) < encode(right)) is (left < right)
        assert (encode(left) == encode(right)) is (left == right)
        assert len(encode(left)) == len(encode(right)) == field.digits + 1
        assert str(decode(encode(left))) == str(left)

    @pytest.mark.parametrize("name", ["day", "moment", "token", "blob"])
    @given(data=st.data())
    def test_other_kinds_keep_their_order_too(self, name: str, data: st.DataObject) -> None:
        values: dict[str, st.SearchStrategy[Any]] = {
            "day": st.dates(),
            "moment": st.datetimes(timezones=st.just(dt.UTC)),
            "token": st.uuids(),
            "blob": st.binary(max_size=4),
        }
        field = collection_of(Sample).fields[name]
        encode: Callable[[Any], Any] = DIALECT.encoder(field) or (lambda value: value)
        decode: Callable[[Any], Any] = DIALECT.decoder(field) or (lambda value: value)
        left, right = data.draw(values[name]), data.draw(values[name])
        assert (encode(left) < encode(right)) is (left < right)
        assert decode(encode(left)) == left


# --- the file ------------------------------------------------------------------------------------


class TestFiles:
    @pytest.mark.parametrize(
        "name", ["a b.db", "ünï😀.db", "what?mode=memory.db", "100%.db", "a#b.db", "a&b=c"]
    )
    async def test_any_name_is_a_file_of_that_name(self, tmp_path: Path, name: str) -> None:
        async with at(tmp_path / name) as sdk:
            await sdk.tenants.create("acme")
        assert name in files_in(tmp_path)
        async with at(tmp_path / name) as sdk:
            assert (await sdk.tenants.get("acme")).id == "acme"

    async def test_a_relative_path_is_relative_to_where_one_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        async with MultiTenantSDK.open("sqlite:///data.db", models=[Note], schema="create", env={}):
            pass
        assert (tmp_path / "data.db").exists()

    @pytest.mark.parametrize(
        "url",
        ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://data.db", "sqlite:data.db", "sqlite"],
    )
    async def test_a_url_without_a_file(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            await MultiTenantSDK.open(url, env={}).initialize()
        assert refused.value.field == "database.url"

    async def test_a_folder_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnavailable, match="cannot open"):
            await at(tmp_path / "missing" / "app.db").initialize()

    async def test_a_folder_for_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnavailable):
            await at(tmp_path).initialize()

    async def test_a_file_that_is_no_database(self, path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, b"this is not a database " * 100)
        with pytest.raises(DatabaseUnavailable):
            await at(path).initialize()
        assert (await asyncio.to_thread(path.read_bytes)).startswith(b"this is not")

    async def test_a_table_of_another_shape(self, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE notes (tenant_id TEXT, id TEXT, other TEXT)")
        with pytest.raises(SchemaMismatch) as refused:
            await at(path).initialize()
        assert any("notes" in difference and "text" in difference for difference in refused.value.differences)

    async def test_closing_leaves_no_thread_and_no_lock(self, path: Path) -> None:
        for _ in range(3):
            async with at(path) as sdk:
                await sdk.tenants.list()
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tenantry")]
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")


# --- the authorizer ------------------------------------------------------------------------------

FOREIGN = [
    "SELECT * FROM notes",
    "SELECT count(*) FROM notes",
    "SELECT 1 FROM notes WHERE tenant_id = 'acme'",
    "SELECT (SELECT text FROM notes LIMIT 1)",
    "SELECT * FROM tenantry_tenants",
    "SELECT * FROM tenantry_secrets",
    "SELECT * FROM countries",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_table_info('notes')",
    "PRAGMA table_info(notes)",
    "PRAGMA writable_schema = ON",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA query_only = OFF",
    "PRAGMA database_list",
    "WITH x AS (SELECT * FROM notes) SELECT * FROM x",
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT * FROM x LIMIT 1",
    "EXPLAIN QUERY PLAN SELECT * FROM notes",
    "INSERT INTO notes SELECT * FROM notes",
    "INSERT INTO notes (tenant_id, id) VALUES ('acme', 'x')",
    "UPDATE notes SET tenant_id = 'globex'",
    "DELETE FROM notes",
    "REPLACE INTO notes (tenant_id, id) VALUES ('acme', 'x')",
    "DROP TABLE notes",
    "ALTER TABLE notes RENAME TO loot",
    "ALTER TABLE notes ADD COLUMN x",
    "CREATE TABLE loot AS SELECT * FROM notes",
    "CREATE TEMP TABLE notes (id)",
    "CREATE VIEW loot AS SELECT * FROM notes",
    "CREATE TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END",
    "CREATE INDEX i ON notes (text)",
    "ATTACH DATABASE ':memory:' AS loot",
    "DETACH DATABASE main",
    "VACUUM INTO '/tmp/loot.db'",
    "ANALYZE",
    "REINDEX notes",
]


async def on(sdk: MultiTenantSDK, thread: str, job: Callable[[Connection], Any]) -> Any:
    """Run `job` where the adapter runs its own, with that thread's connection."""
    adapter = adapter_of(sdk)
    threads, connection = {
        "writer": (adapter._writer_thread, adapter._writer),
        "reader": (adapter._reader_threads, adapter._reader),
    }[thread]
    future: Future[Any] = threads.submit(lambda: job(connection()))
    return await asyncio.wrap_future(future)


class TestAuthorizer:
    @pytest.mark.parametrize("thread", ["writer", "reader"])
    @pytest.mark.parametrize("text", FOREIGN)
    async def test_a_foreign_statement_is_refused(
        self, sdk: MultiTenantSDK, acme: TenantHandle, thread: str, text: str
    ) -> None:
        note = await acme.data.create(Note(id="n", text="kept"))
        with pytest.raises(
            sqlite3.DatabaseError,
            match=r"not authorized|prohibited|authorization denied|no such|query_only|readonly",
        ):
            await on(sdk, thread, lambda connection: connection.raw.execute(text).fetchall())
        assert await acme.data.get(Note, "n") == note
        assert await adapter_of(sdk).check_schema() == []

    async def test_a_compiled_statement_reaches_its_own_table_only(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        await acme.data.create(Note(id="n"))
        step = adapter_of(sdk)._compiler.fetch(acme.context, collection_of(Note), ["n"])
        reach = adapter_of(sdk)._reaches["notes", False]
        for text in (
            "SELECT * FROM books",
            "SELECT * FROM notes, books",
            "DELETE FROM notes",
            "SELECT * FROM tenantry_tenants",
        ):
            forged = Step(_with_text(step.statement, text), ())
            with pytest.raises(sqlite3.DatabaseError):
                await on(sdk, "writer", functools.partial(_run, forged, reach))
        assert await on(sdk, "writer", lambda connection: len(connection.run(step, reach, 5))) == 1

    async def test_the_reach_ends_with_the_statement_even_when_it_fails(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        await acme.data.create(Note(id="n"))
        for _ in range(2):
            with pytest.raises(TenantryError):
                await acme.data.create(Note(id="n"))
            with pytest.raises(sqlite3.DatabaseError):
                await on(
                    sdk, "writer", lambda connection: connection.raw.execute("SELECT * FROM notes").fetchall()
                )

    async def test_it_refuses_to_start_without_the_authorizer(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Connection, "restrict", lambda self: None)
        with pytest.raises(IsolationError, match="authorizer"):
            await at(path).initialize()

    async def test_a_write_reaches_what_cascades(self, sdk: MultiTenantSDK) -> None:
        reaches = adapter_of(sdk)._reaches
        engine = "sqlite_master"  # which json_each, the function behind "in", is set up in
        assert reaches["books", True].writes == {"books", "reviews", engine}
        assert {"authors", "books", "reviews"} <= reaches["books", True].reads
        assert reaches["notes", False].reads & set(adapter_of(sdk)._compiler.tables) == {"notes"}
        assert reaches["notes", True] == Reach(reaches["notes", True].reads, frozenset({"notes", engine}))

    async def test_a_user_cannot_load_code(self, sdk: MultiTenantSDK) -> None:
        with pytest.raises(sqlite3.DatabaseError):
            await on(sdk, "writer", lambda connection: connection.raw.execute("SELECT load_extension('x')"))


def _run(step: Step, reach: Reach, connection: Connection) -> list[Any]:
    return connection.run(step, reach, 5)


def _with_text(statement: Any, text: str) -> Any:
    return msgspec.structs.replace(statement, text=text)


# --- cancellation --------------------------------------------------------------------------------


class CancelledAt:
    """Awaits something and cancels the task at its n-th suspension, at once or a moment later."""

    def __init__(self, work: Awaitable[Any], suspension: int, delay: float) -> None:
        self._steps = work.__await__()
        self._left = suspension
        self._delay = delay
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        send: Callable[[], Any] = lambda: self._steps.send(None)  # noqa: E731
        while True:
            try:
                waited_for = send()
            except StopIteration as done:
                return done.value
            self._left -= 1
            if self._left == 0:
                self.reached = True
                if self._delay:
                    asyncio.get_running_loop().call_later(self._delay, task.cancel)
                else:
                    task.cancel()
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - whatever it is, the awaited thing gets it
                send = functools.partial(self._steps.throw, error)
            else:
                send = lambda: self._steps.send(None)  # noqa: E731


async def transaction(acme: TenantHandle) -> None:
    async with acme.data.transaction() as unit:
        await unit.create(Note(id="1"))
        await unit.bulk_create([Note(id="2"), Note(id="3")], atomic=True)
        await unit.count(Note)
        await unit.update(Note, "1", text="x")
        await unit.create(Folder(id=1))


async def bulk(acme: TenantHandle) -> None:
    await acme.data.bulk_create([Note(id="1", text="x"), Note(id="2"), Note(id="3")], atomic=True)
    await acme.data.create(Folder(id=1))


async def idempotent(acme: TenantHandle) -> None:
    async with acme.data.transaction() as unit:
        await unit.create(Note(id="1", text="x"), idempotency_key="k")
        await unit.bulk_create([Note(id="2"), Note(id="3")], atomic=True)
        await unit.create(Folder(id=1))


class TestCancellation:
    @pytest.mark.parametrize("delay", [0.0, 0.0005])
    @pytest.mark.parametrize("work", [transaction, bulk, idempotent], ids=lambda work: work.__name__)
    async def test_at_every_await_it_leaves_all_or_nothing_and_a_writer_that_works(
        self, sdk: MultiTenantSDK, work: Callable[[TenantHandle], Awaitable[None]], delay: float
    ) -> None:
        globex = sdk.tenant("globex")
        for suspension in range(1, 60):
            tenant = await sdk.tenants.create(f"t{suspension}")
            handle = sdk.tenant(tenant.id)
            await handle.data.count(Note)
            attempt = CancelledAt(work(handle), suspension, delay)

            async def run(attempt: CancelledAt = attempt) -> None:
                await attempt

            outcome = (await asyncio.gather(asyncio.create_task(run()), return_exceptions=True))[0]
            async with asyncio.timeout(5):
                await globex.data.create(Note(id=f"after {suspension}"))
                async with globex.data.transaction() as unit:
                    await unit.create(Folder(id=suspension))
            notes = {row.id: row.text for row in await handle.data.read(Note)}
            folders = await handle.data.count(Folder)
            assert notes in ({}, {"1": "x", "2": "", "3": ""})
            if work is not bulk:  # two units, of which the first may have committed
                assert folders == bool(notes)
            if outcome is None:
                assert folders == 1
            if not attempt.reached:
                assert suspension > 2
                break
        else:
            raise AssertionError("it never ran to its end")
        assert await globex.data.count(Note) == await globex.data.count(Folder) == suspension

    async def test_a_cancelled_read_disturbs_nobody(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await acme.data.bulk_create((Note(id=f"{number}") for number in range(200)), atomic=True)
        for suspension in range(1, 10):
            attempt = CancelledAt(acme.data.read(Note, limit=100), suspension, 0.0)

            async def run(attempt: CancelledAt = attempt) -> Any:
                return await attempt

            other, _ = await asyncio.gather(
                acme.data.count(Note), asyncio.create_task(run()), return_exceptions=True
            )
            assert other == 200
            if not attempt.reached:
                return

    async def test_closing_while_a_transaction_is_open_undoes_it(self, path: Path) -> None:
        sdk = at(path)
        await sdk.initialize()
        await sdk.tenants.create("acme")
        inside, go = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with sdk.tenant("acme").data.transaction() as unit:
                await unit.create(Note(id="a"))
                inside.set()
                await go.wait()

        task = asyncio.create_task(work())
        await inside.wait()
        await sdk.close()
        go.set()
        with pytest.raises(TenantryError):
            await task
        async with at(path) as again:
            assert await again.tenant("acme").data.count(Note) == 0


# --- time ----------------------------------------------------------------------------------------


class TestTimeouts:
    async def test_a_statement_that_takes_too_long_is_ended(self, path: Path) -> None:
        async with at(path) as sdk:
            await sdk.tenants.create("acme")
            await sdk.tenant("acme").data.bulk_create(
                (Sample(numbers=list(range(2_000))) for _ in range(500)), atomic=True
            )
        async with at(path, database={"timeout": 0.05}) as sdk:
            data = sdk.tenant("acme").data
            with pytest.raises(OperationTimeout, match=r"database\.timeout"):
                await data.count(
                    Sample, {"or": [{"numbers": {"contains": -number}} for number in range(1, 20)]}
                )
            assert await data.count(Note) == 0

    async def test_who_waits_for_the_writer_does_not_wait_for_ever(self, path: Path) -> None:
        async with at(path, database={"timeout": 0.3}) as sdk:
            for name in ("acme", "globex"):
                await sdk.tenants.create(name)
            inside = asyncio.Event()

            async def wait() -> None:
                await inside.wait()
                await sdk.tenant("globex").data.create(Note(id="a"))

            waiting = asyncio.create_task(wait())
            async with sdk.tenant("acme").data.transaction() as unit:
                await unit.create(Note(id="a"))
                inside.set()
                with pytest.raises(OperationTimeout):
                    await waiting
                assert await sdk.tenant("globex").data.count(Note) == 0
            await sdk.tenant("globex").data.create(Note(id="a"))

    async def test_a_file_that_another_program_locks_is_unavailable(self, path: Path) -> None:
        async with at(path, database={"timeout": 0.2}) as sdk:
            await sdk.tenants.create("acme")
            data = sdk.tenant("acme").data
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises((DatabaseUnavailable, OperationTimeout)):
                    await data.create(Note(id="a"))
                assert await data.count(Note) == 0
                other.execute("ROLLBACK")
            await data.create(Note(id="a"))


# --- processes -----------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from tenantry import MultiTenantSDK
from tenantry.testing.models import Book, Note, Review

async def main(url, name):
    async with MultiTenantSDK.open(url, models=[Note, *MODELS], env={}) as sdk:
        data = sdk.tenant("acme").data
        number = 0
        while True:
            number += 1
            if number % 3:
                await data.create(Note(id=f"{name}-{number}"))
            else:
                async with data.transaction() as unit:
                    book = await unit.create(Book(title=f"{name}-{number}"))
                    await unit.bulk_create(Review(book_id=book.id) for _ in range(5))
            print(number, flush=True)

from tenantry.testing.models import MODELS
MODELS = [model for model in MODELS if model is not Note]
asyncio.run(main(*sys.argv[1:]))
"""

COUNTER = """
import asyncio, sys
from tenantry import MultiTenantSDK
from tenantry.errors import Conflict
from tenantry.testing.models import MODELS, Note

async def main(url, name, times):
    async with MultiTenantSDK.open(url, models=MODELS, env={}) as sdk:
        data = sdk.tenant("acme").data
        print("ready", flush=True)
        conflicts = 0
        for number in range(int(times)):
            await data.create(Note(id=f"{name}-{number}"))
            while True:
                note = await data.get(Note, "counter")
                try:
                    await data.update(note, text=str(int(note.text) + 1))
                    break
                except Conflict:
                    conflicts += 1
            async with data.transaction() as unit:
                shared = await unit.get(Note, "shared")
                await unit.update(Note, "shared", text=str(int(shared.text) + 1))
        print(conflicts, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


class TestProcesses:
    async def test_a_killed_process_loses_nothing_it_had_acknowledged(self, path: Path) -> None:
        async with at(path) as sdk:
            await sdk.tenants.create("acme")
        acknowledged: set[str] = set()
        for round_ in range(3):
            name = f"r{round_}"
            process = start(WRITER, f"sqlite:///{path}", name)
            assert process.stdout is not None
            for _ in range(25 + round_ * 7):
                line = await asyncio.to_thread(process.stdout.readline)
                acknowledged.add(f"{name}-{line.strip()}")
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate(timeout=10)
            acknowledged |= {f"{name}-{line}" for line in rest.splitlines()}
            async with at(path) as sdk:
                data = sdk.tenant("acme").data
                notes = {row["id"] for row in await data.read("notes", fields=["id"], limit=10_000)}
                books = await data.read(Book, limit=10_000)
                assert acknowledged <= notes | {book.title for book in books}
                for book in books:
                    assert await data.count(Review, {"book_id": book.id}) == 5
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    async def test_two_processes_write_one_file(self, path: Path) -> None:
        times, workers = 25, 2
        async with at(path) as sdk:
            await sdk.tenants.create("acme")
            data = sdk.tenant("acme").data
            await data.bulk_create([Note(id="counter", text="0"), Note(id="shared", text="0")], atomic=True)
            processes = [start(COUNTER, f"sqlite:///{path}", f"w{n}", str(times)) for n in range(workers)]
            outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in processes))
            assert [process.returncode for process in processes] == [0] * workers
            assert all(output.startswith("ready") for output, _ in outputs)
            for id in ("counter", "shared"):
                note = await data.get(Note, id)
                assert (note.text, note.version) == (str(times * workers), times * workers + 1)
            assert await data.count(Note) == 2 + times * workers

    async def test_two_sdks_may_make_the_tables_at_once(self, path: Path) -> None:
        async def opened() -> bytes:
            async with at(path) as sdk:
                await sdk.tenants.create("acme")
                return bytes(adapter_of(sdk)._durability, "ascii")

        assert await asyncio.gather(*(opened() for _ in range(4))) == [b"normal"] * 4

    async def test_full_durability_waits_for_the_disk(self, path: Path) -> None:
        async with at(path, database={"durability": "full"}) as sdk:
            setting = await on(sdk, "writer", _synchronous)
        assert setting == 2
        async with at(path) as sdk:
            assert await on(sdk, "writer", _synchronous) == 1


def _synchronous(connection: Connection) -> int:
    with connection.trusted():
        return int(connection.raw.execute("PRAGMA synchronous").fetchone()[0])


async def test_rows_are_what_any_tool_can_read(path: Path, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    """Text, numbers and JSON stand in the file as such; a backup is a copy of the file."""
    await acme.data.create(Sample(label="ü", number=5, data={"a": [1]}, day=dt.date(2026, 1, 2), flag=True))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT tenant_id, label, number, data, day, flag FROM samples").fetchone()
    assert row[:3] == ("acme", "ü", 5)
    assert json.loads(row[3]) == {"a": [1]}
    assert row[4:] == ("2026-01-02", 1)


async def test_a_crowd_of_one_tenant_delays_nobody_elses_read_or_write(sdk: MultiTenantSDK) -> None:
    loud, quiet = sdk.tenant("acme").data, sdk.tenant("globex").data

    async def read(data: DataManager) -> None:
        await data.count(Book)

    async def write(data: DataManager) -> None:
        await data.create(Book(title="new"))

    for work in (read, write):
        crowd = [asyncio.create_task(work(loud)) for _ in range(300)]
        await asyncio.sleep(0.005)
        await work(quiet)
        assert sum(task.done() for task in crowd) < 150
        await asyncio.gather(*crowd)
    measured = sdk.get_metrics()["pool"]
    assert measured["writer"]["waiting"] == measured["readers"]["waiting"] == 0
    assert measured["writer"]["waits"] > 250
