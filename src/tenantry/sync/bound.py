"""Synchronous objects, each of which stands for an asynchronous one. What is written here is what all of them share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tenantry import sdk as asynchronous
from tenantry.context import TenantContext
from tenantry.data.units import attempts_of
from tenantry.errors import Closed, DatabaseUnavailable
from tenantry.resilience.retry import pause
from tenantry.sync.lanes import Lane
from tenantry.sync.session import Session, refuse
from tenantry.types import tenant_id

A = TypeVar("A")
C = TypeVar("C")
R = TypeVar("R", bound="Bound[Any]")
T = TypeVar("T")


class Bound(Generic[A]):
    """What a synchronous object stands for: an asynchronous one, found again whenever the SDK was opened anew."""

    def __init__(self, session: Session, find: Callable[[], A], pin: Lane | None = None) -> None:
        self._session = session
        self._find = find
        self._pin = pin
        self._found: tuple[int, A] | None = None

    def _target(self) -> A:
        found, generation = self._found, self._session.generation
        if found is None or found[0] != generation:
            found = self._found = (generation, self._find())
        return found[1]

    def _ready(self) -> A:
        """Return what this stands for, in an SDK that is open."""
        self._session.ensure()
        return self._target()

    def _known(self) -> A:
        """Return what this stood for when it was made, for what does not change."""
        return self._ready() if self._found is None else self._found[1]

    def _checked(self) -> Self:
        """Return itself, if there is what it stands for."""
        self._ready()
        return self

    def _run(self, ask: Callable[[A], Awaitable[T]]) -> T:
        """Await on the loop what ``ask`` returns."""
        return self._session.run(lambda: ask(self._target()), self._pin)

    def _pass_on(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """Do the same for a call whose types its overloads tell."""
        return self._run(ask)

    def __repr__(self) -> str:
        return object.__repr__(self) if self._found is None else repr(self._found[1])

    def _repr_html_(self) -> str | None:
        show = None if self._found is None else getattr(self._found[1], "_repr_html_", None)
        return None if show is None else str(show())


class Root(Bound[asynchronous.MultiTenantSDK]):
    """What stands for an SDK, and owns its session."""

    def _stand_for(self, sdk: asynchronous.MultiTenantSDK) -> None:
        super().__init__(Session(sdk), lambda: sdk)
        self._target()

    @classmethod
    def _standing_for(cls, sdk: asynchronous.MultiTenantSDK) -> Self:
        made = cls.__new__(cls)
        made._stand_for(sdk)
        return made

    def _bind(
        self, connection: C, tenant: str, *, user: str | None = None, claims: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[C]:
        """Bind a connection in the thread that has it. Each transaction is admitted on the loop of this process."""
        context = TenantContext(tenant_id(tenant), user, claims or {})
        return self._ready()._binding(
            connection, context, lambda admitted: self._run(lambda it: it._admit_raw(admitted))
        )

    def _anytime(self, ask: Callable[[asynchronous.MultiTenantSDK], T]) -> T:
        """Return what ``ask`` returns; while the SDK is open, it is asked on the loop."""
        return self._session.now(lambda: ask(self._target()))


def run_again(block: Callable[[], AbstractContextManager[A]], work: Callable[[A], T], attempts: int) -> T:
    """Run ``work`` in a block, and in another one as long as it is certain that nothing was written."""
    for number in attempts_of(attempts):
        try:
            with block() as entered:
                return work(entered)
        except DatabaseUnavailable as error:
            if number == attempts or not error.nothing_written:
                raise
        time.sleep(pause(number))
    raise AssertionError("the last attempt returns or raises")


class Block(AbstractContextManager[R]):
    """A block of the asynchronous API, entered and left by one thread."""

    def __init__(
        self,
        bound: Bound[A],
        make: Callable[[A], AbstractAsyncContextManager[Any]],
        wrap: Callable[[Session, Callable[[], Any], Lane | None], R],
        *,
        pinned: bool,
    ) -> None:
        self._bound = bound
        self._make = make
        self._wrap = wrap
        self._pinned = pinned

    def __enter__(self) -> R:
        bound, session = self._bound, self._bound._session
        if bound._pin is not None and bound._pin is not session._lane:
            refuse(bound._pin)
        self._manager, entered, self._lane = session.enter(lambda: self._make(bound._target()))
        generation = session.generation

        def find() -> Any:
            if session.generation != generation:
                raise Closed("This belongs to a block that is over, or of another process.")
            return entered

        return self._wrap(session, find, self._lane if self._pinned else None)._checked()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._bound._session.leave(self._manager, self._lane, kind, error, trace)
