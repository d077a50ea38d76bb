"""`tenantry tenants`: rename, export, import, clone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, load_project
from tenantry.cli.tenants import TenantId, commands, show_tenant, with_models
from tenantry.sdk import MultiTenantSDK
from tenantry.tenants import Contents, Copy, Manifest, Tenant

__all__ = ["commands"]

NewId = Annotated[str, typer.Option("--as", help="The id of the new tenant.", metavar="TENANT")]
Anonymise = Annotated[
    bool,
    typer.Option("--anonymise", help="Put pseudonyms in the place of personal data, which is marked PII."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--collection", help="Only this one; may be repeated.", metavar="NAME"),
]


class Spoken:
    """Says how far it is, once a second at most."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = time.monotonic()

    def __call__(self, collection: str, rows: int) -> None:
        """Say how many rows of a collection are done."""
        if time.monotonic() - self._last >= 1.0:
            self._last = time.monotonic()
            self._output.line(f"{collection}: {rows:,} rows")


@commands.command()
def rename(
    tenant: TenantId,
    slug: Annotated[str | None, typer.Option(help="The new slug; the id stays.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Let people know a tenant by another slug or name. Its id, and with it every row, stays."""

    async def work(sdk: MultiTenantSDK) -> Tenant:
        return await sdk.tenants.rename(tenant, slug=slug, name=name)

    show_tenant(load_project(env_file, config, None).run(work), as_json)


@commands.command("export")
def export_tenant(
    tenant: TenantId,
    file: Annotated[Path, typer.Argument(help="The archive to write.")],
    collections: Only = None,
    anonymise: Anonymise = False,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a tenant into one file, without its secrets, as it is at one moment."""
    output = Output(as_json)

    async def work(sdk: MultiTenantSDK) -> Manifest:
        return await sdk.tenants.export(
            tenant, file, collections=collections, anonymise=anonymise, progress=Spoken(output)
        )

    manifest = with_models(load_project(env_file, config, models)).run(work)
    output.line(("Exported ", "bold green"), f"{tenant} to {file}")
    _tell(output, tenant, dict(manifest.collections))


@commands.command("import")
def import_tenant(
    file: Annotated[Path, typer.Argument(help="An archive that `export` has written.")],
    as_: NewId,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant of such a file: whole and compared with its checksums, or not served."""
    output = Output(as_json)

    async def work(sdk: MultiTenantSDK) -> Copy:
        return await sdk.tenants.import_(file, as_=as_, progress=Spoken(output))

    copy = with_models(load_project(env_file, config, models)).run(work)
    output.line(("Imported ", "bold green"), f"{file} as {as_}")
    _tell(output, as_, dict(copy.collections))


@commands.command()
def clone(
    tenant: TenantId,
    as_: Annotated[str, typer.Argument(help="The id of the new tenant.", metavar="NEW")],
    collections: Only = None,
    anonymise: Anonymise = False,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy a tenant into a new one."""
    output = Output(as_json)

    async def work(sdk: MultiTenantSDK) -> Copy:
        return await sdk.tenants.clone(tenant, as_, collections=collections, anonymise=anonymise)

    copy = with_models(load_project(env_file, config, models)).run(work)
    output.line(("Cloned ", "bold green"), f"{tenant} as {as_}")
    _tell(output, as_, dict(copy.collections))


def _tell(output: Output, tenant: str, collections: dict[str, Contents]) -> None:
    output.table(
        ("COLLECTION", "ROWS", "SHA-256"),
        [(name, str(item.rows), item.sha256[:16]) for name, item in collections.items()],
    )
    held = {name: {"rows": item.rows, "sha256": item.sha256} for name, item in collections.items()}
    output.result({"tenant": tenant, "collections": held})
