"""Errors as HTTP answers: problem details, RFC 9457.

An answer below 500 says what the caller did, with what helps to correct it. One from 500 on says nothing of what is
behind: that goes to the log.

=============================================================================  =======
NotFound, TenantNotFound, UnknownCollection                                    404
Conflict, UniqueViolation, ReferenceViolation, TenantExists,
InvalidTransition                                                              409
InvalidQuery, InvalidRecord and other wrong requests, IdempotencyConflict,
InvalidTenantId                                                                422
TenantSuspended, TenantDeleted, ContextMismatch, ReadOnlyCollection            403
Unavailable (with Retry-After)                                                 503
all others                                                                     500
=============================================================================  =======
"""

from __future__ import annotations

import http
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketState

from tenantry.errors import (
    Conflict,
    ContextMismatch,
    IdempotencyConflict,
    InvalidRequest,
    InvalidTenantId,
    InvalidTransition,
    NotFound,
    ReadOnlyCollection,
    ReferenceViolation,
    TenantDeleted,
    TenantExists,
    TenantNotFound,
    TenantryError,
    TenantSuspended,
    Unavailable,
    UniqueViolation,
    UnknownCollection,
)

logger = logging.getLogger("tenantry.http")

RETRY_AFTER_SECONDS: Final = 1
_CLOSE_REFUSED, _CLOSE_FAILED, _CLOSE_TRY_LATER = 1008, 1011, 1013
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_STATUS: Final[Mapping[type[TenantryError], int]] = {
    NotFound: 404,
    TenantNotFound: 404,
    UnknownCollection: 404,
    Conflict: 409,
    UniqueViolation: 409,
    ReferenceViolation: 409,
    TenantExists: 409,
    InvalidTransition: 409,
    IdempotencyConflict: 422,
    InvalidTenantId: 422,
    InvalidRequest: 422,
    ReadOnlyCollection: 403,
    TenantSuspended: 403,
    TenantDeleted: 403,
    ContextMismatch: 403,
    Unavailable: 503,
    TenantryError: 500,
}
# What an error carries beyond its message that helps the caller to correct the request.
_DETAILS: Final = ("path", "field", "fields", "expected_version", "current_version", "current", "wanted")


class Refusal(HTTPException):
    """A request that was refused before it reached any data.

    An HTTPException, so that it is refused also where :func:`handle_errors` was never called.

    Args:
        status: The HTTP status.
        code: A stable word for programs, such as ``tenant-forbidden``.
        detail: A sentence for people.
        headers: What else the answer carries.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code


def problem(error: TenantryError | Refusal) -> JSONResponse:
    """Return the answer to a request that ended in ``error``."""
    if isinstance(error, Refusal):
        return _response(error.status_code, error.code, error.detail, {}, error.headers)
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    code = _BOUNDARY.sub("-", type(error).__name__).lower()
    if status == 503:
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return _response(status, "unavailable", "The service is away for a moment.", {}, retry)
    if status >= 500:
        return _response(status, "internal-error", "The request could not be carried out.", {})
    details = {name: getattr(error, name) for name in _DETAILS if getattr(error, name, None) is not None}
    return _response(status, code, error.message, details)


def _response(
    status: int,
    code: str,
    detail: str,
    more: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    title = http.HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def handle_errors(app: FastAPI) -> None:
    """Answer with problem details wherever a route of ``app`` ends in an error of tenantry."""
    handler: Any = (
        _answer  # for requests and for WebSockets; the signature asks for a handler of one kind only
    )
    app.add_exception_handler(TenantryError, handler)
    app.add_exception_handler(Refusal, handler)


async def _answer(connection: HTTPConnection, error: Exception) -> JSONResponse | None:
    assert isinstance(error, TenantryError | Refusal)
    response = problem(error)
    if response.status_code >= 500:
        level = logging.WARNING if isinstance(error, Unavailable) else logging.ERROR
        logger.log(level, "%s failed: %s", connection.url.path, error, exc_info=error)
    if not isinstance(connection, WebSocket):
        return response
    accepted = connection.application_state is not WebSocketState.CONNECTING
    if not accepted and "websocket.http.response" in connection.scope.get("extensions", {}):
        return response
    if connection.application_state is not WebSocketState.DISCONNECTED:
        await connection.close(_close_code(response.status_code))
    return None


def _close_code(status: int) -> int:
    if status == 503:
        return _CLOSE_TRY_LATER
    return _CLOSE_FAILED if status >= 500 else _CLOSE_REFUSED
