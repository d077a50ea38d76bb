"""``tenantry keys``: a new seal key, in two steps between which both are valid.

1. ``tenantry keys rotate`` makes a second key valid and puts it first in ``.env``. Give that to every process.
2. ``tenantry keys retire KID`` makes the old key invalid, at once and for good, once no process signs with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantry.cli import envfile
from tenantry.cli.connect import SEAL_KEY, VARIABLES, connected, driver
from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ENV_FILE, EnvFile, read_settings
from tenantry.errors import ConfigurationError

if TYPE_CHECKING:
    from tenantry.databases.postgres.seal import SealKey

commands = typer.Typer(no_args_is_help=True, help="The keys that seal a connection to its tenant.")

AdminUrl = Annotated[
    str | None,
    typer.Option(
        help=f"A superuser's URL; by default {VARIABLES['owner']}.",
        envvar="TENANTRY_ADMIN_URL",
        show_default=False,
    ),
]


@commands.command("list")
def list_keys(env_file: EnvFile = None, admin_url: AdminUrl = None, as_json: AsJson = False) -> None:
    """List the keys, newest first."""

    async def work() -> list[dict[str, Any]]:
        async with connected(_owner(env_file, admin_url)) as connection:
            rows = await connection.fetch(
                "SELECT kid, created_at, retired_at FROM tenantry.seal_keys ORDER BY created_at DESC, kid"
            )
        return [dict(row) for row in rows]

    rows = asyncio.run(work())
    output = Output(as_json)
    output.table(
        ("KEY", "MADE", "STATE"),
        [(row["kid"], f"{row['created_at']:%Y-%m-%d %H:%M}", _state(row["retired_at"])) for row in rows],
    )
    output.result({"keys": rows})


@commands.command()
def rotate(env_file: EnvFile = None, admin_url: AdminUrl = None, as_json: AsJson = False) -> None:
    """Step one: make a second key valid, and put it first in .env.

    Nothing stops working: the old key stays valid until it is retired.
    """
    with driver():
        from tenantry.databases.postgres.provision import add_seal_key

    path = env_file or ENV_FILE
    url = _owner(env_file, admin_url)
    envfile.check_writable(path)

    async def work() -> SealKey:
        async with connected(url) as connection:
            with _next_step("See them: tenantry keys list. Retire the older one: tenantry keys retire KID"):
                return await add_seal_key(connection)

    with envfile.locked(path):
        old = envfile.read(path).get(SEAL_KEY, "")
        key = asyncio.run(work())
        envfile.write(path, {SEAL_KEY: ",".join([key.export(), *_exports(old)])})
    output = Output(as_json)
    names = [text.partition(":")[0] for text in _exports(old)]
    output.line(
        ("Made ", "bold green"), key.kid, f"; it stands first in {path}, so that new processes sign with it."
    )
    output.line(
        "Next: give the new ", SEAL_KEY, " to every process and restart it. When no process signs with the"
    )
    output.line(f"old key any more:  tenantry keys retire {' '.join(names) or 'KID'}")
    output.result({"made": key.kid, "to_retire": names, "env_file": str(path)})


@commands.command()
def retire(
    kid: Annotated[str, typer.Argument(help="The key's name, as in `tenantry keys list`.")],
    env_file: EnvFile = None,
    admin_url: AdminUrl = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also the key that this very configuration signs with.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Step two: make a key invalid, at once and for good, and take it out of .env.

    A process that still signs with it is refused by the database from then on.
    """
    with driver():
        from tenantry.databases.postgres.provision import retire_seal_key

    path = env_file or ENV_FILE
    _check_unused(kid, env_file, force=force)
    url = _owner(env_file, admin_url)

    async def work() -> None:
        async with connected(url) as connection:
            with _next_step("See them: tenantry keys list. Make a new one first: tenantry keys rotate"):
                await retire_seal_key(connection, kid)

    asyncio.run(work())
    with envfile.locked(path):
        listed = _exports(envfile.read(path).get(SEAL_KEY, ""))
        kept = [text for text in listed if text.partition(":")[0] != kid]
        if kept and kept != listed:
            envfile.write(path, {SEAL_KEY: ",".join(kept)})
    output = Output(as_json)
    output.line(("Retired ", "bold green"), kid, ": the database accepts no seal made with it.")
    output.result({"retired": kid})


@contextmanager
def _next_step(fix: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(error.message, field=error.field, fix=fix) from error


def _check_unused(kid: str, env_file: Path | None, *, force: bool) -> None:
    key = read_settings(env_file).database.seal_key
    signing = "" if key is None else key.get_secret_value().partition(":")[0].strip()
    if signing == kid and not force:
        raise ConfigurationError(
            f"{kid} is the key that this configuration signs with.",
            field="seal_key",
            fix="Make another one first: tenantry keys rotate. To lock these processes out, add --force.",
        )


def _owner(env_file: Path | None, admin_url: str | None) -> str:
    if admin_url:
        return admin_url
    url = read_settings(env_file).database.owner_url
    if url is None:
        raise ConfigurationError(
            "Seal keys belong to the owner role, and its URL is not known.",
            field="database.owner_url",
            fix=f"Set {VARIABLES['owner']} or pass --admin-url.",
        )
    return url.get_secret_value()


def _exports(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _state(retired_at: Any) -> str:
    return "valid" if retired_at is None else f"retired {retired_at:%Y-%m-%d %H:%M}"
