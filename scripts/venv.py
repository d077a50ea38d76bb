"""Sets up an environment from the pinned requirement files: `python3 -m scripts.venv FOLDER SET...`.

A set is the name of a file in requirements/, or `project` for tenantry itself (editable). What is installed
already and unchanged is left alone, two set-ups of one folder wait for each other, and one that was
killed is made good by the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts import apt

MINIMUM = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
PROJECT = "project"
UNFINISHED = "unfinished"  # only a killed set-up leaves this file: a package may be half there

# `build` comes first, so that nothing is built with tools fetched on the side. Of the demonstration's package only
# the CSV files are read, so what it depends on stays away; arq depends on a redis that nothing else here can use.
OPTIONS = {
    "arq": ["--no-deps"],
    "demo": ["--no-deps", "--no-build-isolation"],
    PROJECT: ["--no-deps", "--no-build-isolation"],
}


def main(arguments: Sequence[str]) -> int:
    """Make the environment `arguments[0]` hold the sets `arguments[1:]`."""
    if sys.version_info < MINIMUM:
        found, wanted = (".".join(map(str, version)) for version in (sys.version_info[:3], MINIMUM))
        print(
            f"tenantry needs Python {wanted} or later, and this is {found}; try: make PYTHON=python{wanted} …"
        )
        return 1
    folder, sets = ROOT / arguments[0], arguments[1:]
    with _lock(folder):
        changed = [name for name in sets if _installed(folder).get(name) != _digest(name)]
        if changed and not _is_usable(folder):
            changed = list(sets)
            if not _create(folder):
                print("Cannot create a virtual environment; with root: apt-get install python3-venv")
                return 1
        return 0 if all(_install(folder, name) for name in changed) else 1


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(name: str) -> str:
    file = ROOT / "pyproject.toml" if name == PROJECT else ROOT / "requirements" / f"{name}.txt"
    return hashlib.sha256(f"{ROOT} {sys.version_info[:2]}\n".encode() + file.read_bytes()).hexdigest()


def _installed(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / "installed.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if (folder / "bin" / "python").exists() else {}


def _is_usable(folder: Path) -> bool:
    if (folder / UNFINISHED).exists():
        return False
    version = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    try:
        return _run([str(folder / "bin" / "python"), "-c", version])
    except OSError:
        return False


def _create(folder: Path) -> bool:
    """Create the environment; Debian's Python has no `venv` of use until python3-venv is there."""
    print(f"Creating {folder.name} …", flush=True)
    venv = [sys.executable, "-m", "venv", "--clear", str(folder)]
    virtualenv = [sys.executable, "-m", "virtualenv", "--clear", str(folder)]
    if _run(venv) or _run(virtualenv):
        return True
    with tempfile.TemporaryDirectory() as aside:
        pip = [sys.executable, "-m", "pip", "install", "--target", aside, "virtualenv"]
        if _run(pip) and _run(virtualenv, PYTHONPATH=aside):
            return True
    return apt.install("python3-venv") and _run(venv)


def _install(folder: Path, name: str) -> bool:
    print(f"Installing {name} into {folder.name} …", flush=True)
    what = (
        ["--editable", str(ROOT)] if name == PROJECT else ["--requirement", f"{ROOT}/requirements/{name}.txt"]
    )
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    (folder / UNFINISHED).touch()
    failed = subprocess.run([*pip, *OPTIONS.get(name, []), *what], check=False).returncode
    (folder / UNFINISHED).unlink()
    if failed:
        return False
    record = folder / "installed.json"
    record.with_suffix(".new").write_text(
        json.dumps(_installed(folder) | {name: _digest(name)}), encoding="utf-8"
    )
    record.with_suffix(".new").replace(record)
    return True


def _run(command: list[str], **variables: str) -> bool:
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
