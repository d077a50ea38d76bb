from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenantry.scan import Credentials, Limits, Plan, Report, read_har, scan
from tests.scan.shop import Shop, har

BASE = "http://shop.example"
FAST = Limits(rate=1e6)

Scan = Callable[..., Awaitable[Report]]


def credentials(shop: Shop, slug: str) -> Credentials:
    return Credentials({"Authorization": f"Bearer {shop.companies[slug].token}"})


def transport(app: Any) -> httpx.ASGITransport:
    return httpx.ASGITransport(app, raise_app_exceptions=False)


def below(words: set[str], path: str) -> bool:
    return path.split("/")[1] in words


async def scanned(shop: Shop, folder: Path, only: set[str] | None = None, **options: Any) -> Report:
    """Scan with what acme's user recorded; of that `only` what begins with some words, since a scan takes seconds."""
    path = folder / "acme.har"
    path.write_text(json.dumps(har(shop, BASE)), encoding="utf-8")
    options = {
        "safe_posts": ("/graphql",),
        "limits": FAST,
        "requests_a": read_har(path, base_url=BASE),
        **options,
    }
    if only is not None:
        options["requests_a"] = tuple(one for one in options["requests_a"] if below(only, one.path))
        options["operations"] = tuple(
            one for one in options.get("operations", ()) if below(only, one.template)
        )
    plan = Plan(BASE, credentials(shop, "acme"), credentials(shop, "globex"), **options)
    return await scan(plan, transport=transport(shop.app))


@pytest.fixture
def scan_shop(tmp_path: Path) -> Scan:
    async def run(shop: Shop, **options: Any) -> Report:
        return await scanned(shop, tmp_path, **options)

    return run


def summed(report: Report) -> set[tuple[str, str, str]]:
    return {(found.kind.label, found.route, found.detail) for found in report.findings}
