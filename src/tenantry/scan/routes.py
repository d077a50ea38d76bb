"""Where ids sit in requests, and how to put others there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from tenantry.scan.credentials import TENANT_KEY
from tenantry.scan.messages import Exchange, Request
from tenantry.scan.objects import Harvest, label_of_key, label_of_path, singular, things
from tenantry.scan.openapi import PARAMETER, Operation
from tenantry.scan.values import UUID, is_id_key, is_id_like

PAGING = re.compile(
    r"cursor|after|before|next|page_?token|next_?token|continuation(?:_?token)?|starting_?after|ending_?before|marker",
    re.IGNORECASE,
)
_COUNTING = re.compile(
    r"page|limit|offset|size|per_?page|page_?size|count|skip|take|first|last|year|_", re.IGNORECASE
)
_LITERAL = re.compile(r'(?<!")"([^"\\\n]+)"(?!")')
_MAX_FILLED = 6


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a request that holds an id.

    Attributes:
        place: ``path``, ``query`` or ``body``.
        at: The index of the segment, the parameter's name, or the keys that lead to it.
        value: What stands there.
        labels: What it may be an id of.
        key: Under which name lists give it.
    """

    place: str
    at: tuple[Any, ...]
    value: str
    labels: tuple[str, ...]
    key: str = "id"

    @property
    def name(self) -> str:
        """How the place is called in a report."""
        return {"path": f"{{{self.labels[0] if self.labels else 'id'}}}"}.get(
            self.place, ".".join(map(str, self.at))
        )


@dataclass(frozen=True, slots=True)
class Template:
    """A request whose ids may be replaced."""

    request: Request
    slots: tuple[Slot, ...]

    @property
    def route(self) -> str:
        """What is the same for requests that differ in ids alone: ``GET /invoices/{invoice}?expand``."""
        parts = list(self.request.segments)
        for slot in self.slots:
            if slot.place == "path":
                parts[slot.at[0]] = slot.name
        names = sorted({name for name, _ in self.request.query} - {"_"})
        operation = _operation_name(self.request)
        return f"{self.request.method} /{'/'.join(parts)}{'?' if names else ''}{'&'.join(names)}{operation}"

    @property
    def is_neutral(self) -> bool:
        """Whether it asks for nothing in particular, so that each tenant may ask it of its own."""
        return not self.slots and self.bare() == self and not any(_words(self.request.data))

    def bare(self) -> Template:
        """Return it without the parameters that are no id and no page's number: each of them may be what leaks."""
        kept = {slot.at[0] for slot in self.slots if slot.place == "query"}
        query = tuple(pair for pair in self.request.query if pair[0] in kept or _COUNTING.fullmatch(pair[0]))
        return replace(self, request=replace(self.request, query=query))


def _words(data: Any) -> Iterator[str]:
    """Yield the texts in a body, apart from a GraphQL document."""
    for keys, value in _body_leaves(data):
        if keys[-1] == "query" and "{" in value:
            yield from _LITERAL.findall(value)
        elif keys[-1] != "operationName" and not value.isdigit():
            yield value


def put(request: Request, slot: Slot, value: str) -> Request:
    """Return ``request`` with ``value`` where the slot is."""
    if slot.place == "path":
        return request.with_segment(slot.at[0], value)
    if slot.place == "query":
        return request.with_query(slot.at[0], value)
    return request.with_json(_replaced(request.data, slot.at, slot.value, value))


def template_of(request: Request, harvest: Harvest, tenants: frozenset[str] = frozenset()) -> Template:
    """Return where ``request`` holds ids: what looks like one, what lists gave as one, and names of tenants."""
    return Template(request, tuple(_slots(request, harvest, tenants)))


def _slots(request: Request, harvest: Harvest, tenants: frozenset[str]) -> Iterator[Slot]:
    segments = request.segments
    for at, value in enumerate(segments):
        label = singular(segments[at - 1]) if at else ""
        if value in tenants:
            yield Slot("path", (at,), value, ("tenant",))
        elif is_id_like(value) or (at and harvest.key_of(label, value)):
            yield Slot("path", (at,), value, (label,), harvest.key_of(label, value) or "id")
    leaf = label_of_path(segments)
    for name, value in request.query:
        if _holds_id(name, value, tenants):
            yield _named_slot("query", (name,), value, leaf, harvest, tenants)
    for keys, value in _body_leaves(request.data):
        if keys[-1] == "query":
            for literal in _LITERAL.findall(value):
                if is_id_like(literal) or harvest.labels_of(literal):
                    yield Slot("body", keys, literal, (leaf, *harvest.labels_of(literal)))
        elif _holds_id(str(keys[-1]), value, tenants):
            yield _named_slot("body", keys, value, leaf, harvest, tenants)


def _named_slot(
    place: str, at: tuple[Any, ...], value: str, leaf: str, harvest: Harvest, tenants: frozenset[str]
) -> Slot:
    label = "tenant" if value in tenants else label_of_key(str(at[-1]))
    labels = (label,) if label else (leaf, *harvest.labels_of(value))
    return Slot(place, at, value, labels, harvest.key_of(labels[0], value) or "id")


