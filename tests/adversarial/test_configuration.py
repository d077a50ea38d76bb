"""What is not understood is refused: a guard that was misspelt would not stand, and nobody would know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenantry import MultiTenantSDK
from tenantry.errors import ConfigurationError
from tests.adversarial.models import MODELS


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"database": {"seal_keys": "k:AA=="}}, "database.seal_keys"),
        ({"database": {"pool_sizes": 3}}, "database.pool_sizes"),
        ({"performance": {"lease_second": 0.1}}, "performance.lease_second"),
        ({"performance": {"lease_seconds": 60}}, "performance.lease_seconds"),
        ({"performance": {"lease_seconds": float("inf")}}, "performance.lease_seconds"),
        ({"database": {"shards": ["x"]}}, "database.shards"),
        ({"databse": {"url": "x"}}, "databse"),
        ({"security": {"audit": True}}, "security"),
        ({"security": {}}, "security"),
        ({"cache": "redis://x"}, "cache"),
        ({"multi_region": None, "graphql": {}}, "graphql"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_unknown_option_is_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MultiTenantSDK.open("memory://", models=MODELS, **arguments)
    assert caught.value.field == field


def test_the_same_from_the_environment_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        MultiTenantSDK.open("memory://", env={"TENANTRY_DATABASE_SEALKEY": "x"})
    with pytest.raises(ConfigurationError):
        MultiTenantSDK.open("memory://", env={"TENANTRY_SECURITY_AUDIT": "true"})
    file = tmp_path / "settings.toml"
    file.write_text("[performance]\nleaseseconds = 0.5\n")
    with pytest.raises(ConfigurationError):
        MultiTenantSDK.open("memory://", toml=file, env={})
