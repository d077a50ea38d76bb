"""What ``tenantry adopt`` says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenantry.cli.output import Output

if TYPE_CHECKING:
    from tenantry.databases.postgres.adopt.evidence import Evidence
    from tenantry.databases.postgres.adopt.plan import Plan
    from tenantry.databases.postgres.adopt.runner import Progress
    from tenantry.databases.postgres.adopt.schema import Schema
    from tenantry.databases.postgres.adopt.steps import Step


class Log:
    """Prints each step once, and what it waits for."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = ("", "")
        self.done: list[str] = []

    def __call__(self, progress: Progress) -> None:
        """Print how far a run is."""
        number = f"[{progress.number}/{progress.steps}] " if progress.steps else ""
        said = (progress.step, progress.note)
        if progress.share >= 1.0 and not progress.note:
            self.done.append(progress.step)
            self._output.line((f"{number}done     ", "green"), progress.step)
        elif progress.note and said != self._last:
            self._output.line((f"{number}waiting  ", "yellow"), progress.step, f": {progress.note}")
        elif progress.share:
            self._output.line(f"{number}{progress.share:>4.0%}     ", progress.step)
        self._last = said


def show_plan(output: Output, plan: Plan, schema: Schema, evidence: Iterable[Evidence]) -> None:
    """Print what becomes of each table."""
    found = {item.table: item for item in evidence}
    output.line(("root ", "bold"), f"{plan.root}, key {plan.key}")
    rows = []
    for name, table in sorted(plan.tables.items(), key=lambda item: (item[1].kind, item[0])):
        about = schema.tables[name].rows
        count = str(found[name].rows) if name in found else f"~{about}" if about >= 0 else "?"
        why = plan.route(name).removeprefix(name) or "; ".join(table.reasons)
        rows.append((table.kind, name, count, _size(schema.tables[name].size), why))
    output.table(("KIND", "TABLE", "ROWS", "SIZE", "HOW"), rows)
    for note in plan.notes:
        output.line(("note  ", "yellow"), note)


def _size(size: int) -> str:
    return f"{size / 1024:.0f} kB" if size < 1024 * 1024 else f"{size / 1024 / 1024:.0f} MB"


def show_problems(output: Output, problems: Sequence[str]) -> None:
    """Print what is the user's to decide."""
    if problems:
        output.line()
        output.line(("Yours to decide before it can be applied:", "bold yellow"))
    for problem in problems:
        output.line("  - ", problem)


def show_steps(output: Output, steps: Iterable[Step]) -> None:
    """Print the SQL of steps, with the locks that it takes."""
    for step in steps:
        output.line((f"-- {step.name}", "bold"))
        output.line(f"-- locks: {step.lock}")
        show_sql(output, step.statements)


def show_sql(output: Output, statements: Iterable[str]) -> None:
    """Print statements."""
    for statement in statements:
        for line in f"{statement};".splitlines():
            output.line(line)


def show_next(output: Output, owners: Sequence[tuple[str, int]], *, canary: bool) -> None:
    """Print what changed, and what is to be done about the role that owns the tables."""
    if canary:
        output.line(
            ("Canary. ", "bold green"), "tenantry's roles are isolated; whoever wrote before still sees all."
        )
    else:
        output.line(
            ("Enforced. ", "bold green"), "A connection that is bound to no tenant sees no tenant's row."
        )
    for owner, connections in owners:
        output.line(
            "  owner     ",
            f"{owner} owns tables and has {connections} connections open. From now on it is for",
        )
        output.line("            migrations only: an owner can turn row-level security off.")
    output.line(
        "  now       ", "DATABASE_URL becomes the value of TENANTRY_DATABASE_RAW_URL, bound for each request."
    )
    names = ", ".join(f"'{owner}'" for owner, _ in owners)
    if names:
        output.line("  still in  ", "SELECT usename, client_addr, application_name FROM pg_stat_activity")
        output.line("            ", f"WHERE datname = current_database() AND usename IN ({names})")
    if not canary:
        output.line(
            "  hand over ", "tenantry adopt enforce --owner tenantry; then for each: ALTER ROLE … NOLOGIN"
        )
    output.line("Next: ", "tenantry adopt verify", ", then tenantry adopt enforce" if canary else "")


def plan_data(
    plan: Plan, evidence: Iterable[Evidence], problems: Sequence[str], file: Path, steps: Iterable[Step]
) -> dict[str, Any]:
    """Return a plan for programs."""
    return {
        "file": str(file),
        "root": plan.root,
        "key": plan.key,
        "tables": {
            name: {"kind": table.kind, "route": plan.route(name), "reasons": table.reasons}
            for name, table in sorted(plan.tables.items())
        },
        "notes": plan.notes,
        "evidence": [
            {**item._asdict(), "disagreements": [one._asdict() for one in item.disagreements]}
            for item in evidence
        ],
        "problems": problems,
        "steps": steps_data(steps),
    }


def steps_data(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return steps for programs."""
    return [{"step": step.name, "locks": step.lock, "sql": step.statements} for step in steps]
