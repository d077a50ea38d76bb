"""A tenant into a file, out of one, and into another tenant."""

from __future__ import annotations

import asyncio
import datetime as dt
import hmac
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Names
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenantry import types
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.errors import (
    ArchiveError,
    InvalidRecord,
    TenantExists,
    TenantNotFound,
    UniqueViolation,
    UnknownCollection,
)
from tenantry.ports import DatabaseAdapter, Executor, Insert, Purge, Update
from tenantry.query import EVERYTHING, Comparison, Query, Sort
from tenantry.schema import Collection, Field, Kind
from tenantry.tenants.administration import own
from tenantry.tenants.archive import (
    ArchiveReader,
    ArchiveWriter,
    Checksum,
    Contents,
    Manifest,
    line_of,
)
from tenantry.tenants.directory import SYSTEM, TENANTS, Tenant, TenantStatus, audit, next_change, tenant_of
from tenantry.tenants.lease import TenantLease
from tenantry.tenants.own import MEMBERS
from tenantry.tenants.slugs import check_free
from tenantry.types import Record, TenantId

A = TypeVar("A")

_PAGE = 1_000
_LEFT_OUT = {
    "tenantry_api_keys": "keys are secrets of where they were made; make new ones",
    "tenantry_invitations": "their tokens are secrets of where they were made; invite again",
    "tenantry_idempotency": "requests are repeated where they were made",
    "tenantry_support_consent": "consent is given for one place",
    "tenantry_support_sessions": "they tell what happened in one place",
    "tenantry_support_writes": "they tell what happened in one place",
}

Progress = Callable[[str, int], None]
"""Is told a collection and how many of its rows are done."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What an import stored, compared with what the archive holds after it was read back.

    Attributes:
        tenant: The tenant, which is served now.
        collections: For each collection, its rows and their checksum.
    """

    tenant: Tenant
    collections: Mapping[str, Contents]


