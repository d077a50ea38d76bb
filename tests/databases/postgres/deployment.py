"""A PostgreSQL database made ready for tenantry, as `tenantry init` makes it."""

from __future__ import annotations

import itertools
import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tenantry.databases.postgres.provision import provision

_prefixes = itertools.count(1)


async def deploy(admin_url: str, *, pooler_url: str | None = None) -> dict[str, Any]:
    """Provision the database behind `admin_url` and return what `MultiTenantSDK.open` takes.

    Args:
        admin_url: A superuser's address of an empty database.
        pooler_url: Any address through a pooler; its host and port are then used for all roles but the owner.
    """
    prefix = f"t{os.getpid()}_{next(_prefixes)}"
    made = await provision(admin_url, prefix=prefix)
    urls = {role: url if pooler_url is None else _through(url, pooler_url) for role, url in made.urls.items()}
    return {
        "url": urls["app"],
        "database": {
            "control_url": urls["control"],
            "raw_url": urls["raw"],
            "owner_url": made.urls["owner"],
            "seal_key": made.seal_key.export(),
            "pool_size": 5,
        },
    }


def _through(url: str, pooler_url: str) -> str:
    credentials = urlsplit(url).netloc.rpartition("@")[0]
    host = urlsplit(pooler_url).netloc.rpartition("@")[2]
    return urlunsplit(urlsplit(url)._replace(netloc=f"{credentials}@{host}"))
