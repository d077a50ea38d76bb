"""How each answer looks. Nothing here asks anything: what was found goes in, something to print comes out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from examples.flights.models import Airport, Flight, Plane, Weather
from examples.flights.questions import Found, Route, Year
from examples.flights.trespass import Outcome

_BARS = "▁▂▃▄▅▆▇"  # one less than a line is high, so that lines stay apart
_LATE, _VERY_LATE = 8, 16  # minutes
_BAR_WIDTH = 40
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def heading(text: str) -> RenderableType:
    """Return the title of a section."""
    return Group("", Rule(Text(text, style="bold"), align="left", style="dim"))


def facts(rows: Iterable[tuple[str, RenderableType]], style: str = "dim") -> RenderableType:
    """Return labels and what belongs to them."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=style, min_width=10, no_wrap=True)
    grid.add_column()
    for label, value in rows:
        grid.add_row(label, value)
    return Padding(grid, (0, 0, 0, 1), expand=False)


def code(text: str) -> RenderableType:
    """Return Python code."""
    highlighted = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
    highlighted.rstrip()
    highlighted.no_wrap = False
    return Padding(highlighted, (0, 1), expand=False)


def minutes(delay: float | None) -> Text:
    """Return a delay in minutes, redder the later."""
    if delay is None:
        return Text("-", style="dim")
    sign = "-" if round(delay) < 0 else "+"
    return Text(f"{sign}{abs(delay):.0f} min", style=_colour(delay))


def _colour(delay: float) -> str:
    return "green" if delay < _LATE else "yellow" if delay < _VERY_LATE else "red"


def sparkline(months: Sequence[float | None]) -> Text:
    """Return a bar for each month, as high as its delay is beside the worst one's; a dot where nothing arrived."""
    top = max((delay for delay in months if delay is not None), default=0.0)
    line = Text()
    for delay in months:
        if delay is None:
            line.append("·", style="dim")
        else:
            height = round(max(delay, 0) / top * (len(_BARS) - 1)) if top > 0 else 0
            line.append(_BARS[height], style=_colour(delay))
    return line


def year_table(*, narrow: bool) -> Table:
    """Return the table, empty still, of all airlines' years; a narrow one goes without their names."""
    names = () if narrow else ("Airline",)
    table = _table("", *names, "Flights", "Delay", "Jan to Dec", "Worst route", "Unknown\naircraft")
    for column in table.columns:
        column.justify = "right" if column.header in ("Flights", "Delay", "Unknown\naircraft") else "left"
    table.columns[0].style = "bold cyan"
    return table


def year_notes() -> RenderableType:
    """Return what the columns of :func:`year_table` mean."""
    notes = (
        "Delays are means on arrival; the worst route is one of those flown twelve times or more. "
        "An aircraft is unknown if the shared register lacks it; no flight was left out for that."
    )
    return Padding(Text(notes, style="dim"), (0, 1), expand=False)


def year_row(code: str, name: str, year: Year, *, narrow: bool) -> list[RenderableType]:
    """Return an airline's row of :func:`year_table`."""
    unknown = year.unregistered.total() + year.unnamed
    share = f"{unknown / year.flights:>5.0%}" if year.flights else "     "
    return [
        code,
        *(() if narrow else (short(name),)),
        f"{year.flights:,}",
        minutes(year.delay),
        sparkline(year.months),
        route(year.routes[0]) if year.routes else Text("-", style="dim"),
        Text.assemble(f"{unknown:,}", (share, "dim")),
    ]


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", border_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def short(name: str) -> str:
    """Return the name of an airline as people say it."""
    for suffix in (" Inc.", " Co.", " Corporation"):
        name = name.removesuffix(suffix)
    return name


def route(worst: Route) -> Text:
    """Return a route and its delay."""
    return Text.assemble(f"{worst.origin} → {worst.destination} ", minutes(worst.delay))


def routes(worst: Sequence[Route]) -> RenderableType:
    """Return some routes with their delays."""
    table = _table("Route", "Arrivals", "Mean delay")
    for item in worst:
        table.add_row(f"{item.origin} → {item.destination}", f"{item.flights:>8,}", minutes(item.delay))
    return Padding(table, (0, 1), expand=False)


