"""What one airline may try in order to reach another's data, and how each attempt fails.

What is shown of an attempt is its own source, so that what one reads is what ran.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from examples.flights.models import Airport, Flight
from tenantry import MultiTenantSDK, Page, TenantHandle, TenantryError

INTRUDER, VICTIM = "DL", "UA"

Attempt = Callable[[MultiTenantSDK, TenantHandle, Flight, "Page[Flight]"], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An attempt and what came of it.

    Attributes:
        title: What was wanted.
        code: The call.
        error: How it was refused, if it was.
        leaked: Whether it got anything. It never should.
    """

    title: str
    code: str
    error: TenantryError | None
    leaked: bool


async def by_id(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """United's flight, by its id."""
    return await delta.data.get(Flight, flight.id)


async def by_cursor(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """From where United's page ended."""
    return await delta.data.read(Flight, cursor=page.next_cursor)


async def by_change(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """United's flight, changed."""
    return await delta.data.update(flight, arrival_delay=999)


async def by_record(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """A flight among United's."""
    return await delta.data.create("flights", {"tenant_id": "UA", "id": 0})


async def by_sharing(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """What all airlines share."""
    return await delta.data.update(Airport, "JFK", name="Delta's own")


async def by_omission(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """Nobody in particular asks."""
    return await sdk.data.read(Flight)


async def by_sql(sdk: MultiTenantSDK, delta: TenantHandle, flight: Flight, page: Page[Flight]) -> object:
    """United's rows, in SQL."""
    return await delta.data.sql("SELECT * FROM flights WHERE tenant_id = 'UA'")


ATTEMPTS: tuple[Attempt, ...] = (by_id, by_cursor, by_change, by_record, by_sharing, by_omission, by_sql)


async def trespass(sdk: MultiTenantSDK) -> AsyncIterator[Outcome]:
    """Let Delta try each way to United's data."""
    async with sdk.tenant(VICTIM) as united, sdk.tenant(INTRUDER) as delta:
        page = await united.data.read(Flight, limit=1)
        for attempt in ATTEMPTS:
            try:
                got = await attempt(sdk, delta, page[0], page)
            except TenantryError as error:
                yield Outcome(_title(attempt), _code(attempt), error, leaked=False)
            else:
                yield Outcome(_title(attempt), _code(attempt), None, leaked=bool(got))


def _title(attempt: Attempt) -> str:
    title = (attempt.__doc__ or "").rstrip(".")
    return title if title.startswith("United") else title[:1].lower() + title[1:]


def _code(attempt: Attempt) -> str:
    return inspect.getsource(attempt).rpartition("return ")[2].strip()
