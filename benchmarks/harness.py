"""Contenders that take turns, and the table of their ratios."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

# Called with the number of the task and a running number.
Operation = Callable[[int, int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the same thing.

    Attributes:
        name: As it stands in the table.
        operation: Does it once.
        tasks: How many do it at the same time.
    """

    name: str
    operation: Operation
    tasks: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster ``ours`` is than ``peer``; the aim, if there is one, is at least ``target``."""

    name: str
    ours: str
    peer: str
    target: float | None = None


@dataclass(slots=True)
class Report:
    """What a benchmark found."""

    benchmark: str
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(
            {"benchmark": self.benchmark, "figures": self.figures, "ratios": self.ratios}, sort_keys=True
        )


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds in which every contender has its turn, and the seconds of a turn."""

    rounds: int
    seconds: float

    @classmethod
    def of(cls, *, quick: bool) -> Effort:
        """Return the effort of a full run, or of one that takes well under a minute."""
        return cls(rounds=7, seconds=0.6) if quick else cls(rounds=15, seconds=2.0)


async def compare(contenders: list[Contender], effort: Effort, console: Console) -> dict[str, list[float]]:
    """Return the operations per second of each contender, a number for each round.

    The order turns with every round, so that no contender always follows the same other one.
    """
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        await _turn(contender, 0.2)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=effort.rounds * len(contenders))
        for number in range(effort.rounds):
            shift = number % len(contenders)
            for contender in contenders[shift:] + contenders[:shift]:
                gc.collect()
                rates[contender.name].append(await _turn(contender, effort.seconds))
                progress.advance(task)
    return rates


async def _turn(contender: Contender, seconds: float) -> float:
    operation = contender.operation
    started = time.perf_counter()
    until = started + seconds

    async def work(task: int) -> int:
        done = 0
        while time.perf_counter() < until:
            await operation(task, done)
            done += 1
        return done

    counts = await asyncio.gather(*(work(task) for task in range(contender.tasks)))
    return sum(counts) / (time.perf_counter() - started)


def judge(benchmark: str, rates: dict[str, list[float]], ratios: list[Ratio], console: Console) -> Report:
    """Print the table and return the report. A ratio is the median of those of the rounds."""
    report = Report(benchmark)
    table = Table(title=benchmark, title_justify="left")
    for heading in ("contender", "median ops/s", "min", "max"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, values in rates.items():
        report.figures[f"{name}_per_second"] = round(statistics.median(values), 1)
        table.add_row(
            name, *(f"{value:,.0f}" for value in (statistics.median(values), min(values), max(values)))
        )
    console.print(table)
    outcome = Table(title="ratios, median of the rounds", title_justify="left")
    for heading in ("ratio", "ours / peer", "min … max", "median", "target", ""):
        outcome.add_column(heading, justify="right" if heading in ("median", "target") else "left")
    for ratio in ratios:
        pairs = [ours / peer for ours, peer in zip(rates[ratio.ours], rates[ratio.peer], strict=True)]
        median = statistics.median(pairs)
        report.ratios[ratio.name] = round(median, 3)
        spread = f"{min(pairs):.2f} … {max(pairs):.2f}"
        row = [ratio.name, f"{ratio.ours} / {ratio.peer}", spread, f"{median:.2f}"]
        if ratio.target is not None:
            verdict = "[green]met[/]" if median >= ratio.target else "[red]missed[/]"
            row += [f"≥ {ratio.target}", verdict]
        outcome.add_row(*row)
    console.print(outcome)
    return report
