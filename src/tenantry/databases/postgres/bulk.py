"""Many writes in one transaction, of which those that are refused leave nothing.

They run together, in statements that take many rows at once. Where the server refuses such a statement, its savepoint
is rolled back and each half runs by itself, until what was refused is one write: a few statements for each bad one,
however many good ones are around it.

A statement sees the rows as they were before it, so writes that would meet each other's effects do not share one; what
comes of them is what would come of them one after the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import asyncpg

from tenantry.context import Context
from tenantry.databases.postgres.counting import SQLSTATE_QUOTA
from tenantry.databases.postgres.unnest import BulkCompiler
from tenantry.errors import Conflict, NotFound, TenantryError
from tenantry.ports import REFUSALS, Delete, Discard, Insert, Outcome, Purge, Update, Upsert, Write
from tenantry.query import EVERYTHING
from tenantry.schema import Collection
from tenantry.types import Record

Drive = Callable[[Any, Context, Write], Awaitable[list[Record]]]

# What the server says of one row; any other of its errors is about the whole statement.
REFUSED = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.DataError,
    asyncpg.RaiseError,
)


def is_about_one(error: asyncpg.PostgresError) -> bool:
    """Whether the server says it of one row; any other of its errors is about the whole statement."""
    return isinstance(error, REFUSED) or error.sqlstate == SQLSTATE_QUOTA


class Each:
    """Runs writes in an open transaction of ``connection``.

    Args:
        compiler: Of the statements that take many rows.
        connection: In a transaction.
        context: Whose rows.
        drive: Runs one write.
        translated: Turns the driver's error into ours.
    """

    def __init__(
        self,
        compiler: BulkCompiler,
        connection: Any,
        context: Context,
        drive: Drive,
        translated: Callable[[Exception], TenantryError],
    ) -> None:
        self._compiler = compiler
        self._connection = connection
        self._context = context
        self._drive = drive
        self._translated = translated

    async def at_once(self, writes: Sequence[Write]) -> list[Outcome] | None:
        """Return what came of each, if one statement can do them all; the connection need not be in a transaction."""
        if not _shareable(writes, {}) or len(await self._starts(writes, {})) > 1:
            return None
        return await self._together(writes)

    async def run(self, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]) -> list[Outcome]:
        """Return what came of each write, with what is added to it."""
        starts = await self._starts(writes, added)
        outcomes: list[Outcome] = []
        for start, end in zip(starts, [*starts[1:], len(writes)], strict=True):
            outcomes += await self._attempt(writes, added, start, end)
        return outcomes

    async def _attempt(
        self, writes: Sequence[Write], added: Mapping[int, Sequence[Write]], start: int, end: int
    ) -> list[Outcome]:
        await self._connection.execute("SAVEPOINT batch")
        try:
            if end - start == 1:
                outcomes = [await self._alone(writes[start], added.get(start, ()))]
            else:
                outcomes = await self._together(writes[start:end])
                if added:
                    await self._add(outcomes, added, start)
        except (*REFUSALS, asyncpg.PostgresError) as error:
            if isinstance(error, asyncpg.PostgresError) and not is_about_one(error):
                raise
            await self._connection.execute("ROLLBACK TO SAVEPOINT batch; RELEASE SAVEPOINT batch")
            if end - start == 1:
                return [error if isinstance(error, TenantryError) else self._translated(error)]
            middle = (start + end) // 2
            first = await self._attempt(writes, added, start, middle)
            return first + await self._attempt(writes, added, middle, end)
        await self._connection.execute("RELEASE SAVEPOINT batch")
        return outcomes

    async def _alone(self, write: Write, added: Sequence[Write]) -> Outcome:
        rows = await self._drive(self._connection, self._context, write)
        for more in added:
            await self._drive(self._connection, self._context, more)
        return rows[0] if rows else None

    async def _add(
        self, outcomes: Sequence[Outcome], added: Mapping[int, Sequence[Write]], start: int
    ) -> None:
        """Insert what is added to the writes that took place, all that goes to one collection at once."""
        records: dict[str, list[Record]] = {}
        collections: dict[str, Collection] = {}
        for number, outcome in enumerate(outcomes, start):
            if not isinstance(outcome, TenantryError):
                for write in cast("Sequence[Insert]", added.get(number, ())):
                    collections[write.collection.name] = write.collection
                    records.setdefault(write.collection.name, []).extend(write.records)
        for name, collection in collections.items():
            await self._drive(self._connection, self._context, Insert(collection, records[name]))

    async def _together(self, writes: Sequence[Any]) -> list[Outcome]:
        compiler, context = self._compiler, self._context
        if isinstance(writes[0], Insert):
            step = compiler.insert_many(context, writes)
            await self._connection.fetch(step.statement.text, *step.args)
            return [write.records[0] for write in writes]
        if isinstance(writes[0], Upsert):
            step = compiler.upsert_many(context, writes)
            rows = await self._connection.fetch(step.statement.text, *step.args)
            return list(step.statement.records(rows))
        if isinstance(writes[0], Update):
            step = compiler.update_many(context, writes)
        else:
            step = compiler.delete_many(context, writes)
        rows = await self._connection.fetch(step.statement.text, *step.args)
        found = {record["id"]: record for record in step.statement.records(rows)}
        missing = await self._missing([write for write in writes if write.id not in found])
        if isinstance(writes[0], Delete):
            return [missing.get(write.id) for write in writes]
        return [missing.get(write.id) or found[write.id] for write in writes]

    async def _missing(self, writes: Sequence[Update | Delete]) -> dict[Any, Outcome]:
        """Return why each row was not found: it is not there, or in another version."""
        if not writes:
            return {}
        collection = writes[0].collection
        step = self._compiler.fetch(self._context, collection, [write.id for write in writes])
        rows = await self._connection.fetch(step.statement.text, *step.args)
        current = {record["id"]: record["version"] for record in step.statement.records(rows)}
        errors: dict[Any, Outcome] = {}
        for write in writes:
            expected, stored = write.expected_version, current.get(write.id)
            if stored is None or expected is None:
                errors[write.id] = NotFound(collection.name, write.id)
            else:
                errors[write.id] = Conflict(collection.name, write.id, expected=expected, current=stored)
        return errors

    # -- which writes may share a statement

    async def _starts(self, writes: Sequence[Any], added: Mapping[int, Sequence[Write]]) -> Sequence[int]:
        """Return where runs begin, each of which can be one statement."""
        first, collection = writes[0], writes[0].collection
        if not _shareable(writes, added):
            return range(len(writes))
        if isinstance(first, Delete) and self._refers_to_itself(collection):
            return range(len(writes))
        if isinstance(first, Update):
            later = await self._freed_later(writes, collection)
            return _starts([(write.id,) for write in writes], later)
        if isinstance(first, Delete):
            return _starts([(write.id,) for write in writes], {})
        if isinstance(first, Insert):
            later = _referred_later(collection, [write.records[0] for write in writes])
            return _starts([() for _ in writes], later) if later else (0,)
        keys = [tuple(write.record[name] for name in write.on) for write in writes]
        later = _referred_later(collection, [write.record for write in writes])
        return _starts(
            [() if None in key else key for key in keys], later, [write.changes for write in writes]
        )

    async def _freed_later(self, writes: Sequence[Update], collection: Collection) -> dict[int, int]:
        """Return for an update to a unique value the later one whose row has that value still."""
        changed = {name for write in writes for name in write.changes}
        groups = [group for group in collection.unique if changed & set(group)]
        if not groups:
            return {}
        if len({write.id for write in writes}) < len(writes):  # what is stored now does not tell what will be
            return {number: number + 1 for number in range(len(writes))}
        step = self._compiler.fetch(self._context, collection, [write.id for write in writes])
        rows = await self._connection.fetch(step.statement.text, *step.args)
        current = {record["id"]: record for record in step.statement.records(rows)}
        later: dict[int, int] = {}
        for group in groups:
            holders = {
                tuple(current[write.id][name] for name in group): number
                for number, write in enumerate(writes)
                if write.id in current
            }
            for number, write in enumerate(writes):
                values = {**current.get(write.id, {}), **write.changes}
                holder = holders.get(tuple(values.get(name) for name in group), number)
                if holder > number:
                    later[number] = min(holder, later.get(number, holder))
        return later

    def _refers_to_itself(self, collection: Collection) -> bool:
        """Whether deleting a row may take others of its collection along; no circle is longer than that."""
        table = self._compiler.tables[collection.name]
        return any(key.referred_table is table for key in table.foreign_key_constraints)


def _shareable(writes: Sequence[Write], added: Mapping[int, Sequence[Write]]) -> bool:
    """Whether the writes, with what is added to them, can share statements."""
    collection = writes[0].collection
    return all(_is_simple(write, collection) for write in writes) and all(
        isinstance(write, Insert) and write.collection is not collection
        for unit in added.values()
        for write in unit
    )


def _is_simple(write: Write, collection: Collection) -> bool:
    if isinstance(write, Insert) and len(write.records) != 1:
        return False
    if isinstance(write, Discard) or (isinstance(write, Update) and write.deleted != "without"):
        return False
    if isinstance(write, Upsert) and collection.soft and write.on == ("id",):
        return False  # one that meets a deleted row yields none, and would not be told apart
    # which rows it may touch is said in the statement of one row
    return isinstance(write, Insert | Purge) or write.where is EVERYTHING


def _referred_later(collection: Collection, records: Sequence[Record]) -> dict[int, int]:
    """Return for a new row the later one that it refers to, and that may not be there yet."""
    names = [
        field.name
        for field in collection.fields.values()
        if field.ref is not None and field.ref.enforced and field.ref.collection == collection.name
    ]
    if not names:
        return {}
    numbers = {record["id"]: number for number, record in reversed(list(enumerate(records)))}
    later: dict[int, int] = {}
    for number, record in enumerate(records):
        targets = [numbers.get(record[name], number) for name in names]
        if max(targets) > number:
            later[number] = min(target for target in targets if target > number)
    return later


def _starts(
    keys: Sequence[tuple[Any, ...]], later: dict[int, int], shapes: Sequence[Any] | None = None
) -> list[int]:
    """Return where runs begin, so that no run has a key twice, or holds a number and its later one, or two shapes."""
    starts, seen, bound = [0], set[tuple[Any, ...]](), len(keys)
    for number, key in enumerate(keys):
        other = shapes is not None and number > 0 and shapes[number] != shapes[number - 1]
        if (key and key in seen) or number >= bound or other:
            starts.append(number)
            seen, bound = set(), len(keys)
        seen.add(key)
        bound = min(bound, later.get(number, bound))
    return starts
