"""The operators that users write, each checked against its field and reduced to those that adapters know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenantry import _values
from tenantry.errors import InvalidQuery
from tenantry.query import And, Comparison, Filter, Not, Operator, Or, shorten
from tenantry.schema import UNORDERED, Field, Kind

MAX_ITEMS = 10_000
MAX_VALUE_SIZE = 1_000_000
MAX_PATTERN = 10_000
MAX_PATH = 32
MAX_JSON_ITEMS = 500


def compare(target: Field, operator: Any, value: Any, path: tuple[str | int, ...], where: str) -> Filter:
    """Return one comparison, checked and reduced to the operators that adapters know.

    Args:
        target: The field.
        operator: One of the operators that users write, such as ``ne`` or ``between``.
        value: What to compare with.
        path: For JSON fields, the path inside the value; empty otherwise.
        where: Where the comparison stands, for errors.

    Raises:
        InvalidQuery: The operator is unknown or does not fit the field, or the value does not.
    """
    if path and target.kind is not Kind.JSON:
        raise InvalidQuery(f"{target.name!r} is {target.kind.value}, not JSON; it has no path.", path=where)
    build = _OPERATORS.get(operator) if isinstance(operator, str) else None
    if build is None:
        shown = ", ".join(_OPERATORS)
        raise InvalidQuery(f"unknown operator {str(operator)[:80]!r}.", path=where, fix=f"Known: {shown}.")
    return build(_Operand(target, path, where), value)


@dataclass(frozen=True, slots=True)
class _Operand:
    field: Field
    path: tuple[str | int, ...]
    where: str

    def fault(self, message: str) -> InvalidQuery:
        return InvalidQuery(message, path=shorten(self.where))

    def node(self, operator: Operator, value: Any) -> Comparison:
        return Comparison(self.field, operator, value, self.path)

    def value(self, raw: Any) -> Any:
        """Return ``raw`` as a value of the field, or as a JSON scalar where a path leads into one."""
        return self.canonical(raw, self._json if self.field.kind is Kind.JSON else self.field.normalise)

    def canonical(self, raw: Any, normalise: Callable[[Any], Any]) -> Any:
        """Return what ``normalise`` makes of ``raw``; its refusal becomes ours."""
        if isinstance(raw, str | bytes) and len(raw) > MAX_VALUE_SIZE:
            raise self.fault(f"the value is larger than {MAX_VALUE_SIZE:,} characters.")
        try:
            return normalise(raw)
        except (ValueError, TypeError) as error:
            raise self.fault(str(error)) from None

    def _json(self, raw: Any) -> Any:
        if not isinstance(raw, str | int | float | bool):
            raise TypeError(f"expected text, a number or a boolean, got {type(raw).__name__}.")
        if len(self.path) > MAX_PATH:
            raise ValueError(f"the path has more than {MAX_PATH} parts.")
        for part in self.path:
            _check_part(part)
        return _values.json(raw)

    def text(self, raw: Any) -> str:
        if self.field.kind is not Kind.TEXT and not self.path:
            raise self.fault(f"needs a text field; {self.field.name!r} is {self.field.kind.value}.")
        value = self.value(raw)
        if not isinstance(value, str):
            raise self.fault(f"expected text, got {type(value).__name__}.")
        return value


def _check_part(part: object) -> None:
    if isinstance(part, bool) or not isinstance(part, str | int):
        raise TypeError(f"a path consists of names and indexes, not {type(part).__name__}.")
    if isinstance(part, int):
        if not 0 <= part < 2**31:
            raise ValueError("an index in the path must be 0 or more, and below two billions.")
    elif '"' in part or "\\" in part or not part:
        raise ValueError("a path cannot hold empty parts, quotes or backslashes.")
    else:
        _values.text(part)


def _equal(operand: _Operand, raw: Any) -> Filter:
    if raw is None:
        if operand.path:
            operand.value("")
        return operand.node("is_null", True)
    if operand.field.kind is Kind.LIST:
        raise operand.fault("a list is searched with 'contains'.")
    return operand.node("eq", operand.value(raw))


def _not_equal(operand: _Operand, raw: Any) -> Filter:
    return Not(_equal(operand, raw))


def _ordered(operator: Operator) -> Callable[[_Operand, Any], Filter]:
    def build(operand: _Operand, raw: Any) -> Filter:
        if operand.field.kind in UNORDERED and not operand.path:
            raise operand.fault(f"{operand.field.name!r} is {operand.field.kind.value}, which has no order.")
        value = operand.value(raw)
        if isinstance(value, bool):
            raise operand.fault("a boolean has no order.")
        return operand.node(operator, value)

    return build


def _in(operand: _Operand, raw: Any) -> Filter:
    if not isinstance(raw, list | tuple | set | frozenset):
        raise operand.fault(f"expected a list, got {type(raw).__name__}.")
    if len(raw) > MAX_ITEMS:
        raise operand.fault(f"more than {MAX_ITEMS:,} items.")
    if operand.field.kind is Kind.LIST:
        raise operand.fault("a list is searched with 'contains'.")
    if any(item is None for item in raw):
        raise operand.fault("a null is found with is_null, not in a list.")
    if not raw:
        return Or(())  # also of a null it is certain that it is in no empty list
    if operand.field.kind is Kind.JSON:
        if len(raw) > MAX_JSON_ITEMS:
            raise operand.fault(f"more than {MAX_JSON_ITEMS} items, for values inside JSON.")
        return Or(tuple(_equal(operand, item) for item in raw))
    return operand.node("in", tuple(dict.fromkeys(operand.value(item) for item in raw)))


def _not_in(operand: _Operand, raw: Any) -> Filter:
    return Not(_in(operand, raw))


def _contains(operand: _Operand, raw: Any) -> Filter:
    if operand.field.kind is Kind.LIST and operand.field.item is not None:
        return operand.node("has", operand.canonical(raw, operand.field.item.normalise))
    return _substring(operand, raw, "contains")


def _ends_with(operand: _Operand, raw: Any) -> Filter:
    return _substring(operand, raw, "ends_with")


def _substring(operand: _Operand, raw: Any, operator: Operator) -> Filter:
    value = operand.text(raw)
    if operand.path:
        raise operand.fault("works on text fields, not inside JSON.")
    return operand.node(operator, value) if value else Not(operand.node("is_null", True))


def _starts_with(operand: _Operand, raw: Any) -> Filter:
    """A range of the code point order, which every database finds in its index."""
    value = operand.text(raw)
    if operand.path:
        raise operand.fault("works on text fields, not inside JSON.")
    if not value:
        return Not(operand.node("is_null", True))
    low = operand.node("gte", value)
    high = _successor(value)
    return low if high is None else And((low, operand.node("lt", high)))


def _successor(text: str) -> str | None:
    """Return the least text that is greater than every text beginning with ``text``, if there is one."""
    for index in range(len(text) - 1, -1, -1):
        code = ord(text[index])
        if code < 0x10FFFF:
            return text[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def _ilike(operand: _Operand, raw: Any) -> Filter:
    value = operand.text(raw)
    if operand.path:
        raise operand.fault("works on text fields, not inside JSON.")
    if len(value) > MAX_PATTERN:
        raise operand.fault(f"the pattern is longer than {MAX_PATTERN:,} characters.")
    if _ends_in_escape(value):
        raise operand.fault("the pattern ends in a lone backslash.")
    return operand.node("ilike", value)


def _ends_in_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def _is_null(operand: _Operand, raw: Any) -> Filter:
    if not isinstance(raw, bool):
        raise operand.fault(f"expected true or false, got {type(raw).__name__}.")
    if operand.path:
        operand.value("")
    node = operand.node("is_null", True)
    return node if raw else Not(node)


def _between(operand: _Operand, raw: Any) -> Filter:
    if not isinstance(raw, list | tuple) or len(raw) != 2:
        raise operand.fault("expected two values, the lowest and the highest.")
    return And((_ordered("gte")(operand, raw[0]), _ordered("lte")(operand, raw[1])))


_OPERATORS: dict[str, Callable[[_Operand, Any], Filter]] = {
    "eq": _equal,
    "ne": _not_equal,
    "lt": _ordered("lt"),
    "lte": _ordered("lte"),
    "gt": _ordered("gt"),
    "gte": _ordered("gte"),
    "in": _in,
    "nin": _not_in,
    "contains": _contains,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "ilike": _ilike,
    "is_null": _is_null,
    "between": _between,
}
