"""What was done so far, in the database itself: a killed run goes on where it was, and all can be undone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from tenantry.databases.postgres.adopt.plan import Plan, parse_plan
from tenantry.databases.postgres.findings import INIT_COMMAND, ExpectedTable
from tenantry.databases.postgres.policies import Roles, quote
from tenantry.errors import AdoptionError

PLAN: Final = "plan"
CANARY: Final = "policies"
ENFORCED: Final = "enforce"
OWNER: Final = "owner"
_LOCK: Final = 0x61646F7074  # "adopt"
_WAIT_SECONDS: Final = 20.0


class Entry(NamedTuple):
    """One step in the journal.

    Attributes:
        step: Its name.
        done: Whether it is done; otherwise it was begun.
        progress: How far it is.
        undo: The statements that undo it.
    """

    step: str
    done: bool
    progress: dict[str, Any]
    undo: tuple[str, ...]


class Journal:
    """The table ``tenantry.adoption``.

    Args:
        connection: An asyncpg connection of a role that may write it.
        roles: The names of the roles.
    """

    def __init__(self, connection: Any, roles: Roles) -> None:
        self._connection = connection
        self._roles = roles

    async def create(self) -> None:
        """Make the table if there is none. Control may read it, app and raw may not."""
        async with self._connection.transaction():
            await self._connection.execute(f"SET LOCAL ROLE {quote(self._roles.owner)}")
            await self._connection.execute(_TABLE)
            await self._connection.execute(
                f"GRANT SELECT ON tenantry.adoption TO {quote(self._roles.control)}"
            )

    async def entries(self) -> list[Entry]:
        """Return the steps in the order in which they were begun; none where there is no journal."""
        return await entries(self._connection)

    async def begin(
        self, step: str, undo: Sequence[str] = (), progress: dict[str, Any] | None = None
    ) -> None:
        """Note that a step begins, and what will undo it. A step that was begun before stays as it is."""
        await self._connection.execute(_BEGIN, step, list(undo), json.dumps(progress or {}))

    async def advance(self, step: str, progress: dict[str, Any], undo: Sequence[str] | None = None) -> None:
        """Note how far a step is, and what will undo that.

        Whoever can, notes it in the transaction that does it, so that both are true or neither.
        """
        known = None if undo is None else list(undo)
        await self._connection.execute(_ADVANCE, step, json.dumps(progress), known)

    async def finish(self, step: str) -> None:
        """Note that a step is done."""
        await self._connection.execute(_FINISH, step)

    async def forget(self, step: str) -> None:
        """Strike a step that was undone."""
        await self._connection.execute("DELETE FROM tenantry.adoption WHERE step = $1", step)

    async def drop(self) -> None:
        """Drop the table: nothing is adopted any more."""
        await self._connection.execute("DROP TABLE tenantry.adoption")


async def entries(connection: Any) -> list[Entry]:
    """Return the journal's steps in their order; none where there is no journal, or the role may not read it."""
    if not await connection.fetchval(_READABLE):
        return []
    rows = await connection.fetch(
        "SELECT step, state, progress, undo FROM tenantry.adoption ORDER BY position"
    )
    return [
        Entry(row["step"], row["state"] == "done", json.loads(row["progress"]), tuple(row["undo"]))
        for row in rows
    ]


def plan_of(journal: Sequence[Entry]) -> Plan | None:
    """Return the plan that is being applied."""
    return next((parse_plan(entry.progress["plan"]) for entry in journal if entry.step == PLAN), None)


def is_done(journal: Sequence[Entry], step: str) -> bool:
    """Whether a step is done."""
    return any(entry.step == step and entry.done for entry in journal)


async def adopted_tables(connection: Any) -> list[ExpectedTable]:
    """Return the tables whose policies were made, as they are meant to be; for the doctor.

    Args:
        connection: An asyncpg connection of the control role or a more powerful one.
    """
    journal = await entries(connection)
    plan = plan_of(journal)
    return expected_tables(plan) if plan is not None and is_done(journal, CANARY) else []


def expected_tables(plan: Plan) -> list[ExpectedTable]:
    """Return how the tables of a plan are meant to be once it is enforced."""
    found = []
    for table in plan.of_kind("root", "tenant", "shared", "open"):
        schema, _, name = table.table.partition(".")
        kind = "tenant" if table.has_tenant else table.kind
        assert kind in ("tenant", "shared", "open")
        found.append(ExpectedTable(schema, name, kind, adopted=True, versioned=False))
    return found


async def find_roles(connection: Any) -> Roles:
    """Return the names of the roles that `tenantry init` made.

    Raises:
        AdoptionError: The database was never prepared.
    """
    owner = await connection.fetchval(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'tenantry'"
    )
    roles = Roles.named(str(owner).removesuffix("_owner"))
    if owner is None or roles.owner != owner:
        raise AdoptionError("This database was never prepared for tenantry.", fix=f"Run: {INIT_COMMAND}")
    return roles


async def check_rights(connection: Any, owners: Iterable[str] = ()) -> None:
    """Check that the connection's role has the rights of tenantry's owner role and of others.

    Raises:
        AdoptionError: It lacks some; the fix grants them.
    """
    roles = await find_roles(connection)
    lacking = [
        owner
        for owner in sorted({*owners, roles.owner})
        if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'USAGE')", owner)
    ]
    if lacking:
        me = quote(await connection.fetchval("SELECT current_user"))
        listed = ", ".join(map(quote, lacking))
        raise AdoptionError(
            f"The role {me} lacks the rights of {listed}.",
            fix=f"As a superuser: GRANT {listed} TO {me}; or connect as a superuser.",
        )


@asynccontextmanager
async def exclusive(connection: Any, *, wait: float = _WAIT_SECONDS) -> AsyncIterator[None]:
    """Keep a second run out for as long as the block lasts, or the connection.

    The server looks every second whether we are still there, so that a run that was killed does not keep the next out.

    Raises:
        AdoptionError: Another run has been at work for all the time that we waited.
    """
    await check_rights(connection)
    await connection.execute("SET client_connection_check_interval = '1s'")
    deadline = time.monotonic() + wait
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        if time.monotonic() >= deadline:
            pid = await connection.fetchval(_HOLDER, _LOCK)
            raise AdoptionError(
                f"Another run of `tenantry adopt` is at work on this database (server process {pid}).",
                fix="Wait for it to end. If its program is gone, end that process: SELECT pg_terminate_backend(…).",
            )
        await asyncio.sleep(0.2)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


_TABLE: Final = """CREATE TABLE IF NOT EXISTS tenantry.adoption (
  position int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  step text NOT NULL UNIQUE,
  state text NOT NULL CHECK (state IN ('begun', 'done')),
  progress text NOT NULL,
  undo text[] NOT NULL,
  began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  done_at timestamptz
)"""
_READABLE: Final = """SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_catalog.pg_class c
WHERE c.oid = pg_catalog.to_regclass('tenantry.adoption')"""
_BEGIN: Final = """INSERT INTO tenantry.adoption (step, state, undo, progress) VALUES ($1, 'begun', $2, $3)
ON CONFLICT (step) DO NOTHING"""
_ADVANCE: Final = "UPDATE tenantry.adoption SET progress = $2, undo = COALESCE($3, undo) WHERE step = $1"
_FINISH: Final = "UPDATE tenantry.adoption SET state = 'done', done_at = clock_timestamp() WHERE step = $1"
_HOLDER: Final = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
AND objid = ($1::int8 & 4294967295)::oid AND classid = ($1::int8 >> 32)::oid
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
LIMIT 1"""
