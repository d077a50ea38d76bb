"""The API keys of a tenant's own programs."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from tenantry.context import SystemContext, TenantContext
from tenantry.errors import InvalidRecord, NotFound, TenantryError
from tenantry.ports import DatabaseAdapter, Update
from tenantry.query import Comparison, Query
from tenantry.tenants.administration import (
    Administration,
    Change,
    checked_names,
    checked_text,
    expiry,
    is_past,
)
from tenantry.tenants.credentials import Mint, matches, rejected
from tenantry.tenants.directory import SYSTEM
from tenantry.tenants.lease import LEASE_SECONDS, TenantLease
from tenantry.tenants.own import API_KEYS, APIKey
from tenantry.types import Record, TenantId

logger = logging.getLogger("tenantry.tenants")

_DAY = dt.timedelta(days=1)
_LISTED = 1_000
_MAX_CACHED = 10_000
_SEEN_EVERY = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class NewAPIKey:
    """A key and its text, which is shown here and never again."""

    key: APIKey
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyIdentity:
    """Whose key it is.

    Attributes:
        tenant_id: The tenant.
        user: ``key:`` and the key's id.
        claims: ``{"key": …, "roles": […], "scopes": […]}``.
    """

    tenant_id: str
    user: str
    claims: Mapping[str, Any]


class APIKeys(Administration):
    """The API keys of one tenant."""

    def __init__(
        self, database: DatabaseAdapter, lease: TenantLease, context: TenantContext, mint: Mint
    ) -> None:
        super().__init__(database, lease, context)
        self._mint = mint

    async def create(
        self,
        name: str,
        *,
        roles: Sequence[str] = (),
        scopes: Sequence[str] = (),
        ttl: dt.timedelta | None = None,
    ) -> NewAPIKey:
        """Make a key.

        Args:
            name: What people call it.
            roles: What a request with it is, as a member would be.
            scopes: What it is for, in the application's own words.
            ttl: For how long it works; by default until it is revoked.
        """
        made = self._made(
            checked_text(name, "name"),
            checked_names(roles, "roles"),
            checked_names(scopes, "scopes"),
            None if ttl is None else expiry(ttl),
        )
        async with self._change("api-key.create", key=made.key.id, name=made.key.name) as change:
            await change.add(API_KEYS, made.key)
        return made

    async def list(self) -> Sequence[APIKey]:
        """Return up to 1,000 keys, without their secrets, also those that no longer work."""
        return await self._select(API_KEYS, _LISTED)

    async def get(self, id: str) -> APIKey:
        """Return one key without its secret, or raise :class:`NotFound`."""
        found = cast(APIKey | None, await self._find(API_KEYS, checked_text(id, "id")))
        if found is None:
            raise NotFound("api_keys", id)
        return found

    async def rotate(self, id: str, *, overlap: dt.timedelta = _DAY) -> NewAPIKey:
        """Make a key that replaces another one, which goes on working for a while.

        Args:
            id: The key to replace; it must still work.
            overlap: For how long both work.

        Raises:
            NotFound: There is no such key that works.
        """
        if overlap < dt.timedelta():
            raise InvalidRecord("it cannot be negative.", field="overlap")
        until = dt.datetime.now(dt.UTC) + overlap
        async with self._change("api-key.rotate", key=id) as change:
            old = await _working(change, id)
            made = self._made(old.name, old.roles, old.scopes, old.expires_at)
            change.details["replaced_by"] = made.key.id
            ends = until if old.expires_at is None else min(until, old.expires_at)
            await change.set(API_KEYS, old.id, expires_at=ends, replaced_by=made.key.id)
            await change.add(API_KEYS, made.key)
        return made

    async def revoke(self, id: str, *, reason: str) -> None:
        """Refuse a key everywhere, within one second.

        Raises:
            NotFound: There is no such key that works.
        """
        reason = checked_text(reason, "reason")
        async with self._change("api-key.revoke", key=id, reason=reason) as change:
            key = await _working(change, id)
            await change.set(API_KEYS, key.id, revoked_at=dt.datetime.now(dt.UTC))

    def _made(
        self, name: str, roles: Sequence[str], scopes: Sequence[str], expires_at: dt.datetime | None
    ) -> NewAPIKey:
        secret = self._mint.make("tnt")
        key = APIKey(
            id=secret.id,
            name=name,
            roles=list(roles),
            scopes=list(scopes),
            expires_at=expires_at,
            created_by=self._context.user_id,
            digest=secret.digest,
            version=1,
        )
        return NewAPIKey(key, secret.text)


async def _working(change: Change, id: str) -> APIKey:
    found = cast(APIKey | None, await change.find(API_KEYS, checked_text(id, "id")))
    if found is None or found.revoked_at is not None or _expired(found.expires_at):
        raise NotFound("api_keys", id)
    return found


def _expired(expires_at: dt.datetime | None) -> bool:
    return expires_at is not None and is_past(expires_at)


class KeyRing:
    """Tells whose key a request carries. What it has read it believes for less than a second."""

    def __init__(self, database: DatabaseAdapter, mint: Mint, *, seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._mint = mint
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[float, Record | None]] = OrderedDict()
        self._noting: dict[str, asyncio.Task[None]] = {}

    async def identify(self, text: str) -> KeyIdentity:
        """Return whose key ``text`` is.

        Raises:
            CredentialRejected: It is nobody's, or no longer valid. An invented one is refused without the database.
        """
        id = self._mint.id_of(text, "tnt")
        row = await self._row(id)
        if row is None or not matches(text, row["digest"]):
            raise rejected("tnt", "unknown")
        if row["revoked_at"] is not None:
            raise rejected("tnt", "revoked")
        if _expired(row["expires_at"]):
            raise rejected("tnt", "expired")
        self._note_use(row)
        claims = {"key": id, "roles": list(row["roles"]), "scopes": list(row["scopes"])}
        return KeyIdentity(row["tenant_id"], f"key:{id}", claims)

    async def close(self) -> None:
        """Let what is being noted be noted."""
        await asyncio.gather(*self._noting.values(), return_exceptions=True)

    async def _row(self, id: str) -> Record | None:
        now = time.monotonic()
        known = self._known.get(id)
        if known is not None and now < known[0]:
            return known[1]
        query = Query(API_KEYS, tuple(API_KEYS.fields.values()), Comparison(API_KEYS.key, "eq", id), limit=1)
        rows = await self._database.select(SYSTEM, query)
        row = rows[0] if rows else None
        self._known[id] = (now + self._seconds, row)  # counted from before it was asked
        self._known.move_to_end(id)
        if len(self._known) > _MAX_CACHED:
            self._known.popitem(last=False)
        return row

    def _note_use(self, row: Record) -> None:
        """Keep when a key was last used, now and then, while nobody waits for it."""
        now, seen, id = dt.datetime.now(dt.UTC), row["last_used_at"], row["id"]
        if id in self._noting or (seen is not None and now - seen < _SEEN_EVERY):
            return
        row["last_used_at"] = now
        context = SystemContext("API key used", None, TenantId(row["tenant_id"]))
        task = asyncio.get_running_loop().create_task(self._note(context, id, now))
        self._noting[id] = task
        task.add_done_callback(lambda _: self._noting.pop(id, None))

    async def _note(self, context: SystemContext, id: str, now: dt.datetime) -> None:
        try:
            await self._database.execute(context, [Update(API_KEYS, id, {"last_used_at": now})])
        except TenantryError as error:  # it is a note; the next use makes another
            logger.warning("The use of an API key was not noted: %s", error)
