"""The guard before a database: whatever is asked of it is decided here, on every path.

All that the data manager does ends in the port :class:`~tenantry.ports.Executor`, so the policy stands there and
nowhere else. What it does not know it refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tenantry.aggregation import Aggregation
from tenantry.context import Context, SystemContext, TenantContext
from tenantry.errors import AccessDenied, DataError, TenantryError
from tenantry.ports import (
    Database,
    Delete,
    Discard,
    Executor,
    Insert,
    Isolation,
    Outcome,
    Update,
    Upsert,
    Write,
)
from tenantry.query import Comparison, Query
from tenantry.schema import Collection
from tenantry.searching import SCORE, Search
from tenantry.security.access.decisions import Rulebook
from tenantry.security.access.permits import Permit, only
from tenantry.security.access.policy import Action
from tenantry.security.access.reads import aggregated, narrowed, reached, searched
from tenantry.security.access.writes import (
    Planned,
    checked_delete,
    checked_discard,
    checked_insert,
    checked_update,
    checked_upsert,
)
from tenantry.types import Record

E = TypeVar("E", bound=TenantryError)


class Guard:
    """An executor that runs for each user what the policy lets them run, narrowed to what they may see."""

    def __init__(self, inner: Executor, rules: Rulebook) -> None:
        self._inner = inner
        self._rules = rules

    async def fetch(self, context: Context, collection: Collection, ids: Sequence[Any]) -> list[Record]:
        """Return those of the rows with these ids that the user may read."""
        permit = await self._reading(context, collection)
        if permit is None or permit.whole:
            return await self._inner.fetch(context, collection, ids)
        one = len(ids) == 1
        by_id = Comparison(collection.key, "eq" if one else "in", ids[0] if one else tuple(ids))
        return await self._select(
            context, Query(collection, tuple(collection.fields.values()), by_id), permit
        )

    async def select(self, context: Context, query: Query) -> list[Record]:
        """Return those of the rows of ``query`` that the user may read."""
        permit = await self._reading(context, query.collection)
        if permit is None or permit.whole:
            return await self._inner.select(context, query)
        return await self._select(context, query, permit)

    async def count(self, context: Context, query: Query) -> int:
        """Return how many of the rows the user may read."""
        permit = await self._reading(context, query.collection)
        if permit is not None and not permit.whole:
            query = reached(query, permit)
        return await self._inner.count(context, query)

    async def search(self, context: Context, search: Search) -> list[Record]:
        """Return those of the rows that ``search`` finds which the user may read."""
        permit = await self._reading(context, search.collection)
        if permit is None or permit.whole:
            return await self._inner.search(context, search)
        rows = await self._inner.search(context, searched(search, permit))
        return [only(row, permit.shown(row) | {SCORE.name}) for row in rows]

    async def aggregate(self, context: Context, aggregation: Aggregation) -> list[Record]:
        """Return the groups of ``aggregation`` over the rows that the user may read."""
        permit = await self._reading(context, aggregation.collection)
        if permit is not None and not permit.whole:
            aggregation = aggregated(aggregation, permit)
        return await self._inner.aggregate(context, aggregation)

    async def execute(self, context: Context, writes: Sequence[Write]) -> list[list[Record]]:
        """Run all writes if the user may run each of them."""
        if isinstance(context, SystemContext):
            return await self._inner.execute(context, writes)
        planned = await self._plan(context, writes)
        try:
            stored = await self._run(context, planned)
        except DataError as error:
            clash = error
        else:
            return [plan.shown(rows) for plan, rows in zip(planned, stored, strict=True)]
        raise _bared(clash, planned)

    async def execute_each(
        self, context: Context, writes: Sequence[Write], added: Mapping[int, Sequence[Write]]
    ) -> list[Outcome]:
        """Run the writes that the user may run; the others are refused one by one."""
        if isinstance(context, SystemContext):
            return await self._inner.execute_each(context, writes, added)
        outcomes: dict[int, Outcome] = {}
        planned: dict[int, list[Planned]] = {}
        for index, write in enumerate(writes):
            try:
                planned[index] = await self._plan(context, [write, *added.get(index, ())])
            except AccessDenied as error:
                outcomes[index] = error
        try:
            outcomes.update(await self._run_each(context, planned))
        except _Outside as outside:
            raise next(iter(outside.refused.values())) from None
        return [outcomes[index] for index in range(len(writes))]

    async def _plan(self, context: TenantContext, unit: Sequence[Write]) -> list[Planned]:
        return [await self._planned(context, write) for write in unit]

    async def _run_each(
        self, context: TenantContext, planned: Mapping[int, Sequence[Planned]]
    ) -> dict[int, Outcome]:
        """Return what came of each unit. Inside a transaction, a row that must not be stored ends all of it."""
        outcomes: dict[int, Outcome] = {}
        outside: dict[int, AccessDenied] = {}
        writes = [unit[0].write for unit in planned.values()]
        added = {
            place: [plan.write for plan in unit[1:]]
            for place, unit in enumerate(planned.values())
            if len(unit) > 1
        }
        ran = await self._inner.execute_each(context, writes, added) if writes else []
        for index, found in zip(planned, ran, strict=True):
            first = planned[index][0]
            if isinstance(found, TenantryError):
                outcomes[index] = _bared(found, planned[index])
                continue
            rows = [] if found is None else [found]
            try:
                first.check(rows)
            except AccessDenied as error:
                outside[index] = error
            outcomes[index] = next(iter(first.shown(rows)), None)
        if outside:
            raise _Outside(outside)
        return outcomes

    async def _run(self, context: Context, planned: Sequence[Planned]) -> list[list[Record]]:
        stored = await self._inner.execute(context, [plan.write for plan in planned])
        for plan, rows in zip(planned, stored, strict=True):
            plan.check(rows)
        return stored

    async def _select(self, context: Context, query: Query, permit: Permit) -> list[Record]:
        query, differ = narrowed(query, permit)
        rows = await self._inner.select(context, query)
        return [only(row, permit.shown(row)) for row in rows] if differ else rows

    async def _reading(self, context: Context, collection: Collection) -> Permit | None:
        """Return what may be read, or ``None`` where no policy applies."""
        if isinstance(context, SystemContext) or _own(collection):
            return None
        permit = await self._rules.permit(context, collection, "read")
        permit.require()
        return permit

    async def _planned(self, context: TenantContext, write: Write) -> Planned:
        decide = _DECIDED.get(type(write))
        if decide is None:
            raise AccessDenied(
                f"The access policy knows nothing of {type(write).__name__}.",
                action="any",
                collection=write.collection.name,
            )
        if getattr(write, "trusted", False) or _own(write.collection):
            return Planned(write)

        async def permit(action: Action) -> Permit:
            return await self._rules.permit(context, write.collection, action)

        return await decide(write, permit)


class GuardedDatabase(Guard):
    """A database behind a policy."""

    def __init__(self, inner: Database, rules: Rulebook) -> None:
        super().__init__(inner, rules)
        self._database = inner
        self.name = inner.name
        self.capabilities = inner.capabilities

    @asynccontextmanager
    async def transaction(
        self, context: Context, isolation: Isolation | None = None
    ) -> AsyncIterator[Executor]:
        """Give an executor of one unit of work, behind the same policy."""
        async with self._database.transaction(context, isolation) as inner:
            yield Guard(inner, self._rules)

    async def sql(self, context: TenantContext, text: str, params: Sequence[Any]) -> list[Record]:
        """Run a statement of the user's own, if they have raw access."""
        await self.check_raw(context)
        return await self._database.sql(context, text, params)

    async def check_raw(self, context: TenantContext) -> None:
        """Refuse a user without raw access.

        Raises:
            AccessDenied: They have none.
        """
        (await self._rules.permit(context, None, "raw")).require()

    async def _run_each(
        self, context: TenantContext, planned: Mapping[int, Sequence[Planned]]
    ) -> dict[int, Outcome]:
        """Return what came of each unit. Those that must not be stored are left out when the others run again."""
        if all(plan.after is None for unit in planned.values() for plan in unit):
            return await super()._run_each(context, planned)
        refused: dict[int, Outcome] = {}
        while True:
            left = {index: unit for index, unit in planned.items() if index not in refused}
            try:
                async with self._database.transaction(context) as inner:
                    found = await Guard(inner, self._rules)._run_each(context, left)
                    return refused | found
            except _Outside as outside:
                refused.update(outside.refused)

    async def _run(self, context: Context, planned: Sequence[Planned]) -> list[list[Record]]:
        if all(plan.after is None for plan in planned):
            return await super()._run(context, planned)
        # A row that must not be stored like this is seen once it is, and taken back.
        async with self._database.transaction(context) as inner:
            return await Guard(inner, self._rules)._run(context, planned)


class _Outside(Exception):
    """Takes a transaction back in which some units stored what they must not."""

    def __init__(self, refused: Mapping[int, AccessDenied]) -> None:
        self.refused = refused


def _bared(error: E, planned: Sequence[Planned]) -> E:
    """Return an error without what a driver says of a row, where the user may not see all of it."""
    if not all(plan.seen is None or plan.seen.whole for plan in planned):
        error.__cause__ = error.__context__ = None
    return error


def _own(collection: Collection) -> bool:
    """Whether rows are the SDK's own, which no user names."""
    return collection.model.__control__


Decide = Callable[[Any, Callable[[Action], Awaitable[Permit]]], Awaitable[Planned]]

_DECIDED: dict[type, Decide] = {
    Insert: checked_insert,
    Update: checked_update,
    Upsert: checked_upsert,
    Delete: checked_delete,
    Discard: checked_discard,
}
