"""Writing many rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, overload

from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.data.records import (
    M,
    new_record,
)
from tenantry.errors import (
    InvalidRecord,
)
from tenantry.ports import Insert
from tenantry.types import Record


class Bulk(Calls):
    """The calls that write many rows."""

    @overload
    async def bulk_create(self, records: Iterable[M], /, *, context: Context | None = None) -> list[M]: ...
    @overload
    async def bulk_create(
        self, collection: str, records: Iterable[Mapping[str, Any]], /, *, context: Context | None = None
    ) -> list[Record]: ...
    async def bulk_create(
        self, target: Any, records: Any = None, /, *, context: Context | None = None
    ) -> list[Any]:
        """Store many new rows of one collection, all or none, and return them as stored."""
        by_name = isinstance(target, str)
        items = list(records if by_name else target)
        if not items:
            return []
        made = [self._instance(target, item) if by_name else self._instance(item, None) for item in items]
        found, typed, _ = made[0]
        if any(other is not found for other, _, _ in made):
            raise InvalidRecord("the records belong to different collections.", field="records")
        values = [new_record(found, instance) for _, _, instance in made]
        rows = await self._write("create", found, [Insert(found, values)], context)
        return [found.instantiate(row) for row in rows] if typed else rows
