"""Within hooks are a part of the operation, for better or worse; after hooks are not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from tenantry.data import DataManager
from tenantry.errors import IsolationError, TenantryError, UniqueViolation
from tenantry.hooks import Operation
from tenantry.ports import Delete, Insert, Update, Write
from tenantry.schema import collection_of
from tenantry.tenants import AUDIT, TENANTS
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.models import Country, Customer, Setting

SETTINGS, COUNTRIES = collection_of(Setting), collection_of(Country)


class HookFailed(Exception):
    pass


def _note(operation: Operation) -> Sequence[Write]:
    """Return a write that tells what was done."""
    if operation.collection is None or operation.collection.name != "customers":
        return []
    record = SETTINGS.to_record(Setting(id=f"note {operation.verb}", value="x", version=1))
    return [Insert(SETTINGS, [record])]


def _always(write: Write, _: Operation) -> Sequence[Write]:
    return [write]


WRITES: dict[str, Callable[[DataManager, Arena], Awaitable[Any]]] = {
    "create": lambda data, _: data.create(Customer(name="x", email="new@example.com")),
    "update": lambda data, arena: data.update(Customer, arena.twin, name="x"),
    "upsert": lambda data, _: data.upsert(Customer(name="x", email="newer@example.com"), on=["email"]),
    "delete": lambda data, arena: data.delete(Customer, arena.twin),
}


async def _notes(arena: Arena) -> set[str]:
    rows = await arena.judge.fetch("SELECT tenant_id, id FROM settings WHERE id LIKE 'note %'")
    assert {row["tenant_id"] for row in rows} <= {"acme"}
    return {row["id"].removeprefix("note ") for row in rows}


class TestAWithinHook:
    async def test_commits_with_its_operation(self, arena: Arena) -> None:
        arena.sdk.add_within_hook(_note)
        for verb, write in WRITES.items():
            await write(arena.acme.data, arena)
            assert verb in await _notes(arena)

    async def test_rolls_back_with_its_operation(self, arena: Arena) -> None:
        arena.sdk.add_within_hook(_note)
        before = await arena.fingerprint("acme")
        failing: tuple[Callable[[DataManager], Awaitable[Any]], ...] = (
            lambda data: data.create(Customer(name="x", email="0@plain.example")),
            lambda data: data.update(Customer, arena.victim, name="x"),
            lambda data: data.update(Customer, arena.twin, {"name": "x"}, version=7),
            lambda data: data.delete(Customer, arena.own),  # an order refers to it
            lambda data: data.create(Customer(name="x", email="x", country_id=arena.twin)),
        )
        for call in failing:
            assert isinstance(await outcome_of(call(arena.acme.data)), TenantryError)
            assert await arena.fingerprint("acme") == before

    async def test_fails_its_operation(self, arena: Arena) -> None:
        def fail(operation: Operation) -> Sequence[Write]:
            raise HookFailed

        arena.sdk.add_within_hook(_note)
        arena.sdk.add_within_hook(fail)
        before = await arena.fingerprint("acme")
        for write in WRITES.values():
            with pytest.raises(HookFailed):
                await write(arena.acme.data, arena)
        assert await arena.fingerprint("acme") == before

    async def test_fails_its_operation_with_a_write_that_fails(self, arena: Arena) -> None:
        taken = SETTINGS.to_record(Setting(id="theme", value="x", version=1))
        arena.sdk.add_within_hook(lambda _: [Insert(SETTINGS, [taken])])
        before = await arena.fingerprint("acme")
        for write in WRITES.values():
            with pytest.raises(UniqueViolation):
                await write(arena.acme.data, arena)
        assert await arena.fingerprint("acme") == before

    async def test_dooms_the_transaction_in_which_it_fails(self, arena: Arena) -> None:
        """Whoever swallows its error does not commit what was written before."""

        def fail(operation: Operation) -> Sequence[Write]:
            if operation.verb == "update":
                raise HookFailed
            return []

        arena.sdk.add_within_hook(fail)
        before = await arena.fingerprint("acme")

        async def block() -> None:
            async with arena.acme.data.transaction() as unit:
                await unit.create(Setting(id="first", value="x"))
                with pytest.raises(HookFailed):
                    await unit.update(Customer, arena.twin, name="x")

        assert isinstance(await outcome_of(block()), TenantryError)
        assert await arena.fingerprint("acme") == before

    async def test_reaches_nothing_that_its_operation_could_not(self, arena: Arena) -> None:
        record = COUNTRIES.to_record(Country(code="XX", name="x", version=1))
        forbidden: tuple[Write, ...] = (
            Insert(COUNTRIES, [record]),
            Delete(COUNTRIES, arena.country),
            Update(TENANTS, "globex", {"name": "owned"}),
            Delete(AUDIT, arena.twin),
        )
        for write in forbidden:
            arena.sdk._hooks._within[:] = [partial(_always, write)]
            async with arena.unharmed():
                with pytest.raises(TenantryError):
                    await arena.acme.data.create(Setting(id="x", value="x"))
        arena.sdk._hooks._within[:] = [
            lambda _: [Update(SETTINGS, f"only {arena.secret}", {"value": "owned"})]
        ]
        async with arena.unharmed():
            with pytest.raises(TenantryError):
                await arena.acme.data.create(Setting(id="x", value="x"))


class TestAnAfterHook:
    async def test_that_fails_changes_nothing(self, arena: Arena) -> None:
        def fail(operation: Operation) -> None:
            raise HookFailed

        heard: list[Operation] = []
        arena.sdk.add_after_hook(fail)
        arena.sdk.add_after_hook(heard.append)
        for write in WRITES.values():
            await write(arena.acme.data, arena)
        async with arena.acme.data.transaction() as unit:
            await unit.create(Setting(id="in a unit", value="x"))
        assert (await arena.acme.data.get(Setting, "in a unit")).version == 1
        assert [operation.verb for operation in heard] == [*WRITES, "create", "get"]

    async def test_hears_of_a_transaction_only_once_it_has_committed(self, arena: Arena) -> None:
        heard: list[str] = []

        def hear(operation: Operation) -> None:
            if operation.verb == "create" and operation.error is None:
                heard.append(str(operation.ids[0]))

        arena.sdk.add_after_hook(hear)
        async with arena.acme.data.transaction() as unit:
            await unit.create(Setting(id="kept", value="x"))
            assert heard == []
        assert heard == ["kept"]

        async def failing() -> None:
            async with arena.acme.data.transaction() as unit:
                await unit.create(Setting(id="lost", value="x"))
                raise HookFailed

        with pytest.raises(HookFailed):
            await failing()
        assert heard == ["kept"]

    async def test_is_told_by_whom(self, arena: Arena) -> None:
        heard: list[Operation] = []
        arena.sdk.add_after_hook(heard.append)
        await arena.acme.data.get(Setting, "theme")
        await outcome_of(arena.acme.data.get(Setting, f"only {arena.secret}"))
        async with arena.sdk.system(reason="test") as system:
            await outcome_of(system.data.create("settings", {"id": "x", "value": "x"}))
        assert [operation.context.tenant_id for operation in heard] == ["acme", "acme", None]
        assert isinstance(heard[2].error, IsolationError)
        assert not arena.reveals(heard[0], heard[1].rows)
