"""The tenants: their directory, their status, and the lease by which a process may act on it."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, cast

import pydantic

from tenantry import _display, types
from tenantry.context import SystemContext
from tenantry.cursors import CursorSigner
from tenantry.errors import (
    ConfigurationError,
    DirectoryUnavailable,
    InvalidRecord,
    InvalidTransition,
    PurgeIncomplete,
    TenantDeleted,
    TenantExists,
    TenantNotFound,
    TenantSuspended,
    Unavailable,
    UniqueViolation,
)
from tenantry.filters import parse_where
from tenantry.ports import DatabaseAdapter, Executor, Insert, Purge, Update
from tenantry.query import And, Comparison, Query, Sort, after, parse_fields, parse_limit
from tenantry.schema import Collection, Indexed, KeyedModel, Model, Unique, collection_of
from tenantry.types import Page, Record

logger = logging.getLogger("tenantry.tenants")

LEASE_SECONDS = 0.9
LONGEST_LEASE = 1.0  # that the configuration allows to any process
_MAX_CHANGES = 1_000
_ATTEMPTS = 3  # a process that was held up for a moment asks again
_EPOCH_ROW = "tenants"


class TenantStatus(enum.Enum):
    """Where a tenant is in its life: active ⇄ suspended, either → deleting → purged."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"
    PURGED = "purged"


_STEPS: dict[TenantStatus, frozenset[TenantStatus]] = {
    TenantStatus.ACTIVE: frozenset({TenantStatus.SUSPENDED, TenantStatus.DELETING}),
    TenantStatus.SUSPENDED: frozenset({TenantStatus.ACTIVE, TenantStatus.DELETING}),
    TenantStatus.DELETING: frozenset({TenantStatus.PURGED}),
    TenantStatus.PURGED: frozenset(),
}


class Tenant(KeyedModel, defer_build=True):
    """A tenant as the directory knows it."""

    __collection__ = "tenantry_tenants"
    __control__ = True

    id: str
    slug: Annotated[str, Unique]
    name: str
    plan: str | None = None
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    status: TenantStatus = TenantStatus.ACTIVE
    reason: str | None = None
    status_since: dt.datetime
    change: Annotated[int, Indexed] = 0

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show who it is; its settings may hold what a log must not."""
        yield from {"id": self.id, "name": self.name, "plan": self.plan, "status": self.status.value}.items()

    def _repr_html_(self) -> str:
        return _display.properties_html("Tenant", {str(name): value for name, value in self.__repr_args__()})


class _Epoch(KeyedModel, defer_build=True):
    """One row whose version counts the directory's changes. Changing it first makes commit order their order."""

    __collection__ = "tenantry_epoch"
    __control__ = True

    id: str


class _Secret(KeyedModel, defer_build=True):
    """A secret that all processes on one database share."""

    __collection__ = "tenantry_secrets"
    __control__ = True

    id: str
    value: bytes


class AuditRecord(Model, defer_build=True):
    """One piece of work across tenants, or one change of a tenant's status."""

    __collection__ = "tenantry_audit"
    __control__ = True

    actor: str | None = None
    reason: str
    action: str
    tenant: Annotated[str | None, Indexed] = None
    details: dict[str, Any] = pydantic.Field(default_factory=dict)


TENANTS = collection_of(Tenant)
EPOCH = collection_of(_Epoch)
AUDIT = collection_of(AuditRecord)
SECRETS = collection_of(_Secret)
CONTROL_COLLECTIONS = (TENANTS, EPOCH, AUDIT, SECRETS)


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


_SYSTEM = SystemContext(reason="tenant directory", actor="tenantry")


