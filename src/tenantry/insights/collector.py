"""Counts operations by shape, in bounded memory: the after hook of the insights."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping

from msgspec.structs import replace

from tenantry.context import TenantContext
from tenantry.hooks import Operation
from tenantry.insights.counts import Counted, Counts, Frequent
from tenantry.insights.histogram import bucket_of
from tenantry.insights.repeats import Repeats
from tenantry.insights.sampler import Sampler
from tenantry.insights.shape import Shape, key_of, shape_of

MAX_SHAPES = 500
_OTHERS = "(others)"


class _Series:
    """One shape: its numbers since the last turn of the hour, and those from before."""

    __slots__ = ("before", "counts", "shape", "tenants")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.counts = Counts()
        self.before = Counts()
        self.tenants = Frequent()


class Collector:
    """Counts each operation.

    Args:
        sampler: Is offered each query that may be worth an explanation.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._series: dict[Hashable, _Series] = {}
        self._repeats = Repeats()
        self.changed = False
        self.unnamed = 0

    def __call__(self, operation: Operation) -> None:
        """Count one operation. Every operation passes through here, so it does nothing that can wait."""
        key = key_of(operation)
        series = self._series.get(key)
        if series is None:
            key, series = self._new(key, operation)
        counts, seconds = series.counts, operation.seconds
        counts.count += 1
        counts.seconds += seconds
        bucket = bucket_of(seconds)
        counts.latency[bucket] = counts.latency.get(bucket, 0) + 1
        if operation.error is not None:
            counts.errors += 1
        if operation.rows:
            counts.rows += operation.rows
            if operation.rows > counts.most:
                counts.most = operation.rows
        self.changed = True
        context = operation.context
        if not isinstance(context, TenantContext):
            return
        series.tenants.add(context.tenant_id)
        paged = series.shape.paged
        repetition = self._repeats.see(operation, context, key, paged, time.monotonic())
        if repetition is not None:
            if paged:
                counts.pages += repetition.first
            else:
                counts.loops += repetition.first
                counts.looped += repetition.times
                counts.after = repetition.after
        if seconds >= self._sampler.floor and operation.query is not None:
            self._sampler.offer(key, operation, context)

    def _new(self, key: Hashable, operation: Operation) -> tuple[Hashable, _Series]:
        """Return the series of a shape that is new; where there are too many, that of all others like it."""
        shape = shape_of(operation)
        if len(self._series) >= MAX_SHAPES:
            self.unnamed += 1
            key = (shape.verb, shape.collection, _OTHERS)
            shape = Shape(shape.verb, shape.collection, f"{shape.verb} {shape.collection} {_OTHERS}")
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = _Series(shape)
        return key, found

    def explained(self, key: Hashable, counts: Counts) -> None:
        """Add what was found out about a shape."""
        series = self._series.get(key)
        if series is not None:
            series.counts.add(counts)
            self.changed = True

    def of_this_hour(self) -> list[Counted]:
        """Return the numbers since the last :meth:`turn`."""
        return [Counted(item.shape, item.counts) for item in self._series.values() if item.counts.count]

    def turn(self) -> None:
        """Begin to count anew for the store; :meth:`totals` goes on."""
        for series in self._series.values():
            series.before.add(series.counts)
            series.counts = Counts()

    def totals(self) -> Iterator[tuple[Counted, Mapping[str, int]]]:
        """Yield the numbers since the process began to count, each with those of its most frequent tenants."""
        for series in self._series.values():
            whole = replace(series.before, latency=dict(series.before.latency))
            whole.add(series.counts)
            yield Counted(series.shape, whole), dict(series.tenants.counts)
