"""Many units of work in one transaction, of which those that are refused leave nothing.

They run together, in statements that take many rows at once. Where the server refuses such a statement, its savepoint
is rolled back and each half runs by itself, until what was refused is one unit: a few statements for each bad one,
however many good ones are around it.

A statement sees the rows as they were before it, so units that would meet each other's effects do not share one; what
comes of them is what would come of them one after the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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

Unit = Sequence[Write]
Drive = Callable[[Any, Context, Write], Awaitable[list[Record]]]

# What the server says of one row; any other of its errors is about the whole statement.
_REFUSED = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.DataError,
    asyncpg.RaiseError,
)


def _is_about_one(error: asyncpg.PostgresError) -> bool:
    return isinstance(error, _REFUSED) or error.sqlstate == SQLSTATE_QUOTA


class Each:
    """Runs units in an open transaction of ``connection``.

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

    async def run(self, units: Sequence[Unit]) -> list[Outcome]:
        """Return what came of each unit."""
        outcomes: list[Outcome] = []
        runs = await self._runs(units)
        for run in runs:
            outcomes += await self._attempt(run)
        return outcomes

    async def _attempt(self, units: Sequence[Unit]) -> list[Outcome]:
        await self._connection.execute("SAVEPOINT batch")
        try:
            outcomes = await self._together(units)
        except (*REFUSALS, asyncpg.PostgresError) as error:
            if isinstance(error, asyncpg.PostgresError) and not _is_about_one(error):
                raise
            await self._connection.execute("ROLLBACK TO SAVEPOINT batch; RELEASE SAVEPOINT batch")
            if len(units) == 1:
                return [error if isinstance(error, TenantryError) else self._translated(error)]
            middle = len(units) // 2
            return await self._attempt(units[:middle]) + await self._attempt(units[middle:])
        await self._connection.execute("RELEASE SAVEPOINT batch")
        return outcomes

    async def _together(self, units: Sequence[Unit]) -> list[Outcome]:
        if len(units) == 1:
            done = [await self._drive(self._connection, self._context, write) for write in units[0]]
            return [done[0]]
        outcomes = await self._first_writes([unit[0] for unit in units])
        added: dict[str, list[Insert]] = {}
        for unit, outcome in zip(units, outcomes, strict=True):
            if isinstance(outcome, list):
                for write in cast("Sequence[Insert]", unit[1:]):
                    added.setdefault(write.collection.name, []).append(write)
        for writes in added.values():
            records = [record for write in writes for record in write.records]
            await self._drive(self._connection, self._context, Insert(writes[0].collection, records))
        return outcomes

    async def _first_writes(self, writes: Sequence[Any]) -> list[Outcome]:
        compiler, context = self._compiler, self._context
        if isinstance(writes[0], Insert):
            step = compiler.insert_many(context, writes)
            await self._connection.fetch(step.statement.text, *step.args)
            return [list(write.records) for write in writes]
        if isinstance(writes[0], Upsert):
            step = compiler.upsert_many(context, writes)
            rows = await self._connection.fetch(step.statement.text, *step.args)
            return [[record] for record in step.statement.records(rows)]
        if isinstance(writes[0], Update):
            step = compiler.update_many(context, writes)
        else:
            step = compiler.delete_many(context, writes)
        rows = await self._connection.fetch(step.statement.text, *step.args)
        found = {record["id"]: [record] for record in step.statement.records(rows)}
        missing = await self._missing([write for write in writes if write.id not in found])
        if isinstance(writes[0], Delete):
            return [missing.get(write.id, []) for write in writes]
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

    # -- which units may share a statement

    async def _runs(self, units: Sequence[Unit]) -> list[Sequence[Unit]]:
        """Return the units in runs, each of which is one statement."""
        firsts = [unit[0] for unit in units]
        collection = firsts[0].collection
        if not all(_is_simple(unit, collection) for unit in units):
            return [[unit] for unit in units]
        if isinstance(firsts[0], Delete) and self._refers_to_itself(collection):
            return [[unit] for unit in units]
        starts = await self._starts(firsts, collection)
        return [units[start:end] for start, end in zip(starts, [*starts[1:], len(units)], strict=True)]

    async def _starts(self, writes: Sequence[Any], collection: Collection) -> list[int]:
        if isinstance(writes[0], Update):
            later = await self._freed_later(writes, collection)
            return _starts([(write.id,) for write in writes], later)
        if isinstance(writes[0], Delete):
            return _starts([(write.id,) for write in writes], {})
        if isinstance(writes[0], Insert):
            records = [write.records[0] for write in writes]
            return _starts([() for _ in writes], _referred_later(collection, records))
        records = [write.record for write in writes]
        keys = [
            tuple(record[name] for name in write.on) for write, record in zip(writes, records, strict=True)
        ]
        shapes = [(write.on, write.changes) for write in writes]
        return _starts(
            [() if None in key else key for key in keys], _referred_later(collection, records), shapes
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
        """Whether deleting a row may reach others of its collection, by whatever way."""
        table = self._compiler.tables[collection.name]
        reached, todo = set(), [table]
        while todo:
            for key in todo.pop().foreign_key_constraints:
                if key.referred_table is table:
                    return True
                if key.referred_table not in reached:
                    reached.add(key.referred_table)
                    todo.append(key.referred_table)
        return False


def _is_simple(unit: Unit, collection: Collection) -> bool:
    """Whether the unit can share statements with its neighbours."""
    first, *added = unit
    if isinstance(first, Insert) and len(first.records) != 1:
        return False
    if isinstance(first, Discard) or (isinstance(first, Update) and first.deleted != "without"):
        return False
    if isinstance(first, Upsert) and collection.soft and first.on == ("id",):
        return False  # one that meets a deleted row yields none, and would not be told apart
    if not isinstance(first, Insert | Purge) and first.where is not EVERYTHING:
        return False  # which rows it may touch is said in the statement of one row
    return all(isinstance(write, Insert) and write.collection is not collection for write in added)


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
