"""What can be asked: a frozen :class:`Query`, checked before any adapter sees it.

A filter is a small tree. Its logic is SQL's: a comparison with a null is neither true nor false, and a row is found
only where the whole filter is true. Nulls sort as the greatest value. Dicts and lambdas become such trees in
:mod:`tenantry.filters`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from tenantry.errors import InvalidQuery
from tenantry.schema import TENANT, Collection, Field, Kind

MAX_LIMIT = 10_000

Operator = Literal["eq", "lt", "lte", "gt", "gte", "in", "contains", "ends_with", "ilike", "is_null", "has"]


Deleted = Literal["without", "with", "only"]
"""Which rows of a collection with soft deletion: those that live, all, or those that are marked as deleted."""


class Comparison(msgspec.Struct, frozen=True):
    """``field operator value``; with ``path``, of the value at that path inside a JSON field."""

    field: Field
    operator: Operator
    value: Any
    path: tuple[str | int, ...] = ()


class And(msgspec.Struct, frozen=True):
    """All of them; true when empty."""

    items: tuple[Filter, ...]


class Or(msgspec.Struct, frozen=True):
    """Any of them; false when empty."""

    items: tuple[Filter, ...]


class Not(msgspec.Struct, frozen=True):
    """The opposite; of neither true nor false it is the same again."""

    item: Filter


Filter = Comparison | And | Or | Not
EVERYTHING = And(())


class Sort(msgspec.Struct, frozen=True):
    """One sort key."""

    field: Field
    descending: bool = False


class Query(msgspec.Struct, frozen=True):
    """A checked query over one collection.

    Attributes:
        fields: The columns to return, in this order.
        filter: What rows must meet, the cursor's position included.
        order: The sort keys; together they are unique, so that pages never overlap.
        limit: The most rows to return; ``None`` for all.
        distinct: Whether equal rows are returned once.
        deleted: Whether rows are found that are marked as deleted.
    """

    collection: Collection
    fields: tuple[Field, ...]
    filter: Filter = EVERYTHING
    order: tuple[Sort, ...] = ()
    limit: int | None = None
    distinct: bool = False
    deleted: Deleted = "without"


def parse_order(collection: Collection, order_by: Sequence[str] | str | None) -> tuple[Sort, ...]:
    """Return ``order_by``, names with ``-`` in front for descending, as sort keys."""
    names: object = [order_by] if isinstance(order_by, str) else order_by or ()
    if not isinstance(names, list | tuple):
        raise InvalidQuery(f"expected a list of names, got {type(names).__name__}.", path="order_by")
    sorts: list[Sort] = []
    for index, name in enumerate(names):
        path = f"order_by[{index}]"
        target = find_field(collection, name.removeprefix("-") if isinstance(name, str) else name, path)
        if target.kind in (Kind.JSON, Kind.LIST):
            raise InvalidQuery(f"a {target.kind.value} field has no order.", path=path)
        if any(sort.field is target for sort in sorts):
            raise InvalidQuery(f"{target.name!r} is named twice.", path=path)
        sorts.append(Sort(target, str(name).startswith("-")))
    return tuple(sorts)


def parse_fields(collection: Collection, fields: Iterable[str] | None) -> tuple[Field, ...]:
    """Return the named fields, or all of them."""
    if fields is None:
        return tuple(collection.fields.values())
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        raise InvalidQuery(f"expected a list of names, got {type(fields).__name__}.", path="fields")
    found = tuple(find_field(collection, name, f"fields[{index}]") for index, name in enumerate(fields))
    if not found or len(set(found)) != len(found):
        raise InvalidQuery("name at least one field, and none twice.", path="fields")
    return found


def parse_limit(limit: Any, path: str = "limit") -> int:
    """Return ``limit`` if it is a whole number of 1 to 10,000."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(f"expected a whole number of 1 to {MAX_LIMIT:,}.", path=path)
    return limit


def parse_deleted(collection: Collection, deleted: Any) -> Deleted:
    """Return which rows are meant, if the collection has any that are marked as deleted."""
    if deleted != "without" and not collection.soft:
        raise InvalidQuery(
            f"{collection.name!r} keeps no deleted rows.",
            path="deleted",
            fix="Derive its model from SoftDelete.",
        )
    if deleted not in ("without", "with", "only"):
        raise InvalidQuery("expected 'without', 'with' or 'only'.", path="deleted")
    found: Deleted = deleted
    return found


def total_order(query: Query, *, across_tenants: bool = False) -> tuple[Sort, ...]:
    """Return sort keys that leave no two rows of ``query`` equal: the given ones, then what completes them.

    Args:
        query: The query, with the order that was asked for.
        across_tenants: Whether it reaches rows of several tenants, of which two may have the same id.
    """
    if across_tenants:
        return (*_within_tenant(query), Sort(TENANT))
    return _within_tenant(query)


def _within_tenant(query: Query) -> tuple[Sort, ...]:
    order = query.order
    last = order[-1].descending if order else False
    if query.distinct:
        for index, sort in enumerate(order):
            if sort.field not in query.fields:
                raise InvalidQuery(
                    f"{sort.field.name!r} is not among the distinct fields.", path=f"order_by[{index}]"
                )
        given = {sort.field.name for sort in order}
        return order + tuple(Sort(item) for item in query.fields if item.name not in given)
    if any(sort.field.name == "id" for sort in order):
        return order
    return (*order, Sort(query.collection.key, last))


def after(order: Sequence[Sort], values: Sequence[Any]) -> Filter:
    """Return the filter for the rows that come behind the one with these ``values`` of its sort keys.

    Beside the exact condition stands the bound of the first key, which lets the database begin in its index.
    """
    branches: list[Filter] = []
    equal: list[Filter] = []
    for sort, value in zip(order, values, strict=True):
        behind = _behind(sort, value)
        if behind is not None:
            branches.append(And((*equal, behind)))
        is_null = Comparison(sort.field, "is_null", True)
        equal.append(is_null if value is None else Comparison(sort.field, "eq", value))
    exact = Or(tuple(branches))
    first, value = order[0], values[0]
    if value is None or first.field.nullable:
        return exact
    return And((Comparison(first.field, "lte" if first.descending else "gte", value), exact))


def _behind(sort: Sort, value: Any) -> Filter | None:
    is_null = Comparison(sort.field, "is_null", True)
    if value is None:
        return Not(is_null) if sort.descending else None
    if sort.descending:
        return Comparison(sort.field, "lt", value)
    beyond = Comparison(sort.field, "gt", value)
    return Or((beyond, is_null)) if sort.field.nullable else beyond


def shorten(path: str) -> str:
    """Return a path that an error can show, however long it is."""
    return path if len(path) <= 200 else f"{path[:80]}…{path[-80:]}"


def find_field(collection: Collection, name: Any, path: str) -> Field:
    """Return the field ``name``, or say at ``path`` which ones there are."""
    found = collection.fields.get(name) if isinstance(name, str) else None
    if found is None:
        close = difflib.get_close_matches(str(name)[:80], collection.fields, n=1)
        fix = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(collection.fields)}."
        raise InvalidQuery(f"{collection.name!r} has no field {str(name)[:80]!r}.", path=path, fix=fix)
    return found
