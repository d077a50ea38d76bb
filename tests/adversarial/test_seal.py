"""The seal: forged, stale, stolen, replayed, rotated. A connection shows the tenant it was bound to, or nobody."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry import MultiTenantSDK
from tenantry.databases.postgres.pool import TenantPool
from tenantry.databases.postgres.provision import add_seal_key, retire_seal_key
from tenantry.databases.postgres.seal import SEAL_SECONDS, TICKET_SECONDS, Backend, Sealer, SealKey
from tenantry.errors import IsolationError, SealRejected
from tests.adversarial.arena import Arena, another_sdk
from tests.adversarial.models import Customer, Setting
from tests.adversarial.test_injected_sql import both_roles, inject

REJECTION = "tenantry: the seal "


@dataclass
class Forge:
    """All that the SDK knows of one connection, in the hands of the attacker, but for what a test spoils."""

    key: SealKey
    system: str
    backend: Backend
    now: float

    def sign(self, **spoilt: Any) -> str:
        known: dict[str, Any] = {**vars(self), "tenant": "globex"} | spoilt
        sealer = Sealer([known["key"]], known["system"])
        return sealer.sign(known["tenant"], known["backend"], known["now"])


async def forge_for(arena: Arena, connection: Any) -> Forge:
    session = await connection.fetchrow("SELECT * FROM tenantry.session()")
    key = SealKey.parse(arena.options["database"]["seal_key"])
    backend = Backend(session["pid"], session["slot"], session["started"])
    return Forge(key, session["system_identifier"], backend, session["now"])


@asynccontextmanager
async def undone(connection: Any) -> AsyncIterator[None]:
    """Take back what the block did, and go on after an error in it."""
    inside = connection.is_in_transaction()
    await connection.execute("SAVEPOINT attempt" if inside else "BEGIN")
    try:
        yield
    finally:
        await connection.execute("ROLLBACK TO attempt" if inside else "ROLLBACK")


async def tenants_under(connection: Any, seal: str) -> object:
    """Return whose rows show under a seal, or how it was refused."""
    try:
        async with undone(connection):
            await connection.execute("SELECT set_config('tenantry.seal', $1, false)", seal)
            rows = await connection.fetch("SELECT tenant_id FROM customers")
            current = await connection.fetchval("SELECT tenantry.current_tenant()")
            found = {row["tenant_id"] for row in rows}
            assert found == (set() if current is None else {current})
            return found
    except asyncpg.PostgresError as error:
        return str(error)


FORGERIES: dict[str, Callable[[Forge], str]] = {
    "of another backend": lambda forge: forge.sign(
        backend=forge.backend._replace(slot=forge.backend.slot + 1)
    ),
    "of an earlier backend in this slot": lambda forge: forge.sign(
        backend=forge.backend._replace(
            started=(int.from_bytes(forge.backend.started, "big") - 1).to_bytes(8, "big")
        )
    ),
    "of another server": lambda forge: forge.sign(system=str(int(forge.system) + 1)),
    "of another key of this name": lambda forge: forge.sign(key=SealKey(forge.key.kid, bytes(32))),
    "of an unknown key": lambda forge: forge.sign(key=SealKey.generate()),
    "that has expired": lambda forge: forge.sign(now=forge.now - SEAL_SECONDS - 2),
    "that is a ticket": lambda forge: forge.sign(backend=None),
    "that is a ticket in disguise": lambda forge: forge.sign(backend=None).replace("t1|", "v1|", 1),
    "of another tenant, renamed": lambda forge: forge.sign(tenant="acme").replace("|acme|", "|globex|"),
    "of another tenant, with one more part": lambda forge: forge.sign(tenant="acme").replace(
        "|acme|", "|globex|acme|"
    ),
    "with another's MAC": lambda forge: forge.sign()[:-64] + forge.sign(tenant="acme")[-64:],
    "with a MAC of nothing": lambda forge: forge.sign()[:-64],
    "with a MAC of zeros": lambda forge: forge.sign()[:-64] + "0" * 64,
    "with a short MAC": lambda forge: forge.sign()[:-2],
    "with a longer life": lambda forge: re.sub(
        r"\|(\d{10})\|", "|9999999999|", forge.sign(now=forge.now - 9_999)
    ),
    "with an endless life": lambda forge: re.sub(r"\|\d{10}\|", "|infinity|", forge.sign()),
}


@both_roles
async def test_a_forged_seal_is_refused(arena: Arena, role: str) -> None:
    async with arena.pool(role).statement("acme") as connection:
        forge = await forge_for(arena, connection)
        for name, make in FORGERIES.items():
            found = await tenants_under(connection, make(forge))
            assert isinstance(found, str), name  # most by us, some by a cast that fails first
        # the forge is able: with nothing spoilt, its seal opens. So what is refused above is refused for its reason.
        assert await tenants_under(connection, forge.sign()) == {"globex"}
        assert await tenants_under(connection, "") == set()


@both_roles
async def test_a_forged_ticket_is_refused(arena: Arena, role: str) -> None:
    async with arena.pool(role).statement("acme") as connection:
        forge = await forge_for(arena, connection)
        tickets = {
            "that has expired": forge.sign(backend=None, now=forge.now - TICKET_SECONDS - 2),
            "for years to come": forge.sign(backend=None, now=forge.now + 10_000),
            "that is a seal": forge.sign(),
            "that is a seal in disguise": forge.sign().replace("v1|", "t1|", 1),
            "of another server": forge.sign(backend=None, system="1"),
            "of an unknown key": forge.sign(backend=None, key=SealKey.generate()),
            "of another key of this name": forge.sign(backend=None, key=SealKey(forge.key.kid, bytes(32))),
            "of another tenant, renamed": forge.sign(backend=None, tenant="acme").replace(
                "|acme|", "|globex|"
            ),
            "of nothing": "",
        }
        for name, ticket in tickets.items():
            found = await _bound(connection, ticket)
            assert isinstance(found, str), name
            assert found.startswith(REJECTION), (name, found)
        assert str(await _bound(connection, forge.sign(backend=None))).startswith("v1|")


async def _bound(connection: Any, ticket: str) -> object:
    try:
        async with undone(connection):
            return await connection.fetchval("SELECT tenantry.bind($1)", ticket)
    except asyncpg.PostgresError as error:
        return str(error)


@both_roles
async def test_a_live_seal_of_another_connection_is_void(arena: Arena, role: str) -> None:
    pool = arena.pool(role)
    for other in (arena.app, arena.raw):
        async with other.statement("globex") as theirs:
            live = await theirs.fetchval("SELECT current_setting('tenantry.seal')")
            assert "globex" in live
            async with pool.statement("acme") as connection:
                found = await tenants_under(connection, live)
                assert isinstance(found, str)
                assert found.startswith(REJECTION)
            assert await theirs.fetchval("SELECT tenantry.current_tenant()") == "globex"


async def _replay(pool: TenantPool) -> None:
    """Let one backend serve two tenants in turn, each with the seals that it had before."""
    seals: list[str] = []
    for _ in range(30):
        async with pool.statement("globex") as theirs:
            seals.append(await theirs.fetchval("SELECT current_setting('tenantry.seal')"))
        async with pool.statement("acme") as connection:
            for seal in seals[-3:]:
                found = await tenants_under(connection, seal)
                assert isinstance(found, str)
                assert found.startswith(REJECTION)
            seals.append(await connection.fetchval("SELECT current_setting('tenantry.seal')"))


async def test_a_raw_seal_of_one_transaction_is_void_in_the_next(arena: Arena) -> None:
    """A tenant's own SQL may read it, and keep it for when it meets that backend again."""
    await _replay(arena.raw)


