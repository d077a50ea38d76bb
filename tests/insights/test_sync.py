"""The same for synchronous code."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from tenantry.sync import MultiTenantSDK
from tests.insights.shop import MODELS, Article


def test_a_report_of_two_sessions(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    performance = {"slow_query_seconds": 1e-9}
    found = []
    for _ in range(2):
        with MultiTenantSDK.open(url, models=MODELS, schema="create", performance=performance, env={}) as sdk:
            sdk.tenants.create("acme")
            sdk.tenant("acme").data.read(Article, {"status": "new"})
            sdk.insights.flush()
            (shape,) = sdk.insights.report().shapes
            assert (shape.count, shape.scanned) == (1, 0)
            both = sdk.insights.report(since=dt.timedelta(hours=1))
            assert sdk.insights.apply(both.findings) == []
            found.append((both.processes, [item.count for item in both.shapes]))
    assert found == [(1, [1]), (2, [2])]
