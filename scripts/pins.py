"""Resolve requirements/*.in together and write the pinned requirements/*.txt.

One resolution of everything comes first and constrains the rest, so any two of the files can share one
environment. The files carry names and versions only: no index address, no hash.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
SETS = ("base", "build", "cli", "bench", "dev")
WITHOUT_DEPENDENCIES = ("arq", "demo")
HEADER = "# Written by `make pins` from {name}.in; do not edit.\n"


def main() -> int:
    """Write every pinned file."""
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder) / "together.txt"
        together.write_text(_pins(_resolve(SETS)), encoding="utf-8")
        for name in SETS:
            _write(name, _resolve([name], "--constraint", str(together)))
    for name in WITHOUT_DEPENDENCIES:
        _write(name, _resolve([name], "--no-deps"))
    return 0


def _resolve(names: tuple[str, ...] | list[str], *options: str) -> dict[str, str]:
    files = [option for name in names for option in ("--requirement", str(REQUIREMENTS / f"{name}.in"))]
    dry_run = ("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-")
    command = [sys.executable, "-m", "pip", *dry_run, *files, *options]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = [item["metadata"] for item in report["install"]]
    return {item["name"].lower().replace("_", "-"): item["version"] for item in found}


def _pins(versions: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def _write(name: str, versions: dict[str, str]) -> None:
    (REQUIREMENTS / f"{name}.txt").write_text(HEADER.format(name=name) + _pins(versions), encoding="utf-8")
    print(f"requirements/{name}.txt: {len(versions)} packages")


if __name__ == "__main__":
    sys.exit(main())
