"""Who is asking: the tenant, the user and what is known of them.

Adapters receive the context as their first argument and never look around for one. Only the edges (HTTP,
GraphQL, job runners) bind an ambient context, with :func:`use_context`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import msgspec

from tenantry.errors import ConfigurationError, ContextMismatch
from tenantry.types import TenantId, tenant_id

T = TypeVar("T")
Bound = TypeVar("Bound", bound="TenantContext | None")

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantContext:
    """One tenant, and on whose behalf.

    Attributes:
        tenant_id: The tenant. Checked when the context is made.
        user_id: The user who asks, if any.
        claims: What the identity provider said of the user. Kept as an immutable copy.
        request_id: A correlation id for logs and traces.
        primary: Whether reads must be answered by the primary, whatever a replica could answer.
        claims_digest: The same for equal users and claims, so that a batch or cache never mixes two.
    """

    tenant_id: TenantId
    user_id: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, hash=False)
    request_id: str | None = field(default=None, compare=False)
    primary: bool = field(default=False, compare=False, kw_only=True)
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


class _Binding(AbstractContextManager[Bound]):
    """One block of :func:`use_context`; compared by identity, as one context may be bound twice."""

    __slots__ = ("context",)

    def __init__(self, context: Bound) -> None:
        self.context = context

    def __enter__(self) -> Bound:
        _bindings.set((*_bindings.get(), self))
        return self.context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Only its own binding is taken away. Restoring what was there before, as a token does, would bring back a
        # tenant whose block is over where two generators interleave, and fails where one is closed in another task.
        _bindings.set(tuple(item for item in _bindings.get() if item is not self))


_bindings: ContextVar[tuple[_Binding[Any], ...]] = ContextVar("tenantry_context", default=())


def current_context() -> TenantContext | None:
    """Return the ambient context that an edge has bound for this task, if any."""
    bindings = _bindings.get()
    found: TenantContext | None = bindings[-1].context if bindings else None
    return found


def check_ambient(context: TenantContext) -> None:
    """Refuse to act for one tenant while a request of another is being served.

    Raises:
        ContextMismatch: The ambient context is of another tenant.
    """
    ambient = current_context()
    if ambient is not None and ambient.tenant_id != context.tenant_id:
        raise ContextMismatch("The call is for one tenant while a request of another is being served.")


def use_context(context: Bound) -> AbstractContextManager[Bound]:
    """Bind ``context`` to the running task until the block ends. For edges: middleware, job runners.

    ``None`` hides the tenant that is bound outside. A generator that yields inside such a block shares the tenant with
    whoever consumes it: leave the block out, and pass the generator through :class:`BoundIterator`.
    """
    return _Binding(context)


class BoundIterator(Iterator[T]):
    """Iterates so that each item is made under one context, and consumed under the consumer's own.

    For a response that is consumed when the request's block is over, by a server that may be serving others.

    Args:
        context: The context; ``None`` for no tenant.
        items: What is iterated; its ``close`` runs under the context too.
    """

    def __init__(self, context: TenantContext | None, items: Iterable[T]) -> None:
        self._context = context
        self._items = items
        with use_context(context):
            self._iterator = iter(items)

    def __next__(self) -> T:
        with use_context(self._context):
            return next(self._iterator)

    def close(self) -> None:
        """Close what is iterated, if it can be closed."""
        close = getattr(self._items, "close", None)
        if close is not None:
            with use_context(self._context):
                close()


class BoundAsyncIterator(AsyncIterator[T]):
    """The same as :class:`BoundIterator` for an asynchronous generator."""

    def __init__(self, context: TenantContext | None, items: AsyncIterable[T]) -> None:
        self._context = context
        with use_context(context):
            self._iterator = aiter(items)

    async def __anext__(self) -> T:
        with use_context(self._context):
            return await anext(self._iterator)

    async def aclose(self) -> None:
        """Close what is iterated, if it can be closed."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            with use_context(self._context):
                await close()
