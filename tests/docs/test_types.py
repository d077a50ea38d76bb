"""A type checker sees in the pages what a reader does: `read(Product)` gives products."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, page

CONFIG = """\
[mypy]
plugins = pydantic.mypy

[pydantic-mypy]
init_typed = False
"""


@pytest.mark.parametrize("name", ["tutorial", "queries"])
def test_a_page_type_checks(name: str, tmp_path: Path) -> None:
    script = ["async def main() -> None:"]
    for block in page(name).blocks:
        if block.language != "python":
            continue
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        else:
            script += [f"    {line}" for line in block.text.splitlines()]
    (tmp_path / "script.py").write_text("\n".join(script), encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "script.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
