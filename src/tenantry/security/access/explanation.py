"""Why a user may do something, or may not: said by what decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenantry import _display
from tenantry.context import TenantContext
from tenantry.ports import Executor
from tenantry.schema import CARRIED, Collection
from tenantry.security.access.decisions import Rulebook
from tenantry.security.access.permits import Permit
from tenantry.security.access.policy import Action


@dataclass(frozen=True, slots=True)
class AccessExplanation:
    """What the policy says of one user, one action and one collection, or one row of it.

    Attributes:
        allowed: Whether the user may do it: with this row, or where none is named with some.
        reason: Why, in a sentence.
        roles: The roles that the user was found to have.
        rules: The rules that decide, each with its role; those that need a condition say it.
        visible: The fields that the user may read: of this row, or where none is named of some.
        hidden: The other fields.
        writable: The fields that may be written, where the action creates or updates.
    """

    allowed: bool
    reason: str
    tenant: str
    user: str | None
    action: Action
    collection: str | None
    id: Any = None
    roles: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    visible: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()

    def _shown(self) -> dict[str, str]:
        what = "raw" if self.collection is None else f"{self.action} {self.collection}"
        listed = {name: ", ".join(getattr(self, name)) for name in ("roles", "visible", "hidden", "writable")}
        return {
            "tenant": self.tenant,
            "user": str(self.user),
            "action": what if self.id is None else f"{what} {self.id}",
            "allowed": "yes" if self.allowed else "no",
            "reason": self.reason,
            "rules": "\n".join(self.rules),
            **listed,
        }

    def _repr_html_(self) -> str:
        return _display.properties_html(
            "Access", {name: text for name, text in self._shown().items() if text}
        )


async def explain(
    rules: Rulebook,
    stored: Executor,
    context: TenantContext,
    collection: Collection | None,
    action: Action,
    id: Any = None,
) -> AccessExplanation:
    """Return what the policy says.

    Args:
        rules: The policy.
        stored: Reads the row as it is stored, with no policy before it.
        context: Of whom.
        collection: In which collection; ``None`` for raw access.
        action: What is to be done.
        id: With which row, if with one.
    """
    permit = await rules.permit(context, collection, action)
    allowed = permit.refusal is None
    reason = permit.refusal or "; ".join(item.text for item in permit.allowed)
    if collection is None:
        return _explained(context, permit, allowed, reason)
    reading = await rules.permit(context, collection, "read")
    if id is None or action == "create":
        return _explained(context, permit, allowed, reason, id=id, seen=reading.fields, written=permit.fields)
    rows = await stored.fetch(context, collection, [id])
    if not rows:
        return _explained(context, permit, False, "there is no such row", id=id)
    if allowed and not permit.reaches(rows[0]):
        allowed, reason = False, "the row lies outside of what the rules allow"
    seen = reading.shown(rows[0]) if reading.reaches(rows[0]) else frozenset[str]()
    return _explained(context, permit, allowed, reason, id=id, seen=seen, written=permit.shown(rows[0]))


def _explained(
    context: TenantContext,
    permit: Permit,
    allowed: bool,
    reason: str,
    *,
    id: Any = None,
    seen: frozenset[str] = frozenset(),
    written: frozenset[str] = frozenset(),
) -> AccessExplanation:
    every = () if permit.collection is None else tuple(permit.collection.fields)
    writes = allowed and permit.action in ("create", "update")
    return AccessExplanation(
        allowed=allowed,
        reason=reason,
        tenant=context.tenant_id,
        user=context.user_id,
        action=permit.action,
        collection=None if permit.collection is None else permit.collection.name,
        id=id,
        roles=tuple(sorted(permit.roles)),
        rules=tuple(item.text for item in (*permit.allowed, *permit.denied)),
        visible=tuple(name for name in every if name in seen),
        hidden=tuple(name for name in every if name not in seen),
        writable=tuple(name for name in every if writes and name in written - CARRIED),
    )
