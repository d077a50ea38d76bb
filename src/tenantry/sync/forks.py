"""What becomes of open sessions when the process forks.

A child process has no thread but the one that forked: the loops of its parent do not run there, and their connections
are the parent's. So the child forgets them, untouched, and opens anew what it uses.

A database in a file is worse: its library keeps in memory which locks the process holds, and the child inherits that
memory but not the locks. So the file is closed while the process forks, if nothing is under way.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging
import os
import threading
import weakref
from typing import Protocol

SECONDS = 5.0  # that a fork waits for what is under way


class Forked(Protocol):
    """What has to be told of a fork."""

    def before_fork(self, seconds: float) -> None:
        """Get ready, in the parent."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Forget what is the parent's."""


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.members: weakref.WeakSet[Forked] = weakref.WeakSet()
        self.told: list[Forked] = []

    def before(self) -> None:
        self.lock.acquire()
        self.told = list(self.members)
        for member in self.told:
            member.before_fork(SECONDS)

    def in_parent(self) -> None:
        told, self.told = self.told, []
        for member in told:
            member.after_fork_in_parent()
        self.lock.release()

    def in_child(self) -> None:
        told, self.told = self.told, []
        for member in told:
            member.after_fork_in_child()
        self.lock.release()


_registry = _Registry()

# Both take a lock before a fork, which closing a file needs. The last to register is called first, so they come first.
_FIRST = (concurrent.futures.thread, logging)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_registry.before,
        after_in_parent=_registry.in_parent,
        after_in_child=_registry.in_child,
    )


def tell(member: Forked) -> None:
    """Tell ``member`` of every fork, for as long as it lives."""
    with _registry.lock:
        _registry.members.add(member)
