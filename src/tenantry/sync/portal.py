"""An event loop in a thread of its own, on which other threads run coroutines and wait for them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, TypeVar

from tenantry.sync.calls import Call, Work, closed
from tenantry.sync.lanes import Lane

T = TypeVar("T")


class Portal:
    """The loop and its thread. It belongs to the process that made it."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._submitting = threading.Lock()
        self._running = threading.Event()  # cleared for the time of a fork
        self._running.set()
        self._open = True
        self._calls: set[Call[Any]] = set()
        self._lanes: set[Lane] = set()
        self.pid = os.getpid()
        self.kept: list[object] = []
        # A daemon: a program that forgets to close ends all the same.
        self._thread = threading.Thread(target=self._work, name="tenantry-sync", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()

    def lane(self) -> Lane:
        """Return a new lane."""
        with self._turn(None):
            lane = Lane(self._loop)
            self._lanes.add(lane)
            return lane

    @contextmanager
    def _turn(self, lane: Lane | None) -> Iterator[None]:
        """Hand something over, while nothing can be put behind the callback that stops the loop.

        What is new waits for the end of a pause; a lane goes on, since the pause may be waiting for it.
        """
        while True:
            with self._submitting:
                if not self._open:
                    raise closed()
                if lane is not None or self._running.is_set():
                    yield
                    return
            self._running.wait()

    def run(self, work: Work[T], *, lane: Lane | None = None, last: bool = False) -> T:
        """Run ``work`` on the loop and wait. Interrupted, it is cancelled and waited for, then the interrupt goes on.

        Args:
            work: Makes what is awaited, on the loop.
            lane: Where to run it, if not in a task of its own.
            last: Nothing else is taken from now on.
        """
        context = contextvars.copy_context() if lane is None else lane.context()
        call = Call(work, context)
        try:
            self._submit(call, lane, last=last)
            call.wait()
        except BaseException:
            self._cancel(call, lane)
            raise
        return call.result()

    def _submit(self, call: Call[Any], lane: Lane | None, *, last: bool) -> None:
        with self._turn(lane):
            self._open = not last
            if lane is None:
                self._calls.add(call)
                self._loop.call_soon_threadsafe(self._start, call)
            else:
                self._loop.call_soon_threadsafe(lane.put, call)

    def _start(self, call: Call[Any]) -> None:
        call.start(self._loop).add_done_callback(lambda _: self._calls.discard(call))

    def _cancel(self, call: Call[Any], lane: Lane | None) -> None:
        with self._submitting:
            if not self._open:
                return
            if lane is None:
                self._loop.call_soon_threadsafe(call.cancel)
            else:
                self._loop.call_soon_threadsafe(lane.cancel, call)
        call.wait()

    def finish(self, lane: Lane) -> None:
        """End a lane whose blocks are over."""
        self._lanes.discard(lane)
        with self._submitting, suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lane.finish)

    def abort(self, lane: Lane) -> None:
        """Undo what a lane holds open."""
        with self._submitting:
            self._loop.call_soon_threadsafe(lane.abort)

    def close(self, end: Work[None]) -> None:
        """Let ``end`` run while nothing new is taken, fail what is left with ``Closed``, and end the thread."""
        try:
            self.run(lambda: self._end(end), last=True)
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def pause(self, rest: Work[None], seconds: float) -> bool:
        """Run ``rest`` if within ``seconds`` nothing is under way, and return whether that was so.

        Then no call begins until :meth:`resume`.
        """
        if threading.current_thread() is self._thread:
            return False
        self._running.clear()
        try:
            deadline = time.monotonic() + seconds
            while not self._is_idle():
                if time.monotonic() >= deadline:
                    self._running.set()
                    return False
                time.sleep(0.001)
            call = Call(rest, Context())
            self._calls.add(call)
            self._loop.call_soon_threadsafe(self._start, call)
            call.wait()
            call.result()
        except BaseException:
            self._running.set()
            raise
        return True

    def _is_idle(self) -> bool:
        with self._submitting:  # whoever has it now was let in before the pause
            return not self._open or not (self._calls or self._lanes)

    def resume(self) -> None:
        """Let calls begin again."""
        self._running.set()

    def release(self, end: Work[None]) -> None:
        """The same for an SDK that nobody holds any more, without waiting."""

        async def finish() -> None:
            try:
                await self._end(end)
            finally:
                self._stop.set()

        with self._submitting:
            if self._open and self.pid == os.getpid():
                self._open = False
                call = Call(finish, Context())
                self._calls.add(call)
                self._loop.call_soon_threadsafe(self._start, call)

    async def _end(self, end: Work[None]) -> None:
        try:
            await end()
        finally:
            mine = asyncio.current_task()
            for call in [call for call in self._calls if call.task is not mine]:
                call.closing = True
                call.cancel()
            for lane in list(self._lanes):
                lane.abort()
            tasks = {call.task for call in self._calls} | {lane.task for lane in self._lanes}
            await asyncio.gather(*(task for task in tasks - {mine} if task), return_exceptions=True)
