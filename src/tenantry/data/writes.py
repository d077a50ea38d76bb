"""Writing rows, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.data.records import (
    M,
    changes_of_instance,
    check_group,
    checked_version,
    given_values,
    key_of,
    new_record,
    now,
    revalidated,
)
from tenantry.errors import (
    InvalidRecord,
)
from tenantry.ports import Insert, Update, Upsert
from tenantry.schema import KeyedModel
from tenantry.types import Record


class Writes(Calls):
    """The calls that write one row."""

    @overload
    async def create(
        self, record: M, /, *, idempotency_key: str | None = None, context: Context | None = None
    ) -> M: ...
    @overload
    async def create(
        self,
        collection: str,
        record: Mapping[str, Any],
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
    ) -> Record: ...
    async def create(
        self,
        target: Any,
        record: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
    ) -> Any:
        """Store a new row and return it as stored.

        Args:
            target: An instance of a model, or the name of a collection followed by the record.
            record: The values, for a collection given by name.
            idempotency_key: A repeated call with the same key returns the row of the first.
            context: For an unbound manager, who asks.

        Raises:
            InvalidRecord: A value cannot be stored; carries the field.
            UniqueViolation: A unique value is taken in this tenant.
            ReferenceViolation: A reference names a row that this tenant does not have.
            IdempotencyConflict: The key was used for something else.
        """
        found, typed, instance = self._instance(target, record)
        values = new_record(found, instance)
        print_of = given_values(found, instance, record)
        rows = await self._write(
            "create", found, [Insert(found, [values])], context, idempotency_key, print_of
        )
        return found.instantiate(rows[0]) if typed else rows[0]

    @overload
    async def update(
        self,
        record: M,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> M: ...
    @overload
    async def update(
        self,
        collection: type[M],
        id: Any,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> M: ...
    @overload
    async def update(
        self,
        collection: str,
        id: Any,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> Record: ...
    async def update(
        self,
        target: Any,
        id: Any = None,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        context: Context | None = None,
        **fields: Any,
    ) -> Any:
        """Change some fields of a row and return it as stored.

        Given an instance, its version is the one that must be stored still; given a model or name and an id,
        ``version`` is, and without it the last writer wins.

        Raises:
            NotFound: This tenant has no such row.
            Conflict: Another writer was first; carries the current version.
        """
        if isinstance(target, KeyedModel):
            found, typed = self._runtime.collection(type(target))
            wanted = {**changes_of_instance(id, changes, version), **fields}
            if not wanted:
                raise InvalidRecord("name what changes: update(row, price=…).", field="changes")
            id, version = target.id, target.version
            validated = revalidated(found, target, wanted)
        else:
            found, typed = self._runtime.collection(target)
            validated = found.validate_changes({**(changes or {}), **fields})
        key = key_of(found, id)
        version = checked_version(version)
        print_of = [key, version, validated]
        write = Update(found, key, {**validated, "updated_at": now()}, version)
        rows = await self._write("update", found, [write], context, idempotency_key, print_of)
        return found.instantiate(rows[0]) if typed else rows[0]

    @overload
    async def upsert(
        self,
        record: M,
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> M: ...
    @overload
    async def upsert(
        self,
        collection: str,
        record: Mapping[str, Any],
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> Record: ...
    async def upsert(
        self,
        target: Any,
        record: Mapping[str, Any] | None = None,
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> Any:
        """Store a new row, or where this tenant has one with the same ``on``, set the given fields in it.

        Args:
            target: As for :meth:`create`.
            record: As for :meth:`create`.
            on: ``("id",)`` or one of the unique groups of the collection.
            context: For an unbound manager, who asks.
        """
        found, typed, instance = self._instance(target, record)
        group = (on,) if isinstance(on, str) else tuple(on)
        check_group(found, group)
        values = new_record(found, instance)
        given = given_values(found, instance, record)
        changes = tuple(name for name in given if name not in found.carried and name not in group)
        write = Upsert(found, values, group, (*changes, "updated_at"))
        rows = await self._write("upsert", found, [write], context)
        return found.instantiate(rows[0]) if typed else rows[0]
