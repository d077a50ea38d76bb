"""Databases for synchronous tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tenantry.testing.models import MODELS
from tests.databases.postgres.deployment import deploy


@pytest.fixture
def postgres_options(database_url: str) -> Mapping[str, Any]:
    """Give what `MultiTenantSDK.open` takes for a PostgreSQL of the test's own."""
    return {**asyncio.run(deploy(database_url)), "models": MODELS, "schema": "create", "env": {}}


@pytest.fixture
def sqlite_options(tmp_path: Path) -> Mapping[str, Any]:
    """Give the same for a SQLite file. Whoever waits for its writer in vain gives up soon."""
    database = {"url": f"sqlite:///{tmp_path}/data.db", "timeout": 10}
    return {"database": database, "models": MODELS, "schema": "create", "env": {}}


@pytest.fixture(params=["sqlite", "postgres"])
def options(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """Give the same for each database that several processes may use."""
    found: Mapping[str, Any] = request.getfixturevalue(f"{request.param}_options")
    return found
