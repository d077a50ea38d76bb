"""`tenantry api-keys`: the keys of a tenant's own programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, load_project
from tenantry.sdk import MultiTenantSDK
from tenantry.tenants import APIKey, NewAPIKey

commands = typer.Typer(help="The API keys of a tenant's own programs.", no_args_is_help=True)

OfTenant = Annotated[str, typer.Option("--tenant", help="Whose.", metavar="TENANT")]
KeyId = Annotated[str, typer.Argument(help="The key's id, tnt_…", metavar="ID")]
Actor = "command line"


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    tenant: OfTenant,
    role: Annotated[list[str] | None, typer.Option(help="A role; may be repeated.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope; may be repeated.")] = None,
    days: Annotated[float | None, typer.Option(help="For how many days it works.")] = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it: it is shown this once."""
    ttl = None if days is None else dt.timedelta(days=days)

    async def work(sdk: MultiTenantSDK) -> NewAPIKey:
        keys = sdk.tenant(tenant, user=Actor).api_keys
        return await keys.create(name, roles=role or (), scopes=scope or (), ttl=ttl)

    _show(load_project(env_file, config, None).run(work), as_json)


@commands.command("list")
def list_keys(
    tenant: OfTenant, env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """List the keys of a tenant, without secrets."""

    async def work(sdk: MultiTenantSDK) -> Sequence[APIKey]:
        return await sdk.tenant(tenant).api_keys.list()

    found = load_project(env_file, config, None).run(work)
    output = Output(as_json)
    output.table(
        ("ID", "NAME", "EXPIRES", "LAST USED", "REVOKED"),
        [
            (key.id, key.name, _time(key.expires_at), _time(key.last_used_at), _time(key.revoked_at))
            for key in found
        ],
    )
    output.result({"keys": [_data(key) for key in found]})


@commands.command()
def rotate(
    id: KeyId,
    tenant: OfTenant,
    hours: Annotated[float, typer.Option(min=0, help="For how long both work.")] = 24,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key that replaces another one, and print it."""

    async def work(sdk: MultiTenantSDK) -> NewAPIKey:
        keys = sdk.tenant(tenant, user=Actor).api_keys
        return await keys.rotate(id, overlap=dt.timedelta(hours=hours))

    _show(load_project(env_file, config, None).run(work), as_json)


@commands.command()
def revoke(
    id: KeyId,
    tenant: OfTenant,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a key everywhere, within one second."""

    async def work(sdk: MultiTenantSDK) -> None:
        await sdk.tenant(tenant, user=Actor).api_keys.revoke(id, reason=reason)

    load_project(env_file, config, None).run(work)
    output = Output(as_json)
    output.line(("Revoked ", "bold green"), id)
    output.result({"revoked": id})


def _show(made: NewAPIKey, as_json: bool) -> None:
    output = Output(as_json)
    output.line(made.text)
    output.result({**_data(made.key), "key": made.text})


def _data(key: APIKey) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"digest"})


def _time(moment: dt.datetime | None) -> str:
    return "-" if moment is None else moment.isoformat(timespec="seconds")
