"""What the commands in ``console`` blocks may be, and which of them are run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from tenantry.cli.commands import commands as tenantry_commands
from tests.docs.pages import ROOT

# Run for real; the others are checked as far as can be, and belong to the reader's own machine.
_RUN = frozenset({"alembic", "cat", "chmod", "ls", "pytest", "python", "set", "tenantry"})
_READ = frozenset(
    {"cd", "createdb", "curl", "export", "git", "gunicorn", "make", "mkdir", "pip", "psql", "uvicorn"}
)


def is_run(command: str) -> bool:
    """Whether the test runs the command."""
    return _program(command) in _RUN


def changes_environment(command: str) -> bool:
    """Whether what follows needs the variables that the command sets."""
    return _program(command) == "set"


def check(command: str) -> None:
    """Fail unless the command is one that exists."""
    program, *arguments = _words(command)
    assert program in _RUN | _READ, f"`{command}` is no command that the pages know"
    if program == "make":
        assert arguments[0] in _targets(), f"`{command}`: there is no such target"
    elif program == "pip":
        _check_extras(arguments)
    elif program == "tenantry":
        _check_tenantry(command, arguments)


def _program(command: str) -> str:
    return _words(command)[0]


def _words(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    return words


@cache
def _targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def _check_extras(arguments: list[str]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        known = set(tomllib.load(file)["project"]["optional-dependencies"])
    for argument in arguments:
        found = re.fullmatch(r"tenantry\[([\w,]+)\]", argument)
        for extra in found[1].split(",") if found else []:
            assert extra in known, f"tenantry has no extra {extra!r}"


def leaves() -> Iterator[tuple[str, set[str]]]:
    """Yield each command of `tenantry`, such as `keys rotate`, with its options."""
    todo: list[tuple[str, Any]] = [("", typer.main.get_command(tenantry_commands))]
    while todo:
        name, command = todo.pop(0)
        children = getattr(command, "commands", None)
        if children is None:
            options = {
                text for parameter in command.params for text in parameter.opts if text.startswith("--")
            }
            yield name, options
        else:
            todo += [(f"{name} {child}".strip(), found) for child, found in children.items()]


def _check_tenantry(command: str, arguments: list[str]) -> None:
    words = " ".join(arguments)
    for name, options in leaves():
        if f"{words} ".startswith(f"{name} "):
            used = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert used <= {*options, "--help"}, f"`{command}` knows {sorted(options)}"
            return
    assert words in ("--help", "--version"), f"`{command}`: there is no such command"
