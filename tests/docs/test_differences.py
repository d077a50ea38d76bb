"""What `docs/databases.md` says is different between databases, and is."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from tenantry import Indexed, Model, MultiTenantSDK, Ref, Sum
from tenantry.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRecord,
    OperationTimeout,
    ReferenceViolation,
    Unsupported,
)
from tenantry.ports import Indexes
from tenantry.schema import Kind, collection_of
from tests.databases.postgres.deployment import deploy
from tests.docs.pages import codes, page, tables

DIFFERENCES = tables(page("databases").section("The differences"))[0]


class Shelf(Model):
    __collection__ = "shelves"

    label: Annotated[str, Indexed] = ""
    weight: Decimal = Decimal(0)
    depth: float = 0.0
    details: dict[str, Any] = Field(default_factory=dict)
    above_id: Annotated[uuid.UUID | None, Ref("shelves")] = None


Options = dict[str, Any]
Open = Callable[..., Any]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    """Give what `MultiTenantSDK.open` takes for each database."""
    if request.param == "postgresql":
        return await deploy(request.getfixturevalue("database_url"))
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/shelves.db"
    return {"url": url, "database": {}}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Give the database's name."""
    return str(request.node.callspec.params["options"])


@asynccontextmanager
async def opened(options: Options, **more: Any) -> AsyncIterator[MultiTenantSDK]:
    database = {**options["database"], **more}
    async with MultiTenantSDK.open(
        options["url"], models=[Shelf], schema="create", database=database, env={}
    ) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenants.create("globex")
        yield sdk


@pytest.fixture
async def sdk(options: Options) -> AsyncIterator[MultiTenantSDK]:
    async with opened(options) as sdk:
        yield sdk


def test_every_difference_is_pinned() -> None:
    named = {test for row in DIFFERENCES for test in codes(row[-1])}
    missing = {test for test in named if not callable(getattr(sys.modules[__name__], test, None))}
    assert not missing
    assert all(codes(row[-1]) for row in DIFFERENCES)


async def test_what_is_kept(options: Options, name: str) -> None:
    async with opened(options) as sdk:
        await sdk.tenant("acme").data.create(Shelf())
    async with opened(options) as sdk:
        assert await sdk.tenant("acme").data.count(Shelf) == (0 if name == "memory" else 1)


async def test_sql_of_ones_own(sdk: MultiTenantSDK, name: str) -> None:
    asked = sdk.tenant("acme").data.sql("SELECT 1 AS one")
    if name == "postgresql":
        assert await asked == [{"one": 1}]
    else:
        with pytest.raises(Unsupported):
            await asked


@pytest.mark.parametrize("options", ["postgresql"], indirect=True)
async def test_sql_returns_the_drivers_values(sdk: MultiTenantSDK) -> None:
    acme = sdk.tenant("acme").data
    await acme.create(Shelf(weight=Decimal("1.50"), details={"a": 1}))
    (row,) = await acme.sql("SELECT weight, details FROM shelves")
    assert (str(row["weight"]), row["details"]) == ("1.500000000", '{"a": 1}')
    (shelf,) = await acme.read(Shelf)
    assert (str(shelf.weight), shelf.details) == ("1.5", {"a": 1})


async def test_two_transactions_at_once(sdk: MultiTenantSDK, name: str) -> None:
    async def other() -> None:
        async with sdk.tenant("globex").data.transaction() as work:
            await work.create(Shelf())

    async with sdk.tenant("acme").data.transaction() as work:
        await work.create(Shelf())
        task = asyncio.create_task(other())
        done, _ = await asyncio.wait([task], timeout=5 if name == "postgresql" else 0.2)
        assert bool(done) == (name == "postgresql")
    await task


async def test_what_a_transaction_sees(sdk: MultiTenantSDK, name: str) -> None:
    acme = sdk.tenant("acme").data
    async with acme.transaction() as work:
        assert await work.count(Shelf) == 0
        other = asyncio.create_task(sdk.tenant("acme").data.create(Shelf()))
        await asyncio.wait([other], timeout=5 if name == "postgresql" else 0.2)
        assert await work.count(Shelf) == (1 if name == "postgresql" else 0)
    await other


async def test_a_row_that_is_held(options: Options, name: str) -> None:
    if name == "memory":
        return  # nobody else can hold anything
    async with opened(options) as sdk, opened(options, timeout=2.0) as impatient:
        shelf = await sdk.tenant("acme").data.create(Shelf())
        async with sdk.tenant("acme").data.transaction() as work:
            await work.update(shelf, label="held")
            with pytest.raises(OperationTimeout if name == "postgresql" else DatabaseUnavailable):
                await impatient.tenant("acme").data.update(Shelf, shelf.id, {"label": "wanted"})


