"""The tenants, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from tenantry import tenants as asynchronous
from tenantry.plans import FlagValue, Rate
from tenantry.plans.quotas import Count, UsageReport
from tenantry.sync.bound import Bound
from tenantry.tenants.directory import Tenant, TenantStatus
from tenantry.tenants.manager import PurgeCertificate
from tenantry.tenants.plans import UNSET, UnsetType
from tenantry.types import Page


class TenantManager(Bound[asynchronous.TenantManager]):
    """Creates tenants, moves them through their life, and says what they may use."""

    def set_quota(
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
        return self._run(
            lambda it: it.set_quota(
                tenant_id,
                reason=reason,
                rows=rows,
                storage=storage,
                members=members,
                requests=requests,
                per_collection=per_collection,
            )
        )

    def clear_quota(self, tenant_id: str, *quotas: str, reason: str) -> Tenant:
        """Take limits of its own away from a tenant, so that those of its plan hold again.

        Args:
            tenant_id: The tenant.
            *quotas: Such as ``rows`` or ``rows:orders``; none means all.
            reason: Why; kept in the audit log.
        """
        return self._run(lambda it: it.clear_quota(tenant_id, *quotas, reason=reason))

    def set_flag(
        self, tenant_id: str, flag: str, value: Any, *, reason: str, until: dt.datetime | None = None
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
        return self._run(lambda it: it.set_flag(tenant_id, flag, value, reason=reason, until=until))

    def clear_flag(self, tenant_id: str, flag: str, *, reason: str) -> Tenant:
        """Take a flag's own value away from a tenant, also one of a flag that is declared no longer."""
        return self._run(lambda it: it.clear_flag(tenant_id, flag, reason=reason))

    def flags(self, tenant_id: str, *, user: str | None = None) -> list[FlagValue]:
        """Return the value of each flag for a tenant, or one user of it, and where that comes from."""
        return self._run(lambda it: it.flags(tenant_id, user=user))

    def usage(self, tenant_id: str) -> UsageReport:
        """Return what a tenant uses, and what its plan and its own quotas allow."""
        return self._run(lambda it: it.usage(tenant_id))

    def recount(self, tenant_id: str) -> list[Count]:
        """Count a tenant's rows and mend the counters where they differ. Return by how much each was wrong.

        It holds up nobody. Needed once after tables that held rows already were brought under counting.
        """
        return self._run(lambda it: it.recount(tenant_id))

    def create(
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
        return self._run(lambda it: it.create(slug, name=name, plan=plan, settings=settings))

    def create_many(
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
        return self._run(lambda it: it.create_many(slugs, plan=plan, settings=settings))

    def get(self, tenant_id: str) -> Tenant:
        """Return a tenant, whatever its status, or raise :class:`TenantNotFound`."""
        return self._run(lambda it: it.get(tenant_id))

    def list(
        self, *, status: TenantStatus | str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Tenant]:
        """Return tenants in the order of their ids, a page at a time."""
        return self._run(lambda it: it.list(status=status, limit=limit, cursor=cursor))

    def update(
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
        return self._run(lambda it: it.update(tenant_id, name=name, plan=plan, settings=settings))

    def suspend(self, tenant_id: str, *, reason: str) -> Tenant:
        """Refuse the tenant everywhere, within one second; its data stays. ``reason`` is kept and audited."""
        return self._run(lambda it: it.suspend(tenant_id, reason=reason))

    def resume(self, tenant_id: str) -> Tenant:
        """Serve a suspended tenant again."""
        return self._run(lambda it: it.resume(tenant_id))

    def delete(self, tenant_id: str, *, reason: str) -> Tenant:
        """Mark a tenant for deletion: it is refused from now on, and :meth:`purge` may delete its data."""
        return self._run(lambda it: it.delete(tenant_id, reason=reason))

    def purge(self, tenant_id: str, *, leave_others: bool = False) -> PurgeCertificate:
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
        return self._run(lambda it: it.purge(tenant_id, leave_others=leave_others))
