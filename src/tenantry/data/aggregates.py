"""Counting and summing up rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from tenantry.aggregates import MAX_GROUPS, GroupBy, Measures, parse_aggregation
from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.errors import InvalidQuery
from tenantry.filters import Where
from tenantry.query import Deleted, Query, parse_deleted
from tenantry.schema import KeyedModel
from tenantry.types import Record


class Aggregates(Calls):
    """The call that aggregates rows."""

    async def aggregate(
        self,
        collection: type[KeyedModel] | str,
        measures: Measures,
        where: Where = None,
        *,
        group_by: GroupBy = (),
        having: Mapping[str, Any] | None = None,
        order_by: Sequence[str] | str | None = None,
        limit: int | None = None,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> list[Record]:
        """Return a record of each group of rows; without ``group_by``, one of all rows.

        Args:
            collection: A model or a name.
            measures: ``{"orders": Count(), "revenue": Sum("total")}``, or in JSON ``{"revenue": {"sum": "total"}}``.
            where: What rows must meet; as for :meth:`read`.
            group_by: Names of fields, or ``{"day": Trunc("created_at", "day")}``.
            having: What groups must meet: a filter over the names of measures and groups.
            order_by: Names of measures and groups, ``-`` in front for descending. Ties are ordered by the groups.
            limit: The most groups, 1 to 10,000; without it, more than 10,000 are refused.
            deleted: ``with`` rows that are marked as deleted, or those ``only``.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault.
        """
        found, _ = self._readable(collection)
        aggregation = replace(
            parse_aggregation(found, measures, where, group_by, having, order_by, limit),
            deleted=parse_deleted(found, deleted),
        )
        query = Query(found, (), aggregation.filter, deleted=aggregation.deleted)
        scope = await self._admitted(context)
        started = time.perf_counter()
        try:
            groups = await self._executor.aggregate(scope, aggregation)
            if limit is None and len(groups) > MAX_GROUPS:
                raise InvalidQuery(
                    f"there are more than {MAX_GROUPS:,} groups.",
                    path="group_by",
                    fix="Say which are wanted: order_by and limit, having, or a filter.",
                )
        except BaseException as error:
            self._after("aggregate", found, scope, started, error=error, query=query)
            raise
        self._after("aggregate", found, scope, started, rows=len(groups), query=query)
        return groups
