"""The commands, and what an error of one of them looks like.

Exit status: 0 done; 1 refused, or the doctor found an error; 2 wrong usage or configuration; 3 the database is away.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tenantry import __version__
from tenantry.cli import (
    adopt,
    api_keys,
    data,
    demo,
    doctor,
    init,
    insights,
    keys,
    migrate,
    plans,
    scan,
    shell,
    transfers,
)
from tenantry.cli.output import Output, wants_json
from tenantry.errors import (
    ConfigurationError,
    InvalidTransition,
    IsolationError,
    SchemaMismatch,
    TenantExists,
    TenantNotFound,
    TenantryError,
    Unavailable,
)

REFUSED, MISCONFIGURED, AWAY = 1, 2, 3
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Commands(TyperGroup):
    """Turns an error of tenantry into a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TenantryError as error:
            _tell(error, as_json=wants_json(ctx))
            raise typer.Exit(_status(error)) from error


def _tell(error: TenantryError, *, as_json: bool) -> None:
    fix = next_step(error)
    code = _BOUNDARY.sub("-", type(error).__name__).lower()
    Output(as_json).result({"error": {"code": code, "message": error.message, "fix": fix}})
    output = Output(as_json, stderr=True)
    for number, text in enumerate(error.message.strip().splitlines()):
        output.line(*([("error: ", "bold red")] if number == 0 else []), text)
    if fix:
        output.line(("fix:   ", "bold"), fix)


def _status(error: TenantryError) -> int:
    if isinstance(error, ConfigurationError):
        return MISCONFIGURED
    return AWAY if isinstance(error, Unavailable) else REFUSED


def next_step(error: TenantryError) -> str | None:
    """Return what to do about ``error`` on the command line; where that is the same in Python, the error's own fix."""
    if isinstance(error, SchemaMismatch) and "plans count" not in (error.fix or ""):
        return (
            "Run: tenantry migrate upgrade. In development, make missing tables with "
            "TENANTRY_DATABASE_SCHEMA_MODE=create before the command."
        )
    if isinstance(error, InvalidTransition) and error.wanted == "purged":
        return f"Mark it first: tenantry tenants delete {error.tenant_id} --reason …"
    if isinstance(error, TenantExists | InvalidTransition):
        return f"Look at it: tenantry tenants show {error.tenant_id}"
    if isinstance(error, TenantNotFound):
        return "See which there are: tenantry tenants list"
    if isinstance(error, IsolationError) and not error.fix:
        return "Run: tenantry doctor"
    return error.fix


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tenantry {__version__}")
        raise typer.Exit


commands = typer.Typer(
    name="tenantry",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a pretty traceback may show local variables, and these hold secrets
    help="Tenant-isolated data: prepare a database, check it, look after tenants and keys.",
    epilog=" ".join(str(__doc__).strip().splitlines()[2:]),
)


@commands.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Tenant-isolated data: prepare a database, check it, look after tenants and keys."""


commands.command("init")(init.init)
commands.command("demo")(demo.demo)
commands.command("doctor")(doctor.doctor)
commands.add_typer(data.commands, name="data")
commands.add_typer(adopt.commands, name="adopt")
commands.command("insights")(insights.insights)
commands.command("scan")(scan.scan)
commands.command("shell")(shell.shell)
commands.add_typer(keys.commands, name="keys")
commands.add_typer(migrate.commands, name="migrate")
commands.add_typer(api_keys.commands, name="api-keys")
commands.add_typer(plans.commands, name="plans")
commands.add_typer(transfers.commands, name="tenants")
