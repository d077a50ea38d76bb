"""What the commands work on: the settings and models of the project in the current folder."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tenantry.cli import envfile
from tenantry.config import Settings, load_settings
from tenantry.errors import ConfigurationError
from tenantry.schema import KeyedModel
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
            async with MultiTenantSDK(self.settings, models=self.models) as sdk:
                return await work(sdk)

        return asyncio.run(opened())


def load_project(env_file: Path | None, config: Path | None, models: Sequence[str] | None) -> Project:
    """Read the environment over ``.env`` over ``tenantry.toml``, and import the models.

    Raises:
        ConfigurationError: A file, option or model cannot be read.
    """
    return Project(read_settings(env_file, config), load_models(models))


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
    return list(names or _listed())


def _listed() -> list[str]:
    path = Path("pyproject.toml")
    if not path.exists():
        return []
    try:
        listed = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("tenantry", {}).get("models", [])
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Cannot read {path}: {error}.", field="models") from error
    names = [listed] if isinstance(listed, str) else listed
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError("tool.tenantry.models in pyproject.toml must list names.", field="models")
    return names


def _models_in(name: str) -> Iterable[type[KeyedModel]]:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(
            f"{name!r} names no model.", field="models", fix="Write --models package.module:attribute."
        )
    found: Any = _imported(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{module} has no {attribute}.", field="models")
        found = getattr(found, part)
    listed = found if isinstance(found, list | tuple | set | frozenset) else [found]
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
