"""A WSGI application over the synchronous API, for gunicorn to run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from tenantry import TenantContext, use_context
from tenantry.errors import TenantNotFound
from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import MODELS, Note

sdk = MultiTenantSDK.open(models=MODELS)
sdk.initialize()

Start = Callable[[str, list[tuple[str, str]]], object]


def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Write a note for the tenant in the path, read all of it, and answer with what was seen."""
    tenant, name = environ["PATH_INFO"].strip("/").split("/")
    try:
        with use_context(TenantContext(tenant)):
            with sdk.data.transaction() as unit:
                unit.create(Note(id=name, text=tenant))
            seen = sorted({row.text for row in sdk.data.read(Note, limit=10_000)})
    except TenantNotFound:
        start("404 Not Found", [])
        return []
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "seen": seen}).encode()]
