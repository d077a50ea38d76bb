"""Each guard is needed: without it, every test that is named for it turns red.

A patch takes one guard out. It begins with `# test:` and the tests that must fail, separated by commas. It is applied
to a copy of the source, which the tests then import. One that no longer applies is an error, so that no guard loses
its proof unseen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MISSING

ROOT = Path(__file__).parents[2]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
COPIED = ("examples", "src", "tests", "pyproject.toml")
HEADER = "# test: "
TESTS_FAILED = 1

# Their tests are written where they are public.
SUITES = ("tests/conformance/test_suite.py", "tests/security/test_conformance.py")
CONFORMANCE = ROOT / "src" / "tenantry" / "testing" / "conformance"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Give a copy of the source and the tests; with what was compiled of them, which saves half of a run."""
    ignored = shutil.ignore_patterns("*.patch", ".hypothesis")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_guard_is_missed(patch: Path, copy: Path) -> None:
    tests = _tests_of(patch)
    applied = _run(copy, "git", "apply", "-C1", str(patch))
    assert applied.returncode == 0, f"{patch.name} no longer applies:\n{applied.stderr}"
    # -rfEs: each test that failed, each that could not even be set up, and why one was skipped
    plugins = [part for name in ("cacheprovider", "faker", "xdist") for part in ("-p", f"no:{name}")]
    options = ("-q", "-rfEs", "--hypothesis-profile=mutants", *plugins)
    done = _run(copy, sys.executable, "-m", "pytest", *options, *tests)
    if MISSING in done.stdout and done.returncode != TESTS_FAILED:
        pytest.skip(next(line for line in done.stdout.splitlines() if MISSING in line))
    assert done.returncode == TESTS_FAILED, _report(patch, done)
    failed = [line.removeprefix("FAILED ") for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    for test in tests:
        assert any(line.startswith(test) for line in failed), _report(patch, done)


def test_what_is_tested_is_the_copy(copy: Path) -> None:
    done = _run(
        copy, sys.executable, "-c", "import tenantry, tests; print(tenantry.__file__, tests.__file__)"
    )
    assert all(Path(place).is_relative_to(copy) for place in done.stdout.split()), done.stdout + done.stderr


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_the_tests_named_exist(patch: Path) -> None:
    for test in _tests_of(patch):
        file, *_, function = test.partition("[")[0].split("::")
        places = [ROOT / file, *(CONFORMANCE.glob("*.py") if file in SUITES else ())]
        assert any(f"def {function}(" in place.read_text("utf-8") for place in places), test


def _tests_of(patch: Path) -> list[str]:
    header = patch.read_text("utf-8").splitlines()[0]
    assert header.startswith(HEADER), "the first line names the tests that must turn red"
    return [test.strip() for test in header.removeprefix(HEADER).split(",")]


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = f"{folder / 'src'}{os.pathsep}{folder}"
    environment["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _report(patch: Path, done: subprocess.CompletedProcess[str]) -> str:
    return f"nobody noticed {patch.stem}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
