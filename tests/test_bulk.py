"""Guards of bulk writes, each with the mutant that takes it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry import MultiTenantSDK
from tenantry.errors import UniqueViolation
from tenantry.testing.models import Note

NOTES = [Note(id="a"), Note(id="b"), Note(id="a"), Note(id="c")]


async def test_atomic_stores_nothing_after_a_refusal() -> None:
    async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        with pytest.raises(UniqueViolation) as refused:
            await data.bulk_create(NOTES, atomic=True, batch_size=3)
        assert refused.value.index == 2
        assert await data.count(Note) == 0


async def test_an_error_carries_the_index_of_its_item() -> None:
    async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
        await sdk.tenants.create("acme")
        result = await sdk.tenant("acme").data.bulk_create(NOTES, batch_size=2)
        assert [error.index for error in result.errors] == [2]


async def test_a_refused_item_leaves_nothing_and_takes_none_along(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bulk.db"
    async with MultiTenantSDK.open(url, models=[Note], schema="create", env={}) as sdk:
        await sdk.tenants.create("acme")
        result = await sdk.tenant("acme").data.bulk_create(NOTES)
        assert [row.id for row in result.rows] == ["a", "b", "c"]
