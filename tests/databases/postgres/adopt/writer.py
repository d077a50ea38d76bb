"""The application, still running: it writes as a role of its own and knows nothing of tenants."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg


class Writer:
    """Writes in transactions over several tables, in orders that invite a deadlock. Keeps what failed."""

    def __init__(self, connection: Any, seed: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self.written = 0
        self.errors: list[BaseException] = []

    async def run(self) -> None:
        jobs = [self._order, self._tasks, self._move, self._touch, self._organization, self._pair]
        while True:
            job = self._random.choice(jobs)
            try:
                async with self._connection.transaction():
                    await job()
                self.written += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
                self.errors.append(error)
                return
            await asyncio.sleep(0.001)

    async def _do(self, sql: str, *args: Any) -> Any:
        return await self._connection.fetchval(sql, *args)

    async def _order(self) -> None:
        org, number = self._random.randint(1, 3), self._random.randint(10**6, 10**9)
        sql = "INSERT INTO billing.invoices VALUES ($1, $2, 'EUR') ON CONFLICT DO NOTHING"
        await self._do(sql, org, number)
        await self._do(
            "INSERT INTO billing.invoice_lines VALUES ($1, $2, 1, 5) ON CONFLICT DO NOTHING", org, number
        )
        await self._do(
            "INSERT INTO audit_events (at, org_id, what) VALUES ('2026-03-01', $1, 'invoice')", org
        )

    async def _tasks(self) -> None:
        project = self._random.randint(1, 30)
        task = await self._do(
            "INSERT INTO tasks (project_id, state, title) VALUES ($1, 'OPEN', 'new') RETURNING id", project
        )
        await self._do("INSERT INTO task_comments (task_id, author_id, text) VALUES ($1, 1, 'new')", task)
        await self._do("INSERT INTO time_entries VALUES ($1, 1, 5)", task)
        await self._do("INSERT INTO attachments (task_id, name) VALUES ($1, 'new')", task)

    async def _move(self) -> None:
        """Move a project to another organization; its tasks, comments and times go with it."""
        project, org = self._random.randint(1, 30), self._random.randint(1, 3)
        await self._do("DELETE FROM project_tags WHERE project_id = $1", project)
        await self._do("UPDATE projects SET org_id = $2 WHERE id = $1", project, org)

    async def _touch(self) -> None:
        for id in self._random.sample(range(1, 600), 5):
            await self._do("UPDATE tasks SET title = title || '.' WHERE id = $1", id)
        await self._do("UPDATE organizations SET name = name || '' WHERE id = $1", self._random.randint(1, 3))

    async def _pair(self) -> None:
        """Write tables from the last to the first, and stay for a while."""
        await self._do("UPDATE time_entries SET minutes = 1 WHERE task_id = $1", self._random.randint(1, 600))
        await asyncio.sleep(0.01)
        await self._do("UPDATE contacts SET name = 'x' WHERE id = $1", self._random.randint(1, 60))

    async def _organization(self) -> None:
        slug = f"new{uuid.uuid4()}"
        id = await self._do("INSERT INTO organizations (slug, name) VALUES ($1, 'New') RETURNING id", slug)
        await self._do("INSERT INTO settings VALUES ($1, 'key', 'x')", id)


@asynccontextmanager
async def writing(url: str, writers: int = 2) -> AsyncIterator[list[Writer]]:
    """Let writers write for as long as the block lasts."""
    connections = [await asyncpg.connect(url, timeout=30) for _ in range(writers)]
    found = [Writer(connection, seed) for seed, connection in enumerate(connections)]
    tasks = [asyncio.create_task(writer.run()) for writer in found]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for connection in connections:
            await connection.close(timeout=10)
