"""Tells a GraphQL document that reads from one that does more."""

from __future__ import annotations

import re

from tenantry.scan.messages import Request

_NOISE = re.compile(r'"""[\s\S]*?"""|"(?:\\.|[^"\\\n])*"|#[^\n]*')
_OPERATION = re.compile(r"\b(?:mutation|subscription)\b")


def mutates(request: Request) -> bool:
    """Whether a body holds a GraphQL document that does more than read; one that cannot be told does."""
    data = request.data
    batch = data if isinstance(data, list) else [data]
    for item in batch:
        document = item.get("query") if isinstance(item, dict) else None
        if isinstance(item, dict) and "extensions" in item and document is None:
            return True  # a persisted query: only its hash is known
        if isinstance(document, str) and _OPERATION.search(_top_level(_NOISE.sub("", document))):
            return True
    return False


def _top_level(document: str) -> str:
    """Return what stands outside of all braces and brackets."""
    depth, kept = 0, []
    for letter in document:
        if letter in "{(":
            depth += 1
        elif letter in "})":
            depth -= 1
        elif depth == 0:
            kept.append(letter)
    return "".join(kept)
