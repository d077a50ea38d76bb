"""Keys that an identity provider publishes, and changes when it likes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import httpx
import msgspec
from joserfc.jwk import Key

from tenantry.errors import ConfigurationError, Unavailable
from tenantry.http.keys import of_kid, published_keys

logger = logging.getLogger("tenantry.http")

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_BYTES: Final = 256 * 1024
_PLAIN: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}  # so that its length is known


class JWKS:
    """The keys at a URL, fetched when the first token needs one.

    A key id that nobody has seen yet causes one fetch that all requests share, and no other for ``cooldown``
    seconds. A key that was seen is believed for ``max_age`` seconds from the last document that had it, so that
    tokens of a retired key run out and an endpoint that is away stops nobody at once. After that, and as long as no
    document can be had, requests are answered with 503.

    Args:
        url: Where the JWK set is. ``https``, unless it is on this machine.
        refresh: Seconds after which the document is fetched again, beside the requests.
        max_age: Seconds for which a key is believed that no newer document holds.
        cooldown: Seconds between two fetches.
        timeout: Seconds that one fetch may take in all.
        clock: What tells the seconds.

    Raises:
        ConfigurationError: The URL is not ``https``, or the numbers contradict each other.
    """

    def __init__(
        self,
        url: str,
        *,
        refresh: float = 300.0,
        max_age: float = 3600.0,
        cooldown: float = 10.0,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not _is_safe(url):
            raise ConfigurationError(f"{url!r} is not an address with https.", field="url")
        if timeout <= 0 or not 0 < cooldown <= refresh <= max_age:
            raise ConfigurationError("0 < cooldown <= refresh <= max_age does not hold.", field="max_age")
        self._url = url
        self._refresh, self._max_age, self._cooldown, self._timeout = refresh, max_age, cooldown, timeout
        self._clock = clock
        # thumbprint and id -> the key, and when a document last had it; replaced as a whole, never changed
        self._seen: Mapping[tuple[str, str | None], tuple[Key, float]] = MappingProxyType({})
        self._tried = self._fetched = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()

    async def find(self, kid: str | None) -> Sequence[Key]:
        """Return the keys of this id, or all of them, fetching the document if that may help.

        Raises:
            Unavailable: The key is not known, and no document can be had.
        """
        found = self._believed(kid)
        if not found and (self._may_fetch() or self._is_running()):
            await asyncio.shield(self._fetch())
        elif self._is_stale() and self._may_fetch():
            _ = self._fetch()  # nobody waits for it
        return found or self._found(kid)

    def find_sync(self, kid: str | None) -> Sequence[Key]:
        """Do the same without an event loop; threads that wait share one fetch."""
        found = self._believed(kid)
        if not found:
            with self._lock:  # whoever had it may have brought the key
                found = self._believed(kid)
                if not found and self._may_fetch():
                    self._get_sync()
        elif self._is_stale() and self._lock.acquire(blocking=False):
            try:
                if self._may_fetch():
                    self._get_sync()
            finally:
                self._lock.release()
        return found or self._found(kid)

    def _believed(self, kid: str | None) -> tuple[Key, ...]:
        oldest = self._clock() - self._max_age
        return of_kid([key for key, seen in self._seen.values() if seen > oldest], kid)

    def _found(self, kid: str | None) -> tuple[Key, ...]:
        found = self._believed(kid)
        if not found and self._fetched < self._tried:
            raise Unavailable(
                "The keys of the identity provider cannot be read.", fix=f"Look at {self._url}."
            )
        return found

    def _may_fetch(self) -> bool:
        return self._clock() - self._tried >= self._cooldown

    def _is_stale(self) -> bool:
        return self._clock() - self._fetched >= self._refresh

    def _is_running(self) -> bool:
        return (
            self._task is not None
            and not self._task.done()
            and self._task.get_loop() is asyncio.get_running_loop()
        )

    def _fetch(self) -> asyncio.Task[None]:
        """Return the fetch under way, or start one. Everybody who waits shares it."""
        if self._task is None or not self._is_running():
            self._tried = self._clock()
            # In a context of its own: it is no request's.
            self._task = asyncio.get_running_loop().create_task(self._get(), context=contextvars.Context())
        return self._task

    async def _get(self) -> None:
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx.AsyncClient(timeout=self._timeout) as client,
                client.stream("GET", self._url, headers=_PLAIN) as response,
            ):
                body = _Body(response)
                async for part in response.aiter_raw():
                    body.add(part)
            self._accept(body)
        except (httpx.HTTPError, TimeoutError, _Unusable) as error:
            self._fail(error)

    def _get_sync(self) -> None:
        self._tried = self._clock()
        ends = time.monotonic() + self._timeout
        try:
            with (
                httpx.Client(timeout=self._timeout) as client,
                client.stream("GET", self._url, headers=_PLAIN) as response,
            ):
                body = _Body(response)
                for part in response.iter_raw():
                    body.add(part)
                    if time.monotonic() > ends:
                        raise _Unusable("it took too long")
            self._accept(body)
        except (httpx.HTTPError, _Unusable) as error:
            self._fail(error)

    def _accept(self, body: _Body) -> None:
        keys = body.keys()
        now = self._clock()
        kept = {name: held for name, held in self._seen.items() if held[1] > now - self._max_age}
        self._seen = MappingProxyType(kept | {(key.thumbprint(), key.kid): (key, now) for key in keys})
        self._fetched = self._tried = now

    def _fail(self, error: Exception) -> None:
        logger.warning("The keys at %s were not read: %s", self._url, str(error) or type(error).__name__)

    def __repr__(self) -> str:
        return f"JWKS({self._url!r})"


def _is_safe(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False
    return bool(parsed.host) and (
        parsed.scheme == "https" or (parsed.scheme == "http" and parsed.host in _LOCAL)
    )


class _Unusable(Exception):
    """The answer is no JWK set."""


class _Body:
    def __init__(self, response: httpx.Response) -> None:
        if response.status_code != httpx.codes.OK:
            raise _Unusable(f"the answer was {response.status_code}")
        self._content = bytearray()

    def add(self, part: bytes) -> None:
        self._content += part
        if len(self._content) > _MAX_BYTES:
            raise _Unusable(f"the answer is longer than {_MAX_BYTES} bytes")

    def keys(self) -> list[Key]:
        try:
            decoded = msgspec.json.decode(self._content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _Unusable("the answer is no JSON") from error
        keys = published_keys(decoded.get("keys") if isinstance(decoded, dict) else None)
        if not keys:
            raise _Unusable("the answer holds no key that checks signatures")
        return keys
