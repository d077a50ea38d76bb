"""Every operator finds exactly the rows that SQL's logic says, nulls included."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tenantry.conditions import between, contains, ilike, is_in, is_null, not_
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting
from tenantry.testing.models import Clause, Colour, Sample

_U1, _U2, _U3 = (uuid.UUID(int=number) for number in (1, 2, 2**127))

# The rows by the name that a test expects; what is not given is null.
ROWS: dict[str, dict[str, Any]] = {
    "a": {
        "label": "Apple pie",
        "number": 1,
        "exact": Decimal("1.5"),
        "ratio": 0.1,
        "flag": True,
        "day": dt.date(2024, 2, 29),
        "moment": dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
        "token": _U1,
        "blob": b"\x01",
        "colour": Colour.RED,
        "data": {"n": 1, "s": "x", "b": True, "z": None, "l": [1, {"k": "v"}], "a b": 1, "10": "ten"},
        "labels": ["x", "y"],
        "numbers": [1, 2],
        "exacts": [Decimal("1.5")],
        "flags": [True],
    },
    "b": {
        "label": "apple PIE",
        "number": 2,
        "exact": Decimal("-2"),
        "ratio": -1.0,
        "flag": False,
        "day": dt.date(1, 1, 1),
        "moment": dt.datetime(2024, 2, 29, 12, 0, 0, 1, dt.UTC),
        "token": _U2,
        "blob": b"\x01\x02",
        "colour": Colour.GREEN,
        "data": {"n": 1.5, "s": "X", "b": False, "l": []},
        "labels": [],
        "numbers": [2, 3],
        "exacts": [],
        "flags": [False, False],
    },
    "c": {
        "label": "50% off_now\\",
        "number": -3,
        "exact": Decimal("10"),
        "ratio": 1e22,
        "token": _U3,
        "blob": b"",
        "colour": Colour.BLUE,
        "data": {"n": "1", "s": "", "b": "true", "l": {"0": "zero"}},
        "labels": ["x%", "X"],
    },
    "d": {"label": "ΣΊΣΥΦΟΣ İ straße", "number": 2**53 + 1, "data": [1, "x", True], "labels": ["😀"]},
    "e": {"label": "😀\ue000", "number": 2**53, "data": "text", "ratio": 5.0},
    "f": {"label": "", "data": 7, "numbers": []},
    "n": {},
}

# A condition -> the rows that it finds. Its negation finds the others, without those for which it is unknown.
FOUND: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdefn"),
    # equality
    ({"label": "Apple pie"}, "a"),
    ({"label": {"eq": ""}}, "f"),
    ({"number": 2**53}, "e"),
    ({"number": "2"}, "b"),
    ({"exact": 10}, "c"),
    ({"exact": "10.000"}, "c"),
    ({"ratio": 5}, "e"),
    ({"flag": True}, "a"),
    ({"day": "2024-02-29"}, "a"),
    ({"moment": "2024-02-29T13:00:00+01:00"}, "a"),
    ({"token": str(_U3)}, "c"),
    ({"blob": b""}, "c"),
    ({"blob": "\x01\x02"}, "b"),
    ({"colour": "green"}, "b"),
    ({"colour": Colour.BLUE}, "c"),
    ({"label": None}, "n"),
    ({"number": {"eq": None}}, "fn"),
    # inequality: unknown for nulls
    ({"label": {"ne": "Apple pie"}}, "bcdef"),
    ({"flag": {"ne": True}}, "b"),
    ({"number": {"ne": None}}, "abcde"),
    # order
    ({"number": {"lt": 2}}, "ac"),
    ({"number": {"lte": 2}}, "abc"),
    ({"number": {"gt": 2**53}}, "d"),
    ({"number": {"gte": 2**53}}, "de"),
    ({"exact": {"lt": Decimal("1.5")}}, "b"),
    ({"exact": {"gt": Decimal("1.499999999")}}, "ac"),
    ({"ratio": {"gte": 0.1}}, "ace"),
    ({"ratio": {"lt": 0.1}}, "b"),
    ({"day": {"lt": "0001-01-02"}}, "b"),
    ({"moment": {"gt": "2024-02-29T12:00:00Z"}}, "b"),
    ({"token": {"gt": str(_U1)}}, "bc"),
    ({"label": {"gt": "Z"}}, "bde"),
    ({"label": {"lt": "A"}}, "cf"),
    ({"label": {"gt": "\U0001f5ff"}}, "e"),
    ({"label": {"gt": "\uffff"}}, "e"),
    ({"number": {"between": [-3, 1]}}, "ac"),
    ({"number": {"between": [5, 1]}}, ""),
    ({"number": {"gt": 0, "lt": 3}}, "ab"),
    ({"day": {"between": ["0001-01-01", "9999-12-31"]}}, "ab"),
    # membership
    ({"number": {"in": [1, -3, 99]}}, "ac"),
    ({"label": {"in": ["", "😀\ue000", "%"]}}, "ef"),
    ({"token": {"in": [_U1, str(_U3)]}}, "ac"),
    ({"colour": {"in": ["red", Colour.BLUE]}}, "ac"),
    ({"exact": {"in": [Decimal("-2.0"), 10]}}, "bc"),
    ({"ratio": {"in": [0.1, 1e22]}}, "ac"),
    ({"flag": {"in": [True, False]}}, "ab"),
    ({"moment": {"in": ["2024-02-29T12:00:00.000001Z"]}}, "b"),
    ({"blob": {"in": [b"", b"\x01"]}}, "ac"),
    ({"number": {"nin": [1, 2]}}, "cde"),
    ({"number": {"in": []}}, ""),
    ({"number": {"nin": []}}, "abcdefn"),
    ({"number": {"in": list(range(-5000, 5000))}}, "abc"),
    # text
    ({"label": {"contains": "pie"}}, "a"),
    ({"label": {"contains": "%"}}, "c"),
    ({"label": {"contains": "_"}}, "c"),
    ({"label": {"contains": "\\"}}, "c"),
    ({"label": {"contains": ""}}, "abcdef"),
    ({"label": {"contains": "ß"}}, "d"),
    ({"label": {"starts_with": "App"}}, "a"),
    ({"label": {"starts_with": "50%"}}, "c"),
    ({"label": {"starts_with": "😀"}}, "e"),
    ({"label": {"starts_with": "Σ"}}, "d"),
    ({"label": {"starts_with": ""}}, "abcdef"),
    ({"label": {"ends_with": "PIE"}}, "b"),
    ({"label": {"ends_with": "\\"}}, "c"),
    ({"label": {"ends_with": "\ue000"}}, "e"),
    ({"label": {"ends_with": "a far longer text than any label here"}}, ""),
    ({"label": {"ends_with": ""}}, "abcdef"),
    ({"label": {"ilike": "apple%"}}, "ab"),
    ({"label": {"ilike": "APPLE_PIE"}}, "ab"),
    ({"label": {"ilike": "apple"}}, ""),
    ({"label": {"ilike": "%\\%%\\_%"}}, "c"),
    ({"label": {"ilike": "%\\\\"}}, "c"),
    ({"label": {"ilike": "%STRASSE%"}}, ""),
    ({"label": {"ilike": "%STRAßE"}}, "d"),
    ({"label": {"ilike": "σίσυφοσ%"}}, "d"),
    ({"label": {"ilike": "__"}}, "e"),
    ({"label": {"ilike": ""}}, "f"),
    ({"label": {"ilike": "%"}}, "abcdef"),
    # null
    ({"flag": {"is_null": True}}, "cdefn"),
    ({"flag": {"is_null": False}}, "ab"),
    ({"numbers": {"is_null": True}}, "cden"),
    ({"data": None}, "n"),
    # lists
    ({"labels": {"contains": "x"}}, "a"),
    ({"labels": {"contains": "X"}}, "c"),
    ({"labels": {"contains": "😀"}}, "d"),
    ({"numbers": {"contains": 2}}, "ab"),
    ({"numbers": {"contains": "3"}}, "b"),
    ({"exacts": {"contains": "1.50"}}, "a"),
    ({"flags": {"contains": True}}, "a"),
    ({"flags": {"contains": False}}, "b"),
    # inside JSON: another type is unequal, what is missing is null
    ({"data": "text"}, "e"),
    ({"data": 7}, "f"),
    ({"data.n": 1}, "a"),
    ({"data.n": 1.0}, "a"),
    ({"data.n": "1"}, "c"),
    ({"data.n": {"gt": 0}}, "ab"),
    ({"data.n": {"gt": 1}}, "b"),
    ({"data.n": {"lte": 1}}, "a"),
    ({"data.n": {"in": [1, "1"]}}, "ac"),
    ({"data.n": {"between": [1, 2]}}, "ab"),
    ({"data.s": "x"}, "a"),
    ({"data.s": ""}, "c"),
    ({"data.s": {"gt": "X"}}, "a"),
    ({"data.b": True}, "a"),
    ({"data.b": False}, "b"),
    ({"data.b": "true"}, "c"),
    ({"data.b": 1}, ""),
    ({"data.l.0": 1}, "a"),
    ({"data.l.1.k": "v"}, "a"),
    ({"data.l.5": 1}, ""),
    ({"data.0": 1}, "d"),
    ({"data.2": True}, "d"),
    ({"data.a b": 1}, "a"),
    ({"data.10": "ten"}, ""),
    ({"data.z": None}, "abcdefn"),
    ({"data.n": {"is_null": True}}, "defn"),
    ({"data.n": {"is_null": False}}, "abc"),
    ({"data.l": {"is_null": True}}, "defn"),
    ({"data.missing": 1}, ""),
    ({"data.n.deeper": 1}, ""),
    # logic
    ({"number": 1, "flag": True}, "a"),
    ({"and": [{"number": {"gt": 0}}, {"number": {"lt": 3}}]}, "ab"),
    ({"or": [{"number": 1}, {"label": ""}]}, "af"),
    ({"or": [{"number": 1}, {"flag": False}, {"flag": True}]}, "ab"),
    ({"and": []}, "abcdefn"),
    ({"or": []}, ""),
    ({"not": {"number": 1}}, "bcde"),
    ({"not": {"not": {"number": 1}}}, "a"),
    ({"not": {"number": {"lt": 2}}}, "bde"),
    ({"not": {"label": {"starts_with": "App"}}}, "bcdef"),
    ({"not": {"labels": {"contains": "x"}}}, "bcd"),
    ({"not": {"data.n": 1}}, "bc"),
    ({"not": {"number": 1, "flag": True}}, "bcde"),
    ({"not": {"or": [{"number": 1}, {"flag": False}]}}, ""),
    ({"not": {"and": []}}, ""),
    ({"not": {"or": []}}, "abcdefn"),
    ({"number": 1, "or": [{"flag": False}, {"label": {"ilike": "%pie"}}], "not": {"colour": "blue"}}, "a"),
]

_LAMBDAS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: s.number == 1, "a"),
    (lambda s: s.number != 1, "bcde"),
    (lambda s: s.number == None, "fn"),  # noqa: E711 - it is how one writes it here
    (lambda s: (s.number > 0) & (s.number <= 2), "ab"),
    (lambda s: (s.number < 0) | (s.label >= "😀"), "ce"),
    (lambda s: ~(s.number == 1), "bcde"),
    (lambda s: s.flag, "a"),
    (lambda s: ~s.flag, "b"),
    (lambda s: s.flag & (s.number == 1), "a"),
    (lambda s: (s.number == 2) | s.flag, "ab"),
    (lambda s: s.label.startswith("50%"), "c"),
    (lambda s: s.label.endswith("pie"), "a"),
    (lambda s: contains(s.label, "off"), "c"),
    (lambda s: contains(s.numbers, 3), "b"),
    (lambda s: ilike(s.label, "apple%"), "ab"),
    (lambda s: is_in(s.colour, [Colour.RED, Colour.BLUE]), "ac"),
    (lambda s: is_null(s.label), "n"),
    (lambda s: not_(is_null(s.flag)), "ab"),
    (lambda s: between(s.number, -3, 1), "ac"),
    (lambda s: s.data["l"][1]["k"] == "v", "a"),
    (lambda s: s.data["n"] > 1, "b"),
    (lambda s: s.id != uuid.UUID(int=0), "abcdefn"),
]


class Filters(Setting):
    """Each condition against rows whose outcome is known."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def shelf(cls, sdk: MultiTenantSDK) -> AsyncIterator[TenantHandle]:
        """Give a tenant with the rows, beside another that has the same."""
        handles = [await cls.new_tenant(sdk, name) for name in ("shelf", "decoy")]
        for handle in handles:
            for name, values in ROWS.items():
                await handle.data.create("samples", {"id": uuid.uuid5(_U1, name), **values})
        yield handles[0]

    @staticmethod
    async def found(handle: TenantHandle, where: Any) -> str:
        """Return the names of the rows that ``where`` finds, and see that all ways of asking agree."""
        names = {uuid.uuid5(_U1, name): name for name in ROWS}
        page = await handle.data.read("samples", where, fields=["id"], order_by="id")
        found = "".join(sorted(names[row["id"]] for row in page))
        assert len(page) == len(found)
        assert await handle.data.count("samples", where) == len(found)
        assert await handle.data.exists("samples", where) == bool(found)
        return found

    @pytest.mark.parametrize(("where", "expected"), FOUND, ids=lambda item: str(item)[:60])
    async def test_a_condition_finds(self, shelf: TenantHandle, where: dict[str, Any], expected: str) -> None:
        assert await self.found(shelf, where) == expected
        negated = await self.found(shelf, {"not": where})
        assert not set(negated) & set(expected)
        assert await self.found(shelf, {"or": [where, {"not": where}]}) == "".join(sorted(expected + negated))
        assert await self.found(shelf, {"and": [where, {"not": where}]}) == ""

    @pytest.mark.parametrize(("where", "expected"), _LAMBDAS, ids=range(len(_LAMBDAS)))
    async def test_a_lambda_finds(
        self, shelf: TenantHandle, where: Callable[[Any], Any], expected: str
    ) -> None:
        assert await self.found(shelf, where) == expected
        assert len(await shelf.data.read(Sample, where)) == len(expected)

    @pytest.mark.parametrize(
        "condition",
        [
            {"number": 1},
            {"number": {"between": [1, 5]}},
            {"label": {"starts_with": "x"}},
            {"label": {"ilike": "%x%"}},
            {"label": {"in": ["x", "y"]}},
            {"labels": {"contains": "x"}},
            {"exact": {"gt": "1.5"}},
            {"data.n.m": 1},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("joined", ["or", "and"])
    async def test_the_largest_filter_that_is_accepted_runs(
        self, shelf: TenantHandle, joined: str, condition: dict[str, Any]
    ) -> None:
        await shelf.data.count("samples", {joined: [condition] * 250})
        deep: dict[str, Any] = condition
        for _ in range(15):
            deep = {"not": {joined: [deep]}}
        await shelf.data.count("samples", deep)

    async def test_the_longest_list_that_is_accepted_runs(self, shelf: TenantHandle) -> None:
        many = {"token": {"in": [uuid.UUID(int=number) for number in range(10_000)]}}
        assert await self.found(shelf, many) == "ab"
        assert (
            await self.found(shelf, {"label": {"in": [f"{number}" * 20 for number in range(10_000)]}}) == ""
        )

    async def test_words_of_sql_are_only_names(self, acme: TenantHandle) -> None:
        clause = Clause(
            select="1", tenant="other", limit=3, p0=1, p1="p", count=2, value="v", key="k", group="g"
        )
        row = await acme.data.create(clause)
        for name in Clause.model_fields:
            given = getattr(row, name)
            for where in ({name: given}, {name: {"in": [given]}}, {name: {"between": [given, given]}}):
                page = await acme.data.read(Clause, where, order_by=[f"-{name}"], limit=1)
                assert [item.id for item in page] == [row.id]
        changed = await acme.data.update(row, p0=9, tenant="x", limit=8, p1="q")
        assert (changed.p0, changed.tenant, changed.limit, changed.p1) == (9, "x", 8, "q")
        merged = await acme.data.upsert("order", {"key": "k", "count": 5}, on=["key"])
        assert (merged["id"], merged["count"], merged["p0"]) == (row.id, 5, 9)
        await acme.data.delete(Clause, row.id, version=merged["version"])
        assert await acme.data.count("order") == 0
