"""Two shops, for the tests of the job runners: each keeps notes, and a job writes down whose job it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis

from tenantry import Model, MultiTenantSDK, current_context

TENANTS = ("acme", "globex")


class Note(Model):
    __collection__ = "notes"

    text: str


MODELS = [Note]


def whoami() -> str | None:
    """Return the ambient tenant."""
    context = current_context()
    return None if context is None else context.tenant_id


def open_sdk(url: str, **options: Any) -> MultiTenantSDK:
    """Return an SDK for the shops, not yet open."""
    return MultiTenantSDK.open(url, models=MODELS, schema="create", env={}, **options)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[MultiTenantSDK]:
    """Open the SDK with both shops."""
    async with open_sdk(url, **options) as sdk:
        for tenant in TENANTS:
            await sdk.tenants.create(tenant)
        yield sdk


def taken(client: redis.Redis, queue: str) -> dict[str, Any]:
    """Take the oldest message out of a list on the server."""
    raw = client.rpop(queue)
    assert isinstance(raw, bytes)
    message: dict[str, Any] = json.loads(raw)
    return message


def lines(client: redis.Redis, name: str) -> list[str]:
    """Return what stands in a list on the server."""
    return [line.decode() if isinstance(line, bytes) else line for line in client.lrange(name, 0, -1)]


async def notes(sdk: MultiTenantSDK, tenant: str) -> list[str]:
    """Return the texts of a shop's notes, in order."""
    return sorted([note.text for note in await sdk.tenant(tenant).data.read(Note, limit=1000)])
