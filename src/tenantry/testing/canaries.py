"""Rows for any model: values that its fields accept, found by trying a few of each kind."""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pydantic

from tenantry.errors import InvalidRecord, TenantryError
from tenantry.schema import Collection, Field, KeyedModel, Kind

Factory = Callable[[], KeyedModel]


class NoCanary(TenantryError):
    """No row could be made for a model; the message says what to pass."""


class Canaries:
    """Makes rows of any model.

    Args:
        factories: For models whose rows cannot be guessed, what makes one.
    """

    def __init__(self, factories: Mapping[type[KeyedModel], Factory]) -> None:
        self._factories = factories

    def make(self, collection: Collection, number: int, given: Mapping[str, Any]) -> KeyedModel:
        """Return a row; the same ``number`` gives the same values, apart from what defaults make.

        Args:
            collection: Of which collection.
            number: Tells rows apart where a value must be unique.
            given: Values to use: the id, and what references point at.

        Raises:
            NoCanary: Pass a factory for this model.
        """
        factory = self._factories.get(collection.model)
        if factory is not None:
            return factory().model_copy(update=dict(given))
        values = dict(given)
        for field in collection.fields.values():
            if field.name not in values and _is_wanted(collection, field):
                values[field.name] = _value(collection, field, number)
        try:
            return collection.validate(values)
        except InvalidRecord as error:
            raise NoCanary(f"No {collection.name!r} could be made: {error}", fix=_fix(collection)) from error

    def fresh_id(self, collection: Collection) -> Any:
        """Return an id that no row has."""
        if collection.key.kind is Kind.UUID:
            return uuid.uuid4()
        if collection.key.kind is Kind.INT:
            return secrets.randbits(40)
        for text in (f"canary-{secrets.token_hex(8)}", secrets.token_hex(4), secrets.token_hex(2)):
            if _accepts(collection, collection.key, text):
                return text
        raise NoCanary(f"No id for {collection.name!r} could be made.", fix=_fix(collection))


def _is_wanted(collection: Collection, field: Field) -> bool:
    required = collection.model.model_fields[field.name].is_required()
    in_unique = any(field.name in group for group in collection.unique)
    return required or (in_unique and field.ref is None)


def _value(collection: Collection, field: Field, number: int) -> Any:
    for candidate in _candidates(field, number):
        if _accepts(collection, field, candidate):
            return candidate
    raise NoCanary(f"No value for {collection.name}.{field.name} could be found.", fix=_fix(collection))


def _accepts(collection: Collection, field: Field, value: Any) -> bool:
    annotation: Any = collection.model.model_fields[field.name].annotation
    try:
        pydantic.TypeAdapter(annotation).validate_python(value)
        collection.validate_changes({field.name: value} if field.name != "id" else {})
    except (pydantic.ValidationError, InvalidRecord):
        return False
    return True


def _candidates(field: Field, number: int) -> Iterator[Any]:
    if field.enum is not None:
        yield from field.enum
    elif field.kind is Kind.LIST:
        yield []
        if field.item is not None:
            yield from ([value] for value in _candidates(field.item, number))
    else:
        yield from _SCALARS.get(field.kind, _json)(number)


def _texts(number: int) -> Iterator[str]:
    yield f"canary {number}"
    yield f"canary{number}"
    yield f"c{number}"
    yield f"C{number:03d}"
    yield f"{number}"
    yield f"canary{number}@example.com"
    yield f"https://example.com/{number}"
    yield f"+4912345678{number:02d}"
    yield f"2026-01-{number % 28 + 1:02d}"
    yield from (f"{number}".rjust(size, "0") for size in range(2, 64))
    yield from (f"{number}".rjust(size, "a") for size in range(2, 64))


def _numbers(number: int) -> Iterator[int]:
    yield number
    yield -number
    yield from (number * 10**power for power in range(1, 10))
    yield number % 2


def _json(number: int) -> Iterator[Any]:
    yield from ({}, [], None, f"canary {number}", number, float(number), True, [f"canary {number}"])


_SCALARS: dict[Kind, Callable[[int], Iterator[Any]]] = {
    Kind.TEXT: _texts,
    Kind.INT: _numbers,
    Kind.DECIMAL: lambda number: (
        Decimal(item) / scale for scale in (1, 10, 100) for item in _numbers(number)
    ),
    Kind.FLOAT: lambda number: (item / scale for scale in (1, 16, 1024) for item in _numbers(number)),
    Kind.BOOL: lambda number: iter((bool(number % 2), True, False)),
    Kind.DATE: lambda number: (dt.date(year, 1, number % 28 + 1) for year in (2026, 1990, 2100)),
    Kind.DATETIME: lambda number: (
        dt.datetime(year, 1, number % 28 + 1, tzinfo=dt.UTC) for year in (2026, 1990, 2100)
    ),
    Kind.UUID: lambda number: iter((uuid.UUID(int=number), uuid.uuid4())),
    Kind.BYTES: lambda number: (f"{number}".rjust(size).encode() for size in (0, 8, 16, 24, 32, 64)),
}


def _fix(collection: Collection) -> str:
    name = collection.model.__name__
    return f"Pass what makes one: rows={{{name}: lambda: {name}(…)}}."
