"""The policy as it is written: roles, and the rules that each of them has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

from tenantry.context import TenantContext
from tenantry.errors import AccessDenied, ConfigurationError
from tenantry.security.access.conditions import RowCondition

Action = Literal["read", "create", "update", "delete", "raw"]

_MAX_KNOWN = 100_000

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
ON_ROWS: Final[tuple[Action, ...]] = ("read", "create", "update", "delete")


@dataclass(frozen=True, slots=True)
class Hidden:
    """Every field but these; made by :func:`hide`."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a role; made by :func:`allow`, :func:`allow_all` and :func:`deny`.

    Attributes:
        allows: Whether it allows or denies.
        actions: What.
        collections: Models or names of collections; empty for all of them.
        where: On which rows; ``None`` for all.
        fields: Which fields may be read or written; ``None`` for all. Of a denial, those that may not.
    """

    allows: bool
    actions: tuple[Action, ...]
    collections: tuple[object, ...]
    where: RowCondition | None = None
    fields: tuple[str, ...] | Hidden | None = None


def allow(
    actions: Action | Sequence[Action],
    *collections: type[object] | str,
    where: RowCondition | None = None,
    fields: Sequence[str] | Hidden | None = None,
) -> Rule:
    """Return a rule that allows ``actions`` on collections.

    Args:
        actions: ``"read"``, ``"create"``, ``"update"``, ``"delete"``, several of them, or ``"raw"``: SQL, sessions and
            connections of the user's own, below which no other rule reaches.
        *collections: Models, or names of collections. Raw access names none.
        where: The rows: ``lambda order, user: order.owner == user.id``, or a dict as in ``read``.
            ``user.claims["team"]`` is a claim; a user without it gets nothing of this rule.
        fields: The fields to be read, or to be written: their names, or ``hide("cost")`` for all but some. ``id``,
            ``version``, ``created_at`` and ``updated_at`` come with every row.
    """
    return _rule(True, actions, collections, where, fields)


def deny(
    actions: Action | Sequence[Action],
    *collections: type[object] | str,
    where: RowCondition | None = None,
    fields: Sequence[str] | None = None,
) -> Rule:
    """Return a rule that denies ``actions``, whatever other rules and roles of the user allow.

    Args:
        actions: As for :func:`allow`.
        *collections: As for :func:`allow`; none for all of them.
        where: Only these rows. A row for which it is unknown, because a value is null, is denied too.
        fields: Only these fields.
    """
    return _rule(False, actions, collections, where, fields)


def allow_all() -> Rule:
    """Return a rule that allows everything on every collection. Raw access is a permission of its own."""
    return Rule(True, ON_ROWS, ())


def hide(*names: str) -> Hidden:
    """Return every field but these, for the ``fields`` of :func:`allow`."""
    return Hidden(names)


def _rule(
    allows: bool,
    actions: Action | Sequence[Action],
    collections: tuple[object, ...],
    where: RowCondition | None,
    fields: Sequence[str] | Hidden | None,
) -> Rule:
    wanted: tuple[Any, ...] = (actions,) if isinstance(actions, str) else tuple(actions)
    word = "allow" if allows else "deny"
    for action in wanted:
        if action not in ACTIONS:
            raise ConfigurationError(
                f"{word}: there is no action {action!r}.", field="access", fix=f"Known: {', '.join(ACTIONS)}."
            )
    if not wanted:
        raise ConfigurationError(f"{word} names no action.", field="access")
    if "raw" in wanted and (len(wanted) > 1 or collections or where is not None or fields is not None):
        raise ConfigurationError(
            f'{word}: raw access has no collections, conditions or fields; write {word}("raw").',
            field="access",
            fix="What runs as raw SQL is held to the tenant by the database, and to nothing else.",
        )
    if allows and not collections and "raw" not in wanted:
        raise ConfigurationError(
            "allow names no collection.", field="access", fix="Name models, or write allow_all()."
        )
    if not allows and where is not None and fields is not None:
        raise ConfigurationError(
            "deny takes where or fields, not both.", field="access", fix="Write two rules."
        )
    if isinstance(fields, str):
        raise ConfigurationError(f"fields is {fields!r}.", field="access", fix=f"Write fields=[{fields!r}].")
    listed = fields if isinstance(fields, Hidden) or fields is None else tuple(fields)
    return Rule(allows, wanted, collections, where, listed)


class Role:
    """A name, and what those who have it may do.

    Args:
        name: As the claims, or the members of the tenant, name it.
        *rules: Made by :func:`allow`, :func:`allow_all` and :func:`deny`.
        inherits: Names of roles whose rules it has too.
    """

    def __init__(self, name: str, *rules: Rule, inherits: Sequence[str] = ()) -> None:
        if not name:
            raise ConfigurationError("A role has no name.", field="access")
        if any(not isinstance(rule, Rule) for rule in rules):
            raise ConfigurationError(
                f"Role {name!r} has something that is no rule.",
                field="access",
                fix="Write allow(…) or deny(…).",
            )
        self.name = name
        self.rules = rules
        self.inherits = (inherits,) if isinstance(inherits, str) else tuple(inherits)

    def __repr__(self) -> str:
        return f"Role({self.name!r}, {len(self.rules)} rules, inherits={list(self.inherits)})"


class RoleSource(Protocol):
    """Says which roles a user has. Asked before each call, so it should remember what it can."""

    async def roles(self, context: TenantContext) -> frozenset[str]:
        """Return the names of the roles of the user of ``context``; none where there is no user.

        Raises:
            AccessDenied: They cannot be told.
        """


class ClaimedRoles:
    """Roles from the claims that an identity provider has signed.

    Args:
        claim: The claim: a list of names. A user without it has no role.
    """

    def __init__(self, claim: str = "roles") -> None:
        self._claim = claim

    async def roles(self, context: TenantContext) -> frozenset[str]:
        """Return the roles that the claim lists."""
        if context.user_id is None:
            return frozenset()
        listed = context.claims.get(self._claim, [])
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise AccessDenied(
                f"The claim {self._claim!r} is not a list of names, so the user has no role.",
                action="any",
                fix=f'Pass claims={{"{self._claim}": ["viewer"]}}.',
            )
        return frozenset(listed)


class RememberedRoles:
    """Roles of another source, believed for a while.

    Args:
        source: Where they come from.
        seconds: For how long an answer is believed, counted from before it was asked.
    """

    def __init__(self, source: RoleSource, seconds: float) -> None:
        self._source = source
        self._seconds = seconds
        self._known: dict[tuple[str, bytes], tuple[float, frozenset[str]]] = {}

    async def roles(self, context: TenantContext) -> frozenset[str]:
        """Return the roles of the user in this tenant."""
        key, now = (context.tenant_id, context.claims_digest), time.monotonic()
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        found = await self._source.roles(context)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[key] = (now + self._seconds, found)
        return found


class AccessPolicy:
    """What each user of a tenant may do. What no rule allows is denied.

    Args:
        *roles: The roles.
        source: Says which roles a user has: by default the claim ``roles``; ``"members"`` for the members of the
            tenant, whose changes take effect within one second; or an object of your own.
    """

    def __init__(self, *roles: Role, source: RoleSource | Literal["members"] | None = None) -> None:
        self.roles = {role.name: role for role in roles}
        self.of_members = source == "members"
        self.source: RoleSource = ClaimedRoles() if source is None or isinstance(source, str) else source
        if isinstance(source, str) and not self.of_members:
            raise ConfigurationError(
                f"There is no source of roles {source!r}.",
                field="access.source",
                fix='Write source="members".',
            )
        if len(self.roles) < len(roles):
            raise ConfigurationError("Two roles have the same name.", field="access")
        if not roles:
            raise ConfigurationError(
                "The policy has no role, so it would deny everything.", field="access", fix="Give it a Role."
            )

    def lineage(self, name: str) -> tuple[Role, ...]:
        """Return a role and those whose rules it has, each once.

        Raises:
            ConfigurationError: It inherits one that there is not, or itself.
        """
        found: dict[str, Role] = {}
        self._collect(name, (), found)
        return tuple(found.values())

    def _collect(self, name: str, path: tuple[str, ...], found: dict[str, Role]) -> None:
        if name in path:
            raise ConfigurationError(
                f"Roles inherit each other: {' -> '.join((*path, name))}.", field=f"access.{path[0]}.inherits"
            )
        role = self.roles.get(name)
        if role is None:
            raise ConfigurationError(
                f"Role {path[-1]!r} inherits {name!r}, which there is not.",
                field=f"access.{path[-1]}.inherits",
                fix=f"Known: {', '.join(self.roles)}.",
            )
        found.setdefault(name, role)
        for parent in role.inherits:
            self._collect(parent, (*path, name), found)
