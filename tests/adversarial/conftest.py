"""The arena: two tenants on a real database, directly and through PgBouncer.

A database is made once for each route and emptied for each test. Tests that rotate keys or change policies have one
of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from tests.adversarial.arena import Arena, build_arena, enter_arena
from tests.servers import PgBouncer, PostgresServer

Entrance = Callable[..., AbstractAsyncContextManager[Arena]]


@pytest.fixture(scope="session")
def direct_entrance(postgres_server: PostgresServer) -> Entrance:
    """Give what opens an arena whose connections reach the server directly."""
    url = postgres_server.create_database("arena_direct")
    return partial(enter_arena, url, asyncio.run(build_arena(url)))


@pytest.fixture(scope="session")
def pooled_entrance(postgres_server: PostgresServer, pgbouncer: PgBouncer) -> Entrance:
    """Give what opens an arena behind PgBouncer in transaction mode."""
    url = postgres_server.create_database("arena_pooled")
    return partial(enter_arena, url, asyncio.run(build_arena(url, pooler_url=pgbouncer.url("arena_pooled"))))


@pytest.fixture(params=["direct", "pooled"])
def entrance(request: pytest.FixtureRequest) -> Entrance:
    """Give what opens an arena; the test runs once on each route to the server."""
    found: Any = request.getfixturevalue(f"{request.param}_entrance")
    return found  # type: ignore[no-any-return]


@pytest_asyncio.fixture
async def arena(entrance: Entrance) -> AsyncIterator[Arena]:
    """Give an arena; the test runs once on each route to the server."""
    async with entrance() as arena:
        yield arena


@pytest_asyncio.fixture
async def direct_arena(direct_entrance: Entrance) -> AsyncIterator[Arena]:
    """Give an arena whose connections reach the server directly."""
    async with direct_entrance() as arena:
        assert not arena.app.pooled
        yield arena


@pytest_asyncio.fixture
async def pooled_arena(pooled_entrance: Entrance) -> AsyncIterator[Arena]:
    """Give an arena behind PgBouncer in transaction mode."""
    async with pooled_entrance() as arena:
        assert arena.app.pooled
        yield arena


@pytest_asyncio.fixture
async def own_arena(database_url: str) -> AsyncIterator[Arena]:
    """Give an arena on a database that the test may spoil."""
    async with enter_arena(database_url, await build_arena(database_url)) as arena:
        yield arena


@pytest.fixture(params=["direct", "pooled"])
def own_pooler_url(request: pytest.FixtureRequest) -> str | None:
    """Give the way to a database of the test's own: none, or through PgBouncer."""
    return None if request.param == "direct" else str(request.getfixturevalue("pooled_url"))


@pytest_asyncio.fixture
async def own_arenas(database_url: str, own_pooler_url: str | None) -> AsyncIterator[Arena]:
    """Give an arena on a database that the test may spoil; the test runs once on each route to the server."""
    built = await build_arena(database_url, pooler_url=own_pooler_url)
    async with enter_arena(database_url, built) as arena:
        yield arena
