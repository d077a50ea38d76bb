"""``python -m examples.flights.picture FILE.svg`` draws a first run, as it looks in a terminal, for the README."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from examples.flights.__main__ import run
from examples.flights.screen import WIDTH, Screen

_THEME = TerminalTheme(
    background=(22, 27, 34),
    foreground=(214, 221, 230),
    normal=[
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (214, 221, 230),
    ],
    bright=[
        (110, 118, 129),
        (255, 161, 152),
        (126, 231, 135),
        (240, 200, 100),
        (165, 214, 255),
        (226, 197, 255),
        (120, 226, 234),
        (255, 255, 255),
    ],
)

# As rich's own, but with the fonts of whoever looks: a picture in a README may not fetch any.
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>The demonstration: sixteen airlines, each a tenant, on one database</title>
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main(target: Path) -> None:
    """Load everything into a new file, and write what that looks like to ``target``."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text.assemble(("$ ", "dim"), ("make run ARGS=--once", "bold")))
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        asyncio.Runner() as runner,
    ):
        run(runner, Screen(console, bar=True), "sqlite:///flights.db", None, once=True)
    svg = console.export_svg(title="tenantry", theme=_THEME, code_format=_FORMAT, unique_id="demo")
    target.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
