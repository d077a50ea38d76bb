"""Connections of one role: opened, checked, and given the means to be bound to a tenant."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from tenantry.databases.postgres.findings import INIT_COMMAND
from tenantry.databases.postgres.seal import (
    MESSAGE_PREFIX,
    SEAL_SETTING,
    SQLSTATE_FENCED,
    SQLSTATE_REJECTED,
    Backend,
    Sealer,
    SealKey,
)
from tenantry.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    OperationTimeout,
    SealRejected,
    TenantDeleted,
    TenantryError,
    UnsafeRole,
)

if TYPE_CHECKING:
    _Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

INIT_HINT: Final = f"Run: {INIT_COMMAND}"
# InternalClientError is what asyncpg raises when a command meets the server's last word on an idle connection.
DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

BIND: Final = f"SELECT pg_catalog.set_config('{SEAL_SETTING}', $1, false)"
REBIND: Final = f"SELECT pg_catalog.set_config('{SEAL_SETTING}', $1, true)"
BIND_LOCAL: Final = (
    f"SELECT pg_catalog.set_config('{SEAL_SETTING}', tenantry.bind($1), true), "
    "pg_catalog.set_config('search_path', $2, true)"
)
# The seed of random() is the one thing that DISCARD ALL leaves of the last user.
BIND_WIPED: Final = f"{BIND_LOCAL}, pg_catalog.setseed($3)"
# After one of these nobody knows what the connection is in the middle of.
_SPOILING = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, SealRejected)
# A statement that we had prepared is gone, or writes are refused: something came between us and the session, or the
# server is a replica by now. Another connection may do.
_ESTRANGED = frozenset({"26000", "25006"})
_STATEMENTS_KEPT = 1_000
_STATEMENT_GONE = "26000"  # a prepared statement of ours is missing: somebody meddled with the session
_LONGEST_CHAIN = 20


class TenantConnection(_Connection):
    """An asyncpg connection with two habits more.

    It remembers whether a command on it was ever cancelled or timed out, and it gives its prepared statements names
    that nobody can guess: whoever injects SQL could otherwise prepare another statement under a name of ours, which
    the next tenant would then run.
    """

    __slots__ = ("tainted",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tainted = False

    def _cancel_current_command(self, *args: Any) -> None:
        # asyncpg calls this for every cancellation and timeout, also for one that the caller then swallows. It tells
        # the server in the background, and the cancellation may meet the next command instead.
        self.tainted = True
        super()._cancel_current_command(*args)  # type: ignore[misc]

    def _get_unique_id(self, prefix: str) -> str:
        return f"tenantry_{prefix}_{secrets.token_hex(12)}"


class Slot:
    """One connection, and for whom it is bound.

    Attributes:
        connection: The connection.
        tenant: For whom it was last seen to be bound; ``None`` for nobody.
        fresh_until: Until when, by ``monotonic()``, its seal may be relied on.
        released_at: When it was last given back, by ``monotonic()``.
        backend: The server process; unknown behind a pooler.
        sealer: Signs its seals; ``None`` for a role without tenants.
        clock: The server's clock minus ``monotonic()``, so that neither side's clock has to be right.
        bind: The prepared binding, if it can be kept prepared.
    """

    __slots__ = ("backend", "bind", "clock", "connection", "fresh_until", "released_at", "sealer", "tenant")

    def __init__(self, connection: TenantConnection) -> None:
        self.connection = connection
        self.tenant: str | None = None
        self.fresh_until = math.inf
        self.released_at = 0.0
        self.backend: Backend | None = None
        self.sealer: Sealer | None = None
        self.clock = 0.0
        self.bind: Any = None


class Connector:
    """Opens connections of one role.

    Args:
        dsn: The role's URL.
        keys: The seal keys, newest first; none for a role that serves no tenant.
        keep_statements: Whether the driver may keep statements prepared on the server.
        settings: Settings for the session that a pooler passes on.
        direct_settings: Settings for the session that a pooler may refuse.
        options: Further options of :func:`asyncpg.connect`.
    """

    def __init__(
        self,
        dsn: str,
        keys: Sequence[SealKey],
        *,
        keep_statements: bool,
        settings: dict[str, str],
        direct_settings: dict[str, str],
        options: dict[str, Any],
    ) -> None:
        self.where = describe(dsn)
        self.sealed = bool(keys)
        self.pooled = False
        self._dsn = dsn
        self._keys = tuple(keys)
        self._keep_statements = keep_statements
        self._settings = settings
        self._direct_settings = direct_settings
        self._options = options
        self._sealers: dict[str, Sealer] = {}
        self._newest: tuple[Sealer, float] | None = None

    async def scout(self) -> None:
        """Learn from one connection, which is not kept, whether a pooler stands in between.

        A pooler makes up the process id that the protocol announces at the start. Statements are not kept on this
        connection: an old pooler would not survive that.

        Raises:
            DatabaseUnavailable: The server cannot be reached or refuses the role.
            ConfigurationError: The URL cannot be read, or a proxy swallows settings.
        """
        try:
            connection = await self._dial(0)
        except DatabaseUnavailable as error:
            if "unsupported startup parameter" not in str(error):
                raise
            self.pooled = True  # PgBouncer refuses settings it does not know, and says so in these words
            connection = await self._dial(0)
        announced = connection.get_server_pid()
        try:
            pid = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()")
        except DRIVER_ERRORS as error:
            raise self._unreachable(error) from error
        finally:
            connection.terminate()
        if self.pooled and pid == announced:
            raise ConfigurationError(
                f"{self.where} refuses settings at the start of a connection, and no pooler was found.",
                field="database.url",
                fix="Let the proxy pass startup parameters, or connect to the server itself.",
            )
        self.pooled = pid != announced

    async def connect(self) -> Slot:
        """Open one connection, ask the server who it is, and prepare the binding.

        Raises:
            DatabaseUnavailable: The server cannot be reached or refuses the role.
            UnsafeRole: The database was never provisioned.
        """
        keep = self._keep_statements and not self.pooled
        slot = Slot(await self._dial(_STATEMENTS_KEPT if keep else 0))
        try:
            await self._introduce(slot)
            if self.sealed and keep:
                slot.bind = await slot.connection.prepare(BIND)
            elif self.sealed:
                # Unnamed and sent anew with each use, in one message with its arguments: a single round trip.
                text = BIND_LOCAL if self._keep_statements else BIND_WIPED
                slot.bind = await slot.connection.prepare(text, name="")
                # The driver leaves open what it began for that, in which a transaction could not choose its isolation.
                await slot.connection.execute("SELECT")
        except DRIVER_ERRORS as error:
            slot.connection.terminate()
            raise self._unreachable(error) from error
        except BaseException:
            slot.connection.terminate()
            raise
        return slot

    def ticket(self, tenant: str) -> str:
        """Return a ticket by which any connection to this server can bind one transaction, within ten seconds."""
        assert self._newest is not None
        sealer, clock = self._newest
        return sealer.sign(tenant, None, monotonic() + clock)

    async def dial(self, **_: Any) -> TenantConnection:
        """Open a connection on which the driver keeps nothing prepared. It is not bound, and not this pool's."""
        return await self._dial(0)

    async def _dial(self, statements: int) -> TenantConnection:
        settings = self._settings if self.pooled else {**self._settings, **self._direct_settings}
        try:
            connection: TenantConnection = await asyncpg.connect(
                self._dsn,
                server_settings=settings,
                statement_cache_size=statements,
                max_cached_statement_lifetime=0,
                connection_class=TenantConnection,
                **self._options,
            )
        except asyncpg.ClientConfigurationError:
            raise _unreadable_url() from None
        except DRIVER_ERRORS as error:
            raise self._unreachable(error) from error
        except ValueError:
            raise _unreadable_url() from None
        return connection

    async def _introduce(self, slot: Slot) -> None:
        connection = slot.connection
        if not self.sealed:
            pid = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()")
        else:
            sent = monotonic()
            session = await self._session(connection)
            slot.clock = session["now"] - (sent + monotonic()) / 2
            slot.sealer = self._sealer(session["system_identifier"])
            self._newest = slot.sealer, slot.clock
            pid = session["pid"]
            if not self.pooled:
                slot.backend = Backend(pid, session["slot"], session["started"])
        if (pid != connection.get_server_pid()) != self.pooled:
            raise DatabaseUnavailable(
                f"{self.where} was {'' if self.pooled else 'not '}behind a pooler at the start, and is "
                f"{'not ' if self.pooled else ''}now.",
                fix="Restart the application.",
            )

    async def _session(self, connection: TenantConnection) -> asyncpg.Record:
        try:
            session = await connection.fetchrow("SELECT * FROM tenantry.session()")
        except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError) as error:
            raise UnsafeRole(f"{self.where} was never provisioned.", fix=INIT_HINT) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise UnsafeRole(f"{self.where} may not use the seal: {error}.", fix=INIT_HINT) from error
        if session is None or session["started"] is None:
            raise UnsafeRole(
                f"{self.where}: the seal's owner is not told when this role's backends started.",
                fix=INIT_HINT,
            )
        return session

    def _sealer(self, system_identifier: str) -> Sealer:
        sealer = self._sealers.get(system_identifier)
        if sealer is None:
            sealer = self._sealers[system_identifier] = Sealer(self._keys, system_identifier)
        return sealer

    def _unreachable(self, error: BaseException) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"Cannot connect to {self.where}: {str(error) or type(error).__name__}")


