"""``tenantry tenants``: the directory."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, Project, load_project
from tenantry.errors import ConfigurationError, InvalidRecord
from tenantry.sdk import MultiTenantSDK
from tenantry.tenants import PurgeCertificate, Tenant, TenantStatus
from tenantry.types import Page

commands = typer.Typer(no_args_is_help=True, help="List, create, suspend, resume, delete and purge tenants.")

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]


@commands.command("list")
def list_tenants(
    status: Annotated[TenantStatus | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to list.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Where the list before this one ended.")] = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List tenants in the order of their ids."""

    async def work(sdk: MultiTenantSDK) -> Page[Tenant]:
        return await sdk.tenants.list(status=status, limit=limit, cursor=cursor)

    page = load_project(env_file, config, None).run(work)
    output = Output(as_json)
    rows = [(item.id, item.status.value, item.plan or "-", item.name) for item in page]
    output.table(("TENANT", "STATUS", "PLAN", "NAME"), rows)
    if page.next_cursor:
        output.line(f"More: tenantry tenants list --cursor {page.next_cursor}")
    output.result({"tenants": [_data(item) for item in page], "next_cursor": page.next_cursor})


@commands.command()
def create(
    tenant: TenantId,
    name: Annotated[str | None, typer.Option(help="What people call it. [default: its id]")] = None,
    plan: Annotated[str | None, typer.Option(help="What it pays for.")] = None,
    settings: Annotated[str, typer.Option(help="A JSON object.")] = "{}",
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant, or find that it exists with the same properties."""
    given = _settings(settings)

    async def work(sdk: MultiTenantSDK) -> Tenant:
        return await sdk.tenants.create(tenant, name=name, plan=plan, settings=given)

    show_tenant(load_project(env_file, config, None).run(work), as_json)


@commands.command()
def show(
    tenant: TenantId, env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show one tenant, whatever its status."""

    async def work(sdk: MultiTenantSDK) -> Tenant:
        return await sdk.tenants.get(tenant)

    show_tenant(load_project(env_file, config, None).run(work), as_json)


@commands.command()
def suspend(
    tenant: TenantId,
    reason: Reason,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a tenant everywhere, within one second. Its data stays."""

    async def work(sdk: MultiTenantSDK) -> Tenant:
        return await sdk.tenants.suspend(tenant, reason=reason)

    show_tenant(load_project(env_file, config, None).run(work), as_json)


@commands.command()
def resume(
    tenant: TenantId, env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Serve a suspended tenant again."""

    async def work(sdk: MultiTenantSDK) -> Tenant:
        return await sdk.tenants.resume(tenant)

    show_tenant(load_project(env_file, config, None).run(work), as_json)


@commands.command()
def delete(
    tenant: TenantId,
    reason: Reason,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Step one of two: mark a tenant for deletion. It is refused from now on; its data goes with `purge`."""

    async def work(sdk: MultiTenantSDK) -> Tenant:
        return await sdk.tenants.delete(tenant, reason=reason)

    show_tenant(load_project(env_file, config, None).run(work), as_json)
    Output(as_json).line(f"Its data is still there. Delete it for good: tenantry tenants purge {tenant}")


@commands.command()
def purge(
    tenant: TenantId,
    models: Models = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    leave_others: Annotated[
        bool, typer.Option("--leave-others", help="Leave rows in tables that are in no model.")
    ] = False,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Step two: delete every row of a tenant that is marked for deletion, and count that none is left.

    The models say in which tables its rows are, so all of them are needed.
    """
    project = with_models(load_project(env_file, config, models))
    names = ", ".join(sorted(model.__collection__ for model in project.models))
    if not yes and (as_json or not typer.confirm(f"Delete all rows of {tenant} in {names}? This is final.")):
        raise ConfigurationError("Nothing was deleted.", field="yes", fix="To go ahead, add --yes.")

    async def work(sdk: MultiTenantSDK) -> PurgeCertificate:
        return await sdk.tenants.purge(tenant, leave_others=leave_others)

    certificate = project.run(work)
    output = Output(as_json)
    output.line(("Purged ", "bold green"), tenant)
    output.table(
        ("TABLE", "DELETED", "LEFT"),
        [(name, str(count), str(certificate.remaining[name])) for name, count in certificate.deleted.items()],
    )
    output.result(
        {
            "tenant": certificate.tenant_id,
            "deleted": dict(certificate.deleted),
            "remaining": dict(certificate.remaining),
            "started_at": certificate.started_at.isoformat(),
            "finished_at": certificate.finished_at.isoformat(),
        }
    )


def with_models(project: Project) -> Project:
    """Return the project, which must have models."""
    if not project.models:
        raise ConfigurationError(
            "This works on the rows of the models it is given, and none is.",
            field="models",
            fix="Name them all, with --models package.module:attribute or in pyproject.toml: "
            '[tool.tenantry] models = ["package.module:attribute"].',
        )
    return project


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise InvalidRecord(f"not JSON: {error}.", field="settings") from error
    if not isinstance(settings, dict):
        raise InvalidRecord("must be a JSON object.", field="settings")
    return settings


def _data(tenant: Tenant) -> dict[str, Any]:
    return tenant.model_dump(mode="json", exclude={"change"})


def show_tenant(tenant: Tenant, as_json: bool) -> None:
    """Print a tenant."""
    output = Output(as_json)
    data = _data(tenant)
    for name, value in data.items():
        output.line((f"{name:<14}", "bold"), json.dumps(value) if isinstance(value, dict) else str(value))
    output.result(data)
