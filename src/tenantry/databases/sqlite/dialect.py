"""SQLite's types and operators, for the compiler."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.sql.elements import ColumnElement

from tenantry import _values
from tenantry.aggregation import Unit, begin, first_day, mean
from tenantry.databases._dialect import Decoder, Encoder, SQLDialect, json_scalar
from tenantry.schema import Field, Kind

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class SQLiteDialect(SQLDialect):
    """SQLite's types. Decimals are kept as text that sorts as the numbers do; instants as microseconds."""

    json_types: Mapping[type, tuple[str, ...]] = MappingProxyType(
        {str: ("text",), float: ("integer", "real"), bool: ("true", "false")}
    )

    def __init__(self) -> None:
        self.engine = sqlite_dialect.dialect(paramstyle="qmark")

    def insert(self, table: sa.Table) -> Any:
        """Return SQLite's insert."""
        return sqlite_dialect.insert(table)

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of the column for ``field``."""
        return _COLUMN_TYPES.get(field.kind, sa.Text())

    def encoder(self, field: Field) -> Encoder | None:
        """Return what turns a canonical value into what the driver takes."""
        if field.kind is Kind.DECIMAL:
            return _decimal_encoder(field)
        if field.kind is Kind.LIST and field.item is not None:
            return _list_encoder(field.item)
        return _ENCODERS.get(field.kind)

    def decoder(self, field: Field) -> Decoder | None:
        """Return the reverse of :meth:`encoder`."""
        if field.kind is Kind.DECIMAL:
            return _decimal_decoder(field)
        if field.kind is Kind.ENUM:
            return field.enum
        if field.kind is Kind.LIST and field.item is not None:
            from_json = field.item.from_json
            return lambda text: [from_json(item) for item in msgspec.json.decode(text)]
        return _DECODERS.get(field.kind)

    def any_of(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """``column`` is one of the values in one JSON parameter."""
        items = sa.func.json_each(sa.bindparam(name, type_=sa.Text())).table_valued("value")
        value: ColumnElement[Any] = items.c.value
        if field.kind in (Kind.UUID, Kind.BYTES):
            value = sa.func.tenantry_unhex(value)
        return column.in_(sa.select(value))

    def encode_items(self, field: Field, values: Iterable[Any]) -> Any:
        """Return the values as a JSON array; bytes in hexadecimal."""
        encode = self.encoder(field)
        items = [value if encode is None else encode(value) for value in values]
        return msgspec.json.encode([i.hex() if isinstance(i, bytes) else i for i in items]).decode()

    def contains(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` holds ``value``."""
        return sa.func.instr(column, value) > 0

    def ends_with(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` ends with ``value``, which is not empty."""
        return sa.func.substr(column, -sa.func.length(value)) == value

    def ilike(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` matches the pattern ``value``."""
        return sa.func.tenantry_ilike(column, value) == sa.literal_column("1")

    def has_phrase(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The words of the text ``column`` hold ``value``."""
        return sa.func.instr(sa.func.tenantry_words(column), value) > sa.literal_column("0")

    def has(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """The list ``column`` has the element."""
        items = sa.func.json_each(column).table_valued("value")
        value = sa.bindparam(name, type_=sa.types.NullType())
        found = sa.exists(sa.select(sa.literal_column("1")).select_from(items).where(items.c.value == value))
        return sa.case((column.is_(None), sa.null()), else_=found)

    def encode_item(self, field: Field, value: Any) -> Any:
        """Return the element as it stands in the stored JSON."""
        return value if field.item is None else json_scalar(value)

    def json_path(self, path: tuple[str | int, ...]) -> list[Any]:
        """Return the path in SQLite's own notation, as one parameter for each use."""
        text = "$" + "".join(f"[{part}]" if isinstance(part, int) else f'."{part}"' for part in path)
        return [text]

    def json_at(
        self, column: ColumnElement[Any], path: tuple[str | int, ...], names: list[str]
    ) -> tuple[ColumnElement[str], Callable[[type], ColumnElement[Any]]]:
        """Return the type of the value at a path, and the value."""
        where = sa.bindparam(names[0], type_=sa.Text())
        return sa.func.json_type(column, where), lambda _: sa.func.json_extract(column, where)

    def exact_sum(self, column: ColumnElement[Any], field: Field, result: Field) -> ColumnElement[Any]:
        """Return the sum, made in Python: the engine's own fails beyond 64 bits."""
        return sa.func.tenantry_sum(column, *_widths(field, result))

    def exact_mean(self, column: ColumnElement[Any], field: Field, result: Field) -> ColumnElement[Any]:
        """Return the mean, made in Python."""
        return sa.func.tenantry_mean(column, *_widths(field, result))

    def begin(self, column: ColumnElement[Any], field: Field, unit: str, zone: str) -> ColumnElement[Any]:
        """Return the first moment, found in Python."""
        span: ColumnElement[str] = sa.literal_column(f"'{unit}'")
        if field.kind is Kind.DATE:
            return sa.func.tenantry_first_day(column, span)
        return sa.func.tenantry_begin(column, span, sa.literal_column(f"'{zone}'"))


class Total:
    """An aggregate function: the exact sum of integers, or of decimals in their stored form."""

    def __init__(self) -> None:
        self.total = self.count = self.digits = 0

    def step(self, value: int | str | None, digits: int, result_digits: int) -> None:
        """Take one value. Words of a statement cannot be told from values, so the widths come with each."""
        self.digits = result_digits
        if value is not None:
            self.count += 1
            self.total += value if isinstance(value, int) else _unscaled(value, digits)

    def finalize(self) -> str | None:
        """Return the outcome in the stored form of decimals."""
        return _scaled_text(self.outcome(), self.digits) if self.count else None

    def outcome(self) -> int:
        """Return the sum."""
        return self.total


class Mean(Total):
    """An aggregate function: the mean of the same, to more places."""

    def outcome(self) -> int:
        """Return the mean."""
        return mean(self.total, self.count)


def begin_of(value: int | None, unit: Unit, zone: str) -> int | None:
    """Return the first moment of the span around a stored time, as it is stored."""
    if value is None:
        return None
    return (begin(_EPOCH + dt.timedelta(microseconds=value), unit, zone) - _EPOCH) // _MICROSECOND


def first_day_of(value: str | None, unit: Unit) -> str | None:
    """Return the first day of the span around a stored date, as it is stored."""
    return None if value is None else first_day(dt.date.fromisoformat(value), unit).isoformat()


def _widths(field: Field, result: Field) -> list[ColumnElement[int]]:
    return [sa.literal_column(str(item.digits)) for item in (field, result)]


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _list_encoder(item: Field) -> Encoder:
    return lambda values: _encode_json([json_scalar(value) for value in values])


def _decimal_encoder(field: Field) -> Encoder:
    """Encode so that text order is numeric order: a sign digit, then the scaled integer or its complement."""
    return lambda value: _scaled_text(int(value.scaleb(field.places, context=_WIDE)), field.digits)


def _scaled_text(scaled: int, digits: int) -> str:
    return f"1{scaled:0{digits}d}" if scaled >= 0 else f"0{10**digits + scaled:0{digits}d}"


def _unscaled(text: str, digits: int) -> int:
    return int(text[1:]) if text[0] == "1" else int(text[1:]) - 10**digits


def _decimal_decoder(field: Field) -> Decoder:

    def decode(text: str) -> Decimal:
        value = Decimal(_unscaled(text, field.digits)).scaleb(-field.places, context=_WIDE)
        return value if field.fixed_places else _values.canonical_decimal(value)

    return decode


_WIDE = _values.EXACT
_COLUMN_TYPES: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.INT: sa.BigInteger(),
    Kind.BOOL: sa.Integer(),
    Kind.FLOAT: sa.Float(),
    Kind.DATETIME: sa.BigInteger(),
    Kind.UUID: sa.LargeBinary(),
    Kind.BYTES: sa.LargeBinary(),
}
_ENCODERS: dict[Kind, Encoder] = {
    Kind.BOOL: int,
    Kind.DATE: dt.date.isoformat,
    Kind.DATETIME: lambda value: (value - _EPOCH) // _MICROSECOND,
    Kind.UUID: lambda value: value.bytes,
    Kind.JSON: _encode_json,
    Kind.ENUM: lambda value: value.value,
}
_DECODERS: dict[Kind, Decoder] = {
    Kind.BOOL: bool,
    Kind.FLOAT: float,  # RETURNING yields whole numbers as integers
    Kind.DATE: dt.date.fromisoformat,
    Kind.DATETIME: lambda value: _EPOCH + dt.timedelta(microseconds=value),
    Kind.UUID: lambda value: uuid.UUID(bytes=value),
    Kind.JSON: msgspec.json.decode,
}
