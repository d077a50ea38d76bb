"""The calls about what tenants may use, and which features they have."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from tenantry import types
from tenantry.context import SystemContext
from tenantry.errors import (
    ConfigurationError,
    Conflict,
    InvalidRecord,
    SchemaMismatch,
    TenantNotFound,
    UniqueViolation,
    Unsupported,
)
from tenantry.plans import PLANS, REQUESTS, USAGE, Catalog, FlagValue, FlagValues, Override, Quotas, Rate
from tenantry.plans.counters import StoredPlan
from tenantry.plans.flags import known_flag, stored_overrides
from tenantry.plans.quotas import PER_COLLECTION, Count, Usage, UsageReport, amounts
from tenantry.plans.settings import changed_settings
from tenantry.ports import DatabaseAdapter, Delete, Executor, Insert, Meter, Update
from tenantry.query import Comparison, Query
from tenantry.tenants.directory import SYSTEM, TENANTS, Tenant, audit, next_change, tenant_of
from tenantry.tenants.lease import TenantLease
from tenantry.tenants.own import MEMBERS
from tenantry.tenants.requests import RequestMeter, request_counters
from tenantry.tenants.standing import Standing, Standings
from tenantry.types import Record

UNSET = msgspec.UNSET
UnsetType = msgspec.UnsetType


async def store_plans(database: DatabaseAdapter, catalog: Catalog) -> None:
    """Write down what each declared plan allows, where the database itself looks.

    A plan that is declared no longer keeps what it allowed last, so that its tenants do not lose their limits.
    """
    for plan in catalog.plans.values():
        limits = plan.quotas.limits()
        rows = await database.fetch(SYSTEM, PLANS, [plan.name])
        if not rows:
            made = PLANS.to_record(StoredPlan(id=plan.name, quotas=limits, version=1))
            try:
                await database.execute(SYSTEM, [Insert(PLANS, [made])])
                continue
            except UniqueViolation:  # another process was first
                rows = await database.fetch(SYSTEM, PLANS, [plan.name])
        if rows[0]["quotas"] != limits:
            now = dt.datetime.now(dt.UTC)
            await database.execute(SYSTEM, [Update(PLANS, plan.name, {"quotas": limits, "updated_at": now})])


async def begin_counting(database: DatabaseAdapter) -> Meter:
    """Return the database once it counts every row of a tenant.

    Raises:
        Unsupported: It cannot.
        SchemaMismatch: It does not, and only the owner of its tables can change that.
    """
    if not isinstance(database, Meter):
        raise Unsupported(
            f"Rows or storage are limited, and this database ({database.name}) does not count them."
        )
    uncounted = await database.prepare_counting()
    if uncounted:
        raise SchemaMismatch(
            [f"table {name} is not counted" for name in uncounted],
            fix="Have it counted, as the owner of the tables: tenantry plans count.",
        )
    return database


class PlanCalls:
    """The calls about plans, quotas, flags, settings and usage."""

    def __init__(
        self,
        database: DatabaseAdapter,
        lease: TenantLease,
        catalog: Catalog,
        standings: Standings,
        requests: RequestMeter,
    ) -> None:
        self._database = database
        self._lease = lease
        self._catalog = catalog
        self._standings = standings
        self._requests = requests

    # -- quotas

    async def set_quota(
        self,
        tenant_id: str,
        *,
        reason: str,
        rows: int | UnsetType | None = UNSET,
        storage: int | str | UnsetType | None = UNSET,
        members: int | UnsetType | None = UNSET,
        requests: Rate | UnsetType | None = UNSET,
        per_collection: Mapping[str, int | None] | None = None,
    ) -> Tenant:
        """Give a tenant limits of its own, whatever its plan says. ``None`` is no limit; what is not named stays.

        A tenant that is above a new limit keeps what it has, and may not add to it.

        Args:
            tenant_id: The tenant.
            reason: Why; kept in the audit log.
            rows: Rows in all collections together.
            storage: Bytes, or a text such as ``"50MB"``.
            members: Members.
            requests: Requests in each window.
            per_collection: Rows of single collections.

        Raises:
            ConfigurationError: A limit is none.
        """
        named = {"rows": rows, "storage": storage, "members": members, "requests": requests}
        given = {name: value for name, value in named.items() if value is not UNSET}
        collections = dict(per_collection or {})
        checked = Quotas(
            **cast("dict[str, Any]", given),
            per_collection={name: limit for name, limit in collections.items() if limit is not None},
        ).limits()
        unlimited = [*given, *(f"{PER_COLLECTION}{name}" for name in collections)]
        changes = {**dict.fromkeys(unlimited), **checked}
        self._catalog.check_limits(changes)
        if any(limit is not None and name not in ("requests", "members") for name, limit in changes.items()):
            await self._check_counting()

        def change(tenant: Tenant) -> Record:
            return {"quotas": {**tenant.quotas, **changes}}

        return await self._alter(tenant_id, "quota.set", reason, changes, change, counts=True)

    async def clear_quota(self, tenant_id: str, *quotas: str, reason: str) -> Tenant:
        """Take limits of its own away from a tenant, so that those of its plan hold again.

        Args:
            tenant_id: The tenant.
            *quotas: Such as ``rows`` or ``rows:orders``; none means all.
            reason: Why; kept in the audit log.
        """

        def change(tenant: Tenant) -> Record:
            kept = {name: limit for name, limit in tenant.quotas.items() if quotas and name not in quotas}
            return {"quotas": kept}

        return await self._alter(tenant_id, "quota.clear", reason, {"quotas": quotas}, change, counts=True)

    # -- flags

    async def set_flag(
        self,
        tenant_id: str,
        flag: str,
        value: Any,
        *,
        reason: str,
        until: dt.datetime | None = None,
    ) -> Tenant:
        """Give a tenant a flag's value, whatever its plan says.

        Args:
            tenant_id: The tenant.
            flag: The flag.
            value: Of the flag's type, and one of its choices.
            reason: Why; kept in the audit log and with the value.
            until: When it ends, with a time zone; ``None`` for never.

        Raises:
            UnknownFlag: It is not declared.
            InvalidRecord: The flag cannot have this value, or the moment has no time zone.
        """
        checked = known_flag(self._catalog.flags, flag).checked(value)
        if until is not None and until.tzinfo is None:
            raise InvalidRecord("a moment needs a time zone.", field="until")
        stored = msgspec.to_builtins(Override(checked, reason, until))

        def change(tenant: Tenant) -> Record:
            return {"flags": {**tenant.flags, flag: stored}}

        return await self._alter(tenant_id, "flag.set", reason, {"flag": flag, **stored}, change)

    async def clear_flag(self, tenant_id: str, flag: str, *, reason: str) -> Tenant:
        """Take a flag's own value away from a tenant, also one of a flag that is declared no longer."""

        def change(tenant: Tenant) -> Record:
            if flag not in tenant.flags:
                known_flag(self._catalog.flags, flag)
            return {"flags": {name: item for name, item in tenant.flags.items() if name != flag}}

        return await self._alter(tenant_id, "flag.clear", reason, {"flag": flag}, change)

    async def flags(self, tenant_id: str, *, user: str | None = None) -> list[FlagValue]:
        """Return the value of each flag for a tenant, or one user of it, and where that comes from."""
        tenant = await self._existing(tenant_id)
        standing = Standing(
            tenant.id, tenant.plan, tenant.settings, stored_overrides(tenant.flags), tenant.quotas
        )
        values = self._flag_values(standing, user)
        return [values.explain(name) for name in values]

    def _flag_values(self, standing: Standing, user: str | None) -> FlagValues:
        return FlagValues(
            self._catalog.flags,
            self._catalog.flags_of(standing.plan),
            standing.flags,
            tenant_id=standing.tenant_id,
            user_id=user,
            now=dt.datetime.now(dt.UTC),
        )

    # -- usage

    async def usage(self, tenant_id: str) -> UsageReport:
        """Return what a tenant uses, and what its plan and its own quotas allow."""
        tenant = await self._existing(tenant_id)
        limits = self._catalog.limits(tenant.plan, tenant.quotas)
        used = amounts(await self._meter().counted(tenant.id))
        collections = {
            name.removeprefix(PER_COLLECTION): Usage(name, used.get(name, 0), limits.get(name))
            for name in sorted({*used, *limits})
            if name.startswith(PER_COLLECTION)
        }
        standing = Standing(tenant.id, tenant.plan, {}, {}, tenant.quotas)
        return UsageReport(
            tenant.id,
            tenant.plan,
            Usage("rows", used["rows"], limits.get("rows")),
            Usage("storage", used["storage"], limits.get("storage")),
            await self._members(tenant, limits.get("members")),
            await self._requests.usage(standing),
            collections,
        )

    async def recount(self, tenant_id: str) -> list[Count]:
        """Count a tenant's rows and mend the counters where they differ. Return by how much each was wrong.

        It holds up nobody. Needed once after tables that held rows already were brought under counting.
        """
        tenant = await self._existing(tenant_id)
        drift = await self._meter().recount(tenant.id)
        if drift:
            details = {"drift": [msgspec.to_builtins(item) for item in drift]}
            await self._database.execute(
                SYSTEM, [audit("usage.recount", "counters were wrong", tenant=tenant.id, details=details)]
            )
        return drift

    # -- settings

    async def _change_settings(
        self, tenant_id: str, changes: Mapping[str, Any], version: int | None, actor: str | None
    ) -> Tenant:
        model = self._catalog.settings
        assert model is not None

        def change(tenant: Tenant) -> Record:
            if version is not None and tenant.version != version:
                raise Conflict(TENANTS.name, tenant.id, expected=version, current=tenant.version)
            return {"settings": changed_settings(model, tenant.settings, changes)}

        names = {"settings": sorted(changes)}  # their values may be secrets
        return await self._alter(tenant_id, "settings", "changed", names, change, actor=actor)

    # -- inside

    async def _members(self, tenant: Tenant, limit: int | None) -> Usage | None:
        of_tenant = SystemContext("usage", "tenantry", types.tenant_id(tenant.id))
        used = await self._database.count(of_tenant, Query(MEMBERS, ()))
        return Usage("members", used, limit) if used or limit is not None else None

    async def _check_counting(self) -> None:
        if self._catalog.plans and not self._catalog.counts:
            raise ConfigurationError(
                "No plan limits rows or storage, so they are not counted.",
                field="plans",
                fix="Let a plan limit them, however high, so that each start checks that all tables are counted.",
            )
        await begin_counting(self._database)

    def _meter(self) -> Meter:
        if not isinstance(self._database, Meter):
            raise Unsupported(f"This database ({self._database.name}) does not count rows.")
        return self._database

    async def _existing(self, tenant_id: str) -> Tenant:
        rows = await self._database.fetch(SYSTEM, TENANTS, [types.tenant_id(tenant_id)])
        if not rows:
            raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
        return tenant_of(rows[0])

    async def _alter(
        self,
        tenant_id: str,
        action: str,
        reason: str,
        details: Mapping[str, Any],
        change: Any,
        *,
        counts: bool = False,
        actor: str | None = None,
    ) -> Tenant:
        """Change a tenant's row under the directory's lock, with what the audit log keeps of it."""
        tenant_id = types.tenant_id(tenant_id)
        if not (reason or "").strip():
            raise InvalidRecord("say why; it is kept in the audit log.", field="reason")
        async with self._database.transaction(SYSTEM) as unit:
            number = await next_change(unit)
            tenant = await _locked(unit, tenant_id)
            changes = TENANTS.validate_changes(change(tenant))
            changes |= {"change": number, "updated_at": dt.datetime.now(dt.UTC)}
            rows = await unit.execute(SYSTEM, [Update(TENANTS, tenant_id, changes)])
            await unit.execute(
                SYSTEM,
                [audit(action, reason, actor=actor, tenant=tenant_id, details=msgspec.to_builtins(details))],
            )
        self._lease.forget(tenant_id)
        if counts and isinstance(self._database, Meter):
            await self._database.recount(tenant_id)
        return tenant_of(rows[0][0])

    async def _forget_usage(self, tenant_id: str) -> None:
        """Delete the counters of a tenant that has nothing left to count."""
        of_tenant = Comparison(USAGE.fields["tenant"], "eq", tenant_id)
        rows = await self._database.select(SYSTEM, Query(USAGE, (USAGE.key,), of_tenant))
        windows = await self._database.fetch(SYSTEM, REQUESTS, request_counters(tenant_id))
        deletes = [Delete(USAGE, row["id"]) for row in rows] + [
            Delete(REQUESTS, row["id"]) for row in windows
        ]
        if deletes:
            await self._database.execute(SYSTEM, deletes)


async def _locked(unit: Executor, tenant_id: str) -> Tenant:
    rows = await unit.fetch(SYSTEM, TENANTS, [tenant_id])
    if not rows:
        raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
    return tenant_of(rows[0])
