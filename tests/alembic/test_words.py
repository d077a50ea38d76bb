"""Fields that become searchable, or change their name: the words of the rows there are come along."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Annotated

import pytest

from tenantry import KeyedModel, Model, MultiTenantSDK, RenamedFrom, Searchable, Shared
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project


class Plain(Model):
    __collection__ = "items"

    title: str
    body: str = ""


class Land(Shared, KeyedModel):
    __collection__ = "lands"

    id: str
    name: str


class SearchableTitle(Model):
    __collection__ = "items"

    title: Annotated[str, Searchable]
    body: str = ""


class SearchableLand(Shared, KeyedModel):
    __collection__ = "lands"

    id: str
    name: Annotated[str, Searchable]


class SearchableBoth(Model):
    __collection__ = "items"

    title: Annotated[str, Searchable]
    body: Annotated[str, Searchable] = ""


class Renamed(Model):
    __collection__ = "articles"
    __renamed_from__ = "items"

    name: Annotated[str, Searchable, RenamedFrom("title")]
    body: Annotated[str, Searchable] = ""


class OnSQLite(Project):
    """The same project on a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"url": f"sqlite:///{folder.parent / 'app.db'}", "database": {}}, "")
        self.options = {"database": "sqlite"}


@pytest.fixture(params=["postgresql", "sqlite"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """Give an empty project on each database."""
    if request.param == "sqlite":
        return OnSQLite(tmp_path / "migrations")
    project: Project = request.getfixturevalue("project")
    return project


async def test_the_words_of_the_rows_there_are_come_along(anywhere: Project) -> None:
    await anywhere.migrate(Plain, Land)
    async with anywhere.sdk() as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
            await sdk.tenant(tenant).data.create(Plain(title=f"Laptop of {tenant}", body="first words"))
        async with sdk.system(reason="reference data") as system:
            await system.data.create(Land(id="ch", name="Schweiz"))
    text = await anywhere.migrate(SearchableTitle, SearchableLand)
    assert text.count("op.index_words(") == 2
    assert await _found(anywhere, SearchableTitle, "laptop") == ["Laptop of acme"]
    assert await _found(anywhere, SearchableLand, "schweiz") == ["Schweiz"]
    await anywhere.migrate(SearchableBoth, SearchableLand)
    assert await _found(anywhere, SearchableBoth, "words") == ["Laptop of acme"]
    await anywhere.migrate(Renamed, SearchableLand)
    assert await _found(anywhere, Renamed, "laptop words") == ["Laptop of acme"]
    async with anywhere.sdk() as sdk:
        await sdk.tenant("acme").data.create(Renamed(name="Another"))
        await sdk.tenants.delete("globex", reason="test")
    assert await _found(anywhere, Renamed, "another") == ["Another"]
    await anywhere.downgrade()
    assert await _found(anywhere.declaring(SearchableBoth, SearchableLand), SearchableBoth, "another") == [
        "Another"
    ]


async def test_a_trigger_that_is_gone_is_found_and_what_it_missed_is_made_good(project: Project) -> None:
    await project.migrate(SearchableBoth)
    before = await dump(project)
    await project.execute("DROP TRIGGER tenantry_search ON items")
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(SearchableBoth(title="unheard"))
    assert await _found(project, SearchableBoth, "unheard") == []
    await project.migrate()
    assert await _found(project, SearchableBoth, "unheard") == ["unheard"]
    assert await dump(project) == before


async def test_tables_made_in_development_get_the_words_of_their_rows(anywhere: Project) -> None:
    async with anywhere.declaring(Plain).sdk("create") as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(Plain(title="Laptop"))
    async with anywhere.declaring(SearchableTitle).sdk("create") as sdk:
        assert len(await sdk.tenant("acme").data.search(SearchableTitle, "laptop")) == 1
        await sdk.tenant("acme").data.create(SearchableTitle(title="Laptop again"))
        assert len(await sdk.tenant("acme").data.search(SearchableTitle, "laptop")) == 2


async def test_the_copy_of_a_table_on_sqlite_keeps_its_words(tmp_path: Path) -> None:
    project = OnSQLite(tmp_path / "migrations")
    await project.migrate(SearchableTitle)
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(SearchableTitle(title="Laptop"))

    class Optional(Model):
        __collection__ = "items"

        title: Annotated[str | None, Searchable] = None
        body: str = ""

    await project.migrate(Optional)
    assert await _found(project, Optional, "laptop") == ["Laptop"]
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


async def _found(project: Project, model: type[KeyedModel], text: str) -> list[str]:
    sdk: MultiTenantSDK = project.sdk()
    async with sdk:
        page = await sdk.tenant("acme").data.search(model, text)
        return [getattr(hit.row, "name", None) or hit.row.title for hit in page]  # type: ignore[attr-defined]
