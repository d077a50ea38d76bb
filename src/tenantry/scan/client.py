"""Sends requests as one of the tenants, or as nobody: bounded, and to the application alone."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx

from tenantry.errors import ConfigurationError
from tenantry.scan.messages import Request, Response, Who, unanswered
from tenantry.scan.plan import Plan

_BUSY = frozenset({429, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 307, 308})
_SIGN_IN = re.compile(r"log-?in|sign-?in|/auth\b|/sessions?\b|/sso\b", re.IGNORECASE)
_TRIES = 4
_MAX_REDIRECTS = 3


def _trust(ca: str | None) -> ssl.SSLContext | bool:
    try:
        return ssl.create_default_context(cafile=ca) if ca else True
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{ca} holds no certificates: {error}.", field="ca", fix="Give a file of certificates in PEM."
        ) from error


class OutOfRequests(Exception):
    """The scan may send no more."""


class Client:
    """Sends requests; use it in ``async with``.

    Args:
        plan: Whose credentials, where to, how fast.
        transport: In place of the network.
        base: In place of the addresses in the plan.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        base: str | None = None,
    ) -> None:
        self._plan = plan
        self._only_base = base
        self._transport = transport
        self._gate = asyncio.Semaphore(plan.limits.concurrency)
        self._next = 0.0
        self._stack = AsyncExitStack()
        self.sent = 0
        self.trouble = ""

    async def __aenter__(self) -> Client:
        # No variables of the environment: a proxy or a .netrc would send, or add, what nobody asked for. No cookies
        # are kept: one tenant's session must not reach another's requests.
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(
                transport=self._transport,
                verify=_trust(self._plan.ca),
                timeout=self._plan.limits.timeout,
                trust_env=False,
                cookies=jar,
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def headers(self, who: Who) -> Mapping[str, str]:
        """Return the credentials of ``who``."""
        return {} if who is Who.NOBODY else (self._plan.a if who is Who.A else self._plan.b).headers

    async def send(self, request: Request, who: Who) -> Response:
        """Send ``request`` with the credentials of ``who``; waits where the application is busy, and never raises.

        Raises:
            OutOfRequests: The limit is reached.
        """
        response = unanswered()
        for attempt in range(_TRIES):
            response = await self._followed(request, who)
            if response.settled or (not response.status and attempt):
                break  # what does not answer twice does not answer
            await asyncio.sleep(self._patience(response, attempt))
        return response

    def _patience(self, response: Response, attempt: int) -> float:
        asked = response.headers.get("retry-after", "")
        wanted = float(asked) if asked.isdigit() else 0.1 * 2**attempt
        return min(wanted, self._plan.limits.wait)

    async def _followed(self, request: Request, who: Who) -> Response:
        response = await self._once(request, who)
        for _ in range(_MAX_REDIRECTS):
            further = self._further(request, response, who)
            if further is None:
                break
            request, response = further, await self._once(further, who)
        return response

    def _further(self, request: Request, response: Response, who: Who) -> Request | None:
        """Return where a redirect leads, if that is in the same application."""
        if response.status not in _REDIRECTS or not request.reads or "location" not in response.headers:
            return None
        base = self._base(who)
        url = urlsplit(urljoin(base + request.path, response.headers["location"]))
        mine = urlsplit(base)
        if (url.scheme, url.netloc) != (mine.scheme, mine.netloc) or not url.path.startswith(mine.path):
            return None
        if _SIGN_IN.search(url.path):
            return None  # a page to sign in on is a refusal
        return replace(
            request,
            path=url.path.removeprefix(mine.path) or "/",
            query=tuple(parse_qsl(url.query, keep_blank_values=True)),
        )

    def _base(self, who: Who) -> str:
        if self._only_base is not None:
            return self._only_base
        return self._plan.base(self._plan.b if who is Who.B else self._plan.a)

    async def _once(self, request: Request, who: Who) -> Response:
        if self.sent >= self._plan.limits.requests:
            raise OutOfRequests
        self.sent += 1
        async with self._gate:
            await self._paced()
            try:
                async with asyncio.timeout(self._plan.limits.timeout):
                    return await self._exchange(request, who)
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
                self.trouble = (
                    f" ({type(error).__name__}: {error})" if str(error) else f" ({type(error).__name__})"
                )
                return unanswered()

    async def _paced(self) -> None:
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + 1 / self._plan.limits.rate
        if turn > now:
            await asyncio.sleep(turn - now)

    async def _exchange(self, request: Request, who: Who) -> Response:
        headers = httpx.Headers(self.headers(who))
        headers.update(
            dict(request.headers)
        )  # last, since an attack may name another tenant than the credentials do
        url = self._base(who) + request.target
        body = request.body or None
        async with self._http.stream(request.method, url, headers=headers, content=body) as answer:
            received = bytearray()
            async for chunk in answer.aiter_bytes():
                received += chunk
                if len(received) >= self._plan.limits.body:
                    break
        found = {name.lower(): value for name, value in answer.headers.items()}
        return Response(
            answer.status_code,
            found,
            bytes(received[: self._plan.limits.body]),
            settled=answer.status_code not in _BUSY,
        )
