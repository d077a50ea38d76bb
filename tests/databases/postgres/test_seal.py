"""Only the SDK can name a tenant: forged, stale, foreign and replayed seals open nothing."""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.databases.postgres.provision import add_seal_key, retire_seal_key
from tenantry.databases.postgres.seal import (
    SEAL_SECONDS,
    TICKET_SECONDS,
    Backend,
    Sealer,
    SealKey,
    parse_keys,
)
from tenantry.errors import ConfigurationError
from tests.databases.postgres.conftest import Site

SET = "SELECT set_config('tenantry.seal', $1, false)"
BIND = "SELECT set_config('tenantry.seal', tenantry.bind($1), true)"
VISIBLE = "SELECT array_agg(DISTINCT tenant_id) FROM products"

# What the server says to a seal that it does not accept: our own words, or that a field is not of its type.
REFUSED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.InvalidParameterValueError,
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.DatetimeFieldOverflowError,
)


class Session:
    """One connection of the app role, and what the SDK knows of it."""

    def __init__(self, connection: Any, sealer: Sealer, backend: Backend) -> None:
        self.connection = connection
        self.sealer = sealer
        self.backend = backend

    def seal(self, tenant: str, *, age: float = 0) -> str:
        return self.sealer.sign(tenant, self.backend, time.time() - age)

    def ticket(self, tenant: str, *, age: float = 0) -> str:
        return self.sealer.sign(tenant, None, time.time() - age)

    async def visible(self, seal: str | None) -> Any:
        if seal is not None:
            await self.connection.fetchval(SET, seal)
        return await self.connection.fetchval(VISIBLE)


async def _session(site: Site, key: SealKey | None = None) -> Session:
    connection: Any = await asyncpg.connect(site.made.urls["app"])
    row = await connection.fetchrow("SELECT * FROM tenantry.session()")
    backend = Backend(row["pid"], row["slot"], row["started"])
    return Session(connection, Sealer([key or site.key], row["system_identifier"]), backend)


@pytest.fixture
async def session(site: Site) -> AsyncIterator[Session]:
    made = await _session(site)
    yield made
    await made.connection.close()


@pytest.fixture
async def other(site: Site) -> AsyncIterator[Session]:
    made = await _session(site)
    yield made
    await made.connection.close()


# -- what the SDK signs


@given(
    st.binary(min_size=32, max_size=200), st.text("abc-._", min_size=1), st.integers(0, 2**31), st.binary()
)
def test_the_mac_is_hmac_sha256(secret: bytes, tenant: str, slot: int, started: bytes) -> None:
    key = SealKey("k1", secret)
    seal = Sealer([key], "42").sign(tenant, Backend(1, slot, started), 1000.9)
    claim = f"v1|k1|{1000 + SEAL_SECONDS}|{slot}|{tenant}|"
    assert seal == claim + hmac.digest(secret, claim.encode() + b"42" + started, "sha256").hex()
    ticket = Sealer([key], "42").sign(tenant, None, 1000.9)
    claim = f"t1|k1|{1000 + TICKET_SECONDS}|-1|{tenant}|"
    assert ticket == claim + hmac.digest(secret, claim.encode() + b"42", "sha256").hex()


def test_the_newest_key_signs() -> None:
    keys = parse_keys(f"{SealKey.generate().export()}, {SealKey.generate().export()}")
    assert f"|{keys[0].kid}|" in Sealer(keys, "1").sign("a", None, 0)
    assert f"|{keys[1].kid}|" not in Sealer(keys, "1").sign("a", None, 0)


def test_a_key_survives_its_text_form_and_stays_out_of_repr() -> None:
    key = SealKey.generate()
    assert SealKey.parse(key.export()) == key
    assert key.export().partition(":")[2] not in repr(key)
    assert repr(key.secret) not in repr(key)


@pytest.mark.parametrize("text", ["", "k1", "k1:", "k1:%%%", "k1:QUJD", "K 1:" + "A" * 44, ":" + "A" * 44])
def test_a_malformed_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SealKey.parse(text)
    secret = text.partition(":")[2]
    assert not secret or secret not in str(caught.value)


def test_a_sealer_needs_a_key() -> None:
    with pytest.raises(ConfigurationError):
        Sealer([], "1")


# -- what the server accepts


async def test_a_seal_shows_its_tenant_and_no_seal_shows_nothing(session: Session) -> None:
    assert await session.visible(None) is None
    assert await session.visible(session.seal("a")) == ["a"]
    assert await session.visible(session.seal("b")) == ["b"]
    assert await session.visible("") is None
    assert await session.visible(session.seal("a")) == ["a"]
    await session.connection.execute("RESET tenantry.seal")
    assert await session.visible(None) is None


def _swapped(seal: str, index: int, value: str) -> str:
    parts = seal.split("|")
    parts[index] = value
    return "|".join(parts)


