"""What a command says: lines for people, or one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

_JSON = "tenantry.json"


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta[_JSON] = value
    return value


AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, also for an error.", callback=_remember)
]


def wants_json(context: Any) -> bool:
    """Whether the command that ran in ``context`` was given ``--json``, and got as far as to read that."""
    return bool(context.meta.get(_JSON, False))


class Output:
    """Prints what a command found, in one of two forms.

    Args:
        as_json: Print only what :meth:`result` is given, as JSON.
        stderr: Print lines to the standard error instead.
    """

    def __init__(self, as_json: bool, *, stderr: bool = False) -> None:
        self.as_json = as_json
        self._console = Console(stderr=stderr, highlight=False, soft_wrap=True)

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Print a line for people: texts, and pairs of a text and its style. Long ones are never cut or wrapped."""
        if not self.as_json:
            self._console.print(Text.assemble(*(_plain(part) for part in parts)))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows for people, in columns as wide as they need to be."""
        listed = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(head, *listed, strict=True)]
        for number, row in enumerate([head, *listed]):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.line((text.rstrip(), "bold" if number == 0 else ""))

    def result(self, data: Any) -> None:
        """Print ``data`` as JSON, if that is asked for."""
        if self.as_json:
            typer.echo(json.dumps(data, indent=2, default=str, ensure_ascii=False))


def printable(text: str) -> str:
    """Return ``text`` without anything that a terminal would obey: names in a database are anybody's."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _plain(part: str | tuple[str, str]) -> str | tuple[str, str]:
    show: Callable[[str], str] = printable
    return show(part) if isinstance(part, str) else (show(part[0]), part[1])
