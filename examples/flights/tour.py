"""The demonstration from the first row to the last figure."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field

from rich.text import Text

from examples.flights import show
from examples.flights.dataset import Dataset
from examples.flights.load import CHUNK, count_flights, create_airlines, load_flights, load_shared
from examples.flights.models import Flight
from examples.flights.questions import PAGE, Year, look_up, lookups_per_second, registered_aircraft, year_of
from examples.flights.screen import Screen
from examples.flights.trespass import trespass
from tenantry import MultiTenantSDK

_LOOK_UP = """\
async with sdk.tenant("UA") as united:
    page = await united.data.read(
        Flight, lambda f: (f.number == 1545) & (f.date == day), include=["plane", "destination"]
    )"""
_SYSTEM = """\
async with sdk.system(reason="yearly report") as system:
    await system.data.count(Flight)  # """


class Leak(Exception):
    """One airline reached another's data."""

    def __str__(self) -> str:
        return "One airline reached another's data. Please report it."


@dataclass(slots=True)
class Figures:
    """What was measured, in rows a second; ``None`` where nothing was loaded."""

    loaded: float | None = None
    read: float = 0.0
    found: float = 0.0


@dataclass(slots=True)
class Tour:
    """One run. Keeps the years, so that later questions about them read nothing again."""

    sdk: MultiTenantSDK
    dataset: Dataset
    screen: Screen
    figures: Figures = field(default_factory=Figures)
    years: dict[str, Year] = field(default_factory=dict)

    async def run(self) -> None:
        """Do everything, in the order in which it is shown."""
        await self.load()
        await self.ask()
        await self.look_up()
        await self.trespass()
        await self.count_all()
        await self.measure()

    async def load(self) -> None:
        """Bring in what is not stored yet."""
        await create_airlines(self.sdk, self.dataset)
        await load_shared(self.sdk, self.dataset)
        airports, planes, weather = (f"{len(table):,}" for table in self.dataset.shared)
        shared = f"{airports} airports, {planes} aircraft, {weather} hours of weather, read by all, written by none"
        self.screen.show(show.facts([("shared", Text(shared))]))
        stored = sum((await count_flights(self.sdk, self.dataset)).values())
        began, total = time.perf_counter(), self.dataset.rows
        with self.screen.loading(total, stored) as advance:
            async for code, added in load_flights(self.sdk, self.dataset):
                advance(code, added)
        seconds = time.perf_counter() - began
        if stored < total:
            self.figures.loaded = (total - stored) / seconds
        loaded = _loaded(total, stored, seconds, len(self.dataset.airlines))
        self.screen.show(show.facts([("flights", loaded)]))

    async def ask(self) -> None:
        """Let each airline ask of its own year."""
        self.screen.show(show.heading("Every airline asks the same questions, and its own rows answer"))
        table = show.year_table(narrow=self.screen.narrow)
        registered = await registered_aircraft(self.sdk.tenant(next(iter(self.dataset.airlines))))
        began = time.perf_counter()
        with self.screen.growing(table) as refresh:
            for code, name in self.dataset.airlines.items():
                async with self.sdk.tenant(code) as airline:
                    self.years[code] = await year_of(airline, registered)
                table.add_row(*show.year_row(code, name, self.years[code], narrow=self.screen.narrow))
                refresh()
        self.screen.show(show.year_notes())
        rows = sum(year.flights for year in self.years.values())
        self.figures.read = rows / (time.perf_counter() - began)

    async def look_up(self) -> None:
        """Find one flight, with what it refers to."""
        self.screen.show(show.heading("United looks up a flight, with the shared data it refers to"))
        self.screen.show(show.code(_LOOK_UP))
        async with self.sdk.tenant("UA") as united:
            for found in await look_up(united, 1545, dt.date(2013, 1, 1)):
                self.screen.show(show.flight("UA", found))

    async def trespass(self) -> None:
        """Let one airline try to reach another's data."""
        self.screen.show(show.heading("Delta tries to reach United's data"))
        outcomes = [outcome async for outcome in trespass(self.sdk)]
        self.screen.show(*(show.outcome(outcome) for outcome in outcomes))
        if any(outcome.leaked for outcome in outcomes):
            raise Leak
        reached = f" ✓ {len(outcomes)} attempts, and not one row of United's was reached"
        self.screen.show(Text(reached, style="green"))

    async def count_all(self) -> None:
        """Count every airline's flights, as the system may, if it says why."""
        async with self.sdk.system(reason="yearly report", actor="examples.flights") as system:
            count = await system.data.count(Flight)
        title = "Work across tenants has a door of its own, and the audit log keeps the reason"
        self.screen.show(show.heading(title), show.code(f"{_SYSTEM}{count:,}"))

    async def measure(self) -> None:
        """Measure look-ups, then show all figures."""
        ids = {code: table.numbers for code, table in self.dataset.flights.items()}
        self.figures.found = await lookups_per_second(self.sdk, ids)
        self.screen.show(show.heading("Figures of this run"), show.facts(_figures(self.figures)))


def _loaded(total: int, stored: int, seconds: float, airlines: int) -> Text:
    if stored == total:
        return Text(f"{total:,} of {airlines} airlines, loaded earlier and used again")
    text = f"{total - stored:,} of {airlines} airlines, loaded in {seconds:.1f} s"
    return Text(f"{text}; {stored:,} were there already" if stored else text)


def _figures(figures: Figures) -> list[tuple[str, Text]]:
    rows = [
        ("read", figures.read, f"rows/s, by cursor in pages of {PAGE:,}"),
        ("found", figures.found, "look-ups/s by id, all airlines at once"),
    ]
    if figures.loaded is not None:
        rows.insert(0, ("loaded", figures.loaded, f"rows/s, validated, in transactions of {CHUNK:,}"))
    return [(label, Text.assemble((f"{rate:>9,.0f}", "bold cyan"), f" {unit}")) for label, rate, unit in rows]
