"""The directory is a lease: nobody serves a tenant on knowledge that is older than a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tenantry.context import Context
from tenantry.errors import DirectoryUnavailable, TenantDeleted, TenantSuspended, Unavailable
from tenantry.ports import Executor
from tenantry.query import Query
from tenantry.schema import Collection
from tenantry.tenants import EPOCH, TenantLease, TenantStatus
from tenantry.types import Record
from tests.adversarial.arena import Arena, another_sdk, outcome_of
from tests.adversarial.models import Setting
from tests.adversarial.processes import worker
from tests.servers import FaultProxy


class _Directory:
    """A directory whose answers may arrive long after they were true."""

    def __init__(self) -> None:
        self.status = TenantStatus.ACTIVE
        self.epoch = 1
        self.delay = 0.0

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        answer = {"version": self.epoch} if collection is EPOCH else {"id": ids[0], "status": self.status}
        await asyncio.sleep(self.delay)
        return [answer]

    async def select(self, context: Context, query: Query) -> list[Record]:
        return [{"id": "acme"}]

    def suspend(self) -> None:
        self.status, self.epoch = TenantStatus.SUSPENDED, self.epoch + 1


@pytest.fixture
def directory() -> _Directory:
    return _Directory()


@pytest.fixture
def lease(directory: _Directory) -> TenantLease:
    return TenantLease(cast(Executor, directory), seconds=0.1)


class TestTheLease:
    async def test_expires(self, directory: _Directory, lease: TenantLease) -> None:
        await lease.admit("acme")
        assert lease.admits("acme")
        directory.suspend()
        await asyncio.sleep(0.11)
        assert not lease.admits("acme")
        with pytest.raises(TenantSuspended):
            await lease.admit("acme")

    async def test_is_not_renewed_by_an_answer_that_was_under_way_for_longer(
        self, directory: _Directory, lease: TenantLease
    ) -> None:
        await lease.admit("acme")
        await asyncio.sleep(0.11)
        directory.delay = 0.3
        admission = asyncio.create_task(lease.admit("acme"))
        await asyncio.sleep(0.01)  # the answer was given and is under way
        directory.suspend()
        with pytest.raises((DirectoryUnavailable, TenantSuspended)):
            await admission

    async def test_admits_no_new_tenant_by_an_answer_that_was_under_way_for_longer(
        self, directory: _Directory, lease: TenantLease
    ) -> None:
        await lease.admit("another")
        directory.delay = 0.3
        admission = asyncio.create_task(lease.admit("acme"))
        await asyncio.sleep(0.01)
        directory.suspend()
        with pytest.raises((DirectoryUnavailable, TenantSuspended)):
            await admission

    async def test_is_not_longer_than_what_was_asked_for_at_its_start(
        self, directory: _Directory, lease: TenantLease
    ) -> None:
        directory.delay = 0.06
        await lease.admit("acme")
        await lease.admit("acme")
        started = time.monotonic()
        while lease.admits("acme"):
            directory.delay = 10  # no renewal from now on
            await asyncio.sleep(0.005)
        assert time.monotonic() - started < 0.1


class TestASuspendedTenant:
    async def test_is_refused_by_another_process_within_a_second(self, arena: Arena) -> None:
        async with worker("poll", arena.options) as other:
            await other.until("served")
            await arena.sdk.tenants.suspend("globex", reason="test")
            suspended = time.monotonic()
            refused, before = await asyncio.wait_for(other.until("refused"), 5)
            moment, error = refused[1].split()
            assert error == "TenantSuspended"
            assert float(moment) - suspended < 1.0
            assert all(float(words[1]) - suspended < 1.0 for words in before)
            # and it stays refused, until it is resumed
            await arena.sdk.tenants.resume("globex")
            await asyncio.wait_for(other.until("served"), 5)

    async def test_is_refused_by_this_process_at_once(self, direct_arena: Arena) -> None:
        arena = direct_arena
        await arena.globex.data.get(Setting, "theme")
        await arena.sdk.tenants.suspend("globex", reason="test")
        for call in (
            arena.globex.data.get(Setting, "theme"),
            arena.globex.data.read(Setting),
            arena.globex.data.count(Setting),
            arena.globex.data.create(Setting(id="new", value="x")),
            arena.globex.data.update(Setting, "theme", value="x"),
            arena.globex.data.delete(Setting, "theme"),
            arena.globex.data.sql("SELECT 1"),
            arena.globex.data.transaction().__aenter__(),
            arena.globex.__aenter__(),
        ):
            with pytest.raises(TenantSuspended):
                await call
        await arena.acme.data.get(Setting, "theme")
        await arena.sdk.tenants.delete("globex", reason="test")
        with pytest.raises(TenantDeleted):
            await arena.globex.data.get(Setting, "theme")

    async def test_is_refused_in_the_middle_of_its_transaction(self, direct_arena: Arena) -> None:
        arena = direct_arena
        before = await arena.fingerprint("globex")
        with pytest.raises(TenantSuspended):  # noqa: PT012
            async with arena.globex.data.transaction() as unit:
                await unit.create(Setting(id="half", value="x"))
                await arena.sdk.tenants.suspend("globex", reason="test")
                await unit.create(Setting(id="done", value="x"))
        assert await arena.fingerprint("globex") == before


@asynccontextmanager
async def _behind_a_proxy(arena: Arena) -> AsyncIterator[tuple[Any, FaultProxy]]:
    host, port = arena.options["database"]["control_url"].rpartition("@")[2].split("/")[0].split(":")
    async with FaultProxy.start(host, int(port)) as proxy:
        control = proxy.url(arena.options["database"]["control_url"])
        async with another_sdk(arena, database={"control_url": control, "timeout": 2.0}) as sdk:
            yield sdk, proxy


class TestWithoutTheDirectory:
    """Only the directory's connection fails; the tenants' rows could still be read."""

    async def test_every_tenant_is_refused_within_the_lease_when_it_is_cut(self, arena: Arena) -> None:
        async with _behind_a_proxy(arena) as (sdk, proxy):
            for name in ("acme", "globex"):
                await sdk.tenant(name).data.get(Setting, "theme")
            await proxy.refuse()
            await proxy.cut()
            cut = time.monotonic()
            while time.monotonic() - cut < 1.3:
                started = time.monotonic()
                for name in ("acme", "globex"):
                    found = await outcome_of(sdk.tenant(name).data.get(Setting, "theme"))
                    assert isinstance(found, Setting | DirectoryUnavailable)
                    assert isinstance(found, DirectoryUnavailable) or started - cut < 1.0
                await asyncio.sleep(0.02)
            with pytest.raises(DirectoryUnavailable):
                await sdk.tenant("acme").data.get(Setting, "theme")
            await proxy.accept()
            assert await sdk.tenant("acme").data.get(Setting, "theme")  # no restart

    async def test_nobody_is_served_on_an_answer_that_was_held_back(self, arena: Arena) -> None:
        async with _behind_a_proxy(arena) as (sdk, proxy):
            await sdk.tenant("globex").data.get(Setting, "theme")
            proxy.stall(to_server=False)
            await asyncio.sleep(1.0)  # the lease has run out, and the answer to its renewal is held back
            call = asyncio.create_task(sdk.tenant("globex").data.get(Setting, "theme"))
            await asyncio.sleep(0.1)
            await arena.sdk.tenants.suspend("globex", reason="test")
            await asyncio.sleep(1.0)
            proxy.resume()
            found = await outcome_of(call)
            assert isinstance(found, TenantSuspended | Unavailable), found
