"""What a tenant could learn of another one from what a search finds, how it scores, and what it takes for a mistake."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio

from tenantry import Model, MultiTenantSDK, Searchable
from tenantry.errors import InvalidQuery, TenantRequired, Unsupported

TWIN = uuid.UUID(int=7)


class Article(Model):
    __collection__ = "articles"

    title: Annotated[str, Searchable(weight=3)]
    body: Annotated[str | None, Searchable] = None


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def sdk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MultiTenantSDK]:
    """Give two tenants; PostgreSQL has the same questions in the conformance suite."""
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/app.db"
    async with MultiTenantSDK.open(url, models=[Article], schema="create", env={}) as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
        yield sdk


async def _found(sdk: MultiTenantSDK, text: str, **options: Any) -> list[tuple[str, float]]:
    page = await sdk.tenant("acme").data.search(Article, text, **options)
    return [(hit.row.title, hit.score) for hit in page]


async def test_a_row_of_the_same_id_lends_no_word(sdk: MultiTenantSDK) -> None:
    await sdk.tenant("acme").data.create(Article(id=TWIN, title="mine", body="shared"))
    await sdk.tenant("globex").data.create(Article(id=TWIN, title="theirs", body="shared shared"))
    assert (
        await _found(sdk, "theirs") == await _found(sdk, "thei") == await _found(sdk, "shared theirs ") == []
    )
    assert await _found(sdk, "mine -theirs") == [("mine", 3.0)]
    assert await _found(sdk, "shared ") == [("mine", 1.0)]


async def test_scores_and_order_do_not_depend_on_others(sdk: MultiTenantSDK) -> None:
    acme, globex = sdk.tenant("acme").data, sdk.tenant("globex").data
    await acme.bulk_create([Article(title="rare common"), Article(title="common", body="rare words here")])
    before = await _found(sdk, "rare common")
    await globex.bulk_create([Article(title="common common", body="common") for _ in range(30)])
    assert await _found(sdk, "rare common") == before


async def test_the_words_of_others_are_not_taken_for_what_was_meant(sdk: MultiTenantSDK) -> None:
    await sdk.tenant("acme").data.create(Article(title="laptop"))
    # Words enough to crowd out acme's, if they were looked at.
    crowd = " ".join(f"lap{letter}tp la{letter}ptp" for letter in "abcdefghijklmno")
    await sdk.tenant("globex").data.create(Article(title=crowd))
    assert await _found(sdk, "laptp ", typos=True) == [("laptop", 1.5)]


async def test_a_cursor_belongs_to_its_tenant(sdk: MultiTenantSDK) -> None:
    for tenant in ("acme", "globex"):
        await sdk.tenant(tenant).data.bulk_create([Article(title="word") for _ in range(3)])
    page = await sdk.tenant("globex").data.search(Article, "word", limit=1)
    with pytest.raises(InvalidQuery, match="cursor"):
        await _found(sdk, "word", limit=1, cursor=page.next_cursor)


async def test_without_a_tenant_there_is_no_search(sdk: MultiTenantSDK) -> None:
    with pytest.raises(TenantRequired):
        await sdk.data.search(Article, "word")
    for options in ({}, {"tenant": "acme"}):
        async with sdk.system(reason="test", **options) as system:
            with pytest.raises(Unsupported):
                await system.data.search("articles", "word")
