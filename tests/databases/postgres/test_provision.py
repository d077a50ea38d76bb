"""`tenantry init`, and what a user's own SQL can and cannot do in the database it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.databases.postgres.inspect import inspect_roles, inspect_server
from tenantry.databases.postgres.policies import (
    Roles,
    control_table_policies,
    quote,
    quote_literal,
    shared_table_policies,
    tenant_table_policies,
)
from tenantry.databases.postgres.pool import TenantPool
from tenantry.databases.postgres.provision import Provisioned, provision, scram_verifier
from tenantry.databases.postgres.seal import Backend, Sealer
from tenantry.errors import ConfigurationError, DatabaseUnavailable
from tests.databases.postgres.conftest import Site
from tests.servers import PostgresServer

DENIED = asyncpg.InsufficientPrivilegeError


@asynccontextmanager
async def bound(site: Site, role: str, tenant: str) -> AsyncIterator[Any]:
    """Give a plain connection of a role that is bound to a tenant, for SQL that no pool would let through."""
    async with site.connected(role) as connection:
        row = await connection.fetchrow("SELECT * FROM tenantry.session()")
        backend = Backend(row["pid"], row["slot"], row["started"])
        seal = Sealer([site.key], row["system_identifier"]).sign(tenant, backend, row["now"])
        await connection.fetchval("SELECT set_config('tenantry.seal', $1, false)", seal)
        yield connection


async def serves(made: Provisioned) -> bool:
    pool = TenantPool(made.urls["app"], keys=[made.seal_key])
    await pool.open()
    async with pool.statement("a") as connection:
        answer = await connection.fetchval("SELECT tenantry.current_tenant()")
    await pool.close()
    return bool(answer == "a")


# -- the command


async def test_a_second_run_changes_nothing(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(make_database())
    first = await provision(url, prefix="again")
    second = await provision(url, prefix="again")
    assert set(first.urls) == {"owner", "app", "raw", "control"}
    assert second.urls == {}
    assert second.seal_key == first.seal_key
    assert second.system_identifier == first.system_identifier
    assert first.unmet == second.unmet == ()
    assert await serves(first)


async def test_passwords_can_be_set_anew(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(make_database())
    first = await provision(url, prefix="anew")
    second = await provision(url, prefix="anew", reset_passwords=True)
    assert set(second.urls) == set(first.urls)
    assert await serves(second)
    with pytest.raises(DatabaseUnavailable, match="password"):
        await serves(first)


async def test_runs_at_the_same_time_agree(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    one, two = (postgres_server.url(make_database()) for _ in range(2))
    runs = await asyncio.gather(*(provision(url, prefix="race") for url in (one, one, two, two, one)))
    assert len({run.seal_key for run in (runs[0], runs[1], runs[4])}) == 1
    assert len({run.seal_key for run in runs}) == 2
    urls = {role: url for run in runs for role, url in run.urls.items()}
    assert set(urls) == {"owner", "app", "raw", "control"}


async def test_a_database_is_made_when_there_is_none(postgres_server: PostgresServer) -> None:
    name = 'shop "1" / é'
    runs = await asyncio.gather(
        *(provision(postgres_server.url(), database=name, prefix="made") for _ in range(2))
    )
    try:
        assert await serves(next(run for run in runs if run.urls))
    finally:
        postgres_server.drop_database(name)


async def test_the_roles_are_no_more_than_they_need(site: Site) -> None:
    async with site.connected() as admin:
        rows = await admin.fetch("SELECT * FROM pg_roles WHERE rolname = ANY($1)", list(site.roles))
        assert len(rows) == 4
        for row in rows:
            assert row["rolcanlogin"]
            for power in ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication"):
                assert not row[power]
        assert await inspect_roles(admin, site.roles) == []
        assert await inspect_server(admin, site.roles) == []


async def test_no_secret_reaches_a_log_or_a_repr(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    name = make_database()
    postgres_server.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
    made = await provision(postgres_server.url(name), prefix="quiet")
    log = postgres_server.log()
    assert 'CREATE ROLE "quiet_app"' in log
    passwords = [url.split(":")[2].split("@")[0] for url in made.urls.values()]
    key = made.seal_key
    secrets = [
        *passwords,
        key.export().partition(":")[2],
        key.secret.hex(),
        *(pad.hex() for pad in key.pads()),
    ]
    for secret in secrets:
        assert len(secret) > 20
        assert secret not in log
        assert secret not in repr(made)
        assert secret not in str(made)


async def test_the_env_file(make_database: Callable[[], str], postgres_server: PostgresServer) -> None:
    url = postgres_server.url(make_database()) + "?sslmode=disable&user=postgres"
    made = await provision(url, prefix="dotenv")
    lines = dict(line.split("=", 1) for line in made.env().splitlines())
    assert lines["TENANTRY_DATABASE_URL"] == made.urls["app"]
    assert lines["TENANTRY_DATABASE_CONTROL_URL"] == made.urls["control"]
    assert lines["TENANTRY_DATABASE_RAW_URL"] == made.urls["raw"]
    assert lines["TENANTRY_DATABASE_OWNER_URL"] == made.urls["owner"]
    assert lines["TENANTRY_DATABASE_SEAL_KEY"] == made.seal_key.export()
    assert made.urls["app"].endswith("?sslmode=disable")
    assert await serves(made)
    again = (await provision(url, prefix="dotenv")).env()
    assert "TENANTRY_DATABASE_URL=" not in again
    assert "--reset-passwords" in again


async def test_an_admin_that_is_no_superuser_does_what_it_may_and_says_the_rest(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    name = make_database()
    postgres_server.execute(
        f"CREATE ROLE manager LOGIN CREATEROLE PASSWORD 'x'; ALTER DATABASE {name} OWNER TO manager"
    )
    try:
        url = postgres_server.url(name).replace(f"postgres:{postgres_server.password}@", "manager:x@")
        made = await provision(url, prefix="managed")
        assert await serves(made)
        unmet = {item.what for item in made.unmet}
        assert {
            "large objects: EXECUTE is granted to PUBLIC",
            "signals: EXECUTE is granted to PUBLIC",
            "USAGE on language plpgsql is granted to PUBLIC",
            "track_activities is on for managed_raw",
        } <= unmet
        assert not any("CREATE" in what or "TEMPORARY" in what for what in unmet)
        assert all(item.consequence and item.fix for item in made.unmet)
        again = await provision(url, prefix="managed")
        assert again.unmet == made.unmet
        for item in made.unmet:
            postgres_server.execute(item.fix, name)
        assert (await provision(url, prefix="managed")).unmet == ()
    finally:
        postgres_server.drop_database(name)


async def test_an_admin_without_rights_is_told_so(
    make_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    name = make_database()
    postgres_server.execute("CREATE ROLE nobody LOGIN PASSWORD 'x'")
    url = postgres_server.url(name).replace(f"postgres:{postgres_server.password}@", "nobody:x@")
    with pytest.raises(ConfigurationError, match="CREATEROLE"):
        await provision(url, prefix="none")
    postgres_server.execute("DROP ROLE nobody")


async def test_an_admin_url_that_cannot_be_used() -> None:
    with pytest.raises(ConfigurationError) as caught:
        await provision("postgresql://postgres:pass:word@h:x/db")
    assert "pass:word" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable):
        await provision("postgresql://postgres@127.0.0.1:1/db")


def test_a_verifier_is_salted_and_of_the_form_that_the_server_stores() -> None:
    one, two = scram_verifier("p"), scram_verifier("p")
    assert one != two
    assert one.startswith("SCRAM-SHA-256$4096:")


# -- what a user's own SQL may not do

FORBIDDEN = [
    # other tenants' rows, the directory, the audit log
    "INSERT INTO products (tenant_id, id) VALUES ('b', 9)",
    "UPDATE products SET tenant_id = 'b'",
    "SELECT * FROM tenantry.audit",
    "INSERT INTO countries VALUES ('XX')",
    "UPDATE countries SET id = 'XX'",
    "DELETE FROM countries",
    "TRUNCATE products",
    "COPY (SELECT * FROM tenantry.audit) TO STDOUT",
    "ALTER TABLE products DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE products DISABLE TRIGGER ALL",
    "CREATE POLICY p ON products USING (true)",
    "SET session_replication_role = replica",
    "SET track_activities = on",
    "ALTER ROLE CURRENT_USER SET track_activities = on",
    "ALTER ROLE CURRENT_USER RESET track_activities",
    "SET ROLE site_owner",
    "SET ROLE site_control",
    "SET SESSION AUTHORIZATION site_control",
    "GRANT site_owner TO site_raw",
    "ALTER ROLE site_control PASSWORD 'x'",
    # leaving things behind
    "CREATE TEMP TABLE products (id int)",
    "CREATE TABLE t (id int)",
    "SELECT * INTO t FROM products",
    "CREATE TABLE tenantry.t (id int)",
    "CREATE SCHEMA s",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE SEQUENCE s",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OPERATOR public.= (FUNCTION = texteq, LEFTARG = varchar, RIGHTARG = varchar)",
    "CREATE TYPE t AS (id int)",
    "CREATE INDEX ON products (name)",
    "CREATE EXTENSION hstore",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "COMMENT ON TABLE products IS 'hello'",
    "DO $$BEGIN END$$",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'hello')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT lo_put(1, 0, 'x')",
    # reaching others
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1, 2)",
    "SELECT pg_advisory_xact_lock_shared(1)",
    "SELECT pg_cancel_backend(pg_backend_pid())",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_logical_emit_message(false, 'tenantry', 'forged')",
    "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
    "COPY products TO '/tmp/products'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM pg_prepared_statements",
    "SELECT * FROM pg_prepared_statement()",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_hba_file_rules",
]


FORBIDDEN_TO_RAW = [
    "SELECT * FROM tenantry.requests",
    "INSERT INTO tenantry.requests VALUES ('a', 'k')",
    "SELECT pg_notify('gossip', 'hello')",
]


@pytest.mark.parametrize(
    ("role", "statement"),
    [*(("raw", text) for text in FORBIDDEN + FORBIDDEN_TO_RAW), *(("app", text) for text in FORBIDDEN)],
)
async def test_forbidden(site: Site, role: str, statement: str) -> None:
    async with bound(site, role, "a") as connection:
        with pytest.raises(DENIED):
            await connection.execute(statement)


HARMLESS = [
    "SELECT * FROM products WHERE tenant_id = 'b'",
    "SELECT * FROM products WHERE true OR tenant_id = 'b'",
    "SELECT b.* FROM products a JOIN products b ON b.id = a.id AND b.tenant_id <> 'a'",
    "SELECT * FROM ONLY products WHERE tenant_id <> 'a'",
    "TABLE products",
    "SELECT most_common_vals::text FROM pg_stats WHERE tablename = 'products'",
    "SELECT ts_stat('SELECT to_tsvector(name) FROM products')",
    "UPDATE products SET name = 'mine ' || id",
    "UPDATE products SET name = 'mine' WHERE tenant_id = 'b'",
    "DELETE FROM products WHERE tenant_id = 'b'",
    "DELETE FROM products USING products b WHERE b.tenant_id = 'b'",
    "MERGE INTO products p USING countries c ON p.tenant_id = 'b' WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM products RETURNING *) SELECT * FROM gone",
    "SELECT set_config('tenantry.seal', '', false); SELECT * FROM products",
    "RESET ALL; SELECT * FROM products",
    "DISCARD ALL; SELECT * FROM products",
    "SET LOCAL tenantry.seal = ''; UPDATE products SET name = 'x' || id",
    "PREPARE p AS SELECT * FROM products; RESET tenantry.seal; EXECUTE p",
    "BEGIN; SAVEPOINT s; SET LOCAL tenantry.seal = ''; ROLLBACK TO s; TABLE products; COMMIT",
    "SELECT query FROM pg_stat_activity",
    "SELECT * FROM pg_locks",
    "SELECT * FROM pg_largeobject_metadata",
]


@pytest.mark.parametrize("statement", HARMLESS)
@pytest.mark.parametrize("role", ["raw", "app"])
async def test_permitted_sql_neither_shows_nor_touches_another_tenants_rows(
    site: Site, role: str, statement: str
) -> None:
    async with site.opened(role) as pool, site.connected() as admin:
        others = "SELECT * FROM products WHERE tenant_id = 'b' ORDER BY id"
        before = await admin.fetch(others)
        async with pool.statement("b") as neighbour:
            await neighbour.fetch("SELECT 'b-secret', * FROM products")
            async with bound(site, role, "a") as connection:
                *first, last = statement.split("; ")
                for text in first:
                    await connection.execute(text)
                shown = repr(await connection.fetch(last))
        for secret in ("'b'", "b1", "b2", "b-secret"):
            assert secret not in shown.replace(statement, "")
        assert await admin.fetch(others) == before


async def test_what_a_role_may_do_to_itself_is_found(site: Site) -> None:
    # PostgreSQL lets every role change its own settings, and there is no right to take away. A user's own SQL is
    # therefore one statement that reads or writes rows, and the doctor looks for traces.
    async with bound(site, "raw", "a") as connection, site.connected() as admin:
        try:
            await connection.execute("ALTER ROLE CURRENT_USER SET work_mem = '99MB'")
            findings = await inspect_roles(admin, site.roles)
            assert [finding.code for finding in findings] == ["role-setting"]
            await connection.execute("ALTER ROLE CURRENT_USER RESET ALL")
            assert await inspect_roles(admin, site.roles) == []
            assert await inspect_server(admin, site.roles) == []  # and track_activities is off as before
        finally:
            await admin.execute("ALTER ROLE site_raw RESET work_mem")


# -- tables


@pytest.mark.parametrize("role", ["app", "raw", "owner", "admin"])
async def test_the_tenant_of_a_row_never_changes(site: Site, role: str) -> None:
    async with bound(site, role, "a") if role in ("app", "raw") else site.connected(role) as connection:
        if role == "owner":
            assert await connection.fetch("UPDATE products SET tenant_id = 'b' RETURNING id") == []
        else:
            with pytest.raises(DENIED):
                await connection.execute("UPDATE products SET tenant_id = 'b', id = 9 WHERE id = 3")
            with pytest.raises(DENIED):
                await connection.execute(
                    "INSERT INTO products (tenant_id, id) VALUES ('a', 1) "
                    "ON CONFLICT (tenant_id, id) DO UPDATE SET tenant_id = 'b', id = 9"
                )


async def test_control_reads_and_deletes_every_tenants_rows_and_changes_none(site: Site) -> None:
    async with site.connected("control") as connection:
        assert await connection.fetchval("SELECT count(*) FROM products") == 5
        with pytest.raises(DENIED):
            await connection.execute("UPDATE products SET name = 'x'")
        with pytest.raises(DENIED):
            await connection.execute("INSERT INTO products (tenant_id, id) VALUES ('a', 9)")
        assert await connection.fetch("DELETE FROM products WHERE tenant_id = 'b' RETURNING id") != []
        await connection.execute("INSERT INTO countries VALUES ('FR')")
        await connection.execute("UPDATE tenantry.audit SET what = 'seen'")


async def test_the_same_key_exists_in_two_tenants_and_references_stay_inside(site: Site) -> None:
    async with bound(site, "app", "b") as connection:
        await connection.execute("INSERT INTO orders (tenant_id, id, product) VALUES ('b', 1, 1)")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("INSERT INTO orders (tenant_id, id, product) VALUES ('b', 2, 3)")
        await connection.execute("INSERT INTO products (tenant_id, id, name) VALUES ('b', 3, 'a3')")


async def test_idempotency_keys_are_the_tenants_own(site: Site) -> None:
    for tenant in ("a", "b"):
        async with bound(site, "app", tenant) as connection:
            await connection.execute("INSERT INTO tenantry.requests VALUES ($1, 'k')", tenant)
            assert await connection.fetch("SELECT tenant_id FROM tenantry.requests") == [(tenant,)]
            with pytest.raises(DENIED):
                await connection.execute("DELETE FROM tenantry.requests")


async def test_raw_writes_keep_what_compiled_writes_keep(site: Site) -> None:
    async with bound(site, "raw", "a") as connection:
        row = await connection.fetchrow(
            "INSERT INTO products (tenant_id, id, name, version, created_at, updated_at) "
            "VALUES ('a', 7, 'n', 99, '2001-01-01', '2001-01-01') RETURNING *, now() AS now"
        )
        assert row["version"] == 1
        assert row["created_at"] == row["updated_at"] >= row["now"]
        changed = await connection.fetchrow(
            "UPDATE products SET id = 8, version = 50, created_at = '2001-01-01', updated_at = '2001-01-01', "
            "name = 'm' WHERE id = 7 RETURNING *"
        )
        assert (changed["id"], changed["version"], changed["name"]) == (7, 2, "m")
        assert changed["created_at"] == row["created_at"] < changed["updated_at"]
    async with bound(site, "app", "a") as connection:
        kept = await connection.fetchrow(
            "UPDATE products SET version = 9, updated_at = '2030-01-01' WHERE id = 7 RETURNING *"
        )
        assert (kept["version"], kept["updated_at"].year) == (9, 2030)


async def test_policies_can_be_made_again_and_tables_may_have_any_name(site: Site) -> None:
    async with site.connected() as admin:
        transaction = admin.transaction()
        await transaction.start()
        schema, table = 'Odd "schema"', "drop table; -- é"
        await admin.execute(f"CREATE SCHEMA {quote(schema)}")
        await admin.execute(
            f"CREATE TABLE {quote(schema)}.{quote(table)} (tenant_id text, id int, version int, "
            "created_at timestamptz, updated_at timestamptz)"
        )
        for _ in range(2):
            for statements in (
                shared_table_policies(schema, table, site.roles),
                control_table_policies(schema, table, site.roles, app=("SELECT",)),
                tenant_table_policies(schema, table, site.roles, raw=False),
                tenant_table_policies(schema, table, site.roles),
            ):
                for statement in statements:
                    await admin.execute(statement)
        await transaction.rollback()


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_quoting_an_identifier_loses_nothing(text: str) -> None:
    if not text or len(text.encode()) > 63:
        with pytest.raises(ValueError, match="identifier"):
            quote(text)
    else:
        quoted = quote(text)
        assert quoted[0] == quoted[-1] == '"'
        assert quoted[1:-1].replace('""', "") == text.replace('"', "")
        assert quoted[1:-1].replace('""', '"') == text


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
async def test_the_server_reads_a_quoted_literal_as_it_was(site: Site, text: str) -> None:
    async with site.connected() as connection:
        assert await connection.fetchval(f"SELECT {quote_literal(text)}") == text
        await connection.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
        assert await connection.fetchval(f"SELECT {quote_literal(text)}") == text


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32])
def test_names_that_would_be_cut_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        quote(name)
    with pytest.raises(ValueError, match="identifier"):
        tenant_table_policies(None, name, Roles.named())
