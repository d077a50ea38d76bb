"""Many items, in batches: from what a caller gives to writes, and what came of each."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.data.columns import collector_paused
from tenantry.data.records import touched, trusted
from tenantry.data.units import check_no_unit
from tenantry.errors import InvalidQuery, InvalidRecord, TenantryError, TransactionFailed
from tenantry.hooks import Operation, Verb
from tenantry.ports import REFUSALS, Outcome, Write
from tenantry.schema import Collection, KeyedModel
from tenantry.types import BulkResult

Items = Iterable[Any] | AsyncIterable[Any]
# Returns for each item of a batch its write, or why it cannot be one. It is told whether the collection was named, so
# that the items are not instances of its model.
Plan = Callable[[Collection, Sequence[Any], bool], Sequence[Write | TenantryError]]

_MOST = 100_000


async def batches(items: Items, size: int) -> AsyncIterator[list[Any]]:
    """Yield the items, ``size`` at a time; no more of them are held than that."""
    if not isinstance(items, AsyncIterable):
        rest = iter(items)
        while batch := list(islice(rest, size)):
            yield batch
        return
    batch = []
    async for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _many(items: object) -> Items:
    """Return the items of a call, if there can be any."""
    if isinstance(items, str | bytes | Mapping | KeyedModel) or not isinstance(
        items, Iterable | AsyncIterable
    ):
        raise InvalidRecord(f"expected many items, got {type(items).__name__}.", field="records")
    return items


def _checked_size(size: object) -> int:
    """Return a batch size, if it can be one."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MOST:
        raise InvalidQuery(f"expected a whole number from 1 to {_MOST:,}.", path="batch_size")
    return size


@dataclass(frozen=True, slots=True)
class Task:
    """What a bulk call does with each of its items, and how."""

    verb: Verb
    plan: Plan
    size: int | None
    atomic: bool
    context: Context | None


class Batches(Calls):
    """Runs the items of a bulk call, each batch in a transaction of its own or in the one that is open."""

    if TYPE_CHECKING:

        def transaction(self, *, context: Context | None = None) -> AbstractAsyncContextManager[Batches]:
            """Give a manager whose writes take place together."""

    async def _bulk(self, task: Task, target: Any, items: Any) -> BulkResult[Any]:
        """Run the items: ``target`` itself, or ``items`` where ``target`` is a model or a name."""
        task = replace(task, size=_checked_size(self._runtime.batch_size if task.size is None else task.size))
        if not isinstance(target, str | type):
            if items is not None:
                raise InvalidRecord("instances are the items; give no others beside them.", field="records")
            return await self._run(task, None, _many(target))
        return await self._run(task, self._runtime.collection(target), _many(items))

    async def _run(self, task: Task, target: tuple[Collection, bool] | None, items: Items) -> BulkResult[Any]:
        if task.atomic and self._unit is None:
            async with self.transaction(context=task.context) as unit:
                return await unit._run(replace(task, context=None), target, items)
        result: BulkResult[Any] = BulkResult()
        named = target is not None
        await self._admitted(task.context)
        try:
            async for batch in batches(items, task.size or self._runtime.batch_size):
                target = target or self._of_first(batch[0])
                await self._batch(task, target, named, batch, result)
        except TenantryError as error:
            if not task.atomic:
                error.partial = result
            raise
        return result

    def _of_first(self, item: Any) -> tuple[Collection, bool]:
        if not isinstance(item, KeyedModel):
            raise InvalidRecord(
                f"expected instances of a model, got {type(item).__name__}.",
                field="records",
                fix="Name the collection before its items.",
            )
        return self._runtime.collection(type(item))[0], True

    async def _batch(
        self,
        task: Task,
        target: tuple[Collection, bool],
        named: bool,
        items: list[Any],
        result: BulkResult[Any],
    ) -> None:
        """Run one batch and add what came of it to ``result``."""
        found, typed = target
        if self._unit is None:
            check_no_unit(self._runtime)
        elif self._unit.failed:
            raise TransactionFailed
        scope = await self._admitted(task.context)
        started, first = time.perf_counter(), len(result)
        with collector_paused():
            writes = task.plan(found, items, named)
        try:
            outcomes = await self._outcomes(task.verb, found, scope, writes)
            refused = _refused(outcomes, first)
            if task.atomic and refused:
                raise next(iter(refused.values()))
        except BaseException as error:
            if self._unit is not None:
                self._unit.failed = True
            self._after(task.verb, found, scope, started, changes={}, error=error)
            raise
        result.refused.update(refused)
        kept = [
            None if number in refused or task.verb == "delete" else row
            for number, row in enumerate(outcomes, first)
        ]
        rows: list[Any] = kept
        with collector_paused():
            result.stored.extend([row and found.instantiate(row) for row in rows] if typed else rows)
        ids = _written(writes, outcomes)
        if ids:
            self._after(task.verb, found, scope, started, ids=ids, changes={}, rows=len(ids))
        if refused:
            self._after(task.verb, found, scope, started, changes={}, error=next(iter(refused.values())))

    async def _outcomes(
        self, verb: Verb, found: Collection, scope: Context, writes: Sequence[Write | TenantryError]
    ) -> list[Outcome]:
        """Run what can be written, with what the within hooks add to it; return what came of every item."""
        outcomes: list[Outcome] = [write if isinstance(write, TenantryError) else None for write in writes]
        added = self._added(verb, found, scope, writes, outcomes) if self._runtime.hooks.has_within else {}
        tried = [number for number, outcome in enumerate(outcomes) if outcome is None]
        if tried:
            units: list[Any] = [writes[number] for number in tried]
            joined = {place: added[number] for place, number in enumerate(tried) if number in added}
            done = await self._executor.execute_each(scope, units, joined)
            if len(done) == len(outcomes):
                return done
            for number, outcome in zip(tried, done, strict=True):
                outcomes[number] = outcome
        return outcomes

    def _added(
        self,
        verb: Verb,
        found: Collection,
        scope: Context,
        writes: Sequence[Any],
        outcomes: list[Outcome],
    ) -> dict[int, list[Write]]:
        """Return what the within hooks add, by the number of the item; what they refuse goes into ``outcomes``."""
        added: dict[int, list[Write]] = {}
        for number, write in enumerate(writes):
            if outcomes[number] is None:
                try:
                    more = self._runtime.hooks.within(Operation(verb, found, scope, *touched(write)))
                except REFUSALS as error:
                    outcomes[number] = error
                    continue
                if more:
                    added[number] = list(map(trusted, more))
        return added


def _written(writes: Sequence[Any], outcomes: Sequence[Outcome]) -> list[Any]:
    """Return the ids of the rows that were written; an upsert may have found its row under another."""
    return [
        write.id if row is None else row["id"]
        for write, row in zip(writes, outcomes, strict=True)
        if not isinstance(row, TenantryError)
    ]


def _refused(outcomes: Sequence[Outcome], first: int) -> dict[int, TenantryError]:
    """Return the errors among the outcomes by the index of their item, of which each carries its own."""
    refused = {}
    for index, outcome in enumerate(outcomes, first):
        if isinstance(outcome, TenantryError):
            outcome.index = index
            refused[index] = outcome
    return refused
