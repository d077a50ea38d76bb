"""Where all processes leave their counts, so that the command line sees them together."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from tenantry.context import SystemContext
from tenantry.errors import NotFound
from tenantry.insights.counts import Counted, restored
from tenantry.insights.shape import Shape
from tenantry.ports import Catalog, DatabaseAdapter, Delete, Upsert
from tenantry.query import And, Comparison, Query, Sort
from tenantry.schema import Indexed, KeyedModel, collection_of

RETENTION = dt.timedelta(days=8)
"""How long counts are kept."""

_SYSTEM = SystemContext(reason="query insights", actor="tenantry")
_PAGE = 50
# The row of the watch over indexes; those of counts begin with a digit.
_INDEXES = "indexes"


class InsightRecord(KeyedModel, defer_build=True):
    """What one process counted in one hour. It names shapes and holds numbers: nothing of a tenant."""

    __collection__ = "tenantry_insights"
    __control__ = True

    id: str
    hour: Annotated[dt.datetime, Indexed]
    counted: list[Any]


INSIGHTS = collection_of(InsightRecord)


def hour_of(instant: dt.datetime) -> dt.datetime:
    """Return the hour that an instant is in."""
    return instant.replace(minute=0, second=0, microsecond=0)


class Store:
    """The control table. Each process writes rows of its own, one an hour, so none waits for another."""

    def __init__(self, database: DatabaseAdapter) -> None:
        self._database = database
        self._process = secrets.token_hex(8)

    async def save(self, hour: dt.datetime, counted: Sequence[Counted]) -> None:
        """Write all that this process counted in an hour, in place of what it wrote of that hour before."""
        row = InsightRecord(
            id=f"{hour:%Y%m%d%H}-{self._process}",
            hour=hour,
            counted=[item.stored() for item in counted],
            version=1,
        )
        upsert = Upsert(INSIGHTS, INSIGHTS.to_record(row), ("id",), ("counted", "updated_at"))
        await self._database.execute(_SYSTEM, [upsert])

    async def load(self, since: dt.datetime) -> tuple[dict[Shape, Counted], int]:
        """Return the numbers of all processes, and how many processes that are."""
        found: dict[Shape, Counted] = {}
        processes: set[str] = set()
        last = ""
        while True:
            rows = await self._database.select(_SYSTEM, self._page(since, last))
            for row in rows:
                last = row["id"]
                processes.add(last.partition("-")[2])
                for data in row["counted"]:
                    _add(found, data)
            if len(rows) < _PAGE:
                return found, len(processes)

    def _page(self, since: dt.datetime, last: str) -> Query:
        fields = INSIGHTS.fields
        recent = Comparison(fields["hour"], "gte", hour_of(since))
        position = Comparison(fields["id"], "gt", last)
        counts = Comparison(fields["id"], "lt", _INDEXES)
        columns = (fields["id"], fields["counted"])
        return Query(INSIGHTS, columns, And((recent, position, counts)), (Sort(fields["id"]),), _PAGE)

    async def observed(self, catalog: Catalog, now: dt.datetime) -> dict[str, tuple[dt.datetime, int]]:
        """Note the indexes there are, and return since when each is watched and how often it had been used by then.

        The watch begins anew where the database began to count anew.
        """
        rows = await self._database.fetch(_SYSTEM, INSIGHTS, [_INDEXES])
        stored = rows[0]["counted"] if rows else []
        before = {name: (dt.datetime.fromisoformat(since), scans) for name, since, scans in stored}
        seen: dict[str, tuple[dt.datetime, int]] = {}
        for index in catalog.indexes:
            since, scans = before.get(index.name, (now, index.scans or 0))
            if catalog.since is not None and catalog.since > since:
                since, scans = catalog.since, 0
            seen[index.name] = (since, scans)
        if seen != before:
            listed = [[name, since.isoformat(), scans] for name, (since, scans) in sorted(seen.items())]
            row = InsightRecord(id=_INDEXES, hour=now, counted=listed, version=1)
            upsert = Upsert(INSIGHTS, INSIGHTS.to_record(row), ("id",), ("hour", "counted", "updated_at"))
            await self._database.execute(_SYSTEM, [upsert])
        return seen

    async def prune(self, before: dt.datetime) -> None:
        """Delete rows of hours that are too long ago."""
        fields = INSIGHTS.fields
        old = Comparison(fields["hour"], "lt", before)
        counts = Comparison(fields["id"], "lt", _INDEXES)
        query = Query(INSIGHTS, (fields["id"],), And((old, counts)), (Sort(fields["id"]),), _PAGE)
        for row in await self._database.select(_SYSTEM, query):
            with suppress(NotFound):  # another process was first
                await self._database.execute(_SYSTEM, [Delete(INSIGHTS, row["id"])])


def _add(found: dict[Shape, Counted], data: Any) -> None:
    try:
        counted = restored(data)
    except msgspec.ValidationError:  # written by another version
        return
    known = found.get(counted.shape)
    if known is None:
        found[counted.shape] = counted
    else:
        known.counts.add(counted.counts)
