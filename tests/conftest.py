"""Fixtures every test may use: real servers, a database of one's own, Hypothesis profiles.

Each process of a run, so each xdist worker, starts its own PostgreSQL when the first test asks for one: roles
belong to a whole server, and workers that create and drop them would meet in a shared one. A start takes half a
second.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.servers import PgBouncer, PostgresServer, ServerUnavailable, ValkeyServer

MISSING = "could not be had: "

# Shared and slow machines make deadlines flaky; pytest-timeout guards against what hangs.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), print_blob=True)
settings.register_profile("soak", settings.get_profile("ci"), max_examples=5_000, stateful_step_count=200)
# That a test fails without a guard is all that is asked there, not the smallest case in which it does.
settings.register_profile(
    "mutants", settings.get_profile("default"), phases=(Phase.explicit, Phase.generate), derandomize=True
)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last of all, below pytest's closing line, which tests were skipped for want of a server."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:
        return
    reasons: Counter[str] = Counter()
    for report in terminal.stats.get("skipped", []):
        _, _, reason = report.longrepr
        if MISSING in reason:
            reasons[reason.removeprefix("Skipped: ").splitlines()[0]] += 1
    for reason, count in sorted(reasons.items()):
        terminal.write_line(
            f"{count} {'test' if count == 1 else 'tests'} skipped because {reason}", yellow=True
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a PostgreSQL of this process's own. Without one the test fails where CI=true and else is skipped."""
    try:
        server = PostgresServer.start()
    except ServerUnavailable as error:
        _go_without("PostgreSQL", error)
    with server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """Give a PgBouncer in transaction mode in front of `postgres_server`."""
    try:
        pooler = PgBouncer.start(postgres_server)
    except ServerUnavailable as error:
        _go_without("PgBouncer", error)
    with pooler:
        yield pooler


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """Give a server of the Redis protocol of this process's own."""
    try:
        server = ValkeyServer.start()
    except ServerUnavailable as error:
        _go_without("Valkey", error)
    with server:
        yield server


@pytest.fixture
def make_database(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Give a function that creates an empty database and returns its name; all are dropped at the end."""
    names: list[str] = []

    def make() -> str:
        name = f"test_{next(_numbers)}"
        postgres_server.create_database(name)
        names.append(name)
        return name

    yield make
    for name in names:
        postgres_server.drop_database(name)


@pytest.fixture
def database(make_database: Callable[[], str]) -> str:
    """Give the name of an empty database of the test's own."""
    return make_database()


@pytest.fixture
def database_url(postgres_server: PostgresServer, database: str) -> str:
    """Give the superuser's address of `database`."""
    return postgres_server.url(database)


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, database: str) -> str:
    """Give the superuser's address of `database` through PgBouncer."""
    return pgbouncer.url(database)


_numbers = itertools.count(1)


def _go_without(what: str, error: ServerUnavailable) -> NoReturn:
    reason = f"{what} {MISSING}{' '.join(str(error).split())}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
