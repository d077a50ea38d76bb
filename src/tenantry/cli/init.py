"""``tenantry init``: roles, seal key and ``.env`` in one command."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import typer

from tenantry.cli import envfile
from tenantry.cli.connect import SEAL_KEY, VARIABLES, Place, driver, driver_errors, place
from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ENV_FILE
from tenantry.errors import ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from tenantry.databases.postgres.provision import Provisioned

UNUSABLE = 1
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_LONGEST_NAME = 63  # bytes that PostgreSQL keeps of one

_NEXT = """\
set -a; . {env_file}; set +a

async with MultiTenantSDK.open(models=[Product], schema="create") as sdk:
    await sdk.tenants.create("acme", name="Acme Corp")
    product = await sdk.tenant("acme").data.create(Product(name="Laptop"))

tenantry doctor"""


def init(
    admin_url: Annotated[
        str,
        typer.Option(
            help="postgresql://postgres@HOST/DATABASE, of a superuser or of a role with CREATEROLE that owns the "
            "database. Used now and stored nowhere; in the environment it stays out of the process list.",
            envvar="TENANTRY_ADMIN_URL",
        ),
    ],
    database: Annotated[
        str | None, typer.Option(help="The database, made if there is none; by default that of the URL.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Begins the roles' names. Databases of one server share roles of one name.")
    ] = "tenantry",
    env_file: Annotated[
        Path, typer.Option(help="Gets the URLs and the seal key; other lines stay.", metavar="FILE")
    ] = ENV_FILE,
    reset_passwords: Annotated[
        bool, typer.Option("--reset-passwords", help="New passwords also for roles that exist.")
    ] = False,
    no_harden: Annotated[
        bool, typer.Option("--no-harden", help="Leave PUBLIC its rights: other programs use this database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a PostgreSQL database: roles, seal key, rights and .env. Doing it again changes nothing that is right.

    Exit status 1 if .env lacks something in the end.
    """
    with driver():
        from tenantry.databases.postgres.provision import provision

    _check_names(prefix, database)
    envfile.check_writable(env_file)
    with envfile.locked(env_file), driver_errors():
        before = envfile.read(env_file)
        made = asyncio.run(
            provision(
                admin_url,
                database=database,
                prefix=prefix,
                reset_passwords=reset_passwords,
                harden=not no_harden,
            )
        )
        written = _values(made, before)
        _keep(env_file, written)
    summary = asyncio.run(_summary(made, admin_url, database, before, written))
    _show(Output(as_json), summary, made, env_file)
    if summary.unusable:
        raise typer.Exit(UNUSABLE)


def _keep(env_file: Path, written: Mapping[str, str]) -> None:
    try:
        envfile.write(env_file, written)
    except ConfigurationError as error:
        fix = "Nobody knows the new passwords: run it again, with --reset-passwords and another --env-file."
        raise ConfigurationError(error.message, field=error.field, fix=fix) from error


def _values(made: Provisioned, before: Mapping[str, str]) -> dict[str, str]:
    """Return what is new in ``.env``."""
    values = {variable: made.urls[role] for role, variable in VARIABLES.items() if role in made.urls}
    key = made.seal_key.export()
    newest = before.get(SEAL_KEY, "").partition(",")[0].strip()
    return values if newest == key else {**values, SEAL_KEY: key}


def _check_names(prefix: str, database: str | None) -> None:
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"{prefix!r} cannot begin the roles' names.", field="prefix", fix="Use 1 to 48 of a-z 0-9 _."
        )
    if database is not None and not 1 <= len(database.encode()) <= _LONGEST_NAME:
        raise ConfigurationError(
            f"{database!r} cannot name a database.", field="database", fix="Use 1 to 63 letters."
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``init`` did.

    Attributes:
        where: Host, port and database.
        written: The variables that are new in ``.env``.
        kept: The variables that were there and still work.
        unusable: The variables that are missing or do not work, and why.
    """

    where: str
    written: tuple[str, ...]
    kept: tuple[str, ...]
    unusable: Mapping[str, str]


async def _summary(
    made: Provisioned,
    admin_url: str,
    database: str | None,
    before: Mapping[str, str],
    written: Mapping[str, str],
) -> Summary:
    """Connect as each role with what ``.env`` holds now, so that nobody finds out later."""
    now = {**before, **written}
    home = await place(_at(admin_url, database))
    unusable = {}
    for role, variable in VARIABLES.items():
        reason = await _fault(now.get(variable), getattr(made.roles, role), home)
        if reason:
            unusable[variable] = reason
    kept = [name for name in (*VARIABLES.values(), SEAL_KEY) if name not in written and name not in unusable]
    return Summary(home.where, tuple(written), tuple(kept), unusable)


def _at(url: str, database: str | None) -> str:
    """Return ``url`` with another database, if one is named."""
    if database is None:
        return url
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("database", "dbname")]
    return urlunsplit(parts._replace(path="/" + quote(database, safe=""), query=urlencode(query)))


async def _fault(url: str | None, role: str, home: Place) -> str | None:
    """Return why ``url`` is not that of ``role`` in the database that was prepared."""
    if not url:
        return f"The role {role} exists, and its password is not in this file."
    try:
        found = await place(url)
    except (DatabaseUnavailable, ConfigurationError) as error:
        return error.message
    if found.role != role:
        return f"It is for the role {found.role}, not for {role}."
    if found.is_apart_from(home):
        return f"It leads to {found.where}, not to {home.where}."
    return None


def _show(output: Output, summary: Summary, made: Provisioned, env_file: Path) -> None:
    output.line(("Prepared ", "bold green"), (summary.where, "bold"))
    output.line("  roles     ", ", ".join(made.roles))
    output.line("  seal key  ", made.seal_key.kid)
    if summary.written:
        output.line("  written   ", ", ".join(summary.written), f" to {env_file} (only you can read it)")
    if summary.kept:
        output.line("  kept      ", ", ".join(summary.kept), f" in {env_file}")
    for unmet in made.unmet:
        output.line()
        output.line(("Not done:  ", "yellow"), unmet.what)
        output.line("  means     ", unmet.consequence)
        output.line("  fix       ", unmet.fix, ", as a superuser")
    _show_unusable(output, summary, env_file)
    if not summary.unusable:
        output.line()
        output.line(("Next:", "bold"))
        path = env_file if env_file.is_absolute() else f"./{env_file}"
        for line in _NEXT.format(env_file=path).splitlines():
            output.line("  " if line else "", line)
    output.result(_data(summary, made, env_file))


def _show_unusable(output: Output, summary: Summary, env_file: Path) -> None:
    if not summary.unusable:
        return
    output.line()
    for variable, reason in summary.unusable.items():
        output.line(("Missing:   ", "bold red"), f"{variable}: {reason}")
    output.line(("  fix       ", "bold"), f"Copy what is missing into {env_file} from where init ran first.")
    output.line(
        "            If nothing uses these roles yet, make new passwords: tenantry init … --reset-passwords"
    )
    output.line("            For another database, make roles of its own: tenantry init … --prefix NAME")


def _data(summary: Summary, made: Provisioned, env_file: Path) -> dict[str, Any]:
    return {
        **asdict(summary),
        "ok": not summary.unusable,
        "roles": made.roles._asdict(),
        "seal_key": made.seal_key.kid,
        "env_file": str(env_file),
        "unmet": [unmet._asdict() for unmet in made.unmet],
    }
