"""The directory from the command line, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenantry import MultiTenantSDK
from tests.cli.conftest import Cli, Deployment
from tests.cli.models import MODELS, NAME, Product


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> Cli:
    """Give the command line in a folder whose `.env` leads to a SQLite file with two tenants."""
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=sqlite:///shop.db\n")

    async def work() -> None:
        async with MultiTenantSDK.open("sqlite:///shop.db", models=MODELS, schema="create", env={}) as sdk:
            for tenant in ("acme", "globex"):
                await sdk.tenants.create(tenant, name=tenant.title(), plan="pro")
                await sdk.tenant(tenant).data.create(Product(name="Laptop", sku="L1"))

    asyncio.run(work())
    return cli


def statuses(cli: Cli) -> dict[str, str]:
    return {tenant["id"]: tenant["status"] for tenant in cli.json("tenants", "list")["tenants"]}


def test_the_life_of_a_tenant(shop: Cli) -> None:
    made = shop.json("tenants", "create", "initech", "--name", "Initech", "--settings", '{"seats": 5}')
    assert (made["name"], made["settings"], made["status"]) == ("Initech", {"seats": 5}, "active")
    assert shop.json("tenants", "show", "initech") == made
    assert shop.json("tenants", "suspend", "initech", "--reason", "unpaid")["reason"] == "unpaid"
    assert shop.json("tenants", "resume", "initech")["status"] == "active"
    assert shop.json("tenants", "delete", "acme", "--reason", "left")["status"] == "deleting"
    certificate = shop.json("tenants", "purge", "acme", "--models", NAME, "--yes")
    assert certificate["deleted"]["products"] == 1
    assert set(certificate["remaining"].values()) == {0}
    assert statuses(shop) == {"acme": "purged", "globex": "active", "initech": "active"}


def test_creating_twice_is_the_same_tenant(shop: Cli) -> None:
    first = shop.json("tenants", "create", "initech")
    assert shop.json("tenants", "create", "initech") == first
    error = shop.json("tenants", "create", "initech", "--plan", "free", status=1)["error"]
    assert error["fix"].endswith("tenantry tenants show initech")


def test_lists_are_read_a_page_at_a_time(shop: Cli) -> None:
    page = shop.json("tenants", "list", "--limit", "1")
    assert [tenant["id"] for tenant in page["tenants"]] == ["acme"]
    more = shop.json("tenants", "list", "--limit", "1", "--cursor", page["next_cursor"])
    assert [tenant["id"] for tenant in more["tenants"]] == ["globex"]
    assert more["next_cursor"] is None
    assert shop.json("tenants", "list", "--status", "suspended")["tenants"] == []


def test_people_get_lines(shop: Cli) -> None:
    ran = shop("tenants", "list", "--limit", "1")
    head, acme, more = ran.stdout.splitlines()
    assert head.split() == ["TENANT", "STATUS", "PLAN", "NAME"]
    assert acme.split() == ["acme", "active", "pro", "Acme"]
    assert more.startswith("More: tenantry tenants list --cursor ")
    shown = shop("tenants", "show", "acme")
    assert "status        active" in shown.stdout.splitlines()


def test_a_purge_is_confirmed(shop: Cli) -> None:
    shop("tenants", "delete", "acme", "--reason", "left")
    for typed in ("n\n", "\n"):
        ran = shop("tenants", "purge", "acme", "--models", NAME, typed=typed, status=2)
        assert "Delete all rows of acme in countries, products, reviews?" in ran.stdout
    assert statuses(shop)["acme"] == "deleting"
    assert "--yes" in shop.json("tenants", "purge", "acme", "--models", NAME, status=2)["error"]["fix"]
    assert "Purged acme" in shop("tenants", "purge", "acme", "--models", NAME, typed="y\n").stdout


def test_a_purge_needs_every_model(shop: Cli) -> None:
    shop("tenants", "delete", "acme", "--reason", "left")
    assert "--models" in shop.json("tenants", "purge", "acme", "--yes", status=2)["error"]["fix"]


def test_a_purge_leaves_no_table_out_unasked(prepared: Deployment) -> None:
    prepared.execute("CREATE TABLE legacy (tenant_id text, id int)")
    prepared.cli("tenants", "delete", "acme", "--reason", "left")
    purge = ("tenants", "purge", "acme", "--models", NAME, "--yes")
    error = prepared.cli.json(*purge, status=2)["error"]
    assert "legacy" in error["message"]
    assert prepared.cli.json(*purge, "--leave-others")["deleted"]["products"] == 1
    assert prepared.execute("SELECT string_agg(tenant_id, ',') FROM products") == "globex"


@pytest.mark.parametrize(
    ("args", "status", "fix"),
    [
        (("show", "nobody"), 1, "tenantry tenants list"),
        (("suspend", "nobody", "--reason", "x"), 1, "tenantry tenants list"),
        (("purge", "acme", "--models", NAME, "--yes"), 1, "tenantry tenants delete acme --reason"),
        (("create", "a b"), 1, "1 to 63"),
        (("create", "x", "--settings", "["), 1, None),
        (("create", "x", "--settings", "[]"), 1, None),
        (("suspend", "acme", "--reason", " "), 1, None),
        (("list", "--cursor", "made-up"), 1, None),
    ],
)
def test_mistakes_name_the_next_command(
    shop: Cli, args: tuple[str, ...], status: int, fix: str | None
) -> None:
    error = shop.json("tenants", *args, status=status)["error"]
    assert fix is None or fix in error["fix"]
    ran = shop("tenants", *args, status=status)
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize(
    "args", [("suspend", "acme"), ("list", "--status", "sleepy"), ("list", "--limit", "0")]
)
def test_wrong_usage(shop: Cli, args: tuple[str, ...]) -> None:
    assert shop("tenants", *args, status=2).stderr


def test_a_database_without_tables_says_how_to_make_them(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=sqlite:///shop.db\n")
    error = cli.json("tenants", "create", "acme", status=1)["error"]
    assert "TENANTRY_DATABASE_SCHEMA_MODE=create" in error["fix"]
    monkeypatch.setenv("TENANTRY_DATABASE_SCHEMA_MODE", "create")
    assert cli.json("tenants", "create", "acme")["id"] == "acme"


def test_a_file_that_is_named_must_exist(shop: Cli) -> None:
    for option in ("--env-file", "--config"):
        assert "no file" in shop.json("tenants", "list", option, "nowhere", status=2)["error"]["message"]


def test_on_postgresql(prepared: Deployment) -> None:
    prepared.cli("tenants", "suspend", "acme", "--reason", "unpaid")
    assert statuses(prepared.cli) == {"acme": "suspended", "globex": "active"}
