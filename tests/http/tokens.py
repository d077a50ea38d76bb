"""An identity provider: keys, and tokens that are right or wrong in one way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tenantry.http import JWTResolver, RequestView, StaticKeys
from tenantry.http.keys import KeySource
from tenantry.http.request import Headers

NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://id.example.com/", "shop-api"
SECRET = b"a secret of the provider, 32 bytes or more"


@cache
def key(kind: str, kid: str | None) -> Key:
    """Return a private key; the same for the same arguments."""
    parameters: Any = {} if kid is None else {"kid": kid}
    if kind == "RSA":
        return RSAKey.generate_key(2048, parameters)
    if kind == "oct":
        return OctKey.import_key(SECRET, parameters)
    if kind == "Ed25519":
        return OKPKey.generate_key("Ed25519", parameters)
    return ECKey.generate_key(kind, parameters)


def public(*keys: Key) -> dict[str, Any]:
    """Return the JWK set that publishes the keys."""
    return {"keys": [item.as_dict(private=item.key_type == "oct") for item in keys]}


EC = key("P-256", "ec-1")
RSA = key("RSA", "rsa-1")


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, with changes; a claim that is ``...`` is left out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "org": "acme", "iat": NOW - 10, "exp": NOW + 300}
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def token(signer: Key = EC, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token that is rightly signed."""
    kinds = {"RSA": "RS256", "oct": "HS256", "OKP": "Ed25519", "EC": "ES256"}
    protected: dict[str, Any] = {"alg": kinds[signer.key_type], **({"kid": signer.kid} if signer.kid else {})}
    protected = {name: value for name, value in {**protected, **(header or {})}.items() if value is not ...}
    registry = jws.JWSRegistry(algorithms=[protected["alg"]], strict_check_header=False)
    return jws.serialize_compact(protected, json.dumps(claims(**changes)), signer, registry=registry)


def b64(data: bytes | str | dict[str, Any]) -> str:
    """Return data as a part of a token."""
    raw = json.dumps(data) if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def forged(
    header: dict[str, Any] | str, payload: dict[str, Any] | str | None = None, secret: bytes | None = None
) -> str:
    """Return a token made by hand: unsigned, or with an HMAC by ``secret``."""
    signed = f"{b64(header)}.{b64(claims() if payload is None else payload)}"
    mac = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{b64(mac)}"


def bearing(text: str) -> RequestView:
    """Return a request that carries a token."""
    return RequestView("GET", "https", "/", headers=Headers([("Authorization", f"Bearer {text}")]))


def resolver(keys: KeySource | None = None, **changes: Any) -> JWTResolver:
    """Return a resolver for the provider's tokens."""
    options: dict[str, Any] = {
        "algorithms": ["ES256", "RS256"],
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "tenant": "org",
        "clock": lambda: NOW,
        **changes,
    }
    return JWTResolver(keys or StaticKeys(public(EC, RSA)), **options)
