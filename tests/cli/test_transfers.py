"""Copies of tenants, and API keys, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli
from tests.cli.models import NAME
from tests.cli.test_tenants import shop  # noqa: F401 - a fixture


def test_a_tenant_is_renamed_exported_imported_and_cloned(shop: Cli, tmp_path: Path) -> None:  # noqa: F811
    renamed = shop.json("tenants", "rename", "acme", "--slug", "acme-global")
    assert (renamed["id"], renamed["slug"]) == ("acme", "acme-global")
    out = shop.json("tenants", "export", "acme", "acme.zip", "--models", NAME)
    back = shop.json("tenants", "import", "acme.zip", "--as", "restored", "--models", NAME)
    cloned = shop.json("tenants", "clone", "acme", "staging", "--models", NAME)
    assert out["collections"] == back["collections"] == cloned["collections"]
    assert out["collections"]["products"]["rows"] == 1
    again = shop.json("tenants", "import", "acme.zip", "--as", "restored", "--models", NAME, status=1)
    assert again["error"]["code"] == "tenant-exists"


def test_an_api_key_is_shown_once(shop: Cli) -> None:  # noqa: F811
    made = shop.json("api-keys", "create", "ci", "--tenant", "acme", "--scope", "orders:read", "--days", "30")
    secret = made["key"].partition(".")[2]
    rotated = shop.json("api-keys", "rotate", made["id"], "--tenant", "acme", "--hours", "1")
    shop.json("api-keys", "revoke", rotated["id"], "--tenant", "acme", "--reason", "test")
    listed = shop.json("api-keys", "list", "--tenant", "acme")
    assert [key["name"] for key in listed["keys"]] == ["ci", "ci"]
    assert sum(key["revoked_at"] is not None for key in listed["keys"]) == 1
    assert secret not in json.dumps(listed)
    assert shop.json("api-keys", "list", "--tenant", "globex")["keys"] == []
