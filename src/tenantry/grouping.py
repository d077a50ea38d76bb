"""Groups of rows and their figures, made here and not in a database: the model that every database is held to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tenantry import _values
from tenantry.aggregation import Aggregation, Group, Measure, begin, first_day, mean
from tenantry.errors import InvalidQuery
from tenantry.evaluation import holds
from tenantry.schema import Field, Kind
from tenantry.types import Record


def grouped(aggregation: Aggregation, rows: Iterable[Record]) -> list[Record]:
    """Return a record of each group of ``rows`` that meets ``having``, in no order; the rows meet the filter."""
    found: dict[tuple[Any, ...], list[Record]] = {} if aggregation.groups else {(): []}
    for row in rows:
        found.setdefault(tuple(_key(group, row) for group in aggregation.groups), []).append(row)
    records = []
    for key, members in found.items():
        record = dict(zip((group.result.name for group in aggregation.groups), key, strict=True))
        for measure in aggregation.measures:
            record[measure.result.name] = _figure(measure, members)
        if holds(aggregation.having, record):
            records.append(record)
    return records


def _key(group: Group, row: Record) -> Any:
    value = row[group.field.name]
    if value is None or group.unit is None:
        return value
    if group.field.kind is Kind.DATE:
        return first_day(value, group.unit)
    return begin(value, group.unit, group.zone)


def _figure(measure: Measure, rows: list[Record]) -> Any:
    field = measure.field
    if field is None:
        return len(rows)
    values = [row[field.name] for row in rows if row[field.name] is not None]
    if measure.function == "count":
        return len(set(values)) if measure.distinct else len(values)
    if not values:
        return None
    if measure.function in ("min", "max"):
        return min(values) if measure.function == "min" else max(values)
    if field.kind is Kind.FLOAT:
        return _real(measure, values)
    return _exact(measure, field, values)


def _real(measure: Measure, values: list[float]) -> float:
    try:
        total = math.fsum(values)
    except OverflowError:
        total = math.inf
    return finite(measure, total if measure.function == "sum" else total / len(values))


def _exact(measure: Measure, field: Field, values: list[Any]) -> int | Decimal:
    if field.kind is Kind.INT:
        total = sum(values)
        return total if measure.function == "sum" else _decimal(measure, mean(total, len(values)))
    total = sum(int(value.scaleb(field.places, context=_values.EXACT)) for value in values)
    return _decimal(measure, total if measure.function == "sum" else mean(total, len(values)))


def _decimal(measure: Measure, scaled: int) -> Decimal:
    result = measure.result
    value = Decimal(scaled).scaleb(-result.places, context=_values.EXACT)
    return value if result.fixed_places else _values.canonical_decimal(value)


def finite(measure: Measure, value: float) -> float:
    """Return a sum or mean of floats, if it is a number that a float can be.

    Raises:
        InvalidQuery: It is too large.
    """
    if not math.isfinite(value):
        raise InvalidQuery(
            f"the {measure.function} of these values is too large for a float.",
            path=f"measures.{measure.result.name}",
            fix="Declare the field as a Decimal, or filter what is summed up.",
        )
    return value + 0.0
