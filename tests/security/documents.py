"""Random policies, users and rows, and a model of what each user may do: loops over rules, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tenantry import Model, is_in, is_null, not_
from tenantry.schema import CARRIED
from tenantry.security.access import AccessPolicy, Role, allow, deny, hide
from tenantry.security.access.policy import Rule


class Document(Model):
    __collection__ = "documents"

    title: str = ""
    owner: str | None = None
    team: str | None = None
    level: int | None = None
    cost: int | None = None


OWN = ("title", "owner", "team", "level", "cost")
ACTIONS = ("read", "create", "update", "delete")
USERS = ("ann", "bob")
TEAMS = ("red", "blue")
VALUES: dict[str, tuple[Any, ...]] = {
    "title": ("a", "b"),
    "owner": (None, *USERS),
    "team": (None, *TEAMS),
    "level": (None, 1, 2, 3),
    "cost": (None, 10, 20),
}


class Missing(Exception):
    """The user has no such claim."""


@dataclass(frozen=True)
class Asker:
    """A user."""

    id: str
    claims: dict[str, Any]

    def claim(self, name: str) -> Any:
        if self.claims.get(name) is None:
            raise Missing
        return self.claims[name]


Truth = bool | None


def _compared(value: Any, test: Callable[[Any], bool]) -> Truth:
    return None if value is None else test(value)


# What a policy is written with, and what it means: true, false or unknown.
CONDITIONS: dict[str, tuple[Any, Callable[[dict[str, Any], Asker], Truth]]] = {
    "owner": (lambda d, u: d.owner == u.id, lambda r, a: _compared(r["owner"], lambda v: v == a.id)),
    "others": (lambda d, u: d.owner != u.id, lambda r, a: _compared(r["owner"], lambda v: v != a.id)),
    "team": (
        lambda d, u: is_in(d.team, u.claims["teams"]),
        lambda r, a: _within(r["team"], a.claim("teams")),
    ),
    "level": (
        lambda d, u: d.level <= u.claims["level"],
        lambda r, a: _at_most(r["level"], a.claim("level")),
    ),
    "cheap": (
        lambda d, u: (d.cost < 15) | is_null(d.cost),
        lambda r, a: r["cost"] is None or r["cost"] < 15,
    ),
    "not red": (lambda d, u: not_(d.team == "red"), lambda r, a: _compared(r["team"], lambda v: v != "red")),
}


def _within(value: Any, listed: list[Any]) -> Truth:
    if not listed:
        return False
    return _compared(value, lambda v: v in listed)


def _at_most(value: Any, most: Any) -> Truth:
    return _compared(value, lambda v: v <= most)


@dataclass(frozen=True)
class Line:
    """A rule, as data."""

    allows: bool
    actions: tuple[str, ...]
    where: str | None
    fields: frozenset[str] | None

    def written(self) -> Rule:
        where = None if self.where is None else CONDITIONS[self.where][0]
        actions: Any = list(self.actions)
        if not self.allows:
            return deny(
                actions, Document, where=where, fields=None if self.fields is None else sorted(self.fields)
            )
        if self.fields is not None and len(self.fields) > 2:
            return allow(actions, "documents", where=where, fields=hide(*sorted(set(OWN) - self.fields)))
        return allow(
            actions, Document, where=where, fields=None if self.fields is None else sorted(self.fields)
        )

    def truth(self, row: dict[str, Any], asker: Asker) -> Truth:
        """Whether it is about ``row``; raises where the user lacks a claim."""
        return True if self.where is None else CONDITIONS[self.where][1](row, asker)


@dataclass(frozen=True)
class World:
    """A policy: the lines of each role, and which roles each inherits."""

    roles: dict[str, tuple[tuple[Line, ...], tuple[str, ...]]]

    def policy(self) -> AccessPolicy:
        return AccessPolicy(
            *(
                Role(name, *(line.written() for line in lines), inherits=inherits)
                for name, (lines, inherits) in self.roles.items()
            )
        )

    def lines(self, roles: list[str], action: str) -> Iterator[Line]:
        """Yield the rules about an action that a user with these roles has."""
        todo, seen = [name for name in roles if name in self.roles], set[str]()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                lines, inherits = self.roles[name]
                todo += inherits
                yield from (line for line in lines if action in line.actions)

    def fields(self, asker: Asker, action: str, row: dict[str, Any] | None) -> frozenset[str] | None:
        """Return the fields that are allowed in ``row``, or without one in any row; ``None`` where it is denied."""
        lines = list(self.lines(asker.claims.get("roles", []), action))
        shown, hidden = set[str](), set[str]()
        reached = False
        for line in lines:
            if not line.allows and line.fields is not None:
                hidden |= line.fields
                continue
            try:
                truth = self._asked(line, row, asker)
            except Missing:
                if not line.allows:
                    return None
                continue
            if not line.allows and truth is not False:
                return None
            if line.allows and truth:
                reached = True
                shown |= set(OWN) if line.fields is None else line.fields
        return frozenset(shown - hidden | CARRIED) if reached else None

    @staticmethod
    def _asked(line: Line, row: dict[str, Any] | None, asker: Asker) -> Truth:
        if row is not None:
            return line.truth(row, asker)
        line.truth(dict.fromkeys(OWN), asker)  # only to see whether a claim is missing
        return line.allows or line.where is None


def world(dice: random.Random) -> World:
    """Return a random policy of three roles."""
    made: dict[str, tuple[tuple[Line, ...], tuple[str, ...]]] = {}
    for index, name in enumerate(("junior", "senior", "chief")):
        lines = tuple(_line(dice) for _ in range(dice.randint(1, 3)))
        made[name] = lines, tuple(role for role in list(made)[:index] if dice.random() < 0.4)
    return World(made)


def _line(dice: random.Random) -> Line:
    allows = dice.random() < 0.8
    actions = tuple(sorted(dice.sample(ACTIONS, dice.randint(1, 4)))) if dice.random() < 0.7 else ACTIONS
    where = dice.choice([None, None, *CONDITIONS])
    fields = None
    if dice.random() < 0.5 and (allows or where is None):
        fields = frozenset(dice.sample(OWN, dice.randint(1, 4 if allows else 2)))
    return Line(allows, actions, where, fields)


def asker(dice: random.Random) -> Asker:
    """Return a random user, who may lack claims."""
    roles = dice.sample(["junior", "senior", "chief", "unknown"], dice.randint(0, 2))
    claims: dict[str, Any] = {"roles": roles}
    if dice.random() < 0.8:
        claims["teams"] = dice.sample(TEAMS, dice.randint(0, 2))
    if dice.random() < 0.8:
        claims["level"] = dice.choice([1, 2, None])
    return Asker(dice.choice(USERS), claims)


def values(dice: random.Random) -> dict[str, Any]:
    """Return the values of a random row."""
    return {name: dice.choice(VALUES[name]) for name in OWN}
