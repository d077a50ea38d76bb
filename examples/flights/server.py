"""A server that nothing was prepared on: with an administrator's address, the demonstration does that itself."""

from __future__ import annotations

from collections.abc import Mapping

ROLES = "flights"  # begins the names of the roles, so that no other program's are touched
_SCHEMES = ("postgresql://", "postgres://")
_PREPARED = "TENANTRY_DATABASE_SEAL_KEY"


async def database_options(url: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return the options of the section ``database`` for a URL.

    For PostgreSQL, and unless the environment holds what ``tenantry init`` printed, the URL is taken for an
    administrator's: roles with new passwords are made, and the tables go into the database that it names.

    Raises:
        ConfigurationError: The URL's role may not do that.
        DatabaseUnavailable: The server cannot be reached.
    """
    if not url.startswith(_SCHEMES) or _PREPARED in env:
        return {"url": url}
    try:
        from tenantry.databases.postgres.provision import provision
    except ImportError:
        return {"url": url}  # the SDK says which extra is missing
    made = await provision(url, prefix=ROLES, reset_passwords=True, harden=False)
    options = {f"{role}_url": address for role, address in made.urls.items() if role != "app"}
    return options | {"url": made.urls["app"], "seal_key": made.seal_key.export()}
