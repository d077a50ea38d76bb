"""Each guard is needed: without it, the test that is named for it turns red.

A patch begins with `# test:` and the tests that must notice. It is applied to a copy of the source, which the tests
then import. One that no longer applies is an error, so that no guard loses its proof unseen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
TESTS_FAILED = 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_guard_is_missed(patch: Path, tmp_path: Path) -> None:
    header = patch.read_text("utf-8").splitlines()[0]
    assert header.startswith("# test: "), "the first line names the tests that must turn red"
    for part in ("src", "tests", "examples", "pyproject.toml"):
        _copy(ROOT / part, tmp_path / part)
    applied = _run(["git", "apply", "--unsafe-paths", f"--directory={tmp_path}", str(patch)], tmp_path)
    assert applied.returncode == 0, f"{patch.name} no longer applies:\n{applied.stderr}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = _run([*command, *header.removeprefix("# test: ").split()], tmp_path)
    assert done.returncode == TESTS_FAILED, (
        f"nobody noticed {patch.stem}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
    )
    assert "collected 0 items" not in done.stdout


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    else:
        shutil.copy(source, target)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = f"{folder / 'src'}{os.pathsep}{folder}"
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
