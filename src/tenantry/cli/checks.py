"""What the doctor looks at."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tenantry.cli.project import Project
from tenantry.databases.postgres.findings import Finding
from tenantry.errors import DataError, IsolationError, TenantryError, UnsafeRole
from tenantry.insights import INSIGHTS
from tenantry.ports import DatabaseAdapter
from tenantry.registry import adapter_for
from tenantry.schema import Collection, collection_of
from tenantry.searching import searchable_fields
from tenantry.tenants import OWN_COLLECTIONS

_CREATE = 'Run: tenantry migrate upgrade; or in development open the SDK with schema="create".'


@dataclass(slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        database: The kind of database.
        where: Which one.
        passed: What was looked at and is right.
        findings: What is not.
    """

    database: str
    where: str
    passed: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def note(self, findings: Sequence[Finding], passed: str) -> None:
        """Add the outcome of a check: its findings, or that there are none."""
        self.findings += findings
        if not findings:
            self.passed.append(passed)


def collections_of(project: Project) -> list[Collection]:
    """Return every collection that an SDK with these models has."""
    return [*OWN_COLLECTIONS, INSIGHTS, *map(collection_of, project.models)]


async def examine(project: Project) -> Diagnosis:
    """Run every check that applies to the project's database.

    Raises:
        ConfigurationError: No database is named, or its options cannot be read.
        DatabaseUnavailable: No role reaches it.
    """
    if project.is_postgres:
        from tenantry.cli.postgres import examine_postgres

        return await examine_postgres(project)
    return await _examine_embedded(project, project.url.partition(":")[0].lower())


async def _examine_embedded(project: Project, scheme: str) -> Diagnosis:
    diagnosis = Diagnosis(scheme, project.url.partition("://")[2].removeprefix("/") or "in memory")
    if scheme == "sqlite":
        findings = _file(Path(diagnosis.where))
        diagnosis.note(findings, "nobody else can open the file")
        if any(finding.code == "file-missing" for finding in findings):
            return diagnosis
    else:
        message = "The data is gone when the process ends, and no other process sees it."
        fix = "Use sqlite:///app.db or postgresql://… for data that matters."
        diagnosis.findings.append(Finding("warning", "not-durable", scheme, message, fix))
    adapter = adapter_for(project.url)(project.settings.database)
    try:
        await examine_adapter(adapter, project, diagnosis)
    finally:
        await adapter.close()
    return diagnosis


async def examine_adapter(adapter: DatabaseAdapter, project: Project, diagnosis: Diagnosis) -> None:
    """Compare the tables with the models, then attest through the connections that serve."""
    await adapter.open(collections_of(project))
    differences = await adapter.check_schema()
    what = f"the tables of {len(project.models)} models" if project.models else "the SDK's own tables"
    collections = collections_of(project)
    tables = len(collections) + sum(bool(searchable_fields(item)) for item in collections)
    diagnosis.note(_differences(differences, tables), f"{what} are as declared")
    if differences:
        return  # a canary needs every table
    try:
        await adapter.attest()
    except (IsolationError, DataError) as error:
        if isinstance(error, UnsafeRole) and any(item.severity == "error" for item in diagnosis.findings):
            return  # it repeats what the inspection has said
        diagnosis.findings.append(failed_attestation(error))
    else:
        diagnosis.passed.append("one canary tenant cannot reach another's rows through the live connections")


def failed_attestation(error: TenantryError) -> Finding:
    """Return that the canaries showed nothing good."""
    fix = "Mend what else was found, then run: tenantry doctor"
    return Finding("error", "attestation-failed", "canaries", error.message, fix)


def _differences(differences: Sequence[str], tables: int) -> list[Finding]:
    if not differences:
        return []
    missing = sum(text.startswith("table ") and text.endswith(" is missing") for text in differences)
    if missing == tables:
        message = "No table is made yet, so there is nothing to keep apart and nothing to attest."
        return [Finding("warning", "schema-empty", "schema", message, _CREATE)]
    message = f"The SDK does not start: {'; '.join(differences)}."
    return [Finding("error", "schema-differs", "schema", message, _CREATE)]


def _file(path: Path) -> list[Finding]:
    if not path.exists():
        message = "There is no such file; it is made when the SDK is first opened."
        return [Finding("warning", "file-missing", str(path), message, _CREATE)]
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return []
    message = f"Others on this machine can open it (mode {mode:o}), past everything the SDK checks."
    return [Finding("warning", "file-open", str(path), message, f"chmod 600 {path}")]
