"""``tenantry plans``: what is declared, and whether the database counts it; ``tenantry tenants plan, usage, …``."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Annotated, Any

import msgspec
import typer

from tenantry.cli.connect import VARIABLES, connected, driver
from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, Project, load_project
from tenantry.cli.tenants import Reason, TenantId
from tenantry.cli.tenants import commands as of_tenants
from tenantry.errors import ConfigurationError, InvalidRecord
from tenantry.plans import FlagValue, UsageReport
from tenantry.plans.quotas import Count
from tenantry.schema import collection_of
from tenantry.sdk import MultiTenantSDK
from tenantry.tenants import Tenant, begin_counting

commands = typer.Typer(no_args_is_help=True, help="What tenants may use, and whether that is counted.")


@commands.command("list")
def list_plans(env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the plans and flags that the project declares."""
    project = load_project(env_file, config, None)
    plans, flags = project.catalog.plans.values(), project.catalog.flags.values()
    output = Output(as_json)
    rows = [(plan.name, _told(plan.quotas.limits()), _told(plan.flags)) for plan in plans]
    output.table(("PLAN", "LIMITS", "FLAGS"), rows)
    output.table(
        ("FLAG", "DEFAULT", "ROLLOUT", "FOR"),
        [(item.name, _shown(item.default), f"{item.rollout:g} %", item.description) for item in flags],
    )
    output.result(
        {
            "plans": [
                {"name": plan.name, "quotas": plan.quotas.limits(), "flags": dict(plan.flags)}
                for plan in plans
            ],
            "flags": [
                {
                    "name": flag.name,
                    "default": flag.default,
                    "choices": list(flag.choices),
                    "rollout": flag.rollout,
                    "description": flag.description,
                }
                for flag in flags
            ],
        }
    )


