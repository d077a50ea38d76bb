"""Hooks: what they hear, what they may add, and what they cannot break."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tenantry import MultiTenantSDK, TenantHandle
from tenantry.errors import NotFound, TransactionFailed, UniqueViolation
from tenantry.hooks import Hooks, Operation
from tenantry.ports import Insert, Write
from tenantry.schema import collection_of
from tenantry.testing.conformance.ports import note
from tenantry.testing.models import Folder, Note

NOTES = collection_of(Note)


@pytest.fixture
async def sdk() -> AsyncIterator[MultiTenantSDK]:
    async with MultiTenantSDK.open("memory://", models=[Note, Folder], env={}) as sdk:
        await sdk.tenants.create("acme")
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme", user="u1", request_id="r1")


class TestAfter:
    async def test_each_operation_is_heard_once_with_what_it_was(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        heard: list[Operation] = []
        sdk.add_after_hook(heard.append)
        await acme.data.create(Note(id="a", text="x"))
        await acme.data.bulk_create([Note(id="b"), Note(id="c")], atomic=True)
        await acme.data.update(Note, "a", text="y")
        await acme.data.upsert(Note(id="a", text="z"))
        await acme.data.get(Note, "a")
        await acme.data.read(Note, limit=2)
        await acme.data.count(Note)
        await acme.data.exists(Note)
        await acme.data.delete(Note, "a")
        assert [(o.verb, list(o.ids), o.rows) for o in heard] == [
            ("create", ["a"], 1),
            ("create", ["b", "c"], 2),
            ("update", ["a"], 1),
            ("upsert", ["a"], 1),
            ("get", ["a"], 1),
            ("read", [], 2),
            ("count", [], 1),
            ("read", [], 1),
            ("delete", ["a"], 0),
        ]
        assert {(o.collection and o.collection.name, o.context.tenant_id, o.error) for o in heard} == {
            ("notes", "acme", None)
        }
        assert all(0 < o.seconds < 5 for o in heard)
        assert heard[0].changes["text"] == "x"
        assert heard[2].changes["text"] == "y"
        assert heard[4].changes == {}
        assert heard[0].context is acme.context

    async def test_failures_are_heard_with_their_error(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        heard: list[Operation] = []
        await acme.data.create(Note(id="a"))
        sdk.add_after_hook(heard.append)
        for call in (acme.data.get(Note, "x"), acme.data.create(Note(id="a")), acme.data.delete(Note, "x")):
            with pytest.raises((NotFound, UniqueViolation)):
                await call
        assert [(o.verb, type(o.error)) for o in heard] == [
            ("get", NotFound),
            ("create", UniqueViolation),
            ("delete", NotFound),
        ]

    async def test_one_that_fails_is_logged_and_stops_nobody(
        self, sdk: MultiTenantSDK, acme: TenantHandle, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[str] = []

        def broken(operation: Operation) -> None:
            raise RuntimeError("a bug")

        sdk.add_after_hook(broken)
        sdk.add_after_hook(lambda operation: heard.append(operation.verb))
        with caplog.at_level(logging.ERROR, "tenantry.hooks"):
            stored = await acme.data.create(Note(id="a"))
        assert await acme.data.get(Note, "a") == stored
        assert heard == ["create", "get"]
        assert "broken" in caplog.text
        assert "a bug" in caplog.text

    def test_an_operation_does_not_change(self, acme: TenantHandle) -> None:
        operation = Operation("get", NOTES, acme.context)
        with pytest.raises(AttributeError):
            operation.rows = 5  # type: ignore[misc]

    async def test_metrics_count_by_verb_and_collection_not_by_tenant(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        for number in range(20):
            await sdk.tenants.create(f"t{number}")
            await sdk.tenant(f"t{number}").data.count(Note)
        with pytest.raises(NotFound):
            await acme.data.get(Note, "x")
        metrics = sdk.get_metrics()
        assert metrics["count.notes"]["count"] == 20
        assert (metrics["get.notes"]["count"], metrics["get.notes"]["errors"]) == (1, 1)
        assert set(metrics) == {"count.notes", "get.notes"}
        assert metrics["count.notes"]["p50"] <= metrics["count.notes"]["p99"]


class TestWithin:
    async def test_it_hears_before_anything_is_written(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        heard: list[tuple[str, Any, int]] = []

        def hear(operation: Operation) -> list[Write]:
            heard.append((operation.verb, operation.changes.get("text"), operation.rows))
            return []

        sdk.add_within_hook(hear)
        await acme.data.create(Note(id="a", text="x"))
        await acme.data.get(Note, "a")
        await acme.data.read(Note)
        await acme.data.delete(Note, "a")
        assert heard == [("create", "x", 0), ("delete", None, 0)]

    async def test_one_that_raises_refuses_the_write(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        def refuse(operation: Operation) -> list[Write]:
            raise PermissionError("not you")

        sdk.add_within_hook(refuse)
        with pytest.raises(PermissionError):
            await acme.data.create(Note(id="a"))
        assert await acme.data.count(Note) == 0

    async def test_in_a_transaction_what_it_adds_joins_that(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        sdk.add_within_hook(lambda operation: [Insert(NOTES, [note(f"log {operation.ids[0]}")])])

        async def twice(*, fail: bool) -> None:
            async with acme.data.transaction() as unit:
                await unit.create(Folder(id=1))
                await unit.create(Folder(id=2))
                assert await unit.count(Note) == 2
                if fail:
                    raise KeyError

        with pytest.raises(KeyError):
            await twice(fail=True)
        assert await acme.data.count(Note) == 0
        await twice(fail=False)
        assert {row.id for row in await acme.data.read(Note)} == {"log 1", "log 2"}
        with pytest.raises(TransactionFailed):
            await self._swallowed(acme)
        assert await acme.data.count(Folder) == 2

    @staticmethod
    async def _swallowed(acme: TenantHandle) -> None:
        async with acme.data.transaction() as unit:
            await unit.create(Folder(id=3))
            with pytest.raises(UniqueViolation):
                await unit.update(Folder, 1)  # what the hook adds is there already

    async def test_a_repeated_request_adds_nothing(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        sdk.add_within_hook(lambda operation: [Insert(NOTES, [note(f"log {operation.ids[0]}")])])
        for _ in range(3):
            await acme.data.create(Folder(id=1), idempotency_key="k")
        assert [row.id for row in await acme.data.read(Note)] == ["log 1"]

    def test_they_add_in_the_order_in_which_they_were_added(self, acme: TenantHandle) -> None:
        def adding(id: str) -> Any:
            return lambda _: [Insert(NOTES, [note(id)])]

        hooks = Hooks(within=[adding("a")])
        hooks.add_within(adding("b"))
        writes = hooks.within(Operation("create", NOTES, acme.context))
        assert [write.records[0]["id"] for write in writes if isinstance(write, Insert)] == ["a", "b"]
