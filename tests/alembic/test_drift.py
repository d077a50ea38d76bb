"""Autogenerate looks at the database itself: what was taken away or changed by hand is found and mended."""

from __future__ import annotations

import pytest

from tests.alembic.catalog import dump
from tests.alembic.conftest import Project
from tests.alembic.models import MODELS

DRIFT = {
    "policy": "DROP POLICY tenantry_app ON products",
    "wider policy": "ALTER POLICY tenantry_raw ON products USING (true)",
    "policy of the system": "DROP POLICY tenantry_control ON products; "
    "CREATE POLICY tenantry_control ON products TO {p}_control USING (false)",
    "policy for anybody": "ALTER POLICY tenantry_app ON products TO PUBLIC",
    "not enabled": "ALTER TABLE products DISABLE ROW LEVEL SECURITY",
    "not forced": "ALTER TABLE products NO FORCE ROW LEVEL SECURITY",
    "missing grant": "REVOKE INSERT ON products FROM {p}_app",
    "excess grant": "GRANT TRUNCATE ON products TO {p}_app",
    "grant to all": "GRANT SELECT ON products TO PUBLIC",
    "grant on a column": "GRANT UPDATE (id) ON products TO {p}_control",
    "trigger": "DROP TRIGGER tenantry_keep_tenant ON products",
    "disabled trigger": "ALTER TABLE products DISABLE TRIGGER tenantry_raw_write",
    "other trigger": "DROP TRIGGER tenantry_raw_write ON products; CREATE TRIGGER tenantry_raw_write "
    "BEFORE INSERT ON products FOR EACH ROW EXECUTE FUNCTION tenantry.raw_write()",
    "default": "ALTER TABLE products ALTER COLUMN tenant_id DROP DEFAULT",
    "shared grant": "REVOKE SELECT ON countries FROM {p}_raw",
    "reserved grant": "GRANT SELECT ON tenantry.audit TO {p}_app",
    "reserved policy": "DROP POLICY tenantry_app ON tenantry.idempotency",
}


@pytest.mark.parametrize("name", DRIFT)
async def test_what_was_changed_by_hand_is_found_and_mended(project: Project, name: str) -> None:
    await project.migrate(*MODELS)
    before = await dump(project)
    prefix = (await project.execute("SELECT current_user", role="owner"))[0][0].removesuffix("_owner")
    await project.execute(DRIFT[name].replace("{p}", prefix))
    assert await dump(project) != before
    text = await project.new()
    assert text.count("_table(") == 1, text
    await project.upgrade()
    await project.check()
    assert await dump(project) == before
    await project.downgrade()
    assert await dump(project) == before, "the way down must not open a table"


async def test_policies_of_the_users_own_on_reference_data_are_theirs(project: Project) -> None:
    await project.migrate(*MODELS)
    await project.execute("ALTER TABLE countries ENABLE ROW LEVEL SECURITY")
    await project.check()


async def test_looking_leaves_nothing_behind_and_locks_no_table(project: Project) -> None:
    await project.migrate(*MODELS)
    before = await dump(project)
    await project.check()
    assert await dump(project) == before
    assert not await project.execute("SELECT FROM pg_class WHERE relname = 'tenantry_probe'")