class TenantLease:
    """Which tenants this process may serve. It holds for less than a second and is then renewed, or nobody is served.

    A renewal reads one row, the directory's epoch; only when that moved, what changed since.
    """

    def __init__(
        self, database: Executor, *, seconds: float = LEASE_SECONDS, max_tenants: int = 100_000
    ) -> None:
        self._database = database
        self._seconds = seconds
        self._max_tenants = max_tenants
        self._known: OrderedDict[str, TenantStatus] = OrderedDict()
        self._until = 0.0
        self._renew_from = 0.0
        self._epoch = -1
        self._renewing: asyncio.Task[None] | None = None

    def admits(self, tenant_id: str) -> bool:
        """Whether the tenant may be served right now. ``False`` may only mean that :meth:`admit` has to look."""
        now = time.monotonic()
        if now >= self._renew_from:
            if now >= self._until:
                return False
            self._renewing = self._renewal()
        return self._known.get(tenant_id) is TenantStatus.ACTIVE

    async def admit(self, tenant_id: str) -> None:
        """Return if the tenant may be served.

        Raises:
            TenantNotFound, TenantSuspended, TenantDeleted: It may not.
            DirectoryUnavailable: The directory could not be read in time, so nobody is served.
        """
        for _ in range(_ATTEMPTS):
            if time.monotonic() >= self._until:
                await asyncio.shield(self._renewal())
            status, until = self._known.get(tenant_id), self._until
            if status is None:
                until = time.monotonic() + self._seconds
                status = await self._load(tenant_id)
            if time.monotonic() < until:
                break  # otherwise the answer was true when it was given, and came late
        else:
            raise DirectoryUnavailable("The tenant directory answered too late, so no tenant is served.")
        if status is not TenantStatus.ACTIVE:
            _refuse(tenant_id, status)

    def forget(self, tenant_id: str) -> None:
        """Read this tenant again before it is served; the process that changes a tenant need not wait."""
        self._known.pop(tenant_id, None)

    async def close(self) -> None:
        """Stop renewing."""
        if self._renewing is not None:
            await asyncio.gather(self._renewing, return_exceptions=True)

    def _renewal(self) -> asyncio.Task[None]:
        """Return the renewal under way, or start one. Everybody who waits shares it."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._read_epoch())
            self._renewing.add_done_callback(_note_failure)
        return self._renewing

    async def _read_epoch(self) -> None:
        asked_at = time.monotonic()
        try:
            rows = await self._database.fetch(_SYSTEM, EPOCH, [_EPOCH_ROW])
            epoch = rows[0]["version"] if rows else 0
            if epoch != self._epoch:
                await self._read_changes()
            self._epoch = epoch
        except Unavailable as error:
            raise DirectoryUnavailable(
                "The tenant directory cannot be read, so no tenant is served.", fix=str(error)
            ) from error
        self._until = asked_at + self._seconds
        self._renew_from = asked_at + self._seconds / 2

    async def _read_changes(self) -> None:
        changed = Comparison(TENANTS.fields["change"], "gt", self._epoch)
        query = Query(TENANTS, (TENANTS.key,), changed, limit=_MAX_CHANGES)
        rows = await self._database.select(_SYSTEM, query) if self._known else []
        if len(rows) == _MAX_CHANGES:
            self._known.clear()
        for row in rows:
            self._known.pop(row["id"], None)

    async def _load(self, tenant_id: str) -> TenantStatus:
        epoch = self._epoch
        try:
            rows = await self._database.fetch(_SYSTEM, TENANTS, [tenant_id])
        except Unavailable as error:
            raise DirectoryUnavailable("The tenant directory cannot be read.", fix=str(error)) from error
        if not rows:
            raise TenantNotFound(
                f"There is no tenant {tenant_id!r}.",
                tenant_id=tenant_id,
                fix=f'Create it: await sdk.tenants.create("{tenant_id}", name="…").',
            )
        status = cast(TenantStatus, rows[0]["status"])
        if epoch == self._epoch:
            self._known[tenant_id] = status
            if len(self._known) > self._max_tenants:
                self._known.popitem(last=False)
        return status


def _note_failure(task: asyncio.Task[None]) -> None:
    """A renewal in the background may fail with nobody waiting; the lease then runs out, which is the answer."""
    if not task.cancelled() and task.exception() is not None:
        logger.warning("The tenant lease was not renewed: %s", task.exception())


def _refuse(tenant_id: str, status: TenantStatus) -> NoReturn:
    if status is TenantStatus.SUSPENDED:
        raise TenantSuspended(
            f"Tenant {tenant_id!r} is suspended.",
            tenant_id=tenant_id,
            fix=f'Resume it: await sdk.tenants.resume("{tenant_id}").',
        )
    raise TenantDeleted(f"Tenant {tenant_id!r} is {status.value}.", tenant_id=tenant_id)


class TenantManager:
    """Creates tenants and moves them through their life."""

    def __init__(
        self,
        database: DatabaseAdapter,
        lease: TenantLease,
        collections: Sequence[Collection],
        cursors: CursorSigner,
    ) -> None:
        self._database = database
        self._lease = lease
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
        """
        tenant_id = types.tenant_id(slug)
        given = {"name": name or slug, "plan": plan, "settings": dict(settings or {})}
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
            position = after(order, self._cursors.open(_SYSTEM, query, order, cursor))
            query = Query(TENANTS, query.fields, And((where, position)), order, query.limit)
        rows = await self._database.select(_SYSTEM, query)
        following = self._cursors.sign(_SYSTEM, query, order, rows[limit - 1]) if len(rows) > limit else None
        return Page([_tenant(row) for row in rows[:limit]], following)

    async def update(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Change what is given; what is not given stays."""
        tenant_id = types.tenant_id(tenant_id)
        given = {"name": name, "plan": plan, "settings": None if settings is None else dict(settings)}
        changes = TENANTS.validate_changes({key: value for key, value in given.items() if value is not None})
        async with self._database.transaction(_SYSTEM) as unit:
            await self._locked(unit, tenant_id)
            return await self._change(unit, tenant_id, changes)

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
        await self._move(
            tenant_id, TenantStatus.PURGED, tenant.reason, {"deleted": dict(certificate.deleted)}
        )
        return certificate

    # -- inside

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
        rows = await self._database.fetch(_SYSTEM, TENANTS, [types.tenant_id(tenant_id)])
        return _tenant(rows[0]) if rows else None

    async def _insert(self, tenant_id: str, values: Mapping[str, Any]) -> Tenant:
        now = dt.datetime.now(dt.UTC)
        async with self._database.transaction(_SYSTEM) as unit:
            change = await next_change(unit)
            tenant = TENANTS.validate(
                {
                    "id": tenant_id,
                    "slug": tenant_id,
                    "status_since": now,
                    "version": 1,
                    "change": change,
                    **values,
                }
            )
            await unit.execute(_SYSTEM, [Insert(TENANTS, [TENANTS.to_record(tenant)])])
        self._lease.forget(tenant_id)
        return cast(Tenant, tenant)

    async def _locked(self, unit: Executor, tenant_id: str) -> Tenant:
        rows = await unit.fetch(_SYSTEM, TENANTS, [types.tenant_id(tenant_id)])
        if not rows:
            raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
        return _tenant(rows[0])

    async def _change(self, unit: Executor, tenant_id: str, changes: Record) -> Tenant:
        changes = {**changes, "change": await next_change(unit), "updated_at": dt.datetime.now(dt.UTC)}
        rows = await unit.execute(_SYSTEM, [Update(TENANTS, tenant_id, changes)])
        return _tenant(rows[0][0])

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
        async with self._database.transaction(_SYSTEM) as unit:
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
            rows = await unit.execute(_SYSTEM, [Update(TENANTS, tenant_id, changes)])
            await unit.execute(
                _SYSTEM, [audit(wanted.value, reason or "none given", tenant=tenant_id, details=details)]
            )
        self._lease.forget(tenant_id)
        return _tenant(rows[0][0])


async def prepare_directory(database: DatabaseAdapter) -> None:
    """Make the row that counts the directory's changes, unless it exists."""
    await _get_or_insert(database, EPOCH, _Epoch(id=_EPOCH_ROW))


async def cursor_secret(database: DatabaseAdapter) -> bytes:
    """Return the secret that signs cursors, made when it is first asked for."""
    made = _Secret(id="cursors", value=secrets.token_bytes(32))
    return bytes((await _get_or_insert(database, SECRETS, made))["value"])


async def job_secret(database: DatabaseAdapter) -> bytes:
    """Return the secret that signs the tokens of jobs, made when it is first asked for."""
    made = _Secret(id="jobs", value=secrets.token_bytes(32))
    return bytes((await _get_or_insert(database, SECRETS, made))["value"])


async def _get_or_insert(database: DatabaseAdapter, collection: Collection, instance: KeyedModel) -> Record:
    record = collection.to_record(instance)
    found = await database.fetch(_SYSTEM, collection, [record["id"]])
    if found:
        return found[0]
    with suppress(UniqueViolation):  # another process was first
        await database.execute(_SYSTEM, [Insert(collection, [record])])
    return (await database.fetch(_SYSTEM, collection, [record["id"]]))[0]


async def next_change(unit: Executor) -> int:
    """Count one change of the directory. The row stays locked until ``unit`` ends."""
    rows = await unit.execute(_SYSTEM, [Update(EPOCH, _EPOCH_ROW, {})])
    return int(rows[0][0]["version"])


def audit(
    action: str,
    reason: str,
    *,
    actor: str | None = None,
    tenant: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Insert:
    """Return the write that records a piece of system work."""
    record = AuditRecord(
        actor=actor, reason=reason, action=action, tenant=tenant, details=dict(details or {}), version=1
    )
    return Insert(AUDIT, [AUDIT.to_record(record)])


def children_first(collections: Sequence[Collection]) -> Sequence[Collection]:
    """Return the tenant collections so that each comes before those it refers to."""
    tenant_owned = {item.name: item for item in collections if item.scope == "tenant"}
    ordered: dict[str, Collection] = {}

    def visit(collection: Collection, above: frozenset[str]) -> None:
        if collection.name in above:
            raise ConfigurationError(
                f"Collections refer to each other in a circle: {', '.join(sorted(above))}.",
                field="models",
                fix="Turn one reference of the circle off with Ref(…, enforced=False).",
            )
        for field in collection.fields.values():
            if field.ref is not None and field.ref.enforced and field.ref.collection != collection.name:
                target = tenant_owned.get(field.ref.collection)
                if target is not None and target.name not in ordered:
                    visit(target, above | {collection.name})
        ordered[collection.name] = collection

    for item in tenant_owned.values():
        if item.name not in ordered:
            visit(item, frozenset())
    return list(reversed(ordered.values()))


def _tenant(record: Record) -> Tenant:
    return cast(Tenant, TENANTS.instantiate(record))