class Transfer:
    """Exports and imports tenants of one database.

    Args:
        database: The database.
        lease: The lease of this process.
        collections: Every collection of tenants, those that refer to others first.
    """

    def __init__(
        self, database: DatabaseAdapter, lease: TenantLease, collections: Sequence[Collection]
    ) -> None:
        self._database = database
        self._lease = lease
        self._all = collections
        self._collections = [item for item in reversed(collections) if item.rights is None or item is MEMBERS]

    # -- out

    async def export(
        self,
        tenant: Tenant,
        file: str | os.PathLike[str],
        names: Names[str] | None = None,
        *,
        anonymise: bool = False,
        progress: Progress | None = None,
    ) -> Manifest:
        """Write a tenant into a file, as it is at one moment."""
        chosen = self._chosen(names)
        rewrite = Anonymiser(secrets.token_bytes(32)) if anonymise else None
        if rewrite is not None:
            rewrite.check(chosen)
        left_out = dict(_LEFT_OUT) | {
            item.name: "not chosen" for item in self._collections if item not in chosen
        }
        made_at = dt.datetime.now(dt.UTC)
        writer = await asyncio.to_thread(ArchiveWriter, file)
        try:
            context = TenantContext(types.tenant_id(tenant.id))
            async with self._snapshot(context) as unit:
                for collection in chosen:
                    pages = _pages(unit, context, collection, rewrite, progress)
                    await _write(writer, collection, pages)
            said = tenant.model_dump(mode="json", include={"id", "slug", "name", "plan", "settings"})
            return await asyncio.to_thread(writer.finish, said, made_at, left_out)
        except BaseException:
            writer.abandon()
            raise

    def _chosen(self, names: Names[str] | None) -> list[Collection]:
        """Return the collections of these names, those referred to first."""
        if names is None:
            return self._collections
        known = {item.name: item for item in self._collections}
        for name in names:
            if name not in known:
                raise UnknownCollection(name, list(known))
        chosen = [item for item in self._collections if item.name in names]
        for item in chosen:
            for field in item.fields.values():
                target = None if field.ref is None or not field.ref.enforced else field.ref.collection
                if target in known and target not in names and not field.nullable:
                    raise InvalidRecord(
                        f"{item.name}.{field.name} refers to {target!r}, which is left out.",
                        field="collections",
                    )
        return chosen

    def _snapshot(self, context: Context) -> AbstractAsyncContextManager[Executor]:
        return self._database.transaction(context, "repeatable_read")

    # -- in

    async def import_(
        self, file: str | os.PathLike[str], tenant_id: TenantId, *, progress: Progress | None = None
    ) -> Copy:
        """Make a tenant of a file: whole, or not served."""
        reader = await asyncio.to_thread(ArchiveReader, file)
        with closing(reader):
            collections = self._held(reader.manifest)
            await asyncio.to_thread(reader.verify)
            attempt = await self._begin(tenant_id, reader.manifest)
            await self._empty(tenant_id)
            context = TenantContext(tenant_id)
            async with self._database.transaction(context) as unit:
                for collection in collections:
                    if collection is not MEMBERS:
                        await _insert(unit, context, collection, reader, progress)
            await self._insert_members(tenant_id, reader)
            found = await self._read_back(context, collections)
            wanted = reader.manifest.collections
            differing = [item.name for item in collections if found[item.name] != wanted[item.name]]
            if differing:
                raise ArchiveError(
                    f"What was stored of {', '.join(differing)} is not what the archive holds.",
                    fix="The tenant is not served; import it again.",
                )
            return Copy(await self._finish(tenant_id, attempt), found)

    def _held(self, manifest: Manifest) -> list[Collection]:
        known = {item.name for item in self._collections}
        unknown = sorted(manifest.collections.keys() - known)
        if unknown:
            raise ArchiveError(
                f"The archive holds {', '.join(unknown)}, of which no model is known here.",
                fix="Open the SDK with all models of the exported tenant.",
            )
        return [item for item in self._collections if item.name in manifest.collections]

    async def _begin(self, tenant_id: TenantId, manifest: Manifest) -> str:
        """Make the tenant, not to be served yet, or take over an import that was broken off."""
        attempt = f"import {secrets.token_hex(8)}"
        said = manifest.tenant
        given = TENANTS.validate_changes({key: said.get(key) for key in ("name", "plan", "settings")})
        tenant = TENANTS.validate(
            {
                **given,
                "id": tenant_id,
                "slug": tenant_id,
                "status": TenantStatus.IMPORTING,
                "reason": attempt,
                "status_since": dt.datetime.now(dt.UTC),
                "version": 1,
            }
        )
        await check_free(self._database, tenant_id, tenant_id)
        try:
            await self._database.execute(SYSTEM, [Insert(TENANTS, [TENANTS.to_record(tenant)])])
        except UniqueViolation:
            await self._take_over(tenant_id, {**given, "reason": attempt})
        self._lease.forget(tenant_id)
        return attempt

    async def _take_over(self, tenant_id: TenantId, changes: Record) -> None:
        async with self._database.transaction(SYSTEM) as unit:
            tenant = await _locked(unit, tenant_id)
            if tenant.status is not TenantStatus.IMPORTING:
                raise TenantExists(
                    f"There is a tenant {tenant_id!r} already, and an import joins no tenant to another.",
                    tenant_id=tenant_id,
                    fix="Choose another id.",
                )
            await unit.execute(SYSTEM, [Update(TENANTS, tenant_id, changes)])

    async def _empty(self, tenant_id: TenantId) -> None:
        """Delete what an import that was broken off has left."""
        narrowed = SystemContext("import", "tenantry", tenant_id)
        await self._database.execute(narrowed, [Purge(collection) for collection in self._all])

    async def _insert_members(self, tenant_id: TenantId, reader: ArchiveReader) -> None:
        if MEMBERS.name not in reader.manifest.collections:
            return
        narrowed = SystemContext("import", "tenantry", tenant_id)
        async with self._database.transaction(narrowed) as unit:
            await _insert(unit, narrowed, MEMBERS, reader, None)

    async def _read_back(
        self, context: TenantContext, collections: Sequence[Collection]
    ) -> dict[str, Contents]:
        found = {}
        async with self._snapshot(context) as unit:
            for collection in collections:
                checksum = Checksum()
                async for lines in _pages(unit, context, collection, None, None):
                    checksum.add(lines)
                found[collection.name] = checksum.contents()
        return found

    async def _finish(self, tenant_id: TenantId, attempt: str) -> Tenant:
        async with self._database.transaction(SYSTEM) as unit:
            change = await next_change(unit)
            tenant = await _locked(unit, tenant_id)
            if tenant.status is not TenantStatus.IMPORTING or tenant.reason != attempt:
                raise TenantExists(
                    f"Tenant {tenant_id!r} was changed during its import.", tenant_id=tenant_id
                )
            now = dt.datetime.now(dt.UTC)
            served = {"status": TenantStatus.ACTIVE, "reason": None, "status_since": now, "change": change}
            rows = await unit.execute(SYSTEM, [Update(TENANTS, tenant_id, {**served, "updated_at": now})])
            await unit.execute(SYSTEM, [audit("import", attempt, tenant=tenant_id)])
        self._lease.forget(tenant_id)
        return tenant_of(rows[0][0])

    async def clone(
        self, tenant: Tenant, tenant_id: TenantId, names: Names[str] | None, *, anonymise: bool
    ) -> Copy:
        """Copy a tenant, through a file that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="tenantry-") as folder:
            file = Path(folder) / "tenant.zip"
            await self.export(tenant, file, names, anonymise=anonymise)
            return await self.import_(file, tenant_id)


class Anonymiser:
    """Puts something else in the place of personal data, equal for what was equal in one run."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def check(self, collections: Sequence[Collection]) -> None:
        """Refuse personal data for which there is nothing to put in its place."""
        for collection, field in ((item, field) for item in collections for field in item.fields.values()):
            if field.pii and field.kind is not Kind.TEXT and not field.nullable:
                raise InvalidRecord(
                    f"{collection.name}.{field.name} is personal data, neither text nor nullable.",
                    field="anonymise",
                    fix="Make it nullable, or leave the collection out.",
                )

    def __call__(self, collection: Collection, record: Record) -> Record:
        """Return a record without personal data."""
        changed = {
            field.name: self._instead(field, record[field.name])
            for field in collection.fields.values()
            if field.pii and record[field.name] is not None
        }
        return {**record, **changed}

    def _instead(self, field: Field, value: Any) -> Any:
        if field.kind is not Kind.TEXT:
            return None
        name = hmac.digest(self._key, value.encode(), "sha256").hex()[:24]
        return f"{name}@anonymous.invalid" if "@" in value else name


