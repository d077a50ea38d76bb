"""The prompt: what is typed is run, with the SDK at hand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tenantry import MultiTenantSDK
from tests.cli.conftest import Cli
from tests.cli.models import MODELS, NAME, Product

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> Path:
    """Give a folder whose `.env` leads to a SQLite file with two tenants."""
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=sqlite:///shop.db\n")

    async def work() -> None:
        async with MultiTenantSDK.open("sqlite:///shop.db", models=MODELS, schema="create", env={}) as sdk:
            for tenant in ("acme", "globex"):
                await sdk.tenants.create(tenant)
                await sdk.tenant(tenant).data.create(Product(name=f"{tenant}'s", sku="L1"))

    asyncio.run(work())
    return tmp_path


def typed(folder: Path, *lines: str, options: tuple[str, ...] = ()) -> str:
    command = [sys.executable, "-m", "tenantry.cli", "shell", "--plain", "--models", NAME, *options]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        command,
        input="\n".join([*lines, ""]),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def test_a_tenants_rows_are_at_hand(shop: Path) -> None:
    shown = typed(
        shop,
        "[product.name for product in data.read(Product)]",
        "tenant",
        "sdk.tenant('globex').data.count('products')",
        options=("--tenant", "acme", "--user", "u_1"),
    )
    assert "At hand: sdk, tenants, Country, Product, Review, tenant, data." in shown
    assert '["acme\'s"]' in shown
    assert "TenantHandle('acme', user='u_1')" in shown


def test_without_a_tenant_there_are_no_rows(shop: Path) -> None:
    shown = typed(shop, "[tenant.id for tenant in tenants.list()]", "sdk.data.count(Product)")
    assert "['acme', 'globex']" in shown
    assert "TenantRequired" in shown
