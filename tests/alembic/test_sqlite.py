"""SQLite: the same commands, with Alembic's batch mode where SQLite cannot alter."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Annotated, Any

import pytest

from tenantry import Indexed, Model, Ref, RenamedFrom, Unique
from tenantry.errors import MigrationRefused
from tests.alembic.conftest import Project
from tests.alembic.models import MODELS


class Item(Model):
    __collection__ = "items"

    title: Annotated[str, Indexed]
    sku: str
    price: float = 0.0


class Part(Model):
    __collection__ = "parts"

    item: Annotated[uuid.UUID, Ref("items", on_delete="cascade")]


class Changed(Model):
    __collection__ = "items"

    name: Annotated[str, RenamedFrom("title")]
    sku: Annotated[str, Unique]
    price: float | None = None
    stock: int = 3


class Fewer(Model):
    __collection__ = "items"

    name: str
    sku: Annotated[str, Unique]
    price: float | None = None


def schema(path: Path) -> dict[str, Any]:
    """Return what the file holds, as SQLite says it."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found: dict[str, Any] = {}
        for name in sorted(set(names) - {"alembic_version"}):
            listed = connection.execute("SELECT type, wr FROM pragma_table_list(?)", (name,)).fetchall()
            columns = connection.execute("SELECT * FROM pragma_table_info(?)", (name,)).fetchall()
            keys = connection.execute("SELECT * FROM pragma_foreign_key_list(?)", (name,)).fetchall()
            indexes = connection.execute(
                'SELECT name, "unique", origin FROM pragma_index_list(?)', (name,)
            ).fetchall()
            parts = {
                index[0]: connection.execute("SELECT name FROM pragma_index_info(?)", (index[0],)).fetchall()
                for index in indexes
            }
            found[name] = (listed, columns, sorted(keys), sorted(str((parts[i[0]], *i[1:])) for i in indexes))
    connection.close()
    return found


@pytest.fixture
def file(tmp_path: Path) -> Project:
    opened = {"url": f"sqlite:///{tmp_path / 'app.db'}", "database": {}}
    return Project(tmp_path / "migrations", opened, "")


async def test_revisions_from_empty_make_what_create_makes(file: Project, tmp_path: Path) -> None:
    text = await file.migrate(*MODELS)
    assert "isolate_table" not in text
    other = Project(tmp_path / "other", {"url": f"sqlite:///{tmp_path / 'other.db'}", "database": {}}, "")
    other.models = MODELS
    async with other.sdk(schema="create"):
        pass
    made, created = schema(tmp_path / "app.db"), schema(tmp_path / "other.db")
    assert set(made) == set(created)
    for name, found in created.items():
        assert made[name] == found, name
    async with file.sdk() as sdk:
        await sdk.tenants.create("acme")


async def test_a_table_is_changed_in_a_batch_and_keeps_its_rows(file: Project) -> None:
    await file.migrate(Item, Part)
    async with file.sdk() as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        lamp = await data.create(Item(title="Lamp", sku="L1", price=9.5))
        await data.create(Part(item=lamp.id))
    text = await file.migrate(Changed, Part)
    assert "op.batch_alter_table('items'" in text
    async with file.sdk() as sdk:
        data = sdk.tenant("acme").data
        (row,) = await data.read(Changed)
        assert (row.name, row.price, row.stock) == ("Lamp", 9.5, 3)
        assert await data.count(Part) == 1
        with pytest.raises(Exception, match="sku"):
            await data.create(Changed(name="Other", sku="L1"))
    assert schema(Path(file.opened["url"].removeprefix("sqlite:///")))["items"][0][0][1] == 1, "WITHOUT ROWID"
    await file.downgrade()
    async with file.declaring(Item, Part).sdk() as sdk:
        assert [row.title for row in await sdk.tenant("acme").data.read(Item)] == ["Lamp"]
        assert await sdk.tenant("acme").data.count(Part) == 1


async def test_what_loses_data_needs_the_flag(file: Project) -> None:
    await file.migrate(Changed)
    text = await file.new(Fewer)
    assert 'with op.destructive("drops the column items.stock"):' in text
    with pytest.raises(MigrationRefused, match=r"items\.stock"):
        await file.upgrade()
    await file.upgrade(allow=True)
    await file.check()


async def test_a_failure_leaves_the_file_as_it_was(file: Project) -> None:
    await file.migrate(Item)
    async with file.sdk() as sdk:
        await sdk.tenants.create("acme")
        for _ in range(2):
            await sdk.tenant("acme").data.create(Item(title="Lamp", sku="L1"))
    path = Path(file.opened["url"].removeprefix("sqlite:///"))
    before = schema(path)
    await file.new(Changed)
    with pytest.raises(Exception, match="UNIQUE"):
        await file.upgrade()
    assert schema(path) == before
    async with file.declaring(Item).sdk() as sdk:
        assert await sdk.tenant("acme").data.count(Item) == 2
