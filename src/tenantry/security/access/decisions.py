"""The one place that decides: what the roles of a user permit on a collection."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tenantry.context import TenantContext
from tenantry.errors import ConfigurationError, UnknownCollection
from tenantry.schema import CARRIED, Collection, collection_of
from tenantry.security.access.conditions import MissingClaim, Template
from tenantry.security.access.permits import Permit, Permitted
from tenantry.security.access.policy import AccessPolicy, Action, Hidden, Role, RoleSource, Rule

_MAX_PERMITS = 10_000

Place = tuple[str | None, Action]  # a collection, none for raw access, and what is done with it


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """A rule of one role, as it applies to one collection.

    Attributes:
        fields: Those that are allowed, or of a denial those that are denied; ``None`` for a denial of rows.
    """

    allows: bool
    text: str
    fields: frozenset[str] | None
    condition: Template | None


class Rulebook:
    """A policy, checked against the collections that it is about.

    Raises:
        ConfigurationError: A rule names what there is not; ``field`` leads to it, such as ``access.seller.rules[1]``.
    """

    def __init__(self, policy: AccessPolicy, collections: Mapping[str, Collection]) -> None:
        self.source: RoleSource = policy.source
        self.of_members = policy.of_members
        self._collections = collections
        self._grants: dict[str, dict[Place, list[Grant]]] = {}
        own = {name: self._of_role(role) for name, role in policy.roles.items()}
        for name in policy.roles:
            merged = self._grants[name] = {}
            for role in policy.lineage(name):
                for place, grants in own[role.name].items():
                    merged.setdefault(place, []).extend(grants)
        self._permits: dict[object, Permit] = {}

    async def permit(self, context: TenantContext, collection: Collection | None, action: Action) -> Permit:
        """Return what the user of ``context`` may do; it may be nothing."""
        roles = await self.source.roles(context)
        name = None if collection is None else collection.name
        key = (context.claims_digest, roles, name, action)
        known = self._permits.get(key)
        if known is None:
            known = self._decide(context, roles, collection, action)
            if len(self._permits) >= _MAX_PERMITS:
                self._permits.clear()
            self._permits[key] = known
        return known

    def _decide(
        self, context: TenantContext, roles: Names[str], collection: Collection | None, action: Action
    ) -> Permit:
        place = (None if collection is None else collection.name, action)
        # By name, so that equal users get equal statements.
        grants = [grant for role in sorted(roles) for grant in self._grants.get(role, {}).get(place, ())]
        grants = list(dict.fromkeys(grants))
        denials = [grant for grant in grants if not grant.allows]
        denied = frozenset[str]().union(*(grant.fields or () for grant in denials))
        permit = Permit(collection, action, frozenset(roles))
        if not set(roles) & set(self._grants):
            return permit.refused(
                "no user is named" if context.user_id is None else "the user has no role of it"
            )
        for grant in denials:
            if grant.fields is None and grant.condition is None:
                return permit.refused(grant.text)
        return _bound(permit, context, grants, denied)

    def _of_role(self, role: Role) -> dict[Place, list[Grant]]:
        made: dict[Place, list[Grant]] = {}
        for index, rule in enumerate(role.rules):
            where = f"access.{role.name}.rules[{index}]"
            if rule.actions == ("raw",):
                fields = frozenset[str]() if rule.allows else None
                grant = Grant(rule.allows, _text(role, rule, None, None), fields, None)
                made.setdefault((None, "raw"), []).append(grant)
                continue
            about = self._named(rule, where)
            _check_fields(rule, about, where)
            for collection in about:
                grant = _grant(role, rule, collection, where)
                for action in rule.actions:
                    made.setdefault((collection.name, action), []).append(grant)
        return made

    def _named(self, rule: Rule, where: str) -> list[Collection]:
        if not rule.collections:
            return list(self._collections.values())
        return [self._collection(target, where) for target in rule.collections]

    def _collection(self, target: object, where: str) -> Collection:
        name = target
        if isinstance(target, type):
            try:
                name = collection_of(target).name
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error.message}", field=where, fix=error.fix) from error
        found = self._collections.get(name) if isinstance(name, str) else None
        if found is None:
            unknown = UnknownCollection(str(name), list(self._collections))
            raise ConfigurationError(f"{where}: {unknown.message}", field=where, fix=unknown.fix)
        return found


def _bound(permit: Permit, context: TenantContext, grants: Iterable[Grant], denied: frozenset[str]) -> Permit:
    """Return the permit with the conditions of its rules filled in for one user."""
    read = permit.collection if permit.action == "read" else None
    carried = CARRIED if read is None else read.carried
    allowed: list[Permitted] = []
    denials: list[Permitted] = []
    missing: list[str] = []
    for grant in grants:
        if not grant.allows and grant.condition is None:
            continue  # it is among the denied fields
        try:
            condition = None if grant.condition is None else grant.condition.bound(context)
        except MissingClaim as error:
            if not grant.allows:
                return permit.refused(f"{grant.text}: {error}")
            missing.append(f"{grant.text}: {error}")
            continue
        fields = frozenset() if grant.fields is None else grant.fields - denied
        (allowed if grant.allows else denials).append(Permitted(grant.text, fields | carried, condition))
    if not allowed:
        return permit.refused("; ".join(missing) or "no rule allows it")
    return permit.granted(allowed, denials)


def _grant(role: Role, rule: Rule, collection: Collection, where: str) -> Grant:
    condition = None
    if rule.where is not None:
        try:
            condition = Template.written(collection, rule.where)
        except ConfigurationError as error:
            path = f"{where}.{error.field}"
            raise ConfigurationError(f"{where}: {error.message}", field=path, fix=error.fix) from error
    return Grant(rule.allows, _text(role, rule, collection, condition), _fields(rule, collection), condition)


def _fields(rule: Rule, collection: Collection) -> frozenset[str] | None:
    if rule.fields is None:
        return frozenset(collection.fields) if rule.allows else None
    if isinstance(rule.fields, Hidden):
        return frozenset(collection.fields) - set(rule.fields.names)
    return frozenset(collection.fields) & set(rule.fields)


def _check_fields(rule: Rule, about: Iterable[Collection], where: str) -> None:
    """Refuse a field that none of the collections has, and one that cannot be hidden."""
    hidden = isinstance(rule.fields, Hidden)
    names = rule.fields.names if isinstance(rule.fields, Hidden) else rule.fields or ()
    always = CARRIED.union(*(collection.carried for collection in about))
    known = list(dict.fromkeys(name for collection in about for name in collection.fields))
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"{where}: there is no field {name!r}.",
                field=f"{where}.fields",
                fix=f"Known: {', '.join(known)}.",
            )
        if name in always and (hidden or not rule.allows):
            raise ConfigurationError(
                f"{where}: {name!r} comes with every row and cannot be hidden.", field=f"{where}.fields"
            )


def _text(role: Role, rule: Rule, collection: Collection | None, condition: Template | None) -> str:
    parts = [f"{role.name}:", "allow" if rule.allows else "deny", ", ".join(rule.actions)]
    if collection is not None:
        parts.append(f"on {collection.name}")
    if condition is not None:
        parts.append(f"where {condition.text}")
    if isinstance(rule.fields, Hidden):
        parts.append(f"without {', '.join(rule.fields.names)}")
    elif rule.fields is not None:
        parts.append(f"of {', '.join(rule.fields)}")
    return " ".join(parts)
