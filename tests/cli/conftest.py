from __future__ import annotations

import asyncio
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tenantry import MultiTenantSDK
from tenantry.cli import envfile
from tenantry.cli.commands import commands
from tests.cli.models import MODELS, NAME, Product
from tests.servers import PostgresServer

_prefixes = itertools.count(1)


@dataclass
class Ran:
    """How a command ended, and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        return json.loads(self.stdout)


class Cli:
    """Runs commands in this process, as a user would in the current folder."""

    def __call__(self, *args: str, status: int = 0, typed: str | None = None) -> Ran:
        result = CliRunner().invoke(commands, list(args), input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        ran = Ran(result.exit_code, result.stdout, result.stderr)
        assert ran.status == status, f"{ran.stdout}\n{ran.stderr}"
        return ran

    def json(self, *args: str, status: int = 0) -> Any:
        return self(*args, "--json", status=status).data


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give the command line, in an empty folder and without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TENANTRY_")]:
        monkeypatch.delenv(name)
    return Cli()


@dataclass
class Deployment:
    """A database of a test's own, its roles, and the folder whose `.env` leads there."""

    cli: Cli
    server: PostgresServer
    database: str
    folder: Path
    prefix: str = field(default_factory=lambda: f"cli{os.getpid()}_{next(_prefixes)}")

    @property
    def admin_url(self) -> str:
        return self.server.url(self.database)

    def init(self, *args: str, status: int = 0) -> Any:
        return self.cli.json(
            "init", "--admin-url", self.admin_url, "--prefix", self.prefix, *args, status=status
        )

    @property
    def env(self) -> dict[str, str]:
        return envfile.read(self.folder / ".env")

    @property
    def env_mode(self) -> int:
        return stat.S_IMODE((self.folder / ".env").stat().st_mode)

    def unset(self, variable: str) -> None:
        """Take a variable out of `.env`."""
        path = self.folder / ".env"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith(f"{variable}=")))

    def execute(self, sql: str) -> str:
        return self.server.execute(sql.replace("{p}", self.prefix), self.database)

    def doctor(self, *args: str, status: int = 0) -> Any:
        return self.cli.json("doctor", "--models", NAME, *args, status=status)

    def open_sdk(self) -> MultiTenantSDK:
        return MultiTenantSDK.open(models=MODELS, schema="create", env=self.env)

    def create_tables(self) -> None:
        async def work() -> None:
            async with self.open_sdk() as sdk:
                for tenant in ("acme", "globex"):
                    await sdk.tenants.create(tenant)
                    await sdk.tenant(tenant).data.create(Product(name="Laptop", sku="L1"))

        asyncio.run(work())


@pytest.fixture
def bare(
    cli: Cli, postgres_server: PostgresServer, make_database: Callable[[], str], tmp_path: Path
) -> Iterator[Deployment]:
    """Give an empty database that nobody prepared."""
    deployment = Deployment(cli, postgres_server, make_database(), tmp_path)
    yield deployment
    postgres_server.drop_database(deployment.database)  # with it goes what its roles own and may do there
    roles = ", ".join(f"{deployment.prefix}_{role}" for role in ("owner", "app", "raw", "control"))
    postgres_server.execute(f"DROP ROLE IF EXISTS {roles}")


@pytest.fixture
def prepared(bare: Deployment) -> Deployment:
    """Give a prepared database with the tables of `MODELS` and a product of two tenants."""
    bare.init()
    bare.create_tables()
    return bare
