"""Two tenants' libraries with the same ids, directly on PostgreSQL and through PgBouncer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tenantry import MultiTenantSDK
from tests.databases.postgres.deployment import deploy
from tests.orm.models import MODELS, TABLES, Author, Book, Language, Review, Tag
from tests.servers import PgBouncer, PostgresServer

ANN, BOB, ATLAS, BIBLE, WAR = (uuid.UUID(int=(7 << 76) + number) for number in range(1, 6))


@dataclass
class Library:
    """Two tenants, ``acme`` and ``globex``, on one database.

    Attributes:
        sdk: The SDK.
        judge: A superuser's connection, which sees everything.
        options: What ``MultiTenantSDK.open`` takes.
    """

    sdk: MultiTenantSDK
    judge: asyncpg.Connection[asyncpg.Record]
    options: Mapping[str, Any]

    @property
    def raw_url(self) -> str:
        """The address by which a user's own connections log in."""
        return str(self.options["database"]["raw_url"])

    async def print_of(self, tenant: str) -> list[Any]:
        """Return all that one tenant has."""
        return [
            await self.judge.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1 ORDER BY id", tenant)
            for table in TABLES
        ]


async def stock(sdk: MultiTenantSDK, tenant: str) -> None:
    """Give a tenant two authors, three books, a tag and a review; the texts name the tenant."""
    async with sdk.tenant(tenant).session() as session:
        tag = Tag(word=f"{tenant} maps")
        atlas = Book(
            id=ATLAS,
            title=f"{tenant} atlas",
            price=Decimal("12.50"),
            language_id="en",
            tags=[tag],
            reviews=[Review(id=1, stars=5)],
        )
        bible = Book(id=BIBLE, title=f"{tenant} bible", tags=[tag])
        ann = Author(id=ANN, name=f"{tenant} Ann", email="ann@example.com", books=[atlas, bible])
        bob = Author(id=BOB, name=f"{tenant} Bob", mentor=ann, books=[Book(id=WAR, title=f"{tenant} war")])
        session.add_all([ann, bob])
        await session.commit()


@pytest.fixture(scope="module", params=["direct", "pooled"])
def deployment(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the superuser's address of a database with the tables, and what opens the SDK on it."""
    name = f"library_{request.param}"
    admin_url = postgres_server.create_database(name)
    pooler: PgBouncer | None = None if request.param == "direct" else request.getfixturevalue("pgbouncer")
    options = asyncio.run(_build(admin_url, None if pooler is None else pooler.url(name)))
    yield admin_url, options
    postgres_server.drop_database(name)


async def _build(admin_url: str, pooler_url: str | None) -> Mapping[str, Any]:
    options = await deploy(admin_url, pooler_url=pooler_url)
    async with MultiTenantSDK.open(**options, models=MODELS, schema="create"):
        return options


@pytest_asyncio.fixture
async def library(deployment: tuple[str, Mapping[str, Any]]) -> AsyncIterator[Library]:
    """Give two tenants that have rows with the same ids."""
    admin_url, options = deployment
    judge = await asyncpg.connect(admin_url)
    own = "languages, tenantry.tenants, tenantry.audit, tenantry.fences"
    await judge.execute(f"TRUNCATE {', '.join(TABLES)}, {own} CASCADE")
    try:
        async with MultiTenantSDK.open(**options, models=MODELS) as sdk:
            async with sdk.system(reason="reference data") as system:
                await system.data.create("languages", {"id": "en", "name": "English"})
            for tenant in ("acme", "globex"):
                await sdk.tenants.create(tenant)
                await stock(sdk, tenant)
            yield Library(sdk, judge, options)
    finally:
        await judge.close()


__all__ = ["ANN", "ATLAS", "BIBLE", "BOB", "WAR", "Language", "Library"]
