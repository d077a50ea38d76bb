"""What can be asked: a frozen :class:`Query`, made from keyword arguments, dicts or a ``lambda``.

Filters are reduced to a small tree before any adapter sees them. Its logic is SQL's: a comparison with a null
is neither true nor false, and a row is found only where the whole filter is true. Nulls sort as the greatest value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from tenantry import _values
from tenantry.errors import InvalidQuery
from tenantry.schema import TENANT, UNORDERED, Collection, Field, Kind

T = TypeVar("T")

MAX_LIMIT = 10_000
MAX_DEPTH = 32
MAX_CONDITIONS = 500
MAX_ITEMS = 10_000
MAX_VALUE_SIZE = 1_000_000

Operator = Literal["eq", "lt", "lte", "gt", "gte", "in", "contains", "ends_with", "ilike", "is_null", "has"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field operator value``; with ``path``, of the value at that path inside a JSON field."""

    field: Field
    operator: Operator
    value: Any
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class And:
    """All of them; true when empty."""

    items: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them; false when empty."""

    items: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of neither true nor false it is the same again."""

    item: Filter


Filter = Comparison | And | Or | Not
EVERYTHING = And(())

Where = Mapping[str, Any] | Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort key."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query over one collection.

    Attributes:
        fields: The columns to return, in this order.
        filter: What rows must meet, the cursor's position included.
        order: The sort keys; together they are unique, so that pages never overlap.
        limit: The most rows to return; ``None`` for all.
        distinct: Whether equal rows are returned once.
    """

    collection: Collection
    fields: tuple[Field, ...]
    filter: Filter = EVERYTHING
    order: tuple[Sort, ...] = ()
    limit: int | None = None
    distinct: bool = False


def parse_where(collection: Collection, where: Where) -> Filter:
    """Return ``where``, a dict or a ``lambda``, as a checked filter.

    Raises:
        InvalidQuery: With the path to the fault.
    """
    if where is None:
        return EVERYTHING
    if isinstance(where, Mapping):
        counter = _Counter()
        return _parse_mapping(collection, where, "where", 0, counter)
    if callable(where):
        outcome = where(_Fields(collection))
        if isinstance(outcome, _Attribute):
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


def parse_order(collection: Collection, order_by: Sequence[str] | str | None) -> tuple[Sort, ...]:
    """Return ``order_by``, names with ``-`` in front for descending, as sort keys."""
    names: list[object] = [order_by] if isinstance(order_by, str) else list(order_by or ())
    sorts: list[Sort] = []
    for index, name in enumerate(names):
        path = f"order_by[{index}]"
        target = _find(collection, name.removeprefix("-") if isinstance(name, str) else name, path)
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
    if isinstance(fields, str):
        raise InvalidQuery("expected a list of names, got text.", path="fields")
    found = tuple(_find(collection, name, f"fields[{index}]") for index, name in enumerate(fields))
    if not found or len(set(found)) != len(found):
        raise InvalidQuery("name at least one field, and none twice.", path="fields")
    return found


def parse_limit(limit: Any) -> int:
    """Return ``limit`` if it is a whole number of 1 to 10,000."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(f"expected a whole number of 1 to {MAX_LIMIT:,}.", path="limit")
    return limit


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


# --- dicts ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Counter:
    conditions: int = 0


def _parse_mapping(
    collection: Collection, where: Mapping[str, Any], path: str, depth: int, counter: _Counter
) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidQuery(f"nested deeper than {MAX_DEPTH} levels.", path=_shorten(path))
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
    parts = tuple(
        _parse_mapping(collection, _mapping(item, f"{path}[{index}]"), f"{path}[{index}]", depth + 1, counter)
        for index, item in enumerate(value[: MAX_CONDITIONS + 1])
    )
    return And(parts) if name == "and" else Or(parts)


def _parse_field(collection: Collection, name: Any, value: Any, path: str, counter: _Counter) -> Filter:
    if not isinstance(name, str):
        raise InvalidQuery(f"expected a field name, got {type(name).__name__}.", path=path)
    first, *rest = name.split(".") if name not in collection.fields else [name]
    target = _find(collection, first, path)
    json_path = tuple(int(part) if part.isdecimal() and part.isascii() else part for part in rest)
    operators = value if isinstance(value, Mapping) else {"eq": value}
    if not operators:
        raise InvalidQuery("no operator is given.", path=path)
    items = []
    for operator, operand in operators.items():
        counter.conditions += 1
        if counter.conditions > MAX_CONDITIONS:
            raise InvalidQuery(f"more than {MAX_CONDITIONS} conditions.", path=_shorten(path))
        here = path if operators is not value else f"{path}.{str(operator)[:80]}"
        items.append(compare(target, operator, operand, json_path, here))
    return items[0] if len(items) == 1 else And(tuple(items))


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidQuery(f"expected a filter, got {type(value).__name__}.", path=_shorten(path))
    return value


