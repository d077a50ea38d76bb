"""Applications behind the servers that people run, and clients that speak plainly to them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from tenantry import MultiTenantSDK

SECONDS = 60


def unhurried(sdk: MultiTenantSDK) -> None:
    """Let the lease of an open SDK outlast the stalls of a busy machine. No test of this folder is about its end."""
    lease = sdk._lease
    assert lease is not None
    lease._seconds = float(SECONDS)


@asynccontextmanager
async def opened(app: Any) -> AsyncIterator[None]:
    """Run the application's lifespan, as a server does."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    running = asyncio.create_task(app({"type": "lifespan", "state": {}}, to_app.get, from_app.put))
    for step in ("startup", "shutdown"):
        to_app.put_nowait({"type": f"lifespan.{step}"})
        done = await from_app.get()
        assert done["type"] == f"lifespan.{step}.complete", done
        if step == "startup":
            yield
    await running


@asynccontextmanager
async def uvicorn_of(app: Any, http: str = "h11") -> AsyncIterator[int]:
    """Serve an ASGI application in this loop, and give the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    config: Any = {
        "http": http,
        "interface": "asgi3",
        "lifespan": "off",
        "log_config": None,
        "ws": "websockets-sansio",
    }
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=SECONDS, **config))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listening.close()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        return None


@contextmanager
def wsgi_server_of(app: Any) -> Iterator[int]:
    """Serve a WSGI application in threads of this process, and give the port."""
    with make_server("127.0.0.1", 0, app, _ThreadingServer, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(SECONDS)


def request_bytes(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """Return a request as it goes over the wire, header by header."""
    lines = [f"{method} {path} HTTP/1.1", "Host: shop.example", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def answers(reader: asyncio.StreamReader, count: int) -> list[tuple[int, bytes]]:
    """Read that many answers with a length from one connection: status and body of each."""
    return [await asyncio.wait_for(_answer(reader), SECONDS) for _ in range(count)]


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    if fields.get("transfer-encoding") == "chunked":
        return int(head[0].split()[1]), b"".join([part async for part in _chunks(reader)])
    return int(head[0].split()[1]), await reader.readexactly(int(fields.get("content-length", 0)))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


async def ask(port: int, *requests: bytes) -> list[tuple[int, bytes]]:
    """Send requests one behind the other, without waiting, on one connection, and read the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(requests))
        return await answers(reader, len(requests))
    finally:
        writer.close()
        await writer.wait_closed()
