"""What users write to aggregate, objects or plain mappings, as a checked :class:`~tenantry.aggregation.Aggregation`."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tenantry import _values
from tenantry.aggregation import MORE_PLACES, Aggregation, Function, Group, Measure, Unit
from tenantry.errors import InvalidQuery
from tenantry.filters import Where, parse_mapping, parse_where
from tenantry.query import EVERYTHING, Sort, find_field, parse_limit, parse_order
from tenantry.schema import Collection, Field, Kind

MAX_GROUPS = 10_000
MAX_MEASURES = 100

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,62}", re.ASCII)
_UNITS = typing.get_args(Unit)
_NUMBERS = frozenset({Kind.INT, Kind.DECIMAL, Kind.FLOAT})
_ORDERED = _NUMBERS | {Kind.TEXT, Kind.DATE, Kind.DATETIME}
_SUM_DIGITS = 38


class Aggregate:
    """What a measure is: :class:`Count`, :class:`Sum`, :class:`Avg`, :class:`Min` or :class:`Max`."""

    __slots__ = ()
    function: ClassVar[Function]
    field: str | None


@dataclass(frozen=True, slots=True)
class Count(Aggregate):
    """How many rows; of a field, how many values that are not null.

    Attributes:
        field: The field, or ``None`` for rows.
        distinct: Whether equal values count once.
    """

    function: ClassVar[Function] = "count"
    field: str | None = None
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class Sum(Aggregate):
    """The sum: an ``int`` of integers, however large, a ``Decimal`` of decimals, exact, and a ``float`` of floats."""

    function: ClassVar[Function] = "sum"
    field: str


@dataclass(frozen=True, slots=True)
class Avg(Aggregate):
    """The mean: of integers and decimals a ``Decimal``, rounded half up to six places more; of floats a ``float``."""

    function: ClassVar[Function] = "avg"
    field: str


@dataclass(frozen=True, slots=True)
class Min(Aggregate):
    """The least value of numbers, texts, dates or times."""

    function: ClassVar[Function] = "min"
    field: str


@dataclass(frozen=True, slots=True)
class Max(Aggregate):
    """The greatest value of numbers, texts, dates or times."""

    function: ClassVar[Function] = "max"
    field: str


@dataclass(frozen=True, slots=True)
class Trunc:
    """In ``group_by``: the span of time that a date or time lies in, named by its first moment.

    Attributes:
        field: A date or a datetime.
        unit: ``hour``, ``day``, ``week`` (from Monday), ``month``, ``quarter`` or ``year``.
        zone: Where days begin, such as ``Europe/Vienna``.
    """

    field: str
    unit: Unit
    zone: str = "UTC"


Measures = Mapping[str, Aggregate | Mapping[str, Any]]
GroupBy = str | Sequence[str] | Mapping[str, str | Trunc | Mapping[str, Any]]

_CLASSES: Mapping[str, type[Any]] = {made.function: made for made in (Count, Sum, Avg, Min, Max)}


def parse_aggregation(
    collection: Collection,
    measures: Measures,
    where: Where,
    group_by: GroupBy,
    having: Mapping[str, Any] | None,
    order_by: Sequence[str] | str | None,
    limit: int | None,
) -> Aggregation:
    """Return what was asked for, checked in full.

    Raises:
        InvalidQuery: With the path to the fault.
    """
    groups = tuple(_groups(collection, group_by))
    made = tuple(_measures(collection, measures))
    named: tuple[Group | Measure, ...] = (*groups, *made)
    results = {item.result.name: item.result for item in named}
    if len(results) < len(named):
        twice = next(item.result.name for item in groups if results[item.result.name] is not item.result)
        raise InvalidQuery(f"{twice!r} is a group already.", path=f"measures.{twice}")
    if having is not None and not groups:
        raise InvalidQuery("needs group_by: it chooses among groups.", path="having")
    # What groups are asked for is a filter and an order over another collection: that of the results.
    outcome = dataclasses.replace(collection, name="the result", fields=types.MappingProxyType(results))
    return Aggregation(
        collection,
        made,
        groups,
        parse_where(collection, where),
        EVERYTHING if having is None else parse_mapping(outcome, having, "having"),
        _total_order(outcome, groups, order_by),
        MAX_GROUPS + 1 if limit is None else parse_limit(limit),
    )


def _total_order(
    outcome: Collection, groups: Sequence[Group], order_by: Sequence[str] | str | None
) -> tuple[Sort, ...]:
    order = parse_order(outcome, order_by)
    given = {sort.field.name for sort in order}
    return order + tuple(Sort(group.result) for group in groups if group.result.name not in given)


def _measures(collection: Collection, measures: object) -> Iterator[Measure]:
    if not isinstance(measures, Mapping) or not 1 <= len(measures) <= MAX_MEASURES:
        raise InvalidQuery(
            f"expected a mapping of 1 to {MAX_MEASURES} names.",
            path="measures",
            fix='Name each: {"orders": Count(), "revenue": Sum("total")}.',
        )
    for name, given in measures.items():
        path = _checked_name(name, "measures")
        yield _measure(collection, name, _spelled(given, path), path)


def _spelled(given: object, path: str) -> Aggregate:
    """Return the object that a plain mapping such as ``{"sum": "total"}`` stands for."""
    if isinstance(given, Aggregate):
        return given
    fault = InvalidQuery(
        f"expected Count(), Sum(…), Avg(…), Min(…) or Max(…), got {type(given).__name__}.",
        path=path,
        fix='In JSON: {"count": "*"}, {"count_distinct": "field"}, {"sum": "field"}, avg, min or max.',
    )
    if not isinstance(given, Mapping) or len(given) != 1:
        raise fault
    ((word, field),) = given.items()
    if word == "count_distinct":
        return Count(field, distinct=True)
    if word == "count":
        return Count(None if field == "*" else field)
    if not isinstance(word, str) or word not in _CLASSES:
        raise fault
    made: Aggregate = _CLASSES[word](field)
    return made


def _measure(collection: Collection, name: str, asked: Aggregate, path: str) -> Measure:
    function, distinct = asked.function, isinstance(asked, Count) and bool(asked.distinct)
    counted = Field(name, Kind.INT, normalise=_values.integer)
    if asked.field is None and function == "count":
        if distinct:
            raise InvalidQuery("names no field whose values are to be distinct.", path=path)
        return Measure(counted, function)
    field = find_field(collection, asked.field, path)
    wanted = {"sum": _NUMBERS, "avg": _NUMBERS, "min": _ORDERED, "max": _ORDERED}.get(function)
    if field.kind in (Kind.JSON, Kind.LIST) or (wanted is not None and field.kind not in wanted):
        kinds = "numbers" if wanted is _NUMBERS else "numbers, texts, dates and times" if wanted else "values"
        raise InvalidQuery(
            f"{field.name!r} is {field.kind.value}; {function} works on {kinds}.",
            path=path,
            fix="Count rows with a filter instead." if field.kind is Kind.BOOL else None,
        )
    if function == "count":
        return Measure(counted, function, field, distinct)
    return Measure(_result(name, field, function), function, field)


@functools.lru_cache(maxsize=1_000)
def _result(name: str, field: Field, function: Function) -> Field:
    """Return what a sum, a mean, or the first or last of a field's values is."""
    plain = dataclasses.replace(_plain(name, field), nullable=True)
    if function in ("min", "max") or field.kind is Kind.FLOAT:
        return plain
    places = 0 if field.kind is Kind.INT else field.places
    digits = _SUM_DIGITS if field.kind is Kind.INT else min(field.digits + 10, _values.EXACT.prec)
    fixed = field.fixed_places and field.kind is Kind.DECIMAL
    if function == "avg":
        places, digits, fixed = places + MORE_PLACES, min(digits + MORE_PLACES, _values.EXACT.prec), False
    normalise = _values.decimal_of(digits, places, fixed=fixed)
    return Field(
        name, Kind.DECIMAL, True, digits=digits, places=places, fixed_places=fixed, normalise=normalise
    )


