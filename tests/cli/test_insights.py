"""``tenantry insights`` on a file and on a server: what it shows, and what it does only when it is asked to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tenantry import Model, MultiTenantSDK
from tenantry.insights import ShapeReport
from tests.cli.conftest import Cli, Deployment

PERFORMANCE = {"slow_query_seconds": 1e-6, "insights_interval": 3_600.0}
NAME = f"{__name__}:Order"


class Order(Model):
    __collection__ = "orders"

    status: str
    placed: int


async def work(env: dict[str, str]) -> None:
    """Ask what needs an index, often enough to be noticed."""
    async with MultiTenantSDK.open(models=[Order], schema="create", performance=PERFORMANCE, env=env) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        await data.bulk_create([Order(status=f"s{number % 200}", placed=number) for number in range(1_000)])
        for number in range(3):
            await data.read(Order, {"status": f"s{number}"}, order_by="-placed", limit=5)
        await sdk.insights.flush()


DDL = {
    "sqlite": 'CREATE INDEX IF NOT EXISTS "orders_status_placed_adv" ON "orders" '
    '("tenant_id", "status", "placed")',
    "postgresql": 'CREATE INDEX CONCURRENTLY "orders_status_placed_adv" ON "public"."orders" '
    '("tenant_id", "status", "placed")',
}


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> Cli:
    """Give the command line in a folder whose application has worked on a file."""
    url = f"sqlite:///{tmp_path}/shop.db"
    (tmp_path / ".env").write_text(f"TENANTRY_DATABASE_URL={url}\n")
    asyncio.run(work({"TENANTRY_DATABASE_URL": url}))
    return cli


def test_it_shows_what_queries_cost_and_what_mends_it(shop: Cli) -> None:
    ran = shop("insights", "--models", NAME)
    assert "of 1 process" in ran.stdout
    assert "SHARE  COUNT  P50" in ran.stdout
    assert "read orders where status eq by -placed, -id limit ?" in ran.stdout
    assert "orders  [missing-index]" in ran.stdout
    assert f"   sql   {DDL['sqlite']}" in ran.stdout
    assert '   model Order.__indexes__ = (("status", "placed"),)' in ran.stdout
    assert "1 note" in ran.stdout


def test_without_apply_nothing_is_changed(shop: Cli) -> None:
    for _ in range(2):
        found = shop.json("insights", "--models", NAME)
        assert [finding["ddl"] for finding in found["findings"]] == [DDL["sqlite"]]
        assert found["applied"] == []


def test_applying_asks_first(shop: Cli) -> None:
    error = shop.json("insights", "--models", NAME, "--apply", status=2)
    assert "applied" not in error
    refused = shop("insights", "--models", NAME, "--apply", typed="n\n", status=2)
    assert "Nothing was changed" in refused.stderr
    assert len(shop.json("insights", "--models", NAME)["findings"]) == 1
    agreed = shop("insights", "--models", NAME, "--apply", typed="y\n")
    assert f"done     {DDL['sqlite']}" in agreed.stdout
    again = shop("insights", "--models", NAME, "--apply", "--yes")
    assert "There is nothing to apply." in again.stdout


def test_what_was_counted_before_is_left_out(shop: Cli) -> None:
    assert shop.json("insights", "--since", "1h", "--models", NAME)["processes"] == 1
    for wrong in ("0h", "1w", "-1h", "h", ""):
        error = shop.json("insights", "--since", wrong, status=2)["error"]
        assert error["code"] == "configuration-error"


def test_without_models_nothing_is_advised_and_the_numbers_are_shown(shop: Cli) -> None:
    found = shop.json("insights")
    assert found["findings"] == []
    assert {shape["verb"] for shape in found["shapes"]} == {"create", "read"}


def test_nothing_was_counted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=memory://\n")
    assert "Nothing was counted." in cli("insights").stdout


def test_names_cannot_steer_the_terminal(shop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    of = ShapeReport.of

    def hostile(*arguments: Any) -> ShapeReport:
        found = of(*arguments)
        return ShapeReport(**{**_fields(found), "shape": "read \x1b[2Jgone"})

    monkeypatch.setattr(ShapeReport, "of", hostile)
    assert "\x1b" not in shop("insights").stdout


def _fields(found: ShapeReport) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ShapeReport.__slots__}


def test_on_postgresql_the_owner_makes_the_index_while_others_write(bare: Deployment) -> None:
    bare.init()
    asyncio.run(work(bare.env))
    found = bare.cli.json("insights", "--models", NAME)
    assert [finding["ddl"] for finding in found["findings"]] == [DDL["postgresql"]]
    applied = bare.cli.json("insights", "--models", NAME, "--apply", "--yes")
    assert applied["applied"] == [DDL["postgresql"]]
    kept = bare.cli("insights", "--models", NAME, "--apply", "--yes", "--unused-days", "1")
    assert "There is nothing to apply." in kept.stdout
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_status_placed_adv'::regclass"
    assert bare.execute(valid).strip() == "t"
    bare.unset("TENANTRY_DATABASE_OWNER_URL")
    bare.execute("DROP INDEX orders_status_placed_adv")
    error = bare.cli.json("insights", "--models", NAME, "--apply", "--yes", status=2)
    assert error["error"]["code"] == "configuration-error"
