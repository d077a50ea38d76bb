"""What an adapter implements. Adapters import this file; this file imports none of them.

An :class:`Executor` runs statements for a context. An adapter is an executor whose every call is a transaction of
its own, and :meth:`DatabaseAdapter.transaction` gives an executor whose calls share one.

Given a :class:`~tenantry.context.TenantContext`, an executor reaches the rows of that tenant and the shared
collections (to read). Given a :class:`~tenantry.context.SystemContext`, it reads every tenant's rows (or those of
the tenant it is narrowed to), each with its ``tenant_id``, and writes shared and control collections; of tenant
collections it can only purge.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from tenantry.aggregation import Aggregation
from tenantry.context import Context, TenantContext
from tenantry.errors import AccessDenied, DataError, InvalidRecord, QuotaExceeded, TenantryError
from tenantry.plans.quotas import Count
from tenantry.query import EVERYTHING, Deleted, Filter, Query
from tenantry.schema import Collection, Kind
from tenantry.searching import Search
from tenantry.types import Record

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Capability(enum.Enum):
    """What not every database can do. A feature that needs one is refused where it is missing."""

    TRANSACTIONS = "transactions"
    FOREIGN_KEYS = "foreign keys"
    DURABLE = "durable storage"
    RAW_SQL = "raw SQL as a role of its own"
    SESSIONS = "sessions of SQLAlchemy's ORM, and connections of one's own"
    ROW_LEVEL_SECURITY = "row-level security in the database"
    MULTI_PROCESS = "many processes on one database"
    FORK = "child processes that open it again"


Isolation = Literal["read_committed", "repeatable_read", "serializable"]


class Insert(msgspec.Struct, frozen=True, gc=False):
    """Insert ``records``. Yields them as stored.

    Attributes:
        trusted: Whether the application adds it to a user's work, as a hook does: no access policy binds it.
    """

    collection: Collection
    records: Sequence[Record]
    trusted: bool = False


class Update(msgspec.Struct, frozen=True, gc=False):
    """Set ``changes`` in the row ``id`` and add one to its version. Yields the row as stored.

    To delete softly is to set ``deleted_at``; to restore, to unset it in a row that has it (``deleted="only"``).

    Raises, when executed:
        NotFound: No such row, or it does not meet ``where``.
        Conflict: Its version is not ``expected_version``.
    """

    collection: Collection
    id: Any
    changes: Record
    expected_version: int | None = None
    where: Filter = EVERYTHING
    trusted: bool = False
    deleted: Deleted = "without"


class Upsert(msgspec.Struct, frozen=True, gc=False):
    """Insert ``record``, or where ``on`` is taken set ``changes`` in the row that has it. Yields the row as stored.

    Raises, when executed:
        UniqueViolation: The row that has it does not meet ``where`` or is deleted, or another unique value is taken.
    """

    collection: Collection
    record: Record
    on: tuple[str, ...]
    changes: tuple[str, ...]
    where: Filter = EVERYTHING
    trusted: bool = False


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Delete the row ``id`` for good, marked or not. Yields nothing; raises like :class:`Update`."""

    collection: Collection
    id: Any
    expected_version: int | None = None
    where: Filter = EVERYTHING
    trusted: bool = False


class Discard(msgspec.Struct, frozen=True):
    """Delete for good those of the rows ``ids`` that were marked as deleted before ``before``. Yields their ids."""

    collection: Collection
    ids: Sequence[Any]
    before: dt.datetime


class Purge(msgspec.Struct, frozen=True):
    """Delete every row of the tenant that the system context is narrowed to.

    Yields one record ``{"deleted": count, "remaining": count}``.
    """

    collection: Collection


Write = Insert | Update | Upsert | Delete | Discard | Purge
Outcome = Record | TenantryError | None
"""What came of one write of many: the row as stored, nothing for a delete, or why it was refused."""
REFUSALS = (AccessDenied, DataError, InvalidRecord, QuotaExceeded)
"""The errors that are about one write; any other is about all of them."""


