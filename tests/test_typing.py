"""The types of results and filters, proved by mypy over `tests/typing`.

`assert_type` there fails where a type is another one, and an ignored error that does not occur is an error itself; so
the files pass only if mypy accepts and refuses exactly what they say.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "typing"


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mypy as the project is configured."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy_accepts_and_refuses_what_the_files_say() -> None:
    done = mypy("tests/typing")
    assert (done.stdout, done.returncode) == ("", 0)


def test_without_the_comments_each_line_is_an_error(tmp_path: Path) -> None:
    """So that the proof does not rest on a setting of mypy."""
    source = (FOLDER / "filters.py").read_text("utf-8")
    bare = tmp_path / "bare.py"
    bare.write_text(re.sub(r"  # type: ignore\[.*?\]", "", source), "utf-8")
    done = mypy("--show-error-codes", str(bare))
    refused = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    expected = {number for number, line in enumerate(source.splitlines(), 1) if "# type: ignore" in line}
    assert refused == expected
    assert len(expected) >= 20


@pytest.mark.parametrize("name", ["results.py", "filters.py", "synchronous.py"])
def test_the_files_import(name: str) -> None:
    compile((FOLDER / name).read_text("utf-8"), name, "exec")
    __import__(f"tests.typing.{name.removesuffix('.py')}")
