"""Identities from JSON Web Tokens: RFC 7519, with what RFC 8725 asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from tenantry.errors import ConfigurationError
from tenantry.http.identity import Identity
from tenantry.http.keys import ALGORITHMS, KeySource
from tenantry.http.problems import Refusal
from tenantry.http.request import RequestView

logger = logging.getLogger("tenantry.http")

_LONGEST_LEEWAY: Final = 300
_HOSTILE: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


def bearer_token(request: RequestView) -> str | None:
    """Return what stands behind ``Bearer`` in the header ``Authorization``."""
    scheme, _, token = (request.headers.one("Authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class JWTResolver:
    """Reads the identity from a signed token, once its signature, issuer, audience and times are checked.

    The token decides nothing about how it is checked: the algorithms are pinned here, the key is one of ``keys``, and
    a token that points at keys of its own (``jku``, ``x5u``, ``jwk``) is held to ``keys`` like any other.

    Args:
        keys: The keys: :class:`~tenantry.http.keys.StaticKeys` or :class:`~tenantry.http.jwks.JWKS`.
        algorithms: Those that are accepted, such as ``["RS256"]``. Shared secrets (HS…) and key pairs never at once.
        issuer: The claim ``iss``, exactly.
        audience: The claim ``aud`` must hold one of these.
        tenant: The claim that holds the tenant's id, or a list of them.
        user: The claim that holds the user's id.
        leeway: Seconds by which the clocks may differ, at most 300.
        token_type: The header ``typ``, such as ``at+jwt``; by default it may be anything.
        max_bytes: The longest token that is looked at.
        token: Where the token is in a request; by default behind ``Authorization: Bearer``.
        clock: What tells the seconds since 1970.

    Raises:
        ConfigurationError: An algorithm is unknown or ``none``, or an argument is empty.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        algorithms: Sequence[str],
        issuer: str,
        audience: str | Sequence[str],
        tenant: str,
        user: str = "sub",
        leeway: int = 30,
        token_type: str | None = None,
        max_bytes: int = 16_384,
        token: Callable[[RequestView], str | None] = bearer_token,
        clock: Callable[[], float] = time.time,
    ) -> None:
        audiences = [audience] if isinstance(audience, str) else list(audience)
        for field, value in (
            ("issuer", issuer),
            ("audience", all(audiences) and audiences),
            ("tenant", tenant),
        ):
            if not value:
                raise ConfigurationError(f"{field} is empty, so any token would do.", field=field)
        if not 0 <= leeway <= _LONGEST_LEEWAY:
            raise ConfigurationError("leeway is 0 to 300 seconds.", field="leeway")
        self._keys = keys
        self._registry = _Pinned(algorithms=_pinned(algorithms), strict_check_header=False)
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=leeway,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "values": audiences},
            exp={"essential": True},
        )
        self._tenant, self._user = tenant, user
        self._type = None if token_type is None else _media_type(token_type)
        self._max_bytes = max_bytes
        self._token = token

    async def identify(self, request: RequestView) -> Identity | None:
        """Return the identity in the token, or ``None`` if there is no token.

        Raises:
            Refusal: 401, the token is not accepted.
            Unavailable: The keys cannot be had now.
        """
        token = self._token(request)
        if token is None:
            return None
        header = self._header(token)
        return self._identity(token, header, await self._keys.find(header.get("kid")))

    def identify_sync(self, request: RequestView) -> Identity | None:
        """Do the same without an event loop."""
        token = self._token(request)
        if token is None:
            return None
        header = self._header(token)
        return self._identity(token, header, self._keys.find_sync(header.get("kid")))

    def _header(self, token: str) -> dict[str, Any]:
        """Return the header, of which nothing is verified yet."""
        if len(token) > self._max_bytes:
            raise _refused("it is too long")
        try:
            header = jws.extract_compact(token.encode("ascii"), registry=self._registry).headers()
            self._registry.get_alg(header["alg"])
        except _HOSTILE as error:
            raise _refused(error) from None
        if "crit" in header:
            raise _refused("it asks for an extension")
        if not isinstance(header.get("kid"), str | None):
            raise _refused("its kid is no text")
        if self._type is not None and _media_type(header.get("typ")) != self._type:
            raise _refused("it is of another type")
        return header

    def _identity(self, token: str, header: dict[str, Any], keys: Sequence[Key]) -> Identity:
        suitable = [key for key in keys if _fits(key, header["alg"])]
        if not suitable or (len(suitable) > 1 and header.get("kid") is None):
            raise _refused("no key of ours made it")
        claims = self._verified(token, suitable)
        try:
            self._claims.validate(claims)
        except ExpiredTokenError:
            raise _refused("it is expired", code="token-expired", detail="The token has expired.") from None
        except _HOSTILE as error:
            raise _refused(error) from None
        return Identity.from_claims(claims, tenant=self._tenant, user=self._user)

    def _verified(self, token: str, keys: Sequence[Key]) -> dict[str, Any]:
        failure: object = None
        for key in keys:
            try:
                return jwt.decode(token, key, registry=self._registry).claims
            except _HOSTILE as error:
                failure = error
        raise _refused(failure)


class _Pinned(JWSRegistry):
    """Knows the pinned algorithms and no other. The library's own has a default, and warns of some."""

    max_header_length = 8_192  # some providers send their certificates along, which nobody looks at

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError("The algorithm is not accepted here.")
        return self.algorithms[name]


def _pinned(algorithms: Sequence[str]) -> list[str]:
    listed = [] if isinstance(algorithms, str) else list(algorithms)
    unknown = [name for name in listed if name not in ALGORITHMS]
    if not listed or unknown:
        raise ConfigurationError(
            f"{unknown or algorithms!r} is no list of signature algorithms.",
            field="algorithms",
            fix=f"Known: {', '.join(ALGORITHMS)}.",
        )
    secret = [name for name in listed if name.startswith("HS")]
    if secret and len(secret) < len(listed):
        raise ConfigurationError(
            "Algorithms with a shared secret and with key pairs cannot be accepted by one resolver.",
            field="algorithms",
            fix="A public key must never be taken for a secret: choose one kind.",
        )
    return listed


def _fits(key: Key, algorithm: str) -> bool:
    return isinstance(key, ALGORITHMS[algorithm]) and key.alg in (None, algorithm)


def _media_type(value: object) -> str:
    return str(value).lower().removeprefix("application/")


def _refused(
    reason: object, *, code: str = "invalid-token", detail: str = "The token is not accepted."
) -> Refusal:
    logger.info("A token was refused: %s", reason)
    challenge = f'Bearer error="invalid_token", error_description="{detail}"'
    return Refusal(401, code, detail, headers={"WWW-Authenticate": challenge})
