"""Filters as SQL: their shape, their values, and the expression, all three walked in the same order."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from tenantry.databases._dialect import Encoder, SQLDialect
from tenantry.query import And, Comparison, Filter, Not, Or
from tenantry.schema import Collection, Kind


class FilterCompiler:
    """Compiles filters for one dialect."""

    def __init__(
        self,
        dialect: SQLDialect,
        columns: Mapping[str, Mapping[str, ColumnElement[Any]]],
        encoders: Mapping[tuple[str, str], Encoder | None],
    ) -> None:
        self._dialect = dialect
        self._columns = columns
        self._encoders = encoders

    def shape(self, collection: Collection, node: Filter, values: list[Any]) -> Any:
        """Return what is the same for filters that differ in values alone, and append the values."""
        if isinstance(node, Comparison):
            return self._comparison_shape(collection, node, values)
        if isinstance(node, Not):
            return ("not", self.shape(collection, node.item, values))
        kind = "and" if isinstance(node, And) else "or"
        return (kind, *(self.shape(collection, item, values) for item in node.items))

    def _comparison_shape(self, collection: Collection, node: Comparison, values: list[Any]) -> Any:
        field = node.field
        if field.kind is Kind.JSON:
            values.extend(self._dialect.json_path(node.path))
            types = tuple(type(part) for part in node.path)
            if node.operator == "is_null":
                return (field.name, "is_null", types)
            values.append(self._dialect.json_value(node.value))
            return (field.name, node.operator, types, _json_type(node.value))
        if node.operator == "is_null":
            return (field.name, "is_null")
        if node.operator == "in":
            values.append(self._dialect.encode_items(field, node.value))
        elif node.operator == "has":
            values.append(self._dialect.encode_item(field, node.value))
        else:
            encode = self._encoders[collection.name, field.name]
            values.append(node.value if encode is None else encode(node.value))
        return (field.name, node.operator)

    def expression(
        self, collection: Collection, root: Filter, counter: Iterator[int] | None = None
    ) -> ColumnElement[bool]:
        """Return the filter with the parameters ``p0``, ``p1``, … in the order in which :meth:`shape` collects.

        A statement with two filters numbers the parameters of both with one ``counter``.
        """
        columns = self._columns[collection.name]
        counter = counter or iter(range(1_000_000))

        def build(node: Filter) -> ColumnElement[bool]:
            if isinstance(node, Not):
                return sa.not_(build(node.item).self_group())
            if isinstance(node, And):
                return sa.and_(sa.true(), *[build(item) for item in node.items])
            if isinstance(node, Or):
                return sa.or_(sa.false(), *[build(item) for item in node.items])
            column = columns[node.field.name]
            if node.field.kind is Kind.JSON:
                names = [f"p{next(counter)}" for _ in self._dialect.json_path(node.path)]
                name = None if node.operator == "is_null" else f"p{next(counter)}"
                return self._json(column, node, names, name)
            if node.operator == "is_null":
                return column.is_(None)
            return self._comparison(column, node, f"p{next(counter)}")

        return build(root)

    def _comparison(self, column: ColumnElement[Any], node: Comparison, name: str) -> ColumnElement[bool]:
        if node.operator == "in":
            return self._dialect.any_of(column, node.field, name)
        if node.operator == "has":
            return self._dialect.has(column, node.field, name)
        value = sa.bindparam(name, type_=self._dialect.parameter_type(node.field))
        compare = _COMPARE.get(node.operator)
        if compare is not None:
            return compare(column, value)  # type: ignore[no-any-return]
        method: Callable[..., ColumnElement[bool]] = getattr(self._dialect, node.operator)
        return method(column, value)

    def _json(
        self, column: ColumnElement[Any], node: Comparison, names: list[str], name: str | None
    ) -> ColumnElement[bool]:
        """A value of another type than the one compared with is unequal; a missing one is null."""
        kind, value_as = self._dialect.json_at(column, node.path, names)
        missing = sa.or_(kind.is_(None), kind == sa.literal_column("'null'"))
        if name is None:
            return missing
        wanted = _json_type(node.value)
        types: list[ColumnElement[str]] = [
            sa.literal_column(f"'{item}'") for item in self._dialect.json_types[wanted]
        ]
        value = sa.bindparam(name, type_=_JSON_SQL_TYPES[wanted])
        matches = _COMPARE[node.operator](value_as(wanted), value)
        return sa.case((missing, sa.null()), (kind.in_(types), matches), else_=sa.false())


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


_JSON_SQL_TYPES: dict[type, sa.types.TypeEngine[Any]] = {
    str: sa.Text(),
    float: sa.Numeric(),
    bool: sa.Boolean(),
}


def _json_type(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else float
