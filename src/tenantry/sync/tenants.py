"""The tenants, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tenantry import tenants as asynchronous
from tenantry.sync.bound import Bound
from tenantry.tenants.directory import Tenant, TenantStatus
from tenantry.tenants.manager import PurgeCertificate
from tenantry.types import Page


class TenantManager(Bound[asynchronous.TenantManager]):
    """Creates tenants and moves them through their life."""

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
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Change what is given; what is not given stays."""
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
