"""``tenantry init``: roles, schema, seal key and rights, in one command that may be repeated.

After it, a database has four roles (see :class:`~tenantry.databases.postgres.policies.Roles`) of which none is a
superuser, owns what another one writes, or bypasses row-level security, and a schema ``tenantry`` that holds the seal.

What the raw role, and whoever injects SQL into the app role, could otherwise read of another tenant or leave behind
for it, and what closes it:

======================================================  =========================================================
a temporary table that shadows a real one               TEMPORARY on the database is revoked from PUBLIC
tables, types, operators, functions                     CREATE on the schema is revoked from PUBLIC
``DO`` blocks and functions in trusted languages        USAGE on those languages is revoked from PUBLIC
large objects (one role owns every tenant's)            the ``lo_…`` functions are revoked from PUBLIC
advisory locks, visible to all in ``pg_locks``          the functions are revoked from PUBLIC
statement texts in ``pg_stat_activity``                 ``track_activities`` is off for app and raw
statement texts in ``pg_stat_statements``               its function is revoked from PUBLIC
cancelling or killing another tenant's statement        ``pg_cancel_backend``, ``pg_terminate_backend`` are revoked
another statement under the name of a prepared one      names are random, and ``pg_prepared_statements`` is closed
messages forged into logical decoding                   ``pg_logical_emit_message`` is revoked
later functions of the owner                            EXECUTE is no longer granted to PUBLIC by default
======================================================  =========================================================

PostgreSQL offers no right to take away for these, so the SDK refuses or wipes them on its side:

- Settings, prepared statements, cursors, ``LISTEN``: discarded after a user's own SQL. Not after our own statements:
  what SQL injected into one of those sets, such as a timeout, stays until the connection closes, and opens nothing.
- ``ALTER ROLE`` on oneself (settings, even the password), ``NOTIFY``, ``ALTER DEFAULT PRIVILEGES``, ``LOCK TABLE``: a
  user's own SQL must be one SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, WITH or EXPLAIN, sent through the extended
  protocol, which takes one statement at a time. None of those can be reached from inside of one.

Accepted side channels: sizes, row estimates and counters of tables and indexes; "rows removed by filter" in EXPLAIN
ANALYZE; names of tables, columns and roles; locks held (on relations, not rows); numbers of transactions and WAL
positions; start times and addresses of other connections; timing; load; the names (never values) of custom settings
that outlive ``DISCARD ALL``. A placement of its own closes them for a tenant.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.parse import quote as percent

import asyncpg

from tenantry.databases.postgres.counting import counting_functions
from tenantry.databases.postgres.policies import Roles, quote, quote_literal, trigger_functions
from tenantry.databases.postgres.rights import Unmet, grant_rights, unmet_rights
from tenantry.databases.postgres.seal import SealKey, seal_functions, seal_tables
from tenantry.databases.postgres.search import search_functions, search_rights
from tenantry.errors import ConfigurationError, DatabaseUnavailable

_LOCK = 0x74656E616E747279  # "tenantry"
_ATTEMPTS = 5
_SCRAM_ITERATIONS = 4096
_VARIABLES: Final = {
    "app": "TENANTRY_DATABASE_URL",
    "control": "TENANTRY_DATABASE_CONTROL_URL",
    "raw": "TENANTRY_DATABASE_RAW_URL",
    "owner": "TENANTRY_DATABASE_OWNER_URL",
}


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What ``init`` made. It holds secrets: they are kept out of its ``repr``.

    Attributes:
        roles: The names of the roles.
        urls: By role (``owner``, ``app``, ``raw``, ``control``); a role that existed already is missing unless
            passwords were reset, since a password cannot be read back.
        seal_key: The newest seal key.
        system_identifier: Names the installation in every seal.
        unmet: What could not be done.
    """

    roles: Roles
    urls: Mapping[str, str] = field(repr=False)
    seal_key: SealKey
    system_identifier: str
    unmet: tuple[Unmet, ...] = ()

    def env(self) -> str:
        """Return the lines of an ``.env`` file."""
        lines = [
            f"{variable}={self.urls[role]}" for role, variable in _VARIABLES.items() if role in self.urls
        ]
        kept = [variable for role, variable in _VARIABLES.items() if role not in self.urls]
        if kept:
            lines.insert(
                0, f"# unchanged, keep them as they are: {', '.join(kept)} (new ones: --reset-passwords)"
            )
        return "\n".join([*lines, f"TENANTRY_DATABASE_SEAL_KEY={self.seal_key.export()}", ""])


