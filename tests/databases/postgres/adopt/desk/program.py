"""Runs the help desk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[5]


def desk(url: str, *args: str, seal_key: str = "", fails: bool = False) -> Any:
    """Run one job of `work.py` as the role of `url`, and return what it says; its error if it is to fail."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.databases.postgres.adopt.desk.work", *args],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, "TENANTRY_DATABASE_SEAL_KEY": seal_key},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else json.loads(done.stdout)
