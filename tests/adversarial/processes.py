"""Runs `tests.adversarial.worker` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A running worker."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self) -> list[str]:
        """Return the words of its next line; none at its end."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n").split(" ", 1)

    async def until(self, word: str) -> tuple[list[str], list[list[str]]]:
        """Return the first line that begins with `word`, and those before it."""
        before: list[list[str]] = []
        while True:
            words = await self.line()
            if words[0] == word:
                return words, before
            assert words[0], "the worker ended"
            before.append(words)

    async def said(self, word: str) -> set[str]:
        """Return what followed `word` in each complete line that is left; for a worker that has ended."""
        assert self.process.stdout is not None
        text = (await self.process.stdout.read()).decode()
        lines = text.split("\n")[:-1]  # the last one may have been cut short
        return {line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")}

    async def kill(self) -> None:
        """Kill it as the operating system does when memory is short."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def worker(job: str, options: dict[str, Any]) -> AsyncIterator[Worker]:
    """Start a worker that is ready, and kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adversarial.worker", job, stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(options).encode() + b"\n")
    running = Worker(process)
    try:
        await running.until("ready")
        yield running
    finally:
        await running.kill()
        process.stdin.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()
