"""Finds what is asked over and over: one query for each row of an earlier read (N+1), and page after page."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable
from time import monotonic
from typing import Any, NamedTuple

from tenantry.context import TenantContext
from tenantry.hooks import Operation
from tenantry.schema import Collection

TIMES = 10
"""So often must one shape be asked in one request before it counts as a repetition."""

WINDOW = 2.0
"""Seconds after a read of many rows within which the repetitions count."""

_REQUESTS = 1_000
_ASKED = frozenset({"get", "read", "count"})


class Repetition(NamedTuple):
    """One shape was asked over and over in one request.

    Attributes:
        first: Whether this is noticed for the first time in this request.
        times: How often it was asked since the last notice.
        after: The collection of which many rows had been read before.
    """

    first: bool
    times: int
    after: str


class _Request:
    """What one request, or one task, has asked since it read many rows."""

    __slots__ = ("after", "asked", "began", "many", "task")

    def __init__(self, many: Hashable, collection: Collection, now: float, task: Any) -> None:
        self.many = many
        self.after = collection.name
        self.began = now
        self.asked: dict[Hashable, int] = {}
        self.task = None if task is None else weakref.ref(task)


class Repeats:
    """Watches operations. What counts is what was asked, whatever of it the SDK then sent together."""

    def __init__(self) -> None:
        self._requests: dict[Hashable, _Request] = {}

    def see(
        self, operation: Operation, context: TenantContext, key: Hashable, paged: bool
    ) -> Repetition | None:
        """Note one operation of the shape ``key``, and say if it is a repetition."""
        collection = operation.collection
        if operation.verb not in _ASKED or collection is None:
            return None
        task = None if context.request_id is not None else asyncio.current_task()
        place: Hashable = (context.tenant_id, context.request_id) if task is None else id(task)
        request = self._requests.get(place)
        # The number of a task that is over is soon that of another one.
        if request is not None and request.task is not None and request.task() is not task:
            request = None
        if request is None or (key == request.many and not paged) or monotonic() - request.began > WINDOW:
            if operation.verb == "read" and operation.rows > 1:
                self._begin(place, _Request(key, collection, monotonic(), task))
            return None
        number = request.asked[key] = request.asked.get(key, 0) + 1
        if number < TIMES:
            return None
        return Repetition(number == TIMES, TIMES if number == TIMES else 1, request.after)

    def _begin(self, place: Hashable, request: _Request) -> None:
        requests = self._requests
        requests.pop(place, None)
        requests[place] = request
        if len(requests) > _REQUESTS:
            del requests[next(iter(requests))]
