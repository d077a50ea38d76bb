"""Which tenant a request is for.

Two questions, kept apart. *May* it: only an :class:`~tenantry.http.identity.Identity` that the application has verified
answers that. *Which*, where an identity belongs to several tenants: a :data:`Naming` reads it off the request, and
decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tenantry.errors import ConfigurationError
from tenantry.http.identity import Identity, unauthenticated
from tenantry.http.problems import Refusal
from tenantry.http.request import RequestView, header_name

Naming = Callable[[RequestView], Iterable[str]]
"""Returns every tenant that a request names; none is a valid answer."""

_TENANT = "{tenant}"


def by_header(name: str = "X-Tenant-ID") -> Naming:
    """Read the tenant from a header."""
    checked = header_name(name)
    return lambda request: request.headers.all(checked)


def by_host(domain: str) -> Naming:
    """Read the tenant from what stands before ``domain`` in the host: ``acme`` in ``acme.example.com``.

    Hosts have no upper case, so the ids of these tenants may not have any either.
    """
    if not domain.strip("."):
        raise ConfigurationError("No domain is named.", field="domain", fix='Pass it, like "example.com".')
    suffix = "." + domain.lower().strip(".")

    def named(request: RequestView) -> Iterable[str]:
        host = request.host
        if host is not None and host.endswith(suffix):
            yield host.removesuffix(suffix)

    return named


def by_path(template: str = "/t/{tenant}") -> Naming:
    """Read the tenant from the path below the application's root: ``acme`` in ``/t/acme/products``.

    The path is compared as it is, with neither dots nor double slashes resolved: what a router may read in another
    way names a tenant that nobody has, or none.

    Args:
        template: How the path begins; one of its segments is ``{tenant}``.
    """
    segments = template.strip("/").split("/")
    if not template.startswith("/") or segments.count(_TENANT) != 1:
        raise ConfigurationError(
            f"{template!r} does not say where the tenant is.",
            field="template",
            fix='Write it like "/t/{tenant}".',
        )
    place = segments.index(_TENANT)

    def named(request: RequestView) -> Iterable[str]:
        given = request.path.split("/")[1:]
        if len(given) >= len(segments) and all(
            wanted in (_TENANT, found) for wanted, found in zip(segments, given, strict=False)
        ):
            yield given[place]

    return named


def choose(identity: Identity | None, named_by: Sequence[Naming], request: RequestView) -> str:
    """Return the one tenant that ``request`` is for, or raise what :func:`settle` raises."""
    return settle(identity, (name for naming in named_by for name in naming(request)))


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
        raise unauthenticated()
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


def suspended() -> Refusal:
    """Return the answer for a tenant of the identity that is suspended."""
    return Refusal(403, "tenant-suspended", "This tenant is suspended.")