FORGERIES: dict[str, Callable[[Session], str]] = {
    "another tenant": lambda s: _swapped(s.seal("a"), 4, "b"),
    "a longer life": lambda s: _swapped(s.seal("a", age=SEAL_SECONDS + 60), 2, str(int(time.time()) + 60)),
    "another slot": lambda s: _swapped(s.seal("a"), 3, str(s.backend.slot + 1)),
    "no slot": lambda s: _swapped(s.seal("a"), 3, "-1"),
    "another key's name": lambda s: _swapped(s.seal("a"), 1, "k0"),
    "another version": lambda s: _swapped(s.seal("a"), 0, "v2"),
    "a zero MAC": lambda s: _swapped(s.seal("a"), 5, "0" * 64),
    "an empty MAC": lambda s: _swapped(s.seal("a"), 5, ""),
    "a cut MAC": lambda s: s.seal("a")[:-2],
    "a MAC that is no hex": lambda s: _swapped(s.seal("a"), 5, "z" * 64),
    "a field more": lambda s: s.seal("a") + "|b",
    "a tenant more": lambda s: _swapped(s.seal("a"), 4, "a|b"),
    "a field less": lambda s: s.seal("a").replace("|a|", "|"),
    "words": lambda s: "let me in",
    "separators": lambda s: "|" * 5,
    "SQL": lambda s: "'; SELECT set_config('tenantry.seal', '', false); --",
    "a ticket": lambda s: s.ticket("a"),
    "a ticket with our slot": lambda s: _swapped(s.ticket("a"), 3, str(s.backend.slot)),
    "an expired seal": lambda s: s.seal("a", age=SEAL_SECONDS + 1),
    "a seal of another server": lambda s: Sealer(s.sealer.keys, "1").sign("a", s.backend, time.time()),
    "a seal of an older backend": lambda s: s.sealer.sign(
        "a", s.backend._replace(started=bytes(8)), time.time()
    ),
    "a seal with another secret": lambda s: Sealer(
        [SealKey(s.sealer.keys[0].kid, bytes(32))], s.sealer._system.decode()
    ).sign("a", s.backend, time.time()),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forgery_reads_and_writes_nothing(
    session: Session, forgery: Callable[[Session], str]
) -> None:
    await session.connection.fetchval(SET, forgery(session))
    statements = [
        VISIBLE,
        "SELECT tenantry.current_tenant()",
        "INSERT INTO products (tenant_id, id) VALUES ('a', 9)",
        "UPDATE products SET name = 'x'",
        "DELETE FROM products",
    ]
    for statement in statements:
        with pytest.raises(REFUSED):
            await session.connection.execute(statement)


@given(st.integers(0, 200), st.sampled_from("0123456789abcdefvt|-. "))
async def test_no_changed_character_goes_unnoticed(site: Site, place: int, character: str) -> None:
    session = await _session(site)
    try:
        seal = session.seal("a")
        place %= len(seal)
        changed = seal[:place] + character + seal[place + 1 :]
        if changed != seal:
            with pytest.raises(REFUSED):
                await session.visible(changed)
    finally:
        await session.connection.close()


async def test_the_server_says_why(session: Session, other: Session) -> None:
    for seal, reason in [
        (session.seal("a", age=SEAL_SECONDS + 60), "has expired"),
        (other.seal("a"), "was made for another connection"),
        (_swapped(session.seal("a"), 4, "b"), "is forged, or its key was retired"),
        ("nonsense", "is malformed"),
    ]:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"^tenantry: the seal {reason}"):
            await session.visible(seal)


async def test_a_seal_is_void_on_every_other_connection(session: Session, other: Session, site: Site) -> None:
    seal = session.seal("a")
    assert await session.visible(seal) == ["a"]
    stolen = await session.connection.fetchval("SELECT current_setting('tenantry.seal')")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await other.visible(stolen)
    await session.connection.close()
    later = await _session(site)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await later.visible(stolen)
    await later.connection.close()


async def test_a_seal_outlives_its_expiry_only_to_the_end_of_its_transaction(session: Session) -> None:
    seal = session.sealer.sign("a", session.backend, time.time() - SEAL_SECONDS + 1)
    async with session.connection.transaction():
        assert await session.visible(seal) == ["a"]
        await session.connection.execute("SELECT pg_sleep(1.5)")
        assert await session.visible(None) == ["a"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="has expired"):
        await session.visible(None)


# -- tickets, for transaction poolers


async def test_a_ticket_serves_one_transaction(session: Session, other: Session) -> None:
    connection = session.connection
    async with connection.transaction():
        await connection.fetchval(BIND, session.ticket("a"))
        assert await session.visible(None) == ["a"]
        stolen = await connection.fetchval("SELECT current_setting('tenantry.seal')")
    assert await session.visible(None) is None
    for session_ in (session, other):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session_.visible(stolen)
        async with session_.connection.transaction():
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session_.visible(stolen)


async def test_a_commit_in_between_ends_what_the_ticket_gave(session: Session) -> None:
    await session.connection.execute("BEGIN")
    await session.connection.fetchval(BIND, session.ticket("a"))
    await session.connection.execute("COMMIT; BEGIN")
    assert await session.visible(None) is None
    await session.connection.execute("ROLLBACK")