async def test_behind_a_pooler_so_is_every_seal(pooled_arena: Arena) -> None:
    await _replay(pooled_arena.app)


async def test_a_seal_made_local_by_hand_ends_with_its_transaction(pooled_arena: Arena) -> None:
    """The attacker keeps its seal for the session; whoever gets that backend next is not acme for it."""
    arena = pooled_arena
    for pool in (arena.app, arena.raw):
        keep = "SELECT set_config('tenantry.seal', current_setting('tenantry.seal'), false)"
        await inject(pool, keep)
        (found, *_) = await inject(pool, "SELECT * FROM customers", tenant=None)
        assert found == [] or str(found).startswith(REJECTION)
        await inject(pool, f"{keep}; COMMIT; BEGIN")
        await arena.check_readers()


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_change_of_a_seal_makes_another_tenant_of_it(
    direct_arena: Arena, data: st.DataObject
) -> None:
    """Where a changed text is accepted at all, such as with the MAC in capitals, it still names acme."""
    async with direct_arena.app.statement("acme") as connection:
        seal = await connection.fetchval("SELECT current_setting('tenantry.seal')")
        parts = seal.split("|")
        piece = st.one_of(
            st.sampled_from(
                [*parts, "globex", "v1", "t1", "-1", "0", "", "NaN", "Infinity", "1e9", "\u0661", "'"]
            ),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
            st.integers().map(str),
        )
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(parts) - 1))
            change = data.draw(st.sampled_from(["replace", "insert", "delete", "upper", "swap"]))
            if change == "replace":
                parts[place] = data.draw(piece)
            elif change == "insert":
                parts.insert(place, data.draw(piece))
            elif change == "delete" and len(parts) > 1:
                del parts[place]
            elif change == "upper":
                parts[place] = parts[place].upper()
            else:
                parts[0], parts[place] = parts[place], parts[0]
        found = await tenants_under(connection, "|".join(parts))
        assert isinstance(found, str) or found in (set(), {"acme"})
        if isinstance(found, set) and found:
            assert "|".join(parts).lower() == seal
        assert await connection.fetchval("SELECT tenantry.current_tenant()") == "acme"


