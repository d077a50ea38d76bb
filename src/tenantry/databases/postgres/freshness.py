"""Whether what a replica shows a tenant is new enough for it.

Nothing is asked of the server for that. A replica is *fresh as of* a moment of this process's clock if it has replayed
all that was committed before that moment. It may answer a tenant if that is later than the last write of the tenant
through this process, so that it reads its own writes; and where the tenant read last from somewhere else, later than
that read, so that what it reads never goes back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Final

MAX_TENANTS: Final = 100_000
_MAX_MARKS: Final = 1_000


class Marks:
    """Positions in the primary's log, each with a moment before it was read."""

    def __init__(self) -> None:
        self.timeline = -1
        self._marks: deque[tuple[float, int]] = deque(maxlen=_MAX_MARKS)

    def add(self, moment: float, position: int, timeline: int) -> None:
        """Remember a position. On another timeline, those of the one before mean nothing."""
        if timeline != self.timeline:
            self.timeline = timeline
            self._marks.clear()
        self._marks.append((moment, position))

    def reached(self, position: int) -> float:
        """Return the latest moment all of whose commits come before ``position``."""
        return next((moment for moment, mark in reversed(self._marks) if mark <= position), -inf)


class _Contact:
    __slots__ = ("home", "moment", "waiting_since", "writing", "written")

    def __init__(self, moment: float) -> None:
        self.home: object = None  # who answered last: a replica's life, or None for the primary
        self.moment = moment  # of the last answer
        self.written = moment
        self.writing = 0
        self.waiting_since = inf  # since when nothing but its own reading keeps it from a replica


class Contacts:
    """When each tenant last read and wrote through this process.

    Of the tenants that were here longest ago it only knows the latest moment of them all, which holds for each.
    """

    def __init__(self, limit: int = MAX_TENANTS) -> None:
        self._limit = limit
        self._known: OrderedDict[str, _Contact] = OrderedDict()
        self._others = monotonic()
        self._shared = _Contact(self._others)
        self._turn = threading.Lock()  # connections of one's own are bound in any thread

    def __len__(self) -> int:
        return len(self._known)

    def allows(self, tenant: str, life: object, fresh_as_of: float) -> bool:
        """Whether a replica that is fresh as of a moment may answer the tenant."""
        with self._turn:
            contact = self._of(tenant)
            shared = self._shared
            if contact.writing or shared.writing or fresh_as_of <= max(contact.written, shared.written):
                contact.waiting_since = inf
                return False
            if contact.home is life or fresh_as_of > contact.moment:
                contact.waiting_since = inf
                return True
            contact.waiting_since = min(contact.waiting_since, monotonic())
            return False

    def waits_since(self, tenant: str) -> float:
        """Return since when nothing but its own reading from elsewhere keeps a tenant from a replica."""
        with self._turn:
            return self._of(tenant).waiting_since

    def answered(self, tenant: str, life: object) -> None:
        """A replica, or for ``None`` the primary, has answered."""
        with self._turn:
            contact = self._of(tenant)
            contact.home, contact.moment = life, monotonic()

    @contextmanager
    def writing(self, tenant: str | None) -> Iterator[None]:
        """Note that the tenant, or for ``None`` the system on rows that all see, writes while the block runs.

        Others may see its rows from the moment of the commit, which comes before its end.
        """
        with self._turn:
            contact = self._shared if tenant is None else self._of(tenant)
            contact.writing += 1
        try:
            yield
        finally:
            with self._turn:
                contact.writing -= 1
                contact.written = contact.moment = monotonic()

    def _of(self, tenant: str) -> _Contact:
        contact = self._known.get(tenant)
        if contact is not None:
            self._known.move_to_end(tenant)
            return contact
        contact = self._known[tenant] = _Contact(self._others)
        if len(self._known) > self._limit:
            oldest, forgotten = self._known.popitem(last=False)
            if forgotten.writing:
                self._known[oldest] = forgotten
            else:
                self._others = max(self._others, forgotten.moment, forgotten.written)
        return contact
