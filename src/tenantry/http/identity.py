"""Who asks: an identity that the application has verified, and what finds it out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, runtime_checkable

from tenantry.errors import ConfigurationError
from tenantry.http.problems import Refusal
from tenantry.http.request import RequestView

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as the application's own authentication has verified it.

    Attributes:
        tenants: The tenants this user belongs to: one id, or several.
        user: The user, for the audit log and for what depends on the user.
        claims: What the identity provider says of the user. JSON values.
    """

    tenants: Collection[str]
    user: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        tenants = (self.tenants,) if isinstance(self.tenants, str) else self.tenants
        object.__setattr__(self, "tenants", frozenset(tenants))

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any], *, tenant: str, user: str = "sub") -> Identity:
        """Return the identity that the claims of a *verified* token describe.

        Args:
            claims: The claims. A token whose signature, audience and expiry nobody checked is no identity.
            tenant: The claim that holds the tenant's id, or a list of them. Anything else in it names no tenant.
            user: The claim that holds the user's id.
        """
        value, subject = claims.get(tenant), claims.get(user)
        listed = value if isinstance(value, list | tuple) else [value]
        tenants = [item for item in listed if isinstance(item, str)]
        return cls(tenants, user=None if subject is None else str(subject), claims=claims)


@runtime_checkable
class Resolver(Protocol):
    """Finds out who sent a request. One object serves the edges that await and those that cannot."""

    async def identify(self, request: RequestView) -> Identity | None:
        """Return who asks, or ``None`` if the request carries nothing of the kind that this resolver reads.

        Raises:
            Refusal: It carries something that is not valid.
            Unavailable: It cannot be told now.
        """

    def identify_sync(self, request: RequestView) -> Identity | None:
        """Do the same without an event loop, for WSGI."""


IdentifyFunction = Callable[[RequestView], Identity | Awaitable[Identity | None] | None]
AnyResolver = Resolver | IdentifyFunction
"""A :class:`Resolver`, or a function that does what one does; under WSGI it must not be ``async``."""


async def identified(resolver: AnyResolver, request: RequestView) -> Identity | None:
    """Return who sent ``request``, awaiting where that is needed."""
    identify: Any = getattr(resolver, "identify", resolver)
    found: Identity | Awaitable[Identity | None] | None = identify(request)
    return await awaited(found)


def identified_sync(resolver: AnyResolver, request: RequestView) -> Identity | None:
    """Return who sent ``request``, without an event loop.

    Raises:
        ConfigurationError: The resolver is asynchronous.
    """
    identify: Any = getattr(resolver, "identify_sync", resolver)
    found: Identity | Awaitable[Identity | None] | None = identify(request)
    return at_once(found, "identity")


async def awaited(value: T | Awaitable[T]) -> T:
    """Return ``value``, or what it comes to."""
    return await value if inspect.isawaitable(value) else value


def at_once(value: T | Awaitable[T], field: str) -> T:
    """Return ``value`` where nothing can be awaited.

    Raises:
        ConfigurationError: It would have to be awaited.
    """
    if not inspect.isawaitable(value):
        return value
    if inspect.iscoroutine(value):
        value.close()
    raise ConfigurationError(
        "There is no event loop to await it on.",
        field=field,
        fix="Under WSGI, pass a function without `async`.",
    )


def any_of(*resolvers: AnyResolver) -> Resolver:
    """Return the resolver for requests that carry one of several credentials, such as a token or an API key.

    Every one of them is asked: a request that carries two identities is refused, and so is one of which any
    credential is not valid.
    """
    return _AnyOf(resolvers)


class _AnyOf:
    def __init__(self, resolvers: tuple[AnyResolver, ...]) -> None:
        self._resolvers = resolvers

    async def identify(self, request: RequestView) -> Identity | None:
        return _only([await identified(resolver, request) for resolver in self._resolvers])

    def identify_sync(self, request: RequestView) -> Identity | None:
        return _only([identified_sync(resolver, request) for resolver in self._resolvers])


def _only(found: list[Identity | None]) -> Identity | None:
    identities = [identity for identity in found if identity is not None]
    if len(identities) > 1:
        raise Refusal(400, "two-credentials", "A request carries one credential.")
    return identities[0] if identities else None


def unauthenticated(detail: str = "Sign in to reach a tenant.") -> Refusal:
    """Return the answer to a request of nobody."""
    return Refusal(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})
