"""Where uploads are kept: the folder of a tenant is its own, so that it can be moved and deleted as one."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from tenantry import current_context
from tenantry.errors import TenantRequired


def place_of(_: object, filename: str) -> str:
    """Return where an upload goes. Its name is kept for people; the part that cannot be guessed tells it apart."""
    context = current_context()
    if context is None:
        raise TenantRequired("An upload")
    return f"{context.tenant_id}/{secrets.token_urlsafe(16)}/{PurePosixPath(filename).name}"
