"""The command ``tenantry``."""

from __future__ import annotations

import sys

from tenantry.errors import MissingExtra

_BROUGHT_BY_THE_EXTRA = ("typer", "rich", "click", "shellingham")


def app() -> None:
    """Run the command line; without typer, say how to install it."""
    try:
        from tenantry.cli.commands import commands
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in _BROUGHT_BY_THE_EXTRA:
            raise
        sys.exit(str(MissingExtra(package, "cli")))
    commands(prog_name="tenantry")
