"""What a tenant may ask for, thrown by dice: from few ids and values, so that operations meet."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tenantry.data import DataManager
from tenantry.testing.models import (
    Article,
    Author,
    Book,
    Colour,
    Country,
    Folder,
    Mention,
    Note,
    Reply,
    Review,
    Sample,
    Ticket,
)
from tenantry.types import Page

Dice = random.Random
Throw = Callable[[Dice], Any]

IDS = [uuid.UUID(int=(7 << 76) + number) for number in range(1, 5)]
TEXTS = ["", "a", "A", "b", "ab", "%", "_", "é", "ß", "😀", "\ue000", "' OR 1=1 --"]
_WORDS = ["word", "WORDS", "wörd", "wrod", "lamp", "lamps", "x-ray", "😀"]
_INTEGERS = [-(2**63), -1, 0, 1, 2, 2**53 + 1, 2**63 - 1]
_COUNTRIES = ["at", "fr", "xx"]  # of which the last does not exist
_MOMENTS = [
    dt.datetime.min.replace(tzinfo=dt.UTC),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2026, 1, 1, 0, 0, 0, 1, dt.UTC),
]
_LEAVES = [True, False, 0, 1, 1.5, "", "a", "😀"]
SHARED = [Country(id="at", name="Austria"), Country(id="fr", name="France")]
MODELS = {
    model.__collection__: model
    for model in (Article, Author, Book, Review, Mention, Folder, Note, Sample, Ticket, Reply)
}


def one_of(*values: Any) -> Throw:
    """One of these."""
    return lambda dice: dice.choice(values)


def some_of(*values: Any) -> Throw:
    """A short list of these."""
    return lambda dice: dice.choices(values, k=dice.randint(0, 2))


def _words(dice: Dice) -> str:
    return " ".join(dice.choices(_WORDS, k=dice.randint(0, 4)))


def _json(dice: Dice) -> Any:
    kind = dice.randint(0, 5)
    if kind == 0:
        return [_json(dice) for _ in range(dice.randint(0, 2))]
    if kind == 1:
        return {dice.choice(["a", "b", "ü"]): _json(dice) for _ in range(dice.randint(0, 2))}
    return dice.choice(_LEAVES)


# collection -> field -> values; what is left out of a record takes its default
FIELDS: dict[str, dict[str, Throw]] = {
    "articles": {"title": _words, "body": _words},
    "authors": {"name": one_of(*TEXTS), "country_id": one_of(None, *_COUNTRIES)},
    "books": {
        "title": one_of("a", "b"),
        "isbn": one_of(None, *TEXTS),
        "author_id": one_of(None, *IDS),
        "copies": one_of(*_INTEGERS),
        "price": one_of(None, Decimal("0.00"), Decimal("9.99")),
    },
    "reviews": {"book_id": one_of(*IDS), "stars": one_of(0, 1, 2)},
    "mentions": {"book_id": one_of(None, *IDS), "country": one_of(None, *_COUNTRIES)},
    "folders": {"parent_id": one_of(None, 1, 2, 3, 4)},
    "notes": {"text": one_of(*TEXTS)},
    "tickets": {
        "number": one_of(None, "1", "2"),
        "title": one_of("a", "b"),
        "copies": one_of(0, 1),
        "parent_id": one_of(None, None, *IDS),
    },
    "replies": {"ticket_id": one_of(None, *IDS), "stars": one_of(0, 1, 2)},
    "samples": {
        "label": one_of(None, *TEXTS),
        "number": one_of(None, *_INTEGERS),
        "exact": one_of(None, *(Decimal(text) for text in ("-1.5", "0", "0.000000001", "2", "1E+20"))),
        "ratio": one_of(None, -1.0, 0.0, 0.1, 5e-324, 1e300),
        "flag": one_of(None, True, False),
        "moment": one_of(None, *_MOMENTS),
        "token": one_of(None, *IDS),
        "blob": one_of(None, b"", b"\0", b"\xff"),
        "colour": one_of(None, *Colour),
        "data": _json,
        "labels": some_of(*TEXTS),
        "numbers": some_of(*_INTEGERS),
    },
}
_REQUIRED = {"articles": ["title"], "authors": ["name"], "books": ["title"], "reviews": ["book_id"]}
_KEYS: dict[str, list[list[str]]] = {
    "books": [["id"], ["isbn"], ["author_id", "title"]],
    "tickets": [["id"], ["number"], ["title", "copies"]],
}
_SOFT = ("tickets",)
_RELATIONS = {
    "authors": "country",
    "books": "author",
    "reviews": "book",
    "mentions": "book",
    "folders": "parent",
    "tickets": "parent",
    "replies": "ticket",
}
_IDS: dict[str, Throw] = {"notes": one_of(*TEXTS[:4]), "folders": one_of(1, 2, 3, 4)}
_UNORDERED = ("data", "labels", "numbers")


@dataclass(frozen=True)
class Op:
    """One call of a tenant: the method of :class:`DataManager` and its arguments."""

    verb: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    async def run(self, data: DataManager) -> Any:
        """Make the call. A read follows its cursors to the end."""
        if self.verb == "stream":
            return [row async for row in data.stream(*self.arguments, **self.options)]
        if self.verb != "read":
            return await getattr(data, self.verb)(*self.arguments, **self.options)
        pages: list[Page[Any]] = []
        cursor = None
        while len(pages) < 50:
            pages.append(await data.read(*self.arguments, cursor=cursor, **self.options))
            cursor = pages[-1].next_cursor
            if cursor is None:
                break
        return pages


def operation(number: int) -> Op:
    """Return the call of this number: any that a tenant may make."""
    dice = Dice(number)
    collection = dice.choice(sorted(FIELDS))
    return dice.choice(_OPERATIONS)(dice, collection)


def creation(number: int) -> Op:
    """Return the call of this number that stores a row, if nothing is in its way."""
    dice = Dice(number)
    return _create(dice, dice.choice(sorted(FIELDS)))


def _id(dice: Dice, collection: str) -> Any:
    return _IDS.get(collection, one_of(*IDS))(dice)


def _record(dice: Dice, collection: str) -> dict[str, Any]:
    fields = FIELDS[collection]
    chosen = {
        *dice.sample(sorted(fields), dice.randint(0, min(4, len(fields)))),
        *_REQUIRED.get(collection, ()),
    }
    return {"id": _id(dice, collection), **{name: fields[name](dice) for name in sorted(chosen)}}


def _filter(dice: Dice, collection: str, depth: int = 2) -> dict[str, Any]:
    kind = dice.choice(["leaf", "leaf", "and", "or", "not"]) if depth else "leaf"
    if kind == "not":
        return {"not": _filter(dice, collection, depth - 1)}
    if kind == "leaf":
        return _leaf(dice, collection)
    return {kind: [_filter(dice, collection, depth - 1) for _ in range(dice.randint(0, 3))]}


def _leaf(dice: Dice, collection: str) -> dict[str, Any]:
    name = dice.choice(["id", *sorted(FIELDS[collection])])
    if name == "data":
        path = dice.choice(["data", "data.a", "data.b.0", "data.ü.a", "data.0"])
        operator = dice.choice(["eq", "ne", "in", "is_null"])
        return {path: {operator: _operand(dice, operator, one_of(*_LEAVES))}}
    if name in ("labels", "numbers"):
        inner = dice.choice(TEXTS if name == "labels" else _INTEGERS)
        return {name: dice.choice([{"contains": inner}, {"is_null": dice.random() < 0.5}])}
    operators = ["eq", "ne", "in", "nin", "is_null"]
    if name not in ("flag", "blob", "colour"):
        operators += ["lt", "lte", "gt", "gte", "between"]
    if name in ("label", "title", "body", "isbn", "text", "name"):
        operators += ["contains", "starts_with", "ends_with", "ilike"]
    operator = dice.choice(operators)
    values: Throw = (lambda dice: _id(dice, collection)) if name == "id" else FIELDS[collection][name]
    return {name: {operator: _operand(dice, operator, values)}}


def _operand(dice: Dice, operator: str, values: Throw) -> Any:
    def value() -> Any:
        thrown = values(dice)
        return value() if thrown is None else thrown

    if operator in ("in", "nin"):
        return [value() for _ in range(dice.randint(0, 3))]
    if operator == "between":
        return [value(), value()]
    return dice.random() < 0.5 if operator == "is_null" else value()


def _order(dice: Dice, names: list[str], most: int) -> list[str]:
    return [
        dice.choice(["", "-"]) + name for name in dice.sample(names, dice.randint(0, min(most, len(names))))
    ]


def _create(dice: Dice, collection: str) -> Op:
    record = _record(dice, collection)
    options = {} if dice.random() < 0.7 else {"idempotency_key": dice.choice(["k1", "k2"])}
    if dice.random() < 0.5:
        return Op("create", (MODELS[collection](**record),), options)
    return Op("create", (collection, record), options)


def _bulk(dice: Dice, collection: str) -> Op:
    """Many items, of which few meet each other in one batch and more in all."""
    verb = dice.choice(["bulk_create", "bulk_create", "bulk_upsert", "bulk_update", "bulk_delete"])
    number = range(dice.randint(0, 5))
    items: list[Any] = [_record(dice, collection) for _ in number]
    options: dict[str, Any] = {"batch_size": dice.choice([1, 2, 3, 100]), "atomic": dice.random() < 0.3}
    if verb == "bulk_upsert":
        options["on"] = dice.choice(_KEYS.get(collection, [["id"]]))
    if verb == "bulk_update":
        versions = [(), (), (1,), (2,)]
        items = [(item.pop("id"), item, *dice.choice(versions)) for item in items]
    if verb == "bulk_delete":
        items = [item["id"] for item in items]
    elif verb != "bulk_update" and dice.random() < 0.3:
        return Op(verb, ([MODELS[collection](**item) for item in items],), options)
    return Op(verb, (dice.choice([collection, MODELS[collection]]), items), options)


def _update(dice: Dice, collection: str) -> Op:
    changes = _record(dice, collection)
    id = changes.pop("id")
    options: dict[str, Any] = {"version": dice.choice([None, None, 1, 2, 3])}
    if dice.random() < 0.2:
        options["idempotency_key"] = dice.choice(["k1", "k3"])
    return Op("update", (dice.choice([collection, MODELS[collection]]), id, changes), options)


def _upsert(dice: Dice, collection: str) -> Op:
    on = dice.choice(_KEYS.get(collection, [["id"]]))
    return Op("upsert", (collection, _record(dice, collection)), {"on": on})


def _delete(dice: Dice, collection: str) -> Op:
    options: dict[str, Any] = {"version": dice.choice([None, None, 1, 2, 3])}
    if dice.random() < 0.2:
        options["permanently"] = True
    return Op("delete", (collection, _id(dice, collection)), options)


def _soft(dice: Dice, collection: str) -> Op:
    """Return a call that only collections with soft deletion know, or a refusal of another."""
    collection = dice.choice([*_SOFT * 9, collection])
    kind = dice.randint(0, 5)
    if kind == 0:
        options = {"older_than": dt.timedelta(), "batch_size": dice.choice([1, 2, 9])}
        return Op("purge_deleted", (collection,), options)
    if kind < 3:
        return _delete(dice, collection)
    id = _id(dice, collection)
    return Op(
        "restore", (dice.choice([collection, MODELS[collection]]), id), {"version": dice.choice([None, 2])}
    )


def _which(dice: Dice, collection: str) -> dict[str, Any]:
    return {"deleted": dice.choice(["with", "only"])} if collection in _SOFT and dice.random() < 0.5 else {}


def _get(dice: Dice, collection: str) -> Op:
    return Op("get", (dice.choice([collection, MODELS[collection]]), _id(dice, collection)))


def _read(dice: Dice, collection: str) -> Op:
    names = ["id", "version", *(name for name in FIELDS[collection] if name not in _UNORDERED)]
    options: dict[str, Any] = {"order_by": _order(dice, names, 3), "limit": dice.choice([1, 2, 100])}
    if collection in _RELATIONS and dice.random() < 0.5:
        options["include"] = [_RELATIONS[collection]]
    options |= _which(dice, collection)
    return Op("read", (MODELS[collection], _filter(dice, collection)), options)


def _stream(dice: Dice, collection: str) -> Op:
    names = ["id", "version", *(name for name in FIELDS[collection] if name not in _UNORDERED)]
    options: dict[str, Any] = {"order_by": _order(dice, names, 2), "batch_size": dice.choice([1, 2, 9])}
    return Op("stream", (collection, _filter(dice, collection, 1)), options | _which(dice, collection))


def _distinct(dice: Dice, collection: str) -> Op:
    names = [name for name in sorted(FIELDS[collection]) if name not in _UNORDERED]
    fields = dice.sample(names, dice.randint(1, min(2, len(names))))
    options = {
        "fields": fields,
        "distinct": True,
        "order_by": _order(dice, fields, 1),
        "limit": dice.choice([1, 9]),
    }
    return Op("read", (collection, _filter(dice, collection)), options)


def _count(dice: Dice, collection: str) -> Op:
    where, options = _filter(dice, collection), _which(dice, collection)
    return Op(dice.choice(["count", "exists"]), (collection, where), options)


def _search(dice: Dice, collection: str) -> Op:
    text = " ".join(
        dice.choice(["", "", "-", '"']) + dice.choice(_WORDS) + dice.choice(["", "", "*", '"'])
        for _ in range(dice.randint(1, 3))
    )
    options = {
        "fields": dice.choice([None, ["title"], ["body"]]),
        "where": _filter(dice, "articles", 0) if dice.random() < 0.3 else None,
        "limit": dice.choice([1, 100]),
        "highlight": True,
        "typos": dice.random() < 0.5,
    }
    return Op("search", (dice.choice(["articles", Article]), text), options)


_SUMMED = {"books": ["copies", "price"], "reviews": ["stars"], "samples": ["number", "exact"]}


def _aggregate(dice: Dice, collection: str) -> Op:
    names = [name for name in sorted(FIELDS[collection]) if name not in _UNORDERED]
    measures: dict[str, Any] = {"n": {"count": "*"}}
    for name in dice.sample(names, dice.randint(0, min(2, len(names)))):
        words = ["count", "count_distinct", *(["sum", "avg"] if name in _SUMMED.get(collection, ()) else [])]
        measures[f"of_{name}"] = {dice.choice(words): name}
    groups = dice.sample(names, dice.randint(0, min(2, len(names))))
    options: dict[str, Any] = {"group_by": groups, "order_by": _order(dice, [*measures, *groups], 2)}
    if groups and dice.random() < 0.5:
        chosen = dice.choice(sorted(measures))
        options["having"] = {chosen: {dice.choice(["gt", "lte", "ne"]): dice.choice([0, 1, 2])}}
    options |= _which(dice, collection)
    return Op("aggregate", (collection, measures, _filter(dice, collection, 1)), options)


# each as often as it stands here
_OPERATIONS: list[Callable[[Dice, str], Op]] = [
    *[_create] * 4,
    *[_bulk] * 4,
    *[_update] * 3,
    *[_upsert] * 2,
    *[_delete] * 2,
    _get,
    *[_read] * 3,
    _distinct,
    *[_count] * 2,
    *[_search] * 2,
    *[_aggregate] * 2,
    *[_soft] * 3,
    _stream,
]
