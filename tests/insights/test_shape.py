"""A shape is the same for all values, and holds none of them."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import MultiTenantSDK
from tenantry.filters import parse_where
from tenantry.hooks import Operation
from tenantry.insights.collector import Collector
from tenantry.insights.sampler import Sampler
from tenantry.insights.shape import key_of, shape_of
from tests.insights.shop import ARTICLES, MODELS, Article, operation

CANARY = "canary7f3a"
texts = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=5).map(CANARY.__add__)
instants = st.integers(10**9, 3 * 10**10).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC))


def _leaves() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda v: {"title": v}, texts),
        st.builds(
            lambda op, v: {"title": {op: v}}, st.sampled_from(["ne", "lt", "contains", "ends_with"]), texts
        ),
        st.builds(lambda op, v: {"status": {op: v}}, st.sampled_from(["ilike", "starts_with", "gte"]), texts),
        st.builds(lambda v: {"slug": {"in": v}}, st.lists(texts, min_size=1, max_size=5)),
        st.builds(lambda v: {"tags": {"contains": v}}, texts),
        st.builds(lambda path, v: {f"details.{path}": v}, texts, texts),
        st.builds(lambda v: {"words": v}, st.integers(7_000_000, 7_000_009)),
        st.builds(lambda v: {"price": {"gt": v}}, st.integers(7_000_000, 7_000_009).map(Decimal)),
        st.builds(lambda v: {"published": {"lte": v}}, instants),
        st.builds(lambda v: {"author_id": v}, st.uuids()),
        st.just({"published": {"is_null": True}}),
    )


filters = st.recursive(
    _leaves(),
    lambda inner: st.one_of(
        st.builds(lambda items: {"and": items}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda items: {"or": items}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda item: {"not": item}, inner),
    ),
    max_leaves=6,
)


@given(filters, texts.map(str.lower), texts, st.integers(7_000_000, 7_000_009))
def test_no_value_of_a_tenant_is_in_a_shape(
    where: dict[str, Any], tenant: str, request: str, limit: int
) -> None:
    asked = operation(
        "read", parse_where(ARTICLES, where), tenant=tenant, request=request, order=("-words",), limit=limit
    )
    shape = shape_of(asked)
    stored = msgspec.json.encode(shape).decode() + repr(key_of(asked))
    assert CANARY not in stored
    assert "7000" not in stored
    for value in _values(where):
        assert str(value) not in stored


def _values(where: Any) -> list[Any]:
    if isinstance(where, dict):
        return [value for item in where.values() for value in _values(item)]
    if isinstance(where, list):
        return [value for item in where for value in _values(item)]
    return [where] if isinstance(where, dt.datetime | uuid.UUID) else []


@given(filters, filters)
def test_what_has_one_key_has_one_shape(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (operation("read", parse_where(ARTICLES, where)) for where in (one, other))
    if key_of(first) == key_of(second):
        assert shape_of(first) == shape_of(second)


async def _heard(*calls: dict[str, Any]) -> list[Operation]:
    heard: list[Operation] = []
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        await data.bulk_create([Article(slug=str(number), words=number) for number in range(5)])
        sdk.add_after_hook(heard.append)
        for call in calls:
            await data.read(Article, **call)
    return heard


async def test_conditions_are_told_apart() -> None:
    where = {"status": "new", "words": {"gte": 1, "lt": 9}, "slug": {"in": ["a"]}, "title": {"contains": "x"}}
    (heard,) = await _heard({"where": {**where, "details.size": 3}, "order_by": ["-published"], "limit": 5})
    shape = shape_of(heard)
    assert (shape.equal, shape.ranges, shape.patterns) == (("slug", "status"), ("words",), ("title",))
    assert shape.others == ("details[…] eq",)
    assert (shape.order, shape.limited, shape.paged) == (("-published", "-id"), True, False)


async def test_alternatives_that_differ_in_values_alone_are_one() -> None:
    heard = await _heard(
        *({"where": {"or": [{"status": str(number)} for number in range(count)]}} for count in (4, 9, 30))
    )
    assert len({key_of(item) for item in heard}) == 1
    assert shape_of(heard[0]).others == ("(status eq)",)
    assert shape_of(heard[0]).equal == ()


async def test_the_order_of_conditions_is_no_matter() -> None:
    heard = await _heard({"where": {"status": "a", "words": 1}}, {"where": {"words": 2, "status": "b"}})
    assert shape_of(heard[0]) == shape_of(heard[1])
    collector = Collector(Sampler(1.0))
    for item in heard:
        collector(item)
    assert [item.counts.count for item in collector.of_this_hour()] == [2]


@pytest.mark.parametrize("order", [["words"], ["-published", "words"], ["title", "-words"]])
async def test_a_cursor_is_no_condition(order: list[str]) -> None:
    heard: list[Operation] = []
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        await data.bulk_create([Article(slug=str(number), words=number) for number in range(5)])
        sdk.add_after_hook(heard.append)
        page = await data.read(Article, {"status": "new"}, order_by=order, limit=2)
        await data.read(Article, {"status": "new"}, order_by=order, limit=2, cursor=page.next_cursor)
    first, second = map(shape_of, heard)
    assert (first.paged, second.paged) == (False, True)
    assert second.equal == first.equal == ("status",)
    assert second.others == second.ranges == ()
    assert second.text == f"{first.text} after a cursor"


def test_a_verb_that_nobody_knows_is_counted() -> None:
    verb: Any = "levitate"
    collector = Collector(Sampler(0.0))
    collector(operation(verb))
    collector(Operation(verb, None, operation().context))
    assert [item.shape.text for item in collector.of_this_hour()] == ["levitate articles", "levitate"]
