"""Where everything is printed: a terminal, with colours and moving bars, or a file, in plain and sparse lines."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH = 100
_WIDEST_TABLE = 98
_SECONDS_BETWEEN_LINES = 2.0

Advance = Callable[[str, int], None]


class Screen:
    """Prints, at most :data:`WIDTH` columns wide.

    Args:
        console: Where to; the standard output if not given.
        bar: Whether loading shows a bar; by default where the console is a terminal.
    """

    def __init__(self, console: Console | None = None, *, bar: bool | None = None) -> None:
        self.console = console or _console()
        self._has_bar = self.console.is_terminal if bar is None else bar

    @property
    def narrow(self) -> bool:
        """Whether the widest tables do not fit."""
        return self.console.width < _WIDEST_TABLE

    def show(self, *renderables: RenderableType) -> None:
        """Print each of them."""
        for renderable in renderables:
            self.console.print(renderable, markup=False, emoji=False)

    @contextmanager
    def loading(self, total: int, stored: int) -> Iterator[Advance]:
        """Show how far the loading is. Give a function that takes an airline and how many rows were added."""
        if self._has_bar and stored < total:
            with self._bar(total, stored) as advance:
                yield advance
        else:
            yield self._lines(total, stored)

    @contextmanager
    def _bar(self, total: int, stored: int) -> Iterator[Advance]:
        columns = (
            TextColumn(" {task.description:<10}", style="dim"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.completed:>7,} of {task.total:,}"),
            _Rate(),
            TimeRemainingColumn(compact=True),
        )
        moves = self.console.is_terminal
        with Progress(
            *columns, console=self.console, expand=True, transient=True, disable=not moves
        ) as progress:
            task = progress.add_task("", total=total, completed=stored)

            def advance(code: str, rows: int) -> None:
                progress.update(task, advance=rows, description=f"loading {code}")

            yield advance
        progress.update(task, description="loading")
        self.show(progress.get_renderable())

    def _lines(self, total: int, stored: int) -> Advance:
        began = spoke = time.monotonic()
        done = stored

        def advance(code: str, rows: int) -> None:
            nonlocal done, spoke
            done += rows
            now = time.monotonic()
            if now - spoke >= _SECONDS_BETWEEN_LINES:
                spoke, rate = now, (done - stored) / (now - began)
                self.show(f" {code}  {done:>9,} of {total:,} ({done / total:.0%}), {rate:,.0f} rows/s")

        return advance

    @contextmanager
    def growing(self, table: Table) -> Iterator[Callable[[], None]]:
        """Show a table that grows. Give a function to call after each row."""
        shown = Padding(table, (0, 1), expand=False)
        if not self.console.is_terminal:
            yield lambda: None
            self.show(shown)
            return
        with Live(shown, console=self.console, auto_refresh=False, vertical_overflow="visible") as live:
            yield live.refresh


class _Rate(ProgressColumn):
    """Rows a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0
        return Text(f"{speed:>6,.0f} rows/s", style="cyan")


def _console() -> Console:
    # What a terminal or a file cannot show becomes a question mark, not a traceback.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console
