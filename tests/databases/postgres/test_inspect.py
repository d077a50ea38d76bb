"""Every sabotage of a sound deployment is found, and the fix that comes with the finding mends it."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.databases.postgres.inspect import (
    Finding,
    inspect_database,
    known_leaks,
    refuse,
)
from tenantry.errors import UnsafeRole
from tests.databases.postgres.conftest import TABLES, Site


async def inspected(connection: Any, site: Site) -> list[Finding]:
    return await inspect_database(connection, site.roles, TABLES)


@pytest.mark.parametrize("role", ["admin", "owner", "app", "raw", "control"])
async def test_a_sound_deployment_has_no_findings_whoever_looks(site: Site, role: str) -> None:
    async with site.connected(role) as connection:
        assert await inspected(connection, site) == []


SQL_FIXES = [
    # roles
    ("ALTER ROLE site_app SUPERUSER", "role-superuser", "error"),
    ("ALTER ROLE site_raw BYPASSRLS", "role-bypassrls", "error"),
    ("ALTER ROLE site_control BYPASSRLS", "role-bypassrls", "warning"),
    ("ALTER ROLE site_app CREATEROLE", "role-createrole", "error"),
    ("ALTER ROLE site_raw REPLICATION", "role-replication", "error"),
    ("ALTER ROLE site_raw CREATEDB", "role-createdb", "warning"),
    ("GRANT site_owner TO site_control", "role-member", "error"),
    ("GRANT site_control TO site_raw", "role-member", "error"),
    ("GRANT pg_read_all_data TO site_raw", "role-member", "error"),
    ("ALTER TABLE products OWNER TO site_raw", "role-owns", "error"),
    ("ALTER ROLE site_raw SET search_path = 'evil'", "role-setting", "warning"),
    # row-level security
    ("ALTER TABLE products DISABLE ROW LEVEL SECURITY", "rls-off", "error"),
    ("ALTER TABLE products NO FORCE ROW LEVEL SECURITY", "rls-off", "error"),
    ("ALTER TABLE tenantry.requests DISABLE ROW LEVEL SECURITY", "rls-off", "error"),
    ("DROP POLICY tenantry_app ON products", "policy-missing", "error"),
    ("DROP POLICY tenantry_raw ON products", "policy-missing", "error"),
    ("DROP POLICY tenantry_control ON products", "policy-missing", "warning"),
    ("ALTER POLICY tenantry_app ON products USING (true)", "policy-changed", "error"),
    ("ALTER POLICY tenantry_raw ON products WITH CHECK (true)", "policy-changed", "error"),
    ("ALTER POLICY tenantry_app ON products TO PUBLIC", "policy-changed", "error"),
    ("CREATE POLICY helpful ON products FOR SELECT USING (true)", "policy-extra", "error"),
    ("CREATE POLICY helpful ON products FOR SELECT TO site_raw USING (true)", "policy-extra", "error"),
    ("CREATE POLICY tenantry_raw ON tenantry.requests TO site_raw USING (true)", "policy-extra", "error"),
    # keys
    (
        "ALTER TABLE products DROP CONSTRAINT products_pkey CASCADE; "
        "ALTER TABLE products ALTER tenant_id DROP NOT NULL",
        "tenant-nullable",
        "error",
    ),
    # rights
    ("GRANT TRUNCATE ON products TO site_app", "grant-excess", "error"),
    ("GRANT REFERENCES (id) ON products TO site_raw", "grant-excess", "error"),
    ("GRANT INSERT ON countries TO site_app", "grant-excess", "error"),
    ("GRANT SELECT ON tenantry.audit TO PUBLIC", "grant-excess", "error"),
    ("GRANT UPDATE (key) ON tenantry.requests TO site_app", "grant-excess", "error"),
    ("GRANT SELECT ON tenantry.seal_keys TO site_raw", "seal-readable", "error"),
    ("GRANT INSERT ON tenantry.fences TO site_app", "table-reachable", "error"),
    ("GRANT DELETE ON tenantry.fences TO PUBLIC", "table-reachable", "error"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "right-open", "error"),
    ("GRANT TEMPORARY ON DATABASE isolation TO PUBLIC", "right-open", "warning"),
    ("GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", "right-open", "warning"),
    ("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC", "right-open", "warning"),
    ("ALTER ROLE site_raw RESET track_activities", "right-open", "warning"),
    ("CREATE TABLE leftovers (a int); GRANT SELECT ON leftovers TO PUBLIC", "table-reachable", "warning"),
    ("CREATE TABLE tenantry.more (a int); GRANT SELECT ON tenantry.more TO site_raw", "table-reachable", "error"),
    ("CREATE TABLE part () INHERITS (products); GRANT SELECT ON part TO site_app", "table-reachable", "error"),
    # views and functions
    ("CREATE VIEW v AS SELECT * FROM products; GRANT SELECT ON v TO site_raw", "view-definer", "error"),
    (
        "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM products; "
        "CREATE VIEW w AS SELECT * FROM v; GRANT SELECT ON v, w TO site_raw",
        "view-definer",
        "error",
    ),
    ("CREATE MATERIALIZED VIEW v AS SELECT * FROM products; GRANT SELECT ON v TO site_raw", "view-definer", "error"),
    (
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM products'; "
        "GRANT EXECUTE ON FUNCTION f() TO PUBLIC",
        "definer-function",
        "error",
    ),
    # triggers
    ("ALTER TABLE products DISABLE TRIGGER tenantry_raw_write", "trigger-missing", "warning"),
    ("DROP TRIGGER tenantry_keep_tenant ON products", "trigger-missing", "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("sabotage", "code", "severity"), SQL_FIXES, ids=[row[0][:60] for row in SQL_FIXES])
async def test_each_sabotage_is_found_and_its_fix_mends_it(
    site: Site, sabotage: str, code: str, severity: str
) -> None:
    async with site.connected() as admin:
        transaction = admin.transaction()
        await transaction.start()
        try:
            await admin.execute(sabotage)
            findings = [finding for finding in await inspected(admin, site) if finding.code == code]
            assert findings
            assert {finding.severity for finding in findings} == {severity}
            for finding in findings:
                await admin.execute(finding.fix)
            assert [finding for finding in await inspected(admin, site) if finding.code == code] == []
        finally:
            await transaction.rollback()


@pytest.mark.parametrize(
    ("sabotage", "code", "severity"),
    [
        ("ALTER TABLE products ADD UNIQUE (name)", "unique-unscoped", "error"),
        ("CREATE UNIQUE INDEX ON products (lower(name))", "unique-unscoped", "error"),
        ("ALTER TABLE products ADD EXCLUDE USING btree (name WITH =)", "unique-unscoped", "error"),
        ("CREATE INDEX ON products (name)", "index-order", "warning"),
        ("CREATE UNIQUE INDEX ON products (name, tenant_id, id)", "index-order", "warning"),
        (
            "CREATE TABLE notes (product int, tenant_id text, "
            "FOREIGN KEY (product, tenant_id) REFERENCES products (id, tenant_id))",
            "reference-unscoped",
            "error",
        ),
        (
            "CREATE OR REPLACE FUNCTION tenantry.current_tenant() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'a'$$",
            "seal-function",
            "error",
        ),
        ("ALTER FUNCTION tenantry.current_tenant() OWNER TO postgres", "seal-function", "error"),
        ("ALTER FUNCTION tenantry.current_tenant() RESET ALL", "seal-function", "error"),
        ("DROP FUNCTION tenantry.bind(text)", "seal-function", "error"),
        ("CREATE EXTENSION dblink", "extension", "warning"),
    ],
)
async def test_each_sabotage_without_a_ready_fix_is_found(
    site: Site, sabotage: str, code: str, severity: str
) -> None:
    async with site.connected() as admin:
        transaction = admin.transaction()
        await transaction.start()
        try:
            await admin.execute(sabotage)
            findings = [finding for finding in await inspected(admin, site) if finding.code == code]
        finally:
            await transaction.rollback()
    assert {finding.severity for finding in findings} == {severity}


async def test_a_reference_that_carries_the_tenant_on_one_side_only_is_found(site: Site) -> None:
    async with site.connected() as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(
            "ALTER TABLE orders ADD owner text; "
            "ALTER TABLE orders ADD FOREIGN KEY (owner, product) REFERENCES products (tenant_id, id)"
        )
        findings = await inspected(admin, site)
        await transaction.rollback()
    assert [finding.code for finding in findings] == ["reference-unscoped"]


def test_errors_refuse_and_warnings_do_not() -> None:
    warning = Finding("warning", "index-order", "t", "It is slow.", "make it anew")
    refuse([warning])
    with pytest.raises(
        UnsafeRole, match=r"(?s)app: It is SUPERUSER.*tenantry init --admin-url postgresql://"
    ):
        refuse([warning, Finding("error", "role-superuser", "app", "It is SUPERUSER.", "ALTER ROLE")])


@pytest.mark.parametrize(
    ("version", "leaks"),
    [
        (180000, 0),
        (170006, 0),
        (170005, 1),
        (170000, 2),
        (160010, 0),
        (150014, 0),
        (150002, 4),
        (140019, 0),
        (130022, 0),
        (120099, 1),
    ],
)
def test_versions_with_known_leaks(version: int, leaks: int) -> None:
    assert len(known_leaks(version)) == leaks
