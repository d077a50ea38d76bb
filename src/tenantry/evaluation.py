"""Whether a row meets a filter, decided here and not in a database: the model that every database is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tenantry import _values
from tenantry.query import And, Comparison, Filter, Not, Or
from tenantry.schema import Kind
from tenantry.types import Record


def holds(root: Filter, row: Record) -> bool:
    """Return whether ``root`` is true of ``row``, which has every field that it names."""
    return _truth(root, row) is True


def _truth(node: Filter, row: Record) -> bool | None:
    """Return whether ``row`` meets ``node``, in the three values of SQL's logic."""
    if isinstance(node, Not):
        inner = _truth(node.item, row)
        return None if inner is None else not inner
    if isinstance(node, And | Or):
        decisive = isinstance(node, Or)
        outcomes = [_truth(item, row) for item in node.items]
        if decisive in outcomes:
            return decisive
        return None if None in outcomes else not decisive
    value = row[node.field.name]
    if node.field.kind is Kind.JSON:
        value = _at(value, node.path)
        if node.operator != "is_null" and value is not None and not _same_type(value, node.value):
            return False
    if node.operator == "is_null":
        return value is None
    return None if value is None else _compare(node, value)


def _compare(node: Comparison, value: Any) -> bool:
    operand = node.value
    if node.field.kind is Kind.ENUM and node.operator != "in":
        value, operand = value.value, operand.value
    return bool(_TESTS[node.operator](value, operand))


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        if isinstance(part, str) and isinstance(value, dict):
            value = value.get(part)
        elif isinstance(part, int) and isinstance(value, list) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _same_type(left: Any, right: Any) -> bool:
    def kind(value: Any) -> type:
        if isinstance(value, bool):
            return bool
        return float if isinstance(value, int | float) else type(value)

    return kind(left) is kind(right)


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, operand: value == operand,
    "lt": lambda value, operand: value < operand,
    "lte": lambda value, operand: value <= operand,
    "gt": lambda value, operand: value > operand,
    "gte": lambda value, operand: value >= operand,
    "in": lambda value, operand: value in operand,
    "contains": lambda value, operand: operand in value,
    "ends_with": lambda value, operand: value.endswith(operand),
    "ilike": lambda value, operand: _values.like(operand)(value),
    "has": lambda value, operand: operand in value,
}
