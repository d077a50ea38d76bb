"""The command itself: its version, its help, and what it needs to be installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tenantry
from tests.cli.conftest import Cli

COMMANDS = [
    (),
    ("init",),
    ("doctor",),
    ("scan",),
    ("keys",),
    ("keys", "list"),
    ("keys", "rotate"),
    ("keys", "retire"),
    ("tenants",),
    ("tenants", "list"),
    ("tenants", "create"),
    ("tenants", "show"),
    ("tenants", "suspend"),
    ("tenants", "resume"),
    ("tenants", "delete"),
    ("tenants", "purge"),
]


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"tenantry {tenantry.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(cli: Cli, command: tuple[str, ...]) -> None:
    shown = cli(*command, "--help").stdout
    assert "Usage: " in shown
    if command and command not in (("keys",), ("tenants",)):
        assert "--json" in shown


def test_the_installed_command_runs() -> None:
    command = [str(Path(sys.executable).with_name("tenantry")), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"tenantry {tenantry.__version__}\n"


def test_the_module_runs() -> None:
    command = [sys.executable, "-m", "tenantry.cli", "tenants", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={}, cwd="/")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No database is named.")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_the_error_says_what_to_install(package: str) -> None:
    done = run(f"import sys; sys.modules[{package!r}] = None; from tenantry.cli.main import app; app()")
    assert done.returncode == 1
    assert done.stderr == f"{package} is not installed. Install it with: pip install 'tenantry[cli]'\n"


@pytest.mark.parametrize(
    "args",
    [
        ("init", "--admin-url", "postgresql://u@h/d"),
        ("doctor",),
        ("keys", "list"),
        ("keys", "rotate"),
        ("keys", "retire", "k"),
        ("tenants", "list"),
    ],
)
def test_without_the_driver_the_error_says_what_to_install(args: tuple[str, ...], tmp_path: Path) -> None:
    url = "postgresql://app:secret@127.0.0.1:1/shop"
    code = f"""
        import os, sys
        os.chdir({str(tmp_path)!r})
        for name in ("", "CONTROL_", "OWNER_", "RAW_"):
            os.environ[f"TENANTRY_DATABASE_{{name}}URL"] = {url!r}
        sys.modules["asyncpg"] = None
        from tenantry.cli.main import app
        app()
    """
    done = run(code, *args)
    assert done.returncode == 2
    assert "asyncpg is not installed." in done.stderr
    assert "pip install 'tenantry[postgres]'" in done.stderr


def test_a_fault_of_ours_shows_no_local_variables() -> None:
    code = """
        import sys
        from tenantry.cli import tenants
        from tenantry.cli.main import app
        def fail(*args):
            password = "s3cret"
            raise RuntimeError("a fault")
        tenants.load_project = fail
        sys.argv = ["tenantry", "tenants", "list"]
        app()
    """
    done = run(code)
    assert done.returncode == 1
    assert "RuntimeError: a fault" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr.replace('password = "s3cret"', "")
