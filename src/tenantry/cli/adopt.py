"""``tenantry adopt``: row-level isolation for the schema of an application that is in production already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantry.cli.adopt_output import (
    Log,
    plan_data,
    show_next,
    show_plan,
    show_problems,
    show_sql,
    show_steps,
    steps_data,
)
from tenantry.cli.adopt_work import owners_of, run, steps_of, tenants_of
from tenantry.cli.connect import driver
from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, load_project
from tenantry.errors import ConfigurationError

if TYPE_CHECKING:
    from tenantry.databases.postgres.adopt.evidence import Evidence
    from tenantry.databases.postgres.adopt.plan import Plan
    from tenantry.databases.postgres.adopt.schema import Schema
    from tenantry.databases.postgres.adopt.steps import Step

REFUSED = 1
PLAN_FILE = Path("adopt.toml")

commands = typer.Typer(
    no_args_is_help=True,
    help="Bring row-level isolation to the PostgreSQL schema of an application in production: plan, apply, enforce, "
    "verify, revert.",
)

AdminUrl = Annotated[
    str,
    typer.Option(
        help="postgresql://postgres@HOST/DATABASE, of a superuser or of a role with the rights of the tables' owners. "
        "Used now and stored nowhere; in the environment it stays out of the process list.",
        envvar="TENANTRY_ADMIN_URL",
    ),
]
PlanFile = Annotated[Path, typer.Option("--file", help="The plan.", metavar="FILE")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the SQL and its locks; change nothing.")]
LockTimeout = Annotated[
    float,
    typer.Option(
        min=0.01, help="Seconds to wait for a lock at a time. Others may queue behind it for no longer."
    ),
]
Patience = Annotated[float, typer.Option(min=0.0, help="Seconds to go on trying for one lock.")]


@commands.command("plan")
def plan_command(
    admin_url: AdminUrl,
    tenant_table: Annotated[
        str | None,
        typer.Option(
            help="The table whose rows are the tenants, as public.organizations; guessed if not given."
        ),
    ] = None,
    tenant_key: Annotated[
        str | None,
        typer.Option(
            help="Its column that becomes the tenant's id, such as slug; by default its primary key."
        ),
    ] = None,
    scope_unique: Annotated[
        bool, typer.Option("--scope-unique", help="Let unique constraints begin with the tenant.")
    ] = False,
    orphans: Annotated[
        str | None,
        typer.Option(
            help="The tenant that gets the rows that find none; by default they stop it.", metavar="TENANT"
        ),
    ] = None,
    file: PlanFile = PLAN_FILE,
    force: Annotated[bool, typer.Option("--force", help="Write over a plan that exists.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL in place of the plan.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read the schema and its rows, propose what becomes of each table, and write that down for you to edit.

    Nothing in the database is changed. Exit status 1 if something in the plan is yours to decide.
    """
    if file.exists() and not force:
        raise ConfigurationError(
            f"There is a plan in {file} already.",
            field="file",
            fix="Write over it with --force, or use --file.",
        )
    with driver():
        from tenantry.databases.postgres.adopt.adoption import make_plan
        from tenantry.databases.postgres.adopt.evidence import judge

    async def work(connection: Any) -> tuple[Plan, Schema, list[Evidence], list[Step]]:
        found = await make_plan(
            connection, table=tenant_table, key=tenant_key, scope_unique=scope_unique, orphans=orphans
        )
        return *found, await steps_of(connection, found[0]) if sql else []

    plan, schema, evidence, steps = run(admin_url, work)
    try:
        file.write_text(plan.dump(), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"Cannot write {file}: {error}.", field="file") from error
    problems = judge(plan, evidence)
    output = Output(as_json)
    if sql:
        show_steps(output, steps)
    else:
        show_plan(output, plan, schema, evidence)
    show_problems(output, problems)
    output.line()
    output.line(
        ("Written ", "bold green"), str(file), ". Read it, edit it, then run: tenantry adopt apply --dry-run"
    )
    output.result(plan_data(plan, evidence, problems, file, steps))
    if problems:
        raise typer.Exit(REFUSED)


