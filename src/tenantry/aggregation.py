"""What can be counted and summed up: a frozen :class:`Aggregation`, checked before any adapter sees it.

Its arithmetic is exact and the same on every database, but for floats, whose last digits depend on the order in which
they are added. Nulls are passed over, as SQL passes over them: of no value at all every measure but a count is null.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Literal

import msgspec

from tenantry.query import EVERYTHING, Deleted, Filter, Sort
from tenantry.schema import Collection, Field

Function = Literal["count", "sum", "avg", "min", "max"]
Unit = Literal["hour", "day", "week", "month", "quarter", "year"]

MORE_PLACES = 6
"""How many digits behind the point a mean has more than what it is the mean of."""


class Measure(msgspec.Struct, frozen=True):
    """One figure of each group.

    Attributes:
        result: Its name and what it is; the sum of integers is a decimal without places, and yields an ``int``.
        function: What is done with the values.
        field: Whose values; ``None`` counts rows.
        distinct: Whether equal values count once.
    """

    result: Field
    function: Function
    field: Field | None = None
    distinct: bool = False


class Group(msgspec.Struct, frozen=True):
    """What the rows of one group have in common: the value of a field, or the span of time that it lies in.

    Attributes:
        result: Its name and what it is.
        field: Whose value.
        unit: The span, named by its first moment; ``None`` for the value itself.
        zone: Where days begin, by its name in the IANA database.
    """

    result: Field
    field: Field
    unit: Unit | None = None
    zone: str = "UTC"


class Aggregation(msgspec.Struct, frozen=True):
    """A checked aggregation over one collection.

    Attributes:
        measures: The figures, at least one.
        groups: What the groups differ in; without any, all rows are one group, also where there are none.
        filter: What rows must meet.
        having: What groups must meet; its fields are results.
        order: The sort keys, of results; together they are unique.
        limit: The most groups to return; ``None`` for all.
        deleted: Whether rows count that are marked as deleted.
    """

    collection: Collection
    measures: tuple[Measure, ...]
    groups: tuple[Group, ...] = ()
    filter: Filter = EVERYTHING
    having: Filter = EVERYTHING
    order: tuple[Sort, ...] = ()
    limit: int | None = None
    deleted: Deleted = "without"

    @property
    def results(self) -> tuple[Field, ...]:
        """What each record has: the groups, then the measures."""
        groups = tuple(group.result for group in self.groups)
        return (*groups, *(measure.result for measure in self.measures))


def mean(total: int, count: int) -> int:
    """Return ``total / count``, rounded half away from zero, in units that are smaller by ``MORE_PLACES`` digits."""
    size: int = (2 * abs(total) * 10**MORE_PLACES + count) // (2 * count)
    return size if total >= 0 else -size


def begin(value: dt.datetime, unit: Unit, zone: str) -> dt.datetime:
    """Return the first moment of the span around ``value``, in UTC.

    A midnight that the clock skips is taken as the moment of the change; of one that it shows twice, the later counts.
    """
    try:
        local = value.astimezone(zoneinfo.ZoneInfo(zone))
        if unit == "hour":
            # The clock's hour, not the day's: an offset that changes within the day has no part in it.
            past = dt.timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return value - past
        midnight = dt.datetime.combine(first_day(local.date(), unit), dt.time(), local.tzinfo)
        offsets = [midnight.replace(fold=fold).utcoffset() or dt.timedelta() for fold in (0, 1)]
        return (midnight.replace(tzinfo=None) - min(offsets)).replace(tzinfo=dt.UTC)
    except OverflowError:  # at the edges of the calendar
        return dt.datetime.min.replace(tzinfo=dt.UTC) if value.year == 1 else value


def first_day(day: dt.date, unit: Unit) -> dt.date:
    """Return the first day of the span around ``day``; weeks begin on Mondays."""
    if unit == "week":
        return day - dt.timedelta(days=day.weekday())
    if unit == "month":
        return day.replace(day=1)
    if unit == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(month=1, day=1) if unit == "year" else day
