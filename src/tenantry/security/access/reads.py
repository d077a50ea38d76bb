"""Queries, narrowed to what a user may read."""

from __future__ import annotations

from msgspec.structs import replace

from tenantry.aggregation import Aggregation
from tenantry.query import Query
from tenantry.searching import Search
from tenantry.security.access.conditions import both, fields_of
from tenantry.security.access.permits import Permit


def reached(query: Query, permit: Permit, through: frozenset[str] = frozenset()) -> Query:
    """Return ``query`` over the rows that the user reaches through its filter, its order and the fields ``through``.

    Raises:
        FieldHidden: It names a field that is hidden from the user in every row.
    """
    filtered = fields_of(query.filter)
    ordered = frozenset(sort.field.name for sort in query.order)
    permit.check_fields(sorted(filtered), "where")
    permit.check_fields(sorted(ordered), "order_by")
    permit.check_fields(sorted(through), "fields")
    return replace(query, filter=both(query.filter, permit.condition(filtered | ordered | through)))


def searched(search: Search, permit: Permit) -> Search:
    """Return ``search`` over the rows that the user reaches through its filter and the fields that it looks into.

    One that looks into all searchable fields looks into those that the user may see.

    Raises:
        FieldHidden: It names a field that is hidden from the user in every row, or none is left.
    """
    every = tuple(field for field in search.collection.fields.values() if field.searchable)
    if search.fields == every:
        left = tuple(field for field in every if field.name in permit.fields)
        search = replace(search, fields=left or every)
    looked = frozenset(field.name for field in search.fields)
    filtered = fields_of(search.filter)
    permit.check_fields(sorted(looked), "fields")
    permit.check_fields(sorted(filtered), "where")
    # What a word may be mistyped for is told by all rows, so those that are hidden would have a say.
    return replace(search, filter=both(search.filter, permit.condition(looked | filtered)), typos=False)


def aggregated(aggregation: Aggregation, permit: Permit) -> Aggregation:
    """Return ``aggregation`` over the rows that the user reaches through its filter, groups and measures.

    Raises:
        FieldHidden: It names a field that is hidden from the user in every row.
    """
    filtered = fields_of(aggregation.filter)
    grouped = frozenset(group.field.name for group in aggregation.groups)
    measured = frozenset(item.field.name for item in aggregation.measures if item.field is not None)
    permit.check_fields(sorted(filtered), "where")
    permit.check_fields(sorted(grouped), "group_by")
    permit.check_fields(sorted(measured), "measures")
    condition = permit.condition(filtered | grouped | measured)
    return replace(aggregation, filter=both(aggregation.filter, condition))


def narrowed(query: Query, permit: Permit) -> tuple[Query, bool]:
    """Return ``query`` over the rows and fields that the user may read, and whether rows differ in their fields.

    A query for all fields gets of each row what is visible in it. Fields that are named are reached through, as those
    of a filter are.
    """
    everything = query.fields == tuple(query.collection.fields.values()) and not query.distinct
    if not everything:
        return reached(query, permit, frozenset(field.name for field in query.fields)), False
    query = reached(query, permit)
    wanted = permit.fields | permit.needed if permit.varied else permit.fields
    return replace(
        query, fields=tuple(field for field in query.fields if field.name in wanted)
    ), permit.varied
