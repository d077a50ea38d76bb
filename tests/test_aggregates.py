"""What is asked of an aggregate is checked before a database sees it, and its answer is never cut off unseen."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import Count, KeyedModel, MultiTenantSDK, Sum
from tenantry.aggregation import begin, mean
from tenantry.data import DataManager
from tenantry.errors import InvalidQuery
from tenantry.hooks import Operation


class Line(KeyedModel):
    __collection__ = "lines"

    id: int
    amount: Decimal = Decimal(1)


@pytest.fixture
async def heard() -> list[Operation]:
    return []


@pytest.fixture
async def acme(heard: list[Operation]) -> AsyncIterator[DataManager]:
    async with MultiTenantSDK.open("memory://", models=[Line], env={}) as sdk:
        sdk.add_after_hook(heard.append)
        await sdk.tenants.create("acme")
        yield sdk.tenant("acme").data


async def test_more_groups_than_an_answer_holds_are_refused(acme: DataManager) -> None:
    await acme.bulk_create([Line(id=number) for number in range(10_001)])
    with pytest.raises(InvalidQuery) as caught:
        await acme.aggregate(Line, {"n": Count()}, group_by="id")
    assert (caught.value.path, "limit" in (caught.value.fix or "")) == ("group_by", True)
    for asked in ({"limit": 10_000}, {"where": {"id": {"gt": 0}}}):
        assert len(await acme.aggregate(Line, {"n": Count()}, group_by="id", **asked)) == 10_000


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"measures": None}, "measures"),
        ({"measures": {f"n{number}": Count() for number in range(101)}}, "measures"),
        ({"measures": {"tenant_id": Count()}}, "measures"),
        ({"measures": {"or": Count()}}, "measures"),
        ({"measures": {'n"; --': Count()}}, "measures"),
        ({"measures": {7: Count()}}, "measures"),
        ({"measures": {"n": {"sum": "amount", "avg": "amount"}}}, "measures.n"),
        ({"measures": {"n": {"median": "amount"}}}, "measures.n"),
        ({"measures": {"n": {"sum": None}}}, "measures.n"),
        ({"measures": {"n": {"sum": ["amount"]}}}, "measures.n"),
        ({"measures": {"n": Count(distinct=True)}}, "measures.n"),
        ({"measures": {"n": Count("tenant_id")}}, "measures.n"),
        ({"group_by": 7}, "group_by"),
        ({"group_by": [["id"]]}, "group_by[0]"),
        ({"group_by": {"tenant_id": "id"}}, "group_by"),
        ({"group_by": {"n": "id"}}, "measures.n"),
        ({"group_by": {"d": {"trunc": "created_at"}}}, "group_by.d"),
        (
            {"group_by": {"d": {"trunc": "created_at", "unit": "day", "zone": "../../etc/passwd"}}},
            "group_by.d",
        ),
        ({"group_by": {"d": {"trunc": "created_at", "unit": "day", "zone": "x' OR '1'='1"}}}, "group_by.d"),
        ({"group_by": {"d": {"trunc": "created_at", "unit": "day' --"}}}, "group_by.d"),
        ({"group_by": {"d": {"trunc": "created_at", "unit": ["day"]}}}, "group_by.d"),
        ({"group_by": "id", "having": lambda g: g.n > 1}, "having"),
        ({"group_by": "id", "having": {"amount": 1}}, "having.amount"),
        ({"group_by": "id", "having": {"n": {"like": 1}}}, "having.n.like"),
        ({"group_by": "id", "order_by": ["-amount"]}, "order_by[0]"),
        ({"limit": 10_001}, "limit"),
    ],
)
async def test_what_is_wrong_is_named_and_no_database_asked(
    asked: dict[str, Any], path: str, acme: DataManager, heard: list[Operation]
) -> None:
    with pytest.raises(InvalidQuery) as caught:
        await acme.aggregate(**{"collection": Line, "measures": {"n": Count()}, **asked})
    assert caught.value.path == path
    assert not [operation for operation in heard if operation.verb == "aggregate"]


async def test_rows_of_another_tenant_are_in_no_figure_and_having_is_met(tmp_path: Path) -> None:
    async with MultiTenantSDK.open(
        f"sqlite:///{tmp_path}/lines.db", models=[Line], schema="create", env={}
    ) as sdk:
        for tenant, amounts in (("acme", (1, 2)), ("globex", (40, 50))):
            await sdk.tenants.create(tenant)
            rows = [Line(id=amount, amount=Decimal(amount)) for amount in amounts]
            await sdk.tenant(tenant).data.bulk_create(rows)
        acme, measures = sdk.tenant("acme").data, {"n": Count(), "total": Sum("amount")}
        assert await acme.aggregate(Line, measures) == [{"n": 2, "total": 3}]
        groups = await acme.aggregate(Line, measures, group_by="id", having={"total": {"gt": 1}})
        assert groups == [{"id": 2, "n": 1, "total": 2}]


async def test_hooks_hear_of_it(acme: DataManager, heard: list[Operation]) -> None:
    await acme.bulk_create([Line(id=1), Line(id=2)])
    await acme.aggregate(Line, {"n": Sum("amount")}, {"id": {"lt": 9}}, group_by="id")
    told = heard[-1]
    assert (told.verb, told.rows, told.collection and told.collection.name) == ("aggregate", 2, "lines")
    assert told.query is not None


@given(st.lists(st.integers(-(10**20), 10**20), min_size=1, max_size=9))
def test_a_mean_is_the_nearest_one_and_of_two_the_outer(values: list[int]) -> None:
    found, count = mean(sum(values), len(values)), len(values)
    away = abs(found * count - sum(values) * 10**6) * 2
    assert away <= count
    assert away < count or abs(found) * count > abs(sum(values)) * 10**6


@given(
    st.integers(-62_135_400_000, 253_402_000_000),
    st.sampled_from(["hour", "day", "week", "month", "quarter", "year"]),
    st.sampled_from(["UTC", "Europe/Vienna", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia"]),
)
def test_a_span_begins_before_what_lies_in_it_and_contains_its_beginning(
    seconds: int, unit: Any, zone: str
) -> None:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    first = begin(moment, unit, zone)
    assert first <= moment
    assert begin(first, unit, zone) == first
