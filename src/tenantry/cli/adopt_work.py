"""What ``tenantry adopt`` connects with, and how it makes tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tenantry.cli.connect import driver_errors
from tenantry.cli.project import Project
from tenantry.errors import TenantNotFound
from tenantry.sdk import MultiTenantSDK
from tenantry.tenants import TenantManager

if TYPE_CHECKING:
    from tenantry.databases.postgres.adopt.adoption import CreateTenants, NoteTenants
    from tenantry.databases.postgres.adopt.plan import Plan
    from tenantry.databases.postgres.adopt.steps import Step

T = TypeVar("T")


def run(url: str, work: Callable[[Any], Awaitable[T]]) -> T:
    """Run ``work`` with a connection of the admin role."""
    with driver_errors():
        from tenantry.databases.postgres.adopt.session import session

        async def connected() -> T:
            async with session(url) as connection:
                return await work(connection)

        return asyncio.run(connected())


async def steps_of(connection: Any, plan: Plan) -> list[Step]:
    """Return the steps that `apply` would take."""
    from tenantry.databases.postgres.adopt.adoption import Adoption
    from tenantry.databases.postgres.adopt.schema import reflect

    return await Adoption(connection).steps(await reflect(connection), plan)


async def owners_of(connection: Any) -> list[tuple[str, int]]:
    """Return the roles that own tables of the adoption, and how many connections each has open."""
    from tenantry.databases.postgres.adopt.journal import entries, plan_of
    from tenantry.databases.postgres.adopt.schema import reflect

    plan, schema = plan_of(await entries(connection)), await reflect(connection)
    assert plan is not None  # something was enforced just now
    owners = sorted({schema.tables[table.table].owner for table in plan.ordered()})
    count = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE usename = $1 AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    return [(owner, await connection.fetchval(count, owner)) for owner in owners]


def tenants_of(project: Project) -> CreateTenants:
    """Return what makes tenants in the directory of a project, whose tables are made if there are none."""

    async def create(wanted: Sequence[tuple[str, str]], note: NoteTenants) -> None:
        database = project.settings.database.model_copy(update={"schema_mode": "create"})
        settings = project.settings.model_copy(update={"database": database})
        async with MultiTenantSDK(settings) as sdk:
            await create_missing(sdk.tenants, wanted, note)

    return create


async def create_missing(
    tenants: TenantManager, wanted: Sequence[tuple[str, str]], note: NoteTenants
) -> None:
    """Make the tenants that are not in the directory yet, once it is noted which those are."""
    missing = []
    for id, name in wanted:
        try:
            await tenants.get(id)
        except TenantNotFound:
            missing.append((id, name))
    if missing:
        await note([id for id, _ in missing])
    for id, name in missing:
        await tenants.create(id, name=name)
