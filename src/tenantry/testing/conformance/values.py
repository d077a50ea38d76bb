"""Every kind of value comes back as it was given, to the last digit, from every operation that returns rows."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tenantry.errors import InvalidRecord
from tenantry.sdk import TenantHandle
from tenantry.testing.conformance.setting import Setting
from tenantry.testing.models import Address, Colour, Sample

_TEXTS = [
    "",
    " ",
    "plain",
    "'; DROP TABLE samples; --",
    '"quoted" \\back\\slash %per_cent',
    "line\nfeed\r\n\ttab\x01\x1f\x7f",
    "Ωmega straße ﬁ İıſ",
    "e\u0301 is not \u00e9",
    "\u200fשלום\u202e",
    "😀 𝕏 \U0010ffff",
    "\ud7ff\ue000\uffff",
    "$1 ? :name {0} %s",
    "x" * 100_000,
]
_INTEGERS = [0, 1, -1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63)]
_EXACTS = [
    "0",
    "1",
    "-1",
    "0.1",
    "-0.000000001",
    "1234567890.123456789",
    "99999999999999999999999999999.999999999",
    "-99999999999999999999999999999.999999999",
    "1200",
]
_FLOATS = [
    0.0,
    1.0,
    -1.5,
    0.1,
    1 / 3,
    2.0**53,
    1e22,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
]
_DAYS = [
    dt.date(1, 1, 1),
    dt.date(1582, 10, 10),
    dt.date(1969, 12, 31),
    dt.date(2024, 2, 29),
    dt.date(9999, 12, 31),
]
_MOMENTS = [
    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, dt.UTC),
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2026, 3, 29, 1, 30, 0, 1, dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, dt.UTC),
]
_TOKENS = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID("01902d8c-7c5e-7a3b-8f00-0123456789ab")]
_BLOBS = [b"", b"\0", bytes(range(256)), b"\xff" * 70_000]
_JSON: list[Any] = [
    {},
    [],
    "text",
    "",
    0,
    -1,
    1.5,
    0.1,
    1e-7,
    5e-324,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    True,
    False,
    {"a": None, "b": [1, 2.5, "x", None, {"c": []}], "": "empty key"},
    {"10": 1, "2": 2, "ключ": "значение", "a.b": {'"': "\\"}, "😀": "\x01\n"},
    [[[[[[[["deep"]]]]]]]],
    {"long": "y" * 50_000},
]

# field -> what it is given; it must come back equal, and of the same type to the last part
ROUND_TRIPS: dict[str, list[Any]] = {
    "label": _TEXTS,
    "number": _INTEGERS,
    "exact": [Decimal(text) for text in _EXACTS],
    "money": [
        Decimal(text) for text in ("0.00", "0.01", "-0.01", "9999999999.99", "-9999999999.99", "1299.00")
    ],
    "ratio": _FLOATS,
    "flag": [True, False],
    "day": _DAYS,
    "moment": _MOMENTS,
    "token": _TOKENS,
    "blob": _BLOBS,
    "colour": list(Colour),
    "data": _JSON,
    "address": [Address(street="Main"), Address(street="", since=dt.date(2020, 2, 29))],
    "labels": [[], _TEXTS],
    "numbers": [[], _INTEGERS],
    "exacts": [[], [Decimal(text) for text in _EXACTS]],
    "ratios": [[], _FLOATS],
    "flags": [[], [True, False, True]],
    "days": [[], _DAYS],
    "moments": [[], _MOMENTS],
    "tokens": [[], _TOKENS],
    "blobs": [[], _BLOBS],
}

# (field, given, canonical): other spellings of a value are stored as the one canonical form
CANONICAL: list[tuple[str, Any, Any]] = [
    ("exact", Decimal("1.500"), Decimal("1.5")),
    ("exact", Decimal("1.2E+3"), Decimal("1200")),
    ("exact", Decimal("-0"), Decimal("0")),
    ("exact", 5, Decimal("5")),
    ("exact", "7.25", Decimal("7.25")),
    ("money", Decimal("5"), Decimal("5.00")),
    ("money", "-0", Decimal("0.00")),
    ("ratio", -0.0, 0.0),
    ("ratio", 3, 3.0),
    (
        "moment",
        dt.datetime.fromisoformat("2026-03-29T03:30:00+02:00"),
        dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC),
    ),
    ("moment", "2026-03-29T01:30:00Z", dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)),
    ("token", "01902D8C-7C5E-7A3B-8F00-0123456789AB", _TOKENS[2]),
    ("colour", "green", Colour.GREEN),
    ("data", {"n": 1e16, "t": (1, 2)}, {"n": 10**16, "t": [1, 2]}),
    ("exacts", ["1.50", 2], [Decimal("1.5"), Decimal("2")]),
]

REFUSED: list[tuple[str, Any]] = [
    ("label", "NUL \0 here"),
    ("label", "lone \ud800 surrogate"),
    ("label", 5),
    ("number", 2**63),
    ("number", -(2**63) - 1),
    ("number", "many"),
    ("exact", Decimal("0.0000000001")),
    ("exact", Decimal("1E+29")),
    ("exact", Decimal("NaN")),
    ("exact", Decimal("Infinity")),
    ("money", Decimal("0.001")),
    ("money", Decimal("10000000000.00")),
    ("ratio", float("nan")),
    ("ratio", float("-inf")),
    ("day", "yesterday"),
    ("moment", dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - one without a zone is the point
    ("moment", dt.datetime.fromisoformat("0001-01-01T00:00:00+01:00")),
    ("token", "not a uuid"),
    ("colour", "purple"),
    ("data", {"n": float("nan")}),
    ("data", {"n": 2**63}),
    ("data", {"n": 1e300}),
    ("data", {"k\0": 1}),
    ("data", {"s": ["\udfff"]}),
    ("data", {1: "one"}),
    ("data", {"when": dt.date(2026, 1, 1)}),
    ("numbers", [1, None]),
    ("numbers", [2**63]),
    ("labels", ["a\0b"]),
    ("version", 7.5),
]


def exactly(value: Any) -> Any:
    """Return ``value`` with its types, so that comparing tells 1 from True and 1.0 from 1.00."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exactly(item) for item in value]
    if isinstance(value, Decimal):
        return Decimal, str(value)
    if isinstance(value, uuid.UUID):  # a driver may have a class of its own, derived from it
        return uuid.UUID, value.int
    return type(value), value


