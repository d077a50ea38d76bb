"""Refuses files that name a package registry's address or a path of somebody's machine.

Where packages come from is the configuration of whoever installs them. The patterns are written so that
they do not match themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FORBIDDEN = {
    "a registry's host": r"[p]ypi\.org|[p]ythonhosted\.org|[n]pmjs\.(org|com)|[d]ebian\.org|[c]rates\.io",
    "an index address": r"https?:[/]/\S+/simple\b|-[-](extra-)?index-url|-[-]find-links|-[-]trusted-host",
    "a path of one machine": r"(?<![\w.])[/](work|root|home/\w+|Users/\w+|opt/\w+)/",
}
IN_REQUIREMENTS = {"an address in place of a version": r"@ *(https?|file|git\+\w+):"}


def main() -> int:
    """Print each finding as `path:line: what`; return 1 if there is any."""
    findings = [finding for path in _files() for finding in _search(path)]
    print("\n".join(findings) or "no registry host and no machine's path in any file")
    return 1 if findings else 0


def _files() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _search(path: Path) -> list[str]:
    name = path.relative_to(ROOT)
    patterns = FORBIDDEN | (IN_REQUIREMENTS if name.parts[0] == "requirements" else {})
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [
        f"{name}:{number}: {what}: {found.group()}"
        for number, line in enumerate(lines, start=1)
        for what, pattern in patterns.items()
        if (found := re.search(pattern, line))
    ]


if __name__ == "__main__":
    sys.exit(main())
