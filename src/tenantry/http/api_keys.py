"""Identities from API keys: ``kid.secret``, of which only a digest is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from tenantry.errors import ConfigurationError
from tenantry.http.identity import Identity, at_once, awaited
from tenantry.http.problems import Refusal
from tenantry.http.request import RequestView, header_name

_PREFIX: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}", re.ASCII)
_KEY: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{32,128})", re.ASCII)
_SECRET_BYTES: Final = 32
_NOBODY: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made.

    Attributes:
        id: Names the key; no secret.
        digest: SHA-256 of the text; this is what is kept.
        text: What the client sends. It is shown once, and kept nowhere.
    """

    id: str
    digest: bytes
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept.

    Attributes:
        digest: SHA-256 of the key's text, 32 bytes.
        identity: Who has it.
    """

    digest: bytes
    identity: Identity

    def __post_init__(self) -> None:
        if len(self.digest) != len(_NOBODY):
            raise ConfigurationError("A digest is 32 bytes of SHA-256.", field="digest")


LookUp = Callable[[str], StoredKey | Awaitable[StoredKey | None] | None]
"""Returns the key of an id, or ``None``; where expired and revoked keys are left out, nobody gets in with one."""


def new_key(prefix: str = "tk") -> NewKey:
    """Return a new key, ``tk_<id>.<secret>``, with 256 random bits.

    Args:
        prefix: Tells people, and scanners for leaked secrets, whose key it is: 1 to 16 letters and digits.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"{prefix!r} cannot begin a key.", field="prefix", fix="Use letters and digits."
        )
    id = f"{prefix}_{secrets.token_hex(8)}"
    text = f"{id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewKey(id, digest_of(text), text)


def digest_of(text: str) -> bytes:
    """Return SHA-256 of a key's text. It needs no salt and no stretching: the secret in it is random."""
    return hashlib.sha256(text.encode()).digest()


class APIKeyResolver:
    """Reads the identity from an API key.

    Args:
        look_up: Returns the stored key of an id. Under WSGI it must not be ``async``.
        header: The header that holds the key.
    """

    def __init__(self, look_up: LookUp, *, header: str = "X-API-Key") -> None:
        self._look_up = look_up
        self._header = header_name(header)

    async def identify(self, request: RequestView) -> Identity | None:
        """Return the identity of the key, or ``None`` if there is no key.

        Raises:
            Refusal: 401, there is no such key.
        """
        text = request.headers.one(self._header)
        return None if text is None else _identity(text, await awaited(self._look_up(_id(text))))

    def identify_sync(self, request: RequestView) -> Identity | None:
        """Do the same without an event loop."""
        text = request.headers.one(self._header)
        return None if text is None else _identity(text, at_once(self._look_up(_id(text)), "look_up"))


def _id(text: str) -> str:
    found = _KEY.fullmatch(text)
    if found is None:
        raise refused()
    return found[1]


def _identity(text: str, stored: StoredKey | None) -> Identity:
    # One comparison in constant time, whether the id exists or not.
    same = hmac.compare_digest(digest_of(text), _NOBODY if stored is None else bytes(stored.digest))
    if stored is None or not same:
        raise refused()
    return stored.identity


def refused() -> Refusal:
    """Return the one answer to a key that is not accepted, whatever is wrong with it."""
    detail = "The API key is not accepted."
    return Refusal(401, "invalid-api-key", detail, headers={"WWW-Authenticate": "ApiKey"})
