"""Who the two tenants' users are to the application."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TENANT_KEY = re.compile(
    r"(?:tenant|org|organi[sz]ation|workspace|account|company)(?:_?(?:id|uuid|slug|name|key))?", re.IGNORECASE
)

_SECRET = 8  # shorter words, such as Bearer, are none


@dataclass(frozen=True, slots=True)
class Login:
    """A request that signs a user in.

    Args:
        path: Where to; a ``POST``.
        data: What to send: a user's name, a password.
        form: Send it as a form rather than as JSON.
        token: Where in the answer a bearer token is, such as ``access_token`` or ``data.token``. Without it, the
            cookies of the answer are taken.
    """

    path: str
    data: Mapping[str, str]
    form: bool = False
    token: str | None = None

    def __repr__(self) -> str:
        return f"Login(path={self.path!r}, data={sorted(self.data)}, form={self.form}, token={self.token!r})"


@dataclass(frozen=True, slots=True)
class Credentials:
    """How one tenant's user is known to the application.

    Args:
        headers: Sent with each request, such as ``{"Authorization": "Bearer …"}`` or ``{"Cookie": "session=…"}``.
        tenant: The tenant's id or slug, as the application spells it. Need not be given where a token or a response
            tells it.
        base_url: Where this tenant's application is, if each has a host of its own; by default the plan's.
        login: How to sign in first; what that gives is added to the headers.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None
    base_url: str | None = None

    login: Login | None = None

    def __repr__(self) -> str:
        return (
            f"Credentials(headers={sorted(self.headers)}, tenant={self.tenant!r}, base_url={self.base_url!r})"
        )

    @property
    def secrets(self) -> frozenset[str]:
        """The values that must never be shown."""
        words = {word for value in self.headers.values() for word in re.split(r"[\s;,=]+", value)}
        sent = self.login.data.values() if self.login else ()
        return frozenset({*self.headers.values(), *sent, *(word for word in words if len(word) >= _SECRET)})

    def tenants(self) -> frozenset[str]:
        """Return the names of the tenant that are given, and those that a bearer token (JWT) claims."""
        claimed = {str(value) for key, value in self._claims().items() if TENANT_KEY.fullmatch(key) and value}
        return frozenset(claimed | ({self.tenant} if self.tenant else set()))

    def _claims(self) -> dict[str, Any]:
        token = next((value for name, value in self.headers.items() if name.lower() == "authorization"), "")
        payload = token.split(".")[1] if token.count(".") == 2 else ""
        try:
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (ValueError, binascii.Error):
            return {}
        return claims if isinstance(claims, dict) else {}
