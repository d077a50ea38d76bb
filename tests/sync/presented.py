"""The synchronous API, presented as the asynchronous one, so that the same suite can run on both.

Each asyncio task has a thread of its own, in which its calls are made: what a task is to the one API, a thread is to
the other.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from tenantry import sync
from tenantry.databases.memory import MemoryAdapter
from tenantry.databases.postgres.adapter import PostgresAdapter
from tenantry.databases.sqlite.adapter import SQLiteAdapter
from tenantry.sync.session import Session
from tenantry.sync.streams import Stream

_threads: weakref.WeakKeyDictionary[asyncio.Task[Any], ThreadPoolExecutor] = weakref.WeakKeyDictionary()


async def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call `function` in the thread of this task, in its context."""
    task = asyncio.current_task()
    assert task is not None
    if task not in _threads:
        _threads[task] = threads = ThreadPoolExecutor(1, "presented")
        task.add_done_callback(lambda _: threads.shutdown(wait=False))
    call = _threads[task].submit(contextvars.copy_context().run, function, *arguments, **options)
    return await asyncio.wrap_future(call)


class Inside:
    """Something of the asynchronous SDK that the suite looks into; what it awaits runs on the loop of the session."""

    def __init__(self, session: Session, found: Any) -> None:
        self._session = session
        self._found = found

    def __getattr__(self, name: str) -> Any:
        return _inside(self._session, getattr(self._found, name))


def _inside(session: Session, found: Any) -> Any:
    if inspect.iscoroutinefunction(found):
        return lambda *arguments: in_thread(session.run, functools.partial(found, *arguments))
    return (
        Inside(session, found)
        if isinstance(found, MemoryAdapter | PostgresAdapter | SQLiteAdapter)
        else found
    )


class Presented:
    """One synchronous object with asynchronous methods."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return _inside(self._found._session, getattr(self._found._target(), name))
        kind = type(self._found)
        member = inspect.getattr_static(kind, name, None)
        if not inspect.isfunction(member):
            found = getattr(self._found, name)
            return Presented(found) if isinstance(found, _TWINS) else found
        method = getattr(self._found, name)
        if name in _BLOCKS:
            return lambda *arguments, **options: _block(functools.partial(method, *arguments, **options))
        if name in _AT_ONCE:
            return functools.partial(_at_once, method)
        return functools.partial(in_thread, method)

    async def __aenter__(self) -> Presented:
        await in_thread(self._found.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await in_thread(self._found.__exit__, *error)


_TWINS = (
    sync.BoundSettings,
    sync.DataManager,
    sync.Insights,
    sync.MultiTenantSDK,
    sync.SystemHandle,
    sync.TenantFlags,
    sync.TenantHandle,
    sync.TenantManager,
)
_BLOCKS = ("transaction", "system")
# What waits for nothing in either API.
_AT_ONCE = ("add_after_hook", "add_within_hook", "bind", "get_metrics", "on", "stream", "tenant")


def _at_once(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(contextvars.copy_context().run, method, *arguments, **options).result()
    if isinstance(found, Stream):
        return PresentedStream(found)
    return Presented(found) if isinstance(found, _TWINS) else found


class PresentedStream:
    """A synchronous stream as an asynchronous one."""

    def __init__(self, found: Stream[Any]) -> None:
        self._found = found

    def __aiter__(self) -> PresentedStream:
        return self

    async def __anext__(self) -> Any:
        row = await in_thread(next, self._found, StopAsyncIteration)
        if row is StopAsyncIteration:
            raise StopAsyncIteration
        return row

    async def next_batch(self) -> list[Any]:
        rows: list[Any] = await in_thread(self._found.next_batch)
        return rows

    async def batches(self) -> AsyncIterator[list[Any]]:
        while rows := await self.next_batch():
            yield rows

    async def aclose(self) -> None:
        self._found.close()

    async def __aenter__(self) -> PresentedStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._found.close()


@asynccontextmanager
async def _block(make: Callable[[], Any]) -> AsyncIterator[Presented]:
    block = make()
    entered = await in_thread(block.__enter__)
    try:
        yield Presented(entered)
    except BaseException as error:
        if not await in_thread(block.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await in_thread(block.__exit__, None, None, None)
