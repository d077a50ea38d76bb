"""Every error that tenantry raises.

::

    TenantryError
    ├── ConfigurationError          an option is wrong, unknown or of a part that is not built
    │   ├── MissingExtra            a driver is not installed
    │   └── SchemaError             a model cannot be declared like this
    ├── IsolationError              a guard refused; nothing was read or written
    │   ├── TenantRequired          no tenant was named
    │   ├── ContextMismatch         two tenants were named
    │   ├── UnsafeRole              the database role would void the isolation
    │   ├── AttestationFailed       one canary tenant reached another's rows
    │   ├── SealRejected            the database did not accept the tenant's seal
    │   ├── JobRejected             a job's token does not let it run; carries the reason
    │   ├── CredentialRejected      an API key or an invitation is not accepted; carries the reason
    │   └── SupportRefused          the tenant does not let support in, or no longer
    ├── AccessDenied                the policy does not let this user do it; nothing was read or written
    │   └── FieldHidden             carries the path to the field
    ├── TenantError                 about a tenant itself
    │   ├── InvalidTenantId
    │   ├── TenantNotFound
    │   ├── TenantExists
    │   ├── TenantSuspended
    │   ├── TenantDeleted
    │   ├── InvalidTransition
    │   ├── PurgeIncomplete
    │   ├── MemberExists
    │   ├── LastOwner               a tenant that has owners keeps one
    │   └── QuotaExceeded           carries what is limited, and how much of it is used
    ├── InvalidRequest              the call is wrong; the database was not touched
    │   ├── InvalidQuery            carries the path to the fault
    │   ├── InvalidRecord           carries the field
    │   ├── UnknownCollection
    │   ├── ReadOnlyCollection
    │   ├── UnknownPlan
    │   ├── UnknownFlag
    │   └── Unsupported             this database cannot do it
    ├── MigrationRefused            a migration would lose data or isolation
    ├── DataError                   the database refused
    │   ├── NotFound
    │   ├── Conflict                carries the current version
    │   ├── UniqueViolation
    │   ├── ReferenceViolation
    │   ├── BulkFailed              some items of a bulk call were refused; carries their errors
    │   ├── IdempotencyConflict
    │   ├── TransactionFailed
    │   ├── ArchiveError            a file of a tenant is damaged, or does not fit the models
    │   ├── AdoptionError           an existing schema cannot be adopted as it stands
    │   └── SchemaMismatch
    └── Unavailable                 try again later
        ├── DatabaseUnavailable     says whether anything may have been written
        │   └── SerializationFailure
        ├── DirectoryUnavailable
        ├── OperationTimeout
        └── Closed
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any


class TenantryError(Exception):
    """The root of the tree.

    Args:
        message: What happened.
        fix: What to do about it, shown behind the message.

    Attributes:
        index: In a bulk call, the position of the item that it is about; 0 is the first.
        partial: Where a bulk call broke off, the ``BulkResult`` of the batches before.
    """

    index: int | None = None
    partial: Sequence[Any] | None = None

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        said = f"{self.message} {self.fix}" if self.fix else self.message
        return said if self.index is None else f"Item {self.index}: {said}"

    def __reduce__(self) -> tuple[Callable[..., TenantryError], tuple[Any, ...]]:
        # The constructors take keywords, of which pickle and copy know nothing.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[TenantryError], args: tuple[Any, ...], state: dict[str, Any]) -> TenantryError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(TenantryError, ValueError):
    """An option is wrong. ``field`` is its dotted name, such as ``database.pool_size``."""

    def __init__(self, message: str, *, field: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.field = field


class MissingExtra(ConfigurationError):
    """A driver is not installed; the message says which extra brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed.", fix=f"Install it with: pip install 'tenantry[{extra}]'"
        )


class SchemaError(ConfigurationError):
    """A model cannot be declared like this."""


class IsolationError(TenantryError):
    """A guard refused. Nothing was read or written."""


