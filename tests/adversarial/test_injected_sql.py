"""The stronger attack: SQL that reached a live connection of the app or raw role, bound to acme, past every check.

It may do what it likes with that connection. It must not see or change a row of globex, nor leave a connection on
which globex would see anything but its own rows.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.databases.postgres.pool import TenantPool
from tenantry.databases.postgres.seal import Sealer, SealKey
from tenantry.errors import TenantryError
from tenantry.types import Page
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.attacks import STATEMENTS, UTILITIES
from tests.adversarial.models import TENANT_TABLES, WORD_TABLES, Setting

REFUSALS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
both_roles = pytest.mark.parametrize("role", ["app", "raw"])


async def run(connection: Any, text: str) -> Any:
    """Run any statement, or several, and return what comes back."""
    if text.startswith("COPY") and text.endswith("TO STDOUT"):
        output = io.BytesIO()
        status = await outcome_of(connection._copy_out(text, output, None))
        return [status, output.getvalue()]
    return await outcome_of(connection.execute(text) if ";" in text else connection.fetch(text))


async def inject(pool: TenantPool, *texts: str, tenant: str | None = "acme") -> list[Any]:
    """Run each text on one connection of `tenant`, whatever became of the one before; return what showed."""
    seen: list[Any] = []
    try:
        async with pool.statement(tenant) as connection:
            for text in texts:
                seen.append(await run(connection, text))
                assert isinstance(seen[-1], (list, str, *REFUSALS)), (text, seen[-1])
    except (TenantryError, *REFUSALS) as error:  # the attack may have broken the connection
        seen.append(error)
    return seen


async def check_next_users(arena: Arena) -> None:
    """Check that every connection now serves globex its own rows, or fails: never another row, never fewer."""
    tables = itertools.islice(itertools.cycle(TENANT_TABLES), arena.app.max_size + 1)
    for table in tables:
        found = await outcome_of(arena.globex.data.read(table))
        if isinstance(found, Page):
            assert len(found) == (1 if table in ("orders", "lines") else 2)
            assert all(arena.secret in repr(row) for row in found)
        else:
            assert isinstance(found, TenantryError)
    rows = await arena.globex.data.sql("SELECT tenant_id FROM customers")
    assert [row["tenant_id"] for row in rows] == ["globex", "globex"]


async def check_victim(arena: Arena, before: dict[str, str], given: str, seen: object) -> None:
    assert not arena.reveals(seen, given=given), given
    assert await arena.fingerprint("globex") == before, given
    assert await arena.others() == 0, given


@both_roles
async def test_no_statement_reaches_another_tenant(arena: Arena, role: str) -> None:
    pool, before = arena.pool(role), await arena.fingerprint("globex")
    given = "".join(arena.fill(text, role) for text in STATEMENTS)
    for text in STATEMENTS:
        seen = await inject(pool, arena.fill(text, role), "SELECT * FROM customers")
        await check_victim(arena, before, given, seen)
    await check_next_users(arena)


@both_roles
async def test_no_utility_reaches_another_tenant(arena: Arena, role: str) -> None:
    pool, before = arena.pool(role), await arena.fingerprint("globex")
    for text in UTILITIES:
        text = arena.fill(text, role)
        after = ("ROLLBACK", "SELECT * FROM customers", "DELETE FROM settings WHERE tenant_id = 'globex'")
        seen = await inject(pool, text, *after)
        await check_victim(arena, before, text, seen)
        await check_next_users(arena)


# --- composed -----------------------------------------------------------------------------------------------------

columns = st.sampled_from(
    ["tenant_id", "id", "name", "email", "notes", "value", "memo", "total", "version", "*"]
)
tables = st.sampled_from(
    [*TENANT_TABLES, *WORD_TABLES, "countries", "tenantry.tenants", "tenantry.idempotency", "pg_settings"]
)
seals = st.sampled_from(
    [
        "''",
        "NULL",
        "'globex'",
        "current_setting('tenantry.seal', true)",
        "replace(current_setting('tenantry.seal', true), 'acme', 'globex')",
        "overlay(current_setting('tenantry.seal', true) placing 'globex' from 34)",
        "'{live}'",
        "replace('{live}', 'v1|', 't1|')",
        "regexp_replace('{live}', '[|]-?[0-9]+[|]globex', '|' || (SELECT slot FROM tenantry.session()) || '|globex')",
        "tenantry.bind('{live}')",
        "tenantry.bind('{expired}')",
        "'{expired}'",
        "'{foreign}'",
        "tenantry.bind('{foreign}')",
    ]
)
settings_names = st.sampled_from(
    [
        "tenantry.seal",
        "role",
        "session_authorization",
        "row_security",
        "search_path",
        "leak.x",
        "plan_cache_mode",
    ]
)


def _compose(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    locals_ = st.sampled_from(["true", "false"])
    return st.one_of(
        st.builds("set_config({}, {}, {})".format, settings_names.map(repr), seals, locals_),
        st.builds("set_config('leak.x', ({})::text, {})".format, inner, locals_),
        st.builds("(SELECT string_agg(({})::text, ',') FROM {} WHERE {})".format, inner, tables, inner),
        st.builds("coalesce(({})::text, ({})::text)".format, inner, inner),
        st.builds("({})::text || ({})::text".format, inner, inner),
        st.builds("({})::int > 0".format, inner),
        st.builds("({})::text <> ({})::text".format, inner, inner),
        st.builds("CASE WHEN {} THEN {} END".format, inner, inner),
    )


expressions = st.recursive(
    st.one_of(
        columns,
        seals,
        st.sampled_from(
            [
                "true",
                "tenant_id = 'globex'",
                "tenant_id <> 'acme'",
                "id::text = '{victim}'",
                "current_setting('leak.x', true)",
                "tenantry.current_tenant()",
                "current_user",
                "1",
            ]
        ),
    ),
    _compose,
    max_leaves=5,
)
composed = st.one_of(
    st.builds("SELECT {} FROM {} WHERE {}".format, expressions, tables, expressions),
    st.builds("SELECT {}".format, expressions),
    st.builds("UPDATE {} SET {} = {} WHERE {}".format, tables, columns, expressions, expressions),
    st.builds("DELETE FROM {} WHERE {}".format, tables, expressions),
    st.builds(
        "INSERT INTO settings (tenant_id, id, value) SELECT {}, 'x', {}".format, expressions, expressions
    ),
    st.builds("WITH x AS MATERIALIZED (SELECT {} AS y) SELECT * FROM x, {}".format, expressions, tables),
    st.builds("PREPARE p AS SELECT {} FROM {} WHERE {}".format, expressions, tables, expressions),
    st.builds("DECLARE c CURSOR WITH HOLD FOR SELECT {} FROM {}".format, expressions, tables),
    st.builds("COPY (SELECT {} FROM {}) TO STDOUT".format, expressions, tables),
    st.builds("SET {} = {}".format, settings_names, seals),
    st.sampled_from(
        ["EXECUTE p", "FETCH ALL FROM c", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RESET ALL"]
    ),
    st.sampled_from(STATEMENTS),
    st.sampled_from([text for text in UTILITIES if not text.startswith("ALTER ROLE CURRENT_USER")]),
)


async def _seals_of_others(arena: Arena) -> dict[str, str]:
    """Return seals of globex that really were, or could be, made: none of them is for the attacker's connection."""
    async with arena.raw.statement("globex") as connection:
        live = await connection.fetchval("SELECT current_setting('tenantry.seal')")
        backend = await connection.fetchrow("SELECT * FROM tenantry.session()")
    assert backend is not None
    key = SealKey.parse(arena.options["database"]["seal_key"])
    system = backend["system_identifier"]
    expired = Sealer([key], system).sign("globex", None, backend["now"] - 3_600)
    foreign = Sealer([key], str(int(system) + 1)).sign("globex", None, backend["now"])
    return {"live": live, "expired": expired, "foreign": foreign}


