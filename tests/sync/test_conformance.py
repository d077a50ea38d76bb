"""The public conformance suite, run through the synchronous API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, cast

import pytest
import pytest_asyncio

from tenantry import MultiTenantSDK, TenantHandle, sync
from tenantry.errors import Unsupported
from tenantry.testing.conformance.constraints import Constraints
from tenantry.testing.conformance.isolation import Isolation
from tenantry.testing.conformance.pages import Pages
from tenantry.testing.conformance.plans import Plans
from tenantry.testing.conformance.rows import Rows
from tenantry.testing.conformance.tenants import Tenants
from tenantry.testing.conformance.transactions import Transactions
from tenantry.testing.models import MODELS, Book, Note
from tests.conformance.databases import deployed
from tests.servers import PostgresServer
from tests.sync.presented import Presented


class Synchronous(Rows, Pages, Constraints, Transactions, Tenants, Plans, Isolation):
    """What of the suite is asked through the SDK; `Values` and `Filters` ask the same calls other questions."""

    @classmethod
    @asynccontextmanager
    async def open_database(cls, config: Mapping[str, Any], **more: Any) -> AsyncIterator[MultiTenantSDK]:
        options: dict[str, Any] = {"schema": "create", "models": MODELS, "env": {}, **config, **more}
        sdk = Presented(sync.MultiTenantSDK.open(**options))
        async with sdk:
            yield cast("MultiTenantSDK", sdk)

    async def test_tasks_of_one_transaction_may_write_at_once(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        """Threads may not: a transaction is one connection, and belongs to the thread that opened it."""
        async with acme.data.transaction() as unit:
            await unit.create(Note(id="mine"))
            with pytest.raises(Unsupported, match="belongs to the thread"):
                await asyncio.create_task(unit.count(Note))
            assert await unit.count(Note) == 1
        assert await acme.data.count(Note) == 1

    async def test_a_transaction_that_repeats_loses_no_update(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        """What is run again is a plain function, in the thread of the caller."""
        book = await acme.data.create(Book(title="counted", copies=0))
        data = cast("Presented", acme)._found.data

        def add(unit: sync.DataManager) -> int:
            found = unit.get(Book, book.id)
            return unit.update(found, copies=found.copies + 1).copies

        racers = [asyncio.to_thread(data.run_transaction, add, attempts=50) for _ in range(4)]
        assert sorted(await asyncio.gather(*racers)) == [1, 2, 3, 4]
        stored = await acme.data.get(Book, book.id)
        assert (stored.copies, stored.version) == (4, 5)


class TestMemory(Synchronous):
    config: ClassVar[Mapping[str, Any]] = {"url": "memory://"}


class TestSQLite(Synchronous):
    @pytest.fixture(scope="class")
    @classmethod
    def database_config(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
        return {"url": f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/data.db"}


class TestPostgreSQL(Synchronous):
    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def database_config(  # type: ignore[override] # a fixture overrides a fixture, by name
        cls, postgres_server: PostgresServer
    ) -> AsyncIterator[Mapping[str, Any]]:
        async with deployed(postgres_server) as config:
            yield config
