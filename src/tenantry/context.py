"""Who is asking: the tenant, the user and what is known of them.

Adapters receive the context as their first argument and never look around for one. Only the edges (HTTP,
GraphQL, job runners) bind an ambient context, with :func:`use_context`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from tenantry.errors import ConfigurationError, ContextMismatch
from tenantry.types import TenantId, tenant_id

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantContext:
    """One tenant, and on whose behalf.

    Attributes:
        tenant_id: The tenant. Checked when the context is made.
        user_id: The user who asks, if any.
        claims: What the identity provider said of the user. Kept as an immutable copy.
        request_id: A correlation id for logs and traces.
        claims_digest: The same for equal users and claims, so that a batch or cache never mixes two.
    """

    tenant_id: TenantId
    user_id: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, hash=False)
    request_id: str | None = field(default=None, compare=False)
    claims_digest: bytes = field(init=False, repr=False, default=b"")

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant_id", tenant_id(self.tenant_id))
        if self.user_id is None and not self.claims:
            object.__setattr__(self, "claims", _NO_CLAIMS)
            return
        try:
            frozen = msgspec.json.encode([self.user_id, dict(self.claims)], order="deterministic")
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                "Claims must be a mapping of JSON values.", field="claims", fix=str(error)
            ) from error
        object.__setattr__(self, "claims", MappingProxyType(msgspec.json.decode(frozen)[1]))
        object.__setattr__(self, "claims_digest", hashlib.blake2b(frozen, digest_size=16).digest())


@dataclass(frozen=True, slots=True, eq=False)
class SystemContext:
    """Work across tenants, opened by ``sdk.system(reason=…)`` and recorded in the audit log.

    Compared by identity: a look-alike made by hand is not the one that was audited.

    Attributes:
        reason: Why, for the audit log.
        actor: Who, for the audit log.
        tenant_id: Narrows the work to one tenant's rows; ``None`` for all tenants.
    """

    reason: str
    actor: str | None = None
    tenant_id: TenantId | None = None


Context = TenantContext | SystemContext

_current: ContextVar[TenantContext | None] = ContextVar("tenantry_context", default=None)


def current_context() -> TenantContext | None:
    """Return the ambient context that an edge has bound for this task, if any."""
    return _current.get()


def check_ambient(context: TenantContext) -> None:
    """Refuse to act for one tenant while a request of another is being served.

    Raises:
        ContextMismatch: The ambient context is of another tenant.
    """
    ambient = _current.get()
    if ambient is not None and ambient.tenant_id != context.tenant_id:
        raise ContextMismatch("The call is for one tenant while a request of another is being served.")


@contextmanager
def use_context(context: TenantContext) -> Iterator[TenantContext]:
    """Bind ``context`` to the running task until the block ends. For edges: middleware, job runners."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
