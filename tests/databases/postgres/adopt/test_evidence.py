"""What the rows say before anything is changed: leaks that are there already, and rows without a tenant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tenantry.databases.postgres.adopt.adoption import make_plan, state_of
from tenantry.databases.postgres.adopt.evidence import Evidence, judge
from tenantry.databases.postgres.adopt.plan import KINDS, Plan, load_plan, parse_plan
from tenantry.databases.postgres.adopt.session import session
from tenantry.errors import AdoptionError, ConfigurationError
from tests.databases.postgres.adopt.conftest import Application


async def look(application: Application) -> tuple[Plan, dict[str, Evidence], list[str]]:
    async with session(application.admin_url) as connection:
        plan, _, found = await make_plan(connection)
        return plan, {item.table: item for item in found}, judge(plan, found)


def changed(plan: Plan, table: str, **values: str) -> Plan:
    tables = {**plan.tables, table: replace(plan.tables[table], **values)}  # type: ignore[arg-type]
    return replace(plan, tables=tables)


async def test_sound_data_needs_no_decision(shop_app: Application) -> None:
    plan, found, problems = await look(shop_app)
    assert problems == []
    assert found["public.tasks"].rows == 600
    assert found["public.project_tags"].agreeing == ("project_tags_tag_id_fkey",)
    assert any(
        why.startswith("5 of its rows belong to several") for why in plan.tables["public.users"].reasons
    )


async def test_links_between_two_tenants_are_found(shop_app: Application) -> None:
    shop_app.execute("INSERT INTO project_tags SELECT 1, id FROM tags WHERE org_id <> 2 LIMIT 3")
    plan, found, problems = await look(shop_app)
    (leak,) = found["public.project_tags"].disagreements
    assert (leak.constraint, leak.target, leak.rows) == ("project_tags_tag_id_fkey", "public.tags", 3)
    assert len(leak.examples) == 3
    assert all(example.startswith("1,") for example in leak.examples)
    with pytest.raises(AdoptionError, match="3 rows refer by project_tags_tag_id_fkey"):
        await shop_app.apply(plan)
    async with session(shop_app.admin_url) as connection:
        assert await state_of(connection) == "none"
    assert len(problems) == 1
    await shop_app.apply(changed(plan, "public.project_tags", disagreements="keep"))


async def test_a_reference_to_the_same_table_is_compared_too(shop_app: Application) -> None:
    shop_app.execute("UPDATE tasks SET parent_id = 2 WHERE id = 1")  # projects 2 and 3, organizations 3 and 1
    _, found, problems = await look(shop_app)
    assert [item.rows for item in found["public.tasks"].disagreements] == [1]
    assert "tasks_parent_id_fkey" in problems[0]


@pytest.mark.timeout(40)  # orphans that nobody stops keep it waiting for a constraint
async def test_rows_without_a_tenant_stop_it_until_they_are_given_one(shop_app: Application) -> None:
    shop_app.execute("INSERT INTO attachments (name) VALUES ('lost'), ('gone')")
    plan, found, _ = await look(shop_app)
    assert (found["public.attachments"].orphans, found["public.attachments"].rows) == (2, 52)
    with pytest.raises(AdoptionError, match="2 of 52 rows find no tenant"):
        await shop_app.apply(plan)
    decided = changed(plan, "public.attachments", orphans="lost-and-found")
    await shop_app.apply(decided)
    lost = "SELECT count(*) FROM attachments WHERE tenant_id = 'lost-and-found'"
    assert shop_app.execute(lost) == "2"
    async with shop_app.connected(shop_app.web_url) as web:
        await web.execute("INSERT INTO attachments (name) VALUES ('late')")
    assert shop_app.execute(lost) == "3"
    assert shop_app.execute("SELECT count(*) FROM tenantry.tenants WHERE id = 'lost-and-found'") == "1"
    await shop_app.enforce()


async def test_orphans_may_be_given_a_tenant_at_once(shop_app: Application) -> None:
    shop_app.execute(
        "INSERT INTO attachments (name) VALUES ('lost'); ALTER TABLE tasks ALTER project_id DROP NOT NULL;"
        "INSERT INTO tasks (state, title) VALUES ('OPEN', 'lost');"
        "INSERT INTO task_comments (task_id, author_id, text) SELECT id, 1, 'lost' FROM tasks WHERE title = 'lost'"
    )
    plan = await shop_app.plan(orphans="lost")
    given = {table.table for table in plan.of_kind("tenant") if table.fallback == "lost"}
    assert given == {"public.attachments", "public.tasks"}
    await shop_app.apply(plan)
    assert shop_app.execute("SELECT tenant_id FROM task_comments WHERE text = 'lost'") == "lost"


async def test_an_orphan_that_comes_during_the_run_stops_it(shop_app: Application) -> None:
    plan, _, _ = await look(shop_app)
    shop_app.execute("INSERT INTO attachments (name) VALUES ('lost')")
    shop_app.execute("ALTER TABLE attachments ADD CHECK (task_id IS NOT NULL) NOT VALID")
    with pytest.raises(AdoptionError, match="1 of 51 rows"):
        await shop_app.apply(plan)


async def test_keys_that_cannot_be_tenant_ids_come_with_a_column_that_can(shop_app: Application) -> None:
    shop_app.execute("UPDATE organizations SET slug = 'Société Générale' WHERE id = 2")
    async with session(shop_app.admin_url) as connection:
        with pytest.raises(AdoptionError, match="cannot be tenant ids") as caught:
            await make_plan(connection, key="slug")
    assert caught.value.fix is not None
    shop_app.execute(caught.value.fix.partition(": ")[2].partition("; then")[0])
    plan = await shop_app.plan(key="tenant_key")
    await shop_app.apply(plan)
    assert shop_app.execute("SELECT string_agg(id, ' ' ORDER BY id) FROM tenantry.tenants") == (
        "Soci-t-G-n-rale acme initech"
    )


async def test_an_id_stays_when_the_slug_that_it_came_from_changes(shop_app: Application) -> None:
    plan = await shop_app.plan(key="slug")
    await shop_app.apply(plan)
    async with shop_app.connected(shop_app.web_url) as web:
        await web.execute("UPDATE organizations SET slug = 'acme-corp' WHERE id = 1")
        await web.execute("INSERT INTO tags (org_id, name) VALUES (1, 'late')")
    assert shop_app.execute("SELECT tenant_id FROM tags WHERE name = 'late'") == "acme"
    await shop_app.enforce()


async def test_the_root_must_stand_out_or_be_named(shop_app: Application) -> None:
    async with session(shop_app.admin_url) as connection:
        with pytest.raises(ConfigurationError, match=r"no table public\.nothing"):
            await make_plan(connection, table="nothing")
        with pytest.raises(ConfigurationError, match="may be NULL or be shared"):
            await make_plan(connection, key="name")
        with pytest.raises(ConfigurationError, match="no column"):
            await make_plan(connection, key="nothing")


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        ("ALTER TABLE tags ADD COLUMN tenant_id int", "already has a column tenant_id"),
        ("ALTER TABLE tags ENABLE ROW LEVEL SECURITY", "row-level security of its own"),
        ("CREATE TABLE more_tags () INHERITS (tags)", "inheritance"),
        (
            "CREATE TABLE audit_events_2027 PARTITION OF audit_events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01') "
            "PARTITION BY RANGE (at); CREATE TABLE audit_events_2027a PARTITION OF audit_events_2027 DEFAULT",
            "partitions of partitions",
        ),
        ('CREATE SCHEMA "a.b"; CREATE TABLE "a.b".c (id int)', "has a dot"),
    ],
)
async def test_what_cannot_be_adopted_is_said_with_a_fix(shop_app: Application, sql: str, match: str) -> None:
    shop_app.execute(sql)
    async with session(shop_app.admin_url) as connection:
        with pytest.raises(AdoptionError, match=match) as caught:
            await make_plan(connection)
    assert caught.value.fix


async def test_a_plan_can_be_written_edited_and_read(shop_app: Application, tmp_path: Path) -> None:
    plan = await shop_app.plan(scope_unique=True)
    text = plan.dump()
    assert parse_plan(text) == plan
    assert all(f'"{kind}"' in text for kind in KINDS)
    assert "# 5 of its rows belong to several tenants by public.memberships" in text
    path = tmp_path / "plan.toml"
    path.write_text(text.replace('[tables."public.sessions"]', '[tables."public.sessions"]\n# decided by us'))
    assert load_plan(path) == plan


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("version = 1", "version = 2", "not of version 1"),
        ("version = 1", "version = 1\ncolour = 1", r"unknown entries \['colour'\]"),
        ('root = "public.organizations"', 'root = "public.users"', "public.users"),
        ('kind = "open"', 'kind = "closed"', "'closed', not one of"),
        ('kind = "open"', 'kind = "tenant"', "needs either `parent` or `sql`"),
        ('parent = "public.projects"', 'parent = "public.users"', "no tenant table of this plan"),
        ('parent = "public.projects"', 'parent = "public.task_comments"', "its parents lead back to it"),
        ('by = ["project_id"]', 'by = ["project_id", "id"]', "as many columns each"),
        ('by = ["project_id"]', "by = 1", "must be a list"),
        ('orphans = "stop"', 'orphans = "not an id!"', "or a tenant id"),
        ('orphans = "stop"', 'orphan = "stop"', "unknown entries"),
        ('disagreements = "stop"', 'disagreements = "ignore"', "`disagreements` is"),
    ],
)
async def test_a_plan_that_is_none_says_where(shop_app: Application, old: str, new: str, match: str) -> None:
    text = (await shop_app.plan()).dump()
    assert old in text
    with pytest.raises(ConfigurationError, match=match) as caught:
        parse_plan(text.replace(old, new))
    assert str(caught.value.field).startswith("plan")


async def test_there_is_one_plan_at_a_time(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    with pytest.raises(AdoptionError, match="has a plan already; it is applied"):
        await shop_app.plan()


async def test_names_may_be_strange(shop_app: Application) -> None:
    name = 'Strange "table"; --'
    quoted = '"Strange ""table""; --"'
    shop_app.execute(
        f'CREATE TABLE {quoted} ("from" int NOT NULL REFERENCES organizations, "Größe" int PRIMARY KEY);'
        f"ALTER TABLE {quoted} OWNER TO {shop_app.owner}; INSERT INTO {quoted} VALUES (1, 1), (2, 2), (2, 3)"
    )
    before = shop_app.dump()
    plan = parse_plan((await shop_app.plan()).dump())
    assert plan.tables[f"public.{name}"].by == ("from",)
    await shop_app.apply(plan)
    await shop_app.enforce()
    async with shop_app.bound() as pool, pool.transaction("2") as acme:
        assert await acme.fetchval(f"SELECT count(*) FROM {quoted}") == 2
    await shop_app.revert()
    assert shop_app.dump() == before


async def test_a_plan_of_another_schema_is_refused(shop_app: Application) -> None:
    plan = await shop_app.plan()
    shop_app.execute(
        "CREATE TABLE later (id int); DROP TABLE sessions; ALTER TABLE tags RENAME org_id TO owner_id"
    )
    with pytest.raises(AdoptionError) as caught:
        await shop_app.apply(plan)
    for part in ("public.later is not in the plan", "public.sessions does not exist", "has no column org_id"):
        assert part in caught.value.message
