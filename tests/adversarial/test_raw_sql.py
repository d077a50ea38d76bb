"""`acme.data.sql(…)`: any statement a tenant may write, held to the tenant by the database."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tenantry.errors import InvalidQuery, TenantryError
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.attacks import DISGUISES, STATEMENTS, UTILITIES

AS_IT_IS = """SELECT
  current_setting('leak.x', true) AS x,
  current_setting('search_path') AS path,
  current_setting('application_name') AS name,
  current_setting('client_encoding') AS encoding,
  tenantry.current_tenant() AS tenant,
  (SELECT count(*) FROM pg_cursors WHERE name <> '') + (SELECT count(*) FROM pg_listening_channels()) AS things"""


async def _roles(arena: Arena) -> Any:
    """Return everything about roles and rights that outlives a session."""
    query = """SELECT
      (SELECT string_agg(r::text, '|' ORDER BY r.oid) FROM pg_authid r),
      (SELECT string_agg(s::text, '|' ORDER BY s::text) FROM pg_db_role_setting s),
      (SELECT string_agg(d::text, '|' ORDER BY d::text) FROM pg_default_acl d),
      (SELECT string_agg(m::text, '|' ORDER BY m::text) FROM pg_auth_members m),
      (SELECT string_agg(concat(c.oid, c.relname, c.relacl, c.relrowsecurity, c.relforcerowsecurity), '|'
         ORDER BY c.oid) FROM pg_class c WHERE c.relnamespace <> 'pg_toast'::regnamespace),
      (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_policy), (SELECT count(*) FROM pg_trigger),
      (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_largeobject_metadata),
      (SELECT count(*) FROM pg_description WHERE description = 'left behind'),
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"""
    return tuple(await arena.judge.fetchrow(query) or ())


async def test_no_statement_reaches_another_tenant(arena: Arena) -> None:
    before = await _roles(arena)
    async with arena.unharmed():
        for text in STATEMENTS:
            text = arena.fill(text)
            seen = await outcome_of(arena.acme.data.sql(text))
            assert isinstance(seen, list | TenantryError), (text, seen)
            assert not arena.reveals(seen, given=text), text
            again = await arena.acme.data.sql("SELECT tenant_id FROM customers")
            assert {row["tenant_id"] for row in again} <= {"acme"}
            theirs = await arena.globex.data.sql("SELECT tenant_id, name FROM customers")
            assert {row["tenant_id"] for row in theirs} == {"globex"}, text
            assert len(theirs) == 2
    assert await _roles(arena) == before


async def test_no_other_kind_of_statement_runs(arena: Arena) -> None:
    before = await _roles(arena)
    async with arena.unharmed():
        for text in UTILITIES:
            text = arena.fill(text)
            seen = await outcome_of(arena.acme.data.sql(text))
            assert isinstance(seen, TenantryError), text
            assert not arena.reveals(seen, given=text), text
    assert await _roles(arena) == before


async def test_no_disguise_makes_another_kind_of_statement_run(direct_arena: Arena) -> None:
    arena = direct_arena
    before = await _roles(arena)
    async with arena.unharmed():
        for disguise in DISGUISES:
            for text in (
                "ALTER ROLE CURRENT_USER SET search_path = tenantry",
                "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
                "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
                "NOTIFY leak",
                "SET statement_timeout = 1",
                "COPY customers TO STDOUT",
                "LOCK TABLE customers",
            ):
                disguised = disguise.replace("{}", text)
                seen = await outcome_of(arena.acme.data.sql(disguised))
                assert isinstance(seen, TenantryError), disguised
    assert await _roles(arena) == before


async def test_an_honest_statement_runs(direct_arena: Arena) -> None:
    for text in (
        "SELECT 1",
        "  \n\tselect 1",
        "(SELECT 1)",
        "((SELECT 1) UNION (SELECT 2))",
        "-- a comment\nSELECT 1",
        "-- a comment\r\nSELECT 1",
        "/* a comment */ SELECT 1",
        "/* one */ -- two\n /* three\n * lines **/ WITH x AS (SELECT 1) SELECT * FROM x",
        "VALUES (1)",
        "SELECT 1 -- /* and no more",
        "TABLE countries",
        "EXPLAIN SELECT 1",
    ):
        assert await direct_arena.acme.data.sql(text), text


async def test_what_is_no_text_of_a_statement_is_refused(direct_arena: Arena) -> None:
    refused: tuple[Any, ...] = (
        "",
        " ",
        "1",
        "SELECT '\ud800'",
        "SELECT '\0'",
        "SELECT 1\0",
        "/* SELECT 1",
        b"SELECT 1",
    )
    for text in (*refused, None, 1):
        with pytest.raises(InvalidQuery):
            await direct_arena.acme.data.sql(text)


async def test_nothing_of_one_use_is_left_for_the_next(arena: Arena) -> None:
    """What a statement can leave in a session, looked for on every raw connection, as the next tenant."""
    acme, globex = arena.acme.data, arena.globex.data
    pollution = (
        "SELECT set_config('leak.x', 'left behind', false)",
        "SELECT set_config('application_name', 'left behind', false)",
        "SELECT set_config('search_path', 'tenantry', false)",
        "SELECT set_config('default_transaction_read_only', 'on', false)",
        "SELECT set_config('statement_timeout', '1', false)",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', false), set_config('DateStyle', 'German', false)",
        "SELECT set_config('client_encoding', 'LATIN1', false)",
        "SELECT set_config('transform_null_equals', 'on', false)",
        "SELECT set_config('tenantry.seal', current_setting('tenantry.seal'), false)",
    )
    look = (
        "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'tenantry.%' "
        "AND name NOT IN ('search_path', 'client_encoding')"
    )
    clean = {row["name"]: row["setting"] for row in await globex.sql(look)}
    for text in pollution:
        await outcome_of(acme.sql(text))
        assert {row["name"]: row["setting"] for row in await globex.sql(look)} == clean, text
        found = (await globex.sql(AS_IT_IS))[0]
        assert found["x"] in (None, ""), text
        assert found["encoding"] == "UTF8"
        assert found["path"] == "public, pg_temp"
        assert found["name"] != "left behind"
        assert found["tenant"] == "globex"
        assert found["things"] == 0
        assert len(await globex.sql("UPDATE settings SET value = value RETURNING id")) == 2


async def test_random_numbers_of_one_use_do_not_tell_those_of_the_next(direct_arena: Arena) -> None:
    arena = direct_arena
    await arena.acme.data.sql("SELECT setseed(0.5)")
    first = await arena.globex.data.sql("SELECT random() AS x FROM generate_series(1, 3)")
    await arena.acme.data.sql("SELECT setseed(0.5)")
    assert await arena.globex.data.sql("SELECT random() AS x FROM generate_series(1, 3)") != first


async def test_no_statement_of_a_tenants_own_reaches_who_is_in_it_or_its_keys(arena: Arena) -> None:
    """As the raw role nothing of them; as the app role, into which SQL might be injected, no secret."""
    await arena.acme.members.add("u", roles=["owner"])
    await arena.acme.api_keys.create("ci")
    kept = ("members", "invitations", "api_keys", "support_consent", "support_sessions", "support_writes")
    for table in kept:
        for text in (
            f"SELECT * FROM tenantry.{table}",
            f"UPDATE tenantry.{table} SET version = 2 RETURNING 1",
            f"DELETE FROM tenantry.{table} RETURNING 1",
        ):
            with pytest.raises(TenantryError):
                await arena.acme.data.sql(text)
    app = arena.sdk._database._app  # type: ignore[union-attr] # the pool of the role
    for text in (
        "SELECT * FROM tenantry.api_keys",
        "SELECT * FROM tenantry.invitations",
        "UPDATE tenantry.members SET version = 2",
        "INSERT INTO tenantry.members (id) VALUES ('mallory')",
        "DELETE FROM tenantry.support_writes",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with app.statement("acme") as connection:
                await connection.execute(text)
    async with app.statement("globex") as connection:
        assert await connection.fetch("SELECT * FROM tenantry.members") == []
