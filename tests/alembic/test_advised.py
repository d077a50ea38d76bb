"""An index that was made on advice stays until a model declares it, and is then renamed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tenantry import Model
from tests.alembic.conftest import Project

ADVISED = "orders_status_placed_adv"
DECLARED = "orders_status_placed_idx"


class Order(Model):
    __collection__ = "orders"

    status: str
    placed: int


class WithIndex(Model):
    __collection__ = "orders"
    __indexes__ = (("status", "placed"),)

    status: str
    placed: int


class WithoutPlaced(Model):
    __collection__ = "orders"

    status: str


@pytest.fixture
def file(tmp_path: Path) -> Project:
    opened = {"url": f"sqlite:///{tmp_path / 'app.db'}", "database": {}}
    return Project(tmp_path / "migrations", opened, "")


async def indexes(project: Project) -> set[str]:
    rows = await project.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'orders'")
    return {row[0] for row in rows}


async def test_postgresql_keeps_it_and_then_renames_it(project: Project) -> None:
    await project.migrate(Order)
    await project.execute(f"CREATE INDEX {ADVISED} ON orders (tenant_id, status, placed);")
    await project.check()
    assert ADVISED in await indexes(project)
    text = await project.migrate(WithIndex)
    assert f"op.rename_index('orders', '{ADVISED}', '{DECLARED}'" in text
    assert "create_index" not in text
    assert await indexes(project) == {"orders_pkey", DECLARED}
    await project.downgrade()
    assert await indexes(project) == {"orders_pkey", ADVISED}


async def test_what_a_model_no_longer_declares_is_dropped_all_the_same(project: Project) -> None:
    await project.migrate(WithIndex)
    await project.migrate(Order)
    assert await indexes(project) == {"orders_pkey"}


async def test_it_goes_with_its_column(project: Project) -> None:
    await project.migrate(Order)
    await project.execute(f"CREATE INDEX {ADVISED} ON orders (tenant_id, status, placed);")
    await project.migrate(WithoutPlaced, allow=True)
    assert await indexes(project) == {"orders_pkey"}


async def test_sqlite_keeps_it_and_then_makes_it_anew(file: Project) -> None:
    path = file.opened["url"].removeprefix("sqlite:///")

    def names() -> set[str]:
        with sqlite3.connect(path) as connection:
            rows = connection.execute(
                "SELECT name FROM pragma_index_list('orders') WHERE origin = 'c'"
            ).fetchall()
        connection.close()
        return {row[0] for row in rows}

    await file.migrate(Order)
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE INDEX {ADVISED} ON orders (tenant_id, status, placed)")
    connection.close()
    await file.check()
    assert names() == {ADVISED}
    await file.migrate(WithIndex)
    assert names() == {DECLARED}