@functools.lru_cache(maxsize=1_000)
def _plain(name: str, field: Field) -> Field:
    """Return the field by another name, and without what makes it a column of its table."""
    return dataclasses.replace(
        field,
        name=name,
        unique=False,
        indexed=False,
        searchable=False,
        pii=False,
        ref=None,
        renamed_from=None,
    )


def _groups(collection: Collection, group_by: object) -> Iterator[Group]:
    if isinstance(group_by, str):
        group_by = [group_by]
    if isinstance(group_by, Mapping):
        for name, given in group_by.items():
            path = _checked_name(name, "group_by")
            yield _group(collection, name, given, path)
    elif isinstance(group_by, list | tuple):
        if len(set(map(str, group_by))) < len(group_by):
            raise InvalidQuery("name no field twice.", path="group_by")
        for index, name in enumerate(group_by):
            path = f"group_by[{index}]"
            if isinstance(name, Trunc):
                raise InvalidQuery(
                    "a span of time needs a name.",
                    path=path,
                    fix='Write {"day": Trunc("created_at", "day")}.',
                )
            yield _group(collection, name, name, path)
    else:
        raise InvalidQuery(f"expected names or a mapping, got {type(group_by).__name__}.", path="group_by")


def _group(collection: Collection, name: Any, given: object, path: str) -> Group:
    if isinstance(given, Mapping):
        try:
            given = Trunc(given["trunc"], given["unit"], given.get("zone", "UTC"))
        except KeyError:
            raise InvalidQuery(
                "expected a field or a span of time.",
                path=path,
                fix='In JSON: {"trunc": "created_at", "unit": "day"}, and "zone" if it is not UTC.',
            ) from None
    field = find_field(collection, given.field if isinstance(given, Trunc) else given, path)
    if field.kind in (Kind.JSON, Kind.LIST):
        raise InvalidQuery(f"{field.name!r} is {field.kind.value}; its rows have no groups.", path=path)
    result = _plain(name, field)
    if not isinstance(given, Trunc):
        return Group(result, field)
    _check_span(field, given, path)
    return Group(result, field, given.unit, given.zone)


def _check_span(field: Field, span: Trunc, path: str) -> None:
    if field.kind not in (Kind.DATE, Kind.DATETIME):
        raise InvalidQuery(f"{field.name!r} is {field.kind.value}, not a date or time.", path=path)
    if span.unit not in _UNITS or (span.unit == "hour" and field.kind is Kind.DATE):
        known = ", ".join(unit for unit in _UNITS if unit != "hour" or field.kind is Kind.DATETIME)
        raise InvalidQuery(
            f"{str(span.unit)[:80]!r} is no span of a {field.kind.value}.", path=path, fix=known
        )
    if field.kind is Kind.DATE and span.zone != "UTC":
        raise InvalidQuery("a date is the same in every time zone.", path=path)
    zone: object = span.zone
    try:
        if not isinstance(zone, str) or not _ZONE.fullmatch(zone):
            raise ValueError
        zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise InvalidQuery(f"unknown time zone {str(zone)[:80]!r}.", path=path) from None


def _checked_name(name: object, owner: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in ("tenant_id", "and", "or", "not"):
        raise InvalidQuery(
            f"{str(name)[:80]!r} cannot be a name.", path=owner, fix="Use a-z, 0-9 and _, a letter first."
        )
    return f"{owner}.{name}"
