"""Deleting rows: for good, or so that they can be restored."""

from __future__ import annotations

import datetime as dt
from typing import Any, overload

from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.data.records import M, changes_of_instance, checked_version, delete_or_mark, key_of, now
from tenantry.errors import InvalidQuery, ReferenceViolation, Unsupported
from tenantry.ports import Discard, Update
from tenantry.query import And, Comparison, Query, Sort, after, parse_limit
from tenantry.schema import MARK, Collection, KeyedModel
from tenantry.types import Record


class Deletes(Calls):
    """The calls that delete rows and restore them."""

    @overload
    async def delete(
        self, record: KeyedModel, /, *, permanently: bool = False, context: Context | None = None
    ) -> None: ...
    @overload
    async def delete(
        self,
        collection: type[KeyedModel] | str,
        id: Any,
        /,
        *,
        version: int | None = None,
        permanently: bool = False,
        context: Context | None = None,
    ) -> None: ...
    async def delete(
        self,
        target: Any,
        id: Any = None,
        /,
        *,
        version: int | None = None,
        permanently: bool = False,
        context: Context | None = None,
    ) -> None:
        """Delete a row; given an instance, only if its version is stored still.

        Where the model derives from :class:`~tenantry.SoftDelete`, the row is marked and stays, until it is restored,
        or deleted ``permanently``; what refers to it keeps doing so.

        Raises:
            NotFound: This tenant has no such row.
            Conflict: Another writer was first.
            ReferenceViolation: Another row refers to it, and it is not only marked.
        """
        found, id, version = self._named(target, id, version)
        version = checked_version(version)
        write = delete_or_mark(found, key_of(found, id), version, permanently=permanently)
        await self._write("delete", found, [write], context)

    @overload
    async def restore(self, record: M, /, *, context: Context | None = None) -> M: ...
    @overload
    async def restore(
        self, collection: type[M], id: Any, /, *, version: int | None = None, context: Context | None = None
    ) -> M: ...
    @overload
    async def restore(
        self, collection: str, id: Any, /, *, version: int | None = None, context: Context | None = None
    ) -> Record: ...
    async def restore(
        self,
        target: Any,
        id: Any = None,
        /,
        *,
        version: int | None = None,
        context: Context | None = None,
    ) -> Any:
        """Bring back a row that is marked as deleted, and return it as stored.

        Raises:
            NotFound: This tenant has no such row, or it is not deleted.
            Conflict: Another writer was first.
            UniqueViolation: A unique value of it has been taken meanwhile.
        """
        found, id, version = self._named(target, id, version)
        _check_soft(found)
        changes = {MARK: None, "updated_at": now()}
        write = Update(found, key_of(found, id), changes, checked_version(version), deleted="only")
        rows = await self._write("restore", found, [write], context)
        return rows[0] if isinstance(target, str) else found.instantiate(rows[0])

    async def purge_deleted(
        self,
        collection: type[KeyedModel] | str,
        *,
        older_than: dt.timedelta,
        batch_size: int = 500,
        context: Context | None = None,
    ) -> int:
        """Delete for good what was marked as deleted more than ``older_than`` ago. Return how many rows that were.

        It goes in batches, each of which is a transaction, and may be repeated after any failure. A row that another
        row refers to stays, as does one that is restored meanwhile.
        """
        found, _ = self._runtime.collection(collection)
        _check_soft(found)
        if self._unit is not None:
            raise Unsupported("A purge is many transactions.", fix="Call it outside of one.")
        before = _before(older_than)
        expired = Comparison(found.fields[MARK], "lt", before)
        order = (Sort(found.fields[MARK]), Sort(found.key))
        fields = tuple(sort.field for sort in order)
        query = Query(found, fields, expired, order, parse_limit(batch_size, "batch_size"), deleted="only")
        scope = await self._admitted(context)
        page, purged = query, 0
        while rows := await self._executor.select(scope, page):
            purged += await self._discard(scope, found, [row["id"] for row in rows], before)
            last = after(order, [rows[-1][field.name] for field in fields])
            page = Query(found, fields, And((expired, last)), order, query.limit, deleted="only")
        return purged

    async def _discard(self, scope: Context, found: Collection, ids: list[Any], before: dt.datetime) -> int:
        """Delete one batch; where a row of it is still referred to, all others one by one."""
        try:
            return len(await self._write("delete", found, [Discard(found, ids, before)], scope))
        except ReferenceViolation:
            if len(ids) == 1:
                return 0
        return sum([await self._discard(scope, found, [id], before) for id in ids])

    def _named(self, target: Any, id: Any, version: int | None) -> tuple[Collection, Any, int | None]:
        if not isinstance(target, KeyedModel):
            return self._runtime.collection(target)[0], id, version
        changes_of_instance(id, None, version)
        return self._runtime.collection(type(target))[0], target.id, target.version


def _before(older_than: object) -> dt.datetime:
    try:
        if isinstance(older_than, dt.timedelta) and older_than >= dt.timedelta():
            return now() - older_than
    except OverflowError:
        pass
    raise InvalidQuery("expected a timedelta, 0 or more and not beyond all time.", path="older_than")


def _check_soft(found: Collection) -> None:
    if not found.soft:
        raise Unsupported(
            f"{found.name!r} keeps no deleted rows.", fix="Derive its model from SoftDelete, and migrate."
        )
