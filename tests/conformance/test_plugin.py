"""The pytest plugin, in suites of its own."""

from __future__ import annotations

import importlib.metadata
import sqlite3
from pathlib import Path

import pytest

from tenantry.registry import ADAPTERS

pytest_plugins = ["pytester"]

MODELS = """
from typing import Annotated

import pytest

from tenantry import Model, Unique
from tenantry.testing import assert_isolated


class Product(Model):
    __collection__ = "products"
    sku: Annotated[str, Unique]


@pytest.fixture(scope="session")
def tenantry_models():
    return [Product]
"""

TESTS = """
import pytest
from conftest import Product, assert_isolated


@pytest.mark.parametrize("number", range(4))
async def test_each_starts_empty(two_tenants, number):
    acme, globex = two_tenants
    assert await acme.data.count(Product) == await globex.data.count(Product) == 0
    product = await acme.data.create(Product(sku="1"))
    assert await globex.data.count(Product) == 0
    await globex.data.create(Product(id=product.id, sku="1"))


async def test_isolation(tenantry_sdk):
    await assert_isolated(tenantry_sdk)


async def test_suspended_by_the_test(tenantry_sdk, two_tenants):
    await tenantry_sdk.tenants.suspend(two_tenants[0].context.tenant_id, reason="test")


async def test_deleted_by_the_test(tenantry_sdk, two_tenants):
    await tenantry_sdk.tenants.delete(two_tenants[0].context.tenant_id, reason="test")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """Give a suite with a model and tests; its database is to be named."""
    pytester.makepyfile(conftest=MODELS, test_products=TESTS)
    return pytester


def run(suite: pytest.Pytester, *arguments: str, workers: int = 0) -> pytest.RunResult:
    """Run the suite with the plugin, which an installed tenantry brings by its entry point."""
    entry_points = importlib.metadata.entry_points(group="pytest11")
    if not any(point.value == "tenantry.testing.plugin" for point in entry_points):
        arguments = (*arguments, "-p", "tenantry.testing.plugin")
    if workers:
        return suite.runpytest_subprocess("-p", "no:cacheprovider", "-n", str(workers), *arguments)
    return suite.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


def ini(suite: pytest.Pytester, *lines: str, mode: str = "auto") -> None:
    """Write the suite's pytest.ini."""
    fixed = (
        f"asyncio_mode = {mode}",
        "asyncio_default_fixture_loop_scope = function",
        "filterwarnings = error",
    )
    suite.makeini("\n".join(["[pytest]", *fixed, *lines]))


def test_the_default_is_a_database_in_memory(suite: pytest.Pytester) -> None:
    ini(suite)
    run(suite).assert_outcomes(passed=7)


def test_a_file_of_the_tests_own(suite: pytest.Pytester) -> None:
    ini(suite, "tenantry_url = sqlite:///{tmp}/app.db")
    run(suite).assert_outcomes(passed=7)
    assert not list(suite.path.glob("*.db"))


def test_one_file_for_all_workers(suite: pytest.Pytester) -> None:
    """Two workers share the file; no test sees another's rows, and none is left."""
    ini(suite, f"tenantry_url = sqlite:///{suite.path}/shared.db")
    run(suite, workers=2).assert_outcomes(passed=7)
    assert _rows(suite.path / "shared.db", "products") == 0
    assert _rows(suite.path / "shared.db", "tenantry_tenants WHERE status <> 'purged'") == 0


def test_a_file_for_each_worker(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
    ini(suite, f"tenantry_url = sqlite:///{suite.path}/{{worker}}.db")
    run(suite, "-k", "each_starts_empty").assert_outcomes(passed=4, deselected=3)
    assert {path.name for path in suite.path.glob("*.db")} == {"gw7.db"}


def test_rows_are_gone_after_a_test_that_failed(suite: pytest.Pytester) -> None:
    ini(suite, f"tenantry_url = sqlite:///{suite.path}/failed.db")
    suite.makepyfile(
        test_products="""
        from conftest import Product

        async def test_fails(two_tenants):
            await two_tenants[0].data.create(Product(sku="1"))
            assert False
        """
    )
    run(suite).assert_outcomes(failed=1)
    assert _rows(suite.path / "failed.db", "products") == 0


def test_a_fixture_may_name_the_database_and_options(suite: pytest.Pytester) -> None:
    ini(suite)
    suite.makepyfile(
        test_products="""
        import pytest

        @pytest.fixture
        def tenantry_url(tmp_path):
            return f"sqlite:///{tmp_path}/fixture.db"

        @pytest.fixture(scope="session")
        def tenantry_options():
            return {"database": {"durability": "full"}}

        async def test_it(tenantry_sdk, tmp_path):
            assert tenantry_sdk.capabilities
            assert (tmp_path / "fixture.db").exists()
        """
    )
    run(suite).assert_outcomes(passed=1)


def test_a_strangers_adapter_runs_the_conformance_suite(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The suite below runs in this process; its scheme must not outlive it.
    monkeypatch.setitem(ADAPTERS, "stranger", "test_products:Stranger")
    ini(suite, mode="strict")
    suite.makepyfile(
        test_products="""
        import sys

        from tenantry.databases.memory import MemoryAdapter
        from tenantry.ports import Capability
        from tenantry.testing.conformance import Conformance

        class Stranger(MemoryAdapter):
            name = "stranger"
            capabilities = MemoryAdapter.capabilities - {Capability.FOREIGN_KEYS}

        class TestStranger(Conformance):
            config = {"url": "stranger://"}

            async def test_its_own(self, sdk, acme):  # the suite's mark is inherited
                assert sdk.capabilities == Stranger.capabilities
        """
    )
    done = run(suite, "-rs", "-k", "own or reference or constraint or cascade")
    outcomes = done.parseoutcomes()
    assert outcomes["passed"] >= 10
    assert "failed" not in outcomes
    done.stdout.fnmatch_lines(["*the database lacks foreign keys*"])


def _rows(path: Path, what: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])
    finally:
        connection.close()
