"""A stream of rows, for synchronous code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tenantry.data.streams import Stream as AsyncStream
from tenantry.errors import Closed
from tenantry.sync.bound import Bound

R = TypeVar("R")


class Stream(Iterator[R], Generic[R]):
    """The rows of :meth:`DataManager.stream`, to be consumed once, by any thread that may use its manager.

    Between two batches it holds nothing: no connection, no transaction, and of the rows only where they ended.
    """

    def __init__(self, bound: Bound[Any], make: Callable[[Any], AsyncStream[R]]) -> None:
        bound._ready()
        self._bound = bound
        self._generation = bound._session.generation
        self._stream = bound._session.now(lambda: make(bound._target()))
        self._rows: list[R] = []

    def next_batch(self) -> list[R]:
        """Return the next rows, at most ``batch_size``; none at the end."""
        if self._rows:
            rest, self._rows = self._rows[::-1], []
            return rest
        if self._bound._session.generation != self._generation:
            raise Closed("This stream is of an SDK that was closed, or of another process.")
        return self._bound._run(lambda _: self._stream.next_batch())

    def __next__(self) -> R:
        if not self._rows:
            self._rows = self.next_batch()[::-1]
        if not self._rows:
            raise StopIteration
        return self._rows.pop()

    def batches(self) -> Iterator[list[R]]:
        """Iterate over lists of rows instead: ``for rows in stream.batches()``."""
        while rows := self.next_batch():
            yield rows

    def close(self) -> None:
        """End it early. One that is dropped holds nothing that would have to be given back."""
        self._stream.end()
        self._rows = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
