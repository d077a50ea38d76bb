"""One call: what a thread waits for, and what a loop runs for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any, Generic, TypeVar, cast

from tenantry.errors import Closed

T = TypeVar("T")

Work = Callable[[], Awaitable[T]]


def closed() -> Closed:
    """Return the error of a call that the end of the SDK cut short."""
    return Closed("The SDK was closed while this call was under way.")


class Call(Generic[T]):
    """Something that a thread waits for, in the thread's own context."""

    __slots__ = ("_context", "_done", "_error", "_result", "_work", "cancelled", "closing", "taken", "task")

    def __init__(self, work: Work[T], context: Context) -> None:
        self._work = work
        self._context = context
        self._done = threading.Lock()
        self._done.acquire()
        self._error: BaseException | None = None
        self._result: T | None = None
        self.task: asyncio.Task[None] | None = None
        self.taken = False
        self.cancelled = False
        self.closing = False

    def start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Run as a task of its own."""
        self.taken = True
        self.task = loop.create_task(self.run(), context=self._context)
        return self.task

    async def run(self) -> None:
        """Run in the current task, whose context is the caller's. Nothing is raised here."""
        try:
            self._result = await self._work()
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
            self._error = closed() if self.closing and isinstance(error, asyncio.CancelledError) else error
        finally:
            self._done.release()

    async def run_in_context(self) -> None:
        """Run in the current task, but in the caller's context."""
        await _in_context(self._context, self.run())

    def cancel(self) -> None:
        """Cancel what runs, on the loop."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()
        elif not self.taken:  # interrupted before it was handed over
            self.fail(asyncio.CancelledError())

    def fail(self, error: BaseException) -> None:
        """End a call that did not begin."""
        self._error = error
        self._done.release()

    def wait(self) -> None:
        """Block until it is over."""
        with self._done:
            pass

    def result(self) -> T:
        """Return what the call returned, or raise what it raised, once it is over."""
        if self._error is None:
            return cast(T, self._result)
        try:
            raise self._error
        finally:
            self._error = None  # the error's traceback holds this frame


@coroutine
def _in_context(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Run ``work`` in the running task, but in ``context``."""
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    while True:
        try:
            waited_for = context.run(step)
        except StopIteration as done:
            return cast(T, done.value)
        try:
            sent = yield waited_for
        except BaseException as error:  # noqa: BLE001 - it is for the work to handle
            step = _throwing(work, error)
        else:
            step = _sending(work, sent)


def _throwing(work: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: work.throw(error)


def _sending(work: Coroutine[Any, Any, Any], value: object) -> Callable[[], Any]:
    return lambda: work.send(value)
