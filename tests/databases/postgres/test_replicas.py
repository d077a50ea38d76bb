"""A real streaming replica: what it answers, what it must not, and that it may fail."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from tenantry import Model, MultiTenantSDK
from tenantry.context import TenantContext
from tenantry.databases.postgres.adapter import PostgresAdapter, _rows_of
from tenantry.databases.postgres.replicas import Replica
from tenantry.errors import ConfigurationError, TenantDeleted, TenantSuspended, Unsupported
from tenantry.types import tenant_id
from tests.adversarial.arena import outcome_of
from tests.databases.postgres.deployment import deploy
from tests.servers import FaultProxy, PostgresServer

# So long that what a replica may answer does not hang on how busy the machine is.
PATIENT = 30.0


class Item(Model):
    __collection__ = "items"

    name: str
    number: int = 0


@dataclass
class Pair:
    """A primary, its replica, and how to open an SDK on both."""

    primary: PostgresServer
    replica: PostgresServer
    options: dict[str, Any]

    @property
    def replica_url(self) -> str:
        url: str = self.options["url"]
        return url.replace(f":{self.primary.port}/", f":{self.replica.port}/")

    @asynccontextmanager
    async def opened(
        self, *replicas: str, lag: float = PATIENT, **database: Any
    ) -> AsyncIterator[MultiTenantSDK]:
        urls = list(replicas) or [self.replica_url]
        merged = {**self.options["database"], "replicas": urls, "max_replica_lag": lag, **database}
        async with MultiTenantSDK.open(
            self.options["url"], database=merged, models=[Item], schema="create", env={}
        ) as sdk:
            yield sdk

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Let the replica replay nothing while the block runs."""
        await self.on_replica("SELECT pg_wal_replay_pause()")
        while await self.on_replica("SELECT pg_get_wal_replay_pause_state()") != "paused":
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            await self.on_replica("SELECT pg_wal_replay_resume()")

    async def on_replica(self, sql: str) -> str:
        return await asyncio.to_thread(self.replica.execute, sql, "shop")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with PostgresServer.start() as primary:
        admin_url = primary.create_database("shop")
        options = asyncio.run(deploy(admin_url))
        with primary.start_replica() as replica:
            yield Pair(primary, replica, options)


@pytest.fixture(autouse=True)
async def tenants(pair: Pair) -> None:
    """Begin each test with two tenants that have nothing."""
    async with pair.opened(lag=0.2) as sdk:
        for tenant in ("acme", "globex"):
            found = await sdk.tenants.create(tenant)
            for item in await sdk.tenant(found.id).data.read(Item):
                await sdk.tenant(found.id).data.delete(item)


def _replica(sdk: MultiTenantSDK) -> Replica:
    database = sdk._database
    assert isinstance(database, PostgresAdapter)
    assert database._replicas is not None
    return database._replicas.replicas[0]


