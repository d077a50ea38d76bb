"""Adopting an existing schema: plan it, apply the plan, enforce it, or take it back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from tenantry import types
from tenantry.databases.postgres.adopt import evidence
from tenantry.databases.postgres.adopt.enforcement import canary_step, enforce_step, owner_step
from tenantry.databases.postgres.adopt.journal import (
    CANARY,
    ENFORCED,
    PLAN,
    Entry,
    Journal,
    check_rights,
    entries,
    exclusive,
    find_roles,
    is_done,
    plan_of,
)
from tenantry.databases.postgres.adopt.plan import Plan
from tenantry.databases.postgres.adopt.propose import choose_key, choose_root, propose, settle_generic
from tenantry.databases.postgres.adopt.runner import Pace, Report, Runner, quietly
from tenantry.databases.postgres.adopt.schema import OLDEST, Schema, reflect
from tenantry.databases.postgres.adopt.steps import Step, apply_steps
from tenantry.databases.postgres.policies import Roles, quote_literal
from tenantry.errors import AdoptionError

TENANTS: Final = "tenants"
_NEW_PLAN: Final = "Correct the plan, or make a new one: tenantry adopt plan --force"
_REPAIRS: Final = 10
NoteTenants = Callable[[Sequence[str]], Awaitable[None]]
CreateTenants = Callable[[Sequence[tuple[str, str]], NoteTenants], Awaitable[None]]
"""Makes the tenants that are missing, from pairs of an id and a name; calls the other with their ids before it does."""


async def make_plan(
    connection: Any,
    *,
    table: str | None = None,
    key: str | None = None,
    scope_unique: bool = False,
    orphans: str | None = None,
) -> tuple[Plan, Schema, list[evidence.Evidence]]:
    """Propose a plan, and read every row of its tables to see what speaks against it. Nothing is changed.

    Args:
        connection: An asyncpg connection that sees all rows.
        table: The table whose rows are the tenants; guessed if not given.
        key: Its column that becomes the tenant's id; by default its primary key.
        scope_unique: Whether unique constraints are to begin with the tenant.
        orphans: The id of the tenant that gets the rows that find none, where there are such.

    Raises:
        AdoptionError: The schema cannot be adopted as it is.
        ConfigurationError: The root or its key does not exist, or none stands out.
    """
    await _check_server(connection)
    if plan_of(await entries(connection)) is not None:
        raise AdoptionError(
            f"This database has a plan already; it is {await state_of(connection)}.",
            fix="Look at it: tenantry adopt status; to begin anew: tenantry adopt revert",
        )
    schema = await reflect(connection)
    root, reasons = choose_root(schema, table)
    chosen = choose_key(schema.tables[root], key)
    plan = propose(schema, root, chosen, reasons=reasons, scope_unique=scope_unique)
    plan = await settle_generic(connection, schema, plan)
    plan = await evidence.with_people(connection, schema, plan)
    await evidence.check_keys(connection, plan)
    found = await evidence.gather(connection, schema, plan)
    while orphans is not None and any(
        item.orphans for item in found
    ):  # at least the topmost find one each time
        plan = evidence.with_orphans(plan, found, types.tenant_id(orphans))
        found = await evidence.gather(connection, schema, plan)
    return evidence.with_agreement(plan, found), schema, found


class Adoption:
    """One run on one database. A second one at the same time is kept out.

    Args:
        connection: An asyncpg connection of a superuser, or of a role with the rights of the tables' owners and of
            tenantry's owner.
        pace: How hard to push.
        report: Is told of each step, batch and retry.
    """

    def __init__(self, connection: Any, *, pace: Pace | None = None, report: Report | None = None) -> None:
        self._connection = connection
        self._pace = pace or Pace()
        self._report: Report = report or (lambda progress: None)

    async def apply(self, plan: Plan, create_tenants: CreateTenants) -> None:
        """Give every tenant table its column ``tenant_id``, filled, never NULL and indexed, and make the tenants.

        The application may go on writing all the while. A run that was killed is continued by the next.

        Args:
            plan: The plan; that of the run that is to be continued.
            create_tenants: Makes the tenants.

        Raises:
            AdoptionError: The plan does not fit the database, or a step is impossible. What is done stays done.
        """
        await self._check_rights(await reflect(self._connection), plan)
        async with exclusive(self._connection):
            roles = await find_roles(self._connection)
            schema = await reflect(self._connection)
            begun = await entries(self._connection)
            _check_same(plan, plan_of(begun))
            await self._check_fit(schema, plan, begun)
            journal = Journal(self._connection, roles)
            await journal.create()
            await journal.begin(PLAN, progress={"plan": plan.dump()})
            await journal.finish(PLAN)
            steps = await self.steps(schema, plan)
            await Runner(self._connection, journal, self._pace, self._report).run(steps)
            await self._tenants(journal, schema, plan, create_tenants)

    async def steps(self, schema: Schema, plan: Plan) -> list[Step]:
        """Return the steps of :meth:`apply`, done or not."""
        roles = await find_roles(self._connection)
        written = {role for table in plan.ordered() for role in schema.tables[table.table].writers}
        writers = [role for role in sorted(written) if await self._must_be_told(role)]
        return apply_steps(schema, plan, writers, roles.owner)

    async def _must_be_told(self, role: str) -> bool:
        """Whether a role that writes today could not call the function that its new rows call by default."""
        return bool(await self._connection.fetchval(_LACKS, role or "public"))

    async def _check_fit(self, schema: Schema, plan: Plan, begun: Sequence[Entry]) -> None:
        """Check that plan and database belong together, before the first step also by every row."""
        check_tables(schema, plan, complete=True)
        if plan_of(begun) is None:
            found = await evidence.gather(self._connection, schema, plan)
            await evidence.check_keys(self._connection, plan)
            _refuse(evidence.judge(plan, found))

    async def _check_rights(self, schema: Schema, plan: Plan) -> None:
        known = [schema.tables[table.table] for table in plan.ordered() if table.table in schema.tables]
        await check_rights(self._connection, {table.owner for table in known})

    async def _tenants(
        self, journal: Journal, schema: Schema, plan: Plan, create_tenants: CreateTenants
    ) -> None:
        """Make the tenants that are missing; those of rows that came during the run, too."""
        await journal.begin(TENANTS)

        async def note(ids: Sequence[str]) -> None:
            known = next(entry.progress for entry in await journal.entries() if entry.step == TENANTS)
            made = sorted({*known.get("made", []), *ids})
            await journal.advance(TENANTS, {"made": made}, _unmake(made))

        await create_tenants(await evidence.tenants(self._connection, plan, schema), note)
        await journal.finish(TENANTS)

    async def enforce(
        self, create_tenants: CreateTenants, *, canary: bool = False, hand_over: bool = False
    ) -> None:
        """Turn row-level security on, in one short transaction.

        Args:
            create_tenants: Makes the tenants that came since :meth:`apply`.
            canary: Isolate tenantry's roles only; those who write today go on unseen by any policy.
            hand_over: Let tenantry's owner role own the tables.

        Raises:
            AdoptionError: The plan is not applied to its end, or rows carry a wrong tenant.
        """
        async with exclusive(self._connection):
            roles = await find_roles(self._connection)
            schema = await reflect(self._connection)
            plan = await self._applied()
            check_tables(schema, plan)
            journal = Journal(self._connection, roles)
            await self._repair(schema, plan)
            await self._tenants(journal, schema, plan, create_tenants)
            runner = Runner(self._connection, journal, self._pace, self._report)
            await runner.run(_enforcement(schema, plan, roles, canary=canary, hand_over=hand_over))

    async def enforcement(self, *, canary: bool = False, hand_over: bool = False) -> list[Step]:
        """Return the steps of :meth:`enforce`, done or not."""
        roles = await find_roles(self._connection)
        schema = await reflect(self._connection)
        plan = await self._applied()
        check_tables(schema, plan)
        return _enforcement(schema, plan, roles, canary=canary, hand_over=hand_over)

    async def _applied(self) -> Plan:
        journal = await entries(self._connection)
        plan = plan_of(journal)
        if plan is None or not is_done(journal, TENANTS):
            raise AdoptionError("The plan is not applied to its end.", fix="Run: tenantry adopt apply")
        return plan

    async def _repair(self, schema: Schema, plan: Plan) -> None:
        """Correct rows whose parents moved to another tenant just as they came, until none is wrong."""
        if is_done(await entries(self._connection), ENFORCED):
            return
        found: list[evidence.Evidence] = []
        for _ in range(_REPAIRS):
            found = await evidence.gather(self._connection, schema, plan, adopted=True)
            wrong = [item.table for item in found if item.wrong]
            for table in wrong:
                async with self._connection.transaction():
                    await quietly(self._connection)
                    await self._connection.execute(evidence.correction(plan, table))
            if not wrong:
                break
        problems = [
            f"{item.table}: {item.wrong} rows carry another tenant than their path gives"
            for item in found
            if item.wrong
        ]
        _refuse([*problems, *evidence.judge(plan, found)])

    async def revert(self) -> None:
        """Undo every step, the last one first. What tenantry did not do, it does not undo.

        It may be called at any point, and again after it was killed.

        Raises:
            AdoptionError: A step cannot be undone now, such as a unique constraint that the data no longer meets.
        """
        async with exclusive(self._connection):
            roles = await find_roles(self._connection)
            journal = Journal(self._connection, roles)
            runner = Runner(self._connection, journal, self._pace, self._report)
            for entry in reversed(await journal.entries()):
                await runner.undo(entry)
            if await entries_exist(self._connection):
                await journal.drop()

    async def undo_steps(self) -> list[Entry]:
        """Return what :meth:`revert` would undo, in that order."""
        return [entry for entry in reversed(await entries(self._connection)) if entry.undo]


def _enforcement(schema: Schema, plan: Plan, roles: Roles, *, canary: bool, hand_over: bool) -> list[Step]:
    steps = [canary_step(schema, plan, roles)]
    if not canary:
        steps.append(enforce_step(schema, plan, roles))
    if hand_over and not canary:
        steps.append(owner_step(schema, plan, roles))
    return steps


async def entries_exist(connection: Any) -> bool:
    """Whether there is a journal."""
    return await connection.fetchval("SELECT to_regclass('tenantry.adoption')") is not None


async def state_of(connection: Any) -> str:
    """Return how far an adoption is: ``none``, ``applying``, ``applied``, ``canary`` or ``enforced``."""
    journal = await entries(connection)
    for step, state in ((ENFORCED, "enforced"), (CANARY, "canary"), (TENANTS, "applied"), (PLAN, "applying")):
        if is_done(journal, step):
            return state
    return "none"


async def _check_server(connection: Any) -> None:
    if int(await connection.fetchval("SELECT current_setting('server_version_num')")) < OLDEST:
        raise AdoptionError(
            "Adopting needs PostgreSQL 15 or later: before, a view could not ask with its reader's rights.",
            fix="Update the server first.",
        )


def _check_same(plan: Plan, begun: Plan | None) -> None:
    if begun is not None and begun != plan:
        raise AdoptionError(
            "Another plan is being applied to this database.",
            fix="Go on with that one, or take it back first: tenantry adopt revert",
        )


def check_tables(schema: Schema, plan: Plan, *, complete: bool = False) -> None:
    """Check that the tables and columns of a plan exist.

    Args:
        schema: What the database holds.
        plan: The plan.
        complete: Whether the plan must know every table that there is.

    Raises:
        AdoptionError: It lists those that do not.
    """
    strangers = set(schema.tables) - set(plan.tables) if complete else set()
    problems = [f"{name} is not in the plan" for name in sorted(strangers)]
    problems += [f"{name} does not exist" for name in sorted(set(plan.tables) - set(schema.tables))]
    for table in plan.of_kind("root", "tenant"):
        known = schema.tables.get(table.table)
        above = schema.tables.get(table.parent or table.table)
        if known is not None and above is not None:
            problems += [
                f"{known.full} has no column {name}" for name in table.by if name not in known.columns
            ]
            problems += [
                f"{above.full} has no column {name}" for name in table.references if name not in above.columns
            ]
            if table.parent is not None and not above.is_unique(table.references):
                problems.append(f"{above.full} may have several rows for one {', '.join(table.references)}")
    if plan.root in schema.tables and plan.key not in schema.tables[plan.root].columns:
        problems.append(f"{plan.root} has no column {plan.key}")
    _refuse(problems, fix=_NEW_PLAN)


def _refuse(problems: Sequence[str], fix: str | None = None) -> None:
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise AdoptionError(f"This plan cannot be applied:{listed}", fix=fix)


_LACKS: Final = """SELECT NOT (has_schema_privilege($1, 'tenantry', 'USAGE')
  AND has_function_privilege($1, 'tenantry.current_tenant()', 'EXECUTE'))"""


def _unmake(tenants: Sequence[str]) -> list[str]:
    """Return what takes tenants out of the directory. Its policies bind its owner too, who lifts them for that long."""
    listed = ", ".join(map(quote_literal, tenants))
    return [
        "ALTER TABLE tenantry.tenants NO FORCE ROW LEVEL SECURITY",
        f"DELETE FROM tenantry.tenants WHERE id IN ({listed})",
        "ALTER TABLE tenantry.tenants FORCE ROW LEVEL SECURITY",
    ]
