"""No database is left out: every scheme that tenantry serves is run through the suite and the machine."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
from typing import Any

import pytest

from tenantry.ports import DatabaseAdapter, Executor
from tenantry.registry import ADAPTERS, adapter_for
from tenantry.testing.conformance import Conformance
from tests.conformance import test_machine, test_suite

# scheme -> the class of the suite and the test of the machine that run on it
COVERED = {
    "memory": (test_suite.TestMemory, test_machine.test_memory),
    "sqlite": (test_suite.TestSQLite, test_machine.test_sqlite),
    "postgresql": (test_suite.TestPostgreSQL, test_machine.test_postgresql),
    "postgres": (test_suite.TestPostgreSQL, test_machine.test_postgresql),
}


def test_every_scheme_is_covered() -> None:
    assert set(COVERED) == set(ADAPTERS)
    assert all(issubclass(suite, Conformance) for suite, _ in COVERED.values())


def test_schemes_of_one_adapter_share_their_tests() -> None:
    by_adapter: dict[str, set[Any]] = {}
    for scheme, tests in COVERED.items():
        by_adapter.setdefault(ADAPTERS[scheme], set()).add(tests)
    assert all(len(tests) == 1 for tests in by_adapter.values())


def test_the_pooler_is_covered_too() -> None:
    assert issubclass(test_suite.TestPgBouncer, Conformance)
    assert callable(test_machine.test_pgbouncer)


@pytest.mark.parametrize("scheme", sorted(ADAPTERS))
def test_an_adapter_has_the_whole_port(scheme: str) -> None:
    adapter = adapter_for(f"{scheme}://")
    wanted = {*vars(DatabaseAdapter), *vars(Executor)}
    for name in {name for name in wanted if not name.startswith("_")}:
        assert callable(getattr(adapter, name))
        expected = inspect.signature(getattr(DatabaseAdapter, name)).parameters
        assert list(inspect.signature(getattr(adapter, name)).parameters) == list(expected)
    assert isinstance(vars(adapter)["name"], str)
    assert isinstance(vars(adapter)["capabilities"], frozenset)


def test_the_suite_has_every_part() -> None:
    """A file of the suite that is in no base class would never run."""
    package = importlib.import_module("tenantry.testing.conformance")
    folder = importlib.resources.files(package)
    modules = {file.name.removesuffix(".py") for file in folder.iterdir() if file.name.endswith(".py")}
    used = {base.__module__.rpartition(".")[2] for base in Conformance.__mro__}
    assert modules - {"__init__"} == used - {"builtins", "conformance"}
