"""How long was waited, in a few counters whatever the number of waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

# Upper bounds of the buckets, in seconds; each is twice the one before: 50 µs to 26 s.
_BOUNDS: Final = tuple(0.00005 * float(1 << step) for step in range(20))


class Waits:
    """A histogram of waits. Who did not have to wait is not in it."""

    __slots__ = ("_buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self._buckets = [0] * (len(_BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """Count one wait."""
        self.count += 1
        self.seconds += seconds
        bucket = int(seconds / _BOUNDS[0]).bit_length()
        self._buckets[bucket if bucket < len(_BOUNDS) else -1] += 1

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the time that the block takes, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(time.monotonic() - started)

    def percentile(self, share: float) -> float:
        """Return the upper bound of the bucket that holds the percentile, in seconds; 0 if nobody waited."""
        wanted, seen = share * self.count, 0
        if not self.count:
            return 0.0
        for bound, number in zip(_BOUNDS, self._buckets, strict=False):
            seen += number
            if seen >= wanted:
                return bound
        return float("inf")

    def snapshot(self) -> dict[str, Any]:
        """Return ``waits``, ``wait_seconds``, ``wait_p50`` and ``wait_p95``, times in seconds."""
        return {
            "waits": self.count,
            "wait_seconds": self.seconds,
            "wait_p50": self.percentile(0.5),
            "wait_p95": self.percentile(0.95),
        }
