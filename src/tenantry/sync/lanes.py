"""The tasks of threads that have a block open.

While a thread has a block open, such as a transaction, everything it asks for runs in the one task in which the block
was entered. What holds in asynchronous code for a task, such as the refusal to write beside an open transaction, then
holds for the thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, ContextVar
from types import TracebackType
from typing import Any, TypeVar, cast

from tenantry.sync.calls import Call, closed

T = TypeVar("T")


class Lane:
    """The task in which a thread's blocks are entered and left, and all it asks for in between runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox: asyncio.Queue[Call[Any] | None] = asyncio.Queue()
        self._loop = loop
        self._current: Call[Any] | None = None
        self._blocks: dict[AbstractAsyncContextManager[Any], dict[ContextVar[Any], Any]] = {}
        self.thread = threading.current_thread()
        self.pid = os.getpid()
        self.over = False
        self.task: asyncio.Task[None] | None = None

    def context(self) -> Context:
        """Return a copy of the caller's context in which is set what entering the blocks has set."""
        context = contextvars.copy_context()
        for variables in self._blocks.values():
            context.run(_set, variables)
        return context

    @property
    def empty(self) -> bool:
        """Whether no block is open."""
        return not self._blocks

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a block; what that sets in the context stays set for the calls inside."""
        before = contextvars.copy_context()
        entered = await manager.__aenter__()
        after = contextvars.copy_context()
        self._blocks[manager] = {var: value for var, value in after.items() if before.get(var) is not value}
        return entered

    async def leave(
        self,
        manager: AbstractAsyncContextManager[Any],
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Leave a block."""
        del self._blocks[manager]
        return await manager.__aexit__(kind, error, trace)

    def put(self, call: Call[Any]) -> None:
        """Take a call, on the loop."""
        call.taken = True
        if self.task is None:
            self.task = self._loop.create_task(self._serve(), context=Context())
        if self.over:
            call.fail(closed())
        else:
            self._inbox.put_nowait(call)

    def cancel(self, call: Call[Any]) -> None:
        """Cancel one call, on the loop."""
        call.cancel()
        if self._current is call and self.task is not None:
            self.task.cancel()

    def finish(self) -> None:
        """End once what was asked for is done, on the loop."""
        self._inbox.put_nowait(None)

    def abort(self) -> None:
        """End now and undo what is open, on the loop."""
        if self.over:
            return  # a second cancellation would cut the undoing short
        self.over = True
        if self._current is not None:
            self._current.closing = True
        if self.task is not None:
            self.task.cancel()

    async def _serve(self) -> None:
        try:
            while not self.over:
                call = await self._inbox.get()
                if call is None:
                    break
                await self._run(call)
        finally:
            self.over = True
            await self._undo()

    async def _run(self, call: Call[Any]) -> None:
        if call.cancelled:
            call.fail(asyncio.CancelledError())
            return
        self._current = call
        await call.run_in_context()
        self._current = None
        task = cast("asyncio.Task[None]", self.task)
        while task.cancelling():
            task.uncancel()

    async def _undo(self) -> None:
        while not self._inbox.empty():
            call = self._inbox.get_nowait()
            if call is not None:
                call.fail(closed())
        while self._blocks:
            manager, _ = self._blocks.popitem()
            error = closed()
            with suppress(BaseException):
                await manager.__aexit__(type(error), error, None)


def _set(variables: dict[ContextVar[Any], Any]) -> None:
    for variable, value in variables.items():
        variable.set(value)
