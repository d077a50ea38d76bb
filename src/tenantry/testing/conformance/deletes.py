"""Soft deletion: a marked row is gone for whoever does not ask for it, and comes back as it was."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import Any

import pytest

from tenantry.aggregates import Count
from tenantry.errors import (
    Conflict,
    InvalidQuery,
    InvalidRecord,
    NotFound,
    ReferenceViolation,
    UniqueViolation,
    Unsupported,
)
from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, needs
from tenantry.testing.models import Note, Reply, Ticket

_NOW = dt.timedelta()


class Deletes(Setting):
    """Marking, restoring and purging rows."""

    async def test_no_read_finds_a_marked_row(self, acme: TenantHandle) -> None:
        live, gone = (await acme.data.bulk_create([Ticket(title="live"), Ticket(title="gone")])).rows
        reply = await acme.data.create(Reply(ticket_id=gone.id))
        child = await acme.data.create(Ticket(title="child", parent_id=gone.id))
        await acme.data.delete(gone)
        data, kept = acme.data, [live, child]
        with pytest.raises(NotFound):
            await data.get(Ticket, gone.id)
        answers = await asyncio.gather(
            *(data.get(Ticket, id) for id in (live.id, gone.id, gone.id)), return_exceptions=True
        )
        assert [answer if answer == live else type(answer) for answer in answers] == [
            live,
            NotFound,
            NotFound,
        ]
        anything = {"or": [{"title": "gone"}, {"version": {"gte": 0}}]}
        wheres: list[dict[str, Any]] = [{}, anything, {"not": {"or": []}}]
        for where in wheres:
            assert list(await data.read(Ticket, where)) == kept
            assert await data.count(Ticket, where) == 2
            assert await data.aggregate(Ticket, {"n": Count()}, where) == [{"n": 2}]
            assert [row async for row in data.stream(Ticket, where, batch_size=1)] == kept
        assert not await data.exists(Ticket, {"id": gone.id})
        assert not await data.exists(Ticket, {"deleted_at": {"is_null": False}})
        names = await data.read(Ticket, fields=["title"], distinct=True)
        assert [row["title"] for row in names] == ["child", "live"]
        for collection, name in ((Reply, "ticket"), (Ticket, "parent")):
            page = await data.read(collection, {f"{name}_id": gone.id}, include=[name])
            assert (len(page), page.included) == (1, {name: {}})
        assert (await data.get(Reply, reply.id)).ticket_id == gone.id

    async def test_those_who_ask_find_it(self, acme: TenantHandle) -> None:
        live, gone = (await acme.data.bulk_create([Ticket(title="live"), Ticket(title="gone")])).rows
        await acme.data.delete(Ticket, gone.id)
        data = acme.data
        (marked,) = await data.read(Ticket, deleted="only")
        assert (marked.id, marked.version, marked.title) == (gone.id, 2, "gone")
        assert marked.deleted_at == marked.updated_at
        assert marked.deleted_at is not None
        assert list(await data.read(Ticket, deleted="with")) == [live, marked]
        assert [row async for row in data.stream(Ticket, deleted="only")] == [marked]
        assert [await data.count(Ticket, deleted=which) for which in ("without", "with", "only")] == [1, 2, 1]
        assert await data.exists(Ticket, {"title": "gone"}, deleted="only")
        (group,) = await data.aggregate("tickets", {"n": Count()}, group_by="title", deleted="only")
        assert group == {"title": "gone", "n": 1}
        page = await data.read(Ticket, deleted="with", limit=1)
        rest = await data.read(Ticket, deleted="with", limit=1, cursor=page.next_cursor)
        assert [*page, *rest] == [live, marked]
        wrong: tuple[tuple[Any, Any], ...] = ((Ticket, "no"), (Ticket, None), (Note, "with"), (Note, "only"))
        for collection, which in wrong:
            with pytest.raises(InvalidQuery) as caught:
                await data.read(collection, deleted=which)
            assert caught.value.path == "deleted"

    async def test_a_marked_row_is_not_written(self, acme: TenantHandle) -> None:
        ticket = await acme.data.create(Ticket(title="a", number="1"))
        await acme.data.delete(ticket)
        data, id = acme.data, ticket.id
        for attempt in (
            data.update(Ticket, id, title="b"),
            data.update(Ticket, id, {"title": "b"}, version=2),
            data.delete(Ticket, id),
            data.delete(Ticket, id, version=2),
        ):
            with pytest.raises(NotFound):
                await attempt
        for taken in (data.create(Ticket(id=id)), data.upsert(Ticket(id=id, title="b"))):
            with pytest.raises(UniqueViolation) as caught:
                await taken
            assert caught.value.fields == ("id",)
        (marked,) = await data.read(Ticket, deleted="only")
        assert (marked.title, marked.version) == ("a", 2)

    async def test_nobody_sets_the_mark(self, acme: TenantHandle) -> None:
        moment = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        ticket = await acme.data.create(Ticket(deleted_at=moment))
        assert ticket.deleted_at is None
        assert (await acme.data.upsert(Ticket(id=ticket.id, deleted_at=moment))).deleted_at is None
        with pytest.raises(InvalidRecord):
            await acme.data.update("tickets", ticket.id, {"deleted_at": moment})

    async def test_a_unique_value_is_that_of_a_live_row(self, acme: TenantHandle) -> None:
        data = acme.data
        first = await data.create(Ticket(number="1", title="t", copies=1))
        await data.delete(first)
        second = await data.create(Ticket(number="1", title="t", copies=1))
        for on in (["number"], ["title", "copies"]):
            again = await data.upsert(Ticket(number="1", title="t", copies=1), on=on)
            assert again.id == second.id
        with pytest.raises(UniqueViolation):
            await data.create(Ticket(number="1"))
        with pytest.raises(UniqueViolation) as caught:
            await data.restore(Ticket, first.id)
        assert caught.value.collection == "tickets"
        assert await data.count(Ticket, deleted="only") == 1
        await data.update(Ticket, second.id, number="2", title="u")
        back = await data.restore(Ticket, first.id)
        assert (back.number, back.deleted_at, back.version) == ("1", None, 3)
        await data.delete(second := await data.get(Ticket, second.id))
        assert (await data.upsert(Ticket(number="2"), on=["number"])).id != second.id

    async def test_many_at_once(self, acme: TenantHandle) -> None:
        data = acme.data
        tickets = (await data.bulk_create([Ticket(number=str(n), title=str(n)) for n in range(6)])).rows
        gone, live = tickets[:3], tickets[3:]
        assert (await data.bulk_delete(gone[:2])).ok
        assert (await data.bulk_delete(Ticket, [gone[2].id])).ok
        assert [row.version for row in await data.read(Ticket, deleted="only")] == [2, 2, 2]
        again = await data.bulk_delete(Ticket, [gone[0].id, live[0].id])
        assert [type(error) for error in again.errors] == [NotFound]
        changes: list[Any] = [(row.id, {"copies": 7}) for row in (gone[1], live[1], live[2])]
        changed = await data.bulk_update(Ticket, changes)
        assert [type(error) for error in changed.errors] == [NotFound]
        same = [Ticket(number="0", copies=1), Ticket(number="4", copies=2), Ticket(number="5", copies=3)]
        stored = (await data.bulk_upsert(same, on=["number"])).rows
        assert [row.id == old.id for row, old in zip(stored, [gone[0], live[1], live[2]], strict=True)] == [
            False,
            True,
            True,
        ]
        met = await data.bulk_upsert([Ticket(id=row.id, title="up") for row in (gone[1], live[1], gone[2])])
        assert [type(error) for error in met.errors] == [UniqueViolation, UniqueViolation]
        assert met[1].ok
        assert await data.count(Ticket, {"title": "up"}, deleted="with") == 1

    async def test_a_search_finds_rows_that_live(self, acme: TenantHandle) -> None:
        lamp, desk = (await acme.data.bulk_create([Ticket(title="a lamp"), Ticket(title="a desk")])).rows
        await acme.data.delete(lamp)
        assert [hit.row.id for hit in await acme.data.search(Ticket, "lamp desk")] == []
        assert [hit.row.id for hit in await acme.data.search(Ticket, "desk")] == [desk.id]
        assert not list(await acme.data.search(Ticket, "lamp"))
        await acme.data.restore(Ticket, lamp.id)
        assert [hit.row.id for hit in await acme.data.search(Ticket, "lamp")] == [lamp.id]

    async def test_restore(self, acme: TenantHandle, globex: TenantHandle) -> None:
        data = acme.data
        ticket = await data.create(Ticket(title="a"))
        with pytest.raises(NotFound):
            await data.restore(ticket)
        await data.delete(ticket)
        (marked,) = await data.read(Ticket, deleted="only")
        for attempt in (
            globex.data.restore(Ticket, ticket.id),
            globex.data.delete(Ticket, ticket.id, permanently=True),
            data.restore("tickets", uuid.uuid4()),
        ):
            with pytest.raises(NotFound):
                await attempt
        with pytest.raises(Conflict) as caught:
            await data.restore(Ticket, ticket.id, version=1)
        assert caught.value.current_version == 2
        back = await data.restore(marked)
        assert back == await data.get(Ticket, ticket.id)
        assert (back.title, back.version, back.deleted_at) == ("a", 3, None)
        await data.delete(Ticket, ticket.id, version=3)
        assert (await data.restore("tickets", ticket.id))["version"] == 5
        with pytest.raises(Unsupported):
            await data.restore(Note, "n")

    async def test_for_good(self, acme: TenantHandle) -> None:
        data = acme.data
        live, marked, parent = (await data.bulk_create([Ticket(title=name) for name in "abc"])).rows
        reply = await data.create(Reply(ticket_id=marked.id))
        child = await data.create(Ticket(parent_id=parent.id))
        await data.delete(marked)
        await data.delete(parent)
        for id, version in ((live.id, 9), (marked.id, 9)):
            with pytest.raises(Conflict):
                await data.delete(Ticket, id, version=version, permanently=True)
        with pytest.raises(ReferenceViolation):
            await data.delete(Ticket, parent.id, permanently=True)
        await data.delete(live, permanently=True)
        await data.delete(Ticket, marked.id, permanently=True)
        assert not await data.exists(Reply, {"id": reply.id})
        assert [row.id for row in await data.read(Ticket, deleted="with")] == [parent.id, child.id]

    async def test_purging_spares_what_lives_what_is_young_and_what_is_referred_to(
        self, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        data = acme.data
        tickets = (await data.bulk_create([Ticket(copies=number) for number in range(7)])).rows
        child = await data.create(Ticket(title="child", parent_id=tickets[3].id))
        foreign = await globex.data.create(Ticket())
        await globex.data.delete(foreign)
        for ticket in tickets[:6]:
            await data.delete(ticket)
        assert await data.purge_deleted(Ticket, older_than=dt.timedelta(hours=1)) == 0
        assert await data.purge_deleted("tickets", older_than=_NOW, batch_size=2) == 5
        kept = [row.id for row in await data.read(Ticket, deleted="with")]
        assert kept == [tickets[3].id, tickets[6].id, child.id]
        await data.delete(child)
        assert await data.purge_deleted(Ticket, older_than=_NOW) == 2
        assert await data.purge_deleted(Ticket, older_than=_NOW) == 0
        assert await globex.data.count(Ticket, deleted="only") == 1
        for wrong in (dt.timedelta(seconds=-1), dt.timedelta.max, 30):
            with pytest.raises(InvalidQuery):
                await data.purge_deleted(Ticket, older_than=wrong)  # type: ignore[arg-type]
        with pytest.raises(Unsupported):
            await data.purge_deleted(Note, older_than=_NOW)

    async def test_deleting_softly_in_a_transaction(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        ticket = await acme.data.create(Ticket(number="1"))
        async with acme.data.transaction() as work:
            await work.delete(ticket)
            await work.create(Ticket(number="1"))
            assert [await work.count(Ticket), await work.count(Ticket, deleted="only")] == [1, 1]
            with pytest.raises(Unsupported):
                await work.purge_deleted(Ticket, older_than=_NOW)
        with pytest.raises(UniqueViolation):
            await acme.data.restore(Ticket, ticket.id)

    async def test_a_purged_tenant_leaves_no_marked_row(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        await acme.data.delete(await acme.data.create(Ticket()))
        id = acme.context.tenant_id
        await sdk.tenants.delete(id, reason="gone")
        certificate = await sdk.tenants.purge(id)
        assert certificate.deleted["tickets"] == 1
        assert not any(certificate.remaining.values())
