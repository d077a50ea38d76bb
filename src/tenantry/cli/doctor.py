"""``tenantry doctor``: whether this database keeps tenants apart, and what mends it where it does not."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict

import typer

from tenantry.cli.checks import Diagnosis, examine
from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, load_project

UNHEALTHY = 1
_STYLES = {"error": "bold red", "warning": "yellow"}


def doctor(
    env_file: EnvFile = None, config: ConfigFile = None, models: Models = None, as_json: AsJson = False
) -> None:
    """Check roles, rights, policies, keys, views, functions and the server's version, and let canaries try.

    It reads the catalogs, and whatever its canary tenants write is rolled back. Exit status 1 if it finds an error.
    """
    diagnosis = asyncio.run(examine(load_project(env_file, config, models)))
    diagnosis.findings.sort(key=lambda finding: (finding.severity != "error", finding.subject))
    _show(Output(as_json), diagnosis)
    if any(finding.severity == "error" for finding in diagnosis.findings):
        raise typer.Exit(UNHEALTHY)


def _show(output: Output, diagnosis: Diagnosis) -> None:
    output.line((f"{diagnosis.database} ", "bold"), diagnosis.where)
    for passed in diagnosis.passed:
        output.line(("ok       ", "green"), passed)
    for finding in diagnosis.findings:
        output.line()
        style = _STYLES[finding.severity]
        output.line((f"{finding.severity:<9}", style), (finding.subject, "bold"), f"  [{finding.code}]")
        output.line("         ", finding.message)
        output.line(("   fix   ", "bold"), finding.fix)
    counts = Counter(finding.severity for finding in diagnosis.findings)
    output.line()
    output.line((f"{_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}", "bold"))
    output.result(
        {
            "database": diagnosis.database,
            "where": diagnosis.where,
            "ok": not counts["error"],
            "errors": counts["error"],
            "warnings": counts["warning"],
            "passed": diagnosis.passed,
            "findings": [asdict(finding) for finding in diagnosis.findings],
        }
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
