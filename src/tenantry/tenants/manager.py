"""Creating tenants and moving them through their life."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
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
    TenantDeleted,
    TenantExists,
    TenantNotFound,
    UniqueViolation,
)
from tenantry.filters import parse_where
from tenantry.plans import Catalog
from tenantry.plans.settings import changed_settings
from tenantry.ports import DatabaseAdapter, Executor, Insert, Meter, Purge, Update
from tenantry.query import And, Comparison, Query, Sort, after, parse_fields, parse_limit
from tenantry.schema import TENANT, Collection
from tenantry.tenants.administration import checked_text
from tenantry.tenants.archive import Manifest
from tenantry.tenants.credentials import Mint
from tenantry.tenants.directory import (
    SYSTEM,
    TENANTS,
    Tenant,
    TenantStatus,
    audit,
    next_change,
    tenant_of,
)
from tenantry.tenants.invitations import Door, Membership
from tenantry.tenants.lease import LONGEST_LEASE, TenantLease
from tenantry.tenants.members import JoinCheck
from tenantry.tenants.order import children_first
from tenantry.tenants.own import MEMBERS
from tenantry.tenants.plans import UNSET, PlanCalls, UnsetType
from tenantry.tenants.requests import RequestMeter
from tenantry.tenants.slugs import check_free, find_by_slug, leave_slug
from tenantry.tenants.standing import Standings
from tenantry.tenants.transfer import Copy, Progress, Transfer
from tenantry.types import Page, Record

_BATCH = 1_000
_REDIRECT = dt.timedelta(days=90)
_STEPS: dict[TenantStatus, frozenset[TenantStatus]] = {
    TenantStatus.IMPORTING: frozenset({TenantStatus.DELETING}),
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
        mint: Mint,
        checks: Sequence[JoinCheck] = (),
    ) -> None:
        super().__init__(database, lease, catalog, standings, requests)
        self._collections = children_first(collections)
        self._cursors = cursors
        self._transfer = Transfer(database, lease, self._collections)
        self._door = Door(database, lease, mint)
        self._checks = checks

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
            except UniqueViolation as error:
                again = await self._find(tenant_id)
                if again is None:
                    raise _taken(tenant_id) from error
                found = again
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

    async def by_slug(self, slug: str) -> Tenant:
        """Return the tenant that is known as ``slug``, or was until lately: then its ``slug`` is another one by now.

        Raises:
            TenantNotFound: None is or was.
        """
        return await find_by_slug(self._database, slug)

    async def rename(
        self,
        tenant_id: str,
        *,
        slug: str | None = None,
        name: str | None = None,
        redirect: dt.timedelta = _REDIRECT,
    ) -> Tenant:
        """Let people know a tenant by another slug or name. Its id, and with it every row, stays as it is.

        Args:
            tenant_id: The tenant.
            slug: The new slug; nobody else's slug or id.
            name: The new name.
            redirect: For how long :meth:`by_slug` finds it under the old slug as well, and nobody else may take that.

        Raises:
            TenantExists: The slug is taken.
        """
        tenant_id = types.tenant_id(tenant_id)
        wanted = {"slug": None if slug is None else types.tenant_id(slug), "name": name}
        changes = TENANTS.validate_changes({key: value for key, value in wanted.items() if value is not None})
        async with self._database.transaction(SYSTEM) as unit:
            await next_change(unit)  # taken first: it is the lock that orders all changes
            tenant = await self._locked(unit, tenant_id)
            if tenant.status is TenantStatus.PURGED:
                raise TenantDeleted(f"Tenant {tenant_id!r} is purged.", tenant_id=tenant_id)
            if slug is not None and slug != tenant.slug:
                await check_free(unit, slug, tenant_id)
                await leave_slug(unit, tenant.slug, slug, tenant_id, redirect)
            details = {"slug": [tenant.slug, slug or tenant.slug]}
            await unit.execute(SYSTEM, [audit("rename", "rename", tenant=tenant_id, details=details)])
            return await self._change(unit, tenant_id, changes)

    async def export(
        self,
        tenant_id: str,
        file: str | os.PathLike[str],
        *,
        collections: Sequence[str] | None = None,
        anonymise: bool = False,
        progress: Progress | None = None,
    ) -> Manifest:
        """Write a tenant into one file, whatever its status, as it is at one moment.

        The file holds its rows, members and settings; what it leaves out, secrets above all, the manifest says.

        Args:
            tenant_id: The tenant.
            file: The file, which appears once it is whole.
            collections: The names of the collections; by default all.
            anonymise: Put pseudonyms in the place of text that is marked ``PII``, and nothing in the place of the rest.
            progress: Is told a collection and how many of its rows are written.
        """
        tenant = await self.get(tenant_id)
        await self._record("export", tenant_id, {"anonymise": anonymise})
        return await self._transfer.export(tenant, file, collections, anonymise=anonymise, progress=progress)

    async def import_(
        self, file: str | os.PathLike[str], *, as_: str, progress: Progress | None = None
    ) -> Copy:
        """Make a tenant of a file that :meth:`export` has written, with the same row ids.

        Everything is checked before anything is stored. The rows are stored in one transaction, read back and
        compared; only then is the tenant served. After a failure, or a killed process, import again: it begins anew.

        Args:
            file: The file.
            as_: The id of the new tenant.
            progress: Is told a collection and how many of its rows are stored.

        Raises:
            ArchiveError: The file is damaged, of another version, or does not fit the models.
            TenantExists: There is such a tenant.
        """
        return await self._transfer.import_(file, types.tenant_id(as_), progress=progress)

    async def clone(
        self,
        tenant_id: str,
        as_: str,
        *,
        collections: Sequence[str] | None = None,
        anonymise: bool = False,
    ) -> Copy:
        """Copy a tenant into a new one, as :meth:`export` and :meth:`import_` would.

        Args:
            tenant_id: The tenant.
            as_: The id of the new tenant.
            collections: The names of the collections; by default all.
            anonymise: Put pseudonyms in the place of personal data.
        """
        new = types.tenant_id(as_)
        tenant = await self.get(tenant_id)
        await self._record("clone", tenant_id, {"as": new, "anonymise": anonymise})
        return await self._transfer.clone(tenant, new, collections, anonymise=anonymise)

    async def of_user(self, user: str) -> Sequence[Membership]:
        """Return the tenants that a user is a member of and that are served, at most 1,000, in the order of their ids.

        Args:
            user: The user's id, from a verified identity: whoever asks for another one's learns where that one is.
        """
        fields, key = tuple(MEMBERS.fields.values()), MEMBERS.key
        wanted = Comparison(key, "eq", checked_text(user, "user"))
        found = await self._database.select(SYSTEM, Query(MEMBERS, fields, wanted, (Sort(TENANT),), _BATCH))
        rows = await self._database.fetch(SYSTEM, TENANTS, [row["tenant_id"] for row in found])
        active = {row["id"] for row in rows if row["status"] is TenantStatus.ACTIVE}
        return [
            Membership(row["tenant_id"], user, tuple(row["roles"]))
            for row in found
            if row["tenant_id"] in active
        ]

    async def accept_invitation(self, token: str, *, user: str, email: str | None = None) -> Membership:
        """Make a user a member of the tenant that an invitation is of. A token is accepted once.

        Args:
            token: The token of the invitation.
            user: The user's id, from a verified identity.
            email: The user's verified address, to accept only what was sent there.

        Raises:
            CredentialRejected: Nobody gets in with this token, or no longer; ``reason`` says why.
            TenantNotFound, TenantSuspended, TenantDeleted: The tenant may not be served.
        """
        return await self._door.accept(token, user, email, self._checks)

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

    async def _record(self, action: str, tenant_id: str, details: Mapping[str, Any]) -> None:
        await self._database.execute(SYSTEM, [audit(action, action, tenant=tenant_id, details=details)])

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
        await check_free(self._database, tenant_id, tenant_id)
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


def _taken(slug: str) -> TenantExists:
    return TenantExists(
        f"{slug!r} is the slug of another tenant.", tenant_id=slug, fix="Choose another slug."
    )
