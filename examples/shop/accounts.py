"""Who may sign in, and the tokens they get for it. A stand-in for an identity provider, small and yet no toy."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import BaseModel

from tenantry.http import JWTResolver, StaticKeys

ISSUER, AUDIENCE, CLAIM = "https://shop.example/", "shop", "tenants"
SECONDS = 900


class Credentials(BaseModel):
    """What somebody sends to sign in."""

    user: str
    password: str


@dataclass(frozen=True, repr=False)
class _Account:
    salt: bytes
    digest: bytes
    tenants: tuple[str, ...]


class Accounts:
    """Accounts in memory. The key that signs is made at the start, so that a restart signs everybody out."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"})
        self._accounts: dict[str, _Account] = {}
        self._nobody = _account(secrets.token_urlsafe(), ())

    def add(self, user: str, password: str, tenants: Collection[str]) -> None:
        """Let somebody sign in, as one who belongs to these tenants."""
        self._accounts[user] = _account(password, tenants)

    def sign_in(self, credentials: Credentials) -> str | None:
        """Return a token, or ``None``. It computes for a while: call it in a thread."""
        account = self._accounts.get(credentials.user, self._nobody)
        if not hmac.compare_digest(account.digest, _digest(credentials.password, account.salt)):
            return None
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + SECONDS}
        claims |= {"sub": credentials.user, CLAIM: list(account.tenants)}
        return jwt.encode({"alg": "ES256", "kid": self._key.kid}, claims, self._key)

    def resolver(self) -> JWTResolver:
        """Return what reads these tokens. With a provider of its own it would have ``JWKS(url)`` for its keys."""
        keys = StaticKeys([self._key.as_dict(private=False)])
        return JWTResolver(keys, algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE, tenant=CLAIM)


def _account(password: str, tenants: Collection[str]) -> _Account:
    salt = secrets.token_bytes(16)
    return _Account(salt, _digest(password, salt), tuple(tenants))


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
