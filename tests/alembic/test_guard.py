"""Nothing that loses data or isolation runs by accident: not online, not offline, not in a revision written by hand."""

from __future__ import annotations

import asyncio
import io
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pydantic
import pytest
from alembic import command

from tenantry import Model
from tenantry.errors import MigrationRefused
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project


class Wide(Model):
    __collection__ = "items"

    name: str
    stock: int | None = None
    price: Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)] = Decimal(0)


class WithoutStock(Model):
    __collection__ = "items"

    name: str
    price: Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)] = Decimal(0)


class Narrow(Model):
    __collection__ = "items"

    name: str
    stock: int | None = None
    price: Annotated[Decimal, pydantic.Field(max_digits=10, decimal_places=2)] = Decimal(0)


class Wider(Model):
    __collection__ = "items"

    name: str
    stock: int | None = None
    price: Annotated[Decimal, pydantic.Field(max_digits=14, decimal_places=2)] = Decimal(0)


class Required(Model):
    __collection__ = "items"

    name: str
    stock: int
    price: Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)] = Decimal(0)


class Gaining(Wide):
    color: str


class Filled(Wide):
    color: str = "it's :red \\ %s"
    tags: list[str] = pydantic.Field(default_factory=list)


LOSSES: dict[str, tuple[tuple[type[Model], ...], str]] = {
    "table": ((), "drops the table items"),
    "column": ((WithoutStock,), "drops the column items.stock"),
    "type": ((Narrow,), "changes the type of items.price to one that may not hold its values"),
    "required": ((Required,), "makes items.stock required, which fails where a row has no value"),
}

BY_HAND = {
    "table": 'op.drop_table("items")',
    "column": 'op.drop_column("items", "stock")',
    "batch": 'op.batch_alter_table("items").__enter__().drop_column("stock")',
    "type": 'op.alter_column("items", "price", type_=sa.Integer(), existing_type=sa.Numeric(12, 2))',
    "unknown type": 'op.alter_column("items", "price", type_=sa.Integer())',
    "null": 'op.alter_column("items", "stock", nullable=False)',
    "required": 'op.add_column("items", sa.Column("x", sa.Integer, nullable=False))',
    "policy": 'op.execute("DROP POLICY tenantry_app ON items")',
    "security": 'op.execute("alter table items\\n disable  row level security")',
    "forced": 'op.execute(sa.text("ALTER TABLE items NO FORCE ROW LEVEL SECURITY"))',
    "truncate": 'op.execute("TRUNCATE items")',
    "text": 'op.execute("ALTER TABLE items DROP COLUMN stock")',
    "short text": 'op.execute("ALTER TABLE items DROP stock")',
    "text type": 'op.execute("ALTER TABLE items ALTER price TYPE integer")',
}


async def filled(project: Project, *models: type[Model]) -> Project:
    await project.migrate(*models)
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create("items", {"name": "Lamp", "stock": 3, "price": "9.50"})
    return project


@pytest.mark.parametrize("name", LOSSES)
async def test_a_loss_stands_apart_and_needs_the_flag(project: Project, name: str) -> None:
    models, loss = LOSSES[name]
    await filled(project, Wide)
    before = await dump(project)
    project.models = models
    text = await project.new()
    assert f'with op.destructive("{loss}"):' in text.partition("def downgrade")[0]
    with pytest.raises(MigrationRefused, match=re.escape(loss)) as caught:
        await project.upgrade()
    assert "--allow-destructive" in str(caught.value)
    assert await dump(project) == before
    await project.upgrade(allow=True)
    await project.check()


async def test_what_widens_needs_no_flag(project: Project) -> None:
    await filled(project, Wide)
    text = await project.migrate(Wider)
    assert "destructive" not in text.partition("def downgrade")[0]
    assert "destructive" in text.partition("def downgrade")[2]


async def by_hand(project: Project, line: str) -> Path:
    await asyncio.to_thread(command.revision, project.config(), "by hand")
    path = project.revisions[-1]
    path.write_text(path.read_text().replace("    pass", f"    {line}", 1))
    return path


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
async def test_a_revision_by_hand_is_guarded_too(project: Project, name: str, offline: bool) -> None:
    await filled(project, Wide)
    before = await dump(project)
    first = project.revisions[-1].name.partition("_")[0]
    await by_hand(project, BY_HAND[name])
    with pytest.raises(MigrationRefused, match="--allow-destructive"):
        await (script(project, first) if offline else project.upgrade())
    assert await dump(project) == before


async def script(project: Project, first: str = "", **options: bool) -> str:
    """Return the SQL of the newest revision."""
    output = io.StringIO()
    config = project.config(output_buffer=output, **options)
    await asyncio.to_thread(command.upgrade, config, f"{first}:head" if first else "head", sql=True)
    return output.getvalue()


async def test_the_flag_of_plain_alembic_allows_it(project: Project) -> None:
    await filled(project, Wide)
    await by_hand(project, BY_HAND["column"])
    config = project.config()
    config.cmd_opts = type("Options", (), {"x": ["allow_destructive=1"]})()
    await asyncio.to_thread(command.upgrade, config, "head")
    assert not await project.execute("SELECT FROM pg_attribute WHERE attname = 'stock'")


async def test_a_table_that_the_same_run_made_may_go(project: Project) -> None:
    await project.migrate(Wide)
    await project.migrate(WithoutStock, allow=True)
    await project.downgrade("base")
    await project.upgrade()
    assert "op.drop_column" not in await script(project)


async def test_a_required_field_without_a_default_is_refused_while_there_are_rows(project: Project) -> None:
    await filled(project, Wide)
    with pytest.raises(MigrationRefused, match=r"items\.color is required and has no default"):
        await project.new(Gaining)


async def test_rows_get_the_default_of_a_required_field(project: Project) -> None:
    await filled(project, Wide)
    text = await project.migrate(Filled)
    assert "op.add_filled_column('items'" in text
    async with project.sdk() as sdk:
        (row,) = await sdk.tenant("acme").data.read(Filled)
        assert (row.color, row.tags) == ("it's :red \\ %s", [])
    left = await project.execute(
        "SELECT attname FROM pg_attribute WHERE atthasdef AND attrelid = 'items'::regclass"
    )
    assert [row[0] for row in left] == ["tenant_id"]


async def test_the_way_down_guards_a_table_before_anybody_can_use_it(project: Project) -> None:
    await filled(project, Wide)
    before = await dump(project, order=False)
    project.models = ()
    text = await project.new()
    assert "op.isolate_table('items', raw=True)" in text.partition("def downgrade")[2]
    await project.upgrade(allow=True)
    await project.downgrade()
    assert await dump(project, order=False) == before


async def test_an_update_sees_rows_only_where_it_says_so(project: Project) -> None:
    await filled(project, Wide)
    await by_hand(project, 'op.execute("UPDATE items SET stock = 7")')
    await project.upgrade()
    assert [row[0] for row in await project.execute("SELECT stock FROM items")] == [3]
    path = await by_hand(project, 'with op.every_row("items"): op.execute("UPDATE items SET stock = 7")')
    assert path.exists()
    before = await dump(project)
    await project.upgrade()
    assert [row[0] for row in await project.execute("SELECT stock FROM items")] == [7]
    assert await dump(project) == before
