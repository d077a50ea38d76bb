"""What differs between SQL databases."""

from __future__ import annotations

import abc
import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect as SADialect
from sqlalchemy.sql.elements import ColumnElement

from tenantry.schema import Field

Decoder = Callable[[Any], Any]
Encoder = Callable[[Any], Any]


class SQLDialect(abc.ABC):
    """What differs between SQL databases: types, the form of values, and a few operators.

    ``schema`` is the schema of the SDK's own tables, for databases that have schemas. ``indexes_words`` is whether
    the SDK keeps the tables of words, where no trigger of the database does.
    """

    engine: SADialect
    schema: str | None = None
    rows_are_mappings = False
    indexes_words = True
    json_types: Mapping[type, tuple[str, ...]]

    @abc.abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """Return the dialect's own insert, which knows ``on_conflict_do_update``."""

    @abc.abstractmethod
    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of the column for ``field``."""

    def parameter_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of a parameter that is compared with or stored in the column for ``field``."""
        return self.column_type(field)

    @abc.abstractmethod
    def encoder(self, field: Field) -> Encoder | None:
        """Return what turns a canonical value into what the driver takes; ``None`` if nothing has to."""

    @abc.abstractmethod
    def decoder(self, field: Field) -> Decoder | None:
        """Return the reverse of :meth:`encoder`."""

    @abc.abstractmethod
    def any_of(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """``column`` is one of the values in the one parameter ``name``, whatever their number."""

    @abc.abstractmethod
    def encode_items(self, field: Field, values: Iterable[Any]) -> Any:
        """Return the parameter for :meth:`any_of`."""

    @abc.abstractmethod
    def contains(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` holds ``value``, case and all."""

    @abc.abstractmethod
    def ends_with(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` ends with ``value``."""

    @abc.abstractmethod
    def ilike(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` matches the pattern ``value``, whatever the case."""

    @abc.abstractmethod
    def has_phrase(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The words of the text ``column``, with a space around each, hold ``value``; false of null."""

    @abc.abstractmethod
    def has(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """The list ``column`` has the element in parameter ``name``."""

    @abc.abstractmethod
    def encode_item(self, field: Field, value: Any) -> Any:
        """Return the parameter for :meth:`has`."""

    def json_value(self, value: Any) -> Any:
        """Return the parameter for a text, number or boolean compared with a value inside JSON."""
        return value

    @abc.abstractmethod
    def json_path(self, path: tuple[str | int, ...]) -> list[Any]:
        """Return the parameters that name a path inside a JSON value."""

    @abc.abstractmethod
    def json_at(
        self, column: ColumnElement[Any], path: tuple[str | int, ...], names: list[str]
    ) -> tuple[ColumnElement[str], Callable[[type], ColumnElement[Any]]]:
        """Return the type of the value at a path (as SQL text) and the value itself as text, number or bool."""

    @abc.abstractmethod
    def exact_sum(self, column: ColumnElement[Any], field: Field, result: Field) -> ColumnElement[Any]:
        """Return the sum of the integers or decimals in ``column``, as ``result`` has it."""

    @abc.abstractmethod
    def exact_mean(self, column: ColumnElement[Any], field: Field, result: Field) -> ColumnElement[Any]:
        """Return the mean of the integers or decimals in ``column``, rounded as ``tenantry.aggregation.mean`` does."""

    @abc.abstractmethod
    def begin(self, column: ColumnElement[Any], field: Field, unit: str, zone: str) -> ColumnElement[Any]:
        """Return the first moment of the span of time around the date or time in ``column``."""

    def order(self, column: ColumnElement[Any], *, descending: bool, nullable: bool) -> ColumnElement[Any]:
        """Return the sort key; nulls are the greatest value."""
        key = column.desc() if descending else column.asc()
        if not nullable:
            return key
        return key.nulls_first() if descending else key.nulls_last()


def json_scalar(value: Any) -> Any:
    """Return a list's element as a JSON scalar; ``Field.normalise`` reads it back."""
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return msgspec.json.decode(msgspec.json.encode(value))
    return value
