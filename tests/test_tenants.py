"""The lease by which a process serves tenants, and the two steps of deleting one."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tenantry import MultiTenantSDK, TenantStatus
from tenantry.aggregation import Aggregation
from tenantry.context import Context
from tenantry.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DirectoryUnavailable,
    PurgeIncomplete,
    TenantNotFound,
    TenantSuspended,
)
from tenantry.query import Query
from tenantry.schema import Collection, collection_of
from tenantry.searching import Search
from tenantry.tenants import EPOCH, TENANTS, TenantLease, children_first
from tenantry.testing.models import MODELS, Note
from tenantry.types import Record


class Directory:
    """A directory that can be slow or away, and counts how often it is asked."""

    def __init__(self) -> None:
        self.epoch = 1
        self.statuses = {"acme": TenantStatus.ACTIVE, "globex": TenantStatus.ACTIVE}
        self.changed: dict[str, int] = {}
        self.delay = 0.0
        self.away = False
        self.asked: list[str] = []

    def set(self, id: str, status: TenantStatus) -> None:
        self.epoch += 1
        self.statuses[id] = status
        self.changed[id] = self.epoch

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        self.asked.append(collection.name)
        if collection is EPOCH:
            answer: list[Record] = [{"version": self.epoch}]
        else:
            answer = [{"id": id, "status": self.statuses[id]} for id in ids if id in self.statuses]
        await self._wait()
        return answer

    async def select(self, context: Context, query: Query) -> list[Record]:
        self.asked.append("changes")
        since = query.filter.value  # type: ignore[union-attr]
        answer: list[Record] = [{"id": id} for id, change in self.changed.items() if change > since]
        await self._wait()
        return answer

    async def _wait(self) -> None:
        await asyncio.sleep(self.delay)
        if self.away:
            raise DatabaseUnavailable("away")

    async def count(self, context: Context, query: Query) -> int:
        raise NotImplementedError

    async def search(self, context: Context, search: Search) -> list[Record]:
        raise NotImplementedError

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        raise NotImplementedError

    async def execute_each(self, context: Context, writes: Any, added: Any) -> Any:
        raise NotImplementedError

    async def execute(self, context: Context, writes: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def lease(directory: Directory) -> AsyncIterator[TenantLease]:
    lease = TenantLease(directory, seconds=0.2)
    yield lease
    await lease.close()


async def served_until(lease: TenantLease, id: str) -> float:
    """Return for how many seconds ``id`` is served still, asking all the time as a busy process does.

    Measured by when the last call was made that was served, so that a slow machine makes no difference.
    """
    started = last = time.monotonic()
    while last - started < 5:
        asked_at = time.monotonic()
        try:
            if not lease.admits(id):
                await lease.admit(id)
        except (TenantSuspended, DirectoryUnavailable):
            return last - started
        last = asked_at
        await asyncio.sleep(0.005)
    raise AssertionError("it was never refused")


class TestLease:
    async def test_a_tenant_is_read_once_while_nothing_changes(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        for _ in range(1_000):
            if not lease.admits("acme"):
                await lease.admit("acme")
        assert directory.asked == ["tenantry_epoch", "tenantry_tenants"]

    async def test_it_is_renewed_in_the_background_by_one_small_read(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        await lease.admit("acme")
        started = time.monotonic()
        while time.monotonic() - started < 0.5:
            if not lease.admits("acme"):
                await lease.admit("acme")
            await asyncio.sleep(0.005)
        assert directory.asked.count("tenantry_tenants") == 1
        assert 2 <= directory.asked.count("tenantry_epoch") <= 12

    async def test_a_suspension_is_seen_within_the_lease(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        await lease.admit("acme")
        await lease.admit("globex")
        directory.set("acme", TenantStatus.SUSPENDED)
        assert await served_until(lease, "acme") <= 0.2
        assert lease.admits("globex")

    async def test_a_directory_that_is_away_lets_the_lease_run_out(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        await lease.admit("acme")
        directory.away = True
        assert await served_until(lease, "acme") <= 0.2
        with pytest.raises(DirectoryUnavailable):
            await lease.admit("globex")
        directory.away = False
        await lease.admit("acme")

    async def test_an_answer_that_comes_too_late_serves_nobody(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        """It was true when it was given; a tenant may have been suspended since."""
        directory.delay = 0.3
        for _ in range(2):
            with pytest.raises(DirectoryUnavailable, match="too late"):
                await lease.admit("acme")
        directory.delay = 0.0
        await lease.admit("acme")
        await asyncio.sleep(0.25)
        directory.delay = 0.3
        assert await served_until(lease, "acme") < 1.0

    async def test_many_who_wait_share_one_renewal(self, lease: TenantLease, directory: Directory) -> None:
        directory.delay = 0.05
        await asyncio.gather(*(lease.admit("acme") for _ in range(100)))
        assert directory.asked.count("tenantry_epoch") == 1

    async def test_one_who_is_cancelled_while_waiting_cancels_nobody(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        directory.delay = 0.05
        first, second = (asyncio.create_task(lease.admit("acme")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await second
        assert first.cancelled()

    async def test_a_change_while_a_tenant_is_being_read_is_not_lost(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        await lease.admit("globex")
        directory.delay = 0.05
        reading = asyncio.create_task(lease.admit("acme"))
        await asyncio.sleep(0.01)
        directory.set("acme", TenantStatus.SUSPENDED)  # the answer under way is the older one
        await asyncio.gather(reading, return_exceptions=True)
        directory.delay = 0.0
        assert await served_until(lease, "acme") <= 0.2

    async def test_what_is_not_active_is_not_remembered_as_such_for_long(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        directory.set("acme", TenantStatus.SUSPENDED)
        with pytest.raises(TenantSuspended):
            await lease.admit("acme")
        directory.set("acme", TenantStatus.ACTIVE)
        await asyncio.sleep(0.25)
        await lease.admit("acme")

    async def test_an_unknown_tenant_is_served_as_soon_as_it_is_made(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        with pytest.raises(TenantNotFound):
            await lease.admit("initech")
        directory.set("initech", TenantStatus.ACTIVE)
        await lease.admit("initech")

    async def test_it_remembers_so_many_tenants_and_no_more(self, directory: Directory) -> None:
        lease = TenantLease(directory, max_tenants=10)
        directory.statuses = {f"t{number}": TenantStatus.ACTIVE for number in range(50)}
        for id in directory.statuses:
            await lease.admit(id)
        assert len(lease._known) == 10
        await lease.close()

    async def test_it_forgets_the_one_that_was_asked_for_longest_ago(self, directory: Directory) -> None:
        lease = TenantLease(directory, max_tenants=3)
        directory.statuses = {f"t{number}": TenantStatus.ACTIVE for number in range(6)}
        for id in ("t0", "t1", "t2"):
            await lease.admit(id)
        assert lease.admits("t0")
        await lease.admit("t3")
        assert [lease.admits(id) for id in ("t0", "t1", "t2", "t3")] == [True, False, True, True]
        known, size = lease.size()
        assert known == 3
        assert size > 0
        await lease.close()

    async def test_a_flood_of_unknown_ids_evicts_nobody_and_asks_little(self, directory: Directory) -> None:
        lease = TenantLease(directory, max_tenants=3)
        await lease.admit("acme")
        directory.delay = 0.02
        ids = [f"nobody{number}" for number in range(2_000)]
        refused = await asyncio.gather(*map(lease.admit, ids), return_exceptions=True)
        assert all(isinstance(outcome, TenantNotFound) for outcome in refused)
        assert directory.asked.count("tenantry_tenants") <= 1 + 2 + 2_000 // 500
        directory.delay = 0.0
        asked = len(directory.asked)
        for id in ids[:300]:
            with pytest.raises(TenantNotFound):
                await lease.admit(id)
        assert len(directory.asked) - asked <= 2  # the same ones again; a renewal at most
        assert lease.admits("acme")
        await lease.close()

    async def test_look_ups_that_come_one_by_one_wait_for_each_other(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        await lease.admit("acme")
        directory.delay = 0.05
        asking = []
        for number in range(100):
            asking.append(asyncio.create_task(lease.admit(f"nobody{number}")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        asked = directory.asked.count("tenantry_tenants")
        assert asked <= 1 + 2  # those under way; the others are in the next one
        await asyncio.gather(*asking, return_exceptions=True)

    async def test_one_who_is_cancelled_leaves_the_look_up_to_the_others(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        await lease.admit("globex")
        directory.delay = 0.02
        first, second = (asyncio.create_task(lease.admit("acme")) for _ in range(2))
        await asyncio.sleep(0.005)
        first.cancel()
        await second
        assert first.cancelled()
        directory.away = True
        with pytest.raises(DirectoryUnavailable):
            await lease.admit("initech")
        directory.away = False
        with pytest.raises(TenantNotFound):
            await lease.admit("initech")

    async def test_a_thousand_changes_at_once_forget_everybody(
        self, lease: TenantLease, directory: Directory
    ) -> None:
        ids = [f"t{number}" for number in range(1_500)]
        directory.statuses = dict.fromkeys(ids, TenantStatus.ACTIVE)
        for id in ids:
            await lease.admit(id)
        for id in ids:
            directory.set(id, TenantStatus.SUSPENDED)
        await asyncio.sleep(0.25)
        for id in (ids[0], ids[-1], ids[700]):
            with pytest.raises(TenantSuspended):
                await lease.admit(id)


class TestPurge:
    async def test_it_waits_for_every_lease_from_before_the_mark(self) -> None:
        async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
            await sdk.tenants.create("acme")
            await sdk.tenants.delete("acme", reason="test")
            started = time.monotonic()
            certificate = await sdk.tenants.purge("acme")
            assert time.monotonic() - started > 0.95
            assert certificate.finished_at - certificate.started_at > dt.timedelta(seconds=0.9)

    async def test_a_mark_that_seems_old_is_waited_for_as_well(self) -> None:
        """Its age is told by the clock of whoever made it, and that may be behind."""
        async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
            await sdk.tenants.create("acme")
            await sdk.tenants.delete("acme", reason="test")
            await asyncio.sleep(0.2)
            started = time.monotonic()
            await sdk.tenants.purge("acme")
            assert time.monotonic() - started > 0.95

    async def test_rows_that_stay_are_an_error_with_their_number(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tenantry.tenants.manager.LONGEST_LEASE", 0.0)
        async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
            await sdk.tenants.create("acme")
            await sdk.tenants.delete("acme", reason="test")
            original = sdk.tenants._delete_rows

            async def writes_still(id: str) -> dict[str, Record]:
                return await original(id) | {"notes": {"deleted": 2, "remaining": 2}}

            with monkeypatch.context() as patch:
                patch.setattr(sdk.tenants, "_delete_rows", writes_still)
                with pytest.raises(PurgeIncomplete, match="notes: 2"):
                    await sdk.tenants.purge("acme")
            assert (await sdk.tenants.get("acme")).status is TenantStatus.DELETING
            await sdk.tenants.purge("acme")
            assert (await sdk.tenants.get("acme")).status is TenantStatus.PURGED


class TestOrder:
    def test_children_come_before_what_they_refer_to(self) -> None:
        collections = [collection_of(model) for model in MODELS]
        for given in (collections, collections[::-1]):
            names = [item.name for item in children_first(given)]
            assert names.index("reviews") < names.index("books") < names.index("authors")
            assert "countries" not in names
            assert sorted(names) == sorted(item.name for item in collections if item.scope == "tenant")

    def test_the_directory_belongs_to_no_tenant(self) -> None:
        assert {TENANTS.scope, EPOCH.scope} == {"control"}
        with pytest.raises(ConfigurationError):
            MultiTenantSDK.open("memory://", models=[TENANTS.model, TENANTS.model, _Impostor], env={})


class _Impostor(Note):
    __collection__ = "tenantry_tenants"


WORKER = """
import asyncio, sys, time
from tenantry import MultiTenantSDK
from tenantry.errors import TenantSuspended
from tenantry.testing.models import Note

async def main(url):
    async with MultiTenantSDK.open(url, models=[Note], env={}) as sdk:
        data = sdk.tenant("acme").data
        await data.count(Note)
        print("serving", flush=True)
        served_at = 0.0
        while True:
            asked_at = time.time()
            try:
                await data.count(Note)
            except TenantSuspended:
                print(served_at, flush=True)
                return
            served_at = asked_at
            await asyncio.sleep(0.005)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("workers", [2])
async def test_a_suspension_reaches_other_processes_within_a_second(tmp_path: Path, workers: int) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    async with MultiTenantSDK.open(url, models=[Note], schema="create", env={}) as sdk:
        await sdk.tenants.create("acme")
        others = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, url, stdout=subprocess.PIPE)
            for _ in range(workers)
        ]
        for other in others:
            assert other.stdout is not None
            assert await asyncio.wait_for(other.stdout.readline(), 30) == b"serving\n"
        await sdk.tenants.suspend("acme", reason="test")
        suspended_at = time.time()
        for other in others:
            assert other.stdout is not None
            last_served_at = float(await asyncio.wait_for(other.stdout.readline(), 30))
            assert last_served_at - suspended_at < 1.0
            assert await other.wait() == 0
