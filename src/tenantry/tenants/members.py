"""The members of a tenant and their roles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from tenantry.context import TenantContext
from tenantry.errors import LastOwner, MemberExists, NotFound
from tenantry.ports import DatabaseAdapter
from tenantry.query import And, Comparison, Query, Sort
from tenantry.tenants.administration import Administration, Change, checked_names, checked_text
from tenantry.tenants.directory import Tenant
from tenantry.tenants.lease import TenantLease
from tenantry.tenants.own import MEMBERS, OWNER, Member

_OWNERS = Comparison(MEMBERS.fields["owner"], "eq", True)


class Joining(NamedTuple):
    """That somebody is about to become a member.

    Attributes:
        tenant: The tenant. Nobody else joins it until this is decided.
        user: Who.
        roles: As what.
        members: How many members there are already.
    """

    tenant: Tenant
    user: str
    roles: Sequence[str]
    members: int


JoinCheck = Callable[[Joining], None]
"""Raises unless somebody may join: over a quota of seats, with a role that is unknown. It runs in the transaction."""


class MemberRoles:
    """The roles of users in their tenants, for access policies; of a request with an API key, those of the key."""

    def __init__(self, database: DatabaseAdapter) -> None:
        self._database = database

    async def roles(self, context: TenantContext) -> frozenset[str]:
        """Return the roles of the context's user in its tenant; none for nobody, and for who is no member."""
        user = context.user_id
        if user is None:
            return frozenset()
        if user.startswith("key:") and context.claims.get("key") == user.removeprefix("key:"):
            return frozenset(context.claims.get("roles", ()))
        rows = await self._database.fetch(context, MEMBERS, [user])
        return frozenset(rows[0]["roles"]) if rows else frozenset()


class Members(Administration):
    """The members of one tenant. A tenant that has owners never loses the last of them."""

    def __init__(
        self,
        database: DatabaseAdapter,
        lease: TenantLease,
        context: TenantContext,
        checks: Sequence[JoinCheck] = (),
    ) -> None:
        super().__init__(database, lease, context)
        self._checks = checks

    async def add(self, user: str, *, roles: Sequence[str] = (), email: str | None = None) -> Member:
        """Make a user a member, or return the one who is with these roles.

        Args:
            user: The user's id, as the application's own authentication knows it.
            roles: What the user is in this tenant; ``owner`` is the one that the SDK knows.
            email: Kept with the member.

        Raises:
            MemberExists: The user is a member with other roles.
            TenantryError: A check that was added with ``sdk.add_join_check`` refuses.
        """
        member = _member(user, roles, email)
        async with self._change("member.add", user=user, roles=member.roles) as change:
            found = cast(Member | None, await change.find(MEMBERS, member.id))
            if found is None:
                return await join(change, member, self._checks)
            change.nothing = True
        if found.roles != member.roles:
            raise _exists(self._context.tenant_id, user)
        return found

    async def get(self, user: str) -> Member:
        """Return a member, or raise :class:`NotFound`."""
        await self._admit()
        rows = await self._database.fetch(self._context, MEMBERS, [checked_text(user, "user")])
        if not rows:
            raise NotFound("members", user)
        return cast(Member, MEMBERS.instantiate(rows[0]))

    async def list(
        self, *, role: str | None = None, start_after: str | None = None, limit: int = 100
    ) -> Sequence[Member]:
        """Return members in the order of their ids.

        Args:
            role: Only those with this role.
            start_after: Only those behind this id: the last one of the page before.
            limit: The most to return, 1 to 10,000.
        """
        key, roles = MEMBERS.key, MEMBERS.fields["roles"]
        wanted: list[Any] = [] if start_after is None else [Comparison(key, "gt", start_after)]
        wanted += [] if role is None else [Comparison(roles, "has", role)]
        await self._admit()
        fields = tuple(MEMBERS.fields.values())
        query = Query(MEMBERS, fields, And(tuple(wanted)), (Sort(key),), max(1, min(limit, 10_000)))
        rows = await self._database.select(self._context, query)
        return [cast(Member, MEMBERS.instantiate(row)) for row in rows]

    async def roles_of(self, user: str) -> frozenset[str]:
        """Return the roles of a user in this tenant; none for who is no member."""
        await self._admit()
        rows = await self._database.fetch(self._context, MEMBERS, [checked_text(user, "user")])
        return frozenset(rows[0]["roles"]) if rows else frozenset()

    async def set_roles(self, user: str, roles: Sequence[str]) -> Member:
        """Give a member other roles.

        Raises:
            NotFound: The user is no member.
            LastOwner: The user is the only owner, and would no longer be one.
        """
        wanted = checked_names(roles, "roles")
        async with self._change("member.set-roles", user=user, roles=wanted) as change:
            member = await _present(change, user)
            if member.owner and OWNER not in wanted:
                await _another_owner(change, user)
            made = await change.set(MEMBERS, member.id, roles=wanted, owner=OWNER in wanted)
        return cast(Member, made)

    async def remove(self, user: str) -> None:
        """Make a user no member any more.

        Raises:
            NotFound: The user is none.
            LastOwner: The user is the only owner.
        """
        async with self._change("member.remove", user=user) as change:
            member = await _present(change, user)
            if member.owner:
                await _another_owner(change, user)
            await change.remove(MEMBERS, member.id)


async def join(change: Change, member: Member, checks: Sequence[JoinCheck]) -> Member:
    """Store a new member. Everybody who becomes one passes here, with the tenant locked.

    Raises:
        TenantryError: A check refuses.
    """
    if checks:
        joining = Joining(change.tenant, member.id, tuple(member.roles), await change.count(MEMBERS))
        for check in checks:
            check(joining)
    await change.add(MEMBERS, member)
    return member.model_copy(update={"version": 1})


async def _present(change: Change, user: str) -> Member:
    found = await change.find(MEMBERS, checked_text(user, "user"))
    if found is None:
        raise NotFound("members", user)
    return cast(Member, found)


async def _another_owner(change: Change, user: str) -> None:
    # The tenant is locked: nobody takes the other one away meanwhile.
    if await change.count(MEMBERS, _OWNERS) < 2:
        raise LastOwner(
            f"{user!r} is the only owner of tenant {change.tenant.id!r}.",
            tenant_id=change.tenant.id,
            fix='Make somebody else one first: await acme.members.set_roles("…", ["owner"]).',
        )


def _member(user: str, roles: Sequence[str], email: str | None) -> Member:
    checked = checked_names(roles, "roles")
    address = None if email is None else checked_text(email, "email")
    return Member(id=checked_text(user, "user"), roles=checked, owner=OWNER in checked, email=address)


def _exists(tenant_id: str, user: str) -> MemberExists:
    return MemberExists(
        f"{user!r} is a member of tenant {tenant_id!r} with other roles.",
        tenant_id=tenant_id,
        fix="Change them with set_roles(…).",
    )
