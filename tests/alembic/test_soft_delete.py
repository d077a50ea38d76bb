"""A collection that begins to delete softly: its unique values become those of the rows that live."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from tenantry import Model, SoftDelete, Unique
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project
from tests.alembic.test_sqlite import schema


class Hard(Model):
    __collection__ = "items"
    __unique__ = (("name", "sku"),)

    name: str
    sku: Annotated[str, Unique]


class Soft(SoftDelete, Model):
    __collection__ = "items"
    __unique__ = (("name", "sku"),)

    name: str
    sku: Annotated[str, Unique]


async def test_its_revision_makes_what_a_new_database_has(
    project: Project, make_project: Callable[[], Project]
) -> None:
    await project.migrate(Hard)
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(Hard(name="Lamp", sku="L1"))
    before = await dump(project, order=False)
    text = await project.migrate(Soft, allow=True)
    assert "unique=True, where='deleted_at IS NULL'" in text
    other = await asyncio.to_thread(make_project)
    await other.migrate(Soft)
    after = await dump(project, order=False)
    assert after == await dump(other, order=False)
    async with project.sdk() as sdk:
        acme = sdk.tenant("acme").data
        (lamp,) = await acme.read(Soft)
        await acme.delete(lamp)
        await acme.create(Soft(name="Lamp", sku="L1"))
        assert await acme.count(Soft, deleted="with") == 2
        await acme.delete(Soft, lamp.id, permanently=True)
    for _ in range(len(project.revisions) - 1):
        await project.downgrade("-1")
    assert await dump(project, order=False) == before
    await project.upgrade(allow=True)
    assert await dump(project, order=False) == after


async def test_on_sqlite_too(tmp_path: Path) -> None:
    opened = {"url": f"sqlite:///{tmp_path / 'app.db'}", "database": {}}
    file = Project(tmp_path / "migrations", opened, "")
    await file.migrate(Hard)
    await file.migrate(Soft, allow=True)
    other = Project(tmp_path / "other", {"url": f"sqlite:///{tmp_path / 'other.db'}", "database": {}}, "")
    await other.migrate(Soft)
    made, new = schema(tmp_path / "app.db"), schema(tmp_path / "other.db")
    assert {name: (found[0], *found[2:]) for name, found in made.items()} == {
        name: (found[0], *found[2:]) for name, found in new.items()
    }
    with sqlite3.connect(tmp_path / "app.db") as connection:
        texts = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'items_sku_key'").fetchall()
    connection.close()
    assert "WHERE deleted_at IS NULL" in texts[0][0]
