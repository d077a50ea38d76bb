"""Many instances as canonical records, a column at a time.

A value whose type leaves no doubt is its own canonical form. Whether all of a column are such values is asked with a
few passes that run in C, which is several times as fast as a function call for each value.
"""

from __future__ import annotations

import datetime as dt
import gc
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from tenantry.data.records import new_record, now
from tenantry.errors import FieldHidden, InvalidRecord
from tenantry.schema import MARK, Collection, Field, KeyedModel, Kind
from tenantry.types import Record

_INT64 = 2**63
_NONE = type(None)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let the collector wait for a moment in which nothing is awaited.

    All that a batch allocates stays; going over it several times in between takes as long as the work itself.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def new_records(
    collection: Collection, instances: Sequence[KeyedModel]
) -> Sequence[Record] | Sequence[Record | InvalidRecord | FieldHidden]:
    """Return the record of each new row, or why it cannot be stored."""
    rows = [instance.__dict__ for instance in instances]
    try:
        columns = {
            name: canonical(collection, field, list(map(itemgetter(name), rows)))
            for name, field in collection.fields.items()
        }
    except (InvalidRecord, KeyError):  # an instance that was read without its hidden fields lacks them
        return [_record_or_error(collection, instance) for instance in instances]
    moment = now()
    columns["version"] = [1] * len(rows)
    columns["created_at"] = columns["updated_at"] = [moment] * len(rows)
    if collection.soft:
        columns[MARK] = [None] * len(rows)
    names = tuple(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _record_or_error(collection: Collection, instance: KeyedModel) -> Record | InvalidRecord | FieldHidden:
    try:
        return new_record(collection, instance)
    except (InvalidRecord, FieldHidden) as error:
        return error


def canonical(collection: Collection, field: Field, values: list[Any]) -> list[Any]:
    """Return the canonical form of each value of one column, or raise :class:`InvalidRecord` for one of them."""
    kinds = set(map(type, values))
    present = values
    if field.nullable and _NONE in kinds:
        kinds.discard(_NONE)
        present = [value for value in values if value is not None]
    if field.kind is Kind.ENUM:
        settled = kinds <= {field.enum}
    elif field.kind is Kind.DECIMAL:
        settled = kinds <= {Decimal} and (not present or _is_decimal(field, present))
    else:
        known, check = _SETTLED.get(field.kind, (_NONE, _never))
        settled = kinds <= {known} and (not present or check(present))
    return values if settled else [collection.normalise(field, value) for value in values]


def _always(values: list[Any]) -> bool:
    return True


def _never(values: list[Any]) -> bool:
    return False


def _is_text(values: list[str]) -> bool:
    joined = "".join(values)
    if "\0" in joined:
        return False
    if joined.isascii():
        return True
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_integer(values: list[int]) -> bool:
    return min(values) >= -_INT64 and max(values) < _INT64


def _is_real(values: list[float]) -> bool:
    return 0.0 not in values and all(map(math.isfinite, values))  # there is a negative zero


def _is_decimal(field: Field, values: list[Decimal]) -> bool:
    """Whether all are above zero, small enough, and have just as many places as the field."""
    quantum = Decimal(1).scaleb(-field.places)
    if not (
        field.fixed_places and all(map(quantum.same_quantum, values))
    ):  # which no infinity and no NaN has
        return False
    return min(values) > 0 and max(values) < Decimal(10) ** (field.digits - field.places)


def _is_instant(values: list[dt.datetime]) -> bool:
    return all(value.tzinfo is dt.UTC and not value.fold for value in values)


# For each kind, the type whose values can be canonical as they are, and whether all of some are.
_SETTLED: Mapping[Kind, tuple[type, Callable[[list[Any]], bool]]] = MappingProxyType(
    {
        Kind.TEXT: (str, _is_text),
        Kind.INT: (int, _is_integer),
        Kind.FLOAT: (float, _is_real),
        Kind.BOOL: (bool, _always),
        Kind.DATE: (dt.date, _always),
        Kind.DATETIME: (dt.datetime, _is_instant),
        Kind.UUID: (uuid.UUID, _always),
        Kind.BYTES: (bytes, _always),
    }
)
