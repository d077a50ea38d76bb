"""Aggregations as SQL: the columns of their results, and what must be true of a group."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from tenantry.aggregation import Aggregation, Group, Measure
from tenantry.databases._dialect import Decoder, SQLDialect
from tenantry.databases._filters import FilterCompiler
from tenantry.grouping import finite
from tenantry.schema import Kind

Columns = Mapping[str, ColumnElement[Any]]


class AggregateCompiler:
    """Compiles aggregations for one dialect; which rows they reach is none of its business."""

    def __init__(self, dialect: SQLDialect, filters: FilterCompiler) -> None:
        self._dialect = dialect
        self._filters = filters

    def shape(self, aggregation: Aggregation, values: list[Any]) -> Any:
        """Return what is the same for aggregations that differ in values alone, and append the values."""
        collection = aggregation.collection
        return (
            tuple(
                (group.result.name, group.field.name, group.unit, group.zone) for group in aggregation.groups
            ),
            tuple(map(_measure_shape, aggregation.measures)),
            self._filters.shape(collection, aggregation.filter, values),
            self._having(aggregation).shape(collection, aggregation.having, values),
            tuple((sort.field.name, sort.descending) for sort in aggregation.order),
            aggregation.limit is not None,
        )

    def statement(self, aggregation: Aggregation, table: sa.Table) -> sa.Select[Any]:
        """Return the statement over all rows of ``table`` that meet the filter."""
        columns = self._columns(aggregation, table)
        counter = iter(range(1_000_000))
        built = sa.select(*(column.label(name) for name, column in columns.items())).select_from(table)
        built = built.where(self._filters.expression(aggregation.collection, aggregation.filter, counter))
        if aggregation.groups:
            built = built.group_by(*(columns[group.result.name] for group in aggregation.groups))
            having = self._having(aggregation, columns)
            built = built.having(having.expression(aggregation.collection, aggregation.having, counter))
        for sort in aggregation.order:
            column, nullable = columns[sort.field.name], sort.field.nullable
            built = built.order_by(self._dialect.order(column, descending=sort.descending, nullable=nullable))
        return built

    def decoders(self, aggregation: Aggregation) -> list[tuple[str, Decoder | None]]:
        """Return what turns the driver's values into those of the results."""
        groups = [(group.result.name, self._dialect.decoder(group.result)) for group in aggregation.groups]
        measures = [(item.result.name, self._decoder(item)) for item in aggregation.measures]
        return groups + measures

    def _having(self, aggregation: Aggregation, columns: Columns | None = None) -> FilterCompiler:
        name = aggregation.collection.name
        encoders = {(name, item.name): self._dialect.encoder(item) for item in aggregation.results}
        return FilterCompiler(self._dialect, {name: columns or {}}, encoders)

    def _columns(self, aggregation: Aggregation, table: sa.Table) -> dict[str, ColumnElement[Any]]:
        columns: dict[str, ColumnElement[Any]] = {}
        for group in aggregation.groups:
            columns[group.result.name] = self._group(group, table)
        for measure in aggregation.measures:
            columns[measure.result.name] = self._measure(measure, table)
        return columns

    def _group(self, group: Group, table: sa.Table) -> ColumnElement[Any]:
        column = table.c[group.field.name]
        if group.unit is None:
            return column
        return self._dialect.begin(column, group.field, group.unit, group.zone)

    def _measure(self, measure: Measure, table: sa.Table) -> ColumnElement[Any]:
        if measure.field is None:
            return sa.func.count()
        column: ColumnElement[Any] = table.c[measure.field.name]
        if measure.function == "count":
            return sa.func.count(sa.distinct(column) if measure.distinct else column)
        if measure.function in ("min", "max"):
            return sa.func.min(column) if measure.function == "min" else sa.func.max(column)
        if measure.field.kind is Kind.FLOAT:
            return sa.func.sum(column) if measure.function == "sum" else sa.func.avg(column)
        if measure.function == "sum":
            return self._dialect.exact_sum(column, measure.field, measure.result)
        return self._dialect.exact_mean(column, measure.field, measure.result)

    def _decoder(self, measure: Measure) -> Decoder | None:
        if measure.field is None or measure.function == "count":
            return None
        if measure.function in ("sum", "avg") and measure.field.kind is Kind.FLOAT:
            return partial(finite, measure)
        decode = self._dialect.decoder(measure.result)
        if measure.function == "sum" and measure.field.kind is Kind.INT:
            return int if decode is None else lambda value: int(decode(value))
        return decode


def _measure_shape(measure: Measure) -> Any:
    field = None if measure.field is None else measure.field.name
    return (measure.result.name, measure.function, field, measure.distinct)
