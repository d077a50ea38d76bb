"""Cursors: the place where a page ended, signed for one tenant."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec

from tenantry.context import Context
from tenantry.errors import InvalidQuery
from tenantry.query import Query, Sort

_MAC_SIZE = 16
_MAX_SIZE = 2_000_000
_PURPOSE = b"tenantry cursor v1"


class CursorSigner:
    """Makes and checks cursors. One made for another tenant, user query or order is refused like a forged one.

    The MAC is HMAC-SHA256 (RFC 2104), cut to 128 bits, over the tenant, what was asked and the position.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, hashlib.sha256)

    def sign(self, context: Context, query: Query, order: Sequence[Sort], row: dict[str, Any]) -> str:
        """Return the cursor for what follows ``row``.

        Raises:
            InvalidQuery: The values to sort by are too long for one.
        """
        values = [row[sort.field.name] for sort in order]
        payload = msgspec.json.encode(values)
        mac = self._mac(context, query, order, payload)
        cursor = base64.urlsafe_b64encode(mac + payload).rstrip(b"=").decode()
        if len(cursor) > _MAX_SIZE:
            raise InvalidQuery(
                "there are more rows, and their values are too long for a cursor.", path="order_by"
            )
        return cursor

    def open(self, context: Context, query: Query, order: Sequence[Sort], cursor: object) -> list[Any]:
        """Return the values of the sort keys that ``cursor`` holds.

        Raises:
            InvalidQuery: It was not made by :meth:`sign` for the same tenant and the same question.
        """
        try:
            if not isinstance(cursor, str) or len(cursor) > _MAX_SIZE:
                raise ValueError
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            mac, payload = raw[:_MAC_SIZE], raw[_MAC_SIZE:]
            if not hmac.compare_digest(mac, self._mac(context, query, order, payload)):
                raise ValueError
        except (ValueError, binascii.Error):
            raise InvalidQuery(
                "this cursor is not one of this query's.",
                path="cursor",
                fix="Pass the next_cursor of a page of the same collection, order and tenant.",
            ) from None
        values = msgspec.json.decode(payload)
        pairs = zip(order, values, strict=True)
        return [None if value is None else sort.field.from_json(value) for sort, value in pairs]

    def _mac(self, context: Context, query: Query, order: Sequence[Sort], payload: bytes) -> bytes:
        asked = [
            context.tenant_id,
            query.collection.name,
            [[sort.field.name, sort.descending] for sort in order],
            query.distinct,
        ]
        message = msgspec.json.encode(asked) + b"\0" + payload
        return hmac.digest(self._key, message, hashlib.sha256)[:_MAC_SIZE]
