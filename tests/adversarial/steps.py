"""Cancels an operation at each place where it waits, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal

# When the cancellation arrives, once the operation has begun to wait: in the next turn of the loop, while the server
# works, or in the very moment in which the answer is there and the operation has not seen it yet.
Moment = Literal["at once", "under way", "answered"]
MOMENTS: tuple[Moment, ...] = ("at once", "under way", "answered")
UNDER_WAY = 0.000_15  # seconds; a statement takes a little longer


class Interrupted:
    """Awaits a coroutine, and cancels the task that does so when it waits for the `step`-th time."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: int, moment: Moment) -> None:
        self.reached = False
        self._coroutine = coroutine
        self._step = step
        self._moment = moment

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        steps = 0
        while True:
            try:
                waiting_for = resume()
            except StopIteration as done:
                return done.value
            steps += 1
            if steps == self._step:
                self.reached = True
                self._arrange(waiting_for)
            try:
                yield waiting_for
            except BaseException as error:  # noqa: BLE001 - passed on, whatever it is
                resume = self._throwing(error)
            else:
                resume = lambda: self._coroutine.send(None)  # noqa: E731

    def _throwing(self, error: BaseException) -> Callable[[], Any]:
        return lambda: self._coroutine.throw(error)

    def _arrange(self, waiting_for: Any) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        if self._moment == "answered" and isinstance(waiting_for, asyncio.Future):
            waiting_for.add_done_callback(lambda _: task.cancel())
        elif self._moment == "under way":
            loop.call_later(UNDER_WAY, task.cancel)
        else:
            loop.call_soon(task.cancel)


async def interrupt(operation: Callable[[], Awaitable[Any]], step: int, moment: Moment) -> tuple[bool, Any]:
    """Run `operation`, cancelled at its `step`-th wait; return whether it got that far, and its result or error."""

    async def run() -> Any:
        return await operation()

    interrupted = Interrupted(run(), step, moment)

    async def wait() -> Any:
        return await interrupted

    outcome = (await asyncio.gather(asyncio.create_task(wait()), return_exceptions=True))[0]
    return interrupted.reached, outcome
