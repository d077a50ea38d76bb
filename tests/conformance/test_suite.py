"""The public conformance suite on every database that tenantry ships."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from tenantry.testing.conformance import Conformance
from tenantry.testing.conformance.isolation import Isolation
from tenantry.testing.conformance.rows import Rows
from tests.conformance.databases import deployed
from tests.servers import PgBouncer, PostgresServer


class TestMemory(Conformance):
    config: ClassVar[Mapping[str, Any]] = {"url": "memory://"}


class TestSQLite(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def database_config(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
        return {"url": f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/data.db"}


class TestPostgreSQL(Conformance):
    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def database_config(  # type: ignore[override] # a fixture overrides a fixture, by name
        cls, postgres_server: PostgresServer
    ) -> AsyncIterator[Mapping[str, Any]]:
        async with deployed(postgres_server) as config:
            yield config


class TestPgBouncer(Conformance):
    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def database_config(  # type: ignore[override] # a fixture overrides a fixture, by name
        cls, postgres_server: PostgresServer, pgbouncer: PgBouncer
    ) -> AsyncIterator[Mapping[str, Any]]:
        async with deployed(postgres_server, pgbouncer) as config:
            yield config


class TestReplicated(Rows, Isolation):
    """What reads after it has written, or as another tenant, may be answered by a replica here."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def database_config(  # type: ignore[override] # a fixture overrides a fixture, by name
        cls,
    ) -> AsyncIterator[Mapping[str, Any]]:
        with PostgresServer.start() as server, server.start_replica() as replica:
            async with deployed(server) as config:
                url = config["url"].replace(f":{server.port}/", f":{replica.port}/")
                yield {**config, "database": {**config["database"], "replicas": [url]}}
