"""Figures of groups: exact, the same on every database, and of one tenant's rows alone."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tenantry.aggregates import Avg, Count, Max, Min, Sum, Trunc
from tenantry.errors import InvalidQuery
from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting, needs
from tenantry.testing.models import Clause, Colour, Sample

_NUMBERS = (-3, 0, 0, 4, None)
_MONEY = tuple(Decimal(text) for text in ("-1.25", "0.00", "9.99", "10.00"))

# field, its values -> function -> what comes of them
FIGURES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "number": (_NUMBERS, {"count": 4, "distinct": 3, "sum": 1, "avg": Decimal("0.25"), "min": -3, "max": 4}),
    "exact": (
        (Decimal("0.1"), Decimal("-2"), None),
        {"count": 2, "distinct": 2, "sum": Decimal("-1.9"), "avg": Decimal("-0.95"), "min": Decimal(-2)},
    ),
    "money": (
        _MONEY,
        {"sum": Decimal("18.74"), "avg": Decimal("4.685"), "min": Decimal("-1.25"), "max": Decimal("10.00")},
    ),
    "ratio": ((0.5, -2.0, None, 4.0), {"count": 3, "sum": 2.5, "avg": 2.5 / 3, "min": -2.0, "max": 4.0}),
    "label": (("b", "a", "é", "a"), {"count": 4, "distinct": 3, "min": "a", "max": "é"}),
    "flag": ((True, False, None, True), {"count": 3, "distinct": 2}),
    "colour": ((Colour.RED, None, Colour.RED), {"count": 2, "distinct": 1}),
    "token": ((uuid.UUID(int=1), uuid.UUID(int=1)), {"count": 2, "distinct": 1}),
    "blob": ((b"", b"\0", None), {"count": 2, "distinct": 2}),
    "day": ((dt.date(2024, 2, 29), dt.date(1, 1, 1)), {"min": dt.date(1, 1, 1), "max": dt.date(2024, 2, 29)}),
    "moment": (
        (dt.datetime(2024, 2, 29, 12, 0, 0, 1, dt.UTC), dt.datetime.min.replace(tzinfo=dt.UTC)),
        {
            "min": dt.datetime.min.replace(tzinfo=dt.UTC),
            "max": dt.datetime(2024, 2, 29, 12, 0, 0, 1, dt.UTC),
        },
    ),
}
_SPELLED = {"distinct": "count_distinct"}
_EXTREME = 2**63 - 1


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


# Vienna skips 02:00 on March 29th and shows 02:00 twice on October 25th.
SPANS: list[tuple[str, str, str, str]] = [
    ("2026-03-28T22:59:59.999999", "day", "Europe/Vienna", "2026-03-27T23:00:00"),
    ("2026-03-29T21:59:59", "day", "Europe/Vienna", "2026-03-28T23:00:00"),
    ("2026-03-29T22:00:00", "day", "Europe/Vienna", "2026-03-29T22:00:00"),
    ("2026-10-25T22:59:00", "day", "Europe/Vienna", "2026-10-24T22:00:00"),
    ("2026-10-25T00:30:00", "hour", "Europe/Vienna", "2026-10-25T00:00:00"),
    ("2026-10-25T01:30:00", "hour", "Europe/Vienna", "2026-10-25T01:00:00"),
    ("2026-07-01T05:29:00", "hour", "Asia/Kolkata", "2026-07-01T04:30:00"),
    ("2018-11-04T10:00:00", "day", "America/Sao_Paulo", "2018-11-04T03:00:00"),  # a midnight that was skipped
    ("2018-02-18T12:00:00", "day", "America/Sao_Paulo", "2018-02-18T03:00:00"),
    ("2026-01-01T00:00:00", "week", "UTC", "2025-12-29T00:00:00"),
    ("2026-12-31T23:59:59", "month", "UTC", "2026-12-01T00:00:00"),
    ("2026-12-31T23:59:59", "quarter", "UTC", "2026-10-01T00:00:00"),
    ("2026-12-31T23:59:59", "year", "Asia/Tokyo", "2026-12-31T15:00:00"),
    ("0001-01-01T00:00:00", "year", "America/New_York", "0001-01-01T00:00:00"),
]


class Aggregates(Setting):
    """Counts, sums, means, least and greatest values; groups, and spans of time."""

    async def test_every_function_of_every_kind(self, acme: TenantHandle) -> None:
        for name, (values, expected) in FIGURES.items():
            await acme.data.bulk_create("samples", [{name: value} for value in values])
            asked = {word: {_SPELLED.get(word, word): name} for word in expected}
            (figures,) = await acme.data.aggregate(Sample, asked, {name: {"is_null": False}})
            assert _typed(figures) == _typed(expected), name
            (nothing,) = await acme.data.aggregate(Sample, asked, {"label": "nobody"})
            assert nothing == {word: 0 if word in ("count", "distinct") else None for word in expected}, name

    async def test_sums_and_means_are_exact(self, acme: TenantHandle) -> None:
        wide = Decimal("99999999999999999999999999999.999999999")
        rows = [{"number": _EXTREME, "exact": wide, "money": "0.00", "label": "up"} for _ in range(127)]
        rows.append({"number": _EXTREME, "exact": wide, "money": "0.01", "label": "up"})
        rows += [{"number": -1, "exact": "0", "money": "0", "label": "down"} for _ in range(2)]
        rows.append({"number": 0, "exact": "-0.000000001", "money": "-0.01", "label": "down"})
        await acme.data.bulk_create("samples", rows)
        asked = {
            f"{word}_{name}": {word: name} for word in ("sum", "avg") for name in ("number", "exact", "money")
        }
        down, up = await acme.data.aggregate("samples", asked, group_by=["label"])
        assert _typed(up) == _typed(
            {
                "label": "up",
                "sum_number": 128 * _EXTREME,
                "sum_exact": Decimal("12799999999999999999999999999999.999999872"),
                "sum_money": Decimal("0.01"),
                "avg_number": Decimal(_EXTREME),
                "avg_exact": wide,
                "avg_money": Decimal("0.00007813"),  # 0.000078125, rounded half up
            }
        )
        assert _typed(down) == _typed(
            {
                "label": "down",
                "sum_number": -2,
                "sum_exact": Decimal("-0.000000001"),
                "sum_money": Decimal("-0.01"),
                "avg_number": Decimal("-0.666667"),
                "avg_exact": Decimal("-0.000000000333333"),
                "avg_money": Decimal("-0.00333333"),
            }
        )
        huge = await acme.data.aggregate(
            "samples", {"n": Sum("number")}, group_by="label", having={"n": {"gt": 127 * _EXTREME}}
        )
        assert [row["label"] for row in huge] == ["up"]

    async def test_groups_their_order_and_what_they_must_meet(self, acme: TenantHandle) -> None:
        rows = [(Colour.RED, True, 5), (Colour.RED, True, 2), (Colour.BLUE, None, 7), (None, False, None)]
        await acme.data.bulk_create([Sample(colour=c, flag=f, number=n) for c, f, n in rows])

        async def groups(measures: Any, **asked: Any) -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in await acme.data.aggregate(Sample, measures, **asked)]

        count = {"n": Count(), "most": Max("number")}
        both = ["colour", "flag"]
        blue, red, none = (Colour.BLUE, None, 1, 7), (Colour.RED, True, 2, 5), (None, False, 1, None)
        assert await groups(count, group_by=both) == [blue, red, none]
        assert await groups(count, group_by=both, order_by="-most") == [none, blue, red]
        assert await groups(count, group_by=both, order_by=["n", "-colour"]) == [none, blue, red]
        assert await groups(count, group_by=both, order_by="-n", limit=1) == [red]
        assert await groups(count, group_by=both, having={"n": {"gt": 1}}) == [red]
        assert await groups(count, group_by=both, having={"or": [{"colour": None}, {"most": 7}]}) == [
            blue,
            none,
        ]
        assert await groups(count, group_by=both, having={"not": {"most": {"lt": 6}}}) == [blue]
        assert await groups({"n": Count()}, group_by={"hue": "colour"}, where=lambda s: s.number > 2) == [
            (Colour.BLUE, 1),
            (Colour.RED, 1),
        ]
        assert await groups({"n": Count()}, group_by=["label"], where={"label": "nobody"}) == []

    async def test_spans_of_time(self, acme: TenantHandle) -> None:
        for moment, unit, zone, first in SPANS:
            row = await acme.data.create(Sample(moment=_moment(moment), day=_moment(moment).date()))
            span = {"trunc": "moment", "unit": unit, "zone": zone}
            (group,) = await acme.data.aggregate(
                Sample, {"n": Count()}, {"id": row.id}, group_by={"span": span}
            )
            assert group == {"span": _moment(first), "n": 1}, (moment, unit, zone)
            if zone == "UTC":
                spans: dict[str, Trunc] = {"span": Trunc("day", unit)}  # type: ignore[arg-type]
                (group,) = await acme.data.aggregate(Sample, {"n": Count()}, {"id": row.id}, group_by=spans)
                assert group["span"] == _moment(first).date()

    async def test_names_are_words_of_sql(self, acme: TenantHandle) -> None:
        await acme.data.create(Clause(select="s", limit=2, p0=3, group="g"))
        measures = {"count": Sum("limit"), "p0": Sum("p0"), "order": Count(), "tenant": Max("limit")}
        found = await acme.data.aggregate(
            Clause,
            measures,
            {"p0": 3, "select": "s"},
            group_by={"limit": "group", "group": "select"},
            having={"count": 2, "p0": {"gte": 3}, "limit": "g"},
            order_by=["-count", "group"],
            limit=5,
        )
        assert found == [{"limit": "g", "group": "s", "count": 2, "p0": 3, "order": 1, "tenant": 2}]

    async def test_floats_too_large_are_refused(self, acme: TenantHandle) -> None:
        await acme.data.bulk_create([Sample(ratio=1.7e308), Sample(ratio=1.7e308)])
        for word in ("sum", "avg"):
            with pytest.raises(InvalidQuery):
                await acme.data.aggregate(Sample, {"r": {word: "ratio"}})
        assert await acme.data.aggregate(Sample, {"r": Max("ratio")}) == [{"r": 1.7e308}]

    async def test_each_tenant_has_its_own_and_the_system_all(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        label = f"of {acme.context.tenant_id}"
        await acme.data.bulk_create([Sample(label=label, number=number) for number in (1, 2)])
        await globex.data.create(Sample(label=label, number=40))
        measures = {"n": Count(), "total": Sum("number"), "mean": Avg("number"), "least": Min("number")}
        own = {"n": 2, "total": 3, "mean": Decimal("1.5"), "least": 1}
        assert await acme.data.aggregate(Sample, measures) == [own]
        assert await acme.data.aggregate(Sample, measures, group_by="label") == [{"label": label, **own}]
        asked: dict[str, Any] = {"measures": measures, "where": {"label": label}}
        async with sdk.system(reason="sum", tenant=acme.context.tenant_id) as system:
            assert await system.data.aggregate("samples", **asked) == [own]
        async with sdk.system(reason="sum") as system:
            (all_of_them,) = await system.data.aggregate("samples", **asked)
            assert (all_of_them["n"], all_of_them["total"]) == (3, 43)

    async def test_a_transaction_sums_up_what_it_wrote(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        needs(sdk, Capability.TRANSACTIONS)
        await acme.data.create(Sample(number=1))
        async with acme.data.transaction() as work:
            await work.create(Sample(number=2))
            assert await work.aggregate(Sample, {"total": Sum("number")}) == [{"total": 3}]


def _typed(record: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return each value with its type and all its digits; two floats that are almost equal are equal."""
    return {
        name: (type(value).__name__, f"{value:.12g}" if isinstance(value, float) else str(value))
        for name, value in record.items()
    }
