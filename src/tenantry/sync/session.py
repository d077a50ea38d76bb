"""An asynchronous SDK, and the loop on which it runs in this process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from tenantry import sdk as asynchronous
from tenantry.errors import Closed, Unsupported
from tenantry.ports import Capability, Rests
from tenantry.sync import forks
from tenantry.sync.calls import Work
from tenantry.sync.lanes import Lane
from tenantry.sync.portal import Portal

T = TypeVar("T")


class Session:
    """Opens and closes the SDK on a loop of its own, and again in a child process that uses it.

    Attributes:
        sdk: The asynchronous SDK.
        generation: Changes when it is opened anew; what belongs to an earlier one is not used again.
    """

    def __init__(self, sdk: asynchronous.MultiTenantSDK) -> None:
        self.sdk = sdk
        self.generation = 0
        self._portal: Portal | None = None
        self._dormant = False  # to be opened again by whoever uses it
        self._lost = False  # it cannot be, in this process
        self._held = False
        self._paused: Portal | None = None
        self._renew()
        forks.tell(self)

    def _renew(self) -> None:
        self._opening = threading.Lock()
        self._local = threading.local()

    # -- life

    def open(self) -> None:
        """Open the SDK, unless it is."""
        check_no_loop()
        with self._opening:
            if self._portal is None:
                self._open()

    def _open(self) -> Portal:
        if self._lost:
            raise _lost()
        portal = Portal()
        try:
            portal.run(self.sdk.initialize)
        except BaseException:
            portal.close(self.sdk.close)
            raise
        self._dormant = False
        self.generation += 1
        self._finalizer = weakref.finalize(self, portal.release, self.sdk.close)
        self._finalizer.atexit = False
        self._portal = portal
        return portal

    def close(self) -> None:
        """Let what runs finish, fail what does not with ``Closed``, and end the thread."""
        check_no_loop()
        with self._opening:
            portal, self._portal = self._portal, None
            self._dormant = False
            if portal is None:
                return
            self._finalizer.detach()
            lane = self._lane
            if lane is not None:
                portal.abort(lane)  # this thread is here, and cannot end its blocks
            portal.close(self.sdk.close)

    def before_fork(self, seconds: float) -> None:
        """Let go of what a child could not leave alone, if nothing is under way; it is taken again on its next use."""
        self._held = self._opening.acquire(timeout=seconds)
        self._paused = None
        portal = self._portal
        database: object = self.sdk._database
        if not self._held or portal is None or self._lane is not None:
            return
        if isinstance(database, Rests) and portal.pause(self.sdk._rest, seconds):
            self._paused = portal

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._paused is not None:
            self._paused.resume()
        if self._held:
            self._opening.release()

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent: its thread does not exist here."""
        portal, self._portal = self._portal, None
        if portal is not None:
            self._finalizer.detach()
            self._dormant = True
            self._lost = self._cannot_follow()
            self.generation += 1
            portal.kept.append(self.sdk._abandon())
        self._lost = self._lost or not self._held
        self._renew()

    def _cannot_follow(self) -> bool:
        """Whether this process cannot open again what its parent has open."""
        if Capability.FORK not in self.sdk.capabilities:
            return True
        return self._paused is None and isinstance(self.sdk._database, Rests)

    def _reopened(self) -> Portal:
        with self._opening:
            if self._portal is not None:
                return self._portal
            if self._dormant:
                return self._open()
        raise Closed(
            "The SDK is not open.",
            fix="Use it inside `with MultiTenantSDK.open(…) as sdk`, or initialize() it.",
        )

    # -- calls

    def ensure(self) -> Portal:
        """Return the portal of this process; a child process opens one of its own."""
        return self._portal or self._reopened()

    @property
    def _lane(self) -> Lane | None:
        return getattr(self._local, "lane", None)

    def run(self, work: Work[T], pin: Lane | None = None) -> T:
        """Run ``work`` on the loop and wait for it.

        Args:
            work: Makes what is awaited, on the loop.
            pin: The lane that it belongs to, and its thread.
        """
        check_no_loop()
        lane = self._lane
        if pin is not None and pin is not lane:
            refuse(pin)
        return self.ensure().run(work, lane=lane)

    def now(self, work: Callable[[], T]) -> T:
        """Run what does not wait: on the loop, if there is one."""

        async def run() -> T:
            return work()

        return work() if self._portal is None else self.run(run)

    def enter(
        self, manager: Callable[[], AbstractAsyncContextManager[T]]
    ) -> tuple[AbstractAsyncContextManager[T], T, Lane]:
        """Enter a block in the lane of this thread."""
        check_no_loop()
        portal, lane = self.ensure(), self._lane
        if lane is None:
            lane = self._local.lane = portal.lane()

        async def enter() -> tuple[AbstractAsyncContextManager[T], T]:
            made = manager()
            return made, await lane.enter(made)

        try:
            made, entered = portal.run(enter, lane=lane)
        finally:
            self._finish(portal, lane)
        return made, entered, lane

    def leave(
        self,
        manager: AbstractAsyncContextManager[Any],
        lane: Lane,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Leave a block where it was entered. What is already failing is not hidden by an error of ours."""
        portal = self._portal
        try:
            if lane is not self._lane:
                refuse(lane)
            if portal is None:
                raise Closed("The SDK was closed inside this block; nothing of it is kept.")
            return portal.run(lambda: lane.leave(manager, kind, error, trace), lane=lane)
        except (Closed, Unsupported):
            if error is None:
                raise
            return None
        finally:
            if lane is self._lane:
                self._finish(portal, lane)

    def _finish(self, portal: Portal | None, lane: Lane) -> None:
        if lane.empty or lane.over or portal is None:
            self._local.lane = None
            if portal is not None:
                portal.finish(lane)


def refuse(lane: Lane) -> NoReturn:
    """Say why this thread cannot use what ``lane`` holds open."""
    if lane.pid != os.getpid():
        raise Closed(
            "This transaction was opened by the parent process, which alone can use and end it.",
            fix="Open one in this process.",
        )
    if lane.over or lane.thread is threading.current_thread():
        raise Closed("This transaction is over.", fix="Use it inside its `with` block.")
    raise Unsupported(
        "A transaction belongs to the thread that opened it.",
        fix="Open one in each thread, or do the work of all threads in one.",
    )


def _lost() -> Closed:
    return Closed(
        "The SDK was in use when the process forked, and this database cannot be opened again in the child.",
        fix="Open an SDK of its own in each child process, once it runs; or use PostgreSQL.",
    )


def check_no_loop() -> None:
    """Refuse to block a thread that runs an event loop.

    A notebook's kernel runs its cells inside a loop. There the cell is what the user waits for, so it may block.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if _is_cell():
        return
    raise Unsupported(
        "This thread runs an event loop, which a synchronous call would block.",
        fix="Use the asynchronous API there: `from tenantry import MultiTenantSDK`, and await its calls.",
    )


def _is_cell() -> bool:
    """Whether this is the thread in which a Jupyter kernel runs the cells of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    find = getattr(ipython, "get_ipython", None)
    return (
        find is not None
        and hasattr(find(), "kernel")
        and threading.current_thread() is threading.main_thread()
    )
