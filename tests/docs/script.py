"""Runs a page as one script, from top to bottom, in an empty folder.

Blocks of Python share one namespace and one event loop, and may await at the top level, as in ``python -m asyncio``. A
block with a title is written to that file, for later blocks to import or run. What a block prints is compared with
its lines ``#> …``; a block that prints has such lines. In a block of ``console`` the lines ``$ …`` are commands, and
what follows them is what they print. ``...`` stands for any text.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.metadata
import inspect
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.docs import commands
from tests.docs.pages import ROOT, Block, Page

COMMAND_SECONDS = 60

SetVariable = Callable[[str, str], None]


def run(page: Page, folder: Path, set_variable: SetVariable) -> None:
    """Run the blocks of ``page`` in ``folder``, which is the current one already.

    Args:
        page: The page.
        folder: An empty folder.
        set_variable: Sets a variable of the environment, for as long as the page runs.
    """
    name = re.sub(r"\W", "_", page.path.stem)
    module = types.ModuleType(f"docs_{name}")
    before = set(sys.modules)
    sys.modules[module.__name__] = module  # pydantic and FastAPI look annotations up there
    try:
        with asyncio.Runner() as runner:
            for block in page.blocks:
                if block.not_run is None:
                    _run_block(page, block, module, runner, set_variable)
    finally:
        for loaded in set(sys.modules) - before:
            origin = getattr(sys.modules[loaded], "__file__", None)
            if loaded == module.__name__ or (origin and Path(origin).is_relative_to(folder)):
                del sys.modules[loaded]


def _run_block(
    page: Page, block: Block, module: types.ModuleType, runner: asyncio.Runner, set_variable: SetVariable
) -> None:
    if block.title is not None:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        _run_python(page, block, module, runner)
    elif block.language == "console":
        for command, expected in commands_of(block):
            _run_command(page, block, command, expected, set_variable)


def _run_python(page: Page, block: Block, module: types.ModuleType, runner: asyncio.Runner) -> None:
    code = compile(
        "\n" * block.line + block.text,  # so that a traceback names the line of the page
        str(page.path),
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        outcome = eval(code, module.__dict__)  # noqa: S307 - the page is our own
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(outcome)
    expected = re.findall(r"^\s*#> ?(.*)$", block.text, re.MULTILINE)
    _compare(page, block, expected, printed.getvalue())


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of a ``console`` block, each with the lines that it prints."""
    command, printed = "", list[str]()
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:], []
        elif command.endswith("\\"):
            command = command[:-1] + line.strip()
        else:
            printed.append(line)
    if command:
        yield command, printed


def _run_command(
    page: Page, block: Block, command: str, expected: list[str], set_variable: SetVariable
) -> None:
    commands.check(command)
    if not commands.is_run(command):
        return
    if commands.changes_environment(command):
        for variable in _shell(f"{command}; env -0").stdout.split("\0"):
            name, _, value = variable.partition("=")
            if name.startswith("TENANTRY_"):
                set_variable(name, value)
        return
    done = _shell(command)
    where = f"{page}:{block.line}: $ {command}"
    assert done.returncode == 0 or expected, f"{where} ended with {done.returncode}:\n{done.stdout}"
    if expected:
        _compare(page, block, expected, done.stdout)


def _shell(command: str) -> subprocess.CompletedProcess[str]:
    programs = str(Path(sys.executable).parent)
    known = {entry.name for entry in importlib.metadata.entry_points(group="pytest11")}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env={
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            # An environment that was set up before the plugin had an entry point does not load it by itself.
            **({} if "tenantry" in known else {"PYTEST_PLUGINS": "tenantry.testing.plugin"}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def _compare(page: Page, block: Block, expected: list[str], printed: str) -> None:
    wanted = "\n".join(line.rstrip() for line in expected).strip("\n")
    got = "\n".join(line.rstrip() for line in printed.splitlines()).strip("\n")
    pattern = ".*".join(map(re.escape, wanted.split("...")))
    assert re.fullmatch(pattern, got, re.DOTALL), (
        f"{page}:{block.line}: the block prints\n{got}\nand the page says\n{wanted}"
    )