class Executor(Protocol):
    """Runs statements for a context, scoped by construction."""

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return the rows with these ids, in any order; those that do not exist or are deleted are left out."""

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return the rows of ``query``, in order. Each record is a new dict that the caller may keep."""

    async def count(self, context: Context, query: Query) -> int:
        """Return how many rows meet the filter of ``query``."""

    async def search(self, context: Context, search: Search) -> list[Record]:
        """Return the rows that ``search`` finds, the best first, each with its score as ``_score``.

        The score is a whole number, the same on every database; :meth:`~tenantry.searching.Search.score` is the model.
        """

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        """Return the groups of ``aggregation``, in order. The system's are over the rows of all tenants together."""

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes or none. Return what each of them yields.

        Raises:
            NotFound, Conflict, UniqueViolation, ReferenceViolation: And nothing was written.
            Unavailable: It is not known whether the writes took place.
        """

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes in one transaction: one that is refused leaves nothing, and the others take place.

        What comes of each is what would come of it if they ran one after the other, each by itself.

        Args:
            context: Who asks.
            writes: Of one kind and to one collection; an :class:`Insert` among them has one record.
            added: What shares the fate of single ones, by their position.

        Raises:
            TenantryError: It is not about one write, such as ``Unavailable``. None took place, so far as is known.
        """


