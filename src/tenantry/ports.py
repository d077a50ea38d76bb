"""What an adapter implements. Adapters import this file; this file imports none of them.

An :class:`Executor` runs statements for a context. An adapter is an executor whose every call is a transaction of
its own, and :meth:`DatabaseAdapter.transaction` gives an executor whose calls share one.

Given a :class:`~tenantry.context.TenantContext`, an executor reaches the rows of that tenant and the shared
collections (to read). Given a :class:`~tenantry.context.SystemContext`, it reads every tenant's rows (or those of
the tenant it is narrowed to), each with its ``tenant_id``, and writes shared and control collections; of tenant
collections it can only purge.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from tenantry.context import Context, TenantContext
from tenantry.errors import DataError, InvalidRecord, TenantryError
from tenantry.query import Query
from tenantry.schema import Collection
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


class Insert(msgspec.Struct, frozen=True, gc=False):
    """Insert ``records``. Yields them as stored."""

    collection: Collection
    records: Sequence[Record]


class Update(msgspec.Struct, frozen=True, gc=False):
    """Set ``changes`` in the row ``id`` and add one to its version. Yields the row as stored.

    Raises, when executed:
        NotFound: No such row.
        Conflict: Its version is not ``expected_version``.
    """

    collection: Collection
    id: Any
    changes: Record
    expected_version: int | None = None


class Upsert(msgspec.Struct, frozen=True, gc=False):
    """Insert ``record``, or where ``on`` is taken set ``changes`` in the row that has it. Yields the row as stored."""

    collection: Collection
    record: Record
    on: tuple[str, ...]
    changes: tuple[str, ...]


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Delete the row ``id``. Yields nothing; raises like :class:`Update`."""

    collection: Collection
    id: Any
    expected_version: int | None = None


class Purge(msgspec.Struct, frozen=True):
    """Delete every row of the tenant that the system context is narrowed to.

    Yields one record ``{"deleted": count, "remaining": count}``.
    """

    collection: Collection


Write = Insert | Update | Upsert | Delete | Purge
Outcome = Record | TenantryError | None
"""What came of one write of many: the row as stored, nothing for a delete, or why it was refused."""
REFUSALS = (DataError, InvalidRecord)
"""The errors that are about one write; any other is about all of them."""


class Executor(Protocol):
    """Runs statements for a context, scoped by construction."""

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return the rows with these ids, in any order; those that do not exist are left out."""

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return the rows of ``query``, in order. Each record is a new dict that the caller may keep."""

    async def count(self, context: Context, query: Query) -> int:
        """Return how many rows meet the filter of ``query``."""

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


class DatabaseAdapter(Executor, Protocol):
    """One database."""

    name: str
    capabilities: frozenset[Capability]

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

    def transaction(self, context: Context) -> AbstractAsyncContextManager[Executor]:
        """Return an executor whose calls take place together when the block ends, or not at all."""

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Run a statement of the user's own as the raw role, bound to the tenant.

        Raises:
            Unsupported: Nothing in this database would hold it to the tenant.
        """

    async def close(self) -> None:
        """Release everything. Safe to call twice."""


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
class Rests(Protocol):
    """An adapter that holds what a forked process cannot leave alone."""

    async def rest(self) -> None:
        """Let go of it while nothing is under way; take it again on the next use."""