def _unreadable_url() -> ConfigurationError:
    # Raised without a cause: asyncpg repeats parts of a URL that it cannot read, and the password may be one of them.
    return ConfigurationError(
        "The database URL cannot be read.",
        field="database.url",
        fix="Use postgresql://role:password@host:port/database and percent-encode the password.",
    )


def describe(dsn: str) -> str:
    """Return ``role@host:port/database`` for messages, without the password."""
    try:
        parts = urlsplit(dsn)
        host, port, user = parts.hostname or "localhost", parts.port or 5432, parts.username
    except ValueError:
        return "the database"
    return f"{user + '@' if user else ''}{host}:{port}{parts.path}"


def translate(error: BaseException) -> TenantryError | None:
    """Return our error for a driver's one that is about the connection, or ``None`` for any other.

    ==================================================  ==========================================
    the server refused the seal                         :class:`~tenantry.errors.SealRejected`
    the tenant is fenced off                            :class:`~tenantry.errors.TenantDeleted`
    lost, refused, or the server shuts down             :class:`~tenantry.errors.DatabaseUnavailable`
    timed out, here or on the server                    :class:`~tenantry.errors.OperationTimeout`
    ==================================================  ==========================================
    """
    if isinstance(error, asyncpg.PostgresError):
        return _translate_refusal(error)
    if isinstance(error, TimeoutError):
        return OperationTimeout("The database did not answer in time.")
    if isinstance(error, OSError):
        return DatabaseUnavailable(f"The database connection was lost: {error}")
    closed = isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)
    if closed or isinstance(error, asyncpg.InternalClientError):
        return DatabaseUnavailable("The database connection was lost.")
    return None