def _holds_id(name: str, value: str, tenants: frozenset[str]) -> bool:
    if not value or PAGING.fullmatch(name) or _COUNTING.fullmatch(name):
        return False
    return (
        value in tenants or bool(UUID.fullmatch(value)) or is_id_key(name) or label_of_key(name) is not None
    )


def template_of_operation(operation: Operation) -> Template:
    """Return an operation as a request with slots to fill."""
    query = tuple((name, value) for name, value in operation.required)
    request = Request(operation.method, operation.template, query)
    slots = []
    parts = operation.template.split("/")[1:]
    for at, part in enumerate(parts):
        found = PARAMETER.search(part)
        if found:
            slots.append(Slot("path", (at,), "", _labels(found[1], parts, at), _key(found[1])))
    for name, value in operation.required:
        if not value:
            label = label_of_key(name) or label_of_path(tuple(parts))
            slots.append(Slot("query", (name,), "", (label,), _key(name)))
    return Template(request, tuple(slots))


def _labels(name: str, parts: list[str], at: int) -> tuple[str, ...]:
    if TENANT_KEY.fullmatch(name):
        return ("tenant",)
    before = singular(parts[at - 1]) if at else ""
    return tuple(dict.fromkeys(label for label in (before, label_of_key(name)) if label))


def _key(name: str) -> str:
    return "id" if name.lower() == "id" or label_of_key(name) else name.lower()


def filled(
    template: Template,
    harvest: Harvest,
    seen: list[Exchange],
    tenants: frozenset[str],
    without: Harvest | None = None,
) -> list[Request]:
    """Return the request with ids that one tenant has seen; those out of the very list above the id come first.

    Args:
        template: What to fill.
        harvest: The tenant's ids.
        seen: What the tenant was answered.
        tenants: The tenant's names.
        without: Ids that do not serve for the last place, such as the other tenant's.
    """
    rows, any_row = _from_lists(template, seen, without), _from_harvest(template, harvest, tenants, without)
    return list(islice(dict.fromkeys([*rows, *any_row]), _MAX_FILLED))


def _from_lists(template: Template, seen: list[Exchange], without: Harvest | None) -> Iterator[Request]:
    if len(template.slots) == 0 or any(slot.place != "path" for slot in template.slots):
        return
    last = template.slots[-1]
    free = {slot.at[0] for slot in template.slots}
    wanted = template.request.segments[: last.at[0]]
    taken = _taken(last, without)
    for exchange in seen:
        path = exchange.request.path.rstrip("/")
        above = path.split("/")[1:]
        if len(above) != len(wanted) or any(
            at not in free and part != above[at] for at, part in enumerate(wanted)
        ):
            continue
        tail = template.request.path.split("/")[last.at[0] + 2 :]
        base = replace(template.request, path="/".join([path, "-", *tail]))
        rows = (thing for thing in things(exchange) if thing.label in last.labels)
        ids = (found for row in rows if (found := _value(row.own, last.key, row.id)) and found not in taken)
        yield from (base.with_segment(last.at[0], found) for found in islice(ids, _MAX_FILLED))


def _taken(slot: Slot, harvest: Harvest | None) -> set[str]:
    return set() if harvest is None else {id for label in slot.labels for id in harvest.ids(label, slot.key)}


def _value(own: Any, key: str, default: str | None) -> str | None:
    found = {name.lower(): value for name, value in own.items()}.get(key)
    return found if found is not None else default


def _from_harvest(
    template: Template, harvest: Harvest, tenants: frozenset[str], without: Harvest | None
) -> Iterator[Request]:
    choices = [candidates(slot, harvest, tenants) for slot in template.slots]
    taken = _taken(template.slots[-1], without) if template.slots else set()
    choices[-1:] = [[id for id in last if id not in taken] for last in choices[-1:]]
    for values in islice(product(*choices), _MAX_FILLED):
        request = template.request
        for slot, value in zip(template.slots, values, strict=True):
            request = put(request, slot, value)
        yield request


def candidates(slot: Slot, harvest: Harvest, tenants: frozenset[str]) -> list[str]:
    """Return what one tenant could put into a slot."""
    if "tenant" in slot.labels and tenants:
        return sorted(tenants)
    for label in slot.labels:
        ids = harvest.ids(label, slot.key)
        if ids:
            return ids
    return []


def _body_leaves(data: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        if isinstance(value, dict | list):
            yield from _body_leaves(value, (*keys, key))
        elif isinstance(value, str | int) and not isinstance(value, bool):
            yield (*keys, key), str(value)


def _replaced(data: Any, keys: tuple[Any, ...], old: str, value: str) -> Any:
    if not keys:
        if isinstance(data, str) and data != old and f'"{old}"' in data:
            return data.replace(f'"{old}"', f'"{value}"')
        return int(value) if isinstance(data, int) and value.isdigit() else value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[keys[0]] = _replaced(copy[keys[0]], keys[1:], old, value)
    return copy


def _operation_name(request: Request) -> str:
    data = request.data
    document = data.get("query") if isinstance(data, dict) else None
    if not isinstance(document, str):
        return ""
    name = data.get("operationName") or " ".join(document.split())[:60]
    return f" [{name}]"
