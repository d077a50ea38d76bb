"""Conditions on rows that name the user: written once, checked when the SDK opens, filled in for each user.

A rule's ``lambda`` is called once, with a stand-in for the row and one for the user. What it returns is a filter in
which some values are still to come: the user's id and claims. They are filled in as values, never as text of a query.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from tenantry.conditions import Attribute, Condition
from tenantry.context import TenantContext
from tenantry.errors import ConfigurationError, InvalidQuery
from tenantry.filters import parse_where
from tenantry.operators import compare
from tenantry.query import EVERYTHING, And, Comparison, Filter, Not, Or, find_field
from tenantry.schema import Collection, Field, Kind

RowCondition = Callable[[Any, Any], Any] | Mapping[str, Any]


class MissingClaim(Exception):
    """The user has no such claim, or one that the condition cannot use."""


class Claim:
    """Something of the user that is not known yet: its id, a claim, or a place inside of one."""

    __slots__ = ("path",)

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path

    def __getitem__(self, part: str) -> Claim:
        if not isinstance(part, str):
            raise InvalidQuery("a claim is named by text.", path=str(self))
        return Claim((*self.path, part))

    def __iter__(self) -> Iterator[Each]:
        # What `is_in(field, user.claims["teams"])` sees of a list that is not there yet.
        yield Each(self)

    def __contains__(self, value: object) -> bool:
        raise self._refusal()

    def __eq__(self, other: object) -> bool:
        return self._reflected(other)  # type: ignore[no-any-return]

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__
    __hash__ = object.__hash__

    def _reflected(self, other: object) -> Any:
        """Leave the comparison to the field on the other side; there must be one."""
        if isinstance(other, Attribute):
            return NotImplemented
        raise self._refusal()

    def __bool__(self) -> bool:
        raise self._refusal()

    def _refusal(self) -> InvalidQuery:
        return InvalidQuery(
            "has no value before a user asks.",
            path=str(self),
            fix="Compare a field with it: lambda order, user: order.owner == user.id.",
        )

    def __str__(self) -> str:
        if self.path == ("id",):
            return "user.id"
        return "user.claims" + "".join(f"[{part!r}]" for part in self.path[1:])

    __repr__ = __str__

    def of(self, context: TenantContext) -> Any:
        """Return its value for the user of ``context``, which is never ``None``.

        Raises:
            MissingClaim: There is none.
        """
        value: Any = {"id": context.user_id, "claims": context.claims}
        for part in self.path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            raise MissingClaim(f"{self} is missing")
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Each:
    """The items of a claim that is a list."""

    claim: Claim


class User:
    """The second argument of a condition: ``user.id`` and ``user.claims["team"]``."""

    id: Final = Claim(("id",))
    claims: Final = Claim(("claims",))


class Awaiting(msgspec.Struct, frozen=True):
    """A comparison whose value, or a part of it, is still to come."""

    field: Field
    operator: str
    value: Any
    path: tuple[str | int, ...]
    where: str

    def filled(self, fill: Callable[[Any], Any]) -> Filter:
        """Return the comparison, checked as any other is."""
        return compare(self.field, self.operator, _filled(self.value, fill), self.path, self.where)


class RowAttribute(Attribute):
    """A field of a condition's first argument; what it is compared with may be still to come."""

    __slots__ = ()

    def _compare(self, operator: str, value: object) -> Condition:
        if not _awaits(value):
            return super()._compare(operator, value)
        made = Awaiting(self._field, operator, value, self._path, f"{self._where}.{operator}")
        return Condition(cast("Filter", made))

    def __getitem__(self, part: str | int) -> RowAttribute:
        return RowAttribute(self._field, (*self._path, part), f"{self._where}.{part}")

    __hash__ = Attribute.__hash__


@dataclass(frozen=True, slots=True)
class _Row:
    _collection: Collection

    def __getattr__(self, name: str) -> RowAttribute:
        return RowAttribute(find_field(self._collection, name, f"where.{name}"), (), f"where.{name}")


class Template:
    """The condition of a rule on one collection.

    Attributes:
        text: What it says, for people.
        names: The fields that it looks at.
    """

    def __init__(self, collection: Collection, root: Filter) -> None:
        self._root = root
        self.text = _text(root)
        self.names = frozenset(node.field.name for node in _leaves(root))

    @classmethod
    def written(cls, collection: Collection, where: RowCondition) -> Template:
        """Return a rule's condition, checked with a value of the right type in the place of each claim.

        Raises:
            ConfigurationError: It cannot be asked of this collection.
        """
        try:
            made = cls(collection, _parsed(collection, where))
            _walk(made._root, lambda node: node.filled(lambda item: _sample(node.field, item)))
        except InvalidQuery as error:
            raise ConfigurationError(f"{error.message}", field=error.path, fix=error.fix) from error
        return made

    def bound(self, context: TenantContext) -> Filter:
        """Return the condition for one user.

        Raises:
            MissingClaim: The user lacks what it names, or it is of another type.
        """
        try:
            return _walk(self._root, lambda node: node.filled(lambda item: _value(item, context)))
        except InvalidQuery as error:
            raise MissingClaim(str(error)) from None


