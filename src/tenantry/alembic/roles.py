"""The names of the roles: no revision holds them, since each deployment has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from tenantry.config import Settings, load_settings
from tenantry.databases.postgres.policies import Roles

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

SETTINGS: Final = "tenantry_settings"
_KEPT: Final = "tenantry_roles"


def roles_of(context: MigrationContext) -> Roles:
    """Return the roles, named as the URLs say; where there is no URL, after the owner."""
    if _KEPT not in context.opts:
        given = context.config.attributes if context.config is not None else {}
        settings = context.opts.get(SETTINGS) or given.get(SETTINGS) or load_settings()
        owner = None
        if not context.as_sql and context.connection is not None:
            owner = context.connection.scalar(sa.text("SELECT current_user::text"))
        context.opts[_KEPT] = named_in(settings, owner)
    roles: Roles = context.opts[_KEPT]
    return roles


def named_in(settings: Settings, owner: str | None) -> Roles:
    """Return the roles that the URLs name, and the others named after the owner, such as ``shop_app``.

    Args:
        settings: The configuration.
        owner: The role that the migration runs as, if that is known.
    """
    options = settings.database
    given = {
        "owner": options.owner_url,
        "app": options.url,
        "raw": options.raw_url,
        "control": options.control_url,
    }
    urls = {role: url.get_secret_value() for role, url in given.items() if url is not None}
    users = {role: unquote(user) for role, url in urls.items() if (user := urlsplit(url).username)}
    owner = owner or users.get("owner")
    prefix = owner.removesuffix("_owner") if owner and owner.endswith("_owner") else _prefix(users)
    default = Roles.named(prefix)
    return default._replace(**{**users, "owner": owner or default.owner})


def _prefix(users: dict[str, str]) -> str:
    app = users.get("app", "")
    return app.removesuffix("_app") if app.endswith("_app") else "tenantry"
