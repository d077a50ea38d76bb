"""A runner is imported where it is used and nowhere else; where it is missing, the error says what to install."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import tenantry.jobs

RUNNERS = ("arq", "celery", "procrastinate", "taskiq")


def _run(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_without_the_runner_the_error_says_what_to_install(runner: str) -> None:
    code = f"""
        import importlib, sys
        import tenantry
        sys.modules[{runner!r}] = None
        try:
            importlib.import_module("tenantry.jobs.{runner}")
        except tenantry.TenantryError as error:
            print(error)
    """
    expected = f"{runner} is not installed. Install it with: pip install 'tenantry[{runner}]'\n"
    assert _run(code) == expected


def test_no_runner_is_imported_unless_it_is_used() -> None:
    loaded = set(_run("import sys, tenantry, tenantry.jobs; print(*sys.modules)").split())
    assert loaded & {*RUNNERS, "kombu", "redis"} == set()


def test_every_exported_name_is_documented() -> None:
    for name in tenantry.jobs.__all__:
        assert getattr(tenantry.jobs, name).__doc__
