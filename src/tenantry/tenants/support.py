"""Support in a tenant's place: with its consent, for a while, seen by it, and ended by it at any time."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Sequence
from typing import Any, cast

from tenantry.context import SystemContext, TenantContext
from tenantry.errors import InvalidRecord, SupportRefused
from tenantry.hooks import Hooks, Operation
from tenantry.ports import DatabaseAdapter, Insert, Write
from tenantry.query import Comparison
from tenantry.tenants.administration import Administration, changing, checked_text, expiry, is_past
from tenantry.tenants.lease import LEASE_SECONDS, TenantLease
from tenantry.tenants.own import (
    CONSENTS,
    SUPPORT_SESSIONS,
    SUPPORT_WRITES,
    SupportConsent,
    SupportSession,
    SupportWrite,
)
from tenantry.types import TenantId

_CONSENT = "consent"
_LONGEST_CONSENT = dt.timedelta(days=366)
LONGEST_VISIT = dt.timedelta(hours=8)
_LISTED = 1_000


class Support(Administration):
    """What a tenant says about support, and sees of it."""

    async def allow(self, *, ttl: dt.timedelta) -> SupportConsent:
        """Let support in for ``ttl``, at most a year. Nobody is let in before this was called."""
        until = expiry(ttl, longest=_LONGEST_CONSENT)
        async with self._change("support.allow", until=until.isoformat()) as change:
            if await change.find(CONSENTS, _CONSENT) is not None:
                made = await change.set(CONSENTS, _CONSENT, until=until, allowed_by=self._context.user_id)
                return cast(SupportConsent, made)
            consent = SupportConsent(id=_CONSENT, until=until, allowed_by=self._context.user_id, version=1)
            await change.add(CONSENTS, consent)
        return consent

    async def consent(self) -> SupportConsent | None:
        """Return until when support is let in, if it is."""
        found = cast(SupportConsent | None, await self._find(CONSENTS, _CONSENT))
        return None if found is None or is_past(found.until) else found

    async def revoke(self) -> None:
        """Let support in no more, and end every visit within one second."""
        async with self._change("support.revoke") as change:
            if await change.find(CONSENTS, _CONSENT) is not None:
                await change.remove(CONSENTS, _CONSENT)

    async def sessions(self) -> Sequence[SupportSession]:
        """Return up to 1,000 visits of support, the oldest first."""
        return await self._select(SUPPORT_SESSIONS, _LISTED)

    async def writes(self, session: uuid.UUID) -> Sequence[SupportWrite]:
        """Return up to 1,000 writes of one visit, in order."""
        of_it = Comparison(SUPPORT_WRITES.fields["session"], "eq", session)
        return await self._select(SUPPORT_WRITES, _LISTED, of_it)


class Visit:
    """One visit of support: asked before each call whether it goes on, and told of each write.

    Its calls are admitted like everybody's, by the lease, and besides by the tenant's consent, which is read again
    whenever what is known of it is almost a second old.
    """

    def __init__(
        self, database: DatabaseAdapter, lease: TenantLease, tenant_id: TenantId, session: SupportSession
    ) -> None:
        self._database = database
        self._lease = lease
        self._tenant_id = tenant_id
        self.session = session
        self._ends = time.monotonic() + (session.until - dt.datetime.now(dt.UTC)).total_seconds()
        self._known_until = 0.0
        self._over = False

    def admits(self, tenant_id: str) -> bool:
        """Whether the visit goes on, as far as is known without looking."""
        return self._goes_on() and time.monotonic() < self._known_until and self._lease.admits(tenant_id)

    async def admit(self, tenant_id: str) -> None:
        """Look, and raise unless it goes on.

        Raises:
            SupportRefused: The time is over, or the tenant has ended it.
        """
        if not self._goes_on():
            raise SupportRefused("This visit of support is over.")
        await self._lease.admit(tenant_id)
        asked_at = time.monotonic()
        context = SystemContext("support", self.session.actor, self._tenant_id)
        consents = await self._database.fetch(context, CONSENTS, [_CONSENT])
        if not consents or is_past(consents[0]["until"]):
            self._over = True
            raise SupportRefused(f"Tenant {tenant_id!r} lets support in no more.")
        self._known_until = asked_at + LEASE_SECONDS

    def _goes_on(self) -> bool:
        return not self._over and time.monotonic() < self._ends

    def trail(self, operation: Operation) -> Sequence[Write]:
        """Return the write that records a write of the visit, in the same transaction."""
        if operation.collection is None:
            return ()
        made = SupportWrite(
            session=self.session.id,
            actor=self.session.actor,
            verb=operation.verb,
            collection=operation.collection.name,
            ids=[str(id) for id in operation.ids],
            fields=sorted(operation.changes),
            version=1,
        )
        return (Insert(SUPPORT_WRITES, [SUPPORT_WRITES.to_record(made)]),)

    async def end(self) -> None:
        """End it, and record that."""
        self._over = True
        details = {"session": str(self.session.id)}
        actor = self.session.actor
        async with changing(self._database, self._tenant_id, "support.end", actor, details) as change:
            now = dt.datetime.now(dt.UTC)
            await change.set(SUPPORT_SESSIONS, self.session.id, ended_at=now, ended_by=actor)


async def begin_visit(
    database: DatabaseAdapter,
    lease: TenantLease,
    tenant_id: TenantId,
    *,
    reason: str,
    actor: str,
    ttl: dt.timedelta,
) -> Visit:
    """Begin a visit, if the tenant has let support in, and record it where the tenant sees it.

    Raises:
        SupportRefused: It has not, or no longer.
    """
    if not reason or not reason.strip():
        raise InvalidRecord("say why; the tenant reads it.", field="reason")
    actor, until = checked_text(actor, "actor"), expiry(ttl, longest=LONGEST_VISIT)
    session = SupportSession(actor=actor, reason=reason, until=until)
    details = {"session": str(session.id), "reason": reason, "until": until.isoformat()}
    await lease.admit(tenant_id)
    async with changing(database, tenant_id, "support.begin", actor, details) as change:
        consent = cast(SupportConsent | None, await change.find(CONSENTS, _CONSENT))
        if consent is None or is_past(consent.until):
            raise SupportRefused(
                f"Tenant {tenant_id!r} does not let support in.",
                fix="One of its people allows it: await acme.support.allow(ttl=timedelta(hours=1)).",
            )
        await change.add(SUPPORT_SESSIONS, session)
    return Visit(database, lease, tenant_id, session)


def visitor(session: SupportSession, tenant_id: str) -> TenantContext:
    """Return the context of a visit: in the tenant, and by whom in truth."""
    claims: dict[str, Any] = {"act": {"sub": session.actor, "session": str(session.id)}}
    return TenantContext(TenantId(tenant_id), f"support:{session.actor}", claims)


class TrailedHooks(Hooks):
    """The hooks of an SDK, and the trail of a visit."""

    def __init__(self, hooks: Hooks, visit: Visit) -> None:
        super().__init__()
        self._hooks = hooks
        self._visit = visit

    @property
    def has_within(self) -> bool:
        """There is the trail, whatever hooks there are."""
        return True

    def within(self, operation: Operation) -> list[Write]:
        """Return the writes that the within hooks add, and that which records the operation."""
        return [*self._hooks.within(operation), *self._visit.trail(operation)]

    def after(self, operation: Operation) -> None:
        """Tell the after hooks."""
        self._hooks.after(operation)
