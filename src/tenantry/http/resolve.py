"""Which tenant a request is for.

Two questions, kept apart. *May* it: only an :class:`Identity` that the application has verified answers that. *Which*,
where an identity belongs to several tenants: a :data:`Naming` reads it off the request, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from starlette.requests import HTTPConnection

from tenantry.http.problems import Refusal

Naming = Callable[[HTTPConnection], Iterable[str]]
"""Returns every tenant that a request names; none is a valid answer."""


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


def by_header(name: str = "X-Tenant-ID") -> Naming:
    """Read the tenant from a header."""
    return lambda connection: connection.headers.getlist(name)


def by_host(domain: str) -> Naming:
    """Read the tenant from what stands before ``domain`` in the host: ``acme`` in ``acme.example.com``.

    Hosts have no upper case, so the ids of these tenants may not have any either.
    """
    suffix = "." + domain.lower().strip(".")

    def named(connection: HTTPConnection) -> Iterable[str]:
        for host in connection.headers.getlist("host"):
            name = host.partition(":")[0].rstrip(".").lower()
            if name.endswith(suffix):
                yield name.removesuffix(suffix)

    return named


def by_path(parameter: str = "tenant") -> Naming:
    """Read the tenant from a parameter of the path, such as ``/t/{tenant}/products``."""

    def named(connection: HTTPConnection) -> Iterable[str]:
        if parameter in connection.path_params:
            yield str(connection.path_params[parameter])

    return named


def settle(identity: Identity | None, named: Iterable[str]) -> str:
    """Return the one tenant that a request is for.

    Args:
        identity: Who asks; ``None`` for nobody.
        named: Every tenant that the request names.

    Raises:
        Refusal: 401 without an identity; 403 if another tenant is named, two are, or the identity has none; 400 if it
            has several and the request names none of them.
    """
    if identity is None:
        raise Refusal(
            401, "unauthenticated", "Sign in to reach a tenant.", headers={"WWW-Authenticate": "Bearer"}
        )
    if not isinstance(identity, Identity):
        raise TypeError(f"the identity dependency returns an Identity or None, not {type(identity).__name__}")
    wanted = frozenset(named) or frozenset(identity.tenants)
    if not wanted <= frozenset(identity.tenants) or not wanted:
        raise forbidden()
    if len(wanted) > 1:
        raise Refusal(400, "tenant-unnamed", "This identity belongs to several tenants; name one of them.")
    return next(iter(wanted))


def forbidden() -> Refusal:
    """Return the one answer for every tenant that is not the identity's own, whether it exists or not."""
    return Refusal(403, "tenant-forbidden", "This identity may not act for that tenant.")
