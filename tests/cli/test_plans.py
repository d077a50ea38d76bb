"""Plans from the command line, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenantry import Flag, MultiTenantSDK, Plan, Quotas, TenantSettings
from tests.cli.conftest import Cli, Deployment
from tests.cli.models import MODELS, NAME, Product


class Preferences(TenantSettings):
    timezone: str = "UTC"
    seats: int = 5


FLAGS = [Flag("reports"), Flag("theme", default="light", choices=["light", "dark"])]
PLANS = [Plan("free", Quotas(per_collection={"products": 1})), Plan("pro", flags={"reports": True})]
PYPROJECT = f"""[tool.tenantry]
models = ["{NAME}"]
plans = ["{__name__}:PLANS"]
flags = ["{__name__}:FLAGS"]
settings = ["{__name__}:Preferences"]
"""


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> Cli:
    """Give the command line in the folder of a project that declares plans."""
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=sqlite:///shop.db\n")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)

    async def work() -> None:
        async with MultiTenantSDK.open("sqlite:///shop.db", models=MODELS, schema="create", env={}) as sdk:
            await sdk.tenants.create("acme", plan="pro")
            await sdk.tenant("acme").data.create(Product(name="Laptop", sku="L1"))

    asyncio.run(work())
    return cli


def test_plans_are_listed(shop: Cli) -> None:
    listed = shop.json("plans", "list")
    assert [plan["name"] for plan in listed["plans"]] == ["free", "pro"]
    assert listed["plans"][0]["quotas"] == {"rows:products": 1}
    assert [flag["name"] for flag in listed["flags"]] == ["reports", "theme"]


def test_the_plan_of_a_tenant(shop: Cli) -> None:
    assert shop.json("tenants", "plan", "acme")["plan"] == "pro"
    assert shop.json("tenants", "plan", "acme", "free")["plan"] == "free"
    error = shop.json("tenants", "plan", "acme", "fre", status=1)["error"]
    assert error["code"] == "unknown-plan"
    assert "'free'" in error["fix"]
    usage = {item["quota"]: item for item in shop.json("tenants", "usage", "acme")["usage"]}
    assert usage["rows:products"] == {"quota": "rows:products", "used": 1, "limit": 1, "percent": 100.0}
    assert shop.json("tenants", "plan", "acme", "--clear")["plan"] is None
    assert shop.json("tenants", "usage", "acme", "--recount")["drift"] == []


def test_flags_of_a_tenant(shop: Cli) -> None:
    shop("tenants", "flag", "acme", "theme", "dark", "--reason", "asked", "--days", "2")
    found = {item["name"]: item for item in shop.json("tenants", "flags", "acme")["flags"]}
    assert (found["theme"]["value"], found["theme"]["source"], found["theme"]["reason"]) == (
        "dark",
        "override",
        "asked",
    )
    assert (found["reports"]["value"], found["reports"]["source"]) == (True, "plan")
    shop("tenants", "flag", "acme", "reports", "false", "--reason", "abuse")
    assert "false" in shop("tenants", "flags", "acme").stdout
    shop("tenants", "flag", "acme", "theme", "--clear", "--reason", "over")
    assert shop.json("tenants", "flag", "acme", "thme", "1", "--reason", "x", status=1)["error"]["fix"]
    shop("tenants", "flag", "acme", "theme", "--reason", "x", status=2)


def test_settings_of_a_tenant(shop: Cli) -> None:
    assert shop.json("tenants", "settings", "acme")["settings"] == {"timezone": "UTC", "seats": 5}
    changed = shop.json("tenants", "settings", "acme", "timezone=CET", "seats=7")
    assert changed["settings"] == {"timezone": "CET", "seats": 7}
    shop.json("tenants", "settings", "acme", "seats=many", status=1)
    shop.json("tenants", "settings", "acme", "seats", status=1)


def test_what_is_no_plan_is_refused(shop: Cli, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace(":PLANS", ":FLAGS"))
    error = shop.json("plans", "list", status=2)["error"]
    assert "which is no Plan" in error["message"]


def test_the_owner_has_tables_counted(prepared: Deployment, tmp_path: Path) -> None:
    cli = prepared.cli
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    error = cli.json("tenants", "usage", "acme", status=1)["error"]
    assert error["fix"].endswith("tenantry plans count.")
    assert cli.json("plans", "count")["counted"] == ["products", "reviews"]
    assert cli.json("plans", "count")["counted"] == []
    usage = {item["quota"]: item["used"] for item in cli.json("tenants", "usage", "acme")["usage"]}
    assert usage["rows:products"] == 1
    assert usage["storage"] > 0
    assert cli.json("tenants", "usage", "acme", "--recount")["drift"] == []
