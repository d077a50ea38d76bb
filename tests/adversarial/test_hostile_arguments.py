"""Whatever is passed where a value belongs: rows of this tenant or one of our errors, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry import Page
from tenantry.errors import InvalidQuery, InvalidRequest, TenantryError
from tests.adversarial import hostile
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.models import Customer, Order, Setting

hammer = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
collections = st.sampled_from(["customers", "orders", "settings", "countries", Customer, Order])


class _Into:
    name: str
    email: str


def _check(arena: Arena, found: Any, expected: tuple[type, ...] = (Page,)) -> None:
    assert isinstance(found, (TenantryError, *expected)), repr(found)
    assert not arena.reveals(found)


@given(
    collection=collections,
    where=hostile.filters | hostile.values,
    order_by=hostile.orders,
    fields=st.none() | hostile.names_lists,
    include=hostile.names_lists,
    distinct=st.booleans(),
    cursor=st.none() | hostile.texts,
    into=st.none() | st.sampled_from([_Into, Setting, dict, int]),
    limit=st.just(100) | hostile.scalars,
)
@hammer
async def test_read(direct_arena: Arena, collection: Any, **arguments: Any) -> None:
    _check(direct_arena, await outcome_of(direct_arena.acme.data.read(collection, **arguments)))


@given(collection=collections, where=hostile.filters)
@hammer
async def test_filters(direct_arena: Arena, collection: Any, where: Any) -> None:
    """Filters alone, so that most of them reach the database."""
    data = direct_arena.acme.data
    _check(direct_arena, await outcome_of(data.read(collection, where)))
    number = await outcome_of(data.count(collection, where))
    _check(direct_arena, number, (int,))
    _check(direct_arena, await outcome_of(data.exists(collection, where)), (bool,))


@given(
    pattern=hostile.texts, operator=st.sampled_from(["ilike", "contains", "starts_with", "ends_with", "eq"])
)
@hammer
async def test_patterns(direct_arena: Arena, pattern: str, operator: str) -> None:
    where = {"name": {operator: pattern}}
    _check(direct_arena, await outcome_of(direct_arena.acme.data.read(Customer, where)))


@given(path=st.lists(hostile.values | st.integers(-5, 5), max_size=4), value=hostile.values)
@hammer
async def test_paths_into_json(direct_arena: Arena, path: list[Any], value: Any) -> None:
    def where(customer: Any) -> Any:
        node = customer.notes
        for part in path:
            node = node[part]
        return node == value

    _check(direct_arena, await outcome_of(direct_arena.acme.data.read(Customer, where)))


@given(
    id=hostile.values,
    values=st.dictionaries(hostile.field_names, hostile.values, max_size=5),
    key=st.none() | hostile.values,
)
@hammer
async def test_writes(direct_arena: Arena, id: Any, values: Any, key: Any) -> None:
    data = direct_arena.acme.data
    calls: tuple[Callable[[], Awaitable[Any]], ...] = (
        lambda: data.get(Customer, id),
        lambda: data.get("settings", id),
        lambda: data.create("settings", {"id": id, "value": "x", **values}, idempotency_key=key),
        lambda: data.create("settings", {"id": id, "value": "x"}, idempotency_key=key),
        lambda: data.update("settings", id, values, idempotency_key=key),
        lambda: data.upsert("settings", {"id": id, "value": str(values)}),
        lambda: data.delete("settings", id),
        lambda: data.upsert("customers", {"name": "x", "email": "x", **values}, on=list(values)),
    )
    for call in calls:
        _check(direct_arena, await outcome_of(call()), (dict, Customer, type(None)))


@given(text=hostile.texts, params=st.lists(hostile.values, max_size=2))
@hammer
async def test_raw_sql(direct_arena: Arena, text: str, params: list[Any]) -> None:
    data = direct_arena.acme.data
    for statement in (text, f"SELECT {text}", f"SELECT $1::text WHERE '{text}' = $2", "SELECT $1, $2::int"):
        _check(direct_arena, await outcome_of(data.sql(statement, params)), (list,))


@pytest.mark.parametrize(
    "where",
    [
        {"notes." + "a." * 5_000 + "b": 1},
        {"notes.a": {"in": list(range(10_000))}},
        {"name": {"in": ["x" * 1_000_000] * 20}},
        {"name": "x" * 10_000_000},
        {"name": {"ilike": "%a" * 400_000}},
        {"and": [{"name": "x"}] * 100_000},
    ],
    ids=["deep path", "many JSON items", "20 MB", "10 MB", "pattern", "wide"],
)
async def test_a_huge_filter_is_refused_or_answered_soon(direct_arena: Arena, where: Any) -> None:
    _check(direct_arena, await outcome_of(direct_arena.acme.data.read(Customer, where)))


async def test_a_deep_filter_is_refused(direct_arena: Arena) -> None:
    where: dict[str, Any] = {"name": "x"}
    for _ in range(1_000):
        where = {"not": where}
    with pytest.raises(InvalidQuery):
        await direct_arena.acme.data.read(Customer, where)
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidRequest):
        await direct_arena.acme.data.create(Customer(name="x", email="x", notes={"deep": value}))


async def test_no_value_is_ever_a_part_of_a_statement(direct_arena: Arena) -> None:
    """Values, the seal among them, travel as parameters: no text that the server is sent holds one."""
    marker = f"marker{uuid.uuid4().hex}"
    texts: list[str] = []
    pool = direct_arena.app
    async with pool.statement("acme") as connection:
        connection.add_query_logger(lambda record: texts.append(record.query))
    data = direct_arena.acme.data
    await data.create(Setting(id=marker, value=marker), idempotency_key=marker)
    await data.update(Setting, marker, value=f"{marker}'")
    await data.upsert(Setting(id=marker, value=marker))
    await data.get(Setting, marker)
    await data.read(
        Setting, {"or": [{"value": {"ilike": f"%{marker}"}}, {"id": {"in": [marker]}}]}, order_by="-value"
    )
    await data.read("customers", {f"notes.{marker}.x": marker}, fields=["name"], distinct=True)
    await data.count(Customer, {"tags": {"contains": marker}, "name": {"starts_with": marker}})
    await data.delete(Setting, marker)
    await direct_arena.globex.data.get(Setting, "theme")
    assert len(texts) > 10
    joined = "\n".join(texts)
    assert marker not in joined
    assert "globex" not in joined
    assert "acme" not in joined
    assert "v1|" not in joined
