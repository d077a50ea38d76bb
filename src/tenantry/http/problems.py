"""Errors as HTTP answers: problem details, RFC 9457.

An answer below 500 says what the caller did, with what helps to correct it. One from 500 on says nothing of what is
behind: that goes to the log.

=============================================================================  =======
NotFound, TenantNotFound, UnknownCollection                                    404
Conflict, UniqueViolation, ReferenceViolation, TenantExists,
InvalidTransition                                                              409
InvalidQuery, InvalidRecord and other wrong requests, IdempotencyConflict,
InvalidTenantId                                                                422
TenantSuspended, TenantDeleted, ContextMismatch, ReadOnlyCollection,
AccessDenied, QuotaExceeded                                                    403
QuotaExceeded of requests (with Retry-After)                                   429
Unavailable (with Retry-After)                                                 503
Refusal                                                                        its own
all others                                                                     500
=============================================================================  =======
"""

from __future__ import annotations

import http
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenantry.errors import (
    AccessDenied,
    Conflict,
    ContextMismatch,
    IdempotencyConflict,
    InvalidRequest,
    InvalidTenantId,
    InvalidTransition,
    NotFound,
    QuotaExceeded,
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

MEDIA_TYPE: Final = "application/problem+json"
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
    AccessDenied: 403,
    ReadOnlyCollection: 403,
    TenantSuspended: 403,
    TenantDeleted: 403,
    ContextMismatch: 403,
    QuotaExceeded: 403,
    Unavailable: 503,
    TenantryError: 500,
}
# What an error carries beyond its message that helps the caller to correct the request.
_DETAILS: Final = (
    "action",
    "path",
    "field",
    "fields",
    "expected_version",
    "current_version",
    "current",
    "wanted",
    "quota",
    "used",
    "limit",
)


class Refusal(TenantryError):
    """A request that was refused before it reached any data.

    Args:
        status: The HTTP status.
        code: A stable word for programs, such as ``tenant-forbidden``.
        detail: A sentence for people.
        headers: What else the answer carries.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.headers: Mapping[str, str] | None = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer, for any framework.

    Attributes:
        status: The HTTP status.
        headers: The headers, ``Content-Type`` and ``Content-Length`` among them.
        body: Problem details, encoded as JSON.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def close_code(self) -> int:
        """The code that closes a WebSocket for the same reason."""
        if self.status == 503:
            return _CLOSE_TRY_LATER
        return _CLOSE_FAILED if self.status >= 500 else _CLOSE_REFUSED


def problem(error: TenantryError) -> Problem:
    """Return the answer to a request that ended in ``error``."""
    if isinstance(error, Refusal):
        return _problem(error.status, error.code, error.message, {}, error.headers)
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    code = _BOUNDARY.sub("-", type(error).__name__).lower()
    if status == 503:
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return _problem(status, "unavailable", "The service is away for a moment.", {}, retry)
    if status >= 500:
        return _problem(status, "internal-error", "The request could not be carried out.", {})
    seconds = getattr(error, "retry_after", None)
    if seconds is not None:
        wait = {"Retry-After": str(math.ceil(seconds))}
        return _problem(429, code, error.message, _details(error), wait)
    return _problem(status, code, error.message, _details(error))


def _details(error: TenantryError) -> dict[str, Any]:
    return {name: getattr(error, name) for name in _DETAILS if getattr(error, name, None) is not None}


def answer(error: TenantryError, path: str) -> Problem:
    """Return the answer to a request for ``path`` that ended in ``error``, and log what the answer does not say."""
    found = problem(error)
    if found.status >= 500:
        level = logging.WARNING if isinstance(error, Unavailable) else logging.ERROR
        logger.log(level, "%r failed: %s", path, error, exc_info=error)
    return found


def _problem(
    status: int,
    code: str,
    detail: str,
    more: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Problem:
    title = http.HTTPStatus(status).phrase
    content = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    # The standard encoder: names of columns are subclasses of str.
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    standard = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
    return Problem(status, {**standard, **(headers or {})}, body)
