"""The public keys that tokens are checked with."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tenantry.errors import ConfigurationError

# algorithm -> type of key: a key of any other type never checks it, whatever the token says
ALGORITHMS: Final[Mapping[str, type[Key]]] = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), OctKey),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSAKey),
    **dict.fromkeys(("ES256", "ES384", "ES512"), ECKey),
    "Ed25519": OKPKey,
    "EdDSA": OKPKey,
}
_KINDS: Final[Mapping[str, type[Key]]] = {kind.key_type: kind for kind in (OctKey, RSAKey, ECKey, OKPKey)}
_SHORTEST_RSA_BITS: Final = 2048
_SHORTEST_SECRET_BYTES: Final = 32


class KeySource(Protocol):
    """Where a resolver has its keys from."""

    async def find(self, kid: str | None) -> Sequence[Key]:
        """Return the keys of this id, or all of them; none if there is no such key.

        Raises:
            Unavailable: It cannot be told now.
        """

    def find_sync(self, kid: str | None) -> Sequence[Key]:
        """Do the same without an event loop."""


class StaticKeys:
    """Keys that the application has.

    Args:
        jwks: A JWK set, ``{"keys": [{"kty": "RSA", "kid": "2026-01", …}]}``, or the list in it.

    Raises:
        ConfigurationError: A key cannot be used: it is of an unknown type, for encryption only, or too short.
    """

    def __init__(self, jwks: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        listed = jwks.get("keys", ()) if isinstance(jwks, Mapping) else jwks
        self._keys = tuple(_checked(entry) for entry in listed)
        if not self._keys:
            raise ConfigurationError("There is no key.", field="keys")

    @classmethod
    def from_secret(cls, secret: bytes, *, kid: str | None = None) -> StaticKeys:
        """Return the key of the algorithms HS256, HS384 and HS512: at least 32 random bytes.

        Who can check such a token can also make one.
        """
        encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        return cls([_named({"kty": OctKey.key_type, "k": encoded}, kid)])

    @classmethod
    def from_pem(cls, pem: str | bytes, *, kid: str | None = None) -> StaticKeys:
        """Return the public key, RSA, EC or Ed25519, in a PEM file."""
        for kind in (RSAKey, ECKey, OKPKey):
            try:
                entry = kind.import_key(pem).as_dict(private=False)
            except (JoseError, ValueError, TypeError):
                continue
            return cls([_named(entry, kid)])
        raise ConfigurationError("This is no public key in PEM.", field="keys")

    async def find(self, kid: str | None) -> Sequence[Key]:
        """Return the keys of this id, or all of them."""
        return of_kid(self._keys, kid)

    def find_sync(self, kid: str | None) -> Sequence[Key]:
        """Return the keys of this id, or all of them."""
        return of_kid(self._keys, kid)

    def __repr__(self) -> str:
        return f"StaticKeys({len(self._keys)})"


def of_kid(keys: Iterable[Key], kid: str | None) -> tuple[Key, ...]:
    """Return those of ``keys`` that a token with this ``kid`` can mean. A key without an id can be meant by any."""
    return tuple(key for key in keys if kid is None or key.kid in (kid, None))


def published_keys(entries: object) -> list[Key]:
    """Return the keys of a published JWK set that can check a signature; the others are passed over.

    A shared secret is none of them: what is published is no secret.
    """
    listed = entries if isinstance(entries, list) else []
    found = []
    for entry in listed:
        if isinstance(entry, dict) and entry.get("kty") != OctKey.key_type:
            try:
                found.append(_checked(entry))
            except ConfigurationError:
                continue
    return found


def _named(entry: Mapping[str, Any], kid: str | None) -> dict[str, Any]:
    return dict(entry) if kid is None else {**entry, "kid": kid}


def _checked(entry: Mapping[str, Any]) -> Key:
    kind = _KINDS.get(str(entry.get("kty")))
    if kind is None:
        raise ConfigurationError(f"There are no keys of type {entry.get('kty')!r}.", field="keys")
    try:
        key = kind.import_key(dict(entry))
        key.check_use("sig")
        key.check_key_op("verify")
        _check_strength(key)
    except (JoseError, SecurityWarning, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigurationError(
            f"The key {entry.get('kid')!r} cannot check a signature.", field="keys", fix=f"{error}"
        ) from error
    return key


def _check_strength(key: Key) -> None:
    if isinstance(key, RSAKey) and key.public_key.key_size < _SHORTEST_RSA_BITS:
        raise ValueError(f"An RSA key has at least {_SHORTEST_RSA_BITS} bits.")
    if isinstance(key, OctKey) and len(key.raw_value) < _SHORTEST_SECRET_BYTES:
        raise ValueError(f"A secret has at least {_SHORTEST_SECRET_BYTES} bytes.")
    if isinstance(key, OKPKey) and key.curve_name != "Ed25519":
        raise ValueError(f"{key.curve_name} is not used for signatures here.")
