"""Which adapter serves which URL scheme. Strings only, so that no driver is imported before it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from tenantry.errors import ConfigurationError, MissingExtra
from tenantry.ports import DatabaseAdapter

ADAPTERS: dict[str, str] = {
    "memory": "tenantry.databases.memory:MemoryAdapter",
    "sqlite": "tenantry.databases.sqlite.adapter:SQLiteAdapter",
    "postgresql": "tenantry.databases.postgres.adapter:PostgresAdapter",
    "postgres": "tenantry.databases.postgres.adapter:PostgresAdapter",
}

_UNBUILT = frozenset({"mysql", "mariadb", "mongodb", "mongodb+srv", "supabase"})

# package imported by the adapter -> extra that brings it
_EXTRAS = {"asyncpg": "postgres", "sqlalchemy": "sql"}


def adapter_for(url: str) -> Callable[..., DatabaseAdapter]:
    """Return the adapter class for ``url``.

    Raises:
        ConfigurationError: No adapter serves its scheme.
        MissingExtra: The driver is not installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in _UNBUILT:
        raise ConfigurationError(
            f"{scheme}:// belongs to a part of tenantry that is not built yet.", field="database.url"
        )
    target = ADAPTERS.get(scheme)
    if target is None:
        raise ConfigurationError(
            f"No database is served under {scheme!r}.",
            field="database.url",
            fix=f"Use one of: {', '.join(f'{name}://' for name in ADAPTERS)}.",
        )
    module, _, name = target.partition(":")
    try:
        loaded: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in _EXTRAS:
            raise MissingExtra(error.name, _EXTRAS[error.name]) from error
        raise
    return cast("Callable[..., DatabaseAdapter]", getattr(loaded, name))
