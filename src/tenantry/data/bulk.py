"""Writing many rows."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, overload

from tenantry.context import Context
from tenantry.data import plans
from tenantry.data.batches import Batches, Task
from tenantry.data.records import M
from tenantry.schema import KeyedModel
from tenantry.types import BulkResult, Record

Item = TypeVar("Item")
Many = Iterable[Item] | AsyncIterable[Item]
Change = tuple[Any, Mapping[str, Any]] | tuple[Any, Mapping[str, Any], int | None]


class Bulk(Batches):
    """The calls that write many rows.

    What they have in common: the items may come from any iterable, or asynchronous one, of which ``batch_size`` are
    held at a time. Each batch is one transaction; inside :meth:`transaction`, all are part of that. An item that is
    refused, for whatever reason, is reported in the result with its index and leaves nothing; the others take place,
    each as if it came after the one before. With ``atomic=True`` all items are one transaction, and the first that
    is refused raises its error.
    """

    @overload
    async def bulk_create(
        self,
        records: Many[M],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...
    @overload
    async def bulk_create(
        self,
        collection: type[M],
        records: Many[Mapping[str, Any]],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...
    @overload
    async def bulk_create(
        self,
        collection: str,
        records: Many[Mapping[str, Any]],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Record]: ...
    async def bulk_create(
        self,
        target: Any,
        records: Any = None,
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Any]:
        """Store many new rows of one collection and return what came of each.

        Args:
            target: Instances of a model, or a model or the name of a collection followed by records.
            records: The records, for a collection that is given.
            batch_size: How many items are one transaction, at most 100,000; by default ``performance.batch_size``.
            atomic: Store all or none, and raise the first item's error; it carries its ``index``.
            context: For an unbound manager, who asks.

        Raises:
            InvalidRequest: The call is wrong, rather than one of its items.
            Unavailable: It broke off; the error's ``partial`` says what had come of the batches before.
        """
        task = Task("create", plans.creations, batch_size, atomic, context)
        return await self._bulk(task, target, records)

    @overload
    async def bulk_update(
        self,
        records: Many[M],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...
    @overload
    async def bulk_update(
        self,
        collection: type[M],
        changes: Many[Change],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...
    @overload
    async def bulk_update(
        self,
        collection: str,
        changes: Many[Change],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Record]: ...
    async def bulk_update(
        self,
        target: Any,
        changes: Any = None,
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Any]:
        """Change many rows of one collection and return what came of each.

        Args:
            target: Instances, each of which sets all its fields where its version is stored still; or a model or
                the name of a collection followed by changes.
            changes: Pairs of an id and the fields that change, or triples with the version that must be stored still.
            batch_size: As for :meth:`bulk_create`.
            atomic: As for :meth:`bulk_create`.
            context: For an unbound manager, who asks.

        Raises:
            InvalidRequest: The call is wrong, rather than one of its items.
            Unavailable: As for :meth:`bulk_create`.
        """
        task = Task("update", plans.updates, batch_size, atomic, context)
        return await self._bulk(task, target, changes)

    @overload
    async def bulk_upsert(
        self,
        records: Many[M],
        /,
        *,
        on: Sequence[str] = ("id",),
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...
    @overload
    async def bulk_upsert(
        self,
        collection: type[M],
        records: Many[Mapping[str, Any]],
        /,
        *,
        on: Sequence[str] = ("id",),
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...
    @overload
    async def bulk_upsert(
        self,
        collection: str,
        records: Many[Mapping[str, Any]],
        /,
        *,
        on: Sequence[str] = ("id",),
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Record]: ...
    async def bulk_upsert(
        self,
        target: Any,
        records: Any = None,
        /,
        *,
        on: Sequence[str] = ("id",),
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Any]:
        """Store many new rows, or where this tenant has one with the same ``on``, set the given fields in it.

        Items that follow each other and give the same fields share a statement.

        Args:
            target: As for :meth:`bulk_create`.
            records: As for :meth:`bulk_create`.
            on: ``("id",)`` or one of the unique groups of the collection.
            batch_size: As for :meth:`bulk_create`.
            atomic: As for :meth:`bulk_create`.
            context: For an unbound manager, who asks.

        Raises:
            InvalidRequest: The call is wrong, rather than one of its items.
            Unavailable: As for :meth:`bulk_create`.
        """
        plan = partial(plans.upserts, group=(on,) if isinstance(on, str) else tuple(on))
        return await self._bulk(Task("upsert", plan, batch_size, atomic, context), target, records)

    @overload
    async def bulk_delete(
        self,
        records: Many[KeyedModel],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[None]: ...
    @overload
    async def bulk_delete(
        self,
        collection: type[KeyedModel] | str,
        ids: Many[Any],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[None]: ...
    async def bulk_delete(
        self,
        target: Any,
        ids: Any = None,
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[None]:
        """Delete many rows of one collection and return what came of each.

        Args:
            target: Instances, each of which is deleted where its version is stored still; or a model or the name of
                a collection followed by ids.
            ids: The ids, for a collection that is given.
            batch_size: As for :meth:`bulk_create`.
            atomic: As for :meth:`bulk_create`.
            context: For an unbound manager, who asks.

        Raises:
            InvalidRequest: The call is wrong, rather than one of its items.
            Unavailable: As for :meth:`bulk_create`.
        """
        task = Task("delete", plans.deletions, batch_size, atomic, context)
        return await self._bulk(task, target, ids)