async def _until(condition: Callable[[], Awaitable[object]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def _served_by_replica(sdk: MultiTenantSDK, tenant: str = "acme") -> None:
    """Read until the replica has answered."""
    replica = _replica(sdk)

    async def answered() -> bool:
        before = replica.reads
        await sdk.tenant(tenant).data.count(Item)
        return replica.reads > before

    await _until(answered)


async def _left_out(sdk: MultiTenantSDK) -> bool:
    return not _replica(sdk).serves


async def test_reads_are_answered_by_the_replica(pair: Pair) -> None:
    async with pair.opened() as sdk:
        made = await sdk.tenant("acme").data.create(Item(name="acme's"))
        await sdk.tenant("globex").data.create(Item(name="globex's"))
        for tenant in ("acme", "globex"):
            await _served_by_replica(sdk, tenant)
            before = _replica(sdk).reads
            data = sdk.tenant(tenant).data
            assert [item.name for item in await data.read(Item)] == [f"{tenant}'s"]
            assert (await data.count(Item, {"id": made.id})) == (1 if tenant == "acme" else 0)
            assert _replica(sdk).reads == before + 2

        async def counted() -> bool:
            await sdk.tenant("acme").data.count(Item)
            scans = "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'items'"
            return int(await pair.on_replica(scans)) > 0

        await _until(counted)  # the replica says so too; it counts with a delay
        measured = sdk.get_metrics()["pool"]["replicas"][0]
        assert measured["serves"]
        assert measured["lag"] < PATIENT


class TestOnesOwnWrites:
    async def test_are_read_back_whatever_the_replica_shows(self, pair: Pair) -> None:
        async with pair.opened() as sdk:
            data = sdk.tenant("acme").data
            await _served_by_replica(sdk)
            async with pair.paused():
                made = await data.create(Item(name="new"))
                for _ in range(30):
                    assert (await data.get(Item, made.id)).name == "new"
                    assert await data.count(Item) == 1
                    await asyncio.sleep(0.01)
                assert _replica(sdk).serves, "it was not left out, and still was not asked"
            await _served_by_replica(sdk)
            assert await data.count(Item) == 1

    async def test_of_a_transaction_and_of_raw_sql_too(self, pair: Pair) -> None:
        async with pair.opened() as sdk:
            data = sdk.tenant("acme").data
            made = await data.create(Item(name="new"))
            await _served_by_replica(sdk)
            async with pair.paused():
                async with data.transaction() as tx:
                    await tx.update(made, name="transaction")
                assert (await data.get(Item, made.id)).name == "transaction"
            await _served_by_replica(sdk)
            async with pair.paused():
                await data.sql("UPDATE items SET name = 'raw' RETURNING id")
                assert (await data.get(Item, made.id)).name == "raw"
            await _served_by_replica(sdk)
            async with pair.paused():
                await data.bulk_create([Item(name="bulk"), Item(name="bulk")])
                assert await data.count(Item, {"name": "bulk"}) == 2
            await _served_by_replica(sdk)
            async with pair.paused(), sdk.tenant("acme").session() as session:
                await session.execute(sa.text("UPDATE items SET name = 'session'"))
                await session.commit()
                assert (await data.get(Item, made.id)).name == "session"

    async def test_leave_other_tenants_with_the_replica(self, pair: Pair) -> None:
        async with pair.opened() as sdk:
            await _served_by_replica(sdk, "globex")
            async with pair.paused():
                await sdk.tenant("acme").data.create(Item(name="new"))
                before = _replica(sdk).reads
                await sdk.tenant("globex").data.count(Item)
                assert _replica(sdk).reads == before + 1


async def test_reads_never_go_back(pair: Pair) -> None:
    """Another process counts up; the replica stops and goes on, and the reader is sent here and there."""
    async with pair.opened() as writing, pair.opened() as reading:
        counter = await writing.tenant("acme").data.create(Item(name="counter"))
        data = reading.tenant("acme").data
        stopped, seen, numbers = asyncio.Event(), [0], itertools.count(1)

        async def write() -> None:
            while not stopped.is_set():
                await writing.tenant("acme").data.update(Item, counter.id, number=next(numbers))
                await asyncio.sleep(0.002)

        async def read() -> None:
            while not stopped.is_set():
                page = await data.read(Item, {"id": counter.id})
                found = page[0].number if len(page) else 0
                assert found >= seen[-1]
                seen.append(found)

        async def disturb() -> None:
            for _ in range(4):
                async with pair.paused():
                    await data.create(Item(name="own"))  # sends the reader to the primary
                    await asyncio.sleep(0.1)
                before = _replica(reading).reads
                while _replica(reading).reads == before:
                    await asyncio.sleep(0.01)
            stopped.set()

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for work in (write, read, disturb):
                group.create_task(work())
        assert _replica(reading).reads > 0


async def test_a_tenant_that_reads_all_the_time_finds_its_way_back_to_the_replica(pair: Pair) -> None:
    async with pair.opened(lag=0.5) as sdk:
        data = sdk.tenant("acme").data
        await data.create(Item(name="new"))
        until = time.monotonic() + 20
        while not _replica(sdk).reads:  # never a pause between two reads
            assert await data.count(Item) == 1
            assert time.monotonic() < until


async def test_the_primary_can_be_demanded(pair: Pair) -> None:
    async with pair.opened() as sdk, pair.opened() as other:
        data = sdk.tenant("acme").data
        await _served_by_replica(sdk)
        async with pair.paused():
            made = await other.tenant("acme").data.create(Item(name="of another process"))
            assert await data.count(Item) == 0
            assert (await data.primary.get(Item, made.id)).name == "of another process"
            assert await data.count(Item) == 1, "and nothing goes back from there"
            with pytest.raises(Unsupported):
                _ = sdk.data.primary


class TestAReplicaThatFails:
    async def test_is_left_out_without_an_error_and_comes_back(self, pair: Pair) -> None:
        async with (
            FaultProxy.start("127.0.0.1", pair.replica.port) as proxy,
            pair.opened(proxy.url(pair.replica_url), lag=0.5) as sdk,
        ):
            data = sdk.tenant("acme").data
            await data.create(Item(name="new"))
            await _served_by_replica(sdk)
            await proxy.refuse()
            await proxy.cut()
            for _ in range(20):
                assert await data.count(Item) == 1
            await _until(lambda: _left_out(sdk))
            await proxy.accept()
            await _served_by_replica(sdk)

    async def test_that_stalls_holds_nobody_for_longer_than_it_may_be_behind(self, pair: Pair) -> None:
        async with (
            FaultProxy.start("127.0.0.1", pair.replica.port) as proxy,
            pair.opened(proxy.url(pair.replica_url), lag=0.5) as sdk,
        ):
            data = sdk.tenant("acme").data
            await _served_by_replica(sdk)
            proxy.stall()
            started = time.monotonic()
            assert await data.count(Item) == 0
            assert time.monotonic() - started < 5, "the statement's own timeout is 30 s"
            assert not _replica(sdk).serves
            proxy.resume()
            await _served_by_replica(sdk)

    async def test_that_is_too_far_behind_is_left_out(self, pair: Pair) -> None:
        async with pair.opened(lag=0.3) as sdk, pair.opened() as other:
            await _served_by_replica(sdk)
            async with pair.paused():
                await other.tenant("globex").data.create(Item(name="moves the log on"))
                await _until(lambda: _left_out(sdk))
                before = _replica(sdk).reads
                await sdk.tenant("acme").data.count(Item)
                assert _replica(sdk).reads == before
            await _served_by_replica(sdk)

    async def test_that_is_away_at_the_start_does_not_keep_the_sdk_from_opening(
        self, pair: Pair, unused_tcp_port_factory: Callable[[], int]
    ) -> None:
        away = pair.replica_url.replace(f":{pair.replica.port}/", f":{unused_tcp_port_factory()}/")
        async with pair.opened(away) as sdk:
            assert await sdk.tenant("acme").data.count(Item) == 0

    async def test_that_is_no_standby_of_this_primary_is_refused(self, pair: Pair) -> None:
        for wrong in (pair.options["url"], pair.replica_url.replace("/shop", "/postgres")):
            with pytest.raises(ConfigurationError) as caught:
                async with pair.opened(wrong):
                    pass
            assert caught.value.field == "database.replicas"


async def test_a_suspension_is_heard_of_within_a_second_whatever_the_replica_shows(pair: Pair) -> None:
    async with pair.opened() as sdk, pair.opened() as other:
        await _served_by_replica(sdk)
        async with pair.paused():
            await other.tenants.suspend("acme", reason="a test")

            async def refused() -> bool:
                return isinstance(await outcome_of(sdk.tenant("acme").data.count(Item)), TenantSuspended)

            await _until(refused, seconds=3)
        await other.tenants.resume("acme")


async def test_nothing_of_a_purged_tenant_can_be_read_on_the_replica(pair: Pair) -> None:
    async with pair.opened() as sdk:
        await sdk.tenants.create("gone")
        await sdk.tenant("gone").data.create(Item(name="secret"))
        await _served_by_replica(sdk, "gone")
        await sdk.tenants.delete("gone", reason="a test")
        await sdk.tenants.purge("gone")
        adapter = sdk._database
        assert isinstance(adapter, PostgresAdapter)
        collection = adapter._compiler.collections["items"]
        step = adapter._compiler.fetch(TenantContext(tenant_id("gone")), collection, [])
        pool = _replica(sdk).pool
        assert pool is not None

        async def refused() -> bool:
            try:
                await adapter._read_from(partial(_rows_of, step), pool, "gone")
            except TenantDeleted:
                return True
            return False

        await _until(refused, seconds=5)
