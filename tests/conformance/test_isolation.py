"""`assert_isolated` finds nothing where nothing leaks, and names what does."""

from __future__ import annotations

import datetime as dt
import enum
import re
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar

import pydantic
import pytest

from tenantry.coalescer import Coalescer
from tenantry.cursors import CursorSigner
from tenantry.registry import ADAPTERS
from tenantry.schema import Indexed, KeyedModel, Model, Ref, Searchable, Shared, Unique
from tenantry.sdk import MultiTenantSDK
from tenantry.testing import assert_isolated
from tenantry.testing.canaries import NoCanary
from tests.conformance.leaky import LEAKS, LeakyAdapter


class Plan(Shared, KeyedModel):
    __collection__ = "plans"
    id: str
    name: str


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Team(Model):
    __collection__ = "teams"
    slug: Annotated[str, Unique, Searchable, pydantic.Field(pattern=r"^[a-z0-9]{3,10}$")]
    plan_id: Annotated[str, Ref("plans")]


class Item(Model):
    """Fields with as many constraints as people give them."""

    __collection__ = "items"
    __unique__: ClassVar[tuple[tuple[str, ...], ...]] = (("team_id", "code"),)
    team_id: Annotated[uuid.UUID, Ref("teams", on_delete="cascade")]
    code: Annotated[str, pydantic.Field(min_length=12, max_length=12)]
    email: Annotated[str, Unique, pydantic.Field(pattern=r"^[^@]+@[^@]+\.[a-z]+$")]
    price: Annotated[Decimal, pydantic.Field(gt=0, max_digits=6, decimal_places=2)]
    stock: Annotated[int, pydantic.Field(ge=100, multiple_of=10)]
    rate: Annotated[float, pydantic.Field(gt=0, lt=1)]
    size: Size
    on: dt.date
    at: dt.datetime
    data: dict[str, Any]
    tags: Annotated[list[str], pydantic.Field(min_length=1)]
    raw: Annotated[bytes, Indexed]
    parent_id: Annotated[uuid.UUID | None, Ref("items")] = None
    seen_id: Annotated[uuid.UUID | None, Ref("teams", enforced=False)] = None


class Counter(KeyedModel):
    __collection__ = "counters"
    id: int
    total: int = 0


class Odd(Model):
    __collection__ = "odd"
    text: Annotated[str, pydantic.AfterValidator(lambda text: text if text == "xyzzy!" else 1 / 0)]


MODELS = (Plan, Team, Item, Counter)


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge need not wait for the leases of other processes: there are none."""
    monkeypatch.setattr("tenantry.tenants.manager.LONGEST_LEASE", 0.0)


@pytest.fixture
async def sdk() -> AsyncIterator[MultiTenantSDK]:
    async with MultiTenantSDK.open("memory://", models=MODELS, schema="create", env={}) as sdk:
        yield sdk


async def test_an_isolated_database_passes_and_is_left_as_it_was(sdk: MultiTenantSDK) -> None:
    await sdk.tenants.create("mine")
    await sdk.tenant("mine").data.create(Counter(id=1))
    await assert_isolated(sdk)
    assert {tenant.status.value for tenant in await sdk.tenants.list() if tenant.id != "mine"} == {"purged"}
    async with sdk.system(reason="look") as system:
        for model in (Team, Item):
            assert await system.data.count(model) == 0
        assert await system.data.count(Counter) == 1


async def test_a_model_that_cannot_be_guessed_asks_for_a_factory() -> None:
    class Even(Model):
        __collection__ = "evens"
        word: Annotated[str, pydantic.Field(pattern="^abracadabra$")]

    async with MultiTenantSDK.open("memory://", models=[Even], env={}) as sdk:
        with pytest.raises(NoCanary, match=re.escape("rows={Even: lambda: Even(…)}")):
            await assert_isolated(sdk)
        await assert_isolated(sdk, rows={Even: lambda: Even(word="abracadabra")})
        assert {tenant.status.value for tenant in await sdk.tenants.list()} == {"purged"}


@pytest.mark.parametrize("leak", LEAKS)
async def test_a_database_that_leaks_is_caught(leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "leaky", f"{LeakyAdapter.__module__}:LeakyAdapter")
    monkeypatch.setattr(LeakyAdapter, "leak", leak)
    async with MultiTenantSDK.open("leaky://", models=MODELS, env={}) as sdk:
        with pytest.raises(AssertionError, match="The tenants are not isolated:") as caught:
            await assert_isolated(sdk)
        assert re.search(LEAKS[leak], str(caught.value))


async def test_the_leaky_database_with_all_its_guards_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "leaky", f"{LeakyAdapter.__module__}:LeakyAdapter")
    async with MultiTenantSDK.open("leaky://", models=MODELS, env={}) as sdk:
        await assert_isolated(sdk)


async def test_cursors_that_any_tenant_may_use_are_caught(
    sdk: MultiTenantSDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CursorSigner, "_mac", lambda self, *_: bytes(16))
    with pytest.raises(AssertionError, match="uses a cursor"):
        await assert_isolated(sdk)


async def test_a_batch_that_mixes_tenants_is_caught(
    sdk: MultiTenantSDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Coalescer.get

    def mixed(self: Coalescer, context: Any, collection: Any, id: Any) -> Any:
        waiting = [batch.context for (_, _, name), batch in self._batches.items() if name == collection.name]
        return original(self, waiting[0] if waiting else context, collection, id)

    monkeypatch.setattr(Coalescer, "get", mixed)
    with pytest.raises(AssertionError, match="in one tick are mixed"):
        await assert_isolated(sdk)
