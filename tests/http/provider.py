"""The endpoint of an identity provider, as a real server that can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECONDS = 60


class Provider:
    """What the endpoint answers, and how often it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.body: bytes = b"{}"
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def publish(self, document: Any) -> None:
        """Answer with a document from now on."""
        self.status, self.body, self.headers = 200, json.dumps(document).encode(), {}

    def fail(self, status: int = 500, body: bytes = b"", **headers: str) -> None:
        """Answer with something else from now on."""
        self.status, self.body, self.headers = status, body, headers


@contextmanager
def serving() -> Iterator[Provider]:
    """Serve a provider on a port of its own."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked += 1
            provider.arrived.release()
            provider.gate.wait(SECONDS)
            try:
                self.send_response(provider.status)
                for name, value in provider.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(provider.body)))
                self.end_headers()
                self.wfile.write(provider.body)
            except (BrokenPipeError, ConnectionResetError):
                return  # the client gave up

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_port}/jwks"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield provider
        finally:
            provider.gate.set()
            server.shutdown()
            thread.join(SECONDS)