@both_roles
@given(script=st.lists(composed, min_size=1, max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_no_composed_script_reaches_another_tenant(arena: Arena, role: str, script: list[str]) -> None:
    pool, before = arena.pool(role), await arena.fingerprint("globex")
    stolen = await _seals_of_others(arena)
    texts = []
    for text in script:
        for name, value in stolen.items():
            text = text.replace(f"{{{name}}}", value)
        texts.append(arena.fill(text, role))
    seen = await inject(pool, *texts)
    await check_victim(arena, before, "".join(texts), seen)
    await check_next_users(arena)


# --- what is left behind ------------------------------------------------------------------------------------------


async def on_every_connection(pool: TenantPool, *texts: str) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(pool.max_size):
            connection = await stack.enter_async_context(pool.statement("acme"))
            for text in texts:
                await run(connection, text)


@pytest.mark.parametrize("text", ["DISCARD ALL", "DEALLOCATE ALL", "SET default_transaction_read_only = on"])
async def test_the_pool_lets_go_of_a_connection_that_lost_its_state(direct_arena: Arena, text: str) -> None:
    """Nothing of ours does this to an app connection; a failover, a proxy or an attack may."""
    arena = direct_arena
    writes = [arena.acme.data.upsert(Setting(id=f"mine {n}", value="x")) for n in range(arena.app.max_size)]
    await asyncio.gather(*writes)  # so that statements are prepared
    await on_every_connection(arena.app, text)
    failures = 0
    for _ in range(3 * arena.app.max_size):
        for data in (arena.acme.data, arena.globex.data):
            found = await outcome_of(data.upsert(Setting(id="theme", value=arena.secret)))
            failures += isinstance(found, TenantryError)
    assert failures <= arena.app.max_size
    await check_next_users(arena)


async def test_nothing_of_one_use_is_left_on_a_raw_connection(arena: Arena) -> None:
    """Whether the attack ended well or not: no statement, cursor, channel, setting or table meets the next tenant."""
    leavings = (
        "PREPARE leak AS SELECT 1",
        "DECLARE leak CURSOR WITH HOLD FOR SELECT * FROM customers",
        "LISTEN leak",
        "SET leak.x = 'left behind'",
        "SET search_path = tenantry",
        "SET statement_timeout = 1",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "CREATE TEMP TABLE customers (id int)",
        "LOAD 'auto_explain'",
    )
    look = (
        "SELECT name FROM pg_cursors WHERE name = 'leak' UNION ALL SELECT * FROM pg_listening_channels() UNION ALL "
        "SELECT current_setting('leak.x', true) UNION ALL SELECT current_setting('search_path') UNION ALL "
        "SELECT current_setting('default_transaction_read_only') UNION ALL "
        "SELECT relname FROM pg_class WHERE relpersistence = 't'"
    )
    clean = {None, "", "off", "public, pg_temp"}
    for text in leavings:
        for ending in ("COMMIT", "ROLLBACK", "SELECT 1/0", "COMMIT; BEGIN; SELECT 1/0", "COMMIT; BEGIN"):
            before = "COMMIT; BEGIN" if text.startswith("CREATE") else "SELECT 1"
            await inject(arena.raw, before, text, ending)
            for _ in range(2):
                async with arena.raw.statement("globex") as connection:
                    rows = await connection.fetch(look)
                    assert {row[0] for row in rows} <= clean, (text, ending)
                    assert len(await connection.fetch("UPDATE settings SET value = value RETURNING 1")) == 2
                (gone, *_) = await inject(arena.raw, "EXECUTE leak", tenant="globex")
                assert isinstance(gone, asyncpg.InvalidSQLStatementNameError), (text, ending)


@both_roles
async def test_a_statement_prepared_anew_in_the_name_of_ours_does_not_spy(arena: Arena, role: str) -> None:
    """The attacker replaces the statement that binds the next tenant by one that also keeps the seal for later.

    It needs the statement's name: it looks for it where the server lists them, and else guesses as the driver counts.
    """
    pool = arena.pool(role)
    spy = (
        "SELECT set_config('tenantry.seal', $1, false) FROM (SELECT set_config('leak.seals', "
        "concat(current_setting('leak.seals', true), ' ', $1), false)) s"
    )
    last = int(str(getattr(asyncpg.connection, "_uid", 0)))
    guesses = [f"__asyncpg_stmt_{number:x}__" for number in range(max(0, last - 500), last + 50)]
    for _ in range(pool.max_size):
        (listed, *_) = await inject(pool, "SELECT name FROM pg_prepared_statements WHERE NOT from_sql")
        names = guesses if isinstance(listed, asyncpg.PostgresError) else [row[0] for row in listed if row[0]]
        await inject(pool, *(f"DEALLOCATE {name}; PREPARE {name}(text) AS {spy}" for name in names))
        await inject(pool, "SELECT 1", tenant="globex")
    for _ in range(pool.max_size):
        (kept, *_) = await inject(pool, "SELECT current_setting('leak.seals', true)")
        for seal in str(kept[0][0]).split():
            stolen = f"SELECT set_config('tenantry.seal', '{seal}', false)"
            assert not arena.reveals(await inject(pool, stolen, "SELECT * FROM customers"))
