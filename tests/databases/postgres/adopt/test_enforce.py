"""After it: each tenant sees its own rows, writes its own rows, and finds no way around."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tenantry.databases.postgres.adopt.adoption import Adoption
from tenantry.databases.postgres.adopt.journal import adopted_tables
from tenantry.databases.postgres.adopt.plan import Plan
from tenantry.databases.postgres.adopt.schema import reflect
from tenantry.databases.postgres.adopt.session import session
from tenantry.databases.postgres.adopt.verification import Verdict, verify
from tenantry.databases.postgres.findings import Finding
from tenantry.databases.postgres.inspect_tables import inspect_tables
from tenantry.errors import AdoptionError
from tests.databases.postgres.adopt import shop
from tests.databases.postgres.adopt.conftest import FAST, Application


async def adopted(application: Application, *, canary: bool = False, scope_unique: bool = False) -> Plan:
    plan = await application.plan(scope_unique=scope_unique)
    await application.apply(plan)
    await application.enforce(canary=canary)
    return plan


async def findings(application: Application) -> list[Finding]:
    async with session(application.url("control")) as connection:
        found = await inspect_tables(connection, application.made.roles, await adopted_tables(connection))
        return [finding for finding in found if not finding.subject.startswith("tenantry.")]


async def proved(application: Application, plan: Plan) -> Verdict:
    async with session(application.url("control")) as connection, application.bound() as pool:
        return await verify(connection, await reflect(connection), plan, pool)


async def test_two_tenants_prove_it(shop_app: Application) -> None:
    plan = await adopted(shop_app)
    verdict = await proved(shop_app, plan)
    assert verdict.problems == ()
    assert len(verdict.probes) == 3 * len(shop.VISIBLE)
    assert all(probe.holds for probe in verdict.probes)
    assert sum(probe.seen for probe in verdict.probes if probe.tenant) > 500
    assert not any(probe.seen for probe in verdict.probes if probe.tenant is None)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY wide ON tasks USING (true)",
        "ALTER POLICY tenantry_app ON tasks USING (tenant_id <> '')",
    ],
)
async def test_a_hole_is_proved_too(shop_app: Application, sql: str) -> None:
    plan = await adopted(shop_app)
    shop_app.execute(sql)
    verdict = await proved(shop_app, plan)
    assert any(problem.startswith("public.tasks: ") for problem in verdict.problems)
    assert any(finding.severity == "error" for finding in await findings(shop_app))


async def test_a_row_that_carries_another_tenant_is_found(shop_app: Application) -> None:
    plan = await adopted(shop_app)
    shop_app.execute(
        "ALTER TABLE tags DISABLE TRIGGER tenantry_keep_tenant; UPDATE tags SET tenant_id = '1' WHERE id = 1"
    )
    verdict = await proved(shop_app, plan)
    assert "public.tags: 1 of 15 rows carry another tenant than their path gives" in verdict.problems


async def test_the_doctor_finds_no_error(shop_app: Application) -> None:
    await adopted(shop_app)
    found = await findings(shop_app)
    assert [finding for finding in found if finding.severity == "error"] == []
    assert {finding.subject for finding in found if finding.code == "table-open"} == {
        '"public"."users"',
        '"public"."sessions"',
    }
    assert {finding.code for finding in found} <= {
        "index-order",
        "reference-unscoped",
        "table-open",
        "table-reachable",  # the part that PUBLIC may read; it shows nothing
        "unique-unscoped",
    }


async def test_a_tenant_writes_its_own_rows_and_no_others(shop_app: Application) -> None:
    await adopted(shop_app)
    for role in ("app", "raw"):
        async with shop_app.bound(role) as pool:
            async with pool.transaction("2") as acme:
                tag = "INSERT INTO tags (org_id, name) VALUES (2, 'mine') RETURNING tenant_id"
                assert await acme.fetchval(tag) == "2"
                assert await acme.execute("UPDATE tags SET name = 'x' WHERE org_id = 3") == "UPDATE 0"
                assert await acme.execute("DELETE FROM tags WHERE org_id = 3") == "DELETE 0"
                await acme.execute(
                    "UPDATE users SET email = 'me@example.com' WHERE id = 1"
                )  # open, as the plan says
            for sql in (
                "INSERT INTO tags (org_id, name, tenant_id) VALUES (3, 'theirs', '3')",
                "UPDATE tags SET tenant_id = '3'",
                "INSERT INTO ref.countries VALUES ('XX')",
                "TRUNCATE sessions",
                "SELECT * FROM project_sizes",
                "SELECT * FROM tenantry.adoption",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with pool.transaction("2") as acme:
                        await acme.execute(sql)


async def test_who_is_bound_to_nobody_sees_nothing_the_owner_included(shop_app: Application) -> None:
    await adopted(shop_app)
    for url in (shop_app.owner_url, shop_app.web_url):
        async with shop_app.connected(url) as connection:
            assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute("INSERT INTO tags (org_id, name) VALUES (1, 'x')")
    async with shop_app.connected(shop_app.owner_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit_events_2025") == 0


async def test_views_ask_with_the_readers_rights(shop_app: Application) -> None:
    await adopted(shop_app)
    async with shop_app.bound() as pool:
        async with pool.transaction("2") as acme:
            own = await acme.fetchval("SELECT count(*) FROM tasks WHERE state = 'OPEN'")
            assert await acme.fetchval("SELECT count(*) FROM open_tasks") == own > 0
            found = await acme.fetch("SELECT t.tenant_id FROM open_tasks o JOIN tasks t USING (id)")
            assert {row["tenant_id"] for row in found} == {"2"}
        async with pool.transaction(None) as nobody:
            assert await nobody.fetchval("SELECT count(*) FROM open_tasks") == 0


@pytest.mark.parametrize("canary", [False, True])
async def test_a_part_of_a_table_is_no_way_round_its_policies(shop_app: Application, canary: bool) -> None:
    assert shop_app.execute("SELECT has_table_privilege('public', 'audit_events_2025', 'SELECT')") == "t"
    await adopted(shop_app, canary=canary)
    async with shop_app.bound("raw") as pool, pool.transaction("2") as acme:
        assert await acme.fetchval("SELECT count(*) FROM audit_events_2025") == 0
        assert await acme.fetchval("SELECT count(*) FROM audit_events") == 100


async def test_the_canary_isolates_the_new_and_leaves_the_old(shop_app: Application) -> None:
    plan = await adopted(shop_app, canary=True)
    assert (await proved(shop_app, plan)).problems == ()
    for url in (shop_app.owner_url, shop_app.web_url):
        async with shop_app.connected(url) as old:
            assert await old.fetchval("SELECT count(*) FROM tasks") == 600
            assert await old.fetchval("SELECT count(*) FROM audit_events_2025") == 182
            assert await old.fetchval("SELECT count(*) FROM open_tasks") == 300
            tag = "INSERT INTO tags (org_id, name) VALUES (1, 'x') RETURNING tenant_id"
            assert await old.fetchval(tag) == "1"
            await old.execute("DELETE FROM project_tags WHERE project_id = 1")
            moved = "UPDATE projects SET org_id = 3 WHERE id = 1 RETURNING tenant_id"
            assert await old.fetchval(moved) == "3"
    assert (await proved(shop_app, plan)).problems == ()


async def test_a_second_row_of_the_root_for_one_tenant_is_refused(shop_app: Application) -> None:
    await adopted(shop_app)
    async with shop_app.bound() as pool:
        with pytest.raises(asyncpg.UniqueViolationError):
            async with pool.transaction("2") as acme:
                await acme.execute("INSERT INTO organizations (slug, name) VALUES ('second', 'Second')")


@pytest.mark.parametrize("scope_unique", [False, True])
async def test_unique_constraints_are_widened_where_that_is_asked_for(
    shop_app: Application, scope_unique: bool
) -> None:
    await adopted(shop_app, scope_unique=scope_unique)
    insert = "INSERT INTO projects (org_id, name, code) VALUES (2, 'new', 'P2')"  # P2 is the code of a project of 3's
    async with shop_app.bound() as pool:
        if scope_unique:
            async with pool.transaction("2") as acme:
                await acme.execute(insert)
        with pytest.raises(asyncpg.UniqueViolationError):
            async with pool.transaction("2") as acme:
                await acme.execute(insert)


async def test_tenants_that_came_since_are_made(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    async with shop_app.connected(shop_app.web_url) as web:
        id = await web.fetchval("INSERT INTO organizations (slug, name) VALUES ('late', 'Late') RETURNING id")
    await shop_app.enforce()
    assert shop_app.execute(f"SELECT name FROM tenantry.tenants WHERE id = '{id}'") == "Late"


async def test_wrong_rows_are_corrected_before_it(shop_app: Application) -> None:
    plan = await shop_app.plan()
    await shop_app.apply(plan)
    shop_app.execute(
        "SET session_replication_role = replica; UPDATE tasks SET tenant_id = '1' WHERE project_id = 1; "
        "UPDATE task_comments SET tenant_id = '3' WHERE id = 1; UPDATE projects SET tenant_id = '1' WHERE id = 2"
    )
    await shop_app.enforce()
    assert (await proved(shop_app, plan)).problems == ()


async def test_a_leak_that_came_since_stops_it(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    shop_app.execute("INSERT INTO project_tags SELECT 1, id FROM tags WHERE org_id = 3 LIMIT 1")
    with pytest.raises(AdoptionError, match="another tenant's"):
        await shop_app.enforce()


async def test_it_comes_after_apply(shop_app: Application) -> None:
    with pytest.raises(AdoptionError, match="not applied to its end"):
        await shop_app.enforce()


async def test_it_waits_for_its_locks_without_stopping_anybody_for_long(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    async with shop_app.connected(shop_app.web_url) as slow, shop_app.connected(shop_app.web_url) as quick:
        held = slow.transaction()
        await held.start()
        await slow.execute("UPDATE time_entries SET minutes = minutes WHERE task_id = 1")
        running = asyncio.create_task(shop_app.enforce())
        try:
            for _ in range(20):
                await quick.execute("UPDATE tasks SET title = title WHERE id = 2", timeout=10)
                await asyncio.sleep(0.05)
            assert not running.done()
            await slow.execute("UPDATE addresses SET country_code = 'DE' WHERE id = 1", timeout=10)
        finally:
            await held.rollback()
        await running


async def test_the_owner_of_tenantry_can_own_the_tables(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    await shop_app.enforce()
    await shop_app.enforce(hand_over=True)  # later, too
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('billing', 'ref', 'public')"
    assert shop_app.execute(owners).splitlines() == [shop_app.made.roles.owner]
    async with session(shop_app.admin_url) as connection:
        assert [step.name for step in await Adoption(connection, pace=FAST).enforcement()] == [
            "policies",
            "enforce",
        ]
