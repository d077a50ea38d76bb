"""The SQLAlchemy application, adopted from end to end."""

from __future__ import annotations

from tests.databases.postgres.adopt import shop
from tests.databases.postgres.adopt.conftest import Application


async def seen(application: Application, tenant: str | None, role: str = "app") -> dict[str, list[str]]:
    """Return what a tenant sees of each table, in the words of the application's own engineer."""
    found = {}
    async with application.bound(role) as pool, pool.transaction(tenant) as connection:
        for table in shop.VISIBLE:
            rows = await connection.fetch(f"SELECT t::text FROM {table} t")
            found[table] = sorted(row["t"] for row in rows)
    return found


async def expected(application: Application) -> dict[int, dict[str, int]]:
    """Return how many rows of each table belong to each organization, by the application's own references."""
    async with application.connected(application.owner_url) as connection:
        return {
            id: {
                table: await connection.fetchval(f"SELECT count(*) FROM ({text.format(id=id)}) t")
                for table, text in shop.VISIBLE.items()
            }
            for id in (1, 2, 3)
        }


async def test_the_plan_is_what_a_careful_engineer_would_write(shop_app: Application) -> None:
    plan = await shop_app.plan()
    assert plan.root == "public.organizations"
    assert {table.table for table in plan.of_kind("root", "tenant")} == set(shop.VISIBLE)
    assert {table.table for table in plan.of_kind("shared")} == shop.SHARED
    assert {table.table for table in plan.of_kind("open")} == shop.OPEN
    assert plan.route("public.task_comments") == (
        "public.task_comments(task_id) → public.tasks(project_id) → public.projects(org_id) → public.organizations"
    )
    assert plan.tables["billing.payments"].by == ("payer", "invoice")


async def test_each_tenant_sees_its_rows_and_nothing_else(shop_app: Application) -> None:
    wanted = await expected(shop_app)
    await shop_app.apply(await shop_app.plan())
    await shop_app.enforce()
    for role in ("app", "raw"):
        everything: set[str] = set()
        for id in (1, 2, 3):
            found = await seen(shop_app, str(id), role)
            assert {table: len(rows) for table, rows in found.items()} == wanted[id]
            rows = {f"{table} {row}" for table, listed in found.items() for row in listed}
            assert not rows & everything
            everything |= rows
        assert not any((await seen(shop_app, None, role)).values())
