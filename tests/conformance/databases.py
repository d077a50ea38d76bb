"""The databases that tenantry ships, each made ready for a test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.databases.postgres.deployment import deploy
from tests.servers import PgBouncer, PostgresServer

_numbers = itertools.count(1)


@asynccontextmanager
async def deployed(
    server: PostgresServer, pooler: PgBouncer | None = None
) -> AsyncIterator[Mapping[str, Any]]:
    """Give what `MultiTenantSDK.open` takes for a PostgreSQL database of one's own, dropped at the end."""
    name = f"conformance_{next(_numbers)}"
    admin_url = await asyncio.to_thread(server.create_database, name)
    try:
        yield await deploy(admin_url, pooler_url=None if pooler is None else pooler.url(name))
    finally:
        await asyncio.to_thread(server.drop_database, name)
