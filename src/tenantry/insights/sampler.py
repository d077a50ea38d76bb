"""Picks the slow queries that are worth asking the database how it runs them."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import NamedTuple

from tenantry.context import TenantContext
from tenantry.hooks import Operation
from tenantry.query import Query

AGAIN = 600.0
"""Seconds for which the explanation of a shape is taken to be true."""

_WAITING = 16
_RETURNED = frozenset({"read"})
# An aggregate looks at the same rows as the count of them.
_COUNTED = frozenset({"count", "aggregate"})


class Sample(NamedTuple):
    """One query that was slow. It holds values of a tenant, is never stored, and soon forgotten."""

    key: Hashable
    context: TenantContext
    query: Query
    counted: bool
    seconds: float


class Sampler:
    """Keeps the slowest query of each of a few shapes until somebody has time for one.

    Args:
        floor: Seconds below which no query is of interest.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self._waiting: dict[Hashable, Sample] = {}
        self._done: dict[Hashable, float] = {}

    def offer(self, key: Hashable, operation: Operation, context: TenantContext) -> None:
        """Keep the query, if it is the slowest of its shape and that was not explained lately."""
        if operation.query is None or operation.error is not None:
            return
        counted = operation.verb in _COUNTED
        if not counted and operation.verb not in _RETURNED:
            return
        kept = self._waiting.get(key)
        if kept is None and (len(self._waiting) >= _WAITING or self._is_known(key)):
            return
        if kept is None or kept.seconds < operation.seconds:
            self._waiting[key] = Sample(key, context, operation.query, counted, operation.seconds)

    def _is_known(self, key: Hashable) -> bool:
        explained = self._done.get(key)
        return explained is not None and time.monotonic() - explained < AGAIN

    def take(self) -> Sample | None:
        """Return the slowest query that waits, and forget it."""
        if not self._waiting:
            return None
        sample = max(self._waiting.values(), key=lambda waiting: waiting.seconds)
        del self._waiting[sample.key]
        now = time.monotonic()
        self._done = {key: when for key, when in self._done.items() if now - when < AGAIN}
        self._done[sample.key] = now
        return sample

    def begin_anew(self) -> None:
        """Forget all queries, and what was explained: indexes have changed."""
        self._waiting.clear()
        self._done.clear()
