"""What the SDK keeps of a tenant beside its data: members, invitations, API keys, and the visits of support."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Iterable
from typing import Annotated, Any

import pydantic

from tenantry.idempotency import IDEMPOTENCY
from tenantry.internal import internal
from tenantry.schema import PII, KeyedModel, Model
from tenantry.tenants.directory import CONTROL_COLLECTIONS

ReprArgs = Iterable[tuple[str | None, Any]]

OWNER = "owner"
"""The role of which a tenant that has one never loses the last."""


class Member(KeyedModel, defer_build=True):
    """A user in a tenant.

    Attributes:
        id: The user's id, as the application's own authentication knows it.
        roles: What the user is in this tenant.
        email: The address that the invitation went to.
    """

    __collection__ = "tenantry_members"
    __control__ = True
    __indexes__ = (("owner", "id"),)

    id: str
    roles: list[str]
    owner: bool = False
    email: Annotated[str | None, PII] = None


class InvitationStatus(enum.Enum):
    """Where an invitation is in its life. One that is pending may still have expired."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REVOKED = "revoked"


class Invitation(Model, defer_build=True):
    """An invitation of somebody who is no member yet."""

    __collection__ = "tenantry_invitations"
    __control__ = True

    email: Annotated[str, PII]
    roles: list[str]
    status: InvitationStatus = InvitationStatus.PENDING
    expires_at: dt.datetime
    invited_by: str | None = None
    accepted_by: str | None = None
    credential: str
    digest: bytes

    def __repr_args__(self) -> ReprArgs:
        """Show all but what is kept of the secret."""
        return [(name, value) for name, value in super().__repr_args__() if name != "digest"]


class APIKey(KeyedModel, defer_build=True):
    """A key of a tenant's own programs, as it is kept: without its secret.

    Attributes:
        id: Names the key; no secret.
        name: What people call it.
        roles: What a request with it is, as a member would be.
        scopes: What it is for, in the application's own words.
        expires_at: From when it is refused.
        last_used_at: When it was last seen, to within five minutes.
        revoked_at: When it was revoked.
        replaced_by: The key that it was rotated into.
    """

    __collection__ = "tenantry_api_keys"
    __control__ = True

    id: str
    name: str
    roles: list[str] = pydantic.Field(default_factory=list)
    scopes: list[str] = pydantic.Field(default_factory=list)
    expires_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    replaced_by: str | None = None
    created_by: str | None = None
    digest: bytes

    def __repr_args__(self) -> ReprArgs:
        """Show all but what is kept of the secret."""
        return [(name, value) for name, value in super().__repr_args__() if name != "digest"]


class SupportConsent(KeyedModel, defer_build=True):
    """That a tenant lets support in, until when. One row, or none."""

    __collection__ = "tenantry_support_consent"
    __control__ = True

    id: str
    until: dt.datetime
    allowed_by: str | None = None


class SupportSession(Model, defer_build=True):
    """One visit of support to a tenant.

    Attributes:
        actor: Who.
        reason: Why.
        until: When it ends at the latest.
        ended_at: When it ended.
        ended_by: Who ended it: the visitor, or the tenant.
    """

    __collection__ = "tenantry_support_sessions"
    __control__ = True

    actor: str
    reason: str
    until: dt.datetime
    ended_at: dt.datetime | None = None
    ended_by: str | None = None


class SupportWrite(Model, defer_build=True):
    """A write that support made, kept in the transaction of the write itself."""

    __collection__ = "tenantry_support_writes"
    __control__ = True
    __indexes__ = (("session", "id"),)

    session: uuid.UUID
    actor: str
    verb: str
    collection: str
    ids: list[str] = pydantic.Field(default_factory=list)
    fields: list[str] = pydantic.Field(default_factory=list)

    def __repr_args__(self) -> ReprArgs:
        """Show what was done, and not to which rows: an id may be a person's."""
        return [(name, getattr(self, name)) for name in ("actor", "verb", "collection")]


_BY_ID = (("id",),)
MEMBERS = internal(Member, rights=("SELECT",), across=_BY_ID)
INVITATIONS = internal(Invitation, across=(("credential",),))
API_KEYS = internal(APIKey, across=_BY_ID)
CONSENTS = internal(SupportConsent)
SUPPORT_SESSIONS = internal(SupportSession)
SUPPORT_WRITES = internal(SupportWrite, rights=("SELECT", "INSERT"))

OWN_COLLECTIONS = (
    *CONTROL_COLLECTIONS,
    IDEMPOTENCY,
    MEMBERS,
    INVITATIONS,
    API_KEYS,
    CONSENTS,
    SUPPORT_SESSIONS,
    SUPPORT_WRITES,
)
"""Every table that the SDK has beside those of the models."""
