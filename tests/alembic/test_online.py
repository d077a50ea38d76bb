"""A table in use is changed without keeping its users waiting, and what is killed half-way can be run again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import asyncpg
import pytest
import sqlalchemy as sa

from tenantry import Indexed, Model, Ref, Unique
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project
from tests.alembic.test_guard import by_hand, script


class Shelf(Model):
    __collection__ = "shelves"

    label: str = ""


class Before(Model):
    __collection__ = "items"

    name: str
    sku: str
    stock: int | None = None
    shelf: uuid.UUID


class After(Model):
    __collection__ = "items"

    name: Annotated[str, Indexed]
    sku: Annotated[str, Unique]
    stock: int
    shelf: Annotated[uuid.UUID, Ref("shelves")]
    color: str = "red"


SHELVES = (Shelf, After)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Record what is sent."""
    sent: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        outside = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        sent.append(f"{'outside' if outside else 'inside'}: {statement}")

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    yield sent
    sa.event.remove(sa.Engine, "before_cursor_execute", record)


async def in_use(project: Project) -> Project:
    await project.migrate(Shelf, Before)
    async with project.sdk() as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
            data = sdk.tenant(tenant).data
            shelf = await data.create(Shelf())
            await data.create(Before(name="Lamp", sku="L1", stock=1, shelf=shelf.id))
    return project


async def test_what_takes_long_is_done_outside_of_a_transaction_in_a_revision_of_its_own(
    project: Project, statements: list[str]
) -> None:
    await in_use(project)
    text = await project.new(Shelf, After)
    first, second = project.revisions[-2:]
    assert "add_filled_column" in first.read_text()
    assert "_online(" not in first.read_text()
    assert second.read_text().partition("def downgrade")[0].count("_online(") == 5
    statements.clear()
    await project.upgrade(allow=True)
    outside = [line.removeprefix("outside: ") for line in statements if line.startswith("outside: ")]
    for wanted in (
        'CREATE INDEX CONCURRENTLY "items_name_idx"',
        'CREATE UNIQUE INDEX CONCURRENTLY "items_sku_key"',
        'ALTER TABLE "items" ADD CONSTRAINT "items_shelf_fkey"',
        'ALTER TABLE "items" VALIDATE CONSTRAINT "items_shelf_fkey"',
    ):
        assert any(line.startswith(wanted) for line in outside), (wanted, outside)
    assert any("NOT VALID" in line for line in outside)
    await project.check()
    async with project.sdk() as sdk:
        assert [row.color for row in await sdk.tenant("acme").data.read(After)] == ["red"]
    assert text


async def test_the_outcome_is_that_of_a_new_database(project: Project, make_project: Any) -> None:
    await in_use(project)
    await project.migrate(Shelf, After, allow=True)
    other = await asyncio.to_thread(make_project)
    await other.migrate(Shelf, After)
    assert await dump(project, order=False) == await dump(other, order=False)


async def test_an_empty_table_is_changed_at_once(project: Project, statements: list[str]) -> None:
    await project.migrate(Shelf, Before)
    await project.migrate(Shelf, After)
    assert not [line for line in statements if line.startswith("outside")]


async def test_offline_it_is_outside_of_a_transaction_too(project: Project) -> None:
    await in_use(project)
    first = project.revisions[-1].name.partition("_")[0]
    await project.new(Shelf, After)
    text = await script(project, first, allow=True)
    before, _, after = text.partition("CREATE INDEX CONCURRENTLY")
    assert before.rstrip().rpartition("COMMIT;")[2].count("BEGIN;") == 0
    assert "BEGIN;" in after


async def test_a_reference_is_checked_against_every_row_there_is(project: Project) -> None:
    await in_use(project)
    await project.execute("UPDATE items SET shelf = gen_random_uuid() WHERE tenant_id = 'acme'")
    await project.new(Shelf, After)
    with pytest.raises(sa.exc.IntegrityError, match="items_shelf_fkey"):
        await project.upgrade(allow=True)


async def test_a_reference_by_hand_is_checked_too(project: Project) -> None:
    await in_use(project)
    line = 'op.create_foreign_key("x", "items", "shelves", ["tenant_id", "shelf"], ["tenant_id", "id"])'
    await by_hand(project, line)
    await project.upgrade()
    await project.downgrade()
    await project.execute("ALTER TABLE items DROP CONSTRAINT x")
    await project.execute("UPDATE items SET shelf = gen_random_uuid() WHERE tenant_id = 'acme'")
    with pytest.raises(sa.exc.IntegrityError, match="violates foreign key"):
        await project.upgrade()


async def test_a_check_that_was_killed_leaves_a_trace_that_is_found(project: Project) -> None:
    await project.migrate(Shelf)
    await project.execute("CREATE POLICY tenantry_migration ON shelves FOR SELECT USING (true)")
    assert "op.isolate_table('shelves'" in await project.migrate()


async def test_what_failed_half_way_can_be_run_again(project: Project) -> None:
    await in_use(project)
    await project.execute(
        "INSERT INTO items SELECT tenant_id, gen_random_uuid(), name, sku, stock, shelf, 1, "
        "created_at, updated_at FROM items WHERE tenant_id = 'acme'"
    )
    await project.new(Shelf, After)
    with pytest.raises(sa.exc.IntegrityError, match="items_sku_key"):
        await project.upgrade(allow=True)
    assert await project.execute("SELECT FROM pg_index WHERE NOT indisvalid")
    await project.execute("UPDATE items SET sku = id::text")
    await project.upgrade(allow=True)
    await project.check()
    assert not await project.execute("SELECT FROM pg_index WHERE NOT indisvalid")


async def test_a_lock_is_not_waited_for_while_others_queue(project: Project) -> None:
    class Wider(Before):
        note: str | None = None

    await in_use(project)
    await project.new(Shelf, Wider)
    reader = await asyncpg.connect(project.admin_url)
    try:
        async with reader.transaction():
            await reader.execute("LOCK TABLE items IN ACCESS SHARE MODE")
            project.options = {"lock_timeout": 0.2}
            with pytest.raises(sa.exc.DBAPIError, match="lock timeout"):
                await project.upgrade()
    finally:
        await reader.close()
    await project.upgrade()
    await project.check()
