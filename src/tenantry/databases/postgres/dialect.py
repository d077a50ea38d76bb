"""PostgreSQL's types and operators, for the compiler."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql.elements import ColumnElement

from tenantry import _values
from tenantry.databases._dialect import Decoder, Encoder, SQLDialect, json_scalar
from tenantry.schema import CARRIED, Field, Kind

# Text compares and sorts by code point, as on every other database.
_TEXT = sa.Text(collation="C")
_COLUMN_TYPES: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.INT: sa.BigInteger(),
    Kind.BOOL: sa.Boolean(),
    Kind.FLOAT: sa.Double(),
    Kind.DATE: sa.Date(),
    Kind.DATETIME: sa.TIMESTAMP(timezone=True),
    Kind.UUID: sa.Uuid(),
    Kind.BYTES: sa.LargeBinary(),
    Kind.JSON: postgresql.JSONB(),
    Kind.LIST: postgresql.JSONB(),
}


class PostgresDialect(SQLDialect):
    """PostgreSQL.

    Args:
        unicode_collation: The collation that maps letters to lower case one for one.
    """

    schema = "tenantry"
    rows_are_mappings = True
    indexes_words = False  # a trigger does, so that rows written by a user's own SQL are found as well
    json_types: Mapping[type, tuple[str, ...]] = MappingProxyType(
        {str: ("string",), float: ("number",), bool: ("boolean",)}
    )

    def __init__(self, unicode_collation: str = "pg_c_utf8") -> None:
        self.engine = asyncpg_dialect()  # type: ignore[no-untyped-call]
        self._unicode_collation = unicode_collation

    def insert(self, table: sa.Table) -> Any:
        """Return PostgreSQL's insert."""
        return postgresql.insert(table)

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of the column for ``field``."""
        if field.kind is Kind.DECIMAL:
            return sa.Numeric(field.digits, field.places)
        return _COLUMN_TYPES.get(field.kind, _TEXT)

    def parameter_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        """Return the type of a parameter; the collation is the column's."""
        found = self.column_type(field)
        return sa.Text() if found is _TEXT else found

    def encoder(self, field: Field) -> Encoder | None:
        """Return what turns a canonical value into what asyncpg takes."""
        if field.kind is Kind.ENUM:
            return lambda value: value.value
        if field.kind is Kind.JSON:
            return _encode_json
        if field.kind is Kind.LIST:
            return lambda values: _encode_json([json_scalar(value) for value in values])
        return None

    def decoder(self, field: Field) -> Decoder | None:
        """Return the reverse of :meth:`encoder`."""
        if field.kind is Kind.DECIMAL:
            return None if field.fixed_places else _values.canonical_decimal
        if field.kind is Kind.DATETIME and field.name not in CARRIED:
            return _in_utc
        if field.kind is Kind.ENUM:
            return field.enum
        if field.kind is Kind.JSON:
            return msgspec.json.decode
        if field.kind is Kind.LIST and field.item is not None:
            from_json = field.item.from_json
            return lambda text: [from_json(item) for item in msgspec.json.decode(text)]
        return None

    def any_of(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """``column`` is one of the values in one array parameter."""
        array = postgresql.ARRAY(self.parameter_type(field))
        return column == sa.any_(sa.bindparam(name, type_=array))

    def encode_items(self, field: Field, values: Iterable[Any]) -> Any:
        """Return the values as an array."""
        encode = self.encoder(field)
        return list(values) if encode is None else [encode(value) for value in values]

    def contains(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` holds ``value``."""
        return sa.func.strpos(column, value) > sa.literal_column("0")

    def ends_with(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` ends with ``value``."""
        return sa.func.right(column, sa.func.length(value)) == value

    def ilike(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The text ``column`` matches the pattern ``value``."""
        return sa.collate(column, self._unicode_collation).ilike(value)

    def has_phrase(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
        """The words of the text ``column`` hold ``value``."""
        return sa.func.strpos(sa.func.tenantry.line(column), value) > sa.literal_column("0")

    def has(self, column: ColumnElement[Any], field: Field, name: str) -> ColumnElement[bool]:
        """The list ``column`` has the element."""
        return column.op("@>", is_comparison=True)(sa.bindparam(name, type_=postgresql.JSONB()))

    def encode_item(self, field: Field, value: Any) -> Any:
        """Return a list of the one element."""
        return _encode_json([json_scalar(value)])

    def json_value(self, value: Any) -> Any:
        """Return a number as the decimal that its JSON text is."""
        return Decimal(repr(value)) if isinstance(value, float) else value

    def json_path(self, path: tuple[str | int, ...]) -> list[Any]:
        """Return the parts of the path, a parameter each."""
        return list(path)

    def json_at(
        self, column: ColumnElement[Any], path: tuple[str | int, ...], names: list[str]
    ) -> tuple[ColumnElement[str], Callable[[type], ColumnElement[Any]]]:
        """Return the type of the value at a path, and the value."""
        node = column
        for part, name in zip(path, names, strict=True):
            sql_type = sa.Integer() if isinstance(part, int) else sa.Text()
            node = node.op("->")(sa.bindparam(name, type_=sql_type))
        text = node.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'::text[]"))

        def value_as(kind: type) -> ColumnElement[Any]:
            if kind is str:
                return sa.collate(text, "C")
            return sa.cast(text, sa.Boolean() if kind is bool else sa.Numeric())

        return sa.func.jsonb_typeof(node), value_as

    def exact_sum(self, column: ColumnElement[Any], field: Field, result: Field) -> ColumnElement[Any]:
        """Return the sum, which is numeric."""
        return sa.func.sum(column, type_=sa.Numeric())

    def exact_mean(self, column: ColumnElement[Any], field: Field, result: Field) -> ColumnElement[Any]:
        """Return the mean in whole numbers: the server's own division rounds to as many digits as it likes."""
        total, count = sa.func.sum(column, type_=sa.Numeric()), sa.func.count(column)
        double = _number(
            f"2e{result.places}"
        )  # half up is to round down what is twice as large, and one more
        size = sa.func.div(sa.func.abs(total) * double + count, count * _number("2"))
        return sa.func.sign(total) * size * _number(f"1e-{result.places}")

    def begin(self, column: ColumnElement[Any], field: Field, unit: str, zone: str) -> ColumnElement[Any]:
        """Return the first moment; the first year of all has nothing before it, whatever the zone."""
        if field.kind is Kind.DATE:
            day = sa.cast(column, sa.TIMESTAMP())
            return sa.cast(sa.func.date_trunc(_word(unit), day), sa.Date())
        first = sa.literal_column("TIMESTAMPTZ '0001-01-01 00:00:00+00'", sa.TIMESTAMP(timezone=True))
        return sa.func.greatest(sa.func.date_trunc(_word(unit), column, _word(zone)), first)


def _number(text: str) -> ColumnElement[Decimal]:
    return sa.literal_column(f"{text}::numeric", sa.Numeric())


def _word(value: str) -> ColumnElement[str]:
    """Return a word that was checked against an alphabet without quotes.

    As parameters, those of one expression in two places of a statement would make it two expressions.
    """
    return sa.literal_column(f"'{value}'", sa.Text())


def _in_utc(value: dt.datetime) -> dt.datetime:
    """The first and the last instant of all travel as infinities, which asyncpg returns without their zone."""
    return value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
