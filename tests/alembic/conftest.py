"""A project in a folder of its own: an Alembic environment, models that a test changes, and a prepared database."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from tenantry import KeyedModel, MultiTenantSDK
from tenantry.alembic.guard import ALLOW
from tenantry.alembic.roles import SETTINGS
from tenantry.config import Settings, load_settings
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

ENV = """
from alembic import context

import tenantry.alembic

project = context.config.attributes["project"]
tenantry.alembic.run(project.models, metadata=project.own, **project.options)
"""
_numbers = itertools.count(1)


class Project:
    """A user's project; `models` and `own` are what its code declares at the moment."""

    def __init__(self, folder: Path, opened: dict[str, Any], admin_url: str) -> None:
        self.folder = folder
        self.opened = opened
        self.admin_url = admin_url
        self.models: Sequence[type[KeyedModel]] = ()
        self.own: Sequence[sa.MetaData] = ()
        self.options: dict[str, Any] = {}
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENV)
        template = Path(command.__file__).parent / "templates" / "generic" / "script.py.mako"
        (folder / "script.py.mako").write_text(template.read_text())

    @property
    def settings(self) -> Settings:
        return load_settings({"database": {**self.opened["database"], "url": self.opened["url"]}}, env={})

    def config(self, *, allow: bool = False, **options: Any) -> Config:
        config = Config(**options)
        config.set_main_option("script_location", str(self.folder))
        config.attributes.update({"project": self, SETTINGS: self.settings, ALLOW: allow})
        return config

    @property
    def revisions(self) -> list[Path]:
        return sorted((self.folder / "versions").glob("*.py"), key=lambda path: path.stat().st_mtime_ns)

    async def new(self, *models: type[KeyedModel], allow: bool = False) -> str:
        """Make revisions for the models, and return what they do."""
        self.models = models or self.models
        before = set(self.revisions)
        name = f"change {next(_numbers)}"
        await asyncio.to_thread(command.revision, self.config(allow=allow), name, autogenerate=True)
        return "\n".join(path.read_text() for path in self.revisions if path not in before)

    async def upgrade(self, to: str = "head", *, allow: bool = False) -> None:
        await asyncio.to_thread(command.upgrade, self.config(allow=allow), to)

    async def downgrade(self, to: str = "-1", *, allow: bool = True) -> None:
        await asyncio.to_thread(command.downgrade, self.config(allow=allow), to)

    def declaring(self, *models: type[KeyedModel]) -> Project:
        """Declare other models."""
        self.models = models
        return self

    async def check(self) -> None:
        """Fail if autogenerate would write anything."""
        await asyncio.to_thread(command.check, self.config())

    async def migrate(self, *models: type[KeyedModel], allow: bool = False) -> str:
        """Make revisions, run them, and see that nothing is left to do."""
        text = await self.new(*models, allow=allow)
        await self.upgrade(allow=allow)
        await self.check()
        return text

    def sdk(self, schema: Any = "check") -> MultiTenantSDK:
        options = {
            key: value
            for key, value in self.opened["database"].items()
            if key != "owner_url" or schema == "create"
        }
        return MultiTenantSDK.open(
            self.opened["url"], models=self.models, schema=schema, database=options, env={}
        )

    async def execute(self, text: str, *, role: str = "admin") -> list[Any]:
        url = self.admin_url if role == "admin" else self.opened["database"][f"{role}_url"]
        connection = await asyncpg.connect(url)
        try:
            if ";" in text:
                await connection.execute(text)
                return []
            rows: list[Any] = await connection.fetch(text)
            return rows
        finally:
            await connection.close()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TENANTRY_")]:
        monkeypatch.delenv(name)


@pytest_asyncio.fixture
async def project(database_url: str, tmp_path: Path) -> AsyncIterator[Project]:
    """Give an empty project on a prepared database without tables."""
    yield Project(tmp_path / "migrations", await deploy(database_url), database_url)


@pytest.fixture
def make_project(
    postgres_server: PostgresServer, make_database: Callable[[], str], tmp_path: Path
) -> Callable[[], Project]:
    """Give a function that makes another project with a database of its own."""

    def make() -> Project:
        url = postgres_server.url(make_database())
        return Project(tmp_path / f"migrations{next(_numbers)}", asyncio.run(deploy(url)), url)

    return make
