"""What ``tenantry adopt verify`` proves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from tenantry.cli.connect import SEAL_KEY, VARIABLES, driver, driver_errors, place
from tenantry.cli.postgres import declared_tables, roles_of, urls_of, with_adopted
from tenantry.cli.project import Project
from tenantry.databases.postgres.findings import INIT_COMMAND, Finding
from tenantry.errors import AdoptionError, ConfigurationError

if TYPE_CHECKING:
    from tenantry.databases.postgres.adopt.plan import Plan
    from tenantry.databases.postgres.adopt.verification import Verdict

Line = tuple[str | tuple[str, str], ...]


class Proof(NamedTuple):
    """What was proved.

    Attributes:
        state: How far the adoption is.
        verdict: What rows and tenants say.
        findings: What the doctor says of the adopted tables.
    """

    state: str
    verdict: Verdict
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """The findings that let one tenant reach another's rows."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def holds(self) -> bool:
        """Whether all is as it must be."""
        return not (self.verdict.problems or self.errors)

    def lines(self) -> Iterator[Line]:
        """Yield what people read."""
        rows = sum(item.rows for item in self.verdict.evidence)
        if not any(item.wrong for item in self.verdict.evidence):
            tables = len(self.verdict.evidence)
            yield (
                ("ok       ", "green"),
                f"{rows} rows of {tables} tables carry the tenant that their path gives",
            )
        if self.verdict.probes and all(probe.holds for probe in self.verdict.probes):
            who = ", ".join(sorted({probe.tenant for probe in self.verdict.probes if probe.tenant}))
            yield (
                ("ok       ", "green"),
                f"tenants {who} see their own rows of each table, and nobody unbound sees any",
            )
        if not self.verdict.probes:
            yield ("note     ", "yellow"), "nobody is isolated yet: tenantry adopt enforce"
        for problem in self.verdict.problems:
            yield ("error    ", "bold red"), problem
        for finding in self.errors:
            yield ("error    ", "bold red"), f"{finding.subject}: {finding.message}"
            yield ("   fix   ", "bold"), finding.fix
        warnings = len(self.findings) - len(self.errors)
        if warnings:
            yield ("note     ", "yellow"), f"{warnings} warnings: see tenantry doctor"

    def data(self) -> dict[str, Any]:
        """Return what programs read."""
        return {
            "ok": self.holds,
            "state": self.state,
            "tables": [item._asdict() for item in self.verdict.evidence],
            "probes": [probe._asdict() for probe in self.verdict.probes],
            "problems": self.verdict.problems,
            "findings": [asdict(finding) for finding in self.findings],
        }


def prove(admin_url: str, project: Project) -> Proof:
    """Verify the adoption of a project's database.

    Raises:
        AdoptionError: Nothing is applied.
        ConfigurationError: The project's settings lack a role or the seal key.
    """
    with driver_errors():
        return asyncio.run(_prove(admin_url, project))


async def _prove(admin_url: str, project: Project) -> Proof:
    with driver():
        from tenantry.databases.postgres.adopt.adoption import check_tables, state_of
        from tenantry.databases.postgres.adopt.journal import entries, plan_of
        from tenantry.databases.postgres.adopt.schema import reflect
        from tenantry.databases.postgres.adopt.session import session
        from tenantry.databases.postgres.adopt.verification import verify

    async with session(admin_url) as connection:
        state, plan = await state_of(connection), plan_of(await entries(connection))
        if plan is None or state == "applying":
            raise AdoptionError("The plan is not applied to its end.", fix="Run: tenantry adopt apply")
        schema = await reflect(connection)
        check_tables(schema, plan)
        if state == "applied":
            return Proof(state, await verify(connection, schema, plan, None), [])
    return await _isolated(state, plan, project)


def _is_of_canary(finding: Finding) -> bool:
    return finding.code == "trigger-missing" or (
        finding.code == "rls-off" and "not forced" in finding.message
    )


async def _isolated(state: str, plan: Plan, project: Project) -> Proof:
    """Prove it by the roles that an application has: policies bind even a table's owner, but not control."""
    with driver():
        from tenantry.databases.postgres.adopt.journal import expected_tables
        from tenantry.databases.postgres.adopt.schema import reflect
        from tenantry.databases.postgres.adopt.session import session
        from tenantry.databases.postgres.adopt.verification import verify
        from tenantry.databases.postgres.inspect_tables import inspect_tables
        from tenantry.databases.postgres.pool import TenantPool
        from tenantry.databases.postgres.seal import parse_keys

    urls, key = urls_of(project), project.settings.database.seal_key
    missing = [
        name for name, given in ((VARIABLES["control"], urls.get("control")), (SEAL_KEY, key)) if not given
    ]
    if missing or key is None:
        raise ConfigurationError(
            f"{', '.join(missing)} is not set.", field="database", fix=f"Run: {INIT_COMMAND}"
        )
    places = {role: await place(url) for role, url in urls.items() if role in ("app", "raw", "control")}
    pool = TenantPool(project.url, keys=parse_keys(key.get_secret_value()), max_size=1, command_timeout=None)
    await pool.open()
    try:
        async with session(urls["control"]) as connection:
            roles = await roles_of(connection, places)
            assert roles is not None  # the pool has opened: it was prepared
            verdict = await verify(connection, await reflect(connection), plan, pool)
            expected = with_adopted(declared_tables(project), expected_tables(plan))
            findings = await inspect_tables(connection, roles, expected)
    finally:
        await pool.close()
    if state == "canary":  # the owner is left out on purpose
        findings = [finding for finding in findings if not _is_of_canary(finding)]
    return Proof(state, verdict, findings)
