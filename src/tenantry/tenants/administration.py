"""Changes to what the SDK keeps of a tenant: one at a time for each tenant, checked and audited as one transaction."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tenantry import _values, types
from tenantry.context import SystemContext, TenantContext, check_ambient
from tenantry.errors import InvalidRecord, TenantNotFound
from tenantry.ports import DatabaseAdapter, Delete, Executor, Insert, Update
from tenantry.query import EVERYTHING, Filter, Query, Sort
from tenantry.schema import Collection, KeyedModel
from tenantry.tenants.directory import TENANTS, Tenant, TenantStatus, audit, tenant_of
from tenantry.tenants.lease import TenantLease, refuse
from tenantry.types import Record

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,62}", re.ASCII)
_MAX_ROLES = 50
_MAX_TEXT = 320  # the longest address of e-mail
_LONGEST = dt.timedelta(days=3_650)


@dataclass(slots=True, eq=False)
class Change:
    """One change of a tenant's administration, inside its transaction.

    Attributes:
        unit: The transaction.
        context: The system, narrowed to the tenant.
        tenant: The tenant; its row of the directory is locked until the change is over.
        details: What the audit log says of the change.
        nothing: Whether there turned out to be nothing to change, and to record.
    """

    unit: Executor
    context: SystemContext
    tenant: Tenant
    details: dict[str, Any] = field(default_factory=dict)
    nothing: bool = False

    async def find(self, collection: Collection, id: Any) -> KeyedModel | None:
        """Return one row of the tenant."""
        rows = await self.unit.fetch(self.context, collection, [id])
        return collection.instantiate(own(rows[0])) if rows else None

    async def count(self, collection: Collection, where: Filter = EVERYTHING) -> int:
        """Return how many rows of the tenant meet ``where``."""
        return await self.unit.count(self.context, Query(collection, (), where))

    async def add(self, collection: Collection, instance: KeyedModel) -> None:
        """Store a new row of the tenant."""
        record = collection.to_record(instance) | {"version": 1}
        await self.unit.execute(self.context, [Insert(collection, [record])])

    async def set(self, collection: Collection, id: Any, **changes: Any) -> Any:
        """Change a row of the tenant and return it."""
        checked = collection.validate_changes(changes) | {"updated_at": dt.datetime.now(dt.UTC)}
        rows = await self.unit.execute(self.context, [Update(collection, id, checked)])
        return collection.instantiate(rows[0][0])

    async def remove(self, collection: Collection, id: Any) -> None:
        """Delete a row of the tenant."""
        await self.unit.execute(self.context, [Delete(collection, id)])


class Administration:
    """What the parts of a tenant's administration share: who asks, and how a change is made."""

    def __init__(self, database: DatabaseAdapter, lease: TenantLease, context: TenantContext) -> None:
        self._database = database
        self._lease = lease
        self._context = context

    @asynccontextmanager
    async def _change(self, action: str, **details: Any) -> AsyncIterator[Change]:
        await self._admit()
        async with changing(
            self._database, self._context.tenant_id, action, self._context.user_id, details
        ) as change:
            yield change

    async def _admit(self) -> None:
        check_ambient(self._context)
        await self._lease.admit(self._context.tenant_id)

    async def _find(self, collection: Collection, id: Any) -> Any:
        """Return one row of the tenant, or nothing; as the system for it."""
        await self._admit()
        rows = await self._database.fetch(self._system(), collection, [id])
        return collection.instantiate(own(rows[0])) if rows else None

    async def _select(self, collection: Collection, limit: int, where: Filter = EVERYTHING) -> list[Any]:
        """Return rows of the tenant in the order of their ids, as the system for it."""
        await self._admit()
        fields = tuple(collection.fields.values())
        query = Query(collection, fields, where, (Sort(collection.key),), limit)
        rows = await self._database.select(self._system(), query)
        return [collection.instantiate(own(row)) for row in rows]

    def _system(self) -> SystemContext:
        return SystemContext("administration", self._context.user_id, self._context.tenant_id)


@asynccontextmanager
async def changing(
    database: DatabaseAdapter, tenant_id: str, action: str, actor: str | None, details: Mapping[str, Any]
) -> AsyncIterator[Change]:
    """Make one change of a tenant's administration, and record it in the audit log; all of that, or nothing.

    The tenant's row of the directory is locked first. So changes of one tenant take turns, over all processes: what one
    of them counts stays true until it has committed. And a tenant that is marked for deletion gets no more of them,
    so that none comes after its purge.

    Raises:
        TenantNotFound, TenantSuspended, TenantDeleted: The tenant may not be served.
    """
    context = SystemContext(action, actor, types.tenant_id(tenant_id))
    async with database.transaction(context) as unit:
        if not await unit.fetch(context, TENANTS, [tenant_id]):
            raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
        locked = await unit.execute(context, [Update(TENANTS, tenant_id, {})])
        tenant = tenant_of(locked[0][0])
        if tenant.status is not TenantStatus.ACTIVE:
            refuse(tenant_id, tenant.status)
        change = Change(unit, context, tenant, dict(details))
        yield change
        if not change.nothing:
            record = audit(action, action, actor=actor, tenant=tenant_id, details=change.details)
            await unit.execute(context, [record])


def own(record: Record) -> Record:
    """Return a record that the system has read, without its tenant."""
    record.pop("tenant_id", None)
    return record


def checked_text(value: str, field: str) -> str:
    """Return a short text that is not empty."""
    try:
        found = _values.text(value)
    except (TypeError, ValueError) as error:
        raise InvalidRecord(str(error), field=field) from None
    if not found.strip() or len(found) > _MAX_TEXT:
        raise InvalidRecord(f"use text of 1 to {_MAX_TEXT} characters.", field=field)
    return found


def checked_names(names: Sequence[str], field: str) -> list[str]:
    """Return names of roles, or of scopes, each once and in order."""
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        if not _ROLE.fullmatch(checked_text(name, field)):
            raise InvalidRecord(
                f"{str(name)[:80]!r} is no name: use 1 to 63 letters, digits, '_', '.', ':' and '-'.",
                field=field,
            )
    if len(set(listed)) > _MAX_ROLES:
        raise InvalidRecord(f"at most {_MAX_ROLES}.", field=field)
    return sorted(set(listed))


def expiry(ttl: dt.timedelta, field: str = "ttl", longest: dt.timedelta = _LONGEST) -> dt.datetime:
    """Return the time ``ttl`` from now."""
    if not dt.timedelta() < ttl <= longest:
        raise InvalidRecord(f"use a timedelta of more than 0 and at most {longest}.", field=field)
    return dt.datetime.now(dt.UTC) + ttl


def is_past(moment: dt.datetime) -> bool:
    """Whether a moment is over."""
    return moment <= dt.datetime.now(dt.UTC)
