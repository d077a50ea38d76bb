"""``tenantry shell``: a Python prompt with the SDK open."""

from __future__ import annotations

import code
import importlib.util
from typing import Annotated, Any

import typer

from tenantry.cli.project import ConfigFile, EnvFile, Models, load_project
from tenantry.sync import MultiTenantSDK


def shell(
    tenant: Annotated[
        str | None,
        typer.Option(help="A tenant to act for; its rows are then under `data`.", metavar="TENANT"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="On whose behalf; written into the audit log.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Python's own prompt, also where IPython is.")
    ] = False,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
) -> None:
    """Open a Python prompt with `sdk`, `tenants`, your models and, for one tenant, `data`. No call needs `await`."""
    project = load_project(env_file, config, models)
    assert project.url
    with MultiTenantSDK(project.settings, models=project.models) as sdk:
        names: dict[str, Any] = {"sdk": sdk, "tenants": sdk.tenants}
        names |= {model.__name__: model for model in project.models}
        if tenant is not None:
            with sdk.tenant(tenant, user=user) as handle:
                _interact({**names, "tenant": handle, "data": handle.data}, plain)
        else:
            _interact(names, plain)


def _interact(names: dict[str, Any], plain: bool) -> None:
    banner = f"At hand: {', '.join(names)}."
    if not plain and importlib.util.find_spec("IPython") is not None:
        typer.echo(banner)
        # Not imported above: it is the user's own, and no extra brings it.
        importlib.import_module("IPython").start_ipython(argv=["--no-banner"], user_ns=names)
    else:
        code.interact(banner=banner, local=names, exitmsg="")