@pytest.mark.parametrize(
    "ticket",
    [
        lambda s: s.ticket("a", age=TICKET_SECONDS + 1),
        lambda s: s.ticket("a", age=-3600),
        lambda s: s.seal("a"),
        lambda s: _swapped(s.ticket("a"), 4, "b"),
        lambda s: _swapped(s.ticket("a"), 0, "v1"),
        lambda s: "",
        lambda s: None,
    ],
    ids=["stale", "too long", "a seal", "another tenant", "another version", "empty", "null"],
)
async def test_a_bad_ticket_is_refused(session: Session, ticket: Callable[[Session], str | None]) -> None:
    with pytest.raises(REFUSED):
        await session.connection.fetchval(BIND, ticket(session))


async def test_every_start_of_a_transaction_survives_being_written_into_a_seal(site: Site) -> None:
    # A seal made from a ticket expires at the microsecond its transaction began. One microsecond lost in conversion
    # would refuse it, one gained would let the next transaction have it.
    async with site.connected() as admin:
        wrong = await admin.fetchval(
            """SELECT count(*) FROM (
              SELECT timestamptz '2025-01-01' + random() * interval '30 years' AS t FROM generate_series(1, 100000)
            ) made WHERE to_timestamp(extract(epoch FROM t)::text::float8) <> t"""
        )
    assert wrong == 0


# -- keys


async def test_two_keys_are_valid_during_a_rotation_and_a_retired_one_is_not(site: Site) -> None:
    async with site.connected("owner") as owner:
        new = await add_seal_key(owner)
        old_session, new_session = await _session(site), await _session(site, new)
        try:
            with pytest.raises(ConfigurationError, match="Two seal keys"):
                await add_seal_key(owner)
            assert await old_session.visible(old_session.seal("a")) == ["a"]
            assert await new_session.visible(new_session.seal("a")) == ["a"]
            await retire_seal_key(owner, new.kid)
            assert await old_session.visible(old_session.seal("a")) == ["a"]
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="retired"):
                await new_session.visible(None)
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="retired"):
                await new_session.connection.fetchval(BIND, new_session.ticket("a"))
            with pytest.raises(ConfigurationError, match="the only valid"):
                await retire_seal_key(owner, site.key.kid)
            with pytest.raises(ConfigurationError, match="No valid seal key"):
                await retire_seal_key(owner, new.kid)
        finally:
            await old_session.connection.close()
            await new_session.connection.close()


@pytest.mark.parametrize("role", ["app", "raw", "control"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM tenantry.seal_keys",
        "SELECT kid FROM tenantry.seal_keys",
        "INSERT INTO tenantry.seal_keys (kid, inner_pad, outer_pad) VALUES ('x', '', '')",
        "UPDATE tenantry.seal_keys SET retired_at = NULL",
        "DELETE FROM tenantry.seal_keys",
        "COPY tenantry.seal_keys TO STDOUT",
        "SELECT tenantry.refuse(NULL)",
        "ALTER FUNCTION tenantry.current_tenant() OWNER TO CURRENT_USER",
        "CREATE OR REPLACE FUNCTION tenantry.current_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'b'$$",
        "DROP FUNCTION tenantry.current_tenant() CASCADE",
        "DROP POLICY tenantry_app ON products",
        "SELECT query_to_xml('SELECT * FROM tenantry.seal_keys', true, false, '')",
    ],
)
async def test_no_role_that_serves_reaches_the_keys(site: Site, role: str, statement: str) -> None:
    async with site.connected(role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


# -- how it behaves in plans and sessions


@pytest.mark.parametrize(
    "setting",
    [
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'SQL, DMY'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "standard_conforming_strings = off",
        "search_path = pg_temp, public, pg_catalog",
        "role = none",
        "transform_null_equals = on",
        "plan_cache_mode = force_generic_plan",
        "default_transaction_isolation = serializable",
    ],
)
async def test_no_setting_of_the_session_changes_the_answer(session: Session, setting: str) -> None:
    await session.connection.execute(f"SET {setting}")
    assert await session.visible(session.seal("a")) == ["a"]
    assert await session.visible(session.seal("b")) == ["b"]
    assert await session.visible("") is None


async def test_row_security_cannot_be_switched_off(session: Session) -> None:
    await session.connection.fetchval(SET, session.seal("a"))
    await session.connection.execute("SET row_security = off")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.connection.fetch("SELECT * FROM products")


async def test_the_seal_is_checked_once_a_statement(session: Session) -> None:
    await session.connection.fetchval(SET, session.seal("a"))
    plan = await session.connection.fetch("EXPLAIN (COSTS OFF) SELECT * FROM products")
    assert any("InitPlan" in row[0] for row in plan)


async def test_a_plan_over_the_policy_can_be_parallel(site: Site, session: Session) -> None:
    await session.connection.fetchval(SET, session.seal("a"))
    for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        await session.connection.execute(f"SET {name} = 0")
    await session.connection.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
    plan = await session.connection.fetch("EXPLAIN (COSTS OFF) SELECT * FROM products WHERE name LIKE '%1'")
    assert any("Parallel Seq Scan" in row[0] for row in plan)
    assert await session.connection.fetchval("SELECT count(*) FROM products WHERE name LIKE '%1'") == 1