def months(delays: Sequence[float | None]) -> RenderableType:
    """Return a bar for each month."""
    grid = Table.grid(padding=(0, 2))
    top = max((abs(delay) for delay in delays if delay is not None), default=0.0) or 1.0
    for name, delay in zip(MONTHS, delays, strict=True):
        length = 0 if delay is None else round(abs(delay) / top * _BAR_WIDTH)
        grid.add_row(
            name, minutes(delay), Text("█" * length, style="dim" if delay is None else _colour(delay))
        )
    return Padding(grid, (1, 1, 0, 1), expand=False)


def flight(airline: str, found: Found) -> RenderableType:
    """Return one flight with what belongs to it."""
    it = found.flight
    title = f"{airline} {it.number} on {it.date:%A}, {day(it.date)}: {it.origin} → {it.destination}"
    rows = [
        ("to", _airport(it.destination, found.destination, it.miles)),
        ("with", _plane(it.tail_number, found.plane)),
        ("departed", Text.assemble(_moment(it.departure, it.departure_delay), _weather(found.weather))),
        ("arrived", _moment(it.arrival, it.arrival_delay)),
    ]
    return Group(Text(f" {title}", style="bold"), facts(rows))


def flight_line(airline: str, it: Flight) -> RenderableType:
    """Return one flight in one line."""
    start = f" {it.date:%d %b}  {airline} {it.number}  {it.origin} → {it.destination}  "
    tail = f"  {it.tail_number or 'aircraft not recorded'}"
    return Text.assemble(start, _moment(it.departure, it.departure_delay), (tail, "dim"))


def plane(it: Plane) -> RenderableType:
    """Return an aircraft."""
    return Text.assemble(" ", _plane(it.id, it))


def day(date: dt.date) -> str:
    """Return a date as people write it."""
    return f"{date.day} {date:%B %Y}"


def clock(time: int) -> str:
    """Return a time of the data set, 517, as 5:17."""
    return f"{time // 100}:{time % 100:02}"


def _airport(code: str, airport: Airport | None, miles: int) -> Text:
    known = f"{airport.name} ({code})" if airport else f"{code}, which the list of airports lacks"
    return Text(f"{known}, {miles:,} miles")


def _plane(tail: str | None, plane: Plane | None) -> Text:
    if plane is None:
        return Text(f"{tail}, which the register lacks" if tail else "not recorded", style="yellow")
    built = f", built in {plane.year}" if plane.year else ""
    return Text(f"{tail}, a {plane.manufacturer.title()} {plane.model} with {plane.seats} seats{built}")


def _weather(weather: Weather | None) -> str:
    if weather is None:
        return ""
    known = [
        f"{weather.temperature:.0f} °F" if weather.temperature is not None else "",
        f"wind of {weather.wind_speed:.0f} mph" if weather.wind_speed is not None else "",
        f"rain of {weather.precipitation} inches" if weather.precipitation else "",
        f"{weather.visibility:.0f} miles of sight",
    ]
    return f" at {', '.join(part for part in known if part)}"


def _moment(time: int | None, delay: int | None) -> Text:
    if time is None:
        return Text("never", style="red")
    if delay is None:
        return Text(clock(time))
    words = f"{delay} min late" if delay > 0 else f"{-delay} min early" if delay < 0 else "on time"
    return Text.assemble(f"{clock(time)}, ", (words, _colour(delay)))


def outcome(it: Outcome) -> RenderableType:
    """Return an attempt and how it ended."""
    if it.leaked:
        ended = Text("It succeeded, which is a leak.", style="bold red")
    elif it.error is None:
        ended = Text("no rows", style="bold yellow")
    else:
        ended = Text.assemble((type(it.error).__name__, "bold yellow"), f"  {it.error.message}")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text("   →", style="dim"), ended)
    return Group(code(f"{it.code}  # {it.title}"), grid)


def failure(message: str, fix: str | None = None) -> RenderableType:
    """Return an error for people."""
    text = Text(message.rstrip(), style="bold")
    if fix:
        text.append(f"\n{fix}", style="not bold")
    return Panel(text, title="That did not work", title_align="left", border_style="red")
