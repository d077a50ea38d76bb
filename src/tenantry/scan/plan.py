"""What to scan, as whom, and how far to go."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from tenantry.errors import ConfigurationError
from tenantry.scan.credentials import Credentials
from tenantry.scan.graphql import mutates
from tenantry.scan.messages import Request
from tenantry.scan.openapi import Operation

_ENDS_SESSION = re.compile(
    r"(?:log|sign)[_-]?(?:out|off)|/sessions?/|/(?:login|signin|password)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a scan asks of the application.

    Args:
        concurrency: Requests in flight at a time.
        rate: Requests a second.
        timeout: Seconds that one request may take.
        requests: The most to send altogether; a scan that is stopped by it says so.
        body: The most bytes to read of one response.
        wait: The most seconds to wait where the application asks for patience (429, 503).
        examples: How many requests of one route are tried.
    """

    concurrency: int = 4
    rate: float = 50.0
    timeout: float = 10.0
    requests: int = 10_000
    body: int = 2_000_000
    wait: float = 5.0
    examples: int = 2

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be more than 0.", field=f"limits.{name}")


@dataclass(frozen=True, slots=True)
class Plan:
    """A scan.

    Args:
        target: The application's base URL.
        a: The tenant whose data must not leak.
        b: The tenant who tries to reach it.
        requests_a: What was recorded as A; see :func:`~tenantry.scan.read_har`.
        requests_b: What was recorded as B, if anything was.
        operations: What an OpenAPI document describes; see :func:`~tenantry.scan.read_openapi`.
        writes: Also try to change A's data as B, and make and delete rows as both. For staging only.
        safe_posts: Patterns of paths whose ``POST`` only reads, such as ``/graphql`` or ``/search*``.
        owned: Values that are known to be A's alone, such as a name that was typed in as A.
        shared: Patterns of paths whose data belongs to everyone.
        skip: Patterns of paths that are never asked.
        ca: A file of the authorities to trust, for an application whose certificate is signed by one's own.
        limits: Bounds.
    """

    target: str
    a: Credentials
    b: Credentials
    requests_a: tuple[Request, ...] = ()
    requests_b: tuple[Request, ...] = ()
    operations: tuple[Operation, ...] = ()
    writes: bool = False
    safe_posts: tuple[str, ...] = ()
    owned: frozenset[str] = frozenset()
    shared: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    ca: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, url in (
            ("target", self.target),
            ("a.base_url", self.a.base_url),
            ("b.base_url", self.b.base_url),
        ):
            if url is not None:
                _check_url(name, url)
        for name, credentials in (("a", self.a), ("b", self.b)):
            if not any(credentials.headers.values()) and credentials.login is None:
                raise ConfigurationError(
                    f"Tenant {name} has no credentials.",
                    field=f"{name}.headers",
                    fix=f"Give its token, header or cookie: --token-{name}, --header-{name} or --cookie-{name}.",
                )
        if (dict(self.a.headers), self.a.login) == (dict(self.b.headers), self.b.login):
            raise ConfigurationError(
                "Both tenants have the same credentials.",
                field="b.headers",
                fix="Sign in as a user of another tenant and give that user's token.",
            )
        if not self.requests_a and not self.operations:
            raise ConfigurationError(
                "There is nothing to replay.",
                field="requests_a",
                fix="Give requests recorded as A (--har) or a description of the application (--openapi).",
            )

    def base(self, credentials: Credentials) -> str:
        """Return where the application is for a tenant, without a slash at the end."""
        return (credentials.base_url or self.target).rstrip("/")

    def may_ask(self, request: Request) -> bool:
        """Whether a request may be sent: its path is not skipped, and it only reads or ``writes`` is set."""
        if matches(request.path, self.skip) or _ENDS_SESSION.search(request.path):
            return False
        return request.reads or self.writes or self.is_safe_post(request)

    def is_safe_post(self, request: Request) -> bool:
        """Whether a ``POST`` is known to only read."""
        return request.method == "POST" and matches(request.path, self.safe_posts) and not mutates(request)


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path matches one of the patterns, in which ``*`` stands for any text."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{url!r} is no address of an application.",
            field=name,
            fix="Write it in full, such as https://staging.example.com.",
        )
    if parts.username or parts.query or parts.fragment:
        raise ConfigurationError(
            "The address holds more than a host and a path.",
            field=name,
            fix="Give credentials by themselves.",
        )
