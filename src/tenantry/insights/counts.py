"""What is counted of one shape."""

from __future__ import annotations

from typing import Any

import msgspec

from tenantry.insights import histogram
from tenantry.insights.shape import Shape
from tenantry.ports import Plan

MAX_TENANTS = 16


class Counts(msgspec.Struct, omit_defaults=True):
    """The numbers of one shape; those of two processes add up.

    Attributes:
        count: How often it was asked.
        errors: How often that failed.
        seconds: How long all of them took together.
        rows: How many rows they returned together.
        most: The most rows that one of them returned.
        latency: Their latencies, see :mod:`tenantry.insights.histogram`.
        loops: In how many requests it was asked over and over, after one read of many rows.
        looped: How often it was asked in those.
        after: The collection that was read before, in the last of those.
        pages: In how many requests it was asked over and over with a cursor.
        plan: How the database found the rows when it was last asked how.
    """

    count: int = 0
    errors: int = 0
    seconds: float = 0.0
    rows: int = 0
    most: int = 0
    latency: dict[int, int] = msgspec.field(default_factory=dict)
    loops: int = 0
    looped: int = 0
    after: str = ""
    pages: int = 0
    plan: Plan | None = None

    def add(self, other: Counts) -> None:
        """Add the numbers of ``other``, which are the later ones."""
        self.count += other.count
        self.errors += other.errors
        self.seconds += other.seconds
        self.rows += other.rows
        self.most = max(self.most, other.most)
        histogram.merge(self.latency, other.latency)
        self.loops += other.loops
        self.looped += other.looped
        self.after = other.after or self.after
        self.pages += other.pages
        self.plan = other.plan or self.plan


class Counted(msgspec.Struct):
    """A shape and its numbers, as they are stored."""

    shape: Shape
    counts: Counts

    def stored(self) -> Any:
        """Return it as plain JSON."""
        return msgspec.to_builtins(self, str_keys=True)


def restored(data: Any) -> Counted:
    """Return what :meth:`Counted.stored` returned.

    Raises:
        msgspec.ValidationError: It is of another version.
    """
    return msgspec.convert(data, Counted, strict=False)


class Frequent:
    """The most frequent tenants of one shape, in bounded space (Misra and Gries): no count is too high."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, tenant: str) -> None:
        """Count one."""
        counts = self.counts
        if tenant in counts:
            counts[tenant] += 1
        elif len(counts) < MAX_TENANTS:
            counts[tenant] = 1
        else:
            self.counts = {name: number - 1 for name, number in counts.items() if number > 1}