def _translate_refusal(error: asyncpg.PostgresError) -> TenantryError | None:
    code = error.sqlstate or ""
    if is_rejection(error):
        return SealRejected(str(error))
    if code == SQLSTATE_FENCED:
        return TenantDeleted(f"Tenant {error.detail!r} was deleted.", tenant_id=error.detail or "")
    if code in (
        "57014",
        "25P03",
        "25P04",
    ):  # cancelled, or idle in a transaction, or the transaction was too long
        return OperationTimeout(f"The database gave up: {error}.")
    if code.startswith(("08", "57P", "53300")) or code == _STATEMENT_GONE:
        return DatabaseUnavailable(f"The database connection was lost: {error}.")
    return None


def is_rejection(error: asyncpg.PostgresError) -> bool:
    """Whether the server refused a seal."""
    return error.sqlstate == SQLSTATE_REJECTED and str(error).startswith(MESSAGE_PREFIX)


def spoils(error: BaseException | None) -> bool:
    """Whether ``error``, or what it was raised from, leaves the connection in an unknown state."""
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            return False
        if not isinstance(error, Exception) or isinstance(error, _SPOILING):
            return True
        if isinstance(error, asyncpg.PostgresError) and (is_rejection(error) or error.sqlstate in _ESTRANGED):
            return True
        error = error.__cause__ or error.__context__
    return True
