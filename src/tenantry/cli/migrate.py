"""``tenantry migrate``: revisions of the tables, through Alembic."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, load_models, named_models, read_settings
from tenantry.errors import ConfigurationError

if TYPE_CHECKING:
    from tenantry.alembic.commands import Migrations, Revision

BEHIND = 1

commands = typer.Typer(no_args_is_help=True, help="Write and run revisions of the tables, with Alembic.")

Ini = Annotated[
    Path | None,
    typer.Option(
        "--ini",
        help="Alembic's configuration; by default alembic.ini, or pyproject.toml where that has tool.alembic.",
        metavar="FILE",
    ),
]
Target = Annotated[str, typer.Argument(metavar="REVISION", help="Where to, as Alembic writes it.")]
Destructive = Annotated[
    bool, typer.Option("--allow-destructive", help="Also run what drops or narrows what may hold data.")
]


@commands.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Where the revisions go.")] = Path("migrations"),
    ini: Ini = None,
    models: Models = None,
    as_json: AsJson = False,
) -> None:
    """Write an Alembic folder that knows the models, or teach one that exists."""
    from tenantry.alembic.environment import prepare

    names = named_models(models)
    load_models(names)
    made = prepare(_ini(ini), folder, names)
    output = Output(as_json)
    for path in made.written:
        output.line(("written  ", "green"), str(path))
    if not (made.written or made.todo):
        output.line(f"{made.folder} knows the models already.")
    for item in made.todo:
        output.line(("to do    ", "yellow"), item)
    output.result(
        {"folder": str(made.folder), "written": [str(path) for path in made.written], "todo": made.todo}
    )


@commands.command("new")
def new(
    message: Annotated[str, typer.Argument(help="What it is for.")],
    allow_destructive: Destructive = False,
    ini: Ini = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the revision that brings the database to the models. Look it over before it runs."""
    made = _migrations(ini, env_file, config).new(message, allow=allow_destructive)
    output = Output(as_json)
    for item in made:
        output.line(("written  ", "green"), item.path)
    if not made:
        output.line("The database is as the models declare it; nothing was written.")
    output.result({"written": _data(made)})


@commands.command("upgrade")
def upgrade(
    revision: Target = "head",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL and its locks, and run nothing.")
    ] = False,
    allow_destructive: Destructive = False,
    ini: Ini = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run the revisions that are pending, one process at a time."""
    migrations = _migrations(ini, env_file, config)
    output = Output(as_json)
    if dry_run:
        _show_plan(output, migrations, revision, allow_destructive)
    else:
        _show_done(output, "applied", migrations.upgrade(revision, allow=allow_destructive))


@commands.command("downgrade")
def downgrade(
    revision: Target,
    allow_destructive: Destructive = False,
    ini: Ini = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Take revisions back, such as the last one: -- -1."""
    done = _migrations(ini, env_file, config).downgrade(revision, allow=allow_destructive)
    _show_done(Output(as_json), "reverted", done)


@commands.command("status")
def status(
    ini: Ini = None, env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show what is pending, and how the database differs from the models. Exit status 1 if anything does."""
    found = _migrations(ini, env_file, config).status()
    output = Output(as_json)
    output.line(("at       ", "bold"), ", ".join(found.current) or "no revision")
    for item in found.pending:
        output.line(("pending  ", "yellow"), item.id, "  ", item.message)
    for text in found.differences:
        for number, line in enumerate(text.splitlines()):
            output.line(("differs  ", "bold red") if number == 0 else "         ", line)
    if found.ok:
        output.line(("ok       ", "green"), "the database is as the models declare it")
    output.result({**asdict(found), "ok": found.ok})
    if not found.ok:
        raise typer.Exit(BEHIND)


def _ini(given: Path | None) -> Path:
    if given is not None:
        return given
    from tenantry.alembic.environment import location

    project = Path("pyproject.toml")
    return (
        project if not Path("alembic.ini").exists() and location(project) is not None else Path("alembic.ini")
    )


def _migrations(ini: Path | None, env_file: Path | None, config: Path | None) -> Migrations:
    module = importlib.import_module("tenantry.alembic.commands")
    settings = read_settings(env_file, config)
    if not settings.database.url.get_secret_value() and settings.database.owner_url is None:
        raise ConfigurationError(
            "No database is named.",
            field="database.owner_url",
            fix="Set TENANTRY_DATABASE_OWNER_URL as `tenantry init` printed it.",
        )
    found: Migrations = module.Migrations(_ini(ini), settings)
    return found


def _data(revisions: Sequence[Revision]) -> list[dict[str, Any]]:
    return [asdict(item) for item in revisions]


def _show_done(output: Output, what: str, done: Sequence[Revision]) -> None:
    for item in done:
        output.line((f"{what:<9}", "green"), item.id, "  ", item.message)
    if not done:
        output.line("There was nothing to do.")
    output.result({what: _data(done)})


def _show_plan(output: Output, migrations: Migrations, revision: str, allow: bool) -> None:
    plan = migrations.plan(revision, allow=allow)
    for step in plan:
        for line in step.sql.splitlines():
            output.line(line)
        if step.lock:
            output.line(("-- lock: ", "yellow"), step.lock)
        output.line()
    if not plan:
        output.line("There is nothing to do.")
    output.result({"steps": [step._asdict() for step in plan]})
