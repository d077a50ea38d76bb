"""Running something again, only where that is safe, and never so often that it adds to an outage.

What may be run again is for the caller to say; this says how often, and how long to pause.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from tenantry.errors import OperationTimeout, TenantryError

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_CREDIT: Final = 20.0
_EARNED: Final = 0.1  # by a success; a second attempt spends 1


class Retry:
    """How often something is run again.

    All share one credit: a second attempt spends some of it and a success earns a tenth of that. So in an outage the
    attempts soon are no more than the calls, and afterwards second attempts are a tenth of the calls at most.

    Args:
        attempts: The most attempts for one call, the first one included.
        seconds: The time for all attempts of a call together; none begins later, and a later one is cut off there.
    """

    __slots__ = ("_attempts", "_credit", "_seconds")

    def __init__(self, attempts: int, seconds: float) -> None:
        self._attempts = attempts
        self._seconds = seconds
        self._credit = _CREDIT

    async def run(self, work: Callable[[], Awaitable[T]], again: Callable[[TenantryError], bool]) -> T:
        """Run ``work``, and again if it fails with an error that ``again`` says is safe.

        Raises:
            TenantryError: What the last attempt raised.
            OperationTimeout: The time was over in the middle of a later attempt.
        """
        started = monotonic()
        try:
            result = await work()
        except TenantryError as error:
            if self._attempts == 1 or not again(error):
                raise
            return await self._run_again(work, again, error, started + self._seconds)
        if self._credit < _CREDIT:
            self._credit += _EARNED
        return result

    async def _run_again(
        self,
        work: Callable[[], Awaitable[T]],
        again: Callable[[TenantryError], bool],
        error: TenantryError,
        until: float,
    ) -> T:
        for number in range(1, self._attempts):
            wait = pause(number)
            if self._credit < 1 or monotonic() + wait >= until:
                break
            self._credit -= 1
            await asyncio.sleep(wait)
            try:
                return await _within(work, until - monotonic())
            except TenantryError as later:
                error = later
                if not again(later):
                    break
        raise error


def pause(number: int) -> float:
    """Return how long to pause before a further attempt: anything up to a bound that doubles, so that none meet."""
    return random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (number - 1)))  # noqa: S311 - no secret


async def _within(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work()
    except TimeoutError as error:
        if limit.expired():
            raise OperationTimeout(
                "The database did not answer in time, not even when asked again."
            ) from error
        raise
