"""Compares responses without what changes from one request to the next, or only repeats the request."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from tenantry.scan.content import leaves
from tenantry.scan.messages import Request, Response

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?|\b\d\d:\d\d:\d\d\b")
_TOKEN = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}\b|\b\d{9,}(?:\.\d+)?\b")
_TELLING = ("content-type", "location", "www-authenticate", "allow")

# The values of a response by the names that lead to them; the status is one of them.
Fingerprint = dict[str, tuple[str, ...]]


def fingerprint(response: Response, request: Request, echoes: tuple[str, ...] = ()) -> Fingerprint:
    """Return what tells this response from others: status, telling headers and values, without what is volatile.

    Args:
        response: The response.
        request: Its request; what a response repeats of it is masked.
        echoes: More values to mask, such as the id that was asked for.
    """
    sent = sorted({*echoes, request.target, request.path} - {"", "/"}, key=len, reverse=True)
    found = defaultdict[str, list[str]](list, {"status": [str(response.status)]})
    for name in _TELLING:
        found[f"{name}:"].append(_masked(response.headers.get(name, ""), sent))
    for leaf in leaves(response):
        found[".".join(leaf.keys)].append(_masked(leaf.text, sent))
    return {name: tuple(sorted(values)) for name, values in found.items()}


def differ(one: Iterable[Fingerprint], other: Iterable[Fingerprint]) -> bool:
    """Whether something that is the same in all of ``one``, and the same in all of ``other``, is not in both."""
    ones, others = list(one), list(other)
    unsteady = _unsteady(ones) | _unsteady(others)
    names = {name for found in (*ones, *others) for name in found} - unsteady
    return "status" not in unsteady and any(ones[0].get(name) != others[0].get(name) for name in names)


def same_values(
    one: Response, other: Response, request: Request, volatile: frozenset[str] = frozenset()
) -> bool:
    """Whether two responses to one request say the same, in whatever order, apart from the names in ``volatile``."""
    first, second = fingerprint(one, request), fingerprint(other, request)
    return all(first.get(name) == second.get(name) for name in (first.keys() | second.keys()) - volatile)


def _unsteady(found: list[Fingerprint]) -> set[str]:
    names = {name for one in found for name in one}
    return {name for name in names if any(one.get(name) != found[0].get(name) for one in found)}


def _masked(text: str, sent: list[str]) -> str:
    for value in sent:
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "<sent>", text, flags=re.IGNORECASE)
    for pattern, instead in ((_UUID, "<uuid>"), (_TIME, "<time>"), (_TOKEN, "<token>")):
        text = pattern.sub(instead, text)
    return text
