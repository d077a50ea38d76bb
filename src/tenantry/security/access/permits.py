"""What one user may do with one collection: which rows, and which fields of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tenantry.errors import AccessDenied, FieldHidden
from tenantry.evaluation import holds
from tenantry.query import EVERYTHING, And, Filter, Not, Or
from tenantry.schema import CARRIED, Collection
from tenantry.security.access.conditions import fields_of
from tenantry.security.access.policy import Action
from tenantry.types import Record

_MAX_CONDITIONS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Permitted:
    """A rule that applies to the user: some fields of the rows that meet a condition, or of all rows."""

    text: str
    fields: frozenset[str]
    condition: Filter | None


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """What one user may do with one collection.

    A field is allowed in a row if a rule allows it there. A row is reached *through* fields, those that a query
    filters or sorts by or that a write sets, only if each of them is allowed in it: a row tells nothing by a field
    that is hidden in it.

    Attributes:
        refusal: Why nothing is permitted, if so.
        allowed: The rules that allow something.
        denied: The rules that deny rows.
        fields: The fields that are allowed in some row.
        whole: Whether it is everything: all fields of all rows.
        partial: Whether some field is hidden in some row.
        varied: Whether rows differ in the fields that are allowed.
        needed: The fields that tell which are allowed in a row.
    """

    collection: Collection | None
    action: Action
    roles: frozenset[str]
    refusal: str | None = None
    allowed: tuple[Permitted, ...] = ()
    denied: tuple[Permitted, ...] = ()
    fields: frozenset[str] = frozenset()
    whole: bool = False
    partial: bool = False
    varied: bool = False
    needed: frozenset[str] = frozenset()
    _conditions: dict[frozenset[str], Filter] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    def refused(self, why: str) -> Permit:
        """Return one that permits nothing."""
        return dataclasses.replace(self, refusal=why)

    def granted(self, allowed: Sequence[Permitted], denied: Sequence[Permitted]) -> Permit:
        """Return one that permits what the rules allow."""
        free = [item.fields for item in allowed if item.condition is None]
        kept = tuple(item for item in allowed if not _spare(item, free))
        every = frozenset[str]().union(*(item.fields for item in kept))
        conditions = [item.condition for item in kept if item.condition is not None]
        total = set() if self.collection is None else set(self.collection.fields)
        partial = any(not item.fields >= total for item in kept)
        return dataclasses.replace(
            self,
            allowed=kept,
            denied=tuple(denied),
            fields=every,
            whole=every >= total and not conditions and not denied,
            partial=partial,
            varied=len({item.fields for item in kept}) > 1 and bool(conditions),
            needed=frozenset[str]().union(*map(fields_of, conditions)),
        )

    def require(self) -> None:
        """Raise unless something is permitted.

        Raises:
            AccessDenied: Nothing is.
        """
        if self.refusal is None:
            return
        what = "have raw access" if self.collection is None else f"{self.action} {self.collection.name!r}"
        raise self.denial(f"The access policy does not let the user {what}.", self.refusal)

    def denial(self, message: str, reason: str) -> AccessDenied:
        """Return the error that says so; why is for those who write the policy, and is kept apart."""
        named = "" if self.collection is None else f', "{self.collection.name}"'
        fix = f'Why: {reason}. Give a role of the user a rule such as allow("{self.action}"{named}).'
        name = None if self.collection is None else self.collection.name
        shown = ", ".join(sorted(self.roles)) or "none"
        return AccessDenied(
            message,
            action=self.action,
            collection=name,
            roles=self.roles,
            fix=f"Roles of the user: {shown}. {fix}",
        )

    def check_fields(self, names: Iterable[str], where: str) -> None:
        """Refuse fields that are allowed in no row.

        Raises:
            FieldHidden: One is not; its path begins with ``where``.
        """
        for name in names:
            if name not in self.fields:
                assert self.collection is not None
                raise FieldHidden(
                    "the access policy keeps this field from the user.",
                    path=f"{where}.{name}",
                    action=self.action,
                    collection=self.collection.name,
                    roles=self.roles,
                    fix=f"Of {self.collection.name!r} they may {self.action}: {', '.join(self.listed())}.",
                )

    def listed(self) -> list[str]:
        """Return the fields that are allowed in some row, in their order."""
        return (
            []
            if self.collection is None
            else [name for name in self.collection.fields if name in self.fields]
        )

    def condition(self, through: Iterable[str] = ()) -> Filter:
        """Return the condition on the rows that are reached through these fields, each of them allowed in some row."""
        names = frozenset(through) - CARRIED
        known = self._conditions.get(names)
        if known is None:
            if len(self._conditions) >= _MAX_CONDITIONS:
                self._conditions.clear()
            known = self._conditions[names] = self._condition(names)
        return known

    def _condition(self, through: frozenset[str]) -> Filter:
        groups = dict.fromkeys(
            tuple(item for item in self.allowed if name in item.fields) for name in sorted(through)
        )
        parts = [_any(group) for group in groups or (self.allowed,)]
        wanted = [part for part in parts if part is not EVERYTHING]
        wanted += [Not(item.condition) for item in self.denied if item.condition is not None]
        if len(wanted) == 1:
            return wanted[0]
        return And(tuple(wanted)) if wanted else EVERYTHING

    def shown(self, row: Record) -> frozenset[str]:
        """Return the fields that are allowed in ``row``, which the permit reaches and which has :attr:`needed`."""
        if not self.varied:
            return self.fields
        return frozenset[str]().union(
            *(item.fields for item in self.allowed if item.condition is None or holds(item.condition, row))
        )

    def reaches(self, row: Record) -> bool:
        """Return whether the user reaches a whole row at all."""
        return self.refusal is None and holds(self.condition(), row)

    def masked(self, row: Record) -> Record:
        """Return what of a whole row the user may see: of one out of reach, what comes with every row."""
        if self.whole:
            return row
        return only(row, self.shown(row) if self.reaches(row) else CARRIED)


def only(row: Record, names: frozenset[str]) -> Record:
    """Return ``row`` with these fields alone."""
    return {name: value for name, value in row.items() if name in names}


def _spare(item: Permitted, free: Iterable[frozenset[str]]) -> bool:
    """Whether a rule without a condition allows all that this one does."""
    return item.condition is not None and any(item.fields <= fields for fields in free)


def _any(group: Iterable[Permitted]) -> Filter:
    conditions: list[Any] = [item.condition for item in group]
    if None in conditions:
        return EVERYTHING
    return conditions[0] if len(conditions) == 1 else Or(tuple(conditions))
