"""What users write as ``where``, a dict or a ``lambda``, as a checked filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenantry.conditions import Attribute, Condition, Fields
from tenantry.errors import InvalidQuery
from tenantry.operators import compare
from tenantry.query import EVERYTHING, And, Filter, Not, Or, find_field, shorten
from tenantry.schema import Collection

MAX_DEPTH = 32
MAX_CONDITIONS = 500
MAX_NAME = 1_000

Where = Mapping[str, Any] | Callable[[Any], Any] | None


def parse_where(collection: Collection, where: Where) -> Filter:
    """Return ``where``, a dict or a ``lambda``, as a checked filter.

    Raises:
        InvalidQuery: With the path to the fault.
    """
    if where is None:
        return EVERYTHING
    if isinstance(where, Mapping):
        return parse_mapping(collection, where, "where")
    if callable(where):
        outcome = _outcome(where, collection)
        if isinstance(outcome, Attribute):
            outcome = outcome.is_true()
        if not isinstance(outcome, Condition):
            raise InvalidQuery(
                f"the lambda returned {type(outcome).__name__}, not a condition.",
                path="where",
                fix="Compare the fields of its argument: lambda p: (p.price < 10) & (p.name == 'x').",
            )
        _check_size(outcome.filter)
        return outcome.filter
    raise InvalidQuery(f"expected a dict or a lambda, got {type(where).__name__}.", path="where")


def parse_mapping(collection: Collection, given: Any, path: str) -> Filter:
    """Return a filter that can only be a dict, such as one over groups; ``path`` is where it stands."""
    return _parse_mapping(collection, _mapping(given, path), path, 0, _Counter())


def _outcome(where: Callable[[Any], Any], collection: Collection) -> object:
    try:
        return where(Fields(collection))
    except (TypeError, AttributeError) as error:
        raise InvalidQuery(
            f"the lambda failed: {error}.",
            path="where",
            fix="It gets fields, not values: compare them, or use startswith, endswith, contains(…), ilike(…).",
        ) from error


@dataclass(slots=True)
class _Counter:
    conditions: int = 0

    def add(self, number: int, path: str) -> None:
        self.conditions += number
        if self.conditions > MAX_CONDITIONS:
            raise InvalidQuery(f"more than {MAX_CONDITIONS} conditions.", path=shorten(path))


def _parse_mapping(
    collection: Collection, where: Mapping[str, Any], path: str, depth: int, counter: _Counter
) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidQuery(f"nested deeper than {MAX_DEPTH} levels.", path=shorten(path))
    items: list[Filter] = []
    for name, value in where.items():
        here = f"{path}.{name}" if len(str(name)) <= 80 else path
        if name in ("and", "or"):
            items.append(_parse_list(collection, name, value, here, depth, counter))
        elif name == "not":
            items.append(Not(_parse_mapping(collection, _mapping(value, here), here, depth + 1, counter)))
        else:
            items.append(_parse_field(collection, name, value, here, counter))
    return items[0] if len(items) == 1 else And(tuple(items))


def _parse_list(
    collection: Collection, name: str, value: Any, path: str, depth: int, counter: _Counter
) -> Filter:
    if not isinstance(value, list | tuple):
        raise InvalidQuery(f"expected a list of filters, got {type(value).__name__}.", path=path)
    counter.add(
        sum(not item for item in value), path
    )  # an empty filter has no condition that would be counted
    parts = tuple(
        _parse_mapping(collection, _mapping(item, f"{path}[{index}]"), f"{path}[{index}]", depth + 1, counter)
        for index, item in enumerate(value)
    )
    return And(parts) if name == "and" else Or(parts)


def _parse_field(collection: Collection, name: Any, value: Any, path: str, counter: _Counter) -> Filter:
    if not isinstance(name, str):
        raise InvalidQuery(f"expected a field name, got {type(name).__name__}.", path=path)
    if len(name) > MAX_NAME:
        raise InvalidQuery(f"a name is longer than {MAX_NAME:,} characters.", path=path)
    first, *rest = name.split(".") if name not in collection.fields else [name]
    target = find_field(collection, first, path)
    json_path = tuple(int(part) if part.isdecimal() and part.isascii() else part for part in rest)
    operators = value if isinstance(value, Mapping) else {"eq": value}
    if not operators:
        raise InvalidQuery("no operator is given.", path=path)
    items = []
    for operator, operand in operators.items():
        counter.add(1, path)
        here = path if operators is not value else f"{path}.{str(operator)[:80]}"
        items.append(compare(target, operator, operand, json_path, here))
        counter.add(_extra(items[-1]), here)
    return items[0] if len(items) == 1 else And(tuple(items))


def _extra(built: Filter) -> int:
    """Return how many conditions more than one a list of JSON values has become."""
    inner = built.item if isinstance(built, Not) else built
    return max(0, len(inner.items) - 1) if isinstance(inner, Or) else 0


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidQuery(f"expected a filter, got {type(value).__name__}.", path=shorten(path))
    return value


def _check_size(root: Filter) -> None:
    """Refuse a filter that is too deep or too large; without recursion, since it may be very deep."""
    level: list[Filter] = [root]
    conditions = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Filter] = []
        for node in level:
            if isinstance(node, And | Or):
                below.extend(node.items)
            elif isinstance(node, Not):
                below.append(node.item)
            else:
                conditions += 1
        if conditions > MAX_CONDITIONS:
            raise InvalidQuery(f"more than {MAX_CONDITIONS} conditions.", path="where")
        if not below:
            return
        level = below
    raise InvalidQuery(f"nested deeper than {MAX_DEPTH} levels.", path="where")
