"""Look-ups in the directory of tenants that a process does not know."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping

from tenantry.ports import Executor
from tenantry.tenants.directory import SYSTEM, TENANTS, TenantStatus

_AT_ONCE = 2  # of the control role's few connections, the rest stay free for renewals
_BATCH = 500


class LookUps:
    """Asks for the status of tenants, with two statements under way at most.

    Whoever comes meanwhile waits for the next one, which asks for all of them together: however many ids a flood of
    requests names, the directory answers a bounded number of statements.
    """

    def __init__(self, database: Executor) -> None:
        self._database = database
        self._waiting: dict[str, asyncio.Future[TenantStatus | None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._asking = 0

    async def status(self, tenant_id: str) -> TenantStatus | None:
        """Return the status of a tenant; ``None`` for one that does not exist."""
        answer = self._waiting.get(tenant_id)
        if answer is None:
            answer = self._waiting[tenant_id] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_note)  # everybody who waited for it may be gone
            self._start()
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self) -> None:
        if self._asking < _AT_ONCE:
            self._asking += 1
            # An empty context: a statement serves many callers and must not act in the name of the first.
            task = asyncio.get_running_loop().create_task(self._ask(), context=contextvars.Context())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                await self._ask_for(list(self._waiting)[:_BATCH])
        finally:
            self._asking -= 1

    async def _ask_for(self, ids: list[str]) -> None:
        batch = {id: self._waiting.pop(id) for id in ids}
        try:
            rows = await self._database.fetch(SYSTEM, TENANTS, ids)
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return
        found = {row["id"]: row["status"] for row in rows}
        for id, answer in batch.items():
            if not answer.done():
                answer.set_result(found.get(id))


def _fail(batch: Mapping[str, asyncio.Future[TenantStatus | None]], error: BaseException) -> None:
    for answer in batch.values():
        if not answer.done():
            answer.set_exception(error) if isinstance(error, Exception) else answer.cancel()


def _note(answer: asyncio.Future[TenantStatus | None]) -> None:
    if not answer.cancelled():
        answer.exception()
