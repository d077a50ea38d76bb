"""Percentiles have a stated error, and histograms add up."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tenantry.insights.histogram import RELATIVE_ERROR, bucket_of, merge, percentile

latencies = st.lists(st.floats(2e-6, 3_600.0), min_size=1, max_size=60)


def buckets(values: Sequence[float]) -> dict[int, int]:
    found: dict[int, int] = {}
    for value in values:
        merge(found, {bucket_of(value): 1})
    return found


@given(latencies, st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_a_percentile_is_within_the_stated_error(values: list[float], share: float) -> None:
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    assert abs(percentile(buckets(values), share) - true) <= RELATIVE_ERROR * true * 1.000_001


@given(latencies, latencies)
def test_two_histograms_are_that_of_both(one: list[float], other: list[float]) -> None:
    together = buckets(one)
    merge(together, buckets(other))
    assert together == buckets([*one, *other])


def test_what_takes_no_time_is_in_the_first_bucket() -> None:
    assert bucket_of(0.0) == bucket_of(1e-9) == bucket_of(-1.0) == 0
    assert percentile({}, 0.95) == 0.0


def test_a_year_needs_few_buckets() -> None:
    assert bucket_of(31_536_000.0) < 400
