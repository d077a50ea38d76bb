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


def lives(number: int) -> settings:
    """Return for how long to play: some seconds a database, or under the profile ``soak`` some minutes."""
    profile = settings()
    soak = profile.max_examples > 100
    return settings(
        profile,
        max_examples=number * 10 if soak else number,
        stateful_step_count=200 if soak else 40,
        suppress_health_check=list(HealthCheck),
    )


def test_memory() -> None:
    run_machine({"url": "memory://"}, settings=lives(100))


def test_sqlite(tmp_path: Path) -> None:
    run_machine({"url": f"sqlite:///{tmp_path}/machine.db"}, settings=lives(80))


def test_postgresql(postgres_server: PostgresServer) -> None:
    play_on(postgres_server)


def test_pgbouncer(postgres_server: PostgresServer, pgbouncer: PgBouncer) -> None:
    play_on(postgres_server, pgbouncer, number=20)


def play_on(server: PostgresServer, pooler: PgBouncer | None = None, *, number: int = 40) -> None:
    """Play on a PostgreSQL database of one's own."""
    with asyncio.Runner() as runner:
        database = deployed(server, pooler)
        config = runner.run(database.__aenter__())
        try:
            run_machine(config, settings=lives(number))
        finally:
            runner.run(database.__aexit__(None, None, None))


@pytest.mark.parametrize(
    "leak",
    ["fetch", "select", "count", "filters by or", "update", "delete", "upsert", "references", "transaction"],
)
def test_a_database_that_leaks_is_caught(leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "leaky", f"{LeakyAdapter.__module__}:LeakyAdapter")
    monkeypatch.setattr(LeakyAdapter, "leak", leak)
    without_shrinking = settings(lives(100), phases=[Phase.generate], database=None)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_machine({"url": "leaky://"}, settings=without_shrinking)
