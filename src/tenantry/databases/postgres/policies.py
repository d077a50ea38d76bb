"""Who may do what with a table, as SQL.

Pure functions from a table's name to statements, for whoever makes the tables: the development mode, the migrations,
the doctor's advice. All of them are to be run as the owner, and may be run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

TENANT_COLUMN: Final = "tenant_id"
# Called in a sub-select, so that it runs once a statement and not once a row.
TENANT_PREDICATE: Final = f"{TENANT_COLUMN} = (SELECT tenantry.current_tenant())"
APP_POLICY: Final = "tenantry_app"
RAW_POLICY: Final = "tenantry_raw"
CONTROL_POLICY: Final = "tenantry_control"
OWNER_POLICY: Final = "tenantry_owner"
KEEP_TRIGGER: Final = "tenantry_keep_tenant"
RAW_TRIGGER: Final = "tenantry_raw_write"

Privilege = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
Reach = Literal["read", "write"]
ALL_PRIVILEGES: Final[tuple[Privilege, ...]] = ("SELECT", "INSERT", "UPDATE", "DELETE")


class Roles(NamedTuple):
    """The names of the four roles.

    Attributes:
        owner: Owns the tables; for migrations only.
        app: Runs our compiled statements.
        raw: Runs a user's own SQL for one tenant.
        control: Reads the directory and works across tenants, always audited.
    """

    owner: str
    app: str
    raw: str
    control: str

    @classmethod
    def named(cls, prefix: str = "tenantry") -> Roles:
        """Return ``<prefix>_owner``, ``_app``, ``_raw`` and ``_control``."""
        return cls(f"{prefix}_owner", f"{prefix}_app", f"{prefix}_raw", f"{prefix}_control")


def quote(identifier: str) -> str:
    """Return ``identifier`` as a quoted SQL identifier.

    Raises:
        ValueError: If it is empty, holds a NUL or is longer than the 63 bytes PostgreSQL keeps: a name that is cut
            short could meet another one.
    """
    if not identifier or "\0" in identifier or len(identifier.encode()) > 63:
        raise ValueError(f"{identifier!r} cannot be an identifier")
    return '"' + identifier.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return ``text`` as a string literal, whatever ``standard_conforming_strings`` is."""
    if "\0" in text:
        raise ValueError("a literal cannot hold a NUL")
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return f" E{quoted}" if "\\" in text else quoted


def table_name(schema: str | None, table: str) -> str:
    """Return the quoted name of a table, with its schema if there is one."""
    return f"{quote(schema)}.{quote(table)}" if schema else quote(table)


def tenant_table_policies(
    schema: str | None, table: str, roles: Roles, *, raw: bool = True, versioned: bool = True
) -> list[str]:
    """Return the statements that make a table one of tenant rows.

    App, and raw if allowed, see and write the rows of the sealed tenant and no others; control reads and deletes
    every tenant's. The owner has no policy of its own, so migrations see no rows. Nobody changes ``tenant_id``.
    TRUNCATE and REFERENCES, which row-level security does not restrict, are granted to nobody.

    Args:
        schema: The table's schema.
        table: The table, which has the column ``tenant_id``.
        roles: The names of the roles.
        raw: Whether a user's own SQL may reach the table.
        versioned: Whether it has the columns ``id``, ``version``, ``created_at``, ``updated_at``, which are then kept
            true under a user's own SQL.
    """
    name = table_name(schema, table)
    statements = [
        *_force(name),
        *_policy(name, APP_POLICY, roles.app, TENANT_PREDICATE),
        *_policy(name, RAW_POLICY, roles.raw if raw else None, TENANT_PREDICATE),
        *_policy(name, CONTROL_POLICY, roles.control, "true"),
        *_grants(
            name, roles, app=ALL_PRIVILEGES, raw=ALL_PRIVILEGES if raw else (), control=("SELECT", "DELETE")
        ),
        f"DROP TRIGGER IF EXISTS {quote(KEEP_TRIGGER)} ON {name}",
        # Fires only for statements that name the column, which ours never do.
        f"CREATE TRIGGER {quote(KEEP_TRIGGER)} BEFORE UPDATE OF {TENANT_COLUMN} ON {name} FOR EACH ROW "
        f"WHEN (OLD.{TENANT_COLUMN} IS DISTINCT FROM NEW.{TENANT_COLUMN}) EXECUTE FUNCTION tenantry.keep_tenant()",
        f"DROP TRIGGER IF EXISTS {quote(RAW_TRIGGER)} ON {name}",
    ]
    if raw and versioned:
        statements.append(
            f"CREATE TRIGGER {quote(RAW_TRIGGER)} BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW "
            f"WHEN (current_user = {quote_literal(roles.raw)}) EXECUTE FUNCTION tenantry.raw_write()"
        )
    return statements


