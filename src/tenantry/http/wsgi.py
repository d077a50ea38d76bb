"""WSGI middleware, for Flask, Django and any other: no framework and no event loop is needed."""

from __future__ import annotations

import http
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import BoundIterator, TenantContext, use_context
from tenantry.errors import InvalidTenantId, TenantDeleted, TenantNotFound, TenantryError, TenantSuspended
from tenantry.http.identity import AnyResolver, identified_sync
from tenantry.http.naming import Naming, by_header, choose, forbidden, suspended
from tenantry.http.paths import PublicPaths
from tenantry.http.problems import Problem, answer
from tenantry.http.request import Headers, RequestView, TrustedProxies
from tenantry.types import tenant_id

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("tenantry.http")

CONTEXT: Final = "tenantry.context"
"""Where the environ holds the :class:`~tenantry.context.TenantContext` of the request."""


class TenantMiddleware:
    """Resolves the tenant of each request, and serves it as that tenant.

    While ``app`` serves the request its tenant is the ambient one: in the call, in every step of a response that is
    consumed lazily, and in its ``close``; not in the server, nor in the thread when it takes the next request. What
    cannot be served is answered with problem details.

    Args:
        app: The application.
        admit: Called with the tenant's id; returns if that may be served, and else raises ``TenantSuspended``,
            ``TenantNotFound``, ``TenantDeleted`` or ``Unavailable``.
        identity: Who sent a request: a :class:`~tenantry.http.identity.Resolver`, or a function without ``async``.
        named_by: How a request names a tenant: to choose one where an identity has several.
        public: Paths that are served without a tenant: ``/health`` is one, ``/static/`` all below it.
        proxies: The networks of the proxies whose ``X-Forwarded-Host`` is believed.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        admit: Callable[[str], object],
        identity: AnyResolver,
        named_by: Sequence[Naming] = (by_header(),),
        public: Sequence[str] = (),
        proxies: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._admit = admit
        self._identity = identity
        self._named_by = tuple(named_by)
        self._public = PublicPaths(public)
        self._proxies = TrustedProxies(proxies)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        request = view(environ, self._proxies)
        environ.pop(CONTEXT, None)
        if request.path in self._public:
            return _served(self._app, environ, start_response, None)
        try:
            with use_context(None):
                context = self._context(request)
        except TenantryError as error:
            return _refuse(environ, start_response, answer(error, request.path))
        environ[CONTEXT] = context
        return _served(self._app, environ, start_response, context)

    def _context(self, request: RequestView) -> TenantContext:
        who = identified_sync(self._identity, request)
        chosen = choose(who, self._named_by, request)
        assert who is not None
        with refusing():
            context = TenantContext(tenant_id(chosen), who.user, who.claims, request.request_id)
            self._admit(context.tenant_id)
        return context


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse a request whose tenant, found in the block, cannot be served."""
    try:
        yield
    except TenantSuspended:
        raise suspended() from None
    except (InvalidTenantId, TenantNotFound, TenantDeleted) as error:
        logger.warning("A verified identity names a tenant that cannot be served: %s", error.message)
        raise forbidden() from None


def view(environ: WSGIEnvironment, proxies: TrustedProxies | None = None) -> RequestView:
    """Return a request's view by its WSGI environ; ``request.META`` of Django is one."""
    return RequestView(
        method=environ.get("REQUEST_METHOD", "GET"),
        scheme=environ.get("wsgi.url_scheme", "http"),
        path=_decoded(environ.get("PATH_INFO", "")) or "/",
        query=environ.get("QUERY_STRING", ""),
        headers=Headers(_headers(environ)),
        client=environ.get("REMOTE_ADDR") or None,
        proxies=proxies or TrustedProxies(),
        native=environ,
    )


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_") and isinstance(value, str):
            yield key[5:].replace("_", "-"), value
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield key.replace("_", "-"), value


def _decoded(text: str) -> str:
    # PEP 3333: bytes in the disguise of Latin-1
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def _served(
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    context: TenantContext | None,
) -> Iterable[bytes]:
    begun = False

    def start_outside(*arguments: Any, **named: Any) -> Any:
        nonlocal begun
        begun = True
        with use_context(None):
            return start_response(*arguments, **named)

    try:
        with use_context(context):
            body = app(environ, start_outside)
    except TenantryError as error:
        if begun:
            raise
        return _refuse(environ, start_response, answer(error, environ.get("PATH_INFO", "")))
    # A list was made already; its length tells the server that of the answer.
    return body if isinstance(body, list | tuple) else BoundIterator(context, body)


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, found: Problem) -> Iterable[bytes]:
    phrase = http.HTTPStatus(found.status).phrase
    start_response(f"{found.status} {phrase}", list(found.headers.items()))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [found.body]
