"""An ASGI application that is scanned in this process, without a port."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tenantry.errors import ConfigurationError


def load_application(name: str) -> Any:
    """Return what ``name``, as in ``shop.main:app``, names; modules of the current folder can be named, too.

    Raises:
        ConfigurationError: There is no such module or attribute.
    """
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{name} cannot be imported: {error}.",
            field="target",
            fix="Name an ASGI application as package.module:attribute, or give a URL.",
        ) from error
    finally:
        sys.path.remove(folder)
    return found


@asynccontextmanager
async def served(application: Any) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """Start an ASGI application as a server would, give a way to it, and stop it."""
    lifespan = _Lifespan(application)
    await lifespan.start()
    try:
        yield httpx.ASGITransport(application, raise_app_exceptions=False)
    finally:
        await lifespan.stop()


class _Lifespan:
    def __init__(self, application: Any) -> None:
        self._application = application
        self._asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._application(scope, self._asked.get, self._told.put))
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise ConfigurationError(
                f"The application did not start: {answer.get('message', '')}",
                field="target",
                fix="Start it by itself to see why.",
            )

    async def stop(self) -> None:
        await self._ask("lifespan.shutdown")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, what: str) -> dict[str, Any] | None:
        """Return the answer; None of an application that has no lifespan, which ends or fails at once."""
        assert self._task is not None
        if self._task.done():
            return None
        await self._asked.put({"type": what})
        answer = asyncio.ensure_future(self._told.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None
