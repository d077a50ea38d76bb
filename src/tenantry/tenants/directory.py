"""What the directory keeps of each tenant, and how its changes are counted."""

from __future__ import annotations

import datetime as dt
import enum
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, cast

import pydantic

from tenantry import _display
from tenantry.context import SystemContext
from tenantry.errors import (
    UniqueViolation,
)
from tenantry.plans.counters import COUNTERS
from tenantry.ports import DatabaseAdapter, Executor, Insert, Update
from tenantry.schema import Collection, Indexed, KeyedModel, Model, Unique, collection_of
from tenantry.types import Record

EPOCH_ROW = "tenants"
SYSTEM = SystemContext(reason="tenant directory", actor="tenantry")


class TenantStatus(enum.Enum):
    """Where a tenant is in its life: (importing →) active ⇄ suspended, any of them → deleting → purged."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"
    PURGED = "purged"
    IMPORTING = "importing"


class Tenant(KeyedModel, defer_build=True):
    """A tenant as the directory knows it."""

    __collection__ = "tenantry_tenants"
    __control__ = True
    __indexes__ = (("status", "id"),)

    id: str
    slug: Annotated[str, Unique]
    name: str
    plan: str | None = None
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    flags: dict[str, Any] = pydantic.Field(default_factory=dict)
    quotas: dict[str, Any] = pydantic.Field(default_factory=dict)
    status: TenantStatus = TenantStatus.ACTIVE
    reason: str | None = None
    status_since: dt.datetime
    change: Annotated[int, Indexed] = 0

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show who it is; its settings may hold what a log must not."""
        yield from {"id": self.id, "name": self.name, "plan": self.plan, "status": self.status.value}.items()

    def _repr_html_(self) -> str:
        return _display.properties_html("Tenant", {str(name): value for name, value in self.__repr_args__()})


class Epoch(KeyedModel, defer_build=True):
    """One row whose version counts the directory's changes. Changing it first makes commit order their order."""

    __collection__ = "tenantry_epoch"
    __control__ = True

    id: str


class Secret(KeyedModel, defer_build=True):
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


class FormerSlug(KeyedModel, defer_build=True):
    """A slug that a tenant had, under which it may still be found for a while."""

    __collection__ = "tenantry_former_slugs"
    __control__ = True

    id: str
    tenant: Annotated[str, Indexed]
    until: dt.datetime


TENANTS = collection_of(Tenant)
FORMER_SLUGS = collection_of(FormerSlug)
EPOCH = collection_of(Epoch)
AUDIT = collection_of(AuditRecord)
SECRETS = collection_of(Secret)
CONTROL_COLLECTIONS = (TENANTS, EPOCH, AUDIT, SECRETS, FORMER_SLUGS, *COUNTERS)


async def prepare_directory(database: DatabaseAdapter) -> None:
    """Make the row that counts the directory's changes, unless it exists."""
    await _get_or_insert(database, EPOCH, Epoch(id=EPOCH_ROW))


async def cursor_secret(database: DatabaseAdapter) -> bytes:
    """Return the secret that signs cursors, made when it is first asked for."""
    return await shared_secret(database, "cursors")


async def job_secret(database: DatabaseAdapter) -> bytes:
    """Return the secret that signs the tokens of jobs, made when it is first asked for."""
    return await shared_secret(database, "jobs")


async def shared_secret(database: DatabaseAdapter, name: str) -> bytes:
    """Return the secret of a name that all processes on one database share, made when it is first asked for."""
    made = Secret(id=name, value=secrets.token_bytes(32))
    return bytes((await _get_or_insert(database, SECRETS, made))["value"])


async def _get_or_insert(database: DatabaseAdapter, collection: Collection, instance: KeyedModel) -> Record:
    record = collection.to_record(instance)
    found = await database.fetch(SYSTEM, collection, [record["id"]])
    if found:
        return found[0]
    with suppress(UniqueViolation):  # another process was first
        await database.execute(SYSTEM, [Insert(collection, [record])])
    return (await database.fetch(SYSTEM, collection, [record["id"]]))[0]


async def next_change(unit: Executor) -> int:
    """Count one change of the directory. The row stays locked until ``unit`` ends."""
    rows = await unit.execute(SYSTEM, [Update(EPOCH, EPOCH_ROW, {})])
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


def tenant_of(record: Record) -> Tenant:
    """Return the tenant that a row of the directory describes."""
    return cast(Tenant, TENANTS.instantiate(record))
