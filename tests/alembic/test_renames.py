"""Renames are marked, never guessed; what is marked keeps its rows."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Annotated

import pytest

from tenantry import Indexed, Model, Ref, RenamedFrom, Unique
from tenantry.errors import MigrationRefused
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project


class Item(Model):
    __collection__ = "items"
    __unique__ = (("title", "sku"),)

    title: Annotated[str, Indexed]
    sku: Annotated[str, Unique]


class Part(Model):
    __collection__ = "parts"

    item: Annotated[uuid.UUID, Ref("items")]


class RenamedField(Model):
    __collection__ = "items"
    __unique__ = (("name", "sku"),)

    name: Annotated[str, Indexed, RenamedFrom("title")]
    sku: Annotated[str, Unique]


class UnmarkedField(Model):
    __collection__ = "items"
    __unique__ = (("name", "sku"),)

    name: Annotated[str, Indexed]
    sku: Annotated[str, Unique]


class RenamedTable(Model):
    __collection__ = "articles"
    __renamed_from__ = "items"
    __unique__ = (("name", "sku"),)

    name: Annotated[str, Indexed, RenamedFrom("title")]
    sku: Annotated[str, Unique]


class PartOfArticle(Model):
    __collection__ = "parts"

    article: Annotated[uuid.UUID, Ref("articles"), RenamedFrom("item")]


class UnmarkedTable(Model):
    __collection__ = "articles"

    name: str


async def test_a_marked_field_keeps_its_values(project: Project, make_project: Callable[[], Project]) -> None:
    await project.migrate(Item)
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(Item(title="Lamp", sku="L1"))
    text = await project.migrate(RenamedField)
    assert "drop_column" not in text
    assert "add_column" not in text
    assert "new_column_name='name'" in text
    async with project.sdk() as sdk:
        assert [row.name for row in await sdk.tenant("acme").data.read(RenamedField)] == ["Lamp"]
    await same_as_new(project, make_project)
    await project.downgrade()
    async with project.declaring(Item).sdk() as sdk:
        assert [row.title for row in await sdk.tenant("acme").data.read(Item)] == ["Lamp"]


async def test_a_marked_table_takes_keys_references_and_policies_along(
    project: Project, make_project: Callable[[], Project]
) -> None:
    await project.migrate(Item, Part)
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
        lamp = await sdk.tenant("acme").data.create(Item(title="Lamp", sku="L1"))
        await sdk.tenant("acme").data.create(Part(item=lamp.id))
    text = await project.migrate(RenamedTable, PartOfArticle)
    assert "op.rename_table('items', 'articles')" in text
    assert "isolate_table" not in text
    assert "drop_" not in text.partition("def downgrade")[0]
    async with project.sdk() as sdk:
        (part,) = await sdk.tenant("acme").data.read(PartOfArticle, include=["article"])
        assert part.article == lamp.id
    await same_as_new(project, make_project)


async def same_as_new(project: Project, make_project: Callable[[], Project]) -> None:
    """See that nothing but the order of columns tells the database from one that was made like this."""
    other = await asyncio.to_thread(make_project)
    await other.migrate(*project.models)
    assert await dump(project, order=False) == await dump(other, order=False)


async def test_an_unmarked_field_is_refused_by_naming_the_marker(project: Project) -> None:
    await project.migrate(Item)
    with pytest.raises(MigrationRefused) as caught:
        await project.new(UnmarkedField)
    assert 'RenamedFrom("title")' in str(caught.value)
    assert len(project.revisions) == 1


async def test_an_unmarked_table_is_refused_by_naming_the_marker(project: Project) -> None:
    await project.migrate(Item)
    with pytest.raises(MigrationRefused) as caught:
        await project.new(UnmarkedTable)
    assert '__renamed_from__ = "items"' in str(caught.value)


async def test_two_revisions_tell_that_it_is_no_rename(project: Project) -> None:
    class Bare(Model):
        __collection__ = "items"

        sku: Annotated[str, Unique]

    await project.migrate(Item)
    dropped = await project.migrate(Bare, allow=True)
    assert 'with op.destructive("drops the column items.title"):' in dropped
    added = await project.migrate(UnmarkedField)
    assert "add_column('items'" in added


async def test_a_marker_that_has_done_its_work_may_stay(project: Project) -> None:
    await project.migrate(RenamedTable)
    await project.check()


async def test_comparing_leaves_the_old_names(project: Project) -> None:
    await project.migrate(Item)
    before = await dump(project)
    await project.new(RenamedTable)
    assert await dump(project) == before
