"""A request as it can be sent again, by anyone, and what came back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote, urlencode

SAFE_METHODS = frozenset({"GET", "HEAD"})
_UNANSWERED = 0
_SHORTEST_ECHO = 3


class Who(Enum):
    """Whose credentials a request is sent with."""

    A = "a"
    B = "b"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Request:
    """A request without anybody's credentials.

    Attributes:
        method: Upper case.
        path: Percent-encoded, beginning with a slash; below the target's base URL.
        query: Decoded names and values, in order.
        headers: Those that belong to the request itself, such as ``Accept``; names in lower case.
        body: The bytes to send.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def segments(self) -> tuple[str, ...]:
        """The decoded parts of the path."""
        return tuple(unquote(part) for part in self.path.split("/")[1:])

    @property
    def target(self) -> str:
        """The path with its query, as it goes over the wire."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path

    @property
    def reads(self) -> bool:
        """Whether it only reads, by its method."""
        return self.method in SAFE_METHODS

    @property
    def data(self) -> Any:
        """The body as JSON, or None."""
        return parsed_json(self.body)

    def with_segment(self, index: int, value: str) -> Request:
        """Return it with another value in the path."""
        parts = self.path.split("/")
        parts[index + 1] = quote(value, safe="")
        return replace(self, path="/".join(parts))

    def with_query(self, name: str, value: str) -> Request:
        """Return it with the parameter ``name`` set to ``value``, and to nothing else."""
        kept = tuple(pair for pair in self.query if pair[0] != name)
        return replace(self, query=(*kept, (name, value)))

    def with_header(self, name: str, value: str) -> Request:
        """Return it with one more header."""
        kept = tuple(pair for pair in self.headers if pair[0] != name.lower())
        return replace(self, headers=(*kept, (name.lower(), value)))

    def with_json(self, data: Any) -> Request:
        """Return it with ``data`` as its body."""
        body = json.dumps(data).encode()
        return replace(self, body=body).with_header("content-type", "application/json")

    def values(self) -> list[str]:
        """Return what was asked for: in the query, in the body, and the longer parts of the path."""
        asked = [*self.segments, *(value for _, value in self.query), *_texts(self.data)]
        return [value for value in asked if len(value) >= _SHORTEST_ECHO and any(map(str.isdigit, value))] + [
            value for name, value in self.query if len(value) >= _SHORTEST_ECHO
        ]

    def sent(self) -> str:
        """Return everything that a response may repeat because it was in the request."""
        values = [self.path, unquote(self.path), self.target, *(value for _, value in self.query)]
        values += [value for _, value in self.headers]
        return "\n".join([*values, self.body.decode("utf-8", "replace"), *_texts(self.data)]).casefold()


@dataclass(frozen=True, eq=False)
class Response:
    """What came back.

    Attributes:
        status: The status, or 0 if none came.
        headers: Names in lower case.
        body: Decompressed, and cut at the limit.
        settled: Whether this is the application's answer, rather than a timeout, a rate limit or an outage.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    settled: bool = True

    @property
    def ok(self) -> bool:
        """Whether the status is of 200 to 299."""
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """The media type, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @cached_property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @cached_property
    def data(self) -> Any:
        """The body as JSON, or None."""
        return parsed_json(self.body)


def unanswered() -> Response:
    """Return what stands for no response at all."""
    return Response(_UNANSWERED, settled=False)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its response."""

    request: Request
    response: Response


def parsed_json(body: bytes) -> Any:
    """Return ``body`` as JSON; None for anything else."""
    if body[:1].isspace() or body[:1] in (b"{", b"[", b'"'):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None
    return None


def _texts(data: Any) -> list[str]:
    if isinstance(data, dict):
        return [text for value in data.values() for text in _texts(value)]
    if isinstance(data, list):
        return [text for value in data for text in _texts(value)]
    return [str(data)] if isinstance(data, str | int) else []
