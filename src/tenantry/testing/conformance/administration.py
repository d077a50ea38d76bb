"""Members, invitations, API keys and support: each tenant's own, exact under races, and gone with the tenant."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tenantry.errors import (
    CredentialRejected,
    InvalidRecord,
    IsolationError,
    LastOwner,
    MemberExists,
    NotFound,
    SupportRefused,
    TenantDeleted,
    TenantryError,
    TenantSuspended,
    Unsupported,
)
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.tenants import Invitation, Joining
from tenantry.tenants.own import API_KEYS, INVITATIONS, MEMBERS, SUPPORT_WRITES
from tenantry.testing.conformance.setting import Setting, fresh
from tenantry.testing.models import Note

_HOUR = dt.timedelta(hours=1)
_MOMENT = dt.timedelta(milliseconds=50)


class Administration(Setting):
    """What the SDK keeps of a tenant beside its data."""

    # -- members

    async def test_a_member_is_one_of_its_tenant_alone(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        user = fresh("user")
        added = await acme.members.add(user, roles=["editor", "admin", "editor"], email="a@example.com")
        assert (added.id, added.roles, added.email) == (user, ["admin", "editor"], "a@example.com")
        assert await acme.members.add(user, roles=["admin", "editor"]) == await acme.members.get(user)
        with pytest.raises(MemberExists):
            await acme.members.add(user, roles=["admin"])
        assert await acme.members.roles_of(user) == {"admin", "editor"}
        assert await globex.members.roles_of(user) == frozenset()
        assert [*await globex.members.list()] == []
        for call in (
            globex.members.get(user),
            globex.members.remove(user),
            globex.members.set_roles(user, ["x"]),
        ):
            with pytest.raises(NotFound):
                await call
        await globex.members.add(user, roles=["viewer"])
        memberships = {item.tenant_id: item.roles for item in await sdk.tenants.of_user(user)}
        assert memberships == {
            acme.context.tenant_id: ("admin", "editor"),
            globex.context.tenant_id: ("viewer",),
        }
        await acme.members.remove(user)
        await sdk.tenants.suspend(globex.context.tenant_id, reason="test")
        assert [*await sdk.tenants.of_user(user)] == []

    async def test_roles_are_names_and_members_are_listed_in_order(self, acme: TenantHandle) -> None:
        for number in range(5):
            await acme.members.add(f"u{number}", roles=["even" if number % 2 == 0 else "odd"])
        assert [item.id for item in await acme.members.list(role="even")] == ["u0", "u2", "u4"]
        assert [item.id for item in await acme.members.list(start_after="u1", limit=2)] == ["u2", "u3"]
        for roles in ([""], ["a b"], ["é"], ["1"], ["a" * 64], [f"r{number}" for number in range(51)]):
            with pytest.raises(InvalidRecord, match="roles"):
                await acme.members.add("v", roles=roles)
        for user in ("", " ", "x" * 321, "a\0"):
            with pytest.raises(InvalidRecord, match="user"):
                await acme.members.add(user)

    async def test_of_two_owners_removed_at_once_one_stays(self, acme: TenantHandle) -> None:
        for user in ("a", "b", "c"):
            await acme.members.add(user, roles=["owner"])
        outcomes = await asyncio.gather(
            acme.members.remove("a"),
            acme.members.set_roles("b", ["viewer"]),
            acme.members.remove("c"),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, LastOwner) for outcome in outcomes) == 1
        assert len(await acme.members.list(role="owner")) == 1

    async def test_a_check_may_refuse_who_joins(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        """Under a race too: each one is checked once those before it are in."""
        id = acme.context.tenant_id

        def seats(joining: Joining) -> None:
            if joining.tenant.id == id and joining.members >= 3:
                raise Unsupported("no seat is left")

        sdk.add_join_check(seats)
        token = (await acme.invitations.create("a@example.com")).token
        joining: list[Awaitable[Any]] = [acme.members.add(f"u{number}") for number in range(5)]
        joining.append(sdk.tenants.accept_invitation(token, user="guest"))
        outcomes = await asyncio.gather(*joining, return_exceptions=True)
        assert sum(isinstance(outcome, Unsupported) for outcome in outcomes) == 3
        assert len(await acme.members.list()) == 3

    async def test_each_change_is_audited_and_a_refused_one_is_not(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        boss = sdk.tenant(acme.context.tenant_id, user="boss")
        await boss.members.add("u", roles=["owner"])
        made = await boss.invitations.create("a@example.com")
        with pytest.raises(LastOwner):
            await boss.members.remove("u")
        key = await boss.api_keys.create("ci")
        async with sdk.system(reason="look") as system:
            where = {"tenant": acme.context.tenant_id, "actor": "boss"}
            page = await system.data.read("tenantry_audit", where=where, order_by="id")
        assert [row["action"] for row in page] == ["member.add", "invitation.create", "api-key.create"]
        for secret in (made.token, key.text):
            assert secret.partition(".")[2] not in str([*page]) + repr(made) + repr(key)

    # -- invitations

    async def test_an_invitation_is_accepted_once(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        made = await acme.invitations.create("New@example.com", roles=["editor"])
        users = [fresh("guest") for _ in range(6)]
        outcomes = await asyncio.gather(
            *(sdk.tenants.accept_invitation(made.token, user=user) for user in users), return_exceptions=True
        )
        refused = [item for item in outcomes if isinstance(item, CredentialRejected)]
        assert [error.reason for error in refused] == ["used"] * 5
        (member,) = await acme.members.list()
        assert (member.roles, member.email) == (["editor"], "New@example.com")
        (invitation,) = await acme.invitations.list(status="accepted")
        assert invitation.accepted_by == member.id

    async def test_an_invitation_ends(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        async def reason(token: str, **more: Any) -> str:
            with pytest.raises(CredentialRejected) as refused:
                await sdk.tenants.accept_invitation(token, user="u", **more)
            assert token not in str(refused.value)
            return refused.value.reason

        short = await acme.invitations.create("a@example.com", ttl=_MOMENT)
        first = await acme.invitations.create("b@example.com")
        again = await acme.invitations.resend(first.invitation.id)
        revoked = await acme.invitations.create("c@example.com")
        await acme.invitations.revoke(revoked.invitation.id)
        for id in (first.invitation.id, revoked.invitation.id):
            for call in (globex.invitations.revoke(id), globex.invitations.resend(id)):
                with pytest.raises(NotFound):
                    await call
        assert [*await globex.invitations.list()] == []
        await asyncio.sleep(_MOMENT.total_seconds())
        assert await reason(short.token) == "expired"
        assert await reason(first.token) == "unknown"
        assert await reason(revoked.token) == "revoked"
        assert await reason(again.token, email="z@example.com") == "for somebody else"
        assert await reason(again.token[:-1] + ("0" if again.token[-1] != "0" else "1")) == "malformed"
        await sdk.tenants.suspend(acme.context.tenant_id, reason="test")
        with pytest.raises(TenantSuspended):
            await sdk.tenants.accept_invitation(again.token, user="u")

    # -- API keys

    async def test_a_key_names_its_tenant_until_it_ends(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        made = await acme.api_keys.create("ci", roles=["bot"], scopes=["read:orders"])
        identity = await sdk.identify_api_key(made.text)
        assert (identity.tenant_id, identity.user) == (acme.context.tenant_id, f"key:{made.key.id}")
        handle = sdk.tenant(identity.tenant_id, user=identity.user, claims=identity.claims)
        assert await sdk.member_roles.roles(handle.context) == {"bot"}
        other = await globex.api_keys.create("theirs", ttl=_MOMENT)
        assert [key.name for key in await acme.api_keys.list()] == ["ci"]
        with pytest.raises(NotFound):
            await acme.api_keys.revoke(other.key.id, reason="mine now")
        rotated = await acme.api_keys.rotate(made.key.id, overlap=_MOMENT)
        assert (await sdk.identify_api_key(rotated.text)).claims["scopes"] == ["read:orders"]
        assert (await acme.api_keys.get(made.key.id)).replaced_by == rotated.key.id
        swapped = f"{rotated.key.id}.{made.text.partition('.')[2]}"
        for text, reason in ((other.text, "expired"), (swapped, "malformed"), ("", "malformed")):
            await asyncio.sleep(_MOMENT.total_seconds())
            with pytest.raises(CredentialRejected) as refused:
                await sdk.identify_api_key(text)
            assert refused.value.reason == reason

    async def test_a_revoked_key_is_refused_within_a_second(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        made = await acme.api_keys.create("ci")
        rotated = await acme.api_keys.rotate(made.key.id, overlap=dt.timedelta())
        await sdk.identify_api_key(rotated.text)
        await acme.api_keys.revoke(rotated.key.id, reason="leaked")
        revoked = self._until_refused(lambda: sdk.identify_api_key(rotated.text))
        replaced = self._until_refused(lambda: sdk.identify_api_key(made.text))
        assert [error.reason for error in await asyncio.gather(revoked, replaced)] == ["revoked", "expired"]

    # -- support

    async def test_support_needs_consent_and_leaves_a_trail(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        id = acme.context.tenant_id
        await globex.support.allow(ttl=_HOUR)
        with pytest.raises(SupportRefused, match="does not let"):
            async with sdk.impersonate(id, reason="ticket 7", actor="joe"):
                pass
        await acme.support.allow(ttl=_HOUR)
        async with sdk.impersonate(id, reason="ticket 7", actor="joe") as visit:
            await visit.data.create(Note(id="n", text="mended"))
            with pytest.raises(Unsupported):
                await visit.data.sql("SELECT 1")
            assert visit.context.claims["act"]["sub"] == "joe"
        assert await acme.data.exists(Note, {"id": "n"})
        (session,) = await acme.support.sessions()
        assert (session.actor, session.reason, session.ended_by) == ("joe", "ticket 7", "joe")
        (write,) = await acme.support.writes(session.id)
        assert (write.verb, write.collection, write.ids) == ("create", "notes", ["n"])
        assert not await globex.support.sessions()
        assert not await globex.support.writes(session.id)
        with pytest.raises(SupportRefused, match="over"):
            await visit.data.count(Note)

    async def test_support_leaves_a_trail_of_each_of_many_writes(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        await acme.support.allow(ttl=_HOUR)
        async with sdk.impersonate(acme.context.tenant_id, reason="ticket 8", actor="joe") as visit:
            await visit.data.bulk_create([Note(id="a"), Note(id="b")])
            await visit.data.bulk_update(Note, [("a", {"text": "x"}), ("none", {"text": "x"})])
            await visit.data.bulk_delete(Note, ["b"])
        (session,) = await acme.support.sessions()
        trail = [(write.verb, *write.ids) for write in await acme.support.writes(session.id)]
        assert trail == [("create", "a"), ("create", "b"), ("update", "a"), ("delete", "b")]

    async def test_support_ends_when_its_time_is_over_or_the_tenant_says_so(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        id = acme.context.tenant_id
        await acme.support.allow(ttl=_HOUR)
        async with sdk.impersonate(id, reason="r", actor="joe", ttl=_MOMENT * 4) as short:
            await short.data.count(Note)
            assert "over" in str(await self._until_refused(lambda: short.data.count(Note)))
        async with sdk.impersonate(id, reason="r", actor="joe") as visit:
            await visit.data.count(Note)
            await acme.support.revoke()
            assert "no more" in str(await self._until_refused(lambda: visit.data.count(Note)))
            with pytest.raises(SupportRefused):
                await visit.data.count(Note)
        assert await acme.support.consent() is None

    # -- the tables themselves

    async def test_no_statement_of_a_tenant_writes_them_or_reads_a_secret(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        """Not even below the SDK, where a hook may write."""
        from tenantry.ports import Insert
        from tenantry.query import Query

        made = await acme.api_keys.create("ci")
        database, context = sdk._database, acme.context
        assert database is not None
        record = API_KEYS.to_record(made.key)
        calls: list[Any] = [
            database.execute(context, [Insert(MEMBERS, [])]),
            database.execute(context, [Insert(API_KEYS, [record])]),
            database.fetch(context, API_KEYS, [made.key.id]),
            database.select(context, Query(INVITATIONS, (INVITATIONS.key,))),
            database.count(context, Query(API_KEYS, ())),
        ]
        for call in calls:
            with pytest.raises(IsolationError):
                await call

    async def test_a_purge_takes_them_along(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        id, user = acme.context.tenant_id, fresh("user")
        await acme.members.add(user, roles=["owner"])
        invited: Invitation = (await acme.invitations.create("a@example.com")).invitation
        pending = await acme.invitations.resend(invited.id)
        key = await acme.api_keys.create("ci")
        await acme.support.allow(ttl=_HOUR)
        async with sdk.impersonate(id, reason="r", actor="joe") as visit:
            await visit.data.create(Note(id="n"))
        await sdk.tenants.delete(id, reason="left")
        for call in (acme.members.add("late"), acme.api_keys.create("late")):
            with pytest.raises(TenantDeleted):
                await call
        certificate = await sdk.tenants.purge(id)
        kept = {MEMBERS, INVITATIONS, API_KEYS, SUPPORT_WRITES}
        assert {name: certificate.deleted[name] for name in sorted(item.name for item in kept)} == {
            "tenantry_api_keys": 1,
            "tenantry_invitations": 1,
            "tenantry_members": 1,
            "tenantry_support_writes": 1,
        }
        assert [*await sdk.tenants.of_user(user)] == []
        for use in (
            sdk.identify_api_key(key.text),
            sdk.tenants.accept_invitation(pending.token, user="v"),
        ):
            with pytest.raises(CredentialRejected, match="unknown"):
                await use

    @staticmethod
    async def _until_refused(call: Callable[[], Awaitable[object]]) -> Any:
        """Return how a call is refused that may go on for a second at most."""
        started = time.monotonic()
        while True:
            asked_at = time.monotonic()
            try:
                await call()
            except (CredentialRejected, SupportRefused) as refused:
                return refused
            except TenantryError:
                raise
            assert asked_at - started < 1.0
            await asyncio.sleep(0.02)
