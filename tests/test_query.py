"""What can be asked: every mistake is an `InvalidQuery` with a path, made before any database is touched."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import MultiTenantSDK, between, contains, ilike, is_in, is_null, not_
from tenantry.errors import InvalidQuery
from tenantry.filters import MAX_CONDITIONS, MAX_DEPTH, parse_where
from tenantry.query import (
    EVERYTHING,
    And,
    Comparison,
    Filter,
    Not,
    Or,
    Query,
    Sort,
    after,
    parse_fields,
    parse_limit,
    parse_order,
    total_order,
)
from tenantry.schema import collection_of
from tenantry.testing.models import Colour, Sample

SAMPLES = collection_of(Sample)
FIELDS = SAMPLES.fields


def nested(depth: int) -> dict[str, Any]:
    """Return a filter that is nested as deep as that."""
    where: dict[str, Any] = {"number": 1}
    for _ in range(depth):
        where = {"not": where}
    return where


# what is asked -> where the fault lies
MALFORMED: dict[str, tuple[Any, str]] = {
    "unknown field": ({"nothing": 1}, "where.nothing"),
    "tenant_id": ({"tenant_id": "globex"}, "where.tenant_id"),
    "a name that is no text": ({5: 1}, "where.5"),
    "an empty name": ({"": 1}, "where."),
    "a name of megabytes": ({"x" * 5_000_000: 1}, "where"),
    "a path of megabytes": ({"data." + "a." * 5_000_000: 1}, "where"),
    "a number of megabytes in a path": ({"data." + "9" * 100_000: 1}, "where"),
    "a path of a scalar": ({"label.a": 1}, "where.label.a"),
    "a path with an empty part": ({"data..a": 1}, "where.data..a"),
    "a path with a quote": ({'data."a': 1}, 'where.data."a'),
    "a path with a backslash": ({"data.a\\": None}, "where.data.a\\"),
    "a path with a NUL": ({"data.a\0": {"is_null": True}}, "where.data.a\0.is_null"),
    "a huge index": ({"data.2147483648": 1}, "where.data.2147483648"),
    "too many parts": ({"data" + ".a" * 33: 1}, "where.data" + ".a" * 33),
    "unknown operator": ({"number": {"gte ": 1}}, "where.number.gte "),
    "an operator that is no text": ({"number": {5: 1}}, "where.number.5"),
    "an operator of megabytes": ({"number": {"x" * 5_000_000: 1}}, "where.number." + "x" * 80),
    "no operator": ({"number": {}}, "where.number"),
    "an operator of another language": ({"number": {"$gt": 1}}, "where.number.$gt"),
    "JSON for a value": ({"data": {"colour": "red"}}, "where.data.colour"),
    "a list for a value": ({"number": [1, 2]}, "where.number"),
    "a wrong type": ({"number": "many"}, "where.number"),
    "a float for an integer": ({"number": 1.5}, "where.number"),
    "a boolean for an integer": ({"number": True}, "where.number"),
    "an integer for a boolean": ({"flag": 1}, "where.flag"),
    "an integer for text": ({"label": 1}, "where.label"),
    "an integer too large": ({"number": 2**63}, "where.number"),
    "a decimal too fine": ({"exact": {"lt": "0.0000000001"}}, "where.exact.lt"),
    "not a number": ({"ratio": float("nan")}, "where.ratio"),
    "a naive time": ({"moment": {"gt": "2026-01-01T00:00:00"}}, "where.moment.gt"),
    "no such day": ({"day": "2026-02-30"}, "where.day"),
    "no UUID": ({"id": "5"}, "where.id"),
    "no member": ({"colour": "purple"}, "where.colour"),
    "an object": ({"label": ...}, "where.label"),
    "NUL": ({"label": "a\0"}, "where.label"),
    "a surrogate": ({"label": {"contains": "\ud800"}}, "where.label.contains"),
    "a value of megabytes": ({"label": "x" * 10_000_000}, "where.label"),
    "bytes of megabytes": ({"blob": b"x" * 10_000_000}, "where.blob"),
    "an element of megabytes": ({"labels": {"contains": "x" * 10_000_000}}, "where.labels.contains"),
    "a pattern of megabytes": ({"label": {"ilike": "%a" * 5_000_000}}, "where.label.ilike"),
    "a long pattern": ({"label": {"ilike": "%a" * 5_001}}, "where.label.ilike"),
    "a list of megabytes": ({"number": {"in": [1] * 1_000_000}}, "where.number.in"),
    "JSON in a long list": ({"data.a": {"in": list(range(501))}}, "where.data.a.in"),
    "order of booleans": ({"flag": {"gt": False}}, "where.flag.gt"),
    "order of bytes": ({"blob": {"lt": b"x"}}, "where.blob.lt"),
    "order of members": ({"colour": {"lt": "red"}}, "where.colour.lt"),
    "order of lists": ({"labels": {"gt": "x"}}, "where.labels.gt"),
    "order of JSON": ({"data": {"gt": 1}}, "where.data.gt"),
    "order of null": ({"number": {"gt": None}}, "where.number.gt"),
    "order of booleans in JSON": ({"data.a": {"gt": True}}, "where.data.a.gt"),
    "equality of lists": ({"labels": ["x"]}, "where.labels"),
    "a list in a list": ({"labels": {"in": ["x"]}}, "where.labels.in"),
    "null in a list": ({"number": {"in": [1, None]}}, "where.number.in"),
    "in of text": ({"label": {"in": "abc"}}, "where.label.in"),
    "in of null": ({"label": {"in": None}}, "where.label.in"),
    "in of a generator": ({"number": {"in": (n for n in [1])}}, "where.number.in"),
    "a wrong item": ({"number": {"in": [1, "x"]}}, "where.number.in"),
    "contains of a number": ({"number": {"contains": 1}}, "where.number.contains"),
    "contains in JSON": ({"data.a": {"contains": "x"}}, "where.data.a.contains"),
    "starts_with of null": ({"label": {"starts_with": None}}, "where.label.starts_with"),
    "starts_with in JSON": ({"data.a": {"starts_with": "x"}}, "where.data.a.starts_with"),
    "ends_with of a date": ({"day": {"ends_with": "1"}}, "where.day.ends_with"),
    "ilike of a list": ({"labels": {"ilike": "x"}}, "where.labels.ilike"),
    "a lone escape": ({"label": {"ilike": "a\\"}}, "where.label.ilike"),
    "a wrong element": ({"numbers": {"contains": "x"}}, "where.numbers.contains"),
    "is_null of text": ({"label": {"is_null": "yes"}}, "where.label.is_null"),
    "between one": ({"number": {"between": [1]}}, "where.number.between"),
    "between three": ({"number": {"between": [1, 2, 3]}}, "where.number.between"),
    "between null": ({"number": {"between": [None, 2]}}, "where.number.between"),
    "between a dict": ({"number": {"between": {"low": 1}}}, "where.number.between"),
    "between booleans": ({"flag": {"between": [False, True]}}, "where.flag.between"),
    "and of a dict": ({"and": {"number": 1}}, "where.and"),
    "or of text": ({"or": "number"}, "where.or"),
    "or of numbers": ({"or": [1]}, "where.or[0]"),
    "not of a list": ({"not": [{"number": 1}]}, "where.not"),
    "not of null": ({"not": None}, "where.not"),
    "deep inside": (
        {"or": [{"number": 1}, {"and": [{"not": {"number": {"lt": "x"}}}]}]},
        "where.or[1].and[0].not.number.lt",
    ),
    "too deep": (nested(MAX_DEPTH + 1), "where" + ".not" * (MAX_DEPTH + 1)),
    "much too deep": (nested(1_000), "where" + ".not" * (MAX_DEPTH + 1)),
    "absurdly deep": (nested(100_000), "where" + ".not" * (MAX_DEPTH + 1)),
    "too many conditions": (
        {"or": [{"number": n} for n in range(MAX_CONDITIONS + 1)]},
        f"where.or[{MAX_CONDITIONS}].number",
    ),
    "10,000 conditions": (
        {"and": [{"number": {"ne": n}} for n in range(10_000)]},
        f"where.and[{MAX_CONDITIONS}].number",
    ),
    "conditions on many levels": (
        {"and": [{"or": [{"number": n} for n in range(30)]}] * 30},
        "where.and[16].or[20].number",
    ),
    "many empty filters": ({"and": [{}] * 1_000 + [{"number": 1}]}, "where.and"),
    "text for a filter": ("number = 1", "where"),
    "a list for a filter": ([("number", 1)], "where"),
    "a number for a filter": (5, "where"),
}

LAMBDAS: dict[str, tuple[Callable[..., Any], str]] = {
    "and": (lambda s: s.number == 1 and s.flag, "where"),
    "or": (lambda s: s.number == 1 or s.flag, "where"),
    "not": (lambda s: not s.flag, "where.flag"),
    "not a condition": (lambda s: not s.number == 1, "where"),  # noqa: SIM201 - as people write it
    "in a list": (lambda s: s.number in [1, 2], "where"),
    "in a set": (lambda s: s.number in {1, 2}, "where"),
    "in a field": (lambda s: "x" in s.label, "where.label"),
    "chained": (lambda s: 1 < s.number < 5, "where"),
    "if": (lambda s: s.number if s.flag else s.ratio, "where.flag"),
    "two fields": (lambda s: s.number == s.ratio, "where.number.eq"),
    "a condition for a value": (lambda s: s.flag == (s.number == 1), "where.flag.eq"),
    "without parentheses": (lambda s: s.number == 1 & s.flag == 2, "where"),
    "unknown field": (lambda s: s.nothing == 1, "where.nothing"),
    "tenant_id": (lambda s: s.tenant_id == "globex", "where.tenant_id"),
    "a method of text": (lambda s: s.label.lower() == "x", "where"),
    "arithmetic": (lambda s: s.number + 1 == 2, "where"),
    "minus": (lambda s: -s.number == 2, "where"),
    "len": (lambda s: len(s.label) == 2, "where"),
    "a nested model": (lambda s: s.address.street == "x", "where"),
    "a call": (lambda s: s.label("x"), "where"),
    "combined with a value": (lambda s: (s.number == 1) & True, "where"),
    "not_ of a value": (lambda s: not_(True), "where"),
    "is_in of a value": (lambda s: is_in(5, [1]), "where"),
    "is_in of nothing": (lambda s: is_in(s.number, 5), "where"),  # type: ignore[arg-type]
    "an index": (lambda s: s.label[0] == "x", "where.label.0.eq"),
    "a negative index": (lambda s: s.data[-1] == "x", "where.data.-1.eq"),
    "a boolean index": (lambda s: s.data[True] == "x", "where.data.True.eq"),
    "null for an index": (lambda s: s.data[None] == "x", "where.data.None.eq"),
    "a slice": (lambda s: s.data[1:2] == "x", "where.data.slice(1, 2, None).eq"),
    "a wrong type": (lambda s: s.number == "x", "where.number.eq"),
    "a wrong range": (lambda s: between(s.flag, False, True), "where.flag.between"),
    "a value": (lambda s: True, "where"),
    "nothing": (lambda s: None, "where"),
    "the argument": (lambda s: s, "where"),
    "no argument": (lambda: True, "where"),
    "two arguments": (lambda s, t: s.flag, "where"),
    "a class": (dict, "where.keys"),
    "a dict": (lambda s: {"number": 1}, "where"),
    "a field that is no boolean": (lambda s: s.number, "where.number.eq"),
    "too many": (lambda s: many(s, MAX_CONDITIONS + 1), "where"),
    "too deep": (lambda s: deep(s, 1_000), "where"),
}


def many(s: Any, number: int) -> Any:
    """Return a condition of so many parts."""
    found = s.number == 0
    for value in range(1, number):
        found = found | (s.number == value)
    return found


def deep(s: Any, depth: int) -> Any:
    """Return a condition nested so deep."""
    found = s.flag == True  # noqa: E712 - a condition is wanted
    for _ in range(depth):
        found = not_(found)
    return found


class TestMalformed:
    @pytest.mark.parametrize("case", MALFORMED)
    def test_a_wrong_dict(self, case: str) -> None:
        where, path = MALFORMED[case]
        started = time.perf_counter()
        with pytest.raises(InvalidQuery) as refused:
            parse_where(SAMPLES, where)
        assert refused.value.path == (path if len(path) <= 200 else f"{path[:80]}…{path[-80:]}")
        assert len(str(refused.value)) < 1_500
        assert time.perf_counter() - started < 2

    @pytest.mark.parametrize("case", LAMBDAS)
    def test_a_wrong_lambda(self, case: str) -> None:
        where, path = LAMBDAS[case]
        with pytest.raises(InvalidQuery) as refused:
            parse_where(SAMPLES, where)
        assert refused.value.path == path

    @pytest.fixture
    async def untouched(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MultiTenantSDK]:
        """Give an SDK whose database fails when it is asked for anything but tenants."""
        async with MultiTenantSDK.open("memory://", models=[Sample], env={}) as sdk:
            await sdk.tenants.create("acme")
            await sdk.tenant("acme").data.count(Sample)

            def touched(*_: Any, **__: Any) -> Any:
                raise AssertionError("the database was touched")

            database = sdk._database
            assert database is not None
            for name in ("select", "count", "execute", "transaction"):
                monkeypatch.setattr(database, name, touched)
            yield sdk
            monkeypatch.undo()

    async def test_no_database_is_touched(self, untouched: MultiTenantSDK) -> None:
        data = untouched.tenant("acme").data
        wheres = [where for where, _ in [*MALFORMED.values(), *LAMBDAS.values()]]
        for where in wheres:
            for call in (data.read(Sample, where), data.count("samples", where), data.exists(Sample, where)):
                with pytest.raises(InvalidQuery):
                    await call

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=5)
            | st.binary(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["and", "or", "not", "eq", "lt", "in", "between", "ilike", "contains", "is_null"]
                    )
                    | st.sampled_from(sorted(FIELDS))
                    | st.text(max_size=3)
                    | st.integers(),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything_is_a_filter_or_refused(self, where: Any) -> None:
        try:
            parsed = parse_where(SAMPLES, where)
        except InvalidQuery as error:
            assert error.path.startswith("where")  # noqa: PT017 - there need not be one
        else:
            assert isinstance(parsed, Comparison | And | Or | Not)


class TestMeaning:
    @pytest.mark.parametrize(
        ("condition", "where"),
        [
            (lambda s: s.number == 1, {"number": 1}),
            (lambda s: s.number != 1, {"number": {"ne": 1}}),
            (lambda s: s.number < 1, {"number": {"lt": 1}}),
            (lambda s: s.number <= 1, {"number": {"lte": 1}}),
            (lambda s: s.number > 1, {"number": {"gt": 1}}),
            (lambda s: s.number >= 1, {"number": {"gte": 1}}),
            (lambda s: 1 < s.number, {"number": {"gt": 1}}),  # noqa: SIM300 - Python turns it around
            (lambda s: s.number == None, {"number": None}),  # noqa: E711 - it is how one writes it here
            (lambda s: s.label.startswith("a"), {"label": {"starts_with": "a"}}),
            (lambda s: s.label.endswith("a"), {"label": {"ends_with": "a"}}),
            (lambda s: contains(s.label, "a"), {"label": {"contains": "a"}}),
            (lambda s: contains(s.labels, "a"), {"labels": {"contains": "a"}}),
            (lambda s: ilike(s.label, "a%"), {"label": {"ilike": "a%"}}),
            (lambda s: is_in(s.number, {1, 2}), {"number": {"in": [1, 2]}}),
            (lambda s: is_in(s.number, iter([1, 2])), {"number": {"in": [1, 2]}}),
            (lambda s: is_null(s.number), {"number": {"is_null": True}}),
            (lambda s: between(s.number, 1, 2), {"number": {"between": [1, 2]}}),
            (lambda s: s.flag, {"flag": True}),
            (lambda s: ~s.flag, {"flag": False}),
            (lambda s: not_(s.flag), {"flag": False}),
            (lambda s: not_(s.number == 1), {"not": {"number": 1}}),
            (lambda s: (s.number == 1) & (s.flag == True), {"number": 1, "flag": True}),  # noqa: E712
            (lambda s: (s.number == 1) & s.flag, {"and": [{"number": 1}, {"flag": True}]}),
            (lambda s: s.flag | (s.number == 1), {"or": [{"flag": True}, {"number": 1}]}),
            (lambda s: s.data["a"][0] == "x", {"data.a.0": "x"}),
            (lambda s: s.colour == Colour.RED, {"colour": "red"}),
            (
                lambda s: s.moment == dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                {"moment": "2026-01-01T00:00:00Z"},
            ),
            (lambda s: s.id == uuid.UUID(int=5), {"id": str(uuid.UUID(int=5))}),
            (lambda s: s.exact == Decimal("1.50"), {"exact": "1.5"}),
        ],
    )
    def test_a_lambda_and_a_dict_say_the_same(
        self, condition: Callable[..., Any], where: dict[str, Any]
    ) -> None:
        assert parse_where(SAMPLES, condition) == parse_where(SAMPLES, where)

    def test_nothing_is_everything(self) -> None:
        assert parse_where(SAMPLES, None) == parse_where(SAMPLES, {}) == EVERYTHING
        assert parse_where(SAMPLES, {"or": []}) == Or(())

    def test_an_empty_listholds_nothing_for_certain(self) -> None:
        assert parse_where(SAMPLES, {"number": {"in": []}}) == Or(())
        assert parse_where(SAMPLES, {"number": {"nin": []}}) == Not(Or(()))

    @given(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
    )
    def test_a_prefix_is_a_range_of_code_points(self, prefix: str, value: str) -> None:
        parsed = parse_where(SAMPLES, {"label": {"starts_with": prefix}})
        bounds = parsed.items if isinstance(parsed, And) else (parsed,)
        for text in (value, prefix, prefix + value):
            inside = True
            for bound in bounds:
                assert isinstance(bound, Comparison)
                inside = inside and (text >= bound.value if bound.operator == "gte" else text < bound.value)
            assert inside is text.startswith(prefix)

    def test_the_largest_filters_that_are_accepted(self) -> None:
        parse_where(SAMPLES, nested(MAX_DEPTH))
        parse_where(SAMPLES, {"or": [{"number": n} for n in range(MAX_CONDITIONS)]})
        parse_where(SAMPLES, lambda s: many(s, MAX_CONDITIONS))
        parse_where(SAMPLES, {"number": {"in": list(range(10_000))}})
        parse_where(SAMPLES, {"label": "x" * 1_000_000})

    def test_a_filter_says_what_could_have_been_meant(self) -> None:
        with pytest.raises(InvalidQuery, match="Did you mean 'number'"):
            parse_where(SAMPLES, {"numbr": 1})
        with pytest.raises(InvalidQuery, match="Known: eq, ne, lt"):
            parse_where(SAMPLES, {"number": {"less": 1}})


class TestOrderAndFields:
    def test_names_and_directions(self) -> None:
        assert parse_order(SAMPLES, "number") == (Sort(FIELDS["number"]),)
        assert parse_order(SAMPLES, ["-number", "label"]) == (
            Sort(FIELDS["number"], True),
            Sort(FIELDS["label"]),
        )
        assert parse_order(SAMPLES, None) == parse_order(SAMPLES, []) == ()

    @pytest.mark.parametrize(
        "wrong",
        [
            "nothing",
            "--number",
            "+number",
            "number desc",
            "-",
            "",
            ["number", "number"],
            ["data"],
            "labels",
            [5],
            5,
            {"number": -1},
            ["x" * 10_000_000],
            "tenant_id",
            [["number"]],
            ...,
        ],
        ids=lambda wrong: repr(wrong)[:30],
    )
    def test_a_wrong_order(self, wrong: Any) -> None:
        with pytest.raises(InvalidQuery) as refused:
            parse_order(SAMPLES, wrong)
        assert refused.value.path.startswith("order_by")

    @pytest.mark.parametrize(
        "wrong", [[], "label", ["label", "label"], ["x"], [5], 5, [None], ..., "id"], ids=repr
    )
    def test_wrong_fields(self, wrong: Any) -> None:
        with pytest.raises(InvalidQuery) as refused:
            parse_fields(SAMPLES, wrong)
        assert refused.value.path.startswith("fields")

    @pytest.mark.parametrize("wrong", [0, -1, 10_001, 2**70, 1.0, "5", None, True, [5]], ids=repr)
    def test_a_wrong_limit(self, wrong: Any) -> None:
        with pytest.raises(InvalidQuery) as refused:
            parse_limit(wrong)
        assert refused.value.path == "limit"

    def test_an_order_is_completed_so_that_no_two_rows_are_equal(self) -> None:
        def completed(order: Any, *, distinct: bool = False, fields: Any = None) -> list[tuple[str, bool]]:
            query = Query(
                SAMPLES, parse_fields(SAMPLES, fields), order=parse_order(SAMPLES, order), distinct=distinct
            )
            return [(sort.field.name, sort.descending) for sort in total_order(query)]

        assert completed(None) == [("id", False)]
        assert completed("number") == [("number", False), ("id", False)]
        assert completed("-number") == [("number", True), ("id", True)]
        assert completed(["-id", "number"]) == [("id", True), ("number", False)]
        assert completed("-number", distinct=True, fields=["label", "number"]) == [
            ("number", True),
            ("label", False),
        ]
        query = Query(SAMPLES, parse_fields(SAMPLES, None))
        assert [sort.field.name for sort in total_order(query, across_tenants=True)] == ["id", "tenant_id"]


class TestAfter:
    """The position of a cursor, against the definition: every row that sorts behind the one it names."""

    ROWS = st.lists(
        st.tuples(st.none() | st.integers(0, 2), st.none() | st.sampled_from("ab"), st.integers(0, 99)),
        unique_by=lambda row: row[2],
        min_size=1,
        max_size=12,
    )

    @given(
        rows=ROWS, directions=st.tuples(st.booleans(), st.booleans(), st.booleans()), at=st.integers(0, 11)
    )
    def test_it_is_what_comes_behind(
        self, rows: list[tuple[Any, Any, int]], directions: tuple[bool, bool, bool], at: int
    ) -> None:
        from tenantry.evaluation import holds

        names = ("number", "label", "version")
        order = [Sort(FIELDS[name], down) for name, down in zip(names, directions, strict=True)]
        ordered = sorted(rows, key=lambda row: Ordered(row, directions))
        position = at % len(ordered)
        behind: Filter = after(order, ordered[position])
        found = [row for row in ordered if holds(behind, dict(zip(names, row, strict=True)))]
        assert found == ordered[position + 1 :]


class Ordered:
    """A row that compares as the sort keys say; nulls are the greatest value."""

    def __init__(self, row: tuple[Any, ...], directions: tuple[bool, ...]) -> None:
        self.row = row
        self.directions = directions

    def __lt__(self, other: Ordered) -> bool:
        for mine, theirs, down in zip(self.row, other.row, self.directions, strict=True):
            left, right = (
                (value is None, value or 0 if isinstance(value, int) else value or "")
                for value in (mine, theirs)
            )
            if left != right:
                return bool((right < left) if down else (left < right))
        return False
