"""The life of a tenant: created, suspended, resumed, deleted, purged, and seen alike by every process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tenantry.errors import (
    InvalidQuery,
    InvalidRecord,
    InvalidTenantId,
    InvalidTransition,
    TenantDeleted,
    TenantExists,
    TenantNotFound,
    TenantSuspended,
)
from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.tenants import TenantStatus
from tenantry.testing.conformance.setting import Setting, fresh, needs
from tenantry.testing.models import Author, Book, Folder, Note, Review

# What each call makes of a tenant in each status: the status after it, or the error.
STEPS: dict[str, dict[str, Any]] = {
    "suspend": {
        "importing": InvalidTransition,
        "active": TenantStatus.SUSPENDED,
        "suspended": TenantStatus.SUSPENDED,
        "deleting": InvalidTransition,
        "purged": InvalidTransition,
    },
    "resume": {
        "importing": InvalidTransition,
        "active": TenantStatus.ACTIVE,
        "suspended": TenantStatus.ACTIVE,
        "deleting": InvalidTransition,
        "purged": InvalidTransition,
    },
    "delete": {
        "importing": TenantStatus.DELETING,
        "active": TenantStatus.DELETING,
        "suspended": TenantStatus.DELETING,
        "deleting": TenantStatus.DELETING,
        "purged": InvalidTransition,
    },
    "purge": {
        "importing": InvalidTransition,
        "active": InvalidTransition,
        "suspended": InvalidTransition,
        "deleting": TenantStatus.PURGED,
        "purged": InvalidTransition,
    },
}

HOSTILE_IDS: list[Any] = [
    "",
    " ",
    "a b",
    "-a",
    ".",
    "..",
    "../a",
    "a/b",
    "a:b",
    "a\0",
    "a\n",
    "a'; DROP TABLE notes; --",
    'a"b',
    "a%",
    "a*",
    "{a}",
    "é",
    "ａｃｍｅ",
    "١",
    "a" * 64,
    "a" * 1_000_000,
    None,
    5,
    b"acme",
    ["acme"],
    {"id": "acme"},
]


async def _half_imported(sdk: MultiTenantSDK, source: TenantHandle, file: Path) -> str:
    """Break an import off, and return the id of the tenant that it has begun."""

    def broken(collection: str, done: int) -> None:
        raise RuntimeError("broken off")

    await source.data.create(Note(id="one"))
    await sdk.tenants.export(source.context.tenant_id, file)
    id = f"{source.context.tenant_id}-copy"
    with pytest.raises(RuntimeError):
        await sdk.tenants.import_(file, as_=id, progress=broken)
    return id


class Tenants(Setting):
    """The directory and the status machine."""

    async def test_a_created_tenant_is_active_and_served(self, sdk: MultiTenantSDK) -> None:
        id = fresh("new")
        tenant = await sdk.tenants.create(
            id, name="New Ünd Co", plan="pro", settings={"seats": 5, "x": [1, None]}
        )
        assert (tenant.id, tenant.slug, tenant.name, tenant.plan) == (id, id, "New Ünd Co", "pro")
        assert (tenant.status, tenant.settings) == (TenantStatus.ACTIVE, {"seats": 5, "x": [1, None]})
        assert await sdk.tenants.get(id) == tenant
        async with sdk.tenant(id) as handle:
            assert await handle.data.count(Note) == 0

    async def test_creating_it_again_returns_it(self, sdk: MultiTenantSDK) -> None:
        id = fresh("again")
        settings = {"nested": {"t": (1, 2)}}
        first = await sdk.tenants.create(id, name="A", plan="pro", settings=settings)
        assert await sdk.tenants.create(id, name="A", plan="pro", settings=settings) == first
        for other in (
            {},
            {"name": "B", "plan": "pro"},
            {"name": "A"},
            {"name": "A", "plan": "pro", "settings": {}},
        ):
            with pytest.raises(TenantExists) as taken:
                await sdk.tenants.create(id, **other)
            assert taken.value.tenant_id == id
        assert await sdk.tenants.get(id) == first

    async def test_creating_it_twice_at_once_makes_one(self, sdk: MultiTenantSDK) -> None:
        id = fresh("race")
        made = await asyncio.gather(*(sdk.tenants.create(id, name="A") for _ in range(6)))
        assert {tenant.version for tenant in made} == {1}
        outcomes = await asyncio.gather(
            *(sdk.tenants.create(fresh("x") if number < 3 else id, name=f"{number}") for number in range(6)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, TenantExists) for outcome in outcomes] == [False] * 3 + [True] * 3

    @pytest.mark.parametrize("id", HOSTILE_IDS, ids=lambda id: repr(id)[:20])
    async def test_what_cannot_be_a_tenant_id_is_refused_everywhere(
        self, sdk: MultiTenantSDK, id: Any
    ) -> None:
        for call in (
            sdk.tenants.create,
            sdk.tenants.get,
            sdk.tenants.resume,
            sdk.tenants.purge,
            sdk.tenants.update,
        ):
            with pytest.raises(InvalidTenantId):
                await call(id)
        for mark in (sdk.tenants.suspend, sdk.tenants.delete):
            with pytest.raises(InvalidTenantId):
                await mark(id, reason="test")
        with pytest.raises(InvalidTenantId):
            sdk.tenant(id)
        if id is not None:
            with pytest.raises(InvalidTenantId):
                async with sdk.system(reason="test", tenant=id):
                    pass

    async def test_ids_that_look_alike_are_different_tenants(self, sdk: MultiTenantSDK) -> None:
        base = fresh("Alike")
        ids = [base, base.lower(), f"{base}.", f"{base}_", f"{base}-", f"{base}0"]
        for id in ids:
            await sdk.tenants.create(id)
            await sdk.tenant(id).data.create(Note(id="n", text=id))
        for id in ids:
            assert [row.text for row in await sdk.tenant(id).data.read(Note)] == [id]

    async def test_an_unknown_tenant_is_not_found(self, sdk: MultiTenantSDK) -> None:
        id = fresh("nobody")
        handle = sdk.tenant(id)
        for call in (
            handle.data.count(Note),
            handle.data.get(Note, "n"),
            handle.data.create(Note(id="n")),
            sdk.tenants.get(id),
            sdk.tenants.update(id, name="x"),
            sdk.tenants.suspend(id, reason="test"),
            sdk.tenants.purge(id),
        ):
            with pytest.raises(TenantNotFound) as absent:
                await call
            assert absent.value.tenant_id == id
        with pytest.raises(TenantNotFound):
            async with handle:
                pass

    async def test_an_update_changes_what_is_given(self, sdk: MultiTenantSDK) -> None:
        tenant = await sdk.tenants.create(fresh("update"), name="A", plan="pro", settings={"a": 1})
        changed = await sdk.tenants.update(tenant.id, name="B")
        assert (changed.name, changed.plan, changed.settings) == ("B", "pro", {"a": 1})
        changed = await sdk.tenants.update(tenant.id, plan="free", settings={})
        assert (changed.name, changed.plan, changed.settings) == ("B", "free", {})
        assert await sdk.tenants.get(tenant.id) == changed

    @pytest.mark.parametrize(
        "wrong", [{"name": "a\0"}, {"name": 5}, {"plan": ["x"]}, {"settings": {"x": float("nan")}}], ids=str
    )
    async def test_a_wrong_property_is_refused(self, sdk: MultiTenantSDK, wrong: dict[str, Any]) -> None:
        id = fresh("wrong")
        with pytest.raises(InvalidRecord):
            await sdk.tenants.create(id, **wrong)
        with pytest.raises(TenantNotFound):
            await sdk.tenants.get(id)

    async def test_the_list_is_in_order_and_whole(self, sdk: MultiTenantSDK) -> None:
        ids = [fresh("list") for _ in range(7)]
        for id in ids:
            await sdk.tenants.create(id)
        await sdk.tenants.suspend(ids[0], reason="test")
        seen: list[str] = []
        cursor = None
        while True:
            page = await sdk.tenants.list(limit=3, cursor=cursor)
            seen += [tenant.id for tenant in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == sorted(set(seen))
        assert set(ids) <= set(seen)
        suspended = [tenant.id for tenant in await sdk.tenants.list(status="suspended", limit=1000)]
        assert set(suspended) & set(ids) == {ids[0]}
        for wrong in ({"status": "bogus"}, {"limit": 0}, {"cursor": "x"}):
            with pytest.raises(InvalidQuery):
                await sdk.tenants.list(**wrong)

    # -- the status machine

    @pytest.mark.parametrize("status", [status.value for status in TenantStatus])
    async def test_each_step_from_each_status(self, sdk: MultiTenantSDK, tmp_path: Path, status: str) -> None:
        async def in_status(step: str) -> str:
            handle = await self.new_tenant(sdk, step)
            id = handle.context.tenant_id
            if status == "importing":
                return await _half_imported(sdk, handle, tmp_path / f"{step}.zip")
            if status == "suspended":
                await sdk.tenants.suspend(id, reason="test")
            if status in ("deleting", "purged"):
                await sdk.tenants.delete(id, reason="test")
            if status == "purged":
                await sdk.tenants.purge(id)
            return id

        async def walk(step: str) -> None:
            id = await in_status(step)
            reason = {"reason": "why not"} if step in ("suspend", "delete") else {}
            expected = STEPS[step][status]
            call = getattr(sdk.tenants, step)(id, **reason)
            if expected is InvalidTransition:
                with pytest.raises(InvalidTransition) as refused:
                    await call
                assert (refused.value.current, refused.value.tenant_id) == (status, id)
                assert (await sdk.tenants.get(id)).status.value == status
            else:
                await call
                assert (await sdk.tenants.get(id)).status is expected

        await asyncio.gather(*(walk(step) for step in STEPS))

    async def test_a_tenant_that_is_not_active_is_refused_by_every_call(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        note = await acme.data.create(Note(id="n"))
        await globex.data.create(Note(id="n"))

        async def refused(error: type[Exception]) -> None:
            for call in (
                acme.data.get(Note, "n"),
                acme.data.read(Note),
                acme.data.count(Note),
                acme.data.exists(Note),
                acme.data.create(Note(id="m")),
                acme.data.bulk_create([Note(id="m")], atomic=True),
                acme.data.update(note, text="x"),
                acme.data.upsert(Note(id="m")),
                acme.data.delete(note),
                acme.data.sql("SELECT 1"),
            ):
                with pytest.raises(error):
                    await call
            with pytest.raises(error):
                async with acme.data.transaction():
                    pass
            with pytest.raises(error):
                async with acme:
                    pass

        id = acme.context.tenant_id
        await sdk.tenants.suspend(id, reason="late payment")
        await refused(TenantSuspended)
        assert (await sdk.tenants.get(id)).reason == "late payment"
        await sdk.tenants.resume(id)
        assert await acme.data.get(Note, "n") == note
        await sdk.tenants.delete(id, reason="left")
        await refused(TenantDeleted)
        assert await globex.data.count(Note) == 1

    async def test_a_reason_is_asked_for(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        for reason in ("", "  \n"):
            for call in (sdk.tenants.suspend, sdk.tenants.delete):
                with pytest.raises(InvalidRecord):
                    await call(acme.context.tenant_id, reason=reason)
        assert await acme.data.count(Note) == 0

    async def test_steps_taken_at_once_happen_one_after_the_other(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        id = acme.context.tenant_id
        steps = [
            sdk.tenants.suspend(id, reason="a"),
            sdk.tenants.delete(id, reason="b"),
            sdk.tenants.resume(id),
        ]
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        assert all(
            not isinstance(item, Exception) or isinstance(item, InvalidTransition) for item in outcomes
        )
        assert (await sdk.tenants.get(id)).status is TenantStatus.DELETING

    # -- purge

    async def test_a_purge_deletes_everything_of_one_tenant_and_certifies_it(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        for handle in (acme, globex):
            author = await handle.data.create(Author(name="a"), idempotency_key="k")
            books = (
                await handle.data.bulk_create(
                    (Book(title=f"{n}", author_id=author.id) for n in range(3)), atomic=True
                )
            ).rows
            await handle.data.bulk_create((Review(book_id=book.id) for book in books), atomic=True)
            await handle.data.bulk_create(
                [Folder(id=1), Folder(id=2, parent_id=1), Folder(id=3, parent_id=3)], atomic=True
            )
        id = acme.context.tenant_id
        await sdk.tenants.delete(id, reason="left")
        certificate = await sdk.tenants.purge(id)
        expected = {"authors": 1, "books": 3, "reviews": 3, "folders": 3, "tenantry_idempotency": 1}
        assert certificate.tenant_id == id
        assert {name: count for name, count in certificate.deleted.items() if count} == expected
        assert set(certificate.remaining) == set(certificate.deleted) > set(expected)
        assert not any(certificate.remaining.values())
        assert certificate.started_at <= certificate.finished_at
        async with sdk.system(reason="look", tenant=id) as system:
            for model in (Author, Book, Review, Folder, Note):
                assert await system.data.count(model) == 0
        assert (
            await globex.data.count(Book)
            == await globex.data.count(Review)
            == await globex.data.count(Folder)
            == 3
        )
        with pytest.raises(TenantDeleted):
            await acme.data.count(Book)
        with pytest.raises(TenantExists):
            await sdk.tenants.create(id, name="acme")

    # -- seen by others

    async def test_another_process_refuses_a_suspended_tenant_within_a_second(
        self, sdk: MultiTenantSDK, second: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        there = second.tenant(acme.context.tenant_id)
        for wanted, change in (
            (TenantSuspended, sdk.tenants.suspend(acme.context.tenant_id, reason="test")),
            (None, sdk.tenants.resume(acme.context.tenant_id)),
            (TenantDeleted, sdk.tenants.delete(acme.context.tenant_id, reason="test")),
        ):
            await change
            changed_at = time.monotonic()
            while True:
                asked_at = time.monotonic()
                (outcome,) = await asyncio.gather(there.data.count(Note), return_exceptions=True)
                if outcome == 0 if wanted is None else isinstance(outcome, wanted):
                    break
                assert asked_at - changed_at < 1.0
                await asyncio.sleep(0.02)
        assert await second.tenant(globex.context.tenant_id).data.count(Note) == 0

    async def test_another_process_sees_rows_and_tenants(
        self, sdk: MultiTenantSDK, second: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        needs(sdk, Capability.MULTI_PROCESS)
        note = await acme.data.create(Note(id="n", text="here"))
        there = second.tenant(acme.context.tenant_id)
        assert await there.data.get(Note, "n") == note
        changed = await there.data.update(note, text="there")
        assert await acme.data.get(Note, "n") == changed
        made = await second.tenants.create(fresh("made"), name="There")
        assert await sdk.tenants.get(made.id) == made
        assert await sdk.tenant(made.id).data.count(Note) == 0
