"""One command prepares a database; doing it again, or twice at once, changes nothing that is right."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tenantry.cli import envfile
from tests.cli.conftest import Cli, Deployment
from tests.cli.models import Product

NAMES = {
    "TENANTRY_DATABASE_URL",
    "TENANTRY_DATABASE_CONTROL_URL",
    "TENANTRY_DATABASE_RAW_URL",
    "TENANTRY_DATABASE_OWNER_URL",
    "TENANTRY_DATABASE_SEAL_KEY",
}


def secrets_of(env: dict[str, str]) -> list[str]:
    passwords = [url.partition("://")[2].partition("@")[0].partition(":")[2] for url in env.values()]
    return [*filter(None, passwords), env["TENANTRY_DATABASE_SEAL_KEY"].partition(":")[2]]


def test_everything_an_application_needs_is_in_the_file(bare: Deployment) -> None:
    (bare.folder / ".env").write_text("DEBUG=1\n")
    said = bare.init()
    assert said["ok"]
    assert set(said["written"]) == NAMES
    assert said["kept"] == []
    assert said["unusable"] == {}
    assert said["unmet"] == []
    assert said["roles"]["app"] == f"{bare.prefix}_app"
    assert set(bare.env) == NAMES | {"DEBUG"}
    assert bare.env_mode == 0o600

    async def use() -> str:
        async with bare.open_sdk() as sdk:
            await sdk.tenants.create("acme")
            made = await sdk.tenant("acme").data.create(Product(name="Laptop", sku="L1"))
            assert await sdk.tenant("acme").data.sql("SELECT name FROM products") == [{"name": "Laptop"}]
            return (await sdk.tenant("acme").data.get(Product, made.id)).name

    assert asyncio.run(use()) == "Laptop"


def test_a_second_run_changes_nothing(bare: Deployment) -> None:
    bare.init()
    before = (bare.folder / ".env").read_bytes()
    said = bare.init()
    assert (said["ok"], said["written"], set(said["kept"])) == (True, [], NAMES)
    assert (bare.folder / ".env").read_bytes() == before


def test_secrets_are_printed_nowhere_but_in_the_file(bare: Deployment) -> None:
    for args in ([], ["--reset-passwords"]):
        for more in ([], ["--json"]):
            ran = bare.cli("init", "--admin-url", bare.admin_url, "--prefix", bare.prefix, *args, *more)
            for secret in [*secrets_of(bare.env), bare.server.password]:
                assert secret not in ran.stdout + ran.stderr


def test_it_says_what_to_do_next(bare: Deployment) -> None:
    ran = bare.cli("init", "--admin-url", bare.admin_url, "--prefix", bare.prefix)
    assert "MultiTenantSDK.open" in ran.stdout
    assert "tenantry doctor" in ran.stdout
    assert "set -a; . ./.env; set +a" in ran.stdout


def test_the_database_is_made_if_there_is_none(bare: Deployment) -> None:
    name = f"{bare.database}_made"
    try:
        said = bare.init("--database", name)
        assert said["ok"]
        assert said["where"].endswith(f"/{name}")
        assert bare.env["TENANTRY_DATABASE_URL"].endswith(f"/{name}")
    finally:
        bare.server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_new_passwords_replace_the_old(bare: Deployment) -> None:
    bare.init()
    old = bare.env
    said = bare.init("--reset-passwords")
    assert set(said["written"]) == NAMES - {"TENANTRY_DATABASE_SEAL_KEY"}
    assert said["kept"] == ["TENANTRY_DATABASE_SEAL_KEY"]
    assert bare.env["TENANTRY_DATABASE_SEAL_KEY"] == old["TENANTRY_DATABASE_SEAL_KEY"]
    assert bare.env["TENANTRY_DATABASE_URL"] != old["TENANTRY_DATABASE_URL"]


def test_a_lost_file_is_noticed_and_its_fix_works(bare: Deployment) -> None:
    bare.init()
    (bare.folder / ".env").unlink()
    said = bare.init(status=1)
    assert not said["ok"]
    assert set(said["unusable"]) == NAMES - {"TENANTRY_DATABASE_SEAL_KEY"}
    ran = bare.cli("init", "--admin-url", bare.admin_url, "--prefix", bare.prefix, status=1)
    assert "--reset-passwords" in ran.stdout
    assert bare.init("--reset-passwords")["ok"]


def test_a_file_of_another_database_is_noticed(bare: Deployment, tmp_path: Path) -> None:
    bare.init()
    other = f"{bare.database}_other"
    try:
        said = bare.init("--database", other, status=1)
        assert f"not to {said['where']}" in said["unusable"]["TENANTRY_DATABASE_URL"]
    finally:
        bare.server.execute(f"DROP DATABASE IF EXISTS {other} WITH (FORCE)")


def test_a_wrong_password_in_the_file_is_noticed(bare: Deployment) -> None:
    bare.init()
    url = bare.env["TENANTRY_DATABASE_RAW_URL"]
    wrong = url.replace(secrets_of({"url": url, "TENANTRY_DATABASE_SEAL_KEY": ""})[0], "wrong")
    envfile.write(bare.folder / ".env", {"TENANTRY_DATABASE_RAW_URL": wrong})
    said = bare.init(status=1)
    assert list(said["unusable"]) == ["TENANTRY_DATABASE_RAW_URL"]


def test_twice_at_once_leaves_one_working_file(bare: Deployment) -> None:
    command = [sys.executable, "-m", "tenantry.cli", "init", "--prefix", bare.prefix]
    env = {**os.environ, "TENANTRY_ADMIN_URL": bare.admin_url}

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=bare.folder, env=env, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert [(ran.returncode, ran.stderr) for ran in done] == [(0, "")] * 4
    assert set(bare.env) == NAMES
    bare.create_tables()
    assert bare.doctor()["findings"] == []


def test_what_could_not_be_done_is_told_with_its_fix(bare: Deployment) -> None:
    said = bare.init("--no-harden")
    assert said["ok"]
    whats = [unmet["what"] for unmet in said["unmet"]]
    assert any(what.startswith("TEMPORARY on the database") for what in whats)
    assert all(unmet["consequence"] and unmet["fix"] for unmet in said["unmet"])
    for unmet in said["unmet"]:
        bare.execute(unmet["fix"])
    assert bare.init("--no-harden")["unmet"] == []


def test_the_file_is_checked_before_anything_is_made(bare: Deployment) -> None:
    error = bare.init("--env-file", "nowhere/.env", status=2)["error"]
    assert "--env-file" in error["fix"]
    assert bare.execute("SELECT count(*) FROM pg_roles WHERE rolname = '{p}_app'") == "0"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("postgresql://nobody:s3cret@127.0.0.1:1/x", 3),
        ("s3cret", 2),
        ("postgresql://u:s3cret@[::1/x", 2),
        ("mysql://u:s3cret@h/x", 2),
    ],
)
def test_a_url_that_leads_nowhere_is_not_repeated(cli: Cli, url: str, status: int) -> None:
    ran = cli("init", "--admin-url", url, status=status)
    assert ran.stderr.startswith("error: ")
    assert "s3cret" not in ran.stdout + ran.stderr
    assert not Path(".env").exists()


@pytest.mark.parametrize("args", [["--prefix", "x" * 70], ["--prefix", "a b"], ["--database", "ü" * 40]])
def test_names_that_cannot_be_are_refused(bare: Deployment, args: list[str]) -> None:
    code = bare.cli.json("init", "--admin-url", bare.admin_url, *args, status=2)["error"]["code"]
    assert code == "configuration-error"


def test_a_role_that_may_not_make_roles_is_refused(bare: Deployment) -> None:
    bare.server.execute(f"CREATE ROLE {bare.prefix}_weak LOGIN PASSWORD 'weak'")
    try:
        url = bare.server.url(bare.database, user=f"{bare.prefix}_weak", password="weak")
        error = bare.cli.json("init", "--admin-url", url, "--prefix", bare.prefix, status=2)["error"]
        assert "CREATEROLE" in error["fix"]
        refused = bare.cli.json("init", "--admin-url", url, "--database", f"{bare.prefix}_new", status=1)
        assert "permission denied" in refused["error"]["message"]
    finally:
        bare.server.execute(f"DROP ROLE {bare.prefix}_weak")