def shared_table_policies(schema: str | None, table: str, roles: Roles) -> list[str]:
    """Return the statements that make a table one of reference data: every tenant reads it, control writes it."""
    name = table_name(schema, table)
    return _grants(name, roles, app=("SELECT",), raw=("SELECT",), control=ALL_PRIVILEGES)


def open_table_policies(schema: str | None, table: str, roles: Roles) -> list[str]:
    """Return the statements for a table whose rows every tenant reads and writes: it is not isolated at all."""
    name = table_name(schema, table)
    return _grants(name, roles, app=ALL_PRIVILEGES, raw=ALL_PRIVILEGES, control=ALL_PRIVILEGES)


def control_table_policies(
    schema: str | None,
    table: str,
    roles: Roles,
    *,
    app: Sequence[Privilege] = (),
    owner: Reach | None = None,
) -> list[str]:
    """Return the statements for a table of the SDK's own, such as the directory or the audit log.

    Args:
        schema: The table's schema.
        table: The table.
        roles: The names of the roles.
        app: What the app role may do with the sealed tenant's rows, such as reading and inserting idempotency keys;
            the table then has a column ``tenant_id``. Raw may do nothing in any case.
        owner: How the functions of the owner, which count, reach its rows.
    """
    name = table_name(schema, table)
    return [
        *_force(name),
        *_policy(name, APP_POLICY, roles.app if app else None, TENANT_PREDICATE),
        *_policy(name, RAW_POLICY, None, TENANT_PREDICATE),
        *_policy(name, CONTROL_POLICY, roles.control, "true"),
        *_owner_policy(name, roles.owner, owner),
        *_grants(name, roles, app=app, raw=(), control=ALL_PRIVILEGES),
    ]


def trigger_functions() -> list[str]:
    """Return the statements that make the functions behind the triggers, to be run as the owner."""
    return [
        """CREATE OR REPLACE FUNCTION tenantry.keep_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'tenant_id of a stored row never changes';
END $function$""",
        # The columns that our compiled statements keep true are kept true under a user's own SQL as well.
        """CREATE OR REPLACE FUNCTION tenantry.raw_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.version := 1;
    NEW.created_at := clock_timestamp();
    NEW.updated_at := NEW.created_at;
  ELSE
    NEW.id := OLD.id;
    NEW.created_at := OLD.created_at;
    NEW.version := OLD.version + 1;
    NEW.updated_at := clock_timestamp();
  END IF;
  RETURN NEW;
END $function$""",
        "REVOKE ALL ON FUNCTION tenantry.keep_tenant(), tenantry.raw_write() FROM PUBLIC",
    ]


def _force(name: str) -> list[str]:
    return [f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY", f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"]


def _owner_policy(name: str, role: str, reach: Reach | None) -> list[str]:
    if reach == "read":  # a mistake in a migration must not change what it has no business to change
        drop = f"DROP POLICY IF EXISTS {quote(OWNER_POLICY)} ON {name}"
        return [
            drop,
            f"CREATE POLICY {quote(OWNER_POLICY)} ON {name} FOR SELECT TO {quote(role)} USING (true)",
        ]
    return [] if reach is None else _policy(name, OWNER_POLICY, role, "true")


def _policy(name: str, policy: str, role: str | None, predicate: str) -> list[str]:
    drop = f"DROP POLICY IF EXISTS {quote(policy)} ON {name}"
    if role is None:
        return [drop]
    return [
        drop,
        f"CREATE POLICY {quote(policy)} ON {name} AS PERMISSIVE FOR ALL TO {quote(role)} "
        f"USING ({predicate}) WITH CHECK ({predicate})",
    ]


def _grants(
    name: str,
    roles: Roles,
    *,
    app: Sequence[Privilege],
    raw: Sequence[Privilege],
    control: Sequence[Privilege],
) -> list[str]:
    everyone = ", ".join(["PUBLIC", quote(roles.app), quote(roles.raw), quote(roles.control)])
    granted = ((app, roles.app), (raw, roles.raw), (control, roles.control))
    return [
        f"REVOKE ALL ON TABLE {name} FROM {everyone}",
        *(f"GRANT {', '.join(what)} ON TABLE {name} TO {quote(role)}" for what, role in granted if what),
    ]
