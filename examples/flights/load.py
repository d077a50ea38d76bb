"""Loading, so that nothing is lost or doubled whenever it is stopped.

Rows are stored in the order of the data set, chunk after chunk, and a chunk is one ``bulk_create``: all of it or
none. So the number of rows that are stored says where to go on, and no record of the progress can be wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from examples.flights.dataset import Dataset, Table
from examples.flights.models import Flight
from tenantry import MultiTenantSDK
from tenantry.data import DataManager
from tenantry.errors import UniqueViolation

CHUNK = 4_000


class NotThisDataset(Exception):
    """The database holds rows that this program did not write."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"The rows in {collection!r} are not the first ones of the data set. Name another database: --database URL"
        )


async def create_airlines(sdk: MultiTenantSDK, dataset: Dataset) -> None:
    """Make each airline a tenant, where it is not one yet."""
    for code, name in dataset.airlines.items():
        await sdk.tenants.create(code, name=name)


async def load_shared(sdk: MultiTenantSDK, dataset: Dataset) -> int:
    """Store what is missing of the data that all airlines share, and return how many rows that were.

    Tenants only read it. It is written by the system, which says why; that is kept in the audit log.
    """
    reader = sdk.tenant(next(iter(dataset.airlines))).data
    missing = [table for table in dataset.shared if await reader.count(table.model) < len(table)]
    if not missing:
        return 0
    async with sdk.system(reason="load the reference data", actor="examples.flights") as system:
        return sum([added for table in missing async for added in _append(system.data, table)])


async def count_flights(sdk: MultiTenantSDK, dataset: Dataset) -> dict[str, int]:
    """Return how many flights each airline has stored, at most as many as the data set has."""
    return {
        code: min(await sdk.tenant(code).data.count(Flight), len(table))
        for code, table in dataset.flights.items()
    }


async def load_flights(sdk: MultiTenantSDK, dataset: Dataset) -> AsyncIterator[tuple[str, int]]:
    """Store what is missing of the flights; after each chunk give the airline and the number of rows stored."""
    for code, table in dataset.flights.items():
        async with sdk.tenant(code) as airline:
            async for added in _append(airline.data, table):
                yield code, added


async def _append(data: DataManager, table: Table[Any]) -> AsyncIterator[int]:
    stored = await data.count(table.model)
    while stored < len(table):
        chunk = table[stored : stored + CHUNK]
        try:
            await data.bulk_create(chunk, atomic=True)
            now = stored + len(chunk)
        except UniqueViolation as error:
            # Another run of this program may be loading too, and was first with this chunk.
            now = await data.count(table.model)
            if now <= stored:
                raise NotThisDataset(table.model.__collection__) from error
        yield now - stored
        stored = now