async def provision(
    admin_url: str,
    *,
    database: str | None = None,
    schema: str = "public",
    prefix: str = "tenantry",
    reset_passwords: bool = False,
    harden: bool = True,
) -> Provisioned:
    """Prepare a database. Doing it again changes nothing that is right already.

    Args:
        admin_url: A superuser's URL, or that of a role that may create roles and owns the database.
        database: The database to prepare, made if there is none; by default the one in ``admin_url``.
        schema: Where the tables of the models live.
        prefix: Begins the names of the roles. Roles belong to the whole server: databases that must not share
            them need prefixes of their own.
        reset_passwords: Give the roles new passwords, also those that exist.
        harden: Revoke from PUBLIC what a user's own SQL must not have. Turn it off for a database that other
            programs use too, and read :attr:`Provisioned.unmet`.

    Raises:
        ConfigurationError: The URL cannot be read, or the admin role may not create roles.
        DatabaseUnavailable: The server cannot be reached.
    """
    roles = Roles.named(prefix)
    if database is not None:
        await _create_database(admin_url, database)
        admin_url = _with_database(admin_url, database)
    connection = await _connect(admin_url)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                async with connection.transaction():
                    passwords, key, system = await _provision(
                        connection, roles, schema, reset_passwords, harden
                    )
                    unmet = await unmet_rights(connection, roles, schema)
                break
            except _RACES:
                # Roles are shared by all databases of a server, and no lock of ours reaches the others.
                if attempt + 1 == _ATTEMPTS:
                    raise
        else:  # pragma: no cover
            raise AssertionError("unreachable")
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"The admin role may not prepare this database: {error}",
            field="admin_url",
            fix="Use a superuser, or a role with CREATEROLE that owns the database.",
        ) from error
    finally:
        await connection.close()
    urls = {
        role: _with_user(admin_url, getattr(roles, role), password) for role, password in passwords.items()
    }
    return Provisioned(roles, urls, key, system, tuple(unmet))