class Database(Executor, Protocol):
    """What rows are reached through: an adapter, or a guard before one."""

    name: str
    capabilities: frozenset[Capability]

    def transaction(
        self, context: Context, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Executor]:
        """Return an executor whose calls take place together when the block ends, or not at all.

        Args:
            context: Whose.
            isolation: How much it may see of transactions beside it, at most; by default what the database does.

        Raises:
            SerializationFailure: It got in another's way, and nothing of it was written.
        """

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Run a statement of the user's own as the raw role, bound to the tenant.

        Raises:
            Unsupported: Nothing in this database would hold it to the tenant.
        """


class DatabaseAdapter(Database, Protocol):
    """One database."""

    async def open(self, collections: Sequence[Collection]) -> None:
        """Connect, and learn the collections that will be used."""

    async def create_schema(self) -> None:
        """Create the tables that do not exist yet. For development."""

    async def check_schema(self) -> list[str]:
        """Return how the tables differ from the collections; empty when they do not."""

    async def undeclared_tables(self) -> list[str]:
        """Return the tables that hold rows of tenants and belong to no collection, so that a purge misses none."""

    async def fence(self, tenant_id: str) -> None:
        """Refuse this tenant's writes for good, in the database itself, and return once none is under way.

        Whatever was admitted before and arrives later, from any process, raises
        :class:`~tenantry.errors.TenantDeleted` and writes nothing. Safe to call twice.

        Raises:
            Unavailable: A transaction from before is still open; the fence stands.
        """

    async def attest(self) -> None:
        """Prove through the live connections that one tenant cannot reach another.

        Raises:
            IsolationError: It can, or this cannot be shown.
        """

    async def close(self) -> None:
        """Release everything. Safe to call twice."""


@runtime_checkable
class Meter(Protocol):
    """A database that counts each tenant's rows as they are written, by whoever, and holds them to the limits.

    The limits are those of the tenant's row in the directory over those of its plan; a write that would exceed one
    raises :class:`~tenantry.errors.QuotaExceeded`, and nothing of it is kept.
    """

    async def counted(self, tenant_id: str) -> list[Count]:
        """Return what the tenant has in each collection, by the counters."""

    async def recount(self, tenant_id: str) -> list[Count]:
        """Count the rows themselves and mend the counters. Return by how much each was wrong."""

    async def prepare_counting(self) -> list[str]:
        """Begin to count, if that can be done now. Return the collections whose rows nobody counts even so."""


@runtime_checkable
class SessionAdapter(Protocol):
    """A database with :attr:`Capability.SESSIONS`: it holds to the tenant whatever a user's own code emits."""

    def session(
        self, context: TenantContext, admit: Callable[[], Awaitable[None]], options: dict[str, Any]
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session of SQLAlchemy's ORM. ``admit`` is awaited for each of its transactions."""

    def bind(
        self, connection: Any, context: TenantContext, admit: Callable[[], None]
    ) -> AbstractContextManager[Any]:
        """Bind a connection of another driver. ``admit`` is called for each of its transactions."""


@runtime_checkable
class Measured(Protocol):
    """An adapter whose calls may have to wait for one another."""

    def measure(self) -> dict[str, Any]:
        """Return how much is in use, who waits and for how long, for ``sdk.get_metrics()["pool"]``."""


@runtime_checkable
class Rests(Protocol):
    """An adapter that holds what a forked process cannot leave alone."""

    async def rest(self) -> None:
        """Let go of it while nothing is under way; take it again on the next use."""


class Plan(msgspec.Struct, frozen=True):
    """How the database found the rows of a query. It holds no value of any row.

    Attributes:
        node: How the table was read, in the database's own words.
        index: The index that it went through; ``None`` for none.
        scanned: Rows looked at; ``None`` where the database does not count them.
        kept: Of these, the rows that met the filter; ``None`` where it does not count them.
        sorts: Whether the rows had to be sorted.
    """

    node: str
    index: str | None = None
    scanned: int | None = None
    kept: int | None = None
    sorts: bool = False


class Index(msgspec.Struct, frozen=True):
    """An index that exists, or that should.

    Attributes:
        table: The table, in the default schema.
        columns: Its columns, ``tenant_id`` included.
        name: Its name.
        unique: Whether no two rows may be equal in it.
        required: Whether it does more than find rows: it is unique, a key, or behind a reference.
        plain: Whether it orders all rows by its columns themselves, and is complete.
        scans: How often it was used since :attr:`Catalog.since`; ``None`` where the database does not count.
        size: Its size in bytes; ``None`` where that is not known.
    """

    table: str
    columns: tuple[str, ...]
    name: str
    unique: bool = False
    required: bool = False
    plain: bool = True
    scans: int | None = None
    size: int | None = None


class Catalog(msgspec.Struct, frozen=True):
    """The indexes there are.

    Attributes:
        indexes: Those of all tables in the default schema.
        since: When the database began to count their uses; ``None`` where it does not count.
    """

    indexes: tuple[Index, ...]
    since: dt.datetime | None = None


@runtime_checkable
class Explains(Protocol):
    """A database that can say how it finds the rows of a query."""

    async def explain(self, context: TenantContext, query: Query, *, count: bool, seconds: float) -> Plan:
        """Run ``query`` once more, as the tenant and under the same guards, and return how its rows were found.

        Args:
            context: Whose rows.
            query: What to ask.
            count: Whether the rows are counted, not returned.
            seconds: After which it is given up.
        """


# Called with what is being done, and with the share of it that is done, 0 to 1, where that is known.
Progress = Callable[[str, float | None], None]


@runtime_checkable
class Indexes(Protocol):
    """A database whose indexes can be listed, made and dropped while it is used.

    Attributes:
        answered: Kinds of fields whose comparisons an index answers. Sorting by an index works with every kind.
    """

    answered: frozenset[Kind]

    async def indexes(self) -> Catalog:
        """Return the indexes there are."""

    def advised(self, collection: Collection, fields: Sequence[str]) -> tuple[Index, str]:
        """Return the index on ``fields`` of a collection under the name of one that was advised, and its DDL."""

    def drop_statement(self, index: Index) -> str:
        """Return the DDL that drops an index."""

    async def create_index(self, index: Index, progress: Progress) -> bool:
        """Make an index while others write. Return whether it had to be made.

        Raises:
            OperationTimeout: Somebody else held on to the table, or to the indexes, for too long. Run it again.
            Unavailable: The connection was lost. What is left of the index is no hindrance to the next run.
        """

    async def drop_index(self, index: Index) -> None:
        """Drop an index while others write; nothing, if there is none."""
