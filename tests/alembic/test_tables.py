"""Revisions make what `schema="create"` makes, beside the user's own tables, and the SDK serves on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tenantry.errors import ConfigurationError, SchemaMismatch
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project
from tests.alembic.models import MODELS, Base, Invoice, Product


async def test_revisions_from_empty_make_what_create_makes(
    project: Project, make_project: Callable[[], Project]
) -> None:
    await project.migrate(*MODELS)
    other = await asyncio.to_thread(make_project)
    other.models = MODELS
    async with other.sdk(schema="create"):
        pass
    made, created = await dump(project), await dump(other)
    assert created["policies"]
    assert created["triggers"]
    for what, lines in created.items():
        assert made[what] == lines, what


async def test_the_sdk_opens_without_the_owner_and_attests(project: Project) -> None:
    await project.migrate(*MODELS)
    async with project.sdk() as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
            await sdk.tenant(tenant).data.create(Product(name="Lamp", sku="L1", price="9.50"))
        assert await sdk.tenant("acme").data.count(Product) == 1
        assert len(await sdk.tenant("acme").data.sql("SELECT sku FROM products")) == 1


async def test_without_the_revisions_the_sdk_refuses_and_names_the_command(project: Project) -> None:
    await project.migrate(*MODELS[:1])
    project.models = MODELS
    with pytest.raises(SchemaMismatch, match="tenantry migrate") as caught:
        async with project.sdk():
            pass
    assert "table products is missing" in str(caught.value)


async def test_tables_of_the_users_own_stand_beside_ours_in_one_folder(project: Project) -> None:
    project.own = [Base.metadata]
    text = await project.migrate(*MODELS)
    assert "op.create_table('invoices'" in text
    assert "isolate_table('invoices'" not in text
    assert text.count("op.isolate_table(") == 3
    rows = await project.execute("SELECT relrowsecurity, relacl FROM pg_class WHERE relname = 'invoices'")
    assert [tuple(row) for row in rows] == [(False, None)]


async def test_a_revision_names_no_role(project: Project) -> None:
    text = await project.new(*MODELS)
    owner = (await project.execute("SELECT current_user", role="owner"))[0][0]
    assert owner.removesuffix("_owner") not in text
    assert "CREATE POLICY" not in text


async def test_the_tables_behind_the_seal_are_left_alone(project: Project) -> None:
    text = await project.migrate(*MODELS)
    assert "seal_keys" not in text
    assert "fences" not in text
    await project.downgrade("base")
    assert await project.execute("SELECT kid FROM tenantry.seal_keys")


async def test_after_the_way_down_the_way_up_makes_the_same(project: Project) -> None:
    await project.migrate(*MODELS)
    before = await dump(project)
    await project.downgrade("base")
    assert not (await dump(project))["policies"]
    await project.upgrade()
    assert await dump(project) == before


async def test_a_database_that_nobody_prepared_is_refused(project: Project) -> None:
    await project.execute("DROP SCHEMA tenantry CASCADE")
    with pytest.raises(ConfigurationError, match="tenantry init"):
        await project.new(*MODELS)


def test_the_users_table_is_what_the_test_thinks() -> None:
    assert set(Base.metadata.tables) == {Invoice.__tablename__}