async def _pages(
    unit: Executor,
    context: TenantContext,
    collection: Collection,
    rewrite: Callable[[Collection, Record], Record] | None,
    progress: Progress | None,
) -> AsyncIterator[list[bytes]]:
    """Return the rows of a collection as lines, in the order of their ids."""
    key, fields, done = collection.key, tuple(collection.fields.values()), 0
    where: Any = EVERYTHING
    while True:
        # Those that are marked as deleted come along: they can be restored, and rows may refer to them.
        query = Query(collection, fields, where, (Sort(key),), _PAGE, deleted="with")
        rows = await unit.select(context, query)
        if rows:
            done += len(rows)
            kept = rows if rewrite is None else [rewrite(collection, row) for row in rows]
            yield [line_of(collection, row) for row in kept]
            if progress is not None:
                progress(collection.name, done)
        if len(rows) < _PAGE:
            return
        where = Comparison(key, "gt", rows[-1]["id"])


async def _write(writer: ArchiveWriter, collection: Collection, pages: AsyncIterator[list[bytes]]) -> None:
    await _in_thread(writer.rows, collection.name)
    async for lines in pages:
        await _in_thread(writer.add, lines)
    await _in_thread(writer.end, collection.name)


async def _in_thread(work: Callable[[A], None], argument: A) -> None:
    """Do blocking work; one who is cancelled meanwhile waits for its end, so that nobody touches the file beside it."""
    running = asyncio.ensure_future(asyncio.to_thread(work, argument))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def _insert(
    unit: Executor,
    context: Context,
    collection: Collection,
    reader: ArchiveReader,
    progress: Progress | None,
) -> None:
    done = 0
    order = _Order(collection)
    for batch in reader.batches(collection):
        for ready in order.add(batch):
            await unit.execute(context, [Insert(collection, ready)])
        done += len(batch)
        if progress is not None:
            progress(collection.name, done)
    order.check()


class _Order:
    """Puts the rows of a collection that refers to itself so that each comes after the one it refers to."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._refs = [
            field.name
            for field in collection.fields.values()
            if field.ref is not None and field.ref.enforced and field.ref.collection == collection.name
        ]
        self._stored: set[Any] = set()
        self._waiting: list[Record] = []

    def add(self, batch: list[Record]) -> Iterator[list[Record]]:
        """Return what can be stored now, in steps."""
        if not self._refs:
            yield batch
            return
        self._waiting += batch
        while ready := [record for record in self._waiting if self._is_ready(record)]:
            self._stored.update(record["id"] for record in ready)
            taken = {record["id"] for record in ready}
            self._waiting = [record for record in self._waiting if record["id"] not in taken]
            yield ready

    def check(self) -> None:
        """Raise if some rows could not be stored."""
        if self._waiting:
            raise ArchiveError(
                f"{len(self._waiting)} rows of {self._collection.name!r} refer to each other in a circle,"
                " or to nothing."
            )

    def _is_ready(self, record: Record) -> bool:
        return all(
            record[name] is None or record[name] == record["id"] or record[name] in self._stored
            for name in self._refs
        )


async def _locked(unit: Executor, tenant_id: TenantId) -> Tenant:
    if not await unit.fetch(SYSTEM, TENANTS, [tenant_id]):
        raise TenantNotFound(f"There is no tenant {tenant_id!r}.", tenant_id=tenant_id)
    return tenant_of(own((await unit.execute(SYSTEM, [Update(TENANTS, tenant_id, {})]))[0][0]))
