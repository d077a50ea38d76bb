"""Finds what is asked over and over: one query for each row of an earlier read (N+1), and page after page."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable
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

    def __init__(self, task: weakref.ref[Any] | None) -> None:
        self.task = task
        self.many: Hashable = None
        self.began = 0.0
        self.after = ""
        self.asked: dict[Hashable, int] = {}

    def begin(self, key: Hashable, collection: Collection, now: float) -> None:
        self.many, self.began, self.after = key, now, collection.name
        self.asked = {}


class Repeats:
    """Watches operations. What counts is what was asked, whatever of it the SDK then sent together."""

    def __init__(self) -> None:
        self._requests: dict[Hashable, _Request] = {}

    def see(
        self, operation: Operation, context: TenantContext, key: Hashable, paged: bool, now: float
    ) -> Repetition | None:
        """Note one operation, and say if it is a repetition."""
        collection = operation.collection
        if operation.verb not in _ASKED or collection is None:
            return None
        request = self._request_of(context)
        if request is None:
            return None
        alone = request.many is None or now - request.began > WINDOW
        if alone or (key == request.many and not paged):
            if operation.verb == "read" and operation.rows > 1:
                request.begin(key, collection, now)
            elif alone:
                request.many = None
            return None
        number = request.asked[key] = request.asked.get(key, 0) + 1
        if number < TIMES:
            return None
        return Repetition(number == TIMES, TIMES if number == TIMES else 1, request.after)

    def _request_of(self, context: TenantContext) -> _Request | None:
        if context.request_id is not None:
            return self._remembered((context.tenant_id, context.request_id), None)
        task = asyncio.current_task()
        return None if task is None else self._remembered(id(task), task)

    def _remembered(self, place: Hashable, task: Any) -> _Request:
        request = self._requests.get(place)
        # The number of a task that is over is soon that of another one.
        if request is not None and (request.task is None or request.task() is task):
            return request
        self._requests.pop(place, None)
        request = self._requests[place] = _Request(None if task is None else weakref.ref(task))
        if len(self._requests) > _REQUESTS:
            del self._requests[next(iter(self._requests))]
        return request
