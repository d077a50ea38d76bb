"""A seal key is replaced in two steps, and at no moment does anything stop working."""

from __future__ import annotations

import asyncio

import pytest

from tenantry.cli import envfile
from tenantry.errors import TenantryError
from tests.cli.conftest import Cli, Deployment

SEAL_KEY = "TENANTRY_DATABASE_SEAL_KEY"


def kids(deployment: Deployment) -> list[str]:
    return [text.partition(":")[0] for text in deployment.env[SEAL_KEY].split(",")]


def works(deployment: Deployment) -> bool:
    async def count() -> int:
        async with deployment.open_sdk() as sdk:
            return await sdk.tenant("acme").data.count("products")

    try:
        return asyncio.run(count()) == 1
    except TenantryError:
        return False


def test_the_two_steps(prepared: Deployment) -> None:
    before = prepared.env
    [old] = kids(prepared)
    said = prepared.cli.json("keys", "rotate")
    new = said["made"]
    assert said["to_retire"] == [old]
    assert kids(prepared) == [new, old]
    assert {**prepared.env, SEAL_KEY: ""} == {**before, SEAL_KEY: ""}
    assert prepared.env_mode == 0o600
    assert works(prepared)
    rotated = prepared.env
    envfile.write(prepared.folder / ".env", before)
    assert works(prepared)  # a process that still has the old key
    envfile.write(prepared.folder / ".env", rotated)
    assert prepared.cli.json("keys", "retire", old) == {"retired": old}
    assert kids(prepared) == [new]
    assert works(prepared)
    envfile.write(prepared.folder / ".env", before)
    assert not works(prepared)


def test_init_keeps_a_rotated_key(prepared: Deployment) -> None:
    prepared.cli("keys", "rotate")
    before = prepared.env
    assert SEAL_KEY in prepared.init()["kept"]
    assert prepared.env == before


def test_the_key_in_use_is_not_retired_by_mistake(prepared: Deployment) -> None:
    [old] = kids(prepared)
    prepared.cli("keys", "rotate")
    [new, _] = kids(prepared)
    error = prepared.cli.json("keys", "retire", new, status=2)["error"]
    assert "--force" in error["fix"]
    assert works(prepared)
    prepared.cli("keys", "retire", new, "--force")
    assert kids(prepared) == [old]
    assert works(prepared)


def test_mistakes_name_the_next_command(prepared: Deployment) -> None:
    prepared.cli("keys", "rotate")
    again = prepared.cli.json("keys", "rotate", status=2)["error"]
    assert "tenantry keys retire" in again["fix"]
    absent = prepared.cli.json("keys", "retire", "nosuchkey", status=2)["error"]
    assert "tenantry keys list" in absent["fix"]
    [new, old] = kids(prepared)
    prepared.cli("keys", "retire", old)
    only = prepared.cli.json("keys", "retire", new, "--force", status=2)["error"]
    assert "tenantry keys rotate" in only["fix"]


def test_the_steps_are_explained_and_no_secret_is_printed(prepared: Deployment) -> None:
    ran = prepared.cli("keys", "rotate")
    [_, old] = kids(prepared)
    assert f"tenantry keys retire {old}" in ran.stdout
    listed = prepared.cli("keys", "list")
    for part in prepared.env[SEAL_KEY].split(","):
        assert part.partition(":")[2] not in ran.stdout + listed.stdout


def test_keys_are_listed_newest_first(prepared: Deployment) -> None:
    prepared.cli("keys", "rotate")
    [new, old] = kids(prepared)
    prepared.cli("keys", "retire", old)
    listed = prepared.cli.json("keys", "list")["keys"]
    assert [(key["kid"], key["retired_at"] is None) for key in listed] == [(new, True), (old, False)]
    assert "pad" not in str(listed)


def test_a_role_other_than_the_owner_is_refused(prepared: Deployment) -> None:
    prepared.unset("TENANTRY_DATABASE_OWNER_URL")
    error = prepared.cli.json("keys", "rotate", status=2)["error"]
    assert "TENANTRY_DATABASE_OWNER_URL" in error["fix"]
    app = prepared.env["TENANTRY_DATABASE_URL"]
    refused = prepared.cli.json("keys", "rotate", "--admin-url", app, status=1)["error"]
    assert "permission denied" in refused["message"]
    assert prepared.cli.json("keys", "rotate", "--admin-url", prepared.admin_url)["made"]


@pytest.mark.parametrize("command", [("list",), ("rotate",), ("retire", "k")])
def test_without_settings_the_error_says_what_to_set(cli: Cli, command: tuple[str, ...]) -> None:
    assert "TENANTRY_DATABASE_OWNER_URL" in cli.json("keys", *command, status=2)["error"]["fix"]
