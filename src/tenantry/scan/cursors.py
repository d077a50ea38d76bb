"""Finds the next page of a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from tenantry.scan.content import leaves
from tenantry.scan.messages import Exchange, Request
from tenantry.scan.openapi import PARAMETER, Operation
from tenantry.scan.routes import PAGING

_LINK = re.compile(r'<([^>]+)>\s*;[^,]*rel="?next"?', re.IGNORECASE)
_USUAL = ("cursor", "after", "page_token")
_SHORTEST = 4


def next_pages(exchange: Exchange, operations: tuple[Operation, ...]) -> list[Request]:
    """Return requests for the page after a response: several, where the parameter's name must be guessed."""
    request = exchange.request
    if request.method != "GET":
        return []
    return list(dict.fromkeys(_pages(exchange, parameters(request, operations))))


def parameters(request: Request, operations: tuple[Operation, ...]) -> tuple[str, ...]:
    """Return the query parameters that a request has, or is described to have."""
    names = dict.fromkeys(name for name, _ in request.query)
    for operation in operations:
        if operation.method == request.method and describes(operation, request):
            names |= dict.fromkeys(operation.query)
    return tuple(names)


def describes(operation: Operation, request: Request) -> bool:
    """Whether a request's path is one of an operation."""
    pattern = "[^/]+".join(map(re.escape, PARAMETER.sub("\0", operation.template).split("\0")))
    return re.fullmatch(pattern, request.path) is not None


def _pages(exchange: Exchange, names: tuple[str, ...]) -> Iterator[Request]:
    request = exchange.request
    for link in _LINK.findall(exchange.response.headers.get("link", "")):
        yield _linked(request, link)
    known = [name for name in names if PAGING.fullmatch(name)]
    for leaf in leaves(exchange.response):
        key = leaf.key.replace("-", "_")
        if not (PAGING.fullmatch(key) or key.endswith(("cursor", "token"))) or len(leaf.text) < _SHORTEST:
            continue
        if "?" in leaf.text:
            yield _linked(request, leaf.text)
        elif " " not in leaf.text and ("cursor" in key or "next" in key or "after" in key):
            guessed = known or [*_USUAL, leaf.keys[-1]]
            yield from (request.with_query(name, leaf.text) for name in guessed)


def _linked(request: Request, link: str) -> Request:
    query = tuple(parse_qsl(urlsplit(link).query, keep_blank_values=True))
    return Request("GET", request.path, tuple(pair for pair in query if pair[0] != "_"), request.headers)
