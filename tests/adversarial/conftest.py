"""The arena: two tenants on a database of the test's own, directly and through PgBouncer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.adversarial.arena import Arena, open_arena


@pytest_asyncio.fixture
async def direct_arena(database_url: str) -> AsyncIterator[Arena]:
    """Give an arena whose connections reach the server directly."""
    async with open_arena(database_url) as arena:
        yield arena


@pytest_asyncio.fixture
async def pooled_arena(database_url: str, pooled_url: str) -> AsyncIterator[Arena]:
    """Give an arena behind PgBouncer in transaction mode."""
    async with open_arena(database_url, pooler_url=pooled_url) as arena:
        yield arena


@pytest_asyncio.fixture(params=["direct", "pooled"])
async def arena(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Arena]:
    """Give an arena; the test runs once on each route to the server."""
    pooler_url: str | None = None
    if request.param == "pooled":
        pooler_url = request.getfixturevalue("pooled_url")
    async with open_arena(database_url, pooler_url=pooler_url) as arena:
        assert arena.app.pooled is (request.param == "pooled")
        yield arena
