"""``tenantry insights``: what queries cost, and the indexes that make them cheaper."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, Project, load_project
from tenantry.errors import ConfigurationError
from tenantry.insights import Finding, Report, ShapeReport
from tenantry.sdk import MultiTenantSDK

_SHOWN = 15
_WIDTH = 76
_SINCE = re.compile(r"(\d{1,4})([hd])")
_STYLES = {"warning": "yellow", "info": "cyan"}
_UNITS = {"h": "hours", "d": "days"}


def insights(
    since: Annotated[str, typer.Option(help="How far back to look, such as 6h or 7d; at most 8d.")] = "24h",
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the indexes that are missing, while others write.")
    ] = False,
    drop_unused: Annotated[
        bool, typer.Option("--drop-unused", help="With --apply: drop the indexes that nobody uses, too.")
    ] = False,
    unused_days: Annotated[
        int, typer.Option(min=1, help="For how many days nobody may have used an index to call it unused.")
    ] = 14,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the most expensive queries of all processes, what makes them slow, and what mends it.

    Without the models, nothing is advised about their tables.
    """
    project = load_project(env_file, config, models)
    span, unused_after = _span(since), dt.timedelta(days=unused_days)
    output = Output(as_json)

    async def look(sdk: MultiTenantSDK) -> Report:
        return await sdk.insights.report(since=span, unused_after=unused_after)

    report = project.run(look)
    _show(output, report)
    codes = {"missing-index", *(["unused-index"] if drop_unused else [])}
    wanted = [finding for finding in report.findings if finding.code in codes] if apply else []
    if wanted and not yes and (as_json or not typer.confirm(f"Run {_count(len(wanted), 'statement')}?")):
        raise ConfigurationError("Nothing was changed.", field="yes", fix="To go ahead, add --yes.")
    done = _apply(project, wanted, output) if wanted else []
    if apply and not wanted:
        output.line("There is nothing to apply.")
    output.result({**report.to_dict(), "applied": [finding.ddl for finding in done]})


def _span(text: str) -> dt.timedelta:
    found = _SINCE.fullmatch(text)
    if found is None or not int(found[1]):
        raise ConfigurationError(f"--since {text!r} is no span.", field="since", fix="Write 6h or 7d.")
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


# -- what it says


def _show(output: Output, report: Report) -> None:
    processes = _count(report.processes, "process").replace("processs", "processes")
    output.line(("Queries ", "bold"), f"since {report.since:%Y-%m-%d %H:%M} UTC, of {processes}")
    if not report.shapes:
        output.line("Nothing was counted. Is performance.query_insights on, and the application running?")
    else:
        head = ("SHARE", "COUNT", "P50", "P95", "ROWS", "SCANNED", "QUERY")
        whole = sum(shape.seconds for shape in report.shapes) or 1.0
        output.table(head, [_row(shape, whole) for shape in report.shapes[:_SHOWN]])
        if len(report.shapes) > _SHOWN:
            output.line((f"and {len(report.shapes) - _SHOWN} more, with less; --json has all", "dim"))
    for finding in report.findings:
        _show_finding(output, finding)
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    notes = len(report.findings) - warnings
    output.line()
    output.line((f"{_count(warnings, 'warning')}, {_count(notes, 'note')}", "bold"))
    if any(finding.code == "missing-index" for finding in report.findings):
        output.line("Make the indexes: tenantry insights --apply. Then declare them in the models, and run:")
        output.line('tenantry migrate new "indexes", which gives them their names.')


def _row(shape: ShapeReport, whole: float) -> tuple[str, ...]:
    text = shape.shape if len(shape.shape) <= _WIDTH else f"{shape.shape[: _WIDTH - 1]}…"
    return (
        f"{shape.seconds / whole:5.0%}",
        f"{shape.count:,}",
        _milliseconds(shape.p50),
        _milliseconds(shape.p95),
        f"{shape.rows:,.0f}",
        "-" if shape.scanned is None else f"{shape.scanned:,}",
        text,
    )


def _show_finding(output: Output, finding: Finding) -> None:
    output.line()
    style = _STYLES[finding.severity]
    output.line((f"{finding.severity:<9}", style), (finding.subject, "bold"), f"  [{finding.code}]")
    output.line("         ", finding.message)
    for text in finding.shapes:
        output.line("         ", (text, "dim"))
    output.line(("   fix   ", "bold"), finding.fix)
    if finding.ddl:
        output.line(("   sql   ", "bold"), (finding.ddl, "green"))
    if finding.model:
        output.line(("   model ", "bold"), finding.model)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# -- what it does


def _apply(project: Project, wanted: Sequence[Finding], output: Output) -> list[Finding]:
    tell = _Told(output)

    async def work(sdk: MultiTenantSDK) -> list[Finding]:
        done: list[Finding] = []
        for finding in wanted:
            made = await sdk.insights.apply([finding], tell)
            done += made
            said: Any = ("done     ", "green") if made else "there    "
            output.line(said, finding.ddl or "")
        return done

    return project.run(work)


class _Told:
    """Prints each step once, and how far it is at each tenth."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = ("", -1)

    def __call__(self, what: str, share: float | None) -> None:
        now = (what, -1 if share is None else int(share * 10))
        if now != self._last:
            self._last = now
            done = "" if share is None else f"  {now[1] * 10} %"
            self._output.line((f"...      {what}{done}", "dim"))
