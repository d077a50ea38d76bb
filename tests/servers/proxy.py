"""A TCP proxy that fails on command: the network of the adversarial tests."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

CHUNK = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards 127.0.0.1:`port` to a target, until told to cut, reset, stall or refuse.

    Faults act at once on open connections; `stall` and `refuse` also on those to come, until taken back.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.accepted = 0
        self._target = (host, port)
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._to_server = _Valve()
        self._to_client = _Valve()

    @classmethod
    @asynccontextmanager
    async def start(cls, host: str, port: int) -> AsyncIterator[FaultProxy]:
        """Listen on a free port and forward to host:port; at the end everything is cut."""
        proxy = cls(host, port)
        await proxy.accept()
        try:
            yield proxy
        finally:
            await proxy.refuse()
            await proxy.cut()

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def url(self, url: str) -> str:
        """Return the address of a server with ours in place of its host and port."""
        host, port = self._target
        return url.replace(f"@{host}:{port}", f"@{self.host}:{self.port}", 1)

    async def cut(self) -> None:
        """Close every open connection on both sides, dropping what is under way."""
        await self._drop(reset=False)

    async def reset(self) -> None:
        """Drop every open connection as a crashed peer does: with a RST."""
        await self._drop(reset=True)

    def stall(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Hold back all bytes of the given directions; nothing is lost until a `cut`."""
        if to_server:
            self._to_server.close()
        if to_client:
            self._to_client.close()

    def resume(self) -> None:
        """Let the bytes flow again, those held back first."""
        self._to_server.open()
        self._to_client.open()

    async def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED); the open ones go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(0)  # the loop lets go of the listening socket in its next turn

    async def accept(self) -> None:
        """Take new connections again, on the same port."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, self.host, self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer, _current_task())
        self._links.add(link)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            link.writers.append(server_writer)
            upward = asyncio.create_task(_pump(reader, server_writer, self._to_server))
            downward = asyncio.create_task(_pump(server_reader, writer, self._to_client))
            link.pumps += [upward, downward]
            await asyncio.wait(link.pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the target is away: the client sees its connection closed
        finally:
            self._links.discard(link)
            link.finish()

    async def _drop(self, *, reset: bool) -> None:
        links = tuple(self._links)
        for link in links:
            link.drop(reset=reset)
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class _Valve:
    """Open or closed; `passed` waits until it is open."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_open.set()

    def open(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self._is_open.clear()

    async def passed(self) -> None:
        await self._is_open.wait()


class _Link:
    """One client's connection: the sockets on both sides and the two tasks between them."""

    def __init__(self, writer: asyncio.StreamWriter, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.writers = [writer]
        self.pumps: list[asyncio.Task[None]] = []

    def finish(self) -> None:
        """Close both sides once what is buffered has been sent."""
        for pump in self.pumps:
            pump.cancel()
        for writer in self.writers:
            writer.close()

    def drop(self, *, reset: bool) -> None:
        """Close both sides now."""
        for pump in self.pumps:
            pump.cancel()
        for writer in self.writers:
            if reset:
                _close_with_reset(writer)
            writer.transport.abort()


def _close_with_reset(writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, valve: _Valve) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK):
            await valve.passed()
            writer.write(chunk)
            await writer.drain()
        await valve.passed()  # the end of a stream is held back as well
