"""Serves each request as the one tenant that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from tenantry.context import BoundIterator, TenantContext, use_context
from tenantry.databases.postgres.binding import bound_to
from tenantry.django.binding import bound, bound_databases
from tenantry.django.options import options
from tenantry.errors import (
    ContextMismatch,
    DataError,
    InvalidTenantId,
    TenantDeleted,
    TenantNotFound,
    TenantryError,
    TenantSuspended,
    Unsupported,
)
from tenantry.http.identity import Identity, at_once, identified_sync
from tenantry.http.naming import by_host, choose, suspended
from tenantry.http.problems import Refusal, answer
from tenantry.http.request import Headers, RequestView
from tenantry.http.wsgi import refusing
from tenantry.types import tenant_id

Respond = Callable[[HttpRequest], HttpResponseBase]


class TenantMiddleware:
    """Resolves the tenant of each request, and binds the databases to it until the answer is read.

    The request is one transaction. It is rolled back where the answer is 500 or above, and else committed before
    the first byte goes out; an answer that is made while it is read is another transaction.

    Under ASGI Django runs it in the thread in which the request's queries run.

    Args:
        get_response: What serves the request.

    Raises:
        ConfigurationError: The setting ``TENANTRY`` is wrong.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Respond) -> None:
        self._respond = get_response
        self._options = options()
        self._by_host = by_host(self._options.host) if self._options.host else None
        self._refusing = refusing if self._by_host is None else _nowhere

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request."""
        self._check_unbound()
        if request.path_info in self._options.public:
            with use_context(None):
                return self._respond(request)
        with ExitStack() as stack:
            try:
                with self._refusing():
                    with use_context(None):
                        context = self._context(request)
                    stack.enter_context(bound(context))
            except TenantryError as error:
                return self._refused(request, error)
            request.tenant = context
            response = self._respond(request)
            if response.status_code >= 500:
                self._roll_back()
                return response
            self._check_whole()
            if response.streaming:
                _bind_stream(cast(StreamingHttpResponse, response), context)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer what the SDK refused in a view."""
        return self._refused(request, exception) if isinstance(exception, TenantryError) else None

    def _check_unbound(self) -> None:
        """Refuse a thread in which the work of a tenant is not over: what is public would see its rows."""
        for alias in self._options.databases:
            if bound_to(connections[alias]) is not None:
                raise ContextMismatch(
                    f"The database {alias!r} is still bound in this thread.",
                    fix="Make requests outside of `with tenant(…)`, and close streams that are not read to their end.",
                )

    def _context(self, request: HttpRequest) -> TenantContext:
        view = view_of(request)
        who = self._identity(request, view)
        named_by = (self._by_host,) if self._by_host else self._options.named_by
        chosen = choose(who, named_by, view)
        assert who is not None
        return TenantContext(tenant_id(chosen), who.user, who.claims, view.request_id)

    def _identity(self, request: HttpRequest, view: RequestView) -> Identity | None:
        if self._by_host is not None:
            # Users, sessions and all they can reach are rows of the tenant: who asks is settled inside of it.
            return Identity(tuple(self._by_host(view)) or ("",))
        if self._options.user is not None:
            return at_once(self._options.user(request), "TENANTRY.USER")
        assert self._options.resolver is not None
        return identified_sync(self._options.resolver, view)

    def _refused(self, request: HttpRequest, error: TenantryError) -> HttpResponse:
        return self._options.refuse(request, answer(error, request.path_info))

    def _check_whole(self) -> None:
        """Refuse to call a success what the database will roll back: a view caught an error and went on."""
        for alias in self._options.databases:
            if connections[alias].needs_rollback:
                raise DataError(
                    "The request's transaction failed, and a view caught the error.",
                    fix="Catch errors of the database around `with transaction.atomic()`, not inside of it.",
                )

    def _roll_back(self) -> None:
        for alias in self._options.databases:
            connections[alias].set_rollback(True)


@contextmanager
def _nowhere() -> Iterator[None]:
    """Refuse a host that is of no tenant: whoever looks for one has claimed nothing."""
    try:
        yield
    except TenantSuspended:
        raise suspended() from None
    except (InvalidTenantId, TenantNotFound, TenantDeleted):
        raise Refusal(404, "no-tenant", "No tenant is served at this host.") from None


def view_of(request: HttpRequest) -> RequestView:
    """Return a request as resolvers and namings see it. Its host is the one that Django accepted.

    Raises:
        DisallowedHost: It did not; Django answers with 400.
    """
    headers = [
        (name, value) for name, value in request.headers.items() if name not in ("Host", "X-Forwarded-Host")
    ]
    return RequestView(
        method=request.method or "GET",
        scheme=request.scheme or "http",
        path=request.path_info,
        query=request.META.get("QUERY_STRING", ""),
        headers=Headers([("Host", request.get_host()), *headers]),
        client=request.META.get("REMOTE_ADDR") or None,
        native=request.META,
    )


def _bind_stream(response: StreamingHttpResponse, context: TenantContext) -> None:
    """Have the steps of an answer made as its tenant, whenever the server asks for them."""
    if response.is_async:
        raise Unsupported(
            "An asynchronous stream would leave the thread of the bound connection.",
            fix="Pass a synchronous iterator to StreamingHttpResponse.",
        )
    if not _is_of_disk(response):
        content = cast(Iterable[bytes], response.streaming_content)
        response.streaming_content = BoundIterator(context, _steps(content, context))


def _steps(content: Iterable[bytes], context: TenantContext) -> Iterator[bytes]:
    with bound_databases(context):
        yield from content


def _is_of_disk(response: Any) -> bool:
    """Whether it is a file of the system, which needs no database and may take a slow client an hour to read."""
    fileno = getattr(getattr(response, "file_to_stream", None), "fileno", None)
    if fileno is None:
        return False
    try:
        fileno()
    except (OSError, AttributeError):
        return False
    return True