async def test_the_field_of_a_violated_reference(sdk: MultiTenantSDK, name: str) -> None:
    with pytest.raises(ReferenceViolation) as caught:
        await sdk.tenant("acme").data.create(Shelf(above_id=uuid.uuid4()))
    assert caught.value.field == (None if name == "sqlite" else "above_id")


async def test_the_keys_of_a_json_object(sdk: MultiTenantSDK, name: str) -> None:
    acme = sdk.tenant("acme").data
    made = await acme.create(Shelf(details={"width": 1, "b": 2, "a": 3}))
    (found,) = await acme.read(Shelf)
    assert found == made
    wanted = ["a", "b", "width"] if name == "postgresql" else ["width", "b", "a"]
    assert list(json.loads(json.dumps(found.details))) == wanted


async def test_the_last_digits_of_a_sum_of_floats(sdk: MultiTenantSDK, name: str) -> None:
    acme = sdk.tenant("acme").data
    await acme.bulk_create([Shelf(depth=depth) for depth in (1e16, 1.0, -1e16)])
    (total,) = [row["total"] for row in await acme.aggregate(Shelf, {"total": Sum("depth")})]
    known = {"memory": {1.0}, "sqlite": {0.0, 1.0}, "postgresql": {0.0}}
    assert total in known[name]


async def test_a_long_indexed_text(sdk: MultiTenantSDK, name: str) -> None:
    stored = sdk.tenant("acme").data.create(Shelf(label=secrets.token_hex(10_000)))
    if name == "postgresql":
        with pytest.raises(InvalidRecord) as caught:
            await stored
        assert "too long" in caught.value.message
    else:
        assert len((await stored).label) == 20_000


async def test_making_tables_needs_the_owner(options: Options, name: str) -> None:
    if name != "postgresql":
        async with opened(options):
            return
    with pytest.raises(ConfigurationError) as caught:
        async with opened(options, owner_url=None):
            pass
    assert caught.value.field == "database.owner_url"


async def test_how_a_slow_query_is_looked_into(options: Options, name: str) -> None:
    performance = {"slow_query_seconds": 1e-9, "insights_interval": 3_600.0}
    async with MultiTenantSDK.open(
        options["url"],
        models=[Shelf],
        schema="create",
        database=options["database"],
        performance=performance,
        env={},
    ) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme").data
        await acme.create(Shelf(label="top"))
        await acme.count(Shelf, {"weight": 0})
        await sdk.insights.flush()
        (plan,) = [shape.plan for shape in (await sdk.insights.report()).shapes if shape.verb == "count"]
    if name == "memory":
        assert plan is None
    else:
        assert plan is not None
        assert plan.kept == 1
        assert ("SEARCH" in plan.node) == (name == "sqlite")


async def test_which_comparisons_an_index_answers(sdk: MultiTenantSDK, name: str) -> None:
    database = sdk._watch.database
    assert isinstance(database, Indexes) == (name != "memory")
    if isinstance(database, Indexes):
        assert (Kind.DECIMAL in database.answered) == (name == "sqlite")
        assert Kind.TEXT in database.answered


async def test_making_an_index_beside_a_writer(sdk: MultiTenantSDK, name: str) -> None:
    database = sdk._watch.database
    if not isinstance(database, Indexes):
        return
    index, _ = database.advised(collection_of(Shelf), ["weight"])
    async with sdk.tenant("acme").data.transaction() as work:
        await work.create(Shelf())
        making = asyncio.create_task(database.create_index(index, lambda *_: None))
        await asyncio.wait([making], timeout=0.2)
        assert not making.done()  # it waits for what was written before it
        other = asyncio.create_task(sdk.tenant("globex").data.create(Shelf()))
        done, _ = await asyncio.wait([other], timeout=5 if name == "postgresql" else 0.2)
        assert bool(done) == (name == "postgresql")
    assert await making
    await other


async def test_the_bytes_of_a_row(sdk: MultiTenantSDK, name: str) -> None:
    acme = sdk.tenant("acme")
    shelf = await acme.data.create(Shelf(label="x" * 100))
    used = (await acme.usage()).storage.used
    if name == "memory":
        text = json.dumps(shelf.model_dump(mode="json"), separators=(",", ":"))
        assert abs(used - len(text)) < 20
    elif name == "postgresql":
        (row,) = await acme.data.sql("SELECT octet_length(t::text) AS size FROM shelves t")
        assert used == row["size"]
    else:
        values = [16, 1, 16, 16, len("acme"), 100, 40, 2]
        assert abs(used - sum(values)) < 20
