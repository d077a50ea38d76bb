"""Trying to break the isolation through the public API, with rows of any models in two tenants made for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tenantry.aggregates import Count
from tenantry.data import DataManager
from tenantry.errors import (
    DataError,
    InvalidQuery,
    InvalidRequest,
    IsolationError,
    NotFound,
    ReadOnlyCollection,
    ReferenceViolation,
    TenantryError,
    UniqueViolation,
)
from tenantry.ports import Capability
from tenantry.schema import Collection, Field, KeyedModel, Kind
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.searching import searchable_fields
from tenantry.tenants import children_first
from tenantry.testing.canaries import Canaries, Factory
from tenantry.testing.cleanup import forget
from tenantry.types import Record
from tenantry.words import words

_SHOWN = 25  # leaks; one guard that is missing shows in many ways
_OWN, _TWIN = 1, 2  # numbers of the canary rows: one with an id of its own, one whose id both tenants have


@dataclass(eq=False)
class _Side:
    """One of the two tenants and its canary rows, by collection."""

    name: str
    handle: TenantHandle
    rows: dict[str, list[Record]] = field(default_factory=dict)

    def ids(self, collection: Collection) -> set[Any]:
        return {row["id"] for row in self.rows[collection.name]}

    def own(self, collection: Collection) -> Record:
        """The row whose id only this tenant has."""
        return self.rows[collection.name][0]


async def assert_isolated(
    sdk: MultiTenantSDK, *, rows: Mapping[type[KeyedModel], Factory] | None = None
) -> None:
    """Try, as each of two fresh tenants, to reach the rows of the other; for every collection of ``sdk``.

    The rows are made from the models. It reads, counts, filters, pages, updates, deletes, refers and infers; the
    tenants and their rows are purged at the end, which takes a second.

    Args:
        sdk: An open SDK, on a database for tests.
        rows: For models whose rows cannot be guessed, what makes one: ``{Product: lambda: Product(name="x")}``.

    Raises:
        AssertionError: Names every leak.
        NoCanary: A model needs an entry in ``rows``.
    """
    check = _Check(sdk, Canaries(rows or {}))
    async with _two_tenants(sdk) as (left, right):
        for collection in reversed(children_first([*sdk._own.values()])):
            await check.fill(collection, left, right)
        for collection in sdk._own.values():
            if collection.scope == "shared":
                await check.shared(collection, left)
        for collection in reversed(children_first([*sdk._own.values()])):
            for self_, other in ((left, right), (right, left)):
                await check.collection(collection, self_, other)
        await check.purged(left, right)
    if check.leaks:
        more = len(check.leaks) - _SHOWN
        listed = [*check.leaks[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise AssertionError("\n  - ".join(["The tenants are not isolated:", *listed]))


@asynccontextmanager
async def _two_tenants(sdk: MultiTenantSDK) -> AsyncIterator[tuple[_Side, _Side]]:
    run = secrets.token_hex(6)
    sides = []
    for name in ("A", "B"):
        tenant = await sdk.tenants.create(f"canary-{run}-{name}", name="isolation check")
        sides.append(_Side(name, sdk.tenant(tenant.id)))
    try:
        yield sides[0], sides[1]
    finally:
        for side in sides:
            await forget(sdk, side.handle.context.tenant_id)


class _Check:
    def __init__(self, sdk: MultiTenantSDK, canaries: Canaries) -> None:
        self.leaks: list[str] = []
        self._sdk = sdk
        self._canaries = canaries

    def _expect(self, holds: bool, collection: Collection, leak: str) -> None:
        if not holds:
            self.leaks.append(f"{collection.name}: {leak}")

    # -- the rows

    async def fill(self, collection: Collection, left: _Side, right: _Side) -> None:
        """Give both tenants a row with an id of its own and one with an id that both have, all values alike."""
        twin = self._canaries.fresh_id(collection)
        for side in (left, right):
            stored = side.rows[collection.name] = []
            for number, id in ((_OWN, self._canaries.fresh_id(collection)), (_TWIN, twin)):
                references = await self._references(collection, side)
                row = self._canaries.make(collection, number, {"id": id, **references})
                try:
                    created = await side.handle.data.create(row)
                except UniqueViolation as error:
                    self.leaks.append(
                        f"{collection.name}: tenant {side.name} hears of another's values: {error}"
                    )
                    continue
                stored.append(await side.handle.data.get(collection.name, created.id))
        # so that the rows with the same id differ
        if len(left.rows[collection.name]) == 2:
            left.rows[collection.name][1] = await left.handle.data.update(collection.name, twin)

    async def _references(self, collection: Collection, side: _Side) -> Record:
        """Return the values of the reference fields: own rows, or shared ones."""
        values: Record = {}
        for item in collection.fields.values():
            if item.ref is None:
                continue
            target = self._sdk._own[item.ref.collection]
            if target.scope == "tenant" and side.rows.get(target.name):
                values[item.name] = side.own(target)["id"]
            elif not item.nullable and target.scope == "shared":
                values[item.name] = await self._shared_id(target, side)
        return values

    async def _shared_id(self, target: Collection, side: _Side) -> Any:
        found = await side.handle.data.read(target.name, limit=1)
        if found:
            return found[0]["id"]
        row = self._canaries.make(target, _OWN, {"id": self._canaries.fresh_id(target)})
        async with self._sdk.system(reason="isolation check") as system:
            return (await system.data.create(row)).id

    # -- the attempts

    async def collection(self, collection: Collection, self_: _Side, other: _Side) -> None:
        """Try everything with one collection, as ``self_``, against the rows of ``other``."""
        if len(self_.rows[collection.name]) < 2 or len(other.rows[collection.name]) < 2:
            return  # said already
        try:
            await self._attempts(collection, self_, other)
        except (DataError, InvalidRequest, IsolationError) as error:
            self.leaks.append(f"{collection.name}: tenant {self_.name} or {other.name} was hindered: {error}")

    async def _attempts(self, collection: Collection, self_: _Side, other: _Side) -> None:
        before = await self._all(other.handle.data, collection)
        self._expect(
            _same(before, other.rows[collection.name]), collection, f"tenant {other.name} misses its rows"
        )
        await self._reads(self_.handle.data, collection, self_, other)
        async with self_.handle.data.transaction() as unit:
            await self._reads(unit, collection, self_, other, " in a transaction")
        await self._together(collection, self_, other)
        await self._cursors(collection, self_, other)
        await self._writes(collection, self_, other)
        await self._takes_the_same_id(collection, self_, other)
        for item in collection.fields.values():
            if item.ref is not None:
                await self._refers(collection, item, self_, other)
        await self._raw(collection, self_)
        after = await self._all(other.handle.data, collection)
        self._expect(_same(after, before), collection, f"tenant {self_.name} changed rows of {other.name}")
        own = await self._all(self_.handle.data, collection)
        self._expect(
            _same(own, self_.rows[collection.name]), collection, f"tenant {self_.name} lost its own rows"
        )

    async def _all(self, data: DataManager, collection: Collection) -> list[Record]:
        return list(await data.read(collection.name, order_by="id", limit=10_000))

    async def _reads(
        self, data: DataManager, collection: Collection, self_: _Side, other: _Side, how: str = ""
    ) -> None:
        name, foreign = collection.name, other.own(collection)
        mine = self_.rows[name]
        who = f"tenant {self_.name}"
        await self._refused(
            collection,
            f"{who} gets a row of {other.name} by id{how}",
            NotFound,
            lambda id: data.get(name, id),
            foreign,
        )
        twin = await data.get(name, mine[1]["id"])
        self._expect(twin == mine[1], collection, f"{who} gets {other.name}'s row of the same id{how}")
        for label, where in _wheres(collection, mine[0], foreign):
            found = await data.read(name, where, limit=10_000)
            self._expect(
                _within(found, mine), collection, f"{who} reads rows of {other.name} by {label}{how}"
            )
            counted = await data.count(name, where)
            self._expect(
                counted == len(found) <= 2, collection, f"{who} counts rows of {other.name} by {label}{how}"
            )
            exists = await data.exists(name, where)
            self._expect(
                exists == bool(counted), collection, f"{who} learns of rows of {other.name} by {label}{how}"
            )
        for order in _orders(collection):
            walked = await _walk(data, name, order)
            self._expect(
                _same(walked, mine), collection, f"{who} pages into rows of {other.name} by {order}{how}"
            )
        groups = await data.aggregate(name, {"rows": Count()}, group_by="id")
        apart = sorted((str(row["id"]), 1) for row in mine)
        self._expect(
            sorted((str(group["id"]), group["rows"]) for group in groups) == apart,
            collection,
            f"{who} aggregates rows of {other.name}{how}",
        )
        distinct = await data.read(name, fields=["id", "version"], distinct=True, limit=10_000)
        self._expect(len(distinct) == 2, collection, f"{who} reads rows of {other.name} by distinct{how}")
        for text in _texts(collection, mine[0]):
            hits = await data.search(name, text, limit=10_000, typos=True)
            self._expect(
                _within([hit.row for hit in hits], mine),
                collection,
                f"{who} finds rows of {other.name} by search{how}",
            )

    async def _refused(
        self,
        collection: Collection,
        leak: str,
        error: type[TenantryError],
        attempt: Callable[[Any], Awaitable[object]],
        foreign: Record,
        key: Collection | None = None,
    ) -> None:
        """See that ``attempt`` fails for a foreign id exactly as for one that does not exist."""
        heard: list[str] = []
        for id in (foreign["id"], self._canaries.fresh_id(key or collection)):
            try:
                await attempt(id)
            except error as refused:
                heard.append(str(refused).replace(str(id), "…"))
            except TenantryError as refused:
                self.leaks.append(f"{collection.name}: {leak}: {type(refused).__name__}: {refused}")
                return
            else:
                self.leaks.append(f"{collection.name}: {leak}")
                return
        self._expect(heard[0] == heard[1], collection, f"{leak}: the error tells it from a missing one")

    async def _together(self, collection: Collection, self_: _Side, other: _Side) -> None:
        """Look rows up in the same tick, which may become one statement."""
        foreign, mine = other.own(collection), self_.own(collection)
        answers = await asyncio.gather(
            self_.handle.data.get(collection.name, mine["id"]),
            other.handle.data.get(collection.name, foreign["id"]),
            self_.handle.data.get(collection.name, foreign["id"]),
            return_exceptions=True,
        )
        expected = answers[0] == mine and answers[1] == foreign and isinstance(answers[2], NotFound)
        self._expect(expected, collection, f"look-ups of {self_.name} and {other.name} in one tick are mixed")

    async def _cursors(self, collection: Collection, self_: _Side, other: _Side) -> None:
        page = await other.handle.data.read(collection.name, limit=1)
        try:
            await self_.handle.data.read(collection.name, cursor=page.next_cursor)
        except InvalidQuery:
            return
        self.leaks.append(f"{collection.name}: tenant {self_.name} uses a cursor of {other.name}")

    async def _writes(self, collection: Collection, self_: _Side, other: _Side) -> None:
        name, foreign = collection.name, other.own(collection)
        data, who = self_.handle.data, f"tenant {self_.name}"
        attempts: dict[str, Callable[[Any], Awaitable[object]]] = {
            "updates": lambda id: data.update(name, id),
            "updates by version": lambda id: data.update(name, id, version=foreign["version"]),
            "learns the version of": lambda id: data.update(name, id, version=foreign["version"] + 7),
            "deletes": lambda id: data.delete(name, id),
            "deletes by version": lambda id: data.delete(name, id, version=foreign["version"]),
        }
        for verb, attempt in attempts.items():
            await self._refused(collection, f"{who} {verb} a row of {other.name}", NotFound, attempt, foreign)

    async def _takes_the_same_id(self, collection: Collection, self_: _Side, other: _Side) -> None:
        data, who = self_.handle.data, f"tenant {self_.name}"
        references = await self._references(collection, self_)
        row = self._canaries.make(collection, 3, {"id": other.own(collection)["id"], **references})
        writes: dict[str, Callable[[], Awaitable[KeyedModel]]] = {
            "create": lambda: data.create(row),
            "upsert": lambda: data.upsert(row),
        }
        for verb, write in writes.items():
            try:
                stored = await write()
            except TenantryError as error:
                self.leaks.append(
                    f"{collection.name}: {who} hears of an id of {other.name} by {verb}: {error}"
                )
                continue
            self._expect(stored.version == 1, collection, f"{who} changes a row of {other.name} by {verb}")
            try:
                await data.delete(stored, permanently=True)
            except TenantryError as error:
                self.leaks.append(f"{collection.name}: {who} cannot delete what it stored by {verb}: {error}")

    async def _refers(self, collection: Collection, item: Field, self_: _Side, other: _Side) -> None:
        assert item.ref is not None
        target = self._sdk._own[item.ref.collection]
        if target.scope != "tenant":
            return
        foreign, mine = other.own(target), self_.own(collection)
        data, leak = (
            self_.handle.data,
            f"tenant {self_.name} refers to a row of {other.name} through {item.name}",
        )
        if item.ref.enforced:
            await self._refused(
                collection,
                leak,
                ReferenceViolation,
                lambda id: data.update(collection.name, mine["id"], {item.name: id}),
                foreign,
                target,
            )
            return
        changed = await data.update(collection.name, mine["id"], {item.name: foreign["id"]})
        page = await data.read(collection.name, {"id": mine["id"]}, include=[str(item.relation)])
        self._expect(not page.included[str(item.relation)], collection, f"{leak} and reads it by include")
        before = {name: mine[name] for name in (item.name,)}
        self_.rows[collection.name][0] = await data.update(collection.name, changed["id"], before)

    async def _raw(self, collection: Collection, self_: _Side) -> None:
        if Capability.RAW_SQL not in self._sdk.capabilities:
            return
        found = await self_.handle.data.sql(f'SELECT count(*) AS number FROM "{collection.name}"')  # noqa: S608
        number = found[0]["number"]
        self._expect(number == 2, collection, f"tenant {self_.name} reads rows of others by SQL")

    async def shared(self, collection: Collection, side: _Side) -> None:
        """See that a tenant cannot write shared rows."""
        row = self._canaries.make(collection, _OWN, {"id": self._canaries.fresh_id(collection)})
        for verb, write in (
            ("creates", side.handle.data.create(row)),
            ("upserts", side.handle.data.upsert(row)),
            ("deletes", side.handle.data.delete(row)),
        ):
            try:
                await write
            except ReadOnlyCollection:
                continue
            except TenantryError as error:
                self.leaks.append(f"{collection.name}: a tenant {verb} shared rows: {error}")
                continue
            self.leaks.append(f"{collection.name}: a tenant {verb} shared rows")

    async def purged(self, left: _Side, right: _Side) -> None:
        """Purge one tenant and see that the other keeps its rows."""
        before = {name: await self._all(right.handle.data, self._sdk._own[name]) for name in right.rows}
        await self._sdk.tenants.delete(left.handle.context.tenant_id, reason="isolation check")
        await self._sdk.tenants.purge(left.handle.context.tenant_id)
        for name, rows in before.items():
            collection = self._sdk._own[name]
            kept = await self._all(right.handle.data, collection)
            self._expect(_same(kept, rows), collection, f"purging {left.name} took rows of {right.name}")


def _wheres(collection: Collection, mine: Record, foreign: Record) -> list[tuple[str, dict[str, Any]]]:
    """Return filters that a leak would show in, each with a name."""
    wheres: list[tuple[str, dict[str, Any]]] = [
        ("no filter", {}),
        ("id", {"id": foreign["id"]}),
        ("a list of ids", {"id": {"in": [foreign["id"], mine["id"]]}}),
        ("or", {"or": [{"id": foreign["id"]}, {"id": mine["id"]}, {"version": {"gte": 0}}]}),
        ("not", {"not": {"id": mine["id"]}}),
        ("not none", {"not": {"or": []}}),
    ]
    for item in collection.fields.values():
        value = foreign[item.name]
        if item.kind in (Kind.JSON, Kind.LIST):
            wheres.append((f"{item.name} is null", {item.name: {"is_null": value is None}}))
        else:
            wheres.append((item.name, {item.name: value}))
    return wheres


def _texts(collection: Collection, row: Record) -> list[str]:
    """Return what finds a row by each of its searchable fields."""
    found = (words(row[field.name] or "") for field in searchable_fields(collection))
    return [cut[0] for cut in found if cut]


def _orders(collection: Collection) -> list[str]:
    names = [item.name for item in collection.fields.values() if item.kind not in (Kind.JSON, Kind.LIST)]
    return [*names, "-id", "-version"]


async def _walk(data: DataManager, name: str, order: str) -> list[Record]:
    rows: list[Record] = []
    cursor = None
    while len(rows) < 100:
        page = await data.read(name, order_by=order, limit=1, cursor=cursor)
        rows += page
        cursor = page.next_cursor
        if cursor is None:
            break
    return rows


def _within(found: Any, rows: list[Record]) -> bool:
    return all(row in rows for row in found)


def _same(found: list[Record], rows: list[Record]) -> bool:
    return len(found) == len(rows) and _within(found, rows)
