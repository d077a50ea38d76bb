"""Creating tenants and moving them through their life."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from tenantry import types
from tenantry.context import SystemContext
from tenantry.cursors import CursorSigner
from tenantry.errors import (
    ConfigurationError,
    InvalidRecord,
    InvalidTransition,
    PurgeIncomplete,
    TenantExists,
    TenantNotFound,
    UniqueViolation,
)
from tenantry.filters import parse_where
from tenantry.plans import Catalog
from tenantry.plans.settings import changed_settings
from tenantry.ports import DatabaseAdapter, Executor, Insert, Meter, Purge, Update
from tenantry.query import And, Query, Sort, after, parse_fields, parse_limit
from tenantry.schema import Collection
from tenantry.tenants.directory import (
    SYSTEM,
    TENANTS,
    Tenant,
    TenantStatus,
    audit,
    next_change,
    tenant_of,
)
from tenantry.tenants.lease import LONGEST_LEASE, TenantLease
from tenantry.tenants.order import children_first
from tenantry.tenants.plans import UNSET, PlanCalls, UnsetType
from tenantry.tenants.requests import RequestMeter
from tenantry.tenants.standing import Standings
from tenantry.types import Page, Record

_BATCH = 1_000
_STEPS: dict[TenantStatus, frozenset[TenantStatus]] = {
    TenantStatus.ACTIVE: frozenset({TenantStatus.SUSPENDED, TenantStatus.DELETING}),
    TenantStatus.SUSPENDED: frozenset({TenantStatus.ACTIVE, TenantStatus.DELETING}),
    TenantStatus.DELETING: frozenset({TenantStatus.PURGED}),
    TenantStatus.PURGED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class PurgeCertificate:
    """What a purge deleted. ``remaining`` was counted after it, by the system, and is all zeros.

    Attributes:
        tenant_id: The tenant.
        deleted: Rows deleted, for each table.
        remaining: Rows left, for each table.
        started_at: When the purge began.
        finished_at: When it had committed.
    """

    tenant_id: str
    deleted: Mapping[str, int]
    remaining: Mapping[str, int]
    started_at: dt.datetime
    finished_at: dt.datetime


class TenantManager(PlanCalls):
    """Creates tenants, moves them through their life, and says what they may use."""

    def __init__(
        self,
        database: DatabaseAdapter,
        lease: TenantLease,
        collections: Sequence[Collection],
        cursors: CursorSigner,
        catalog: Catalog,
        standings: Standings,
        requests: RequestMeter,
    ) -> None:
        super().__init__(database, lease, catalog, standings, requests)
        self._collections = children_first(collections)
        self._cursors = cursors

    async def create(
        self,
        slug: str,
        *,
        name: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Create a tenant whose id is ``slug``, or return the one that exists with the same properties.

        Raises:
            InvalidTenantId: ``slug`` cannot be a tenant id.
            TenantExists: It is taken by a tenant with another name, plan or settings.
            UnknownPlan: Plans are declared, and it is none of them.
            InvalidRecord: A property or a setting is wrong; ``field`` names it.
        """
        tenant_id = types.tenant_id(slug)
        self._catalog.check_plan(plan)
        given = {"name": name or slug, "plan": plan, "settings": self._checked_settings(settings or {})}
        values = TENANTS.validate_changes(given)
        found = await self._find(tenant_id)
        if found is None:
            try:
                return await self._insert(tenant_id, values)
            except UniqueViolation:
                found = await self.get(tenant_id)
        if found.status is TenantStatus.PURGED or any(getattr(found, key) != values[key] for key in values):
            raise TenantExists(
                f"Tenant {slug!r} exists with other properties.",
                tenant_id=slug,
                fix="Choose another slug, or change the tenant with update(…).",
            )
        return found

    async def create_many(
        self, slugs: Iterable[str], *, plan: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> int:
        """Create many tenants, 1,000 in a transaction, and return how many were new; those that exist stay as they are.

        It may be run again after a failure: what was created before is found.

        Args:
            slugs: Their ids, each of which is its name too.
            plan: The plan of those that are new.
            settings: The settings of those that are new.

        Raises:
            InvalidTenantId: One of them cannot be a tenant id; those before it may have been created.
        """
        values = TENANTS.validate_changes({"plan": plan, "settings": dict(settings or {})})
        made, rest = 0, iter(slugs)
        while batch := list(islice(rest, _BATCH)):
            ids = dict.fromkeys(map(types.tenant_id, batch))
            made += await self._insert_many([_new(id, {**values, "name": id}) for id in ids])
        return made

    async def get(self, tenant_id: str) -> Tenant:
        """Return a tenant, whatever its status, or raise :class:`TenantNotFound`."""
        found = await self._find(tenant_id)
        if found is None:
            raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
        return found

    async def list(
        self, *, status: TenantStatus | str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Tenant]:
        """Return tenants in the order of their ids, a page at a time."""
        where = parse_where(TENANTS, None if status is None else {"status": status})
        order = (Sort(TENANTS.key),)
        query = Query(TENANTS, parse_fields(TENANTS, None), where, order, parse_limit(limit) + 1)
        if cursor is not None:
            position = after(order, self._cursors.open(SYSTEM, query, order, cursor))
            query = Query(TENANTS, query.fields, And((where, position)), order, query.limit)
        rows = await self._database.select(SYSTEM, query)
        following = self._cursors.sign(SYSTEM, query, order, rows[limit - 1]) if len(rows) > limit else None
        return Page([tenant_of(row) for row in rows[:limit]], following)

    async def update(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        plan: str | UnsetType | None = UNSET,
        settings: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Change what is given; what is not given stays. ``plan=None`` takes the plan away.

        A tenant that is above the limits of a new plan keeps what it has, and may not add to it.

        Raises:
            UnknownPlan: Plans are declared, and it is none of them.
            InvalidRecord: A property or a setting is wrong; ``field`` names it.
        """
        tenant_id = types.tenant_id(tenant_id)
        given: dict[str, Any] = {} if name is None else {"name": name}
        if settings is not None:
            given["settings"] = self._checked_settings(settings)
        if plan is not UNSET:
            self._catalog.check_plan(plan)
            given["plan"] = plan
        changes = TENANTS.validate_changes(given)
        async with self._database.transaction(SYSTEM) as unit:
            before = await self._locked(unit, tenant_id)
            changed = await self._change(unit, tenant_id, changes)
            if changed.plan != before.plan:
                details = {"from": before.plan, "to": changed.plan}
                await unit.execute(SYSTEM, [audit("plan", "changed", tenant=tenant_id, details=details)])
        self._lease.forget(tenant_id)
        if changed.plan != before.plan and self._catalog.counts and isinstance(self._database, Meter):
            await self._database.recount(tenant_id)
        return changed

    async def suspend(self, tenant_id: str, *, reason: str) -> Tenant:
        """Refuse the tenant everywhere, within one second; its data stays. ``reason`` is kept and audited."""
        return await self._move(tenant_id, TenantStatus.SUSPENDED, reason)

    async def resume(self, tenant_id: str) -> Tenant:
        """Serve a suspended tenant again."""
        return await self._move(tenant_id, TenantStatus.ACTIVE, None)

    async def delete(self, tenant_id: str, *, reason: str) -> Tenant:
        """Mark a tenant for deletion: it is refused from now on, and :meth:`purge` may delete its data."""
        return await self._move(tenant_id, TenantStatus.DELETING, reason)

    async def purge(self, tenant_id: str, *, leave_others: bool = False) -> PurgeCertificate:
        """Delete every row of a tenant that was marked by :meth:`delete`, and prove that none is left.

        Waits until no process can hold a lease from before the mark, then has the database refuse the tenant, so that
        what was admitted before and arrives later leaves nothing.

        Args:
            tenant_id: The tenant.
            leave_others: Leave rows in tables that belong to no model here, since another program looks after them.

        Raises:
            InvalidTransition: The tenant is not marked.
            ConfigurationError: Rows of tenants may lie in tables of which no model is known here.
            PurgeIncomplete: Rows were left. The tenant stays marked; purge it again.
        """
        tenant = await self.get(tenant_id)
        if tenant.status is not TenantStatus.DELETING:
            raise InvalidTransition(
                tenant_id=tenant_id,
                current=tenant.status.value,
                wanted=TenantStatus.PURGED.value,
                fix=f'Mark it first: await sdk.tenants.delete("{tenant_id}", reason="…").',
            )
        if not leave_others:
            await self._check_others()
        started_at = dt.datetime.now(dt.UTC)
        # In full, however long ago the mark is said to be: that is by the clock of whoever made it.
        await asyncio.sleep(LONGEST_LEASE)
        await self._database.fence(tenant_id)
        deleted = await self._delete_rows(tenant_id)
        remaining = {name: row["remaining"] for name, row in deleted.items()}
        late = await self._delete_rows(tenant_id)
        if any(remaining.values()) or any(row["deleted"] for row in late.values()):
            raise PurgeIncomplete(tenant_id=tenant_id, remaining={n: r["deleted"] for n, r in late.items()})
        certificate = PurgeCertificate(
            tenant_id,
            {name: row["deleted"] for name, row in deleted.items()},
            remaining,
            started_at,
            dt.datetime.now(dt.UTC),
        )
        await self._forget_usage(tenant_id)
        await self._move(
            tenant_id, TenantStatus.PURGED, tenant.reason, {"deleted": dict(certificate.deleted)}
        )
        return certificate

    # -- inside

    def _checked_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        model = self._catalog.settings
        return dict(settings) if model is None else changed_settings(model, {}, settings)

    async def _check_others(self) -> None:
        others = await self._database.undeclared_tables()
        if others:
            raise ConfigurationError(
                f"Rows would stay in {', '.join(others)}: they have a column tenant_id and are in no model.",
                field="models",
                fix="Open the SDK with all models; or, if another program looks after them, leave_others=True.",
            )

    async def _delete_rows(self, tenant_id: str) -> dict[str, Record]:
        narrowed = SystemContext("purge", "tenantry", types.tenant_id(tenant_id))
        purges = [Purge(collection) for collection in self._collections]
        results = await self._database.execute(narrowed, purges)
        return {purge.collection.name: rows[0] for purge, rows in zip(purges, results, strict=True)}

    async def _find(self, tenant_id: str) -> Tenant | None:
        rows = await self._database.fetch(SYSTEM, TENANTS, [types.tenant_id(tenant_id)])
        return tenant_of(rows[0]) if rows else None

    async def _insert(self, tenant_id: str, values: Mapping[str, Any]) -> Tenant:
        tenant = _new(tenant_id, values)
        # No change to count: nobody remembers anything of a tenant that is not there yet.
        await self._database.execute(SYSTEM, [Insert(TENANTS, [TENANTS.to_record(tenant)])])
        self._lease.forget(tenant_id)
        return tenant

    async def _insert_many(self, tenants: Sequence[Tenant]) -> int:
        async with self._database.transaction(SYSTEM) as unit:
            present = {row["id"] for row in await unit.fetch(SYSTEM, TENANTS, [item.id for item in tenants])}
            missing = [TENANTS.to_record(tenant) for tenant in tenants if tenant.id not in present]
            if missing:
                await unit.execute(SYSTEM, [Insert(TENANTS, missing)])
        for record in missing:
            self._lease.forget(record["id"])
        return len(missing)

    async def _locked(self, unit: Executor, tenant_id: str) -> Tenant:
        rows = await unit.fetch(SYSTEM, TENANTS, [types.tenant_id(tenant_id)])
        if not rows:
            raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
        return tenant_of(rows[0])

    async def _change(self, unit: Executor, tenant_id: str, changes: Record) -> Tenant:
        changes = {**changes, "change": await next_change(unit), "updated_at": dt.datetime.now(dt.UTC)}
        rows = await unit.execute(SYSTEM, [Update(TENANTS, tenant_id, changes)])
        return tenant_of(rows[0][0])

    async def _move(
        self,
        tenant_id: str,
        wanted: TenantStatus,
        reason: str | None,
        details: Mapping[str, Any] | None = None,
    ) -> Tenant:
        tenant_id = types.tenant_id(tenant_id)
        if wanted in (TenantStatus.SUSPENDED, TenantStatus.DELETING) and not (reason or "").strip():
            raise InvalidRecord("say why; it is kept in the audit log.", field="reason")
        async with self._database.transaction(SYSTEM) as unit:
            change = await next_change(unit)  # taken first: it is the lock that orders all changes
            tenant = await self._locked(unit, tenant_id)
            if tenant.status is wanted:
                return tenant
            if wanted not in _STEPS[tenant.status]:
                raise InvalidTransition(tenant_id=tenant_id, current=tenant.status.value, wanted=wanted.value)
            now = dt.datetime.now(dt.UTC)
            changes = {
                "status": wanted,
                "reason": reason,
                "status_since": now,
                "change": change,
                "updated_at": now,
            }
            rows = await unit.execute(SYSTEM, [Update(TENANTS, tenant_id, changes)])
            await unit.execute(
                SYSTEM, [audit(wanted.value, reason or "none given", tenant=tenant_id, details=details)]
            )
        self._lease.forget(tenant_id)
        return tenant_of(rows[0][0])


def _new(tenant_id: str, values: Mapping[str, Any]) -> Tenant:
    given = {
        "id": tenant_id,
        "slug": tenant_id,
        "status_since": dt.datetime.now(dt.UTC),
        "version": 1,
        **values,
    }
    return cast(Tenant, TENANTS.validate(given))
