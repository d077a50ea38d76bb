"""Applying a plan to a database in use: nobody fails, nothing is missed, and whatever is killed goes on."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from typing import Any

import asyncpg
import pytest

from tenantry.databases.postgres.adopt.adoption import Adoption, state_of
from tenantry.databases.postgres.adopt.evidence import gather
from tenantry.databases.postgres.adopt.journal import entries, exclusive
from tenantry.databases.postgres.adopt.plan import Plan
from tenantry.databases.postgres.adopt.runner import Pace
from tenantry.databases.postgres.adopt.schema import reflect
from tenantry.databases.postgres.adopt.session import session
from tenantry.errors import AdoptionError
from tests.databases.postgres.adopt import shop
from tests.databases.postgres.adopt.conftest import FAST, Application
from tests.databases.postgres.adopt.writer import writing

TASK = "INSERT INTO tasks (project_id, state, title) VALUES ({}, 'OPEN', 'x') RETURNING tenant_id"


async def wrong_rows(application: Application, plan: Plan) -> dict[str, int]:
    """Return how many rows of each table carry another tenant than their path gives, or none."""
    async with session(application.admin_url) as connection:
        found = await gather(connection, await reflect(connection), plan, adopted=True)
        return {item.table: item.wrong for item in found if item.wrong}


async def test_the_application_goes_on_writing_and_no_row_is_missed(shop_app: Application) -> None:
    plan = await shop_app.plan()
    async with writing(shop_app.web_url) as writers:
        await asyncio.sleep(0.2)
        await shop_app.apply(plan, Pace(batch_rows=20, pause=0.2, lock_timeout=0.5))
        await asyncio.sleep(0.2)
    assert [writer.errors for writer in writers] == [[], []]
    assert all(writer.written for writer in writers)
    async with shop_app.connected() as connection:
        for table in shop.VISIBLE:
            assert await connection.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id IS NULL") == 0
    await shop_app.enforce(canary=True)  # corrects what moved at the wrong moment, if anything did
    assert await wrong_rows(shop_app, plan) == {}


async def test_writers_of_today_get_the_tenant_of_the_parent(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    async with shop_app.connected(shop_app.web_url) as web:
        for project, org in ((3, "1"), (1, "2"), (2, "3")):
            assert await web.fetchval(TASK.format(project)) == org
        created = (
            "INSERT INTO organizations (slug, name) VALUES ('new', 'New') RETURNING tenant_id = id::text"
        )
        assert await web.fetchval(created) is True


async def test_rows_follow_their_parent_to_another_tenant(shop_app: Application) -> None:
    plan = await shop_app.plan()
    await shop_app.apply(plan)
    async with shop_app.connected(shop_app.web_url) as web:
        await web.execute("DELETE FROM project_tags WHERE project_id = 1")
        assert await web.fetchval("UPDATE projects SET org_id = 3 WHERE id = 1 RETURNING tenant_id") == "3"
        sql = "SELECT DISTINCT c.tenant_id FROM task_comments c JOIN tasks t ON t.id = c.task_id WHERE t.project_id = 1"
        assert [row[0] for row in await web.fetch(sql)] == ["3"]
    assert await wrong_rows(shop_app, plan) == {}


async def test_a_row_whose_reference_is_set_to_null_stays_where_it_was(shop_app: Application) -> None:
    plan = await shop_app.plan()
    assert any(
        "public.attachments finds its tenant by task_id, which may be NULL" in note for note in plan.notes
    )
    await shop_app.apply(plan)
    async with shop_app.connected(shop_app.web_url) as web:
        before = await web.fetchval("SELECT tenant_id FROM attachments WHERE id = 1")
        after = await web.fetchval("UPDATE attachments SET task_id = NULL WHERE id = 1 RETURNING tenant_id")
        assert after == before
    await shop_app.enforce()
    assert await wrong_rows(shop_app, plan) == {}


async def test_the_applications_own_triggers_do_not_fire(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    assert (
        shop_app.execute("SELECT count(*) FROM contacts WHERE name LIKE '%!%' AND manager_id IS NULL") == "0"
    )


async def test_no_index_is_left_invalid_and_no_column_nullable(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    assert shop_app.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == "0"
    nullable = (
        "SELECT count(*) FROM pg_attribute WHERE attname = 'tenant_id' AND NOT attnotnull AND attrelid::regclass::text "
        "NOT LIKE 'tenantry.%' AND attrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p'))"
    )
    assert shop_app.execute(nullable) == "0"
    assert shop_app.execute("SELECT count(*) FROM pg_constraint WHERE conname = 'tenantry_has_tenant'") == "0"


async def test_two_runs_keep_each_other_out(shop_app: Application) -> None:
    plan = await shop_app.plan()
    async with session(shop_app.admin_url) as first, session(shop_app.admin_url) as second:
        async with exclusive(first):
            with pytest.raises(AdoptionError, match="Another run"):
                async with exclusive(second, wait=0.3):
                    pass
        async with exclusive(second, wait=0.3):
            pass
    await asyncio.gather(shop_app.apply(plan), shop_app.apply(plan))
    assert await wrong_rows(shop_app, plan) == {}


async def test_a_long_transaction_is_waited_for_and_nobody_queues_behind_us_for_long(
    shop_app: Application,
) -> None:
    plan = await shop_app.plan()
    async with shop_app.connected(shop_app.web_url) as slow, shop_app.connected(shop_app.web_url) as quick:
        held = slow.transaction()
        await held.start()
        await slow.execute("UPDATE organizations SET name = name WHERE id = 1")
        running = asyncio.create_task(shop_app.apply(plan, Pace(lock_timeout=0.2, pause=0.0)))
        try:
            for _ in range(
                20
            ):  # each waits for our attempt at most, never for the transaction that keeps us out
                await quick.fetchval("SELECT count(*) FROM organizations", timeout=10)
                await asyncio.sleep(0.02)
            assert not running.done()
        finally:
            await held.rollback()
        await running


async def test_a_lock_that_cannot_be_had_is_an_error_with_a_fix(shop_app: Application) -> None:
    plan = await shop_app.plan()
    async with shop_app.connected(shop_app.web_url) as slow:
        held = slow.transaction()
        await held.start()
        await slow.execute("UPDATE organizations SET name = name WHERE id = 1")
        with pytest.raises(AdoptionError, match="lock could not be had"):
            await shop_app.apply(plan, Pace(lock_timeout=0.05, patience=0.3))
        await held.rollback()
    await shop_app.apply(plan)


async def test_another_plan_is_refused_while_one_is_being_applied(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    other = Plan("public.organizations", "slug", (await _stored(shop_app)).tables)
    with pytest.raises(AdoptionError, match="Another plan"):
        await shop_app.apply(other)


async def _stored(application: Application) -> Plan:
    from tenantry.databases.postgres.adopt.journal import plan_of

    async with session(application.admin_url) as connection:
        plan = plan_of(await entries(connection))
    assert plan is not None
    return plan


PROGRAM = """
import asyncio, json, sys
from tenantry.databases.postgres.adopt.adoption import Adoption
from tenantry.databases.postgres.adopt.plan import parse_plan
from tenantry.databases.postgres.adopt.runner import Pace
from tenantry.databases.postgres.adopt.session import session

