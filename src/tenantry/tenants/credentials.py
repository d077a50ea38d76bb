"""Secrets that the SDK hands out once and of which it keeps a digest: API keys, and the tokens of invitations.

``tnt_<id>.<secret>``. The id ends with a MAC, so that an invented one is refused without a look into the database. The
secret ends with a checksum that needs no key, by which scanners for leaked secrets tell a real one from a look-alike,
and a mistyped one is refused at once. What is kept is SHA-256 of the whole: the secret has 256 random bits, so nothing
is gained by a slow function, which is for passwords that people choose; it would only let whoever sends many keys keep
the processor busy.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import Final, Literal

from tenantry.errors import CredentialRejected
from tenantry.ports import DatabaseAdapter
from tenantry.tenants.directory import shared_secret

Prefix = Literal["tnt", "tni"]
_KINDS: Final = {"tnt": "API key", "tni": "invitation"}
_TEXT: Final = re.compile(
    r"(tnt|tni)_([0-9a-f]{20})([0-9a-f]{12})\.([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII
)
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NOBODY: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that was just made.

    Attributes:
        id: Names it; no secret.
        digest: What is kept.
        text: What is handed out, once.
    """

    id: str
    digest: bytes = field(repr=False)
    text: str = field(repr=False)


class Mint:
    """Makes secrets, and tells those that it has made from others, as far as that goes without the database."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, prefix: Prefix) -> Secret:
        """Return a new secret."""
        name = secrets.token_hex(10)
        body = _base62(int.from_bytes(secrets.token_bytes(32), "big"), 43)
        start = f"{prefix}_{name}{self._mac(prefix, name)}.{body}"
        text = start + _checksum(start)
        return Secret(start.partition(".")[0], digest_of(text), text)

    def id_of(self, text: object, prefix: Prefix) -> str:
        """Return the id in a text that somebody sent.

        Raises:
            CredentialRejected: It is mistyped, or none of ours.
        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None or found[1] != prefix or _checksum(found[0][:-6]) != found[5]:
            raise rejected(prefix, "malformed")
        if not hmac.compare_digest(self._mac(found[1], found[2]), found[3]):
            raise rejected(prefix, "unknown")
        return found[0].partition(".")[0]

    def _mac(self, prefix: str, name: str) -> str:
        return hmac.digest(self._key, f"{prefix}_{name}".encode(), "sha256").hex()[:12]


async def mint_of(database: DatabaseAdapter) -> Mint:
    """Return the mint of a database. All processes on it share its key."""
    return Mint(await shared_secret(database, "credentials"))


def digest_of(text: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(text.encode()).digest()


def matches(text: str, digest: bytes | None) -> bool:
    """Whether a text is the secret with this digest; one comparison in constant time, whether there is one or not."""
    same = hmac.compare_digest(digest_of(text), digest or _NOBODY)
    return same and digest is not None


def rejected(prefix: str, reason: str) -> CredentialRejected:
    """Return the error for a secret that is not accepted."""
    return CredentialRejected(f"The {_KINDS[prefix]} is not accepted: {reason}.", reason=reason)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), 6)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
