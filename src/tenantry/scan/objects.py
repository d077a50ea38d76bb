"""The things in JSON responses: what they are called, their ids, and whether two are the same."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

from tenantry.scan.content import leaves, trees, walk
from tenantry.scan.messages import Exchange
from tenantry.scan.values import is_id_key, is_id_like, is_time

_WRAPPERS = re.compile(
    r"items|data|results?|result|rows|records|edges|nodes?|values?|contents?|objects|list|entries|hits|payload|response|page"
)
_MAX_DEPTH = 40
_SAME = 0.8


@dataclass(frozen=True, slots=True)
class Thing:
    """One JSON object of a response.

    Attributes:
        label: What it is one of, in the singular: ``invoice``.
        values: Its own values, and those of what it holds, by their dotted names.
        own: Its own values alone.
    """

    label: str
    values: Mapping[str, str]
    own: Mapping[str, str]

    @property
    def id(self) -> str | None:
        """The value of ``id``, or of what most resembles it."""
        names = {name.lower(): name for name in self.own}
        for wanted in ("id", "uuid", "_id", f"{self.label}_id", f"{self.label}id", "slug", "key", "number"):
            if wanted in names:
                return self.own[names[wanted]]
        return None

    def same_as(self, other: Thing) -> bool:
        """Whether this is the other thing, seen again: what both tell agrees, apart from times."""
        common = [name for name in self.values.keys() & other.values.keys() if not is_time(self.values[name])]
        equal = sum(self.values[name] == other.values[name] for name in common)
        return bool(common) and equal >= _SAME * len(common)


@lru_cache(maxsize=4096)
def singular(word: str) -> str:
    """Return what one of ``word`` is called, in lower case: ``invoice`` of ``Invoices``."""
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).replace("-", "_").lower()
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


@lru_cache(maxsize=4096)
def label_of_key(key: str) -> str | None:
    """Return what an id under ``key`` is the id of: ``customer`` of ``customer_id`` and ``customerId``."""
    found = re.fullmatch(r"(.+?)(?:[_-](?:ids?|uuids?|slug)|I[dD]s?|Uuid)", key)
    return singular(found[1]) if found else None


def label_of_path(segments: tuple[str, ...]) -> str:
    """Return what the last part of a path that is a word calls what is there."""
    words = [part for part in segments if part and not is_id_like(part)]
    return singular(words[-1].partition(".")[0]) if words else ""


def things(exchange: Exchange) -> Iterator[Thing]:
    """Yield the objects in a response, outer ones first."""
    label = label_of_path(exchange.request.segments)
    for tree in trees(exchange.response):
        yield from _things(tree, label, 0)


def _things(tree: Any, label: str, depth: int) -> Iterator[Thing]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(tree, list):
        for item in tree:
            yield from _things(item, label, depth + 1)
    elif isinstance(tree, dict):
        own = {str(key): str(value) for key, value in tree.items() if _is_value(value)}
        if own:
            values = {".".join(leaf.keys): leaf.text for leaf in walk(tree)}
            yield Thing(label, values, own)
        for key, value in tree.items():
            inner = label if _WRAPPERS.fullmatch(str(key).lower()) else singular(str(key))
            yield from _things(value, inner, depth + 1)


def _is_value(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


class Harvest:
    """The ids that a tenant has seen, by what they are ids of and under which name they stood."""

    def __init__(self) -> None:
        self._ids: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))

    def learn(self, exchange: Exchange) -> None:
        """Take the ids out of a response."""
        for thing in things(exchange):
            for key, value in thing.own.items():
                self._learn_value(thing.label, key, value)
        for leaf in leaves(exchange.response):
            if leaf.text.startswith(("/", "http://", "https://")):
                self._learn_link(leaf.text)

    def _learn_value(self, label: str, key: str, value: str) -> None:
        other = label_of_key(key)
        if other is not None:
            self._ids[other]["id"][value] = None
        elif is_id_key(key.lower()):
            self._ids[label][key.lower()][value] = None

    def _learn_link(self, link: str) -> None:
        parts = [unquote(part) for part in urlsplit(link).path.split("/") if part]
        for word, part in pairwise(parts):
            if is_id_like(part) and not is_id_like(word):
                self._ids[singular(word)]["id"][part] = None

    def ids(self, label: str, key: str = "id") -> list[str]:
        """Return the ids of things called ``label``, in the order in which they were seen."""
        names = self._ids.get(label, {})
        if key in names:
            return list(names[key])
        return list(next(iter(names.values()), {})) if key == "id" else []

    def key_of(self, label: str, value: str) -> str | None:
        """Return under which name ``value`` stood in things called ``label``."""
        names = self._ids.get(label, {})
        return next((key for key, values in names.items() if value in values), None)

    def labels_of(self, value: str) -> list[str]:
        """Return what ``value`` is an id of."""
        return [label for label, names in self._ids.items() if any(value in ids for ids in names.values())]
