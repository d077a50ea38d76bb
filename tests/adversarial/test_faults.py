"""Networks that cut, stall and reset, and backends that die, under the load of two tenants on few connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from tenantry import MultiTenantSDK
from tenantry.databases._sql import Compiler
from tenantry.databases.postgres.adapter import PostgresAdapter
from tenantry.databases.postgres.shelf import Shelf
from tenantry.errors import DatabaseUnavailable, TenantryError, Unavailable
from tests.adversarial.arena import Arena, another_sdk, outcome_of
from tests.adversarial.load import Leak, Load, check_stored
from tests.adversarial.models import MODELS, Customer, Setting
from tests.servers import FaultProxy

SHORT = {"timeout": 0.5, "acquire_timeout": 1.0, "connect_timeout": 1.0, "pool_size": 2}


@asynccontextmanager
async def _behind_a_proxy(arena: Arena, **options: Any) -> AsyncIterator[tuple[MultiTenantSDK, FaultProxy]]:
    """Open a second SDK whose every connection goes through a proxy."""
    host, port = arena.options["url"].rpartition("@")[2].split("/")[0].split(":")
    async with FaultProxy.start(host, int(port)) as proxy:
        database = arena.options["database"]
        roles = {f"{role}_url": proxy.url(database[f"{role}_url"]) for role in ("control", "raw")}
        url = proxy.url(arena.options["url"])
        async with another_sdk(arena, url=url, database={**roles, **SHORT}, **options) as sdk:
            try:
                yield sdk, proxy
            finally:
                proxy.resume()
                await proxy.accept()


async def _network_faults(proxy: FaultProxy, choice: random.Random, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(choice.uniform(0.0, 0.12))
        fault = choice.choice(["cut", "reset", "stall", "deafen", "mute", "refuse"])
        if fault == "cut":
            await proxy.cut()
        elif fault == "reset":
            await proxy.reset()
        elif fault == "refuse":
            await proxy.refuse()
            await proxy.cut()
            await asyncio.sleep(choice.uniform(0, 0.1))
            await proxy.accept()
        else:
            proxy.stall(to_server=fault != "mute", to_client=fault != "deafen")
            await asyncio.sleep(choice.choice([0.02, 0.2, 0.8]))
            if choice.random() < 0.5:
                await proxy.cut()
            proxy.resume()


async def _killed_backends(arena: Arena, choice: random.Random, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(choice.uniform(0.0, 0.05))
        await arena.judge.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY ($1) AND random() < 0.4",
            [arena.user("app"), arena.user("raw"), arena.user("control")],
        )


async def _recovered(sdk: MultiTenantSDK, load: Load) -> None:
    """Check that soon everything works again, without a restart, and that no connection is missing."""
    async with asyncio.timeout(10):
        while isinstance(await outcome_of(load.once()), TenantryError):
            await asyncio.sleep(0.05)
        for _ in range(3):
            await load.once()
        adapter = sdk._database
        assert isinstance(adapter, PostgresAdapter)
        for pool in adapter._pools():
            assert pool.size <= pool.max_size
            while pool.size != pool.idle or pool.waiting:
                await asyncio.sleep(0.01)
            everything = [pool.statement(None) for _ in range(pool.max_size)]
            taken = [await block.__aenter__() for block in everything]
            assert len(set(taken)) == pool.max_size
            for block in everything:
                await block.__aexit__(None, None, None)


async def _storm(arena: Arena, seconds: float, seed: int) -> None:
    choice = random.Random(seed)
    async with _behind_a_proxy(arena) as (sdk, proxy):
        load = Load(sdk, seed)
        await load.prepare()
        running = asyncio.create_task(load.run())
        await asyncio.gather(
            _network_faults(proxy, choice, seconds),
            _killed_backends(arena, random.Random(seed + 1), seconds / 2),
        )
        assert not running.done()
        load.stop()
        await asyncio.wait_for(running, 15)
        await _recovered(sdk, load)
        await check_stored(load, arena.judge)
        assert load.outcomes["done"] > 20
        assert sum(load.outcomes.values()) > load.outcomes["done"], "nothing ever failed"


async def test_a_storm(arena: Arena) -> None:
    await _storm(arena, 5.0, seed=3)
    await arena.check_readers()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
async def test_a_long_storm(arena: Arena, seed: int) -> None:
    await _storm(arena, 30.0, seed=seed)


class TestAKilledBackend:
    async def test_between_two_operations(self, arena: Arena) -> None:
        load = Load(arena.sdk)
        await load.prepare()
        for moment in (0.0, 0.0, 0.05):  # before the client hears of it, and after
            await load.once()
            await self._kill_all(arena)
            await asyncio.sleep(moment)
            failures = 0
            for data in (arena.acme.data, arena.globex.data) * arena.app.max_size:
                failures += isinstance(await outcome_of(data.read(Customer)), Unavailable)
            assert failures <= arena.app.max_size
            await _recovered(arena.sdk, load)
        await arena.check_readers()

    async def test_in_the_middle_of_a_statement(self, arena: Arena) -> None:
        load = Load(arena.sdk)
        await load.prepare()

        async def block() -> None:
            async with arena.acme.data.transaction() as unit:
                await unit.update(Setting, "theme", value="locked")
                tasks = [
                    asyncio.create_task(arena.acme.data.sql("SELECT pg_sleep(10)")),
                    asyncio.create_task(arena.acme.data.update(Setting, "theme", value="waits")),
                ]
                await asyncio.sleep(0.1)
                await self._kill_all(arena)
                slept, waited = await asyncio.gather(*tasks, return_exceptions=True)
                assert isinstance(slept, DatabaseUnavailable)
                # if the lock's holder was killed first, the update went through before its own turn came
                assert isinstance(waited, DatabaseUnavailable | Setting)
                await outcome_of(unit.create(Setting(id="lost", value="x")))

        with pytest.raises(TenantryError):
            await block()
        await _recovered(arena.sdk, load)
        assert await arena.judge.fetchval("SELECT count(*) FROM settings WHERE id = 'lost'") == 0

    @pytest.mark.parametrize("heard", [True, False])
    async def test_in_the_middle_of_a_transaction(self, arena: Arena, heard: bool) -> None:
        """Whether or not the client has heard of it when it comes to commit."""
        before = await arena.fingerprint("acme")
        with pytest.raises(TenantryError):  # noqa: PT012
            async with arena.acme.data.transaction() as unit:
                await unit.create(Setting(id="lost", value="x"))
                await self._kill_all(arena)
                if heard:
                    connection = unit._unit.executor._connection  # type: ignore[union-attr]
                    async with asyncio.timeout(5):
                        while not connection.is_closed():
                            await asyncio.sleep(0.001)
        assert await arena.fingerprint("acme") == before
        load = Load(arena.sdk)
        await load.prepare()
        await _recovered(arena.sdk, load)

    async def test_shows_in_the_health_and_is_no_error_of_ours(self, arena: Arena) -> None:
        for _ in range(3):
            await self._kill_all(arena)
            health = await arena.sdk.get_health()
            assert {service["status"] for service in health.values()} <= {"ok", "degraded"}
        async with asyncio.timeout(5):
            while any(service["status"] != "ok" for service in (await arena.sdk.get_health()).values()):
                pass

    async def _kill_all(self, arena: Arena) -> None:
        await arena.judge.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY ($1)",
            [arena.user("app"), arena.user("raw"), arena.user("control")],
        )


async def test_a_commit_whose_answer_is_lost_is_no_success(arena: Arena) -> None:
    """It may have taken place or not; the caller is told that it is not known, and a retry with its key is safe."""
    async with _behind_a_proxy(arena) as (sdk, proxy):
        data = sdk.tenant("acme").data
        await data.get(Setting, "theme")
        proxy.stall(to_server=False)
        with pytest.raises(Unavailable):
            await data.create(Setting(id="in doubt", value="x"), idempotency_key="k")
        await proxy.cut()
        proxy.resume()
        made = await outcome_of(data.create(Setting(id="in doubt", value="x"), idempotency_key="k"))
        while isinstance(made, Unavailable):
            made = await outcome_of(data.create(Setting(id="in doubt", value="x"), idempotency_key="k"))
        assert isinstance(made, Setting)
        assert await arena.judge.fetchval("SELECT count(*) FROM settings WHERE id = 'in doubt'") == 1


async def test_one_connection_of_each_role_is_enough(direct_arena: Arena) -> None:
    """To start as well: whatever holds a connection does not ask for a second one."""
    async with another_sdk(direct_arena, database={"pool_size": 1, "acquire_timeout": 2.0}) as sdk:
        load = Load(sdk)
        await load.prepare()
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.5)
        load.stop()
        await running
        assert set(load.outcomes) == {"done"}


class TestTheControl:
    """The load does find leaks: with the guards taken out, it does so at once."""

    async def _leaks(self, arena: Arena) -> bool:
        load = Load(arena.sdk)
        running = asyncio.create_task(load.run())
        done, _ = await asyncio.wait([running], timeout=2)
        load.stop()
        found = await outcome_of(running)
        assert done or not isinstance(found, BaseException)
        return isinstance(found, BaseExceptionGroup) and found.split(Leak)[0] is not None

    async def test_with_all_guards_in_place(self, direct_arena: Arena) -> None:
        await Load(direct_arena.sdk).prepare()
        assert not await self._leaks(direct_arena)

    async def test_without_the_binding(self, direct_arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
        """The connection stays with whoever had it first: half of the rows are missing, or another's."""
        await Load(direct_arena.sdk).prepare()
        monkeypatch.setattr(Shelf, "_bind", _pretend_to_bind)
        assert await self._leaks(direct_arena)

    async def test_without_the_binding_and_the_predicate(
        self, direct_arena: Arena, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One tenant is shown the other's rows. Both locks had to be opened for that."""
        arena = direct_arena
        assert len(await arena.globex.data.read(Customer)) == 2
        _forget_the_predicate(arena, monkeypatch)
        monkeypatch.setattr(Shelf, "_bind", _pretend_to_bind)
        assert arena.reveals(await arena.acme.data.read(Customer))

    async def test_without_the_predicate_alone(
        self, direct_arena: Arena, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database still holds: two locks on one door."""
        arena = direct_arena
        await Load(arena.sdk).prepare()
        _forget_the_predicate(arena, monkeypatch)
        assert not await self._leaks(arena)


async def _pretend_to_bind(shelf: Shelf, slot: Any, tenant: str | None) -> None:
    slot.tenant, slot.fresh_until = tenant, time.monotonic() + 300


def _forget_the_predicate(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def anything(*_: object) -> Any:
        return sa.bindparam("tenant", type_=sa.Text()).is_not(None)

    monkeypatch.setattr(Compiler, "_tenant_predicate", anything)
    arena.adapter._compiler._statements.clear()


async def test_a_start_that_is_disturbed_fails_with_an_error_of_ours(direct_arena: Arena) -> None:
    """At whatever place backends die while it looks around."""
    arena = direct_arena
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY ($1)"
    roles = [arena.user("app"), arena.user("raw"), arena.user("control")]
    outcomes = set()
    for milliseconds in range(0, 160, 8):
        sdk = MultiTenantSDK.open(**arena.options, models=MODELS)
        starting = asyncio.create_task(sdk.initialize())
        await asyncio.sleep(milliseconds / 1000)
        await arena.judge.execute(kill, roles)
        outcome = await outcome_of(starting)
        assert outcome is None or isinstance(outcome, TenantryError), outcome
        outcomes.add(type(outcome))
        await sdk.close()
    assert len(outcomes) > 1