@commands.command()
def apply(
    admin_url: AdminUrl,
    file: PlanFile = PLAN_FILE,
    dry_run: DryRun = False,
    batch_rows: Annotated[int, typer.Option(min=1, help="About how many rows to fill at a time.")] = 5_000,
    pause: Annotated[
        float, typer.Option(min=0.0, help="How long to rest after a batch, in multiples of its time.")
    ] = 0.5,
    lock_timeout: LockTimeout = 2.0,
    patience: Patience = 600.0,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give each tenant table its column tenant_id: filled, never NULL, indexed. The application goes on meanwhile.

    A run that was interrupted goes on where it was. Nobody is isolated yet: that is `tenantry adopt enforce`.
    """
    with driver():
        from tenantry.databases.postgres.adopt.adoption import Adoption
        from tenantry.databases.postgres.adopt.plan import load_plan
        from tenantry.databases.postgres.adopt.runner import Pace

    plan, output = load_plan(file), Output(as_json)
    if dry_run:
        steps = run(admin_url, lambda connection: steps_of(connection, plan))
        show_steps(output, steps)
        output.result({"steps": steps_data(steps)})
        return
    project = load_project(env_file, config, None)
    pace = Pace(batch_rows, pause, lock_timeout, patience)
    log = Log(output)

    async def work(connection: Any) -> None:
        await Adoption(connection, pace=pace, report=log).apply(plan, tenants_of(project))

    run(admin_url, work)
    output.line(
        ("Applied. ", "bold green"), "Next: tenantry adopt verify, then tenantry adopt enforce --canary"
    )
    output.result({"applied": True, "steps": log.done})


@commands.command()
def enforce(
    admin_url: AdminUrl,
    canary: Annotated[
        bool,
        typer.Option(
            "--canary", help="Isolate tenantry's roles only; whoever writes today goes on as before, for now."
        ),
    ] = False,
    owner: Annotated[
        str, typer.Option(help="keep, or tenantry: who is to own the tables.", metavar="keep|tenantry")
    ] = "keep",
    dry_run: DryRun = False,
    lock_timeout: LockTimeout = 2.0,
    patience: Patience = 600.0,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Turn row-level security on, in one short transaction. From then on an unbound connection sees no tenant's row."""
    with driver():
        from tenantry.databases.postgres.adopt.adoption import Adoption, state_of
        from tenantry.databases.postgres.adopt.runner import Pace

    if owner not in ("keep", "tenantry"):
        raise ConfigurationError(
            f"{owner!r} is no owner.", field="owner", fix="Write --owner keep or tenantry."
        )
    hand_over, output, log = owner == "tenantry", Output(as_json), Log(Output(as_json))
    if dry_run:
        steps = run(
            admin_url,
            lambda connection: Adoption(connection).enforcement(canary=canary, hand_over=hand_over),
        )
        show_steps(output, steps)
        output.result({"steps": steps_data(steps)})
        return
    project = load_project(env_file, config, None)
    pace = Pace(lock_timeout=lock_timeout, patience=patience)

    async def work(connection: Any) -> tuple[list[tuple[str, int]], str]:
        adoption = Adoption(connection, pace=pace, report=log)
        await adoption.enforce(tenants_of(project), canary=canary, hand_over=hand_over)
        return await owners_of(connection), await state_of(connection)

    owners, state = run(admin_url, work)
    show_next(output, owners, canary=state == "canary")
    output.result({"state": state, "owners": dict(owners), "steps": log.done})


@commands.command()
def verify(
    admin_url: AdminUrl, env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Prove it: each row's tenant is that of its path, and two real tenants see their own rows and nothing else.

    Once isolated, the doctor looks at the adopted tables too. Exit status 1 if something does not hold.
    """
    from tenantry.cli.adopt_verify import prove

    proof = prove(admin_url, load_project(env_file, config, None))
    output = Output(as_json)
    for line in proof.lines():
        output.line(*line)
    output.result(proof.data())
    if not proof.holds:
        raise typer.Exit(REFUSED)


@commands.command()
def revert(
    admin_url: AdminUrl, dry_run: DryRun = False, lock_timeout: LockTimeout = 2.0, as_json: AsJson = False
) -> None:
    """Undo whatever was done so far, the last step first, and only that. Rows stay as they are."""
    with driver():
        from tenantry.databases.postgres.adopt.adoption import Adoption
        from tenantry.databases.postgres.adopt.runner import Pace

    output, log = Output(as_json), Log(Output(as_json))
    if dry_run:
        entries = run(admin_url, lambda connection: Adoption(connection).undo_steps())
        for entry in entries:
            output.line((f"-- undo {entry.step}", "bold"))
            show_sql(output, entry.undo)
        output.result({"undo": [{"step": entry.step, "sql": entry.undo} for entry in entries]})
        return
    run(
        admin_url,
        lambda connection: Adoption(connection, pace=Pace(lock_timeout=lock_timeout), report=log).revert(),
    )
    output.line(("Reverted. ", "bold green"), "Nothing of the adoption is left.")
    output.result({"reverted": True, "steps": log.done})


@commands.command()
def status(admin_url: AdminUrl, as_json: AsJson = False) -> None:
    """Say how far the adoption is, step by step."""
    with driver():
        from tenantry.databases.postgres.adopt.adoption import state_of
        from tenantry.databases.postgres.adopt.journal import entries

    async def work(connection: Any) -> tuple[str, list[Any]]:
        return await state_of(connection), await entries(connection)

    state, found = run(admin_url, work)
    output = Output(as_json)
    output.line((state, "bold"))
    for entry in found:
        output.line(("done   ", "green") if entry.done else ("begun  ", "yellow"), entry.step)
    output.result({"state": state, "steps": [{"step": entry.step, "done": entry.done} for entry in found]})
