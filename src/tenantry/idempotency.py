"""That a request was carried out, kept beside its row in the same transaction."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tenantry import _values
from tenantry.errors import InvalidRecord
from tenantry.internal import internal
from tenantry.schema import Collection, KeyedModel

_MAX_KEY = 200


class IdempotencyKey(KeyedModel, defer_build=True):
    """That a request was carried out, kept beside its row in the same transaction."""

    __collection__ = "tenantry_idempotency"
    __control__ = True  # lifts the ban on the name; the rows belong to tenants

    id: str
    collection: str
    fingerprint: str
    row: str


IDEMPOTENCY = internal(IdempotencyKey, rights=("SELECT", "INSERT"))


def request_key(key: str, verb: str, collection: Collection, request: Any) -> IdempotencyKey:
    """Return the key with the fingerprint of the request that it stands for."""
    try:
        key = _values.text(key)
    except (ValueError, TypeError) as error:
        raise InvalidRecord(str(error), field="idempotency_key") from None
    if not 1 <= len(key) <= _MAX_KEY:
        raise InvalidRecord(f"use text of 1 to {_MAX_KEY} characters.", field="idempotency_key")
    body = msgspec.json.encode([verb, collection.name, request], order="deterministic", enc_hook=str)
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    return IdempotencyKey(id=key, collection=collection.name, fingerprint=digest, row="", version=1)
