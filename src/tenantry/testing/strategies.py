"""Hypothesis strategies: what a tenant may ask for, drawn from few ids and values so that operations meet."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tenantry.data import DataManager
from tenantry.testing.models import Author, Book, Colour, Country, Folder, Mention, Note, Review, Sample
from tenantry.types import Page

IDS = [uuid.UUID(int=(7 << 76) + number) for number in range(1, 6)]
TEXTS = ["", "a", "A", "b", "ab", "%", "_", "é", "ß", "😀", "\ue000", "' OR 1=1 --"]
_COUNTRIES = ["at", "fr", "xx"]  # of which the last does not exist

_text = st.sampled_from(TEXTS)
_int = st.sampled_from([-(2**63), -1, 0, 1, 2, 2**53 + 1, 2**63 - 1])
_exact = st.sampled_from([Decimal(text) for text in ("-1.5", "0", "0.000000001", "2", "1E+20")])
_float = st.sampled_from([-1.0, 0.0, 0.1, 5e-324, 1e300])
_moment = st.sampled_from(
    [
        dt.datetime.min.replace(tzinfo=dt.UTC),
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2026, 1, 1, 0, 0, 0, 1, dt.UTC),
    ]
)
_json_leaf = st.sampled_from([None, True, False, 0, 1, 1.5, "", "a", "😀"])
_json = st.recursive(
    _json_leaf,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "ü"]), inner, max_size=2)
    ),
    max_leaves=4,
).filter(lambda value: value is not None)

_ids = {"notes": st.sampled_from(TEXTS), "folders": st.integers(1, 5)}
_id = st.sampled_from(IDS)


def _or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


# collection -> field -> values; what is left out of a record takes its default
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "authors": {"name": _text, "country_id": _or_none(st.sampled_from(_COUNTRIES))},
    "books": {
        "title": _text,
        "isbn": _or_none(_text),
        "author_id": _or_none(_id),
        "copies": _int,
        "price": _or_none(st.sampled_from([Decimal("0.00"), Decimal("9.99")])),
    },
    "reviews": {"book_id": _id, "stars": st.integers(0, 3)},
    "mentions": {"book_id": _or_none(_id), "country": _or_none(st.sampled_from(_COUNTRIES))},
    "folders": {"parent_id": _or_none(st.integers(1, 5))},
    "notes": {"text": _text},
    "samples": {
        "label": _or_none(_text),
        "number": _or_none(_int),
        "exact": _or_none(_exact),
        "ratio": _or_none(_float),
        "flag": _or_none(st.booleans()),
        "moment": _or_none(_moment),
        "token": _or_none(_id),
        "blob": _or_none(st.sampled_from([b"", b"\0", b"\xff"])),
        "colour": _or_none(st.sampled_from(Colour)),
        "data": _or_none(_json),
        "labels": _or_none(st.lists(_text, max_size=2)),
        "numbers": _or_none(st.lists(_int, max_size=2)),
    },
}
MODELS = {model.__collection__: model for model in (Author, Book, Review, Mention, Folder, Note, Sample)}
_REQUIRED = {"authors": {"name"}, "books": {"title"}, "reviews": {"book_id"}}
_KEYS: dict[str, list[list[str]]] = {"books": [["id"], ["isbn"], ["author_id", "title"]]}
_RELATIONS = {
    "authors": "country",
    "books": "author",
    "reviews": "book",
    "mentions": "book",
    "folders": "parent",
}
SHARED = [Country(id="at", name="Austria"), Country(id="fr", name="France")]

collections = st.sampled_from(sorted(FIELDS))


def id_of(collection: str) -> st.SearchStrategy[Any]:
    """Ids of a collection, of which there are few."""
    return _ids.get(collection, _id)


@st.composite
def records(draw: st.DrawFn, collection: str) -> dict[str, Any]:
    """Records to store, with an id."""
    fields = FIELDS[collection]
    chosen = draw(st.sets(st.sampled_from(sorted(fields)), max_size=4)) | _REQUIRED.get(collection, set())
    return {"id": draw(id_of(collection)), **{name: draw(fields[name]) for name in sorted(chosen)}}


@st.composite
def filters(draw: st.DrawFn, collection: str, depth: int = 2) -> dict[str, Any]:
    """Filters as dicts."""
    kind = draw(st.sampled_from(["leaf", "leaf", "and", "or", "not"])) if depth else "leaf"
    if kind == "not":
        return {"not": draw(filters(collection, depth - 1))}
    if kind in ("and", "or"):
        return {kind: draw(st.lists(filters(collection, depth - 1), max_size=3))}
    return draw(_leaves(collection))


@st.composite
def _leaves(draw: st.DrawFn, collection: str) -> dict[str, Any]:
    name = draw(st.sampled_from(["id", *sorted(FIELDS[collection])]))
    values = (id_of(collection) if name == "id" else FIELDS[collection][name]).filter(
        lambda value: value is not None
    )
    if name == "data":
        path = draw(st.sampled_from(["data", "data.a", "data.b.0", "data.ü.a", "data.0"]))
        operator = draw(st.sampled_from(["eq", "ne", "in", "is_null"]))
        leaf = _json_leaf.filter(lambda value: value is not None)
        return {path: {operator: _operand(draw, operator, leaf)}}
    if name in ("labels", "numbers"):
        inner = _text if name == "labels" else _int
        return draw(
            st.sampled_from([{name: {"contains": draw(inner)}}, {name: {"is_null": draw(st.booleans())}}])
        )
    operators = ["eq", "ne", "in", "nin", "is_null"]
    if name not in ("flag", "blob", "colour"):
        operators += ["lt", "lte", "gt", "gte", "between"]
    if name in ("label", "title", "isbn", "text", "name"):
        operators += ["contains", "starts_with", "ends_with", "ilike"]
    operator = draw(st.sampled_from(operators))
    return {name: {operator: _operand(draw, operator, values)}}


def _operand(draw: st.DrawFn, operator: str, values: st.SearchStrategy[Any]) -> Any:
    if operator in ("in", "nin"):
        return draw(st.lists(values, max_size=3))
    if operator == "between":
        return [draw(values), draw(values)]
    return draw(st.booleans()) if operator == "is_null" else draw(values)


@st.composite
def orders(draw: st.DrawFn, collection: str) -> list[str]:
    """Sort keys, each ascending or descending."""
    names = [
        "id",
        "version",
        *(name for name in FIELDS[collection] if name not in ("data", "labels", "numbers")),
    ]
    chosen = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    return [draw(st.sampled_from(["", "-"])) + name for name in chosen]


@dataclass(frozen=True)
class Op:
    """One call of a tenant: the method of :class:`DataManager` and its arguments."""

    verb: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    async def run(self, data: DataManager) -> Any:
        """Make the call. A read follows its cursors to the end."""
        if self.verb == "create":
            return await data.create(*self.arguments, **self.options)
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


@st.composite
def operations(draw: st.DrawFn) -> Op:
    """Any call that a tenant may make."""
    collection = draw(collections)
    return draw(draw(st.sampled_from(_OPERATIONS))(collection))


@st.composite
def creations(draw: st.DrawFn) -> Op:
    """A call that stores a row, if nothing is in its way."""
    return draw(_create(draw(collections)))


@st.composite
def _create(draw: st.DrawFn, collection: str) -> Op:
    record = draw(records(collection))
    options = draw(st.sampled_from([{}, {}, {"idempotency_key": "k1"}, {"idempotency_key": "k2"}]))
    if draw(st.booleans()):
        return Op("create", (MODELS[collection](**record),), options)
    return Op("create", (collection, record), options)


@st.composite
def _bulk(draw: st.DrawFn, collection: str) -> Op:
    return Op("bulk_create", (collection, draw(st.lists(records(collection), max_size=3))))


@st.composite
def _update(draw: st.DrawFn, collection: str) -> Op:
    changes = draw(records(collection))
    id = changes.pop("id")
    options: dict[str, Any] = {"version": draw(st.sampled_from([None, None, 1, 2, 3]))}
    if draw(st.integers(0, 4)) == 0:
        options["idempotency_key"] = draw(st.sampled_from(["k1", "k3"]))
    target = draw(st.sampled_from([collection, MODELS[collection]]))
    return Op("update", (target, id, changes), options)


@st.composite
def _upsert(draw: st.DrawFn, collection: str) -> Op:
    on = draw(st.sampled_from(_KEYS.get(collection, [["id"]])))
    return Op("upsert", (collection, draw(records(collection))), {"on": on})


@st.composite
def _delete(draw: st.DrawFn, collection: str) -> Op:
    version = draw(st.sampled_from([None, None, 1, 2, 3]))
    return Op("delete", (collection, draw(id_of(collection))), {"version": version})


@st.composite
def _get(draw: st.DrawFn, collection: str) -> Op:
    return Op("get", (draw(st.sampled_from([collection, MODELS[collection]])), draw(id_of(collection))))


@st.composite
def _read(draw: st.DrawFn, collection: str) -> Op:
    options: dict[str, Any] = {
        "order_by": draw(orders(collection)),
        "limit": draw(st.sampled_from([1, 2, 100])),
    }
    if collection in _RELATIONS and draw(st.booleans()):
        options["include"] = [_RELATIONS[collection]]
    return Op("read", (MODELS[collection], draw(filters(collection))), options)


@st.composite
def _distinct(draw: st.DrawFn, collection: str) -> Op:
    names = [name for name in sorted(FIELDS[collection]) if name not in ("data", "labels", "numbers")]
    fields = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    order = [draw(st.sampled_from(["", "-"])) + name for name in fields[:1]]
    options = {
        "fields": fields,
        "distinct": True,
        "order_by": order,
        "limit": draw(st.sampled_from([1, 100])),
    }
    return Op("read", (collection, draw(filters(collection))), options)


@st.composite
def _count(draw: st.DrawFn, collection: str) -> Op:
    return Op(draw(st.sampled_from(["count", "exists"])), (collection, draw(filters(collection))))


# each as often as it stands here
_OPERATIONS = [
    *[_create] * 4,
    *[_bulk] * 2,
    *[_update] * 3,
    *[_upsert] * 2,
    *[_delete] * 2,
    _get,
    *[_read] * 3,
    _distinct,
    *[_count] * 2,
]