def _parsed(collection: Collection, where: RowCondition) -> Filter:
    if isinstance(where, Mapping):
        return parse_where(collection, where)
    if not callable(where):
        raise InvalidQuery(f"expected a lambda or a dict, got {type(where).__name__}.", path="where")
    try:
        outcome = where(_Row(collection), User())
    except (TypeError, AttributeError) as error:
        raise InvalidQuery(
            f"the condition failed: {error}.",
            path="where",
            fix="Write: where=lambda order, user: (order.owner == user.id) & (order.status == 'open').",
        ) from error
    if isinstance(outcome, Attribute):
        outcome = outcome.is_true()
    if not isinstance(outcome, Condition):
        raise InvalidQuery(f"the condition is {type(outcome).__name__}, not one of a field.", path="where")
    return outcome.filter


def _walk(node: Any, fill: Callable[[Awaiting], Filter]) -> Filter:
    if isinstance(node, Awaiting):
        return fill(node)
    if isinstance(node, And | Or):
        return type(node)(tuple(_walk(item, fill) for item in node.items))
    return Not(_walk(node.item, fill)) if isinstance(node, Not) else cast("Filter", node)


def _leaves(node: Any) -> Iterator[Comparison | Awaiting]:
    if isinstance(node, And | Or):
        for item in node.items:
            yield from _leaves(item)
    elif isinstance(node, Not):
        yield from _leaves(node.item)
    else:
        yield node


def fields_of(root: Filter) -> frozenset[str]:
    """Return the names of the fields that a filter looks at."""
    return frozenset(leaf.field.name for leaf in _leaves(root))


def both(left: Filter, right: Filter) -> Filter:
    """Return the condition that both hold."""
    if right is EVERYTHING:
        return left
    return right if left is EVERYTHING else And((left, right))


def _awaits(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_awaits, value))
    return isinstance(value, Claim | Each)


def _filled(value: Any, fill: Callable[[Claim | Each], Any]) -> Any:
    if not isinstance(value, list | tuple):
        return fill(value) if isinstance(value, Claim) else value
    items: list[Any] = []
    for item in value:
        items += fill(item) if isinstance(item, Each) else [_filled(item, fill)]
    return items


def _value(item: Claim | Each, context: TenantContext) -> Any:
    if isinstance(item, Claim):
        return item.of(context)
    listed = item.claim.of(context)
    if not isinstance(listed, list) or None in listed:
        raise MissingClaim(f"{item.claim} is not a list of values")
    return listed


_SAMPLES: dict[Kind, Any] = {
    Kind.TEXT: "x",
    Kind.INT: 1,
    Kind.DECIMAL: 1,
    Kind.FLOAT: 1.0,
    Kind.BOOL: True,
    Kind.DATE: dt.date(2026, 1, 1),
    Kind.DATETIME: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    Kind.UUID: uuid.UUID(int=1),
    Kind.JSON: "x",
    Kind.BYTES: b"x",
}


def _sample(field: Field, item: Claim | Each) -> Any:
    """Return a value that a claim of the right type may have, to see whether the comparison can be made at all."""
    if field.kind is Kind.LIST and field.item is not None:
        field = field.item
    sample = next(iter(field.enum)).value if field.enum is not None else _SAMPLES[field.kind]
    return [sample] if isinstance(item, Each) else sample


_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def _text(node: Any) -> str:
    if isinstance(node, And | Or):
        word = " and " if isinstance(node, And) else " or "
        empty = "always" if isinstance(node, And) else "never"
        parts = [_text(item) for item in node.items]
        return word.join(part if len(parts) == 1 else f"({part})" for part in parts) or empty
    if isinstance(node, Not):
        return f"not ({_text(node.item)})"
    where = ".".join(map(str, (node.field.name, *node.path)))
    if node.operator == "is_null":
        return f"{where} is null"
    value = node.value
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], Each):
        value = value[0].claim
    shown = value.value if node.field.enum is not None and hasattr(value, "value") else value
    return f"{where} {_SIGNS.get(node.operator, node.operator)} {shown!r}"
