"""Counts operations by shape, in bounded memory: the after hook of the insights."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

from msgspec.structs import replace

from tenantry.context import TenantContext
from tenantry.hooks import Operation
from tenantry.insights.counts import Counted, Counts, Frequent
from tenantry.insights.histogram import bucket_of
from tenantry.insights.repeats import Repeats, Repetition
from tenantry.insights.sampler import Sampler
from tenantry.insights.shape import Shape, key_of, shape_of

MAX_SHAPES = 500
_KEYS = 4 * MAX_SHAPES  # a shape has a key for each order in which its conditions were written
_OTHERS = "(others)"


class _Series:
    """One shape: its numbers since the last turn of the hour, and those from before."""

    __slots__ = ("before", "counts", "shape", "tenants")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.counts = Counts()
        self.before = Counts()
        self.tenants = Frequent()

    def repeated(self, repetition: Repetition) -> None:
        counts = self.counts
        if self.shape.paged:
            counts.pages += repetition.first
        else:
            counts.loops += repetition.first
            counts.looped += repetition.times
            counts.after = repetition.after


class Collector:
    """Counts each operation.

    Args:
        sampler: Is offered each query that may be worth an explanation.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._series: dict[Hashable, _Series] = {}
        self._shapes: dict[Shape, _Series] = {}
        self._repeats = Repeats()
        self.changed = False
        self.unnamed = 0

    def __call__(self, operation: Operation) -> None:
        """Count one operation. Every operation passes through here, so it does nothing that can wait."""
        key = key_of(operation)
        series = self._series.get(key) or self._found(key, operation)
        counts, seconds, rows = series.counts, operation.seconds, operation.rows
        counts.count += 1
        counts.seconds += seconds
        latency, bucket = counts.latency, bucket_of(seconds)
        latency[bucket] = latency.get(bucket, 0) + 1
        if operation.error is not None:
            counts.errors += 1
        if rows:
            counts.rows += rows
            if rows > counts.most:
                counts.most = rows
        self.changed = True
        context = operation.context
        if not isinstance(context, TenantContext):
            return
        series.tenants.add(context.tenant_id)
        repetition = self._repeats.see(operation, context, series, series.shape.paged)
        if repetition is not None:
            series.repeated(repetition)
        if seconds >= self._sampler.floor and operation.query is not None:
            self._sampler.offer(series, operation, context)

    def _found(self, key: Hashable, operation: Operation) -> _Series:
        """Return the series of a key that is new; where there are too many shapes, that of all others like it."""
        if len(self._series) >= _KEYS:
            self.unnamed += 1
            return self._of(_others(operation))
        shape = shape_of(operation)
        if shape not in self._shapes and len(self._shapes) >= MAX_SHAPES:
            self.unnamed += 1
            shape = _others(operation)
        series = self._series[key] = self._of(shape)
        return series

    def _of(self, shape: Shape) -> _Series:
        series = self._shapes.get(shape)
        if series is None:
            series = self._shapes[shape] = _Series(shape)
        return series

    def explained(self, key: Hashable, counts: Counts) -> None:
        """Add what was found out about the shape that :class:`Sampler` was offered as ``key``."""
        assert isinstance(key, _Series)
        key.counts.add(counts)
        self.changed = True

    def of_this_hour(self) -> list[Counted]:
        """Return the numbers since the last :meth:`turn`."""
        return [Counted(item.shape, item.counts) for item in self._shapes.values() if item.counts.count]

    def turn(self) -> None:
        """Begin to count anew for the store; :meth:`totals` goes on."""
        for series in self._shapes.values():
            series.before.add(series.counts)
            series.counts = Counts()

    def totals(self) -> Iterator[tuple[Counted, Mapping[str, int]]]:
        """Yield the numbers since the process began to count, each with those of its most frequent tenants."""
        for series in self._shapes.values():
            whole = replace(series.before, latency=dict(series.before.latency))
            whole.add(series.counts)
            yield Counted(series.shape, whole), dict(series.tenants.counts)


def _others(operation: Operation) -> Shape:
    collection = operation.collection
    name = "" if collection is None else collection.name
    return Shape(operation.verb, name, f"{operation.verb} {name} {_OTHERS}")
