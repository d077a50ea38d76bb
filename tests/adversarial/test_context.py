"""Who asks: the tenant that a piece of work was started for, whatever task, thread or generator carries it on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tenantry import Count, MultiTenantSDK, TenantContext, current_context, use_context
from tenantry.coalescer import Coalescer
from tenantry.context import Context, SystemContext
from tenantry.data import DataManager
from tenantry.errors import (
    ContextMismatch,
    IsolationError,
    ReadOnlyCollection,
    TenantRequired,
    TenantryError,
    Unsupported,
)
from tenantry.schema import Collection, collection_of
from tenantry.types import Record
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.models import Customer, Setting

ACME, GLOBEX = TenantContext("acme"), TenantContext("globex")  # type: ignore[arg-type]


def _calls(data: DataManager, **context: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "get": lambda: data.get(Setting, "theme", **context),
        "get a record": lambda: data.get("settings", "theme", **context),
        "read": lambda: data.read(Setting, **context),
        "count": lambda: data.count(Setting, **context),
        "aggregate": lambda: data.aggregate(Setting, {"n": Count()}, **context),
        "stream": lambda: data.stream(Setting, **context).next_batch(),
        "exists": lambda: data.exists(Setting, **context),
        "create": lambda: data.create(Setting(id="new", value="x"), **context),
        "create once": lambda: data.create(Setting(id="new", value="x"), idempotency_key="k", **context),
        "bulk create": lambda: data.bulk_create([Setting(id="new", value="x")], **context, atomic=True),
        "update": lambda: data.update(Setting, "theme", {"value": "x"}, **context),
        "upsert": lambda: data.upsert(Setting(id="theme", value="x"), **context),
        "delete": lambda: data.delete(Setting, "theme", **context),
        "transaction": lambda: data.transaction(**context).__aenter__(),
        "sql": lambda: data.sql("SELECT 1", **context),
    }


class TestACall:
    async def test_without_a_tenant_is_refused(self, direct_arena: Arena) -> None:
        before = await direct_arena.fingerprint("acme")
        for name, call in _calls(direct_arena.sdk.data).items():
            with pytest.raises(TenantRequired):
                await call()
            assert name
        assert await direct_arena.fingerprint("acme") == before

    async def test_by_a_handle_inside_of_another_tenants_request_is_refused(
        self, direct_arena: Arena
    ) -> None:
        acme = direct_arena.acme.data
        async with direct_arena.unharmed():
            with use_context(GLOBEX):
                for call in _calls(acme).values():
                    with pytest.raises(ContextMismatch):
                        await call()
            with use_context(ACME):
                assert (await acme.get(Setting, "theme")).value == "dark plain"

    async def test_that_names_another_tenant_than_its_handle_is_refused(self, direct_arena: Arena) -> None:
        acme = direct_arena.acme.data
        async with direct_arena.unharmed():
            for call in _calls(acme, context=GLOBEX).values():
                with pytest.raises(ContextMismatch):
                    await call()
            assert (await acme.get(Setting, "theme", context=ACME)).value == "dark plain"
            for other in (TenantContext("acme", "u1"), TenantContext("acme", claims={"x": 1})):  # type: ignore[arg-type]
                with pytest.raises(ContextMismatch):
                    await acme.get(Setting, "theme", context=other)

    async def test_that_names_another_tenant_than_the_request_is_refused(self, direct_arena: Arena) -> None:
        with use_context(GLOBEX):
            for call in _calls(direct_arena.sdk.data, context=ACME).values():
                with pytest.raises(ContextMismatch):
                    await call()

    async def test_does_not_take_a_tenant_from_elsewhere(self, direct_arena: Arena) -> None:
        for stranger in ("acme", b"acme", 1, {"tenant_id": "acme"}, object(), True):
            found = await outcome_of(direct_arena.sdk.data.get(Setting, "theme", context=stranger))  # type: ignore[call-overload]
            assert isinstance(found, TenantRequired | ContextMismatch), stranger

    async def test_cannot_name_its_tenant_in_a_row(self, direct_arena: Arena) -> None:
        acme = direct_arena.acme.data
        async with direct_arena.unharmed():
            for call in (
                lambda: acme.create("settings", {"id": "x", "value": "x", "tenant_id": "globex"}),
                lambda: acme.bulk_create(
                    "settings", [{"id": "x", "value": "x", "tenant_id": "globex"}], atomic=True
                ),
                lambda: acme.upsert("settings", {"id": "theme", "value": "x", "tenant_id": "globex"}),
                lambda: acme.update("settings", "theme", {"tenant_id": "globex"}),
                lambda: acme.update("settings", "theme", tenant_id="globex"),
                lambda: acme.read("settings", {"tenant_id": "globex"}),
                lambda: acme.read("settings", fields=["tenant_id"]),
                lambda: acme.read("settings", order_by="tenant_id"),
                lambda: acme.count("tenantry_tenants"),
                lambda: acme.read("tenantry_idempotency"),
            ):
                with pytest.raises(TenantryError):
                    await call()
            with pytest.raises(ReadOnlyCollection):
                await acme.update("countries", direct_arena.country, name="owned")
            with pytest.raises(ReadOnlyCollection):
                await acme.delete("countries", direct_arena.country)


class TestWork:
    """The secret tells whose rows came back."""

    async def test_of_a_long_lived_worker_keeps_its_tenant(self, arena: Arena) -> None:
        queue: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()

        async def worker() -> None:
            while True:
                answer = await queue.get()
                answer.set_result(await arena.sdk.data.get(Setting, "theme"))

        with use_context(GLOBEX):
            task = asyncio.create_task(worker())
        for ambient in (None, ACME, GLOBEX, ACME):
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            token = contextvars.copy_context()
            if ambient is None:
                await queue.put(answer)
            else:
                with use_context(ambient):
                    await queue.put(answer)
            assert (await answer).value == f"dark {arena.secret}"
            assert token
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_of_a_background_task_keeps_its_tenant_after_the_request(self, arena: Arena) -> None:
        async def later() -> str:
            await asyncio.sleep(0.01)
            context = current_context()
            row = await arena.sdk.data.get(Setting, "theme")
            return f"{context and context.tenant_id}: {row.value}"

        with use_context(GLOBEX):
            first = asyncio.create_task(later())
        with use_context(ACME):
            second = asyncio.create_task(later())
            assert await first == f"globex: dark {arena.secret}"
        assert await second == "acme: dark plain"
        with pytest.raises(TenantRequired):
            await later()

    async def test_under_gather_keeps_apart(self, arena: Arena) -> None:
        async def request(context: TenantContext) -> str:
            with use_context(context):
                values = []
                for _ in range(5):
                    await asyncio.sleep(0)
                    values.append((await arena.sdk.data.get(Setting, "theme")).value)
                assert len(set(values)) == 1
                return values[0]

        found = await asyncio.gather(*(request(context) for context in [ACME, GLOBEX] * 10))
        assert found == ["dark plain", f"dark {arena.secret}"] * 10

    async def test_in_a_thread_keeps_its_tenant(self, arena: Arena) -> None:
        loop = asyncio.get_running_loop()

        def in_thread(data: DataManager) -> Any:
            coroutine = data.get(Setting, "theme")
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10).value

        with use_context(GLOBEX):
            assert await asyncio.to_thread(in_thread, arena.sdk.data) == f"dark {arena.secret}"
            with pytest.raises(ContextMismatch):
                await asyncio.to_thread(in_thread, arena.acme.data)
            with ThreadPoolExecutor(1) as bare:  # its threads know no request
                assert await loop.run_in_executor(bare, in_thread, arena.acme.data) == "dark plain"
                with pytest.raises(TenantRequired):
                    await loop.run_in_executor(bare, in_thread, arena.sdk.data)

    async def test_of_a_generator_is_not_taken_over_by_its_consumer(self, arena: Arena) -> None:
        """A generator runs in the context of whoever asks for its next item: a stream that outlives its request."""

        async def stream(data: DataManager) -> AsyncIterator[Any]:
            cursor: str | None = None
            while True:
                page = await data.read(Setting, limit=1, cursor=cursor)
                for row in page:
                    yield row
                if (cursor := page.next_cursor) is None:
                    return

        rows = stream(arena.globex.data)
        with use_context(GLOBEX):
            first = await anext(rows)
        assert arena.secret in first.value + first.id
        with use_context(ACME), pytest.raises(ContextMismatch):
            await anext(rows)
        unbound = stream(arena.sdk.data)
        with use_context(GLOBEX):
            await anext(unbound)
        with use_context(ACME):
            found = await outcome_of(anext(unbound))  # acme's, or the cursor is refused; never globex'
        assert not arena.reveals(found)

    async def test_of_two_pagers_side_by_side_keeps_apart(self, arena: Arena) -> None:
        for tenant in (arena.acme, arena.globex):
            await tenant.data.bulk_create(
                [Setting(id=f"page {n}", value=tenant.context.tenant_id) for n in range(9)], atomic=True
            )
        cursors: dict[str, str | None] = {"acme": None, "globex": None}
        seen: dict[str, list[str]] = {"acme": [], "globex": []}
        for _ in range(5):
            for handle in (arena.acme, arena.globex):
                name = handle.context.tenant_id
                page = await handle.data.read(
                    Setting, {"id": {"starts_with": "page"}}, order_by="-id", limit=2, cursor=cursors[name]
                )
                assert {row.value for row in page} == {name}
                seen[name] += [row.id for row in page]
                cursors[name] = page.next_cursor
        assert seen["acme"] == seen["globex"] == [f"page {n}" for n in range(8, -1, -1)]


class TestATransaction:
    async def test_is_not_used_after_its_end(self, arena: Arena) -> None:
        """Its connection may serve globex by now."""
        async with arena.unharmed():
            for ends_well in (True, False):
                kept: list[DataManager] = []
                with _Swallowed():
                    async with arena.acme.data.transaction() as unit:
                        kept.append(unit)
                        await unit.update(Setting, "theme", value="x")
                        if not ends_well:
                            raise KeyError
                async with arena.globex.data.transaction() as theirs:
                    await theirs.get(Setting, "theme")
                    for name, call in _calls(kept[0]).items():
                        found = await outcome_of(call())
                        assert isinstance(found, TenantryError), name
                        assert not arena.reveals(found)
                    assert await theirs.count(Setting) == 2
        assert await arena.judge.fetchval("SELECT count(*) FROM settings WHERE id = 'new'") == 0

    async def test_does_not_let_a_forgotten_task_write_into_the_next_one(self, arena: Arena) -> None:
        async def forgotten(unit: DataManager) -> Any:
            await asyncio.sleep(0.02)
            return await unit.create(Setting(id="new", value="x"))

        async with arena.acme.data.transaction() as unit:
            task = asyncio.create_task(forgotten(unit))
        async with arena.globex.data.transaction() as theirs:
            await theirs.update(Setting, "theme", value=arena.secret)
            found = await outcome_of(task)
            await theirs.update(Setting, "theme", value=f"dark {arena.secret}")
        assert isinstance(found, TenantryError)
        assert await arena.judge.fetchval("SELECT count(*) FROM settings WHERE id = 'new'") == 0

    async def test_is_not_bound_to_another_tenant(self, direct_arena: Arena) -> None:
        async with direct_arena.acme.data.transaction() as unit:
            with pytest.raises(Unsupported):
                unit.bind(GLOBEX)
            with pytest.raises(ContextMismatch):
                await unit.get(Setting, "theme", context=GLOBEX)
            with use_context(GLOBEX), pytest.raises(ContextMismatch):
                await unit.get(Setting, "theme")
            executor = unit._unit.executor  # type: ignore[union-attr]
            with pytest.raises(ContextMismatch):
                await executor.fetch(GLOBEX, collection_of(Setting), ["theme"])


class TestTheSystem:
    async def test_is_not_made_by_hand(self, direct_arena: Arena) -> None:
        forged = SystemContext("because")
        for call in _calls(direct_arena.sdk.data, context=forged).values():
            with pytest.raises(IsolationError):
                await call()
        with pytest.raises(IsolationError):
            direct_arena.sdk.data.bind(forged)

    async def test_ends_with_its_block(self, direct_arena: Arena) -> None:
        async with direct_arena.sdk.system(reason="test") as system:
            data, context = system.data, system.context
            assert await data.count("settings") == 4
        for manager, arguments in ((data, {}), (direct_arena.sdk.data, {"context": context})):
            for call in _calls(manager, **arguments).values():
                with pytest.raises(IsolationError):
                    await call()

    async def test_writes_no_row_of_a_tenant(self, direct_arena: Arena) -> None:
        async with direct_arena.unharmed():
            for tenant in (None, "globex"):
                async with direct_arena.sdk.system(reason="test", tenant=tenant) as system:
                    for name, call in _calls(system.data).items():
                        if name.startswith(("create", "bulk", "update", "upsert", "delete", "sql")):
                            with pytest.raises(TenantryError):
                                await call()

    async def test_narrowed_to_a_tenant_sees_that_one(self, arena: Arena) -> None:
        async with arena.sdk.system(reason="test", tenant="acme") as system:
            page = await system.data.read("customers")
            assert {row["tenant_id"] for row in page} == {"acme"}
            assert await system.data.count("customers") == 2
            assert not arena.reveals(page)

    async def test_is_written_down_before_it_begins(self, direct_arena: Arena) -> None:
        judge = direct_arena.judge
        async with direct_arena.sdk.system(reason="a reason", actor="somebody", tenant="acme"):
            row = await judge.fetchrow("SELECT * FROM tenantry.audit WHERE reason = 'a reason'")
            assert row is not None
            assert (row["actor"], row["tenant"], row["action"]) == ("somebody", "acme", "system")


class TestTheCoalescer:
    async def test_does_not_mix_tenants_of_one_tick(self, arena: Arena) -> None:
        for _ in range(5):
            found = await asyncio.gather(
                *(
                    handle.data.get(Customer, arena.twin)
                    for handle in [arena.acme, arena.globex, arena.globex, arena.acme]
                )
            )
            assert [arena.secret in row.name for row in found] == [False, True, True, False]

    async def test_does_not_mix_users_or_claims_of_one_tick(self) -> None:
        """What a user's claims decide is decided in each statement, so each statement has one user's."""
        asked: list[Context] = []

        async def fetch(context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
            asked.append(context)
            return [{"id": id, "value": [context.user_id, dict(context.claims)]} for id in ids]  # type: ignore[union-attr]

        coalescer = Coalescer(fetch)
        contexts = [
            TenantContext("acme"),  # type: ignore[arg-type]
            TenantContext("acme", "u1"),  # type: ignore[arg-type]
            TenantContext("acme", "u2"),  # type: ignore[arg-type]
            TenantContext("acme", "u2", {"role": "admin"}),  # type: ignore[arg-type]
            TenantContext("acme", None, {"role": "admin"}),  # type: ignore[arg-type]
            TenantContext("acme", "u2", {"role": "admin"}),  # type: ignore[arg-type]
        ]
        settings = collection_of(Setting)
        rows = await asyncio.gather(*(coalescer.get(context, settings, "theme") for context in contexts))
        for context, row in zip(contexts, rows, strict=True):
            assert row is not None
            assert row["value"] == [context.user_id, dict(context.claims)]
        assert len(asked) == len(set(contexts)) == 5

    async def test_gives_each_its_own_copy(self, arena: Arena) -> None:
        first, second = await asyncio.gather(*(arena.acme.data.get(Customer, arena.twin) for _ in range(2)))
        first.notes["memo"] = "changed"
        first.tags.append("changed")
        assert second.notes["memo"] == "plain"
        assert "changed" not in second.tags


class _Swallowed:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is KeyError


async def test_a_handle_says_whose_it_is(direct_arena: Arena) -> None:
    sdk: MultiTenantSDK = direct_arena.sdk
    assert "acme" in repr(sdk.tenant("acme"))