def _shorten(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:80]}…{path[-80:]}"


def _find(collection: Collection, name: Any, path: str) -> Field:
    found = collection.fields.get(name) if isinstance(name, str) else None
    if found is None:
        close = difflib.get_close_matches(str(name)[:80], collection.fields, n=1)
        fix = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(collection.fields)}."
        raise InvalidQuery(f"{collection.name!r} has no field {str(name)[:80]!r}.", path=path, fix=fix)
    return found


# --- one comparison ------------------------------------------------------------------------------


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
        return InvalidQuery(message, path=_shorten(self.where))

    def node(self, operator: Operator, value: Any) -> Comparison:
        return Comparison(self.field, operator, value, self.path)

    def value(self, raw: Any) -> Any:
        """Return ``raw`` as a value of the field, or as a JSON scalar where a path leads into one."""
        if isinstance(raw, str | bytes) and len(raw) > MAX_VALUE_SIZE:
            raise self.fault(f"the value is larger than {MAX_VALUE_SIZE:,} characters.")
        try:
            if self.field.kind is Kind.JSON:
                return self._json(raw)
            return self.field.normalise(raw)
        except (ValueError, TypeError) as error:
            raise self.fault(str(error)) from None

    def _json(self, raw: Any) -> Any:
        if not isinstance(raw, str | int | float | bool):
            raise TypeError(f"expected text, a number or a boolean, got {type(raw).__name__}.")
        for part in self.path:
            if isinstance(part, str) and ('"' in part or "\\" in part or not part):
                raise ValueError("a path cannot hold empty parts, quotes or backslashes.")
            if isinstance(part, int) and part >= 2**31:
                raise ValueError("an index in the path is too large.")
        return _values.json(raw)

    def text(self, raw: Any) -> str:
        if self.field.kind is not Kind.TEXT and not self.path:
            raise self.fault(f"needs a text field; {self.field.name!r} is {self.field.kind.value}.")
        value = self.value(raw)
        if not isinstance(value, str):
            raise self.fault(f"expected text, got {type(value).__name__}.")
        return value


def _equal(operand: _Operand, raw: Any) -> Filter:
    if raw is None:
        return operand.node("is_null", True)
    if operand.field.kind is Kind.LIST:
        raise operand.fault("a list is searched with 'contains'.")
    return operand.node("eq", operand.value(raw))


def _not_equal(operand: _Operand, raw: Any) -> Filter:
    return Not(_equal(operand, raw))


def _ordered(operator: Operator) -> Callable[[_Operand, Any], Filter]:
    def build(operand: _Operand, raw: Any) -> Filter:
        if operand.field.kind in UNORDERED and not operand.path:
            raise operand.fault(f"a {operand.field.kind.value} field has no order.")
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
    if operand.field.kind is Kind.JSON:
        return Or(tuple(_equal(operand, item) for item in raw))
    return operand.node("in", tuple(dict.fromkeys(operand.value(item) for item in raw)))


def _not_in(operand: _Operand, raw: Any) -> Filter:
    return Not(_in(operand, raw))


def _contains(operand: _Operand, raw: Any) -> Filter:
    if operand.field.kind is Kind.LIST and operand.field.item is not None:
        try:
            return operand.node("has", operand.field.item.normalise(raw))
        except (ValueError, TypeError) as error:
            raise operand.fault(str(error)) from None
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


# --- lambdas -------------------------------------------------------------------------------------


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
        if isinstance(other, _Attribute):
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
class _Fields:
    """The argument of a filter's lambda. The type checker sees the model in its place."""

    _collection: Collection

    def __getattr__(self, name: str) -> _Attribute:
        return _Attribute(_find(self._collection, name, f"where.{name}"), (), f"where.{name}")


@dataclass(frozen=True, slots=True, eq=False)
class _Attribute:
    _field: Field
    _path: tuple[str | int, ...]
    _where: str

    def _compare(self, operator: str, value: object) -> Condition:
        where = f"{self._where}.{operator}"
        if isinstance(value, _Attribute | Condition):
            raise InvalidQuery("compare a field with a value, not with another field.", path=where)
        return Condition(compare(self._field, operator, value, self._path, where))

    def is_true(self) -> Condition:
        return self._compare("eq", True)

    def __getitem__(self, part: str | int) -> _Attribute:
        return _Attribute(self._field, (*self._path, part), f"{self._where}.{part}")

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
        return self._compare("starts_with", prefix)

    def endswith(self, suffix: str) -> Condition:
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
    if not isinstance(subject, _Attribute):
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
    if not isinstance(opposite, Condition | _Attribute):
        raise InvalidQuery(f"not_ needs a condition, got {type(condition).__name__}.", path="where")
    return cast(bool, ~opposite)


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
