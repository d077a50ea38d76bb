"""`tenantry scan`, end to end: the command itself, over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.cli.conftest import Cli
from tests.docs.pages import ROOT
from tests.scan.described import openapi
from tests.scan.shop import Shop, har

SECONDS = 60
FAST = ("--rate", "100000")
APPLICATION = """\
from tests.scan.shop import Shop
shop = Shop("by-id")
app = shop.app
"""


@contextmanager
def serving(shop: Shop) -> Iterator[str]:
    """Serve on a port of its own; give its address."""
    server = uvicorn.Server(uvicorn.Config(shop.app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + SECONDS
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        (socket,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
    assert not thread.is_alive()


def recorded(shop: Shop, base: str, *words: str) -> str:
    """Write what acme's user recorded; give the file's name."""
    entries = har(shop, base)["log"]["entries"]
    kept = [one for one in entries if one["request"]["url"].removeprefix(base).split("/")[1] in words]
    Path("acme.har").write_text(json.dumps({"log": {"entries": kept}}), encoding="utf-8")
    return "acme.har"


def tokens(shop: Shop) -> dict[str, str]:
    return {
        "TENANTRY_SCAN_TOKEN_A": shop.companies["acme"].token,
        "TENANTRY_SCAN_TOKEN_B": shop.companies["globex"].token,
    }


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tenantry.cli", "scan", *args, *FAST]
    environment = {
        **os.environ,
        **variables,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.usefixtures("cli")
def test_a_leak_is_shown_with_the_request_that_shows_it() -> None:
    shop = Shop("by-id")
    with serving(shop) as base:
        done = run(base, "--har", recorded(shop, base, "me", "documents"), **tokens(shop))
        assert done.returncode == 1, done.stderr
        assert "critical GET /documents/{document}  [foreign-id-in-path]" in done.stdout
        (command,) = [line.partition("show  ")[2] for line in done.stdout.splitlines() if "show  " in line]
        assert command.startswith('curl -i -H "Authorization: Bearer $TENANT_B_TOKEN"')
        assert "1 leak found" in done.stdout
        for company in shop.companies.values():
            assert company.token not in done.stdout + done.stderr
    assert {method for method, _, _ in shop.asked} <= {"GET", "HEAD"}


@pytest.mark.usefixtures("cli")
def test_no_leak_is_status_0() -> None:
    shop = Shop(seed=5)
    with serving(shop) as base:
        done = run(base, "--har", recorded(shop, base, "me", "documents", "countries"), **tokens(shop))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No leak found" in done.stdout


def test_json_has_the_documented_form(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop("status-oracle")
    with serving(shop) as base:
        for name, value in tokens(shop).items():
            monkeypatch.setenv(name, value)
        Path("api.json").write_text(json.dumps(openapi()), encoding="utf-8")
        skipped = [
            f"--skip={path}*" for path in ("/invoices", "/customers", "/contacts", "/tasks", "/countries")
        ]
        found: Any = cli.json("scan", base, "--openapi", "api.json", *skipped, *FAST, status=1)
    assert sorted(found) == ["attempts", "complete", "findings", "leaks", "notes", "requests", "routes"]
    assert found["leaks"] == len(found["findings"]) == 3
    assert sorted(found["findings"][0]) == [
        "command", "detail", "excerpt", "fix", "kind", "leaked", "route", "severity", "status", "why",
    ]  # fmt: skip
    assert found["findings"][0]["kind"] == "existence-oracle"
    assert found["complete"] is True


def test_an_application_in_this_process(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop("by-id")
    Path("leaky_shop.py").write_text(APPLICATION, encoding="utf-8")
    file = recorded(shop, "http://application.test", "me", "documents")
    Path("scan.toml").write_text(
        '[a]\ntoken = "${ACME}"\ntenant = "acme"\n[b.headers]\nAuthorization = "Bearer ${GLOBEX}"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("ACME", shop.companies["acme"].token)
    monkeypatch.setenv("GLOBEX", shop.companies["globex"].token)
    args = ("scan", "leaky_shop:app", "--har", file, "--credentials", "scan.toml", *FAST)
    page = cli(*args, "--format", "markdown", status=1).stdout
    assert page.startswith("# 1 leak found: ")
    assert "## 1. foreign-id-in-path (critical)" in page


def test_a_scan_that_was_cut_short_is_no_success(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    for name, value in tokens(shop).items():
        monkeypatch.setenv(name, value)
    with serving(shop) as base:
        file = recorded(shop, base, "me", "documents")
        done = cli("scan", base, "--har", file, "--max-requests", "60", *FAST, status=2)
    assert "INCOMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("http://127.0.0.1:9", "--token-a", "a", "--token-b", "b"), "There is nothing to replay."),
        (("http://127.0.0.1:9", "--har", "acme.har", "--token-a", "a"), "Tenant b has no credentials."),
        (("http://127.0.0.1:9", "--har", "acme.har", "--token-a", "a", "--token-b", "a"), "the same credentials"),
        (("http://127.0.0.1:9", "--har", "acme.har", "--token-a", "a", "--token-b", "b"), "does not answer"),
        (("http://127.0.0.1:9", "--har", "none.har", "--token-a", "a", "--token-b", "b"), "none.har cannot be read"),
        (("http://127.0.0.1:9", "--har", "acme.har", "--header-a", "no header"), "--header-a is no header"),
        (("http://127.0.0.1:9", "--har", "acme.har", "--credentials", "bad.toml"), "not known: tokn"),
        (("http://127.0.0.1:9", "--har", "acme.har", "--credentials", "env.toml"), "NOT_SET_ANYWHERE is not set"),
        (("http://127.0.0.1:9", "--har", "acme.har", "--credentials", "none.toml"), "none.toml cannot be read"),
        (("nowhere:app", "--openapi", "api.json", "--token-a", "a", "--token-b", "b"), "cannot be imported"),
    ],
    ids=range(10),
)  # fmt: skip
def test_wrong_input_is_status_2_and_says_what_mends_it(
    cli: Cli, args: tuple[str, ...], message: str
) -> None:
    recorded(Shop(), "http://127.0.0.1:9", "me")
    Path("api.json").write_text(json.dumps(openapi()), encoding="utf-8")
    Path("bad.toml").write_text('[a]\ntokn = "x"\n', encoding="utf-8")
    Path("env.toml").write_text('[a]\ntoken = "${NOT_SET_ANYWHERE}"\n', encoding="utf-8")
    done = cli("scan", *args, *FAST, status=2)
    assert message in done.stderr
    assert "fix:   " in done.stderr
    assert cli.json("scan", *args, *FAST, status=2)["error"]["fix"]


def test_without_httpx_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["httpx"] = None
from tenantry.cli.main import app
sys.argv = ["tenantry", "scan", "http://127.0.0.1:9"]
app()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "Install it with: pip install 'tenantry[scan]'" in " ".join(done.stderr.split())