_RACES = (
    asyncpg.DuplicateObjectError,
    asyncpg.UniqueViolationError,
    asyncpg.InternalServerError,  # "tuple concurrently updated"
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


async def add_seal_key(connection: Any) -> SealKey:
    """Make a second seal key and make it valid. Roll it out to every process, then retire the first one.

    The server makes the key, and answers with it: answers are in no log, statements and their parameters may be.

    Args:
        connection: An asyncpg connection of the owner or a superuser.

    Raises:
        ConfigurationError: If two keys are valid already.
    """
    async with connection.transaction():
        await connection.execute("LOCK TABLE tenantry.seal_keys IN SHARE ROW EXCLUSIVE MODE")
        valid = await connection.fetchval("SELECT count(*) FROM tenantry.seal_keys WHERE retired_at IS NULL")
        if valid >= 2:
            raise ConfigurationError(
                "Two seal keys are valid already.", field="seal_key", fix="Retire the older one first."
            )
        return _key(await connection.fetchrow(_NEW_KEY))


def _key(row: Any) -> SealKey:
    """Return the key behind a row. Whoever may read the pads may have the key."""
    secret = bytes(byte ^ 0x36 for byte in row["inner_pad"])
    # A key that is padded with zeros makes the same pads as the key itself.
    return SealKey(row["kid"], secret[:32] if not any(secret[32:]) else secret)


async def retire_seal_key(connection: Any, kid: str) -> None:
    """Make a seal key invalid, at once and for good.

    Args:
        connection: An asyncpg connection of the owner or a superuser.
        kid: The key's name.

    Raises:
        ConfigurationError: If no such key is valid, or it is the only one.
    """
    async with connection.transaction():
        await connection.execute("LOCK TABLE tenantry.seal_keys IN SHARE ROW EXCLUSIVE MODE")
        rows = await connection.fetch("SELECT kid FROM tenantry.seal_keys WHERE retired_at IS NULL")
        kids = {row["kid"] for row in rows}
        if kid not in kids:
            raise ConfigurationError(f"No valid seal key is named {kid!r}.", field="seal_key")
        if len(kids) == 1:
            raise ConfigurationError(
                f"{kid!r} is the only valid seal key.", field="seal_key", fix="Add a new one first."
            )
        # The pads go too: a retired key is of no use to whoever finds it in a backup.
        await connection.execute(
            "UPDATE tenantry.seal_keys SET retired_at = now(), inner_pad = $2, outer_pad = $2 WHERE kid = $1",
            kid,
            bytes(64),
        )


def scram_verifier(password: str) -> str:
    """Return the SCRAM-SHA-256 verifier of an ASCII password (RFC 5802, RFC 7677), as PostgreSQL stores it.

    Sent in place of the password, so that this never stands in a statement or a server log.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"


# --- the steps -----------------------------------------------------------------------------------------------------


async def _provision(
    connection: Any, roles: Roles, schema: str, reset_passwords: bool, harden: bool
) -> tuple[dict[str, str], SealKey, str]:
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    passwords = await _roles(connection, roles, reset_passwords)
    await grant_rights(connection, roles, schema, harden=harden)
    await connection.execute(f"SET LOCAL ROLE {quote(roles.owner)}")
    system = await _system_identifier(connection)
    key = await _seal(connection, roles, system)
    await connection.execute("RESET ROLE")
    return passwords, key, system


async def _roles(connection: Any, roles: Roles, reset_passwords: bool) -> dict[str, str]:
    """Make the missing roles. Return the passwords that were set."""
    known = {
        row["rolname"]
        for row in await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY($1)", roles)
    }
    passwords: dict[str, str] = {}
    for name, role in roles._asdict().items():
        if role in known and not reset_passwords:
            continue
        passwords[name] = secrets.token_urlsafe(24)
        # The attributes not named are all "no" by default, and naming them needs a superuser.
        inherit = "INHERIT" if name == "owner" else "NOINHERIT"
        verb = "ALTER" if role in known else "CREATE"
        await connection.execute(
            f"{verb} ROLE {quote(role)} LOGIN {inherit} PASSWORD {quote_literal(scram_verifier(passwords[name]))}"
        )
    # The owner defines the function that checks the seal, and only a role with another's rights is told when that
    # one's backends started. It may use those rights but not become that role.
    version = connection.get_server_version()
    how = " WITH INHERIT TRUE, SET FALSE" if version >= (16, 0) else ""
    for role in (roles.app, roles.raw):
        if not await _is_member(connection, roles.owner, role):
            await connection.execute(f"GRANT {quote(role)} TO {quote(roles.owner)}{how}")
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") and not (
        await connection.fetchval(
            "SELECT pg_has_role(current_user, $1, $2)", roles.owner, "SET" if version >= (16, 0) else "MEMBER"
        )
    ):
        await connection.execute(f"GRANT {quote(roles.owner)} TO CURRENT_USER")
    return passwords


async def _is_member(connection: Any, member: str, role: str) -> bool:
    found = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_auth_members WHERE member = to_regrole($1) AND roleid = to_regrole($2))",
        quote(member),
        quote(role),
    )
    return bool(found)


async def _seal(connection: Any, roles: Roles, system: str) -> SealKey:
    """As the owner: the schema's contents. Return the newest valid key, made if there is none."""
    await connection.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    for statement in (
        *seal_tables(),
        *seal_functions(system, connection.get_server_version().major),
        *trigger_functions(),
        *search_functions(connection.get_server_version().major),
        search_rights(roles),
        *counting_functions(),
    ):
        await connection.execute(statement)
    app, raw = quote(roles.app), quote(roles.raw)
    await connection.execute(
        f"GRANT EXECUTE ON FUNCTION tenantry.session(), tenantry.bind(text), tenantry.current_tenant() TO {app}, {raw}"
    )
    await connection.execute(f"GRANT SELECT, INSERT ON tenantry.fences TO {quote(roles.control)}")
    newest = await connection.fetchrow(_NEWEST_KEY)
    return await add_seal_key(connection) if newest is None else _key(newest)


async def _system_identifier(connection: Any) -> str:
    try:
        async with connection.transaction():
            return str(await connection.fetchval("SELECT system_identifier FROM pg_control_system()"))
    except asyncpg.InsufficientPrivilegeError:
        pass
    try:
        async with connection.transaction():
            return str(await connection.fetchval("SELECT system_identifier FROM tenantry.session()"))
    except (
        asyncpg.UndefinedFunctionError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.InsufficientPrivilegeError,
    ):
        return str(secrets.randbits(63))


_NEWEST_KEY: Final = """SELECT kid, inner_pad FROM tenantry.seal_keys
WHERE retired_at IS NULL ORDER BY created_at DESC, kid LIMIT 1"""
# 256 of the 488 random bits of four UUIDs, from the server's strong source; the pads as in RFC 2104, section 2.
_NEW_KEY: Final = """WITH made AS MATERIALIZED (
  SELECT sha256(string_agg(uuid_send(gen_random_uuid()), ''::bytea)) AS secret FROM generate_series(1, 4)
), padded AS (
  SELECT secret || decode(repeat('00', 32), 'hex') AS block FROM made
)
INSERT INTO tenantry.seal_keys (kid, inner_pad, outer_pad)
SELECT 'k' || left(replace(gen_random_uuid()::text, '-', ''), 12),
  string_agg(set_byte('\\x00', 0, get_byte(block, i) # 54), ''::bytea ORDER BY i),
  string_agg(set_byte('\\x00', 0, get_byte(block, i) # 92), ''::bytea ORDER BY i)
FROM padded, generate_series(0, 63) i
RETURNING kid, inner_pad"""
# --- URLs ----------------------------------------------------------------------------------------------------------


async def _connect(url: str) -> Any:
    try:
        return await asyncpg.connect(url, server_settings={"application_name": "tenantry init"}, timeout=15)
    except (OSError, asyncpg.PostgresError) as error:
        raise DatabaseUnavailable(f"Cannot connect as the admin role: {error}") from error
    except (asyncpg.InterfaceError, ValueError):
        raise ConfigurationError(
            "The admin URL cannot be read.", field="admin_url", fix="Use postgresql://postgres@HOST/DATABASE."
        ) from None


async def _create_database(admin_url: str, database: str) -> None:
    connection = await _connect(admin_url)
    try:
        if not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database
        ):
            await connection.execute(f"CREATE DATABASE {quote(database)}")
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # someone else was first
    finally:
        await connection.close()


def _with_database(url: str, database: str) -> str:
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("database", "dbname")]
    return urlunsplit(parts._replace(path="/" + percent(database, safe=""), query=urlencode(query)))


def _with_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query)
        if name not in ("user", "password", "passfile")
    ]
    netloc = f"{percent(user, safe='')}:{percent(password, safe='')}@{hosts}"
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query)))