class TenantRequired(IsolationError):
    """No tenant was named, so there is no data."""

    def __init__(self, what: str = "This call", *, fix: str | None = None) -> None:
        super().__init__(
            f"{what} needs a tenant and none was given.",
            fix=fix
            or 'Use a bound handle, `async with sdk.tenant("acme") as acme`, or pass context=…; '
            'work across tenants goes through sdk.system(reason="…").',
        )


class ContextMismatch(IsolationError):
    """Two different tenants were named for one call."""


class UnsafeRole(IsolationError):
    """The database role is an owner, a superuser or bypasses row-level security."""


class AttestationFailed(IsolationError):
    """At boot, a canary tenant reached another canary's rows."""


class SealRejected(IsolationError):
    """The database did not accept the seal that names the tenant of a connection."""


class JobRejected(IsolationError):
    """The token that a job carries does not let it run. Its body did not run.

    ``reason`` is one of ``malformed``, ``forged``, ``unknown-key``, ``expired``, ``other-task``, ``other-queue``,
    ``other-job`` and ``other-arguments``.
    """

    def __init__(self, message: str, *, reason: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.reason = reason


class CredentialRejected(IsolationError):
    """An API key or the token of an invitation is not accepted. The message does not repeat it.

    ``reason`` is one of ``malformed``, ``unknown``, ``expired``, ``revoked``, ``used`` and ``for somebody else``. It is
    for logs; whoever sent the credential needs no more than that it was not accepted.
    """

    def __init__(self, message: str, *, reason: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.reason = reason


class SupportRefused(IsolationError):
    """The tenant does not let support in, or no longer: no consent, revoked, or the time is over."""


class AccessDenied(TenantryError):
    """The access policy does not let this user do it. Nothing was read or written.

    Attributes:
        action: ``read``, ``create``, ``update``, ``delete`` or ``raw``.
        collection: Of which collection; ``None`` for raw access.
        roles: The roles that the user was found to have.
    """

    def __init__(
        self,
        message: str,
        *,
        action: str,
        collection: str | None = None,
        roles: Collection[str] = (),
        fix: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.action = action
        self.collection = collection
        self.roles = tuple(sorted(roles))


class FieldHidden(AccessDenied, AttributeError):
    """The access policy keeps a field from this user. ``path`` leads to where it was named, such as ``where.cost``."""

    def __init__(
        self,
        message: str,
        *,
        path: str,
        action: str,
        collection: str | None = None,
        roles: Collection[str] = (),
        fix: str | None = None,
    ) -> None:
        super().__init__(f"{path}: {message}", action=action, collection=collection, roles=roles, fix=fix)
        self.path = path


class TenantError(TenantryError):
    """About one tenant. ``tenant_id`` is the tenant's id as it was given."""

    def __init__(self, message: str, *, tenant_id: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.tenant_id = tenant_id


class InvalidTenantId(TenantError, ValueError):
    """The text cannot be a tenant id."""


class TenantNotFound(TenantError):
    """No such tenant."""


class TenantExists(TenantError):
    """The id or slug is taken by a tenant with other properties."""


class TenantSuspended(TenantError):
    """The tenant is suspended; its data is kept and cannot be reached."""


class TenantDeleted(TenantError):
    """The tenant is marked for deletion or purged."""


class InvalidTransition(TenantError):
    """The status machine has no such step. ``current`` and ``wanted`` name the two ends."""

    def __init__(self, *, tenant_id: str, current: str, wanted: str, fix: str | None = None) -> None:
        super().__init__(
            f"Tenant {tenant_id!r} is {current}; it cannot become {wanted}.", tenant_id=tenant_id, fix=fix
        )
        self.current = current
        self.wanted = wanted


class PurgeIncomplete(TenantError):
    """Rows were left after a purge. ``remaining`` counts them per table."""

    def __init__(self, *, tenant_id: str, remaining: dict[str, int]) -> None:
        left = ", ".join(f"{table}: {count}" for table, count in sorted(remaining.items()))
        super().__init__(
            f"Purging tenant {tenant_id!r} left rows ({left}).",
            tenant_id=tenant_id,
            fix="Stop what still writes for this tenant, then purge again.",
        )
        self.remaining = remaining


class MemberExists(TenantError):
    """The user is a member with other roles."""


class LastOwner(TenantError):
    """The tenant would lose its last owner."""


class QuotaExceeded(TenantError):
    """The tenant's plan allows no more; what was asked for did not take place.

    Attributes:
        quota: ``rows``, ``rows:<collection>``, ``storage`` (in bytes), ``members`` or ``requests``.
        used: How much is used without it.
        limit: How much may be used.
        plan: The tenant's plan.
        wanted: How much more was asked for.
        retry_after: Seconds until the window of a quota of requests ends; ``None`` for the other quotas.
    """

    def __init__(
        self,
        *,
        quota: str,
        used: int,
        limit: int,
        plan: str | None,
        tenant_id: str,
        wanted: int = 1,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            f"Tenant {tenant_id!r} uses {used} of {limit} ({quota}) and cannot use {wanted} more.",
            tenant_id=tenant_id,
            fix="Wait for the next window, or raise the limit: set_quota(…), or another plan."
            if retry_after is not None
            else "Delete something, or raise the limit: set_quota(…), or another plan.",
        )
        self.quota = quota
        self.used = used
        self.limit = limit
        self.plan = plan
        self.wanted = wanted
        self.retry_after = retry_after


class InvalidRequest(TenantryError, ValueError):
    """The call is wrong. The database was not touched."""


class InvalidQuery(InvalidRequest):
    """A query is wrong. ``path`` leads to the fault, such as ``where.price.lt``."""

    def __init__(self, message: str, *, path: str, fix: str | None = None) -> None:
        super().__init__(f"{path}: {message}", fix=fix)
        self.path = path


class InvalidRecord(InvalidRequest):
    """A value cannot be stored. ``field`` names it, such as ``price`` or ``items[3].sku``."""

    def __init__(self, message: str, *, field: str, fix: str | None = None) -> None:
        super().__init__(f"{field}: {message}", fix=fix)
        self.field = field


class UnknownCollection(InvalidRequest):
    """No collection of this name is registered."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"There is no collection {name!r}.",
            fix=f"Known: {', '.join(sorted(known)) or 'none'}. Pass its model in models=[…].",
        )
        self.name = name


class ReadOnlyCollection(InvalidRequest):
    """Shared reference data is read by every tenant and written by none."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is shared reference data: tenants read it and cannot write it.",
            fix='Write it through sdk.system(reason="…").',
        )
        self.name = name


class UnknownPlan(InvalidRequest):
    """No plan of this name is declared."""

    def __init__(self, name: str, *, known: Sequence[str], suggestion: str | None = None) -> None:
        guess = f"Did you mean {suggestion!r}? " if suggestion else ""
        super().__init__(f"There is no plan {name!r}.", fix=f"{guess}Known: {', '.join(known)}.")
        self.name = name
        self.known = tuple(known)
        self.suggestion = suggestion


class UnknownFlag(InvalidRequest):
    """No feature flag of this name is declared."""

    def __init__(self, name: str, *, known: Sequence[str], suggestion: str | None = None) -> None:
        guess = f"Did you mean {suggestion!r}? " if suggestion else ""
        super().__init__(
            f"There is no flag {name!r}.",
            fix=f"{guess}Known: {', '.join(known) or 'none'}. Pass it in flags=[…].",
        )
        self.name = name
        self.known = tuple(known)
        self.suggestion = suggestion


class Unsupported(InvalidRequest):
    """This database, or this placement, cannot do what was asked."""


class MigrationRefused(TenantryError):
    """A migration would lose data or isolation, or nobody can tell that it would not. Nothing was changed."""


class DataError(TenantryError):
    """The database refused."""


class NotFound(DataError):
    """No such row in this tenant."""

    def __init__(self, collection: str, id: object) -> None:
        super().__init__(f"No row {str(id)!r} in {collection!r}.")
        self.collection = collection
        self.id = id


class Conflict(DataError):
    """Another writer was first. ``current_version`` is the version that is stored now."""

    def __init__(self, collection: str, id: object, *, expected: int, current: int) -> None:
        super().__init__(
            f"Row {str(id)!r} in {collection!r} is at version {current}, not {expected}.",
            fix="Read it again and repeat the change.",
        )
        self.collection = collection
        self.id = id
        self.expected_version = expected
        self.current_version = current


class UniqueViolation(DataError):
    """A value that must be unique within the tenant is taken. ``fields`` names the columns."""

    def __init__(self, collection: str, fields: Sequence[str]) -> None:
        super().__init__(f"{collection!r} already has a row with this {', '.join(fields) or 'key'}.")
        self.collection = collection
        self.fields = tuple(fields)


class ReferenceViolation(DataError):
    """A reference names a row that this tenant does not have, or a row that is still referred to."""

    def __init__(self, collection: str, field: str | None = None) -> None:
        where = f"{collection}.{field}" if field else collection
        super().__init__(
            f"{where}: the referenced row does not exist in this tenant, or is still referred to."
        )
        self.collection = collection
        self.field = field


class BulkFailed(DataError):
    """Some items of a bulk call were refused; the others took place.

    Attributes:
        errors: The error of each refused item, in order; each carries its ``index``.
        total: How many items there were.
    """

    def __init__(self, errors: Sequence[TenantryError], total: int) -> None:
        super().__init__(f"{len(errors)} of {total} items were refused. The first: {errors[0]}")
        self.errors = tuple(errors)
        self.total = total


class IdempotencyConflict(DataError):
    """The idempotency key was used before for a different request."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Idempotency key {key!r} was used for a different request.",
            fix="Use a new key for a new request.",
        )
        self.key = key


class TransactionFailed(DataError):
    """A write in this transaction failed before, so the transaction can only be rolled back."""

    def __init__(self) -> None:
        super().__init__(
            "An earlier write in this transaction failed; nothing of it is kept.",
            fix="Let the error leave the `async with` block, then run the whole block again.",
        )


class AdoptionError(DataError):
    """An existing schema or its data cannot be adopted as it stands; nothing of the step that refused was done."""


class ArchiveError(DataError):
    """The file of an exported tenant is damaged, of another version, or does not fit the models."""


class SchemaMismatch(DataError):
    """The database does not have the tables that the models declare. ``differences`` lists them."""

    def __init__(self, differences: Sequence[str], *, fix: str) -> None:
        listed = "".join(f"\n  - {difference}" for difference in differences)
        super().__init__(f"The database does not match the models:{listed}\n", fix=fix)
        self.differences = tuple(differences)


class Unavailable(TenantryError):
    """Something outside is away. The call may be tried again later."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, or dropped the connection.

    ``nothing_written`` is true where it is certain that nothing of the call was written, so that running it again
    cannot apply it twice. Where it is false, nobody knows.
    """

    def __init__(self, message: str, *, fix: str | None = None, nothing_written: bool = False) -> None:
        super().__init__(message, fix=fix)
        self.nothing_written = nothing_written


class SerializationFailure(DatabaseUnavailable):
    """Of several transactions that got in each other's way the database rolled this one back: run it again."""

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message, fix=fix, nothing_written=True)


class DirectoryUnavailable(Unavailable):
    """The tenant directory could not be read in time, so no tenant is admitted."""


class OperationTimeout(Unavailable, TimeoutError):
    """The operation took longer than its timeout."""


class Closed(Unavailable):
    """The SDK is closed, or was never initialised."""