async def test_without_a_seal_there_is_no_row_and_no_write(arena: Arena) -> None:
    for pool in (arena.app, arena.raw):
        for table in ("customers", "orders", "settings"):
            seen = await inject(
                pool, f"SELECT * FROM {table}", f"UPDATE {table} SET version = 9", tenant=None
            )
            assert seen[:2] == [[], []]
        for tenant in ("NULL", "''", "'acme'", "'globex'", "DEFAULT"):
            seen = await inject(
                pool, f"INSERT INTO settings (tenant_id, id, value) VALUES ({tenant}, 'x', 'x')", tenant=None
            )
            assert isinstance(seen[0], asyncpg.PostgresError), tenant
    async with arena.unharmed():
        pass


class TestKeys:
    async def test_are_rotated_while_tenants_are_served(self, own_arenas: Arena) -> None:
        arena = own_arenas
        old = SealKey.parse(arena.options["database"]["seal_key"])
        new = await add_seal_key(arena.judge)
        both = f"{new.export()},{old.export()}"
        async with another_sdk(arena, database={"seal_key": both}) as rotated:
            await _served(arena.sdk)
            await _served(rotated)
            await retire_seal_key(arena.judge, old.kid)
            await _served(rotated)
            # whoever still has only the old key is refused at once, and shown nothing, not an empty page
            for _ in range(3):
                for data in (arena.acme.data, arena.globex.data):
                    with pytest.raises(SealRejected):
                        await data.read(Customer)
                    with pytest.raises(SealRejected):
                        await data.create(Setting(id="new", value="x"))
                    with pytest.raises(SealRejected):
                        await data.sql("SELECT 1 FROM customers")

    async def test_that_were_retired_open_nothing_on_a_live_connection(self, own_arena: Arena) -> None:
        arena = own_arena
        old = SealKey.parse(arena.options["database"]["seal_key"])
        async with arena.app.statement("acme") as connection:
            forge = await forge_for(arena, connection)
            await add_seal_key(arena.judge)
            assert await tenants_under(connection, forge.sign(tenant="acme")) == {"acme"}
            await retire_seal_key(arena.judge, old.kid)
            assert str(await tenants_under(connection, forge.sign(tenant="acme"))).startswith(REJECTION)
            # its pads are gone as well, so a key of zeros under its name is not valid either
            blank = SealKey(old.kid, bytes(byte ^ 0x36 for byte in bytes(64)))
            assert str(await tenants_under(connection, forge.sign(key=blank))).startswith(REJECTION)

    async def test_of_another_database_open_nothing(self, direct_arena: Arena) -> None:
        with pytest.raises(IsolationError):
            async with another_sdk(direct_arena, database={"seal_key": SealKey.generate().export()}):
                pass

    @pytest.mark.parametrize("role", ["app", "raw", "control"])
    async def test_are_read_by_no_role(self, direct_arena: Arena, role: str) -> None:
        arena = direct_arena
        pool: TenantPool = arena.adapter._control if role == "control" else arena.pool(role)
        tenant = None if role == "control" else "acme"
        for text in (
            "SELECT * FROM tenantry.seal_keys",
            "SELECT count(*) FROM tenantry.seal_keys",
            "UPDATE tenantry.seal_keys SET retired_at = NULL",
            "INSERT INTO tenantry.seal_keys (kid, inner_pad, outer_pad) VALUES ('mine', ''::bytea, ''::bytea)",
            "DELETE FROM tenantry.seal_keys",
            "SELECT s::text FROM pg_stats s WHERE tablename = 'seal_keys'",
        ):
            (seen, *_) = await inject(pool, text, tenant=tenant)
            assert seen == [] or isinstance(seen, asyncpg.InsufficientPrivilegeError), text


async def _served(sdk: MultiTenantSDK) -> None:
    for tenant in ("acme", "globex"):
        data = sdk.tenant(tenant).data
        assert len(await data.read(Customer)) == 2
        assert len(await data.sql("SELECT 1 FROM customers")) == 2
        async with data.transaction() as unit:
            await unit.update(Setting, "theme", value="x")


async def test_the_owner_sees_no_row_of_a_tenant(direct_arena: Arena) -> None:
    """FORCE: migrations run as the owner of the tables, and a mistake in one must not read tenants' rows."""
    arena = direct_arena
    owner = await asyncpg.connect(arena.options["database"]["owner_url"])
    try:
        for table in (
            "customers",
            "orders",
            "settings",
            "tenantry.tenants",
            "tenantry.idempotency",
            "tenantry.audit",
        ):
            seen = await owner.fetchval(f"SELECT count(*) FROM {table}")
            assert bool(seen) == (
                table == "tenantry.tenants"
            )  # whose plan the functions that count must know
            assert await owner.fetchval(
                "SELECT relforcerowsecurity FROM pg_class WHERE oid = $1::regclass", table
            )
            assert await owner.execute(f"DELETE FROM {table}") == "DELETE 0"
    finally:
        await owner.close()
    await arena.check_readers()
