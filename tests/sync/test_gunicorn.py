"""A real gunicorn in front of PostgreSQL: its workers fork, with the application loaded before and after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import Note
from tests.sync.test_fork import Options

ROOT = Path(__file__).parents[2]
TENANTS = ("acme", "globex")
REQUESTS = 60
ROUNDS = 20
WORKERS = 2
CONFIG = """
import os

def when_ready(server):
    with open({folder!r} + "/port", "w") as file:
        file.write(str(server.LISTENERS[0].sock.getsockname()[1]))

def post_worker_init(worker):
    open({folder!r} + f"/worker.{{worker.pid}}", "w").close()
"""


@contextmanager
def gunicorn(folder: Path, variables: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """Run it and give its address."""
    config = folder / "config.py"
    config.write_text(CONFIG.format(folder=str(folder)), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "tests.sync.shop:app",
        "--bind=127.0.0.1:0",
        f"--workers={WORKERS}",
    ]
    options = [f"--config={config}", "--timeout=60", "--graceful-timeout=20", *arguments]
    with (folder / "log").open("w+") as log:
        environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT / "src")}
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield f"http://127.0.0.1:{_port(folder, process)}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = (folder / "log").read_text(encoding="utf-8")
    assert "Traceback" not in text, text
    assert "WORKER TIMEOUT" not in text, text


def _port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until every worker has loaded the application, and return the port."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("worker.*"))) < WORKERS:
        log = (folder / "log").read_text(encoding="utf-8")
        assert process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    return int((folder / "port").read_text(encoding="utf-8"))


def get(url: str) -> Any:
    """Ask until a worker answers; those that have just begun may refuse a connection."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - its own server
                return json.load(answer)
        except HTTPError:
            raise
        except URLError:
            time.sleep(0.1)
    raise AssertionError("no worker answers")


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no-preload"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_two_tenants_through_workers_that_fork(
    preload: bool, kind: str, tmp_path: Path, postgres_options: Options
) -> None:
    options = postgres_options
    with MultiTenantSDK.open(**options) as sdk:
        for tenant in TENANTS:
            sdk.tenants.create(tenant)
        named = {"url": options["url"], **options.get("database", {}), "schema_mode": "check"}
        variables = {f"TENANTRY_DATABASE_{name.upper()}": str(value) for name, value in named.items()}
        arguments = [f"--worker-class={kind}", *(["--threads=4"] if kind == "gthread" else [])]
        if preload:
            arguments.append("--preload")
        with gunicorn(tmp_path, variables, *arguments) as address:
            pids, sent = set[int](), 0
            while (
                len(pids) < WORKERS and sent < ROUNDS * REQUESTS
            ):  # which worker answers is the system's choice
                numbers = range(sent, sent + REQUESTS)
                urls = [f"{address}/{TENANTS[number % 2]}/{number}" for number in numbers]
                with ThreadPoolExecutor(6) as threads:
                    answers = list(threads.map(get, urls))
                for number, answer in zip(numbers, answers, strict=True):
                    assert answer["seen"] == [TENANTS[number % 2]]
                pids |= {answer["pid"] for answer in answers}
                sent += REQUESTS
            with pytest.raises(HTTPError, match="404"):
                get(f"{address}/nobody/1")
        assert len(pids) == WORKERS, "only one worker was asked"
        for number, tenant in enumerate(TENANTS):
            rows = sdk.tenant(tenant).data.read(Note, limit=10_000)
            assert sorted(int(row.id) for row in rows) == list(range(number, sent, 2))
