"""What a synchronous call costs beside the asynchronous one: `python -m benchmarks.sync`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tenantry import MultiTenantSDK, sync
from tenantry.testing.models import MODELS, Note
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

CALLS = 1_000
ROUNDS = 5

Options = Mapping[str, Any]


def main() -> None:
    """Print, for each database, microseconds a read by key takes in both APIs."""
    print(f"{'':12}{'async':>10}{'sync':>10}{'more':>10}   µs a read by key, median of {ROUNDS} rounds")
    for name, options in databases():
        with sync.MultiTenantSDK.open(**options, models=MODELS, schema="create", env={}) as sdk:
            acme = sdk.tenant(sdk.tenants.create("acme").id)
            acme.data.create(Note(id="n"))
            slow = median(lambda acme=acme: read(acme))  # type: ignore[misc]
            fast = median(lambda options=options: asyncio.run(awaited(options)))  # type: ignore[misc]
        print(f"{name:12}{fast:10.0f}{slow:10.0f}{slow - fast:10.0f}")


def median(measure: Callable[[], float]) -> float:
    """Return the median of some rounds, in microseconds."""
    return statistics.median(measure() for _ in range(ROUNDS))


def read(acme: sync.TenantHandle) -> float:
    """Return the microseconds that a synchronous read takes."""
    started = time.perf_counter()
    for _ in range(CALLS):
        acme.data.get(Note, "n")
    return (time.perf_counter() - started) / CALLS * 1e6


async def awaited(options: Options) -> float:
    """Return the microseconds that an asynchronous read takes."""
    async with MultiTenantSDK.open(**options, models=MODELS, schema="create", env={}) as sdk:
        acme = sdk.tenant((await sdk.tenants.create("acme")).id)
        await acme.data.upsert(Note(id="n"))
        started = time.perf_counter()
        for _ in range(CALLS):
            await acme.data.get(Note, "n")
        return (time.perf_counter() - started) / CALLS * 1e6


def databases() -> Iterator[tuple[str, Options]]:
    """Yield what to open."""
    yield "memory", {"url": "memory://"}
    with tempfile.TemporaryDirectory() as folder:
        yield "sqlite", {"url": f"sqlite:///{folder}/data.db"}
    with PostgresServer.start() as server:
        admin = server.create_database("bench")
        yield "postgresql", asyncio.run(deploy(admin))


if __name__ == "__main__":
    main()
