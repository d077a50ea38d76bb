"""Few indexes for many shapes, and none that exists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.insights.candidates import MAX_FOR_A_COLLECTION, Need, candidates, need_of
from tenantry.insights.counts import Counted
from tenantry.ports import Index
from tenantry.schema import Kind
from tests.insights.shop import ARTICLES, counted

ALL = frozenset(Kind) - {Kind.JSON, Kind.LIST}
WITHOUT_DECIMALS = ALL - {Kind.DECIMAL}
KEY = Index("articles", ("tenant_id", "id"), "articles_pkey", unique=True, required=True)
SLUG = Index("articles", ("tenant_id", "slug"), "articles_slug_key", unique=True, required=True)


def index(*fields: str) -> Index:
    return Index("articles", ("tenant_id", *fields), "_".join(fields))


def advised(wanted: Sequence[Need], existing: Sequence[Index] = ()) -> list[tuple[str, ...]]:
    pairs = [(counted(f"shape {number}"), need) for number, need in enumerate(wanted)]
    return [made.fields for made in candidates(pairs, ARTICLES, [KEY, SLUG, *existing])]


def need(*equal: str, tail: str | None = None) -> Need:
    return Need(frozenset(equal), tail)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ({"equal": ("status",)}, need("status")),
        ({"equal": ("status",), "order": ("-published", "-id")}, need("status", tail="published")),
        ({"equal": ("status",), "order": ("-status", "title", "id")}, need("status", tail="title")),
        ({"equal": ("status",), "ranges": ("words",), "order": ("title",)}, need("status", tail="words")),
        ({"ranges": ("published",)}, need(tail="published")),
        ({"order": ("title", "id")}, need(tail="title")),
        ({"order": ("title", "id"), "limited": False}, None),
        ({"order": ("id",)}, None),
        ({"equal": ("id", "status")}, None),
        ({"patterns": ("title",)}, None),
        ({"others": ("details[…] eq",), "equal": ("kind",)}, need("kind")),
        ({"ranges": ("price",)}, need(tail="price")),
        ({"equal": ("gone",)}, None),
    ],
)
def test_what_a_shape_needs(shape: dict[str, tuple[str, ...]], wanted: Need | None) -> None:
    assert need_of(counted(**shape).shape, ARTICLES, ALL) == wanted  # type: ignore[arg-type]


def test_a_comparison_that_no_index_answers_is_passed_over() -> None:
    shape = counted(equal=("price", "status"), ranges=("price",)).shape
    assert need_of(shape, ARTICLES, WITHOUT_DECIMALS) == need("status")
    assert need_of(counted(ranges=("price",)).shape, ARTICLES, WITHOUT_DECIMALS) is None
    in_order = counted(order=("price", "id")).shape  # sorting asks nothing
    assert need_of(in_order, ARTICLES, WITHOUT_DECIMALS) == need(tail="price")


def test_one_index_serves_several_shapes() -> None:
    wanted = [need("status"), need("kind", "status"), need("status", tail="published")]
    assert advised([wanted[0], wanted[2]]) == [("status", "published")]
    assert advised([wanted[0], wanted[1]]) == [("status", "kind")]
    assert advised([need("kind", "status", tail="words"), need("kind"), need("status", "kind")]) == [
        ("kind", "status", "words")
    ]


@pytest.mark.parametrize("existing", [("status",), ("status", "kind"), ("status", "published", "id")])
def test_an_index_that_exists_is_not_advised_again(existing: tuple[str, ...]) -> None:
    assert advised([need("status")], [index(*existing)]) == []


def test_an_index_that_cannot_be_relied_on_does_not_count() -> None:
    partial = Index("articles", ("tenant_id", "status"), "partial", plain=False)
    assert advised([need("status")], [partial]) == [("status",)]
    assert advised([need("status")], [index("kind", "status")]) == [("status",)]


def test_equality_on_a_key_needs_no_index() -> None:
    assert advised([need("slug", "status"), need("slug", tail="words")]) == []


def test_the_most_expensive_come_first_and_there_are_few() -> None:
    names = ("status", "kind", "title", "words", "published")
    pairs = [(counted(name, seconds=1.0 + number), need(name)) for number, name in enumerate(names)]
    made = candidates(pairs, ARTICLES, [KEY])
    assert [item.fields for item in made] == [("published",), ("words",), ("title",)]
    assert len(made) == MAX_FOR_A_COLLECTION


fields = st.sampled_from(["status", "kind", "title", "words", "published"])
needs = st.builds(
    lambda equal, tail: Need(equal - {tail}, tail), st.frozensets(fields, max_size=3), st.none() | fields
).filter(lambda item: item.size > 0)


@given(
    st.lists(needs, min_size=1, max_size=6), st.lists(st.lists(fields, min_size=1, unique=True), max_size=3)
)
def test_nothing_is_advised_twice(wanted: list[Need], existing: list[list[str]]) -> None:
    known = [index(*item) for item in existing]
    pairs: list[tuple[Counted, Need]] = [(counted(str(n)), item) for n, item in enumerate(wanted)]
    made = candidates(pairs, ARTICLES, [KEY, *known])
    for item in made:
        assert item.served
        assert not any(tuple(other[: len(item.fields)]) == item.fields for other in existing)
        for served in item.served:
            lacking = pairs[int(served.shape.text)][1]
            assert lacking.is_met_by(item.fields)
            assert not any(lacking.is_met_by(tuple(other)) for other in existing)
    for one, other in itertools.permutations(made, 2):
        assert one.fields[: len(other.fields)] != other.fields
