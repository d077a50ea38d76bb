"""The prompt that follows the summary: be an airline, ask about its flights, try to see another's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rich.text import Text

from examples.flights import show
from examples.flights.models import Flight, Plane
from examples.flights.questions import flights_of, look_up
from examples.flights.tour import Tour
from tenantry import TenantHandle, TenantryError

with contextlib.suppress(ImportError):
    import readline  # noqa: F401 - gives input() its history and editing

_YEAR = 2013
_FEW = 8


class Misunderstood(Exception):
    """What was typed is no question. The text says what would be."""


@dataclass(frozen=True, slots=True)
class Command:
    """What can be typed, and what it does with the words behind it."""

    example: str
    help: str
    run: Callable[[list[str]], Awaitable[None]]


class Prompt:
    """Asks the user for questions until there are no more.

    The loop runs only while a question is answered, so that Ctrl-C reaches whatever is going on.
    """

    def __init__(self, runner: asyncio.Runner, tour: Tour) -> None:
        self._runner = runner
        self._tour = tour
        self._screen = tour.screen
        self._airline = next(iter(tour.dataset.airlines))
        self._commands = {
            "airlines": Command("airlines", "who there is", self._airlines),
            "as": Command("as DL", "be another airline", self._be),
            "worst": Command("worst 5", "your worst routes", self._worst),
            "months": Command("months", "your delays from January to December", self._months),
            "flight": Command("flight 1545 7-4", "by number and day, with all it refers to", self._flight),
            "plane": Command(
                "plane N14228", "from the shared register, and what it flew for you", self._plane
            ),
            "unknown": Command("unknown", "aircraft of yours that the register lacks", self._unknown),
            "get": Command("get 3", "any flight by its row: yours is found, another's is not", self._get),
        }

    def run(self) -> None:
        """Answer until the input ends or somebody types ``quit``."""
        rows = [(it.example, Text(it.help)) for it in self._commands.values()]
        rows.append(("quit", Text("or Ctrl-D")))
        self._screen.show(show.heading("What to type next"), show.facts(rows, style="bold"), "")
        while (words := self._words()) is not None:
            if words:
                self._answer(*words)
                self._screen.show("")

    def _words(self) -> list[str] | None:
        try:
            line = input(f"{self._airline}> ")
        except (EOFError, KeyboardInterrupt):
            self._screen.show("")
            return None
        if not sys.stdin.isatty():
            self._screen.show(line)
        words = line.split()
        return None if words and words[0] in ("quit", "exit", "q") else words

    def _answer(self, name: str, *words: str) -> None:
        command = self._commands.get(name.lower())
        try:
            if command is None:
                raise Misunderstood(f"Type one of: {', '.join(self._commands)}, quit.")
            self._runner.run(self._ask(command, list(words)))
        except Misunderstood as misunderstood:
            self._screen.show(Text(f" {misunderstood}", style="yellow"))
        except TenantryError as error:
            self._screen.show(Text.assemble((f" {type(error).__name__}", "bold yellow"), f"  {error}"))
        except KeyboardInterrupt:
            self._screen.show(" Stopped.")

    async def _ask(self, command: Command, words: list[str]) -> None:
        await command.run(words)

    @property
    def _handle(self) -> TenantHandle:
        return self._tour.sdk.tenant(self._airline)

    # -- the commands

    async def _airlines(self, words: list[str]) -> None:
        page = await self._tour.sdk.tenants.list()
        self._screen.show(show.facts((tenant.id, Text(tenant.name)) for tenant in page))

    async def _be(self, words: list[str]) -> None:
        code = _word(words, "as DL").upper()
        if code not in self._tour.dataset.airlines:
            raise Misunderstood(f"The airlines are {', '.join(sorted(self._tour.dataset.airlines))}.")
        self._airline = code
        self._screen.show(f" You are {self._tour.dataset.airlines[code]} now.")

    async def _worst(self, words: list[str]) -> None:
        number = _number(words[0]) if words else _FEW
        self._screen.show(show.routes(self._tour.years[self._airline].routes[:number]))

    async def _months(self, words: list[str]) -> None:
        self._screen.show(show.months(self._tour.years[self._airline].months))

    async def _flight(self, words: list[str]) -> None:
        number = _number(_word(words, "flight 1545 7-4"))
        if len(words) == 1:
            await self._list({"number": number})
            return
        date = _date(words[1])
        name = self._airline.lower()
        where = f"lambda f: (f.number == {number}) & (f.date == date({date.year}, {date.month}, {date.day}))"
        self._code(f'{name}.data.read(Flight, {where}, include=["plane", "destination"])')
        found = await look_up(self._handle, number, date)
        self._screen.show(*(show.flight(self._airline, it) for it in found))
        if not found:
            self._screen.show(f" {self._airline} flew no {number} on {show.day(date)}.")

    async def _plane(self, words: list[str]) -> None:
        tail = _word(words, "plane N14228").upper()
        self._code(f'{self._airline.lower()}.data.get(Plane, "{tail}")')
        self._screen.show(show.plane(await self._handle.data.get(Plane, tail)))
        await self._list({"tail_number": tail})

    async def _unknown(self, words: list[str]) -> None:
        year = self._tour.years[self._airline]
        rows = [(tail, Text(f"{flights:,} flights")) for tail, flights in year.unregistered.most_common(_FEW)]
        total = f"{len(year.unregistered):,} aircraft, {year.unregistered.total():,} flights"
        self._screen.show(
            show.facts([*rows, ("in all", Text(total)), ("none named", Text(f"{year.unnamed:,} flights"))])
        )

    async def _get(self, words: list[str]) -> None:
        row = _number(_word(words, "get 3"))
        self._code(f"{self._airline.lower()}.data.get(Flight, {row})")
        self._screen.show(show.flight_line(self._airline, await self._handle.data.get(Flight, row)))

    async def _list(self, where: dict[str, object]) -> None:
        self._code(f'{self._airline.lower()}.data.read(Flight, {where}, order_by="date", limit={_FEW})')
        flights = await flights_of(self._handle, where, _FEW)
        self._screen.show(*(show.flight_line(self._airline, flight) for flight in flights))
        if not flights:
            self._screen.show(" No flights of this airline.")

    def _code(self, text: str) -> None:
        self._screen.show(show.code(f"await {text}"))


def _word(words: list[str], example: str) -> str:
    if not words:
        raise Misunderstood(f"For example: {example}")
    return words[0]


def _number(text: str) -> int:
    if not text.isdecimal():
        raise Misunderstood(f"{text} is no number.")
    return int(text)


def _date(text: str) -> dt.date:
    try:
        month, day = (int(part) for part in text.removeprefix(f"{_YEAR}-").split("-"))
        return dt.date(_YEAR, month, day)
    except ValueError:
        raise Misunderstood(f"{text} is no day of {_YEAR}; write month-day, such as 7-4.") from None
