"""The names by which people know tenants, which may change; ids never do."""

from __future__ import annotations

import datetime as dt

from tenantry import types
from tenantry.errors import TenantExists, TenantNotFound
from tenantry.ports import DatabaseAdapter, Delete, Executor, Upsert
from tenantry.query import Comparison, Query
from tenantry.tenants.directory import FORMER_SLUGS, SYSTEM, TENANTS, FormerSlug, Tenant, tenant_of
from tenantry.types import Record


async def find_by_slug(database: DatabaseAdapter, slug: str) -> Tenant:
    """Return the tenant that has a slug, or had it and may still be found under it.

    Raises:
        TenantNotFound: None has or had.
    """
    slug = types.tenant_id(slug)
    found = await _holder(database, slug)
    if found is None:
        former = await _former(database, slug)
        rows = [] if former is None else await database.fetch(SYSTEM, TENANTS, [former["tenant"]])
        found = rows[0] if rows else None
    if found is None:
        raise TenantNotFound(f"There is no tenant known as {slug!r}.", tenant_id=slug)
    return tenant_of(found)


async def check_free(unit: Executor, slug: str, tenant_id: str) -> None:
    """Raise unless a tenant may be known as ``slug``: it is nobody else's slug or id, and nobody else's redirects.

    Raises:
        TenantExists: It is taken.
    """
    others = [await _holder(unit, slug), await _former(unit, slug)]
    rows = await unit.fetch(SYSTEM, TENANTS, [slug])
    owners = {row["id"] for row in (others[0], *rows) if row is not None}
    owners |= set() if others[1] is None else {others[1]["tenant"]}
    if owners - {tenant_id}:
        raise TenantExists(
            f"{slug!r} is the id or the slug of another tenant, or was until lately.",
            tenant_id=slug,
            fix="Choose another slug.",
        )


async def leave_slug(unit: Executor, old: str, new: str, tenant_id: str, redirect: dt.timedelta) -> None:
    """Keep a tenant reachable under the slug that it had, for a while."""
    if await unit.fetch(SYSTEM, FORMER_SLUGS, [new]):
        await unit.execute(SYSTEM, [Delete(FORMER_SLUGS, new)])
    if redirect > dt.timedelta():
        until = dt.datetime.now(dt.UTC) + redirect
        record = FORMER_SLUGS.to_record(FormerSlug(id=old, tenant=tenant_id, until=until, version=1))
        await unit.execute(SYSTEM, [Upsert(FORMER_SLUGS, record, ("id",), ("tenant", "until", "updated_at"))])


async def _holder(unit: Executor, slug: str) -> Record | None:
    fields = tuple(TENANTS.fields.values())
    query = Query(TENANTS, fields, Comparison(TENANTS.fields["slug"], "eq", slug), limit=1)
    rows = await unit.select(SYSTEM, query)
    return rows[0] if rows else None


async def _former(unit: Executor, slug: str) -> Record | None:
    rows = await unit.fetch(SYSTEM, FORMER_SLUGS, [slug])
    return rows[0] if rows and rows[0]["until"] > dt.datetime.now(dt.UTC) else None
