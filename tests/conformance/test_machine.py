"""Random lives of several tenants on every database, in lock-step with a database of each tenant's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tenantry.registry import ADAPTERS
from tenantry.testing.machine import run_machine
from tests.conformance.databases import deployed
from tests.conformance.leaky import LeakyAdapter
from tests.servers import PgBouncer, PostgresServer


def lives() -> settings:
    """Return how long to play: some seconds a database, or as long as a profile with more examples says."""
    profile = settings()
    if profile.max_examples > 100:
        return profile
    return settings(profile, max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck))


def test_memory() -> None:
    run_machine({"url": "memory://"}, settings=lives())


def test_sqlite(tmp_path: Path) -> None:
    run_machine({"url": f"sqlite:///{tmp_path}/machine.db"}, settings=lives())


def test_postgresql(postgres_server: PostgresServer) -> None:
    play_on(postgres_server)


def test_pgbouncer(postgres_server: PostgresServer, pgbouncer: PgBouncer) -> None:
    play_on(postgres_server, pgbouncer)


def play_on(server: PostgresServer, pooler: PgBouncer | None = None) -> None:
    """Play on a PostgreSQL database of one's own."""
    with asyncio.Runner() as runner:
        database = deployed(server, pooler)
        config = runner.run(database.__aenter__())
        try:
            run_machine(config, settings=lives())
        finally:
            runner.run(database.__aexit__(None, None, None))


@pytest.mark.parametrize(
    "leak", ["fetch", "select", "count", "filters by or", "update", "delete", "transaction"]
)
def test_a_database_that_leaks_is_caught(leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "leaky", f"{LeakyAdapter.__module__}:LeakyAdapter")
    monkeypatch.setattr(LeakyAdapter, "leak", leak)
    without_shrinking = settings(lives(), max_examples=200, phases=[Phase.generate], database=None)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_machine({"url": "leaky://"}, settings=without_shrinking)
