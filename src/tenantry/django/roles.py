"""Whether the role that Django logs in as is one that row-level security binds."""

from __future__ import annotations

from typing import Any, Final

from django.apps import apps

from tenantry.databases.postgres.policies import CONTROL_POLICY, RAW_POLICY
from tenantry.errors import ConfigurationError, UnsafeRole

_ROLE: Final = f"""
SELECT r.rolsuper, r.rolbypassrls,
  EXISTS (SELECT FROM pg_catalog.pg_policy p, pg_catalog.unnest(p.polroles) AS named
    WHERE p.polname = '{CONTROL_POLICY}' AND pg_catalog.pg_has_role(named, 'MEMBER')),
  EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
    WHERE p.polname = '{RAW_POLICY}' AND pg_catalog.pg_has_role(c.relowner, 'MEMBER'))
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""
_FAULTS: Final = (
    "is a superuser",
    "bypasses row-level security",
    "is a member of the control role, which sees every tenant",
    "owns tables of tenants",
)
FIX: Final = "Log in as the raw role, whose address `tenantry init` printed as TENANTRY_DATABASE_RAW_URL."


def fault_of(connection: Any) -> str | None:
    """Return why a connection must not serve tenants, if it must not.

    Raises:
        ConfigurationError: It is none of PostgreSQL through psycopg 3, or changes its role after it logged in.
    """
    field = f"DATABASES.{connection.alias}"
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"{connection.vendor} would not hold rows to their tenants.",
            field=f"{field}.ENGINE",
            fix="Use django.db.backends.postgresql, or leave the alias out of TENANTRY.DATABASES.",
        )
    if connection.settings_dict["OPTIONS"].get("assume_role"):
        raise ConfigurationError(
            "The role is wiped with the rest of the session before each tenant's work.",
            field=f"{field}.OPTIONS.assume_role",
            fix=FIX,
        )
    connection.ensure_connection()
    if not hasattr(connection.connection, "prepare_threshold"):
        raise ConfigurationError(
            "It connects through psycopg2.", field=f"{field}.ENGINE", fix="Install psycopg 3 in its place."
        )
    with connection.cursor() as cursor:
        cursor.execute(_ROLE)
        found = zip(cursor.fetchone(), _FAULTS, strict=True)
    return next((fault for is_so, fault in found if is_so), None)


def check_role(connection: Any) -> None:
    """Refuse a connection that must not serve tenants. Asked once for each process and role.

    Raises:
        UnsafeRole: Row-level security would not bind it.
        ConfigurationError: It cannot be bound at all.
    """
    trusted: set[tuple[str, str]] = apps.get_app_config("tenantry").trusted
    known = (connection.alias, str(connection.settings_dict["USER"]))
    if known in trusted:
        return
    fault = fault_of(connection)
    if fault is not None:
        raise UnsafeRole(f"DATABASES[{connection.alias!r}]: the role {known[1]!r} {fault}.", fix=FIX)
    trusted.add(known)