@commands.command()
def count(
    models: Models = None, env_file: EnvFile = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Have the rows of all tables counted, those that are there already among them.

    On PostgreSQL as the owner of the tables. Writers of a table wait while it is counted. To be run before limits of
    rows or storage are declared, and after a migration that adds a table.
    """
    project = load_project(env_file, config, models)
    names = sorted(item.name for item in map(collection_of, project.models) if item.scope == "tenant")
    if not names:
        raise ConfigurationError(
            "No model says which tables there are to count.",
            field="models",
            fix="Name them all, with --models package.module:attribute or in pyproject.toml.",
        )
    begun = asyncio.run(_begin_on_postgres(project, names)) if project.is_postgres else names

    async def work(sdk: MultiTenantSDK) -> None:
        await begin_counting(sdk._opened(sdk._database))

    project.without_plans().run(work)
    output = Output(as_json)
    output.line(("Counted ", "bold green"), ", ".join(begun) or "already")
    output.result({"counted": begun})


async def _begin_on_postgres(project: Project, tables: list[str]) -> list[str]:
    url = project.settings.database.owner_url
    if url is None:
        raise ConfigurationError(
            "Only the owner of the tables can have them counted.",
            field="database.owner_url",
            fix=f"Set {VARIABLES['owner']} as `tenantry init` printed it.",
        )
    with driver():
        from tenantry.databases.postgres import counting
    async with connected(url.get_secret_value()) as connection:
        begun = await counting.uncounted_tables(connection, tables)
        for table in begun:
            await counting.begin_counting(connection, table)
    return begun


@of_tenants.command("plan")
def plan_of(
    tenant: TenantId,
    plan: Annotated[str | None, typer.Argument(metavar="PLAN", help="The plan; omit it to see it.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the plan away.")] = False,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show or change a tenant's plan."""
    if clear and plan is not None:
        raise ConfigurationError("Name a plan, or --clear.", field="clear")

    async def work(sdk: MultiTenantSDK) -> Tenant:
        if plan is None and not clear:
            return await sdk.tenants.get(tenant)
        return await sdk.tenants.update(tenant, plan=plan)

    found = load_project(env_file, config, None).run(work)
    output = Output(as_json)
    output.line((f"{found.id}  ", "bold"), found.plan or "no plan", f"  {_told(found.quotas)}")
    output.result({"tenant": found.id, "plan": found.plan, "quotas": found.quotas})


@of_tenants.command()
def usage(
    tenant: TenantId,
    recount: Annotated[
        bool, typer.Option("--recount", help="Count the rows themselves, and mend the counters.")
    ] = False,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a tenant uses of what it may use."""

    async def work(sdk: MultiTenantSDK) -> tuple[list[Count], UsageReport]:
        drift = await sdk.tenants.recount(tenant) if recount else []
        return drift, await sdk.tenants.usage(tenant)

    drift, report = load_project(env_file, config, models).run(work)
    output = Output(as_json)
    output.table(
        ("WHAT", "USED", "LIMIT", ""),
        [
            (
                item.quota,
                str(item.used),
                "-" if item.limit is None else str(item.limit),
                _percent(item.percent),
            )
            for item in report.all()
        ],
    )
    for wrong in drift:
        output.line(
            ("mended ", "bold yellow"), f"{wrong.collection}: {wrong.rows:+} rows, {wrong.size:+} bytes"
        )
    output.result(
        {
            "tenant": report.tenant_id,
            "plan": report.plan,
            "usage": [{**msgspec.to_builtins(item), "percent": item.percent} for item in report.all()],
            "drift": msgspec.to_builtins(drift),
        }
    )


@of_tenants.command()
def flags(
    tenant: TenantId,
    user: Annotated[str | None, typer.Option(help="One of its users.")] = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's feature flags, and where each value comes from."""

    async def work(sdk: MultiTenantSDK) -> list[FlagValue]:
        return await sdk.tenants.flags(tenant, user=user)

    found = load_project(env_file, config, None).run(work)
    output = Output(as_json)
    output.table(
        ("FLAG", "VALUE", "FROM", "UNTIL", "WHY"),
        [
            (
                item.name,
                _shown(item.value),
                item.source,
                "" if item.until is None else f"{item.until:%Y-%m-%d %H:%M}",
                item.reason or "",
            )
            for item in found
        ],
    )
    output.result({"flags": msgspec.to_builtins(found)})


@of_tenants.command()
def flag(
    tenant: TenantId,
    name: Annotated[str, typer.Argument(metavar="FLAG", help="The flag.")],
    reason: Reason,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="In JSON, such as true or 5; a word is a text.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the tenant's own value away.")] = False,
    days: Annotated[float | None, typer.Option(min=0, help="Days until it ends. [default: never]")] = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a tenant a flag's value of its own, or take it away."""
    if clear == (value is not None):
        raise ConfigurationError("Name a value, or --clear.", field="value")
    until = None if days is None else dt.datetime.now(dt.UTC) + dt.timedelta(days=days)

    async def work(sdk: MultiTenantSDK) -> Tenant:
        if clear:
            return await sdk.tenants.clear_flag(tenant, name, reason=reason)
        return await sdk.tenants.set_flag(tenant, name, _value(str(value)), reason=reason, until=until)

    found = load_project(env_file, config, None).run(work)
    output = Output(as_json)
    output.line((f"{found.id}  ", "bold"), f"{name}: ", "cleared" if clear else str(value))
    output.result({"tenant": found.id, "flags": found.flags})


@of_tenants.command()
def settings(
    tenant: TenantId,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="New values, in JSON or as a word.")
    ] = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a tenant's settings with their defaults, or change some of them."""
    wanted = dict(_pair(text) for text in changes or ())

    async def work(sdk: MultiTenantSDK) -> Any:
        handle = sdk.tenant(tenant)
        return await (handle.settings.update(wanted) if wanted else handle.settings.get())

    found = load_project(env_file, config, None).run(work).model_dump(mode="json")
    output = Output(as_json)
    output.table(("SETTING", "VALUE"), [(name, _shown(value)) for name, value in found.items()])
    output.result({"tenant": tenant, "settings": found})


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidRecord("write NAME=VALUE.", field=text)
    return name, _value(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _percent(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.0f} %"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _told(values: Any) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in values.items()) or "-"
