"""The shape of a query: what stays when every value is taken out of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import msgspec

from tenantry.hooks import Operation
from tenantry.query import And, Comparison, Filter, Not, Or, Query
from tenantry.schema import Kind

_EQUAL = frozenset({"eq", "in", "is_null"})
_RANGE = frozenset({"lt", "lte", "gt", "gte"})
_FEW = 3
PATTERNS = frozenset({"contains", "ends_with", "ilike"})


class Shape(msgspec.Struct, frozen=True):
    """What queries have in common that differ in values alone.

    It holds names that the application's own code gives: of collections, fields and operators. A path inside a JSON
    field may come from a tenant, so that of a path only its field is kept.

    Attributes:
        verb: What was asked.
        collection: Of which collection; empty for raw SQL.
        text: The whole shape, for people.
        equal: Fields that must have one of some values, for every row that is found.
        ranges: Fields that are compared with a bound, for every row that is found.
        order: The sort keys, ``-`` in front for descending.
        patterns: Fields that are searched for a part of their text.
        others: Conditions that no index on a field answers: alternatives, negations, paths, elements of a list.
        limited: Whether the number of rows is limited.
        paged: Whether it continues an earlier page.
    """

    verb: str
    collection: str
    text: str
    equal: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    limited: bool = False
    paged: bool = False


def key_of(operation: Operation) -> Hashable:
    """Return what is equal for operations of one shape only; a shape may have several.

    It is made on every operation, so it does no more than that.
    """
    query = operation.query
    if query is None:
        return (operation.verb, operation.collection)
    order = tuple([(sort.field.name, sort.descending) for sort in query.order])
    columns = (len(query.fields), query.limit is None, query.distinct)
    return (operation.verb, operation.collection, _form(query.filter), order, columns)


def _form(node: Filter) -> Any:
    """Return a filter without its values."""
    if isinstance(node, Comparison):
        return (node.field.name, node.operator, len(node.path))
    if isinstance(node, Not):
        return (Not, _form(node.item))
    forms = [_form(item) for item in node.items]
    if len(forms) > _FEW:
        forms = list(dict.fromkeys(forms))  # as many alternatives as there are values
    return (type(node), *forms)


def shape_of(operation: Operation) -> Shape:
    """Return the shape of an operation."""
    verb = str(operation.verb)
    name = "" if operation.collection is None else operation.collection.name
    query = operation.query
    if query is None:
        return Shape(verb, name, f"{verb} {name}".strip())
    own, paged = _without_position(query)
    order = tuple(f"{'-' if sort.descending else ''}{sort.field.name}" for sort in query.order)
    limited = query.limit is not None
    return Shape(
        verb,
        name,
        _whole_text(operation, query, _text(own), order, paged),
        **_conditions(own),
        order=order,
        limited=limited,
        paged=paged,
    )


def _whole_text(operation: Operation, query: Query, where: str, order: tuple[str, ...], paged: bool) -> str:
    parts = [str(operation.verb), query.collection.name]
    if query.fields and len(query.fields) < len(query.collection.fields):
        parts.append(f"({len(query.fields)} fields)")
    parts += ["distinct"] if query.distinct else []
    parts += [f"where {where}"] if where else []
    parts += [f"by {', '.join(order)}"] if order else []
    parts += ["limit ?"] if query.limit is not None else []
    parts += ["after a cursor"] if paged else []
    return " ".join(parts)


def _text(node: Filter) -> str:
    """Return a filter without its values. Alternatives that differ in values alone become one."""
    if isinstance(node, Comparison):
        if node.path:
            return f"{node.field.name}[…] {node.operator}"
        return f"{node.field.name} {node.operator}"
    if isinstance(node, Not):
        return f"not ({_text(node.item)})"
    parts = [_text(item) for item in node.items]
    if len(parts) > 1:
        parts = sorted({part for part in parts if part})
    if isinstance(node, And):
        return " and ".join(parts)
    return f"({' or '.join(parts)})"


def _conditions(root: Filter) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {"equal": [], "ranges": [], "patterns": [], "others": []}
    for node in _conjuncts(root):
        if not isinstance(node, Comparison):
            found["others"].append(_text(node))
        elif node.operator in PATTERNS:
            found["patterns"].append(node.field.name)
        elif node.field.kind in (Kind.JSON, Kind.LIST):
            found["others"].append(_text(node))
        elif node.operator in _EQUAL:
            found["equal"].append(node.field.name)
        elif node.operator in _RANGE:
            found["ranges"].append(node.field.name)
        else:
            found["others"].append(_text(node))
    return {name: tuple(sorted(set(listed))) for name, listed in found.items()}


def _conjuncts(node: Filter) -> Iterator[Filter]:
    if isinstance(node, And):
        for item in node.items:
            yield from _conjuncts(item)
    else:
        yield node


def _without_position(query: Query) -> tuple[Filter, bool]:
    """Return the filter without the condition that a cursor added, and whether there was one."""
    root = query.filter
    if not isinstance(root, And) or len(root.items) != 2 or not query.order:
        return root, False
    own, position = root.items
    first = query.order[0]
    if isinstance(position, And) and len(position.items) == 2:
        bound, position = position.items
        if not isinstance(bound, Comparison) or bound.field is not first.field:
            return root, False
    if not isinstance(position, Or):
        return root, False
    sorted_by = {sort.field.name for sort in query.order}
    return (own, True) if _fields(position) <= sorted_by else (root, False)


def _fields(node: Filter) -> set[str]:
    if isinstance(node, Comparison):
        return {node.field.name}
    items = (node.item,) if isinstance(node, Not) else node.items
    return set().union(*map(_fields, items))