async def nobody(wanted, note): pass

async def main():
    options = json.loads(sys.stdin.read())
    async with session(options["url"]) as connection:
        await Adoption(connection, pace=Pace(batch_rows=20, pause=1.0, lock_timeout=0.5), report=tell).apply(
            parse_plan(options["plan"]), nobody)

def tell(progress):
    print(progress.step, flush=True)

asyncio.run(main())
"""


async def _run_and_kill(application: Application, plan: Plan, steps: int) -> bool:
    """Run `apply` in a process of its own and kill it when it has told of some steps. Return whether it ended first."""
    import json

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"url": application.admin_url, "plan": plan.dump()}).encode())
    process.stdin.close()
    told = 0
    try:
        while told < steps and await process.stdout.readline():
            told += 1
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    return told < steps


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(
    shop_app: Application, seed: int
) -> None:
    plan, dice = await shop_app.plan(), random.Random(seed)
    async with writing(shop_app.web_url, writers=1) as writers:
        for _ in range(8):
            if await _run_and_kill(shop_app, plan, dice.randint(1, 70)):
                break
        await shop_app.apply(plan)
    assert writers[0].errors == []
    assert shop_app.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == "0"
    await shop_app.enforce()
    assert await wrong_rows(shop_app, plan) == {}
    async with session(shop_app.admin_url) as connection:
        assert all(entry.done for entry in await entries(connection))
        assert await state_of(connection) == "enforced"


async def test_an_index_that_was_left_invalid_is_made_anew(shop_app: Application) -> None:
    plan = await shop_app.plan()
    await shop_app.apply(plan)
    name = "tenantry_tasks_id_idx"
    shop_app.execute(
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass; "
        f"UPDATE tenantry.adoption SET state = 'begun' WHERE step = 'index {name}'"
    )
    await shop_app.apply(plan)
    assert shop_app.execute(f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{name}'::regclass") == "t"


async def test_each_step_says_what_it_locks(shop_app: Application) -> None:
    plan = await shop_app.plan()
    async with session(shop_app.admin_url) as connection:
        steps = await Adoption(connection).steps(await reflect(connection), plan)
    assert all(step.lock for step in steps)
    assert len({step.name for step in steps}) == len(steps)
    rewriting = [
        step for step in steps if "SHARE UPDATE" not in step.lock and "milliseconds" not in step.lock
    ]
    assert {step.how for step in rewriting} <= {"backfill", "transaction"}
    assert {step.name for step in rewriting if step.how == "transaction"} <= {"writers"}


async def test_a_role_without_the_owners_rights_is_told_what_it_lacks(shop_app: Application) -> None:
    plan = await shop_app.plan()
    async with session(shop_app.owner_url) as connection:
        with pytest.raises(AdoptionError, match="lacks the rights"):
            await Adoption(connection, pace=FAST).apply(plan, shop_app.create_tenants)


async def test_no_superuser_is_needed(shop_app: Application) -> None:
    plan = await shop_app.plan()
    owner = shop_app.made.roles.owner
    shop_app.execute(f"GRANT {owner}, {shop_app.owner} TO {shop_app.web}")
    try:
        async with session(shop_app.web_url) as connection:
            adoption: Any = Adoption(connection, pace=FAST)
            await adoption.apply(plan, shop_app.create_tenants)
            await adoption.enforce(shop_app.create_tenants)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with shop_app.connected(shop_app.owner_url) as connection:
                await connection.execute("INSERT INTO settings VALUES (1, 'new', 'x')")
        async with session(shop_app.web_url) as connection:
            await Adoption(connection, pace=FAST).revert()
        assert shop_app.execute("SELECT count(*) FROM tenantry.tenants") == "0"
    finally:
        shop_app.execute(f"REVOKE {owner}, {shop_app.owner} FROM {shop_app.web}")
