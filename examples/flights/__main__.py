"""``python -m examples.flights``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.panel import Panel
from rich.text import Text

from examples.flights import show
from examples.flights.dataset import Dataset, DatasetMissing
from examples.flights.load import NotThisDataset
from examples.flights.models import MODELS
from examples.flights.prompt import Prompt
from examples.flights.screen import Screen
from examples.flights.server import database_options
from examples.flights.tour import Leak, Tour
from tenantry import MultiTenantSDK, TenantryError

DEFAULT = Path(__file__).resolve().parents[2] / "var" / "flights.db"
FEWEST = 100
INTERRUPTED = 130
_NEXT = (
    ("make run", Text("the same data, loaded already, and a prompt to ask more")),
    ('make run ARGS="--database postgresql://…"', Text("the same on a server")),
    ("make test", Text("everything that was claimed here, proved")),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; return the program's exit status."""
    options = _parser().parse_args(arguments)
    screen = Screen()
    try:
        with asyncio.Runner() as runner:
            run(runner, screen, options.database or _default(), options.rows, once=options.once)
    except KeyboardInterrupt:
        screen.show("\n Stopped. What was loaded is kept: the same command goes on from there.")
        return INTERRUPTED
    except TenantryError as error:
        screen.show(show.failure(error.message, error.fix))
    except (DatasetMissing, NotThisDataset, Leak, OSError) as error:
        screen.show(show.failure(str(error)))
    else:
        return 0
    return 1


def run(runner: asyncio.Runner, screen: Screen, url: str, rows: int | None, *, once: bool) -> None:
    """Run the demonstration on one database."""
    screen.show(_title(url))
    dataset = Dataset(rows)
    database = runner.run(database_options(url, os.environ))
    sdk = MultiTenantSDK.open(models=MODELS, schema="create", database=database)
    try:
        runner.run(sdk.initialize())
        tour = Tour(sdk, dataset, screen)
        runner.run(tour.run())
        if once:
            screen.show(show.heading("What to type next"), show.facts(_NEXT, style="bold"))
        else:
            Prompt(runner, tour).run()
    finally:
        runner.run(sdk.close())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights",
        description="336,776 flights that left New York in 2013, each airline a tenant of its own.",
    )
    parser.add_argument(
        "--database", metavar="URL", help="where the data is kept; a file under var/ if not given"
    )
    parser.add_argument("--once", action="store_true", help="end after the summary, without asking anything")
    parser.add_argument("--rows", type=_rows, metavar="N", help="only the first N flights")
    return parser


def _rows(text: str) -> int:
    number = int(text)
    if number < FEWEST:
        raise argparse.ArgumentTypeError(f"at least {FEWEST}")
    return number


def _default() -> str:
    DEFAULT.parent.mkdir(exist_ok=True)
    here = Path.cwd()
    return f"sqlite:///{DEFAULT.relative_to(here) if DEFAULT.is_relative_to(here) else DEFAULT}"


def _title(url: str) -> Panel:
    text = Text.assemble(
        ("tenantry", "bold cyan"), "  every flight that left New York in 2013, each airline a tenant\n"
    )
    text.append(_shown(url), style="dim")
    return Panel(text, border_style="cyan")


def _shown(url: str) -> str:
    """Return the URL without its password."""
    parts = urlsplit(url)
    if parts.password:
        return url.replace(f":{parts.password}@", ":…@", 1)
    return url


if __name__ == "__main__":
    sys.exit(main())
