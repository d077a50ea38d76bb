"""The credentials of the two tenants that ``tenantry scan`` is given."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenantry.errors import ConfigurationError

if TYPE_CHECKING:
    from tenantry.scan import Credentials

_KEYS = frozenset({"token", "headers", "cookie", "tenant", "base_url", "login"})


def credentials_of(
    name: str,
    given: dict[str, Any],
    token: str | None,
    headers: list[str] | None,
    cookie: str | None,
    tenant: str | None,
) -> Credentials:
    """Return one tenant's credentials: those of the options come before those of the file.

    Raises:
        ConfigurationError: One of them is not as it should be.
    """
    from tenantry.scan import Credentials

    section = given.get(name, {})
    found = dict(section.get("headers", {}))
    token, cookie = token or section.get("token"), cookie or section.get("cookie")
    found |= {"Authorization": f"Bearer {token}"} if token else {}
    found |= {"Cookie": cookie} if cookie else {}
    found |= dict(_header(name, header) for header in headers or ())
    return Credentials(found, tenant or section.get("tenant"), section.get("base_url"), _login(name, section))


def _header(name: str, text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", key):
        raise ConfigurationError(
            f"--header-{name} is no header.", field=f"{name}.headers", fix="Write it as 'Name: value'."
        )
    return key, value.strip()


def _login(name: str, section: dict[str, Any]) -> Any:
    from tenantry.scan import Login

    found = section.get("login")
    if found is None:
        return None
    try:
        return Login(**found)
    except TypeError as error:
        raise ConfigurationError(
            f"[{name}.login] is not as it should be.",
            field=f"{name}.login",
            fix="It has path, data, form and token.",
        ) from error


def from_file(path: Path | None) -> dict[str, Any]:
    """Return what a file of credentials holds, with variables in it replaced.

    Raises:
        ConfigurationError: It cannot be read, or holds what is not known.
    """
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}.",
            field="credentials",
            fix="Give a file in TOML with [a] and [b].",
        ) from error
    unknown = {*(found.keys() - {"a", "b"}), *(key for side in found.values() for key in _unknown(side))}
    if unknown:
        raise ConfigurationError(
            f"{path} holds what is not known: {', '.join(sorted(unknown))}.",
            field="credentials",
            fix=f"[a] and [b] have {', '.join(sorted(_KEYS))}.",
        )
    expanded: dict[str, Any] = _expanded(found)
    return expanded


def _unknown(side: Any) -> set[str]:
    return set(side) - _KEYS if isinstance(side, dict) else {str(side)}


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return re.sub(r"\$\{(\w+)\}", _variable, value) if isinstance(value, str) else value


def _variable(found: re.Match[str]) -> str:
    value = os.environ.get(found[1])
    if not value:
        raise ConfigurationError(
            f"The variable {found[1]} is not set.", field="credentials", fix=f"Set it: export {found[1]}=…"
        )
    return value
