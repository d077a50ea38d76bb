"""The questions, each answered from the rows of the one airline that asks."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from examples.flights.models import Airport, Flight, Plane, Weather, weather_id
from tenantry import MultiTenantSDK, Record, TenantHandle
from tenantry.errors import NotFound

PAGE = 10_000
ENOUGH = 12  # flights a year below which one bad day makes a route the worst
_FIELDS = ("date", "origin", "destination", "arrival_delay", "tail_number")


@dataclass(frozen=True, slots=True)
class Route:
    """A route, with how many flights arrived and their mean delay in minutes; early is negative."""

    origin: str
    destination: str
    flights: int
    delay: float


@dataclass(frozen=True, slots=True)
class Year:
    """What an airline's flights say of its year.

    Attributes:
        flights: How many there were.
        delay: The mean delay on arrival in minutes, early being negative; ``None`` if nothing arrived.
        months: The same for January to December.
        routes: Those flown at least :data:`ENOUGH` times, the worst first; all of them if none is.
        unregistered: By tail number, the flights with an aircraft that the shared register lacks.
        unnamed: Flights that name no aircraft at all.
    """

    flights: int
    delay: float | None
    months: tuple[float | None, ...]
    routes: tuple[Route, ...]
    unregistered: Counter[str]
    unnamed: int


@dataclass(frozen=True, slots=True)
class Found:
    """A flight with what it refers to, where that is known."""

    flight: Flight
    plane: Plane | None
    destination: Airport | None
    weather: Weather | None


async def registered_aircraft(airline: TenantHandle) -> frozenset[str]:
    """Return the tail numbers in the shared register."""
    page = await airline.data.read(Plane, fields=["id"], limit=PAGE)
    return frozenset(row["id"] for row in page)


async def year_of(airline: TenantHandle, registered: frozenset[str]) -> Year:
    """Read all flights of an airline, a page at a time, and sum them up."""
    delays: dict[tuple[int, str, str], list[int]] = defaultdict(list)
    tails: Counter[str | None] = Counter()
    async for rows in _pages(airline, _FIELDS):
        for row in rows:
            if row["arrival_delay"] is not None:
                delays[row["date"].month, row["origin"], row["destination"]].append(row["arrival_delay"])
        tails.update(row["tail_number"] for row in rows)
    months: dict[int, list[int]] = defaultdict(list)
    routes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (month, origin, destination), minutes in delays.items():
        months[month] += minutes
        routes[origin, destination] += minutes
    return Year(
        flights=tails.total(),
        delay=_mean([minutes for part in months.values() for minutes in part]),
        months=tuple(_mean(months[month]) for month in range(1, 13)),
        routes=_worst_first(routes),
        unnamed=tails.pop(None, 0),
        unregistered=Counter({tail: n for tail, n in tails.items() if tail and tail not in registered}),
    )


async def _pages(airline: TenantHandle, fields: Sequence[str]) -> AsyncIterator[Sequence[Record]]:
    cursor = None
    while True:
        page = await airline.data.read(Flight, fields=fields, limit=PAGE, cursor=cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def _mean(minutes: Sequence[int]) -> float | None:
    return sum(minutes) / len(minutes) if minutes else None


def _worst_first(routes: Mapping[tuple[str, str], Sequence[int]]) -> tuple[Route, ...]:
    flown = [Route(*ends, len(minutes), sum(minutes) / len(minutes)) for ends, minutes in routes.items()]
    regular = [route for route in flown if route.flights >= ENOUGH]
    return tuple(sorted(regular or flown, key=lambda route: -route.delay))


async def look_up(airline: TenantHandle, number: int, date: dt.date) -> list[Found]:
    """Return the flights of this number on this day, with aircraft, destination and the weather at departure."""
    page = await airline.data.read(
        Flight, lambda f: (f.number == number) & (f.date == date), include=["plane", "destination"]
    )
    planes, airports = page.included["plane"], page.included["destination"]
    return [
        Found(
            flight,
            planes.get(flight.tail_number),
            airports.get(flight.destination),
            await _weather(airline, flight),
        )
        for flight in page
    ]


async def flights_of(airline: TenantHandle, where: Mapping[str, object], limit: int) -> Sequence[Flight]:
    """Return the first flights of the year that meet a filter."""
    return await airline.data.read(Flight, where, order_by="date", limit=limit)


async def _weather(airline: TenantHandle, flight: Flight) -> Weather | None:
    try:
        return await airline.data.get(Weather, weather_id(flight.origin, flight.hour))
    except NotFound:
        return None


async def lookups_per_second(
    sdk: MultiTenantSDK, rows: Mapping[str, Sequence[int]], each: int = 400
) -> float:
    """Return how many flights a second are found by id while every airline looks up ``each`` of its own."""

    async def ask(airline: TenantHandle, ids: Sequence[int]) -> None:
        for id in random.choices(ids, k=each):
            await airline.data.get(Flight, id)

    owners = {code: ids for code, ids in rows.items() if ids}
    started = time.perf_counter()
    await asyncio.gather(*(ask(sdk.tenant(code), ids) for code, ids in owners.items()))
    return each * len(owners) / (time.perf_counter() - started)
