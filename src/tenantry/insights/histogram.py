"""Latencies in logarithmic buckets: two histograms add up to that of both, and percentiles have a stated error."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log

RELATIVE_ERROR = 0.05
"""A percentile is within this share of the latency that it stands for, above a microsecond."""

_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / log(_GROWTH)
_SHORTEST = 1e-6

Buckets = dict[int, int]
"""How many latencies fell into each bucket, by its number; empty buckets are left out."""


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket of a latency."""
    return 0 if seconds <= _SHORTEST else ceil(log(seconds * 1e6) * _PER_LOG)


def merge(into: Buckets, other: Mapping[int, int]) -> None:
    """Add the latencies of ``other``."""
    for bucket, number in other.items():
        into[bucket] = into.get(bucket, 0) + number


def percentile(buckets: Mapping[int, int], share: float) -> float:
    """Return the latency that ``share`` of all latencies do not exceed, in seconds; 0 if there are none."""
    wanted, seen = share * sum(buckets.values()), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            # The value whose relative distance to both ends of the bucket is the same.
            return _SHORTEST * 2 * _GROWTH**bucket / (_GROWTH + 1)
    return 0.0
