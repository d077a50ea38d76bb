"""Configuration: frozen sections, from arguments, the environment and TOML, in this order of precedence.

An option is known, or it is refused by name. An option of a part that is not built yet is known to be that, and is
refused too; nothing is stored and then ignored.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, SecretStr

from tenantry.errors import ConfigurationError

ENV_PREFIX = "TENANTRY_"

_OF_THE_COMMAND_LINE = frozenset({"TENANTRY_ADMIN_URL"})

# Sections of the specification whose parts are not built yet, and options of built sections that wait for one.
_UNBUILT_SECTIONS = ("cache", "analytics", "multi_region", "graphql", "security")
_UNBUILT_OPTIONS: Mapping[str, frozenset[str]] = {
    "database": frozenset({"shards", "databases"}),
    "performance": frozenset({"use_cache"}),
}


class Section(BaseModel):
    """A frozen group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class DatabaseConfig(Section):
    """Where the data is.

    Attributes:
        url: ``memory://``, ``sqlite:///file.db`` or ``postgresql://app:…@host/name``.
        control_url: PostgreSQL: the role that reads the tenant directory and does system work.
        raw_url: PostgreSQL: the role that ``data.sql(…)`` runs as.
        owner_url: PostgreSQL: the role that owns the tables; used by ``schema="create"`` only.
        seal_key: PostgreSQL: ``kid:base64``, as made by ``tenantry init``; several, newest first, separated by commas.
        schema_mode: ``check`` compares the tables with the models at start; ``create`` makes those that are missing.
        pool_size: PostgreSQL: the most connections to keep.
        replicas: PostgreSQL: hot standbys that may answer reads, as URLs of the same role; in the environment separated
            by commas.
        max_replica_lag: PostgreSQL: seconds that a replica may be behind to answer at all.
        timeout: Seconds after which a statement fails.
        max_connections_per_tenant: PostgreSQL: the most connections that one tenant holds at a time.
        acquire_timeout: PostgreSQL: seconds to wait for a free connection.
        retry_attempts: How often something that is safe to run again is run at most; 1 never runs it again.
        connect_timeout: PostgreSQL: seconds to wait for a new connection.
        readers: SQLite: number of reader threads.
        durability: SQLite: ``normal`` survives a killed process, ``full`` a power loss too.
    """

    url: SecretStr = SecretStr("")
    control_url: SecretStr | None = None
    raw_url: SecretStr | None = None
    owner_url: SecretStr | None = None
    seal_key: SecretStr | None = None
    schema_mode: Literal["check", "create"] = "check"
    pool_size: int = pydantic.Field(default=10, ge=1, le=1000)
    replicas: tuple[SecretStr, ...] = ()
    max_replica_lag: float = pydantic.Field(default=1.0, gt=0, le=60)
    timeout: float = pydantic.Field(default=30.0, gt=0, le=3600)
    max_connections_per_tenant: int | None = pydantic.Field(default=None, ge=1, le=1000)
    acquire_timeout: float = pydantic.Field(default=10.0, gt=0, le=3600)
    connect_timeout: float = pydantic.Field(default=10.0, gt=0, le=600)
    retry_attempts: int = pydantic.Field(default=3, ge=1, le=10)
    readers: int = pydantic.Field(default=3, ge=1, le=64)
    durability: Literal["normal", "full"] = "normal"

    @pydantic.field_validator("replicas", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class PerformanceConfig(Section):
    """How operations run.

    Attributes:
        coalesce: Whether look-ups by key of one tenant that arrive together become one statement.
        lease_seconds: How long a process may act on what it last read of the tenant directory, at most 1 second.
        max_known_tenants: How many tenants' status a process remembers.
        query_insights: Whether operations are counted by shape, and slow ones explained.
        slow_query_seconds: From how many seconds on a query is slow.
        insights_interval: Seconds between two writes of the counts; in each, at most one slow query is explained.
        batch_size: How many items of a bulk call are one transaction, unless the call says otherwise.
    """

    coalesce: bool = True
    lease_seconds: float = pydantic.Field(default=0.9, gt=0, le=1.0)
    max_known_tenants: int = pydantic.Field(default=100_000, ge=1)
    query_insights: bool = True
    slow_query_seconds: float = pydantic.Field(default=0.1, gt=0)
    insights_interval: float = pydantic.Field(default=30.0, gt=0)
    batch_size: int = pydantic.Field(default=1_000, ge=1, le=100_000)


class JobsConfig(Section):
    """How jobs carry their tenant.

    Attributes:
        key: ``kid:base64``; several, newest first, separated by commas. By default a secret kept in the database.
        ttl: Seconds after which a job that still waits is refused, counted from when it was first enqueued.
    """

    key: SecretStr | None = None
    ttl: float | None = pydantic.Field(default=None, gt=0)


class Settings(Section):
    """All sections."""

    database: DatabaseConfig = DatabaseConfig()
    performance: PerformanceConfig = PerformanceConfig()
    jobs: JobsConfig = JobsConfig()


def load_settings(
    sections: Mapping[str, Any] | None = None,
    *,
    toml: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings: ``sections`` over the environment over the TOML file.

    Args:
        sections: For each section, its options.
        toml: A file with one table for each section.
        env: The environment; ``TENANTRY_DATABASE_URL`` is the option ``url`` of the section ``database``.

    Raises:
        ConfigurationError: An option is unknown, not built yet, or has a wrong value; ``field`` names it.
    """
    merged: dict[str, dict[str, Any]] = {}
    for source in (_from_toml(toml), _from_env(os.environ if env is None else env), sections or {}):
        for name, options in source.items():
            _check(name, options)
            merged.setdefault(name, {}).update(
                {key: value for key, value in dict(options).items() if value is not None}
            )
    try:
        return Settings.model_validate(merged)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{name}: {first['msg']}.", field=name) from None


def _check(section: str, options: object) -> None:
    if section in _UNBUILT_SECTIONS:
        raise ConfigurationError(
            f"The section {section!r} belongs to a part of tenantry that is not built yet.",
            field=section,
            fix="Remove it; nothing of it would take effect.",
        )
    known = Settings.model_fields.get(section)
    if known is None:
        raise ConfigurationError(
            f"There is no section {section!r}.",
            field=section,
            fix=f"Known: {', '.join(Settings.model_fields)}.",
        )
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"The section {section!r} must be a mapping.", field=section)
    model: Any = known.annotation
    for option in options:
        if option in model.model_fields:
            continue
        planned = option in _UNBUILT_OPTIONS.get(section, ())
        message = "belongs to a part of tenantry that is not built yet" if planned else "is not an option"
        raise ConfigurationError(
            f"{section}.{option} {message}.",
            field=f"{section}.{option}",
            fix=f"Known: {', '.join(model.model_fields)}.",
        )


def _from_toml(path: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Cannot read {os.fspath(path)}: {error}.", field="toml") from error


def _from_env(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    sections = (*Settings.model_fields, *_UNBUILT_SECTIONS)
    for variable, value in env.items():
        if not variable.startswith(ENV_PREFIX) or variable in _OF_THE_COMMAND_LINE:
            continue
        option = variable.removeprefix(ENV_PREFIX).lower()
        section = next((name for name in sections if option.startswith(f"{name}_")), None)
        if section is None:
            raise ConfigurationError(
                f"The environment sets {variable}, which is no option.",
                field=variable,
                fix=f"They are named {ENV_PREFIX}<SECTION>_<OPTION>, such as {ENV_PREFIX}DATABASE_URL.",
            )
        found.setdefault(section, {})[option.removeprefix(f"{section}_")] = value
    return found
