"""Invitations: a secret that makes whoever has it a member, once and for a while."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from tenantry.context import TenantContext
from tenantry.errors import NotFound
from tenantry.ports import DatabaseAdapter
from tenantry.query import Comparison, Query
from tenantry.tenants.administration import (
    Administration,
    Change,
    changing,
    checked_names,
    checked_text,
    expiry,
    is_past,
)
from tenantry.tenants.credentials import Mint, matches, rejected
from tenantry.tenants.directory import SYSTEM
from tenantry.tenants.lease import TenantLease
from tenantry.tenants.members import JoinCheck, join
from tenantry.tenants.own import INVITATIONS, MEMBERS, OWNER, Invitation, InvitationStatus, Member
from tenantry.types import Record

WEEK = dt.timedelta(days=7)
_LONGEST = dt.timedelta(days=90)
_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation and its token, which is shown here and never again."""

    invitation: Invitation
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Membership:
    """That a user is a member of a tenant.

    Attributes:
        tenant_id: The tenant.
        user: The user.
        roles: What the user is there.
    """

    tenant_id: str
    user: str
    roles: tuple[str, ...]


class Invitations(Administration):
    """The invitations of one tenant."""

    def __init__(
        self, database: DatabaseAdapter, lease: TenantLease, context: TenantContext, mint: Mint
    ) -> None:
        super().__init__(database, lease, context)
        self._mint = mint

    async def create(
        self, email: str, *, roles: Sequence[str] = (), ttl: dt.timedelta = WEEK
    ) -> NewInvitation:
        """Invite somebody.

        Args:
            email: The address that the token goes to; sending it is up to the application.
            roles: What the new member will be.
            ttl: For how long it can be accepted, at most 90 days.
        """
        secret = self._mint.make("tni")
        invitation = Invitation(
            email=checked_text(email, "email"),
            roles=checked_names(roles, "roles"),
            expires_at=expiry(ttl, longest=_LONGEST),
            invited_by=self._context.user_id,
            credential=secret.id,
            digest=secret.digest,
        )
        async with self._change(
            "invitation.create", invitation=str(invitation.id), roles=invitation.roles
        ) as change:
            await change.add(INVITATIONS, invitation)
        return NewInvitation(invitation.model_copy(update={"version": 1}), secret.text)

    async def list(self, *, status: InvitationStatus | str | None = None) -> Sequence[Invitation]:
        """Return up to 1,000 invitations, the oldest first."""
        invitations: list[Invitation] = await self._select(INVITATIONS, _LISTED)
        wanted = None if status is None else InvitationStatus(status)
        return [item for item in invitations if wanted in (None, item.status)]

    async def resend(self, id: uuid.UUID, *, ttl: dt.timedelta = WEEK) -> NewInvitation:
        """Give a pending invitation another token, and time again. The token before no longer works.

        Raises:
            NotFound: There is none that is pending.
        """
        secret, until = self._mint.make("tni"), expiry(ttl, longest=_LONGEST)
        async with self._change("invitation.resend", invitation=str(id)) as change:
            await _pending(change, id)
            made = await change.set(
                INVITATIONS, id, credential=secret.id, digest=secret.digest, expires_at=until
            )
        return NewInvitation(made, secret.text)

    async def revoke(self, id: uuid.UUID) -> None:
        """Let nobody accept an invitation any more.

        Raises:
            NotFound: There is none that is pending.
        """
        async with self._change("invitation.revoke", invitation=str(id)) as change:
            await _pending(change, id)
            await change.set(INVITATIONS, id, status=InvitationStatus.REVOKED)


class Door:
    """Where somebody who is no member yet comes in with a token."""

    def __init__(self, database: DatabaseAdapter, lease: TenantLease, mint: Mint) -> None:
        self._database = database
        self._lease = lease
        self._mint = mint

    async def accept(
        self, token: str, user: str, email: str | None, checks: Sequence[JoinCheck]
    ) -> Membership:
        """Make ``user`` a member of the tenant that the token is of."""
        checked_text(user, "user")
        found = await self._look_up(token)
        tenant_id = found.pop("tenant_id")
        invitation = cast(Invitation, INVITATIONS.instantiate(found))
        await self._lease.admit(tenant_id)
        details = {"invitation": str(invitation.id), "user": user}
        async with changing(self._database, tenant_id, "invitation.accept", user, details) as change:
            # Read again under the lock of the tenant: of all who come with one token, one gets in.
            current = cast(Invitation | None, await change.find(INVITATIONS, invitation.id))
            _check(current, token, email)
            await change.set(INVITATIONS, invitation.id, status=InvitationStatus.ACCEPTED, accepted_by=user)
            member = await self._enter(change, user, invitation, checks)
        return Membership(tenant_id, user, tuple(member.roles))

    async def _look_up(self, token: str) -> Record:
        credential = self._mint.id_of(token, "tni")
        query = Query(
            INVITATIONS,
            tuple(INVITATIONS.fields.values()),
            Comparison(INVITATIONS.fields["credential"], "eq", credential),
            limit=1,
        )
        rows = await self._database.select(SYSTEM, query)
        if not matches(token, rows[0]["digest"] if rows else None):
            raise rejected("tni", "unknown")
        return rows[0]

    async def _enter(
        self, change: Change, user: str, invitation: Invitation, checks: Sequence[JoinCheck]
    ) -> Member:
        found = cast(Member | None, await change.find(MEMBERS, user))
        if found is None:
            roles = invitation.roles
            member = Member(id=user, roles=roles, owner=OWNER in roles, email=invitation.email)
            return await join(change, member, checks)
        roles = sorted({*found.roles, *invitation.roles})
        return cast(Member, await change.set(MEMBERS, user, roles=roles, owner=OWNER in roles))


def _check(invitation: Invitation | None, token: str, email: str | None) -> None:
    if invitation is None or not matches(token, invitation.digest):
        raise rejected("tni", "unknown")
    if invitation.status is InvitationStatus.ACCEPTED:
        raise rejected("tni", "used")
    if invitation.status is InvitationStatus.REVOKED:
        raise rejected("tni", "revoked")
    if is_past(invitation.expires_at):
        raise rejected("tni", "expired")
    if email is not None and email.casefold() != invitation.email.casefold():
        raise rejected("tni", "for somebody else")


async def _pending(change: Change, id: uuid.UUID) -> None:
    found = cast(Invitation | None, await change.find(INVITATIONS, id))
    if found is None or found.status is not InvitationStatus.PENDING:
        raise NotFound("invitations", id)
