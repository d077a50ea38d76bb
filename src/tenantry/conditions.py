"""Conditions written in Python: what the argument of a filter's ``lambda`` is, and the words that Python lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from tenantry.errors import InvalidQuery
from tenantry.operators import compare
from tenantry.query import And, Filter, Not, Or, find_field
from tenantry.schema import Collection, Field

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What comparing a field gives. Combine conditions with ``&``, ``|`` and :func:`not_`."""

    filter: Filter

    def __and__(self, other: object) -> Condition:
        return self._join(other, And)

    def __or__(self, other: object) -> Condition:
        return self._join(other, Or)

    def __invert__(self) -> Condition:
        return Condition(Not(self.filter))

    def __bool__(self) -> bool:
        raise InvalidQuery(
            "a condition has no truth value before the database has seen it.",
            path="where",
            fix="Write & for and, | for or, not_(…) for not, is_in(field, …) for in, between(…) for a < x < b.",
        )

    def _join(self, other: object, node: type[And] | type[Or]) -> Condition:
        if isinstance(other, Attribute):
            other = other.is_true()
        if not isinstance(other, Condition):
            raise InvalidQuery(
                f"cannot combine a condition with {type(other).__name__}.",
                path="where",
                fix="Put each comparison into parentheses: (p.a == 1) & (p.b == 2).",
            )
        left = self.filter.items if isinstance(self.filter, node) else (self.filter,)
        return Condition(node((*left, other.filter)))


@dataclass(frozen=True, slots=True)
class Fields:
    """The argument of a filter's lambda. The type checker sees the model in its place."""

    _collection: Collection

    def __getattr__(self, name: str) -> Attribute:
        return Attribute(find_field(self._collection, name, f"where.{name}"), (), f"where.{name}")


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """A field of the lambda's argument, or a place inside a JSON field. Comparing it gives a condition."""

    _field: Field
    _path: tuple[str | int, ...]
    _where: str

    def _compare(self, operator: str, value: object) -> Condition:
        where = f"{self._where}.{operator}"
        if isinstance(value, Attribute | Condition):
            raise InvalidQuery("compare a field with a value, not with another field.", path=where)
        return Condition(compare(self._field, operator, value, self._path, where))

    def is_true(self) -> Condition:
        """Return the condition that a boolean field alone stands for."""
        return self._compare("eq", True)

    def __getitem__(self, part: str | int) -> Attribute:
        return Attribute(self._field, (*self._path, part), f"{self._where}.{part}")

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("eq", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("ne", value)

    def __lt__(self, value: object) -> Condition:
        return self._compare("lt", value)

    def __le__(self, value: object) -> Condition:
        return self._compare("lte", value)

    def __gt__(self, value: object) -> Condition:
        return self._compare("gt", value)

    def __ge__(self, value: object) -> Condition:
        return self._compare("gte", value)

    def startswith(self, prefix: str) -> Condition:
        """Return the condition that the text begins with ``prefix``."""
        return self._compare("starts_with", prefix)

    def endswith(self, suffix: str) -> Condition:
        """Return the condition that the text ends with ``suffix``."""
        return self._compare("ends_with", suffix)

    def __and__(self, other: object) -> Condition:
        return self.is_true() & other

    def __or__(self, other: object) -> Condition:
        return self.is_true() | other

    def __invert__(self) -> Condition:
        return self._compare("eq", False)

    def __contains__(self, value: object) -> bool:
        raise InvalidQuery(
            "'in' cannot be seen from outside.", path=self._where, fix="Use contains(field, x)."
        )

    def __bool__(self) -> bool:
        raise InvalidQuery(
            "a field has no truth value here.", path=self._where, fix="Compare it: p.active == True."
        )

    def __hash__(self) -> int:
        return id(self)


def _apply(subject: object, operator: str, value: object) -> bool:
    if not isinstance(subject, Attribute):
        raise InvalidQuery(
            f"{operator} needs a field, got {type(subject).__name__}.",
            path="where",
            fix="Use it inside a filter: lambda p: is_in(p.sku, [...]).",
        )
    return cast(bool, subject._compare(operator, value))


def is_in(subject: T, values: Iterable[T]) -> bool:
    """In a filter: the field has one of ``values``."""
    return _apply(subject, "in", list(values))


def contains(subject: str | Sequence[T] | None, value: str | T) -> bool:
    """In a filter: the text holds ``value``, or the list has it as an element."""
    return _apply(subject, "contains", value)


def ilike(subject: str | None, pattern: str) -> bool:
    """In a filter: the text matches ``pattern`` (``%`` any text, ``_`` one character), whatever the case."""
    return _apply(subject, "ilike", pattern)


def is_null(subject: object) -> bool:
    """In a filter: the field is null."""
    return _apply(subject, "is_null", True)


def between(subject: T | None, low: T, high: T) -> bool:
    """In a filter: the field is at least ``low`` and at most ``high``."""
    return _apply(subject, "between", [low, high])


def not_(condition: bool) -> bool:
    """In a filter: the opposite of ``condition``."""
    opposite = cast(object, condition)
    if not isinstance(opposite, Condition | Attribute):
        raise InvalidQuery(f"not_ needs a condition, got {type(condition).__name__}.", path="where")
    return cast(bool, ~opposite)