class Values(Setting):
    """Round trips of every kind."""

    @pytest.mark.parametrize("field", ROUND_TRIPS)
    async def test_values_come_back_exactly(self, acme: TenantHandle, field: str) -> None:
        for value in [*ROUND_TRIPS[field], None]:
            created = await acme.data.create(Sample.model_validate({field: value}))
            assert exactly(getattr(created, field)) == exactly(value)
            got = await acme.data.get(Sample, created.id)
            assert exactly(getattr(got, field)) == exactly(value)
            assert got == created

    @pytest.mark.parametrize("field", ROUND_TRIPS)
    async def test_every_operation_returns_them_alike(self, acme: TenantHandle, field: str) -> None:
        values = ROUND_TRIPS[field]
        rows = (
            await acme.data.bulk_create(
                (Sample.model_validate({field: value}) for value in values), atomic=True
            )
        ).rows
        assert [exactly(getattr(row, field)) for row in rows] == [exactly(value) for value in values]
        page = await acme.data.read(Sample, order_by="id")
        assert {row.id: row for row in page} == {row.id: row for row in rows}
        plain = await acme.data.read(Sample, fields=["id", field])
        dumped = {
            row.id: row.model_dump(mode="json")[field] if field == "address" else getattr(row, field)
            for row in rows
        }
        assert {row["id"]: exactly(row[field]) for row in plain} == {
            id: exactly(value) for id, value in dumped.items()
        }
        for row, value in zip(rows, reversed(values), strict=True):
            updated = await acme.data.update(row, **{field: value})
            assert exactly(getattr(updated, field)) == exactly(value)
            async with acme.data.transaction() as unit:
                assert await unit.get(Sample, row.id) == updated
            upserted = await acme.data.upsert(updated)
            assert exactly(getattr(upserted, field)) == exactly(value)
            assert await acme.data.get(Sample, row.id) == upserted

    @pytest.mark.parametrize(
        "field", [name for name in ROUND_TRIPS if name not in {"data", "address"} and not name.endswith("s")]
    )
    async def test_each_value_is_found_by_itself_alone(self, acme: TenantHandle, field: str) -> None:
        values = ROUND_TRIPS[field]
        rows = (
            await acme.data.bulk_create(
                (Sample.model_validate({field: value}) for value in [*values, None]), atomic=True
            )
        ).rows
        for row, value in zip(rows, values, strict=False):
            for where in ({field: value}, {field: {"in": [value]}}, {"not": {field: {"ne": value}}}):
                found = await acme.data.read(Sample, where)
                assert [item.id for item in found] == [row.id], where
        assert await acme.data.count(Sample, {field: {"in": values}}) == len(values)
        assert await acme.data.count(Sample, {field: None}) == 1

    @pytest.mark.parametrize(
        "field", [name for name in ROUND_TRIPS if name.endswith("s") and name != "address"]
    )
    async def test_each_element_of_a_list_is_found(self, acme: TenantHandle, field: str) -> None:
        elements = ROUND_TRIPS[field][1]
        await acme.data.create(Sample.model_validate({field: elements}))
        await acme.data.create(Sample.model_validate({field: []}))
        await acme.data.create(Sample.model_validate({field: None}))
        for element in elements:
            assert await acme.data.count(Sample, {field: {"contains": element}}) == 1, element
            assert await acme.data.count(Sample, {"not": {field: {"contains": element}}}) == 1, element

    @pytest.mark.parametrize(("field", "given", "canonical"), CANONICAL)
    async def test_other_spellings_become_the_canonical_form(
        self, acme: TenantHandle, field: str, given: Any, canonical: Any
    ) -> None:
        created = await acme.data.create("samples", {field: given})
        assert exactly(created[field]) == exactly(canonical)
        assert await acme.data.get("samples", created["id"]) == created
        other = await acme.data.create("samples", {})
        updated = await acme.data.update("samples", other["id"], {field: given})
        assert exactly(updated[field]) == exactly(canonical)

    @pytest.mark.parametrize(("field", "value"), REFUSED)
    async def test_what_cannot_be_kept_exactly_is_refused(
        self, acme: TenantHandle, field: str, value: Any
    ) -> None:
        with pytest.raises(InvalidRecord) as refused:
            await acme.data.create("samples", {field: value})
        assert refused.value.field.startswith(field)
        assert await acme.data.count("samples") == 0

    async def test_changing_a_returned_row_changes_nothing_stored(self, acme: TenantHandle) -> None:
        given = {"data": {"a": [1]}, "labels": ["x"]}
        created = await acme.data.create("samples", given)
        given["data"]["a"].append(2)  # type: ignore[index]
        for row in (
            created,
            await acme.data.get("samples", created["id"]),
            (await acme.data.read("samples"))[0],
        ):
            row["data"]["a"].append(3)
            row["labels"].append("y")
        stored = await acme.data.get("samples", created["id"])
        assert (stored["data"], stored["labels"]) == ({"a": [1]}, ["x"])
