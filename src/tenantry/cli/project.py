"""What the commands work on: the settings and models of the project in the current folder."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tenantry.cli import envfile
from tenantry.config import Settings, load_settings
from tenantry.errors import ConfigurationError
from tenantry.plans import Catalog, Flag, Plan, TenantSettings
from tenantry.schema import KeyedModel, collection_of
from tenantry.sdk import MultiTenantSDK

T = TypeVar("T")

ENV_FILE = Path(".env")
_CONFIG = Path("tenantry.toml")

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        help="Holds variables that the environment does not set; by default .env.",
        metavar="FILE",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings in TOML; by default tenantry.toml.", metavar="FILE"),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        help="A model or a list of models, as package.module:attribute; may be repeated. By default what "
        "pyproject.toml lists as models of tool.tenantry.",
        metavar="NAME",
    ),
]


@dataclass(frozen=True, slots=True)
class Project:
    """The settings that the application itself would have, and its models."""

    settings: Settings
    models: tuple[type[KeyedModel], ...]
    plans: tuple[Plan, ...] = ()
    flags: tuple[Flag, ...] = ()
    tenant_settings: type[TenantSettings] | None = None

    @property
    def catalog(self) -> Catalog:
        """The plans, flags and settings, checked against each other and the models."""
        collections = [item.name for item in map(collection_of, self.models) if item.scope == "tenant"]
        return Catalog(self.plans, self.flags, self.tenant_settings, collections)

    def without_plans(self) -> Project:
        """Return the project as it would be if no plan were declared."""
        return replace(self, plans=(), flags=())

    @property
    def url(self) -> str:
        """The database's URL. It holds a password.

        Raises:
            ConfigurationError: None is set.
        """
        url = self.settings.database.url.get_secret_value()
        if not url:
            raise ConfigurationError(
                "No database is named.",
                field="database.url",
                fix="Run: tenantry init --admin-url postgresql://postgres@HOST/DATABASE; or for SQLite set "
                "TENANTRY_DATABASE_URL=sqlite:///app.db",
            )
        return url

    @property
    def is_postgres(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self.url.partition(":")[0].lower() in ("postgresql", "postgres")

    def run(self, work: Callable[[MultiTenantSDK], Awaitable[T]]) -> T:
        """Run ``work`` with the SDK open."""
        assert self.url

        async def opened() -> T:
            async with MultiTenantSDK(
                self.settings,
                models=self.models,
                plans=self.plans,
                flags=self.flags,
                tenant_settings=self.tenant_settings,
            ) as sdk:
                return await work(sdk)

        return asyncio.run(opened())


def load_project(env_file: Path | None, config: Path | None, models: Sequence[str] | None) -> Project:
    """Read the environment over ``.env`` over ``tenantry.toml``, and import the models.

    Raises:
        ConfigurationError: A file, option or model cannot be read.
    """
    settings = [item for name in _listed("settings") for item in _found(name, "settings", type)]
    return Project(
        read_settings(env_file, config),
        load_models(models),
        tuple(item for name in _listed("plans") for item in _found(name, "plans", Plan)),
        tuple(item for name in _listed("flags") for item in _found(name, "flags", Flag)),
        settings[0] if settings else None,
    )


def read_settings(env_file: Path | None, config: Path | None = None) -> Settings:
    """Read the environment over ``.env`` over ``tenantry.toml``."""
    variables = envfile.read(_existing(env_file, "env_file") or ENV_FILE)
    toml = _existing(config, "config") or (_CONFIG if _CONFIG.exists() else None)
    return load_settings(env={**variables, **os.environ}, toml=toml)


def _existing(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.exists():
        raise ConfigurationError(f"There is no file {path}.", field=option)
    return path


def load_models(names: Sequence[str] | None) -> tuple[type[KeyedModel], ...]:
    """Import models by name; without a name, those that ``pyproject.toml`` lists."""
    found: dict[type[KeyedModel], None] = {}
    for name in named_models(names):
        found.update(dict.fromkeys(_models_in(name)))
    return tuple(found)


def named_models(names: Sequence[str] | None) -> list[str]:
    """Return the names of models that are given; without one, those that ``pyproject.toml`` lists."""
    return list(names or _listed("models"))


def _listed(key: str) -> list[str]:
    path = Path("pyproject.toml")
    if not path.exists():
        return []
    try:
        listed = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("tenantry", {}).get(key, [])
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Cannot read {path}: {error}.", field=key) from error
    names = [listed] if isinstance(listed, str) else listed
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"tool.tenantry.{key} in pyproject.toml must list names.", field=key)
    return names


def _found(name: str, key: str, kind: type[Any]) -> list[Any]:
    """Return what a name of ``pyproject.toml`` stands for."""
    listed = list(_named(name, key))
    for item in listed:
        if not isinstance(item, kind):
            raise ConfigurationError(f"{name} holds {item!r}, which is no {kind.__name__}.", field=key)
    return listed


def _named(name: str, key: str) -> Iterable[Any]:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(
            f"{name!r} names nothing of {key}.", field=key, fix="Write package.module:attribute."
        )
    found: Any = _imported(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{module} has no {attribute}.", field=key)
        found = getattr(found, part)
    return found if isinstance(found, list | tuple | set | frozenset) else [found]


def _models_in(name: str) -> Iterable[type[KeyedModel]]:
    listed = _named(name, "models")
    for item in listed:
        if not (
            isinstance(item, type) and (issubclass(item, KeyedModel) or hasattr(item, "__tenantry_model__"))
        ):
            raise ConfigurationError(
                f"{name} holds {item!r}, which is no model.",
                field="models",
                fix="Name a Model or a list of them.",
            )
    return listed


def _imported(module: str) -> Any:
    if "" not in sys.path and os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module of the user's own may raise anything
        raise ConfigurationError(
            f"Cannot import {module}: {type(error).__name__}: {error}.",
            field="models",
            fix="Run the command in the folder from which the application is imported.",
        ) from error
