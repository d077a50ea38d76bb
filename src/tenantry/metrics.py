"""Counts and latencies of operations: the after hook that every SDK has."""

from __future__ import annotations

from typing import Any

from tenantry.hooks import Operation

# Upper bounds of the latency buckets, in seconds; each is twice the one before: 50 µs to 26 s.
_BOUNDS = tuple(0.00005 * float(1 << step) for step in range(20))


class _Series:
    __slots__ = ("buckets", "count", "errors", "rows", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.rows = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(_BOUNDS) + 1)

    def percentile(self, share: float) -> float:
        """Return the upper bound of the bucket that holds the percentile, in seconds."""
        wanted, seen = share * self.count, 0
        for bound, number in zip(_BOUNDS, self.buckets, strict=False):
            seen += number
            if seen >= wanted:
                return bound
        return float("inf")


class Metrics:
    """One series for each verb and collection; their number does not grow with tenants."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}

    def __call__(self, operation: Operation) -> None:
        """Count one operation."""
        name = "" if operation.collection is None else operation.collection.name
        key = (operation.verb, name)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        seconds = operation.seconds
        series.count += 1
        series.rows += operation.rows
        series.seconds += seconds
        if operation.error is not None:
            series.errors += 1
        # the bucket's number is the bit length of the time in units of the first bound
        bucket = int(seconds * 20_000).bit_length()
        series.buckets[bucket if bucket < len(_BOUNDS) else -1] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the series by ``verb.collection``, times in seconds."""
        return {
            f"{verb}.{name}" if name else verb: {
                "count": series.count,
                "errors": series.errors,
                "rows": series.rows,
                "seconds": series.seconds,
                "p50": series.percentile(0.5),
                "p99": series.percentile(0.99),
            }
            for (verb, name), series in self._series.items()
        }
