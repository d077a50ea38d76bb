"""Reading and writing the rows of one tenant, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, overload

from tenantry import data as asynchronous
from tenantry.aggregates import GroupBy, Measures
from tenantry.context import Context, TenantContext
from tenantry.data.bulk import Change, Many
from tenantry.data.manager import R
from tenantry.data.records import M, T
from tenantry.filters import Where
from tenantry.ports import Isolation
from tenantry.query import Deleted
from tenantry.schema import KeyedModel
from tenantry.sync.bound import Block, Bound, run_again
from tenantry.sync.streams import Stream
from tenantry.types import BulkResult, Hit, Page, Record


class DataManager(Bound[asynchronous.DataManager]):
    """Reads and writes rows. Bound to a context by :meth:`bind`; unbound, each call names its context.

    A model class gives typed results (``read(Product) -> Page[Product]``); a name gives plain records.
    """

    @overload
    def get(self, collection: type[M], id: Any, *, context: Context | None = None) -> M: ...

    @overload
    def get(self, collection: str, id: Any, *, context: Context | None = None) -> Record: ...

    def get(self, collection: type[M] | str, id: Any, *, context: Context | None = None) -> M | Record:
        """Return the row with this id.

        Raises:
            NotFound: This tenant has no such row. Another tenant's row is not found either.
        """
        result: M | Record = self._pass_on(lambda it: it.get(collection, id, context=context))
        return result

    @overload
    def read(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        into: type[T],
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fields: Sequence[str] | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[T]: ...

    @overload
    def read(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        include: Sequence[str] = (),
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[M]: ...

    @overload
    def read(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        fields: Sequence[str],
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[Record]: ...

    @overload
    def read(
        self,
        collection: str,
        where: Where = None,
        *,
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fields: Sequence[str] | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[Record]: ...

    def read(
        self,
        collection: Any,
        where: Any = None,
        *,
        order_by: Sequence[str] | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fields: Sequence[str] | None = None,
        into: type[Any] | None = None,
        include: Sequence[str] = (),
        distinct: bool = False,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Page[Any]:
        """Return a page of rows.

        Args:
            collection: A model, for typed results, or a name, for plain records.
            where: ``lambda p: (p.price < 10) & p.name.startswith("L")`` or ``{"price": {"lt": 10}}``.
            order_by: Field names, ``-`` in front for descending. Ties are broken by id.
            limit: The most rows, 1 to 10,000.
            cursor: The ``next_cursor`` of the page before.
            fields: Return plain records of these fields only.
            into: Return instances of this class, made of the fields that it names.
            include: Names of references; their rows come in ``page.included[name][id]``, in one query each.
            distinct: Return equal rows once. Needs ``fields`` or ``into``.
            deleted: ``with`` rows that are marked as deleted, or those ``only``.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault.
        """
        result: Page[Any] = self._pass_on(
            lambda it: it.read(
                collection,
                where,
                order_by=order_by,
                limit=limit,
                cursor=cursor,
                fields=fields,
                into=into,
                include=include,
                distinct=distinct,
                deleted=deleted,
                context=context,
            )
        )
        return result

    def count(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> int:
        """Return how many rows there are, or meet ``where``."""
        return self._run(lambda it: it.count(collection, where, deleted=deleted, context=context))

    def exists(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> bool:
        """Return whether any row meets ``where``."""
        return self._run(lambda it: it.exists(collection, where, deleted=deleted, context=context))

    @overload
    def stream(
        self,
        collection: type[KeyedModel] | str,
        where: Where = None,
        *,
        into: type[T],
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[M]: ...

    @overload
    def stream(
        self,
        collection: type[M],
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        *,
        fields: Sequence[str],
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[Record]: ...

    @overload
    def stream(
        self,
        collection: str,
        where: Where = None,
        *,
        fields: Sequence[str] | None = None,
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> Stream[Record]: ...

    def stream(
        self,
        collection: Any,
        where: Any = None,
        *,
        order_by: Sequence[str] | str | None = None,
        batch_size: int = 500,
        deleted: Deleted = "without",
        fields: Sequence[str] | None = None,
        into: type[Any] | None = None,
        context: Context | None = None,
    ) -> Stream[Any]:
        """Return all rows, one after the other, in bounded memory.

        Rows are read in batches as they are consumed. One that was there all the time, and whose sort keys did not
        change, comes exactly once, whatever others write meanwhile.

        Args:
            collection: A model, for typed results, or a name, for plain records.
            where: As for :meth:`read`.
            order_by: Field names, ``-`` in front for descending. Ties are broken by id.
            deleted: ``with`` rows that are marked as deleted, or those ``only``.
            batch_size: The most rows to hold at a time, 1 to 10,000.
            fields: Return plain records of these fields only.
            into: Return instances of this class, made of the fields that it names.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault; at once, while other errors come with the first row.
        """
        return Stream(
            self,
            lambda it: it.stream(
                collection,
                where,
                order_by=order_by,
                batch_size=batch_size,
                deleted=deleted,
                fields=fields,
                into=into,
                context=context,
            ),
        )

    def aggregate(
        self,
        collection: type[KeyedModel] | str,
        measures: Measures,
        where: Where = None,
        *,
        group_by: GroupBy = (),
        having: Mapping[str, Any] | None = None,
        order_by: Sequence[str] | str | None = None,
        limit: int | None = None,
        deleted: Deleted = "without",
        context: Context | None = None,
    ) -> list[Record]:
        """Return a record of each group of rows; without ``group_by``, one of all rows.

        Args:
            collection: A model or a name.
            measures: ``{"orders": Count(), "revenue": Sum("total")}``, or in JSON ``{"revenue": {"sum": "total"}}``.
            where: What rows must meet; as for :meth:`read`.
            group_by: Names of fields, or ``{"day": Trunc("created_at", "day")}``.
            having: What groups must meet: a filter over the names of measures and groups.
            order_by: Names of measures and groups, ``-`` in front for descending. Ties are ordered by the groups.
            limit: The most groups, 1 to 10,000; without it, more than 10,000 are refused.
            deleted: ``with`` rows that are marked as deleted, or those ``only``.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault.
        """
        return self._run(
            lambda it: it.aggregate(
                collection,
                measures,
                where,
                group_by=group_by,
                having=having,
                order_by=order_by,
                limit=limit,
                deleted=deleted,
                context=context,
            )
        )

    @overload
    def search(
        self,
        collection: type[M],
        text: str,
        *,
        fields: Sequence[str] | None = None,
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        limit: int = 20,
        cursor: str | None = None,
        highlight: bool | tuple[str, str] = False,
        typos: bool = False,
        context: Context | None = None,
    ) -> Page[Hit[M]]: ...

    @overload
    def search(
        self,
        collection: str,
        text: str,
        *,
        fields: Sequence[str] | None = None,
        where: Where = None,
        limit: int = 20,
        cursor: str | None = None,
        highlight: bool | tuple[str, str] = False,
        typos: bool = False,
        context: Context | None = None,
    ) -> Page[Hit[Record]]: ...

    def search(
        self,
        collection: Any,
        text: str,
        *,
        fields: Sequence[str] | None = None,
        where: Any = None,
        limit: int = 20,
        cursor: str | None = None,
        highlight: bool | tuple[str, str] = False,
        typos: bool = False,
        context: Context | None = None,
    ) -> Page[Hit[Any]]:
        """Return a page of the rows that have the words of ``text``, the best first.

        Case and accents do not count. The score of a row depends on nothing but the row and the text.

        Args:
            collection: A model, for typed rows, or a name, for plain records.
            text: Words, which must all be found; ``"words in quotes"`` stand side by side, ``-word`` must not be there,
                ``lap*`` finds what begins so, and so does the last word while no space follows it.
            fields: The searchable fields to look into; by default all of them.
            where: What rows must meet besides, as in ``read``.
            limit: The most rows, 1 to 10,000.
            cursor: The ``next_cursor`` of the page before.
            highlight: Whether each hit shows where the words were found, as HTML; or what stands before and behind them
                in place of ``<mark>`` and ``</mark>``.
            typos: Whether to find words too that one of the text may be mistyped for.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault.
        """
        result: Page[Hit[Any]] = self._pass_on(
            lambda it: it.search(
                collection,
                text,
                fields=fields,
                where=where,
                limit=limit,
                cursor=cursor,
                highlight=highlight,
                typos=typos,
                context=context,
            )
        )
        return result

    @overload
    def create(
        self, record: M, /, *, idempotency_key: str | None = None, context: Context | None = None
    ) -> M: ...

    @overload
    def create(
        self,
        collection: str,
        record: Mapping[str, Any],
        /,
        *,
        idempotency_key: str | None = None,
        context: Context | None = None,
    ) -> Record: ...

    def create(
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
        return self._pass_on(
            lambda it: it.create(target, record, idempotency_key=idempotency_key, context=context)
        )

    @overload
    def update(
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
    def update(
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
    def update(
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

    def update(
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
        return self._pass_on(
            lambda it: it.update(
                target,
                id,
                changes,
                version=version,
                idempotency_key=idempotency_key,
                context=context,
                **fields,
            )
        )

    @overload
    def upsert(self, record: M, /, *, on: Sequence[str] = ("id",), context: Context | None = None) -> M: ...

    @overload
    def upsert(
        self,
        collection: str,
        record: Mapping[str, Any],
        /,
        *,
        on: Sequence[str] = ("id",),
        context: Context | None = None,
    ) -> Record: ...

    def upsert(
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
        return self._pass_on(lambda it: it.upsert(target, record, on=on, context=context))

    @overload
    def delete(
        self, record: KeyedModel, /, *, permanently: bool = False, context: Context | None = None
    ) -> None: ...

    @overload
    def delete(
        self,
        collection: type[KeyedModel] | str,
        id: Any,
        /,
        *,
        version: int | None = None,
        permanently: bool = False,
        context: Context | None = None,
    ) -> None: ...

    def delete(
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
        self._pass_on(
            lambda it: it.delete(target, id, version=version, permanently=permanently, context=context)
        )

    @overload
    def restore(self, record: M, /, *, context: Context | None = None) -> M: ...

    @overload
    def restore(
        self, collection: type[M], id: Any, /, *, version: int | None = None, context: Context | None = None
    ) -> M: ...

    @overload
    def restore(
        self, collection: str, id: Any, /, *, version: int | None = None, context: Context | None = None
    ) -> Record: ...

    def restore(
        self, target: Any, id: Any = None, /, *, version: int | None = None, context: Context | None = None
    ) -> Any:
        """Bring back a row that is marked as deleted, and return it as stored.

        Raises:
            NotFound: This tenant has no such row, or it is not deleted.
            Conflict: Another writer was first.
            UniqueViolation: A unique value of it has been taken meanwhile.
        """
        return self._pass_on(lambda it: it.restore(target, id, version=version, context=context))

    def purge_deleted(
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
        return self._run(
            lambda it: it.purge_deleted(
                collection, older_than=older_than, batch_size=batch_size, context=context
            )
        )

    @overload
    def bulk_create(
        self,
        records: Many[M],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...

    @overload
    def bulk_create(
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
    def bulk_create(
        self,
        collection: str,
        records: Many[Mapping[str, Any]],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Record]: ...

    def bulk_create(
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
        result: BulkResult[Any] = self._pass_on(
            lambda it: it.bulk_create(target, records, batch_size=batch_size, atomic=atomic, context=context)
        )
        return result

    @overload
    def bulk_update(
        self,
        records: Many[M],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[M]: ...

    @overload
    def bulk_update(
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
    def bulk_update(
        self,
        collection: str,
        changes: Many[Change],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[Record]: ...

    def bulk_update(
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
        result: BulkResult[Any] = self._pass_on(
            lambda it: it.bulk_update(target, changes, batch_size=batch_size, atomic=atomic, context=context)
        )
        return result

    @overload
    def bulk_upsert(
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
    def bulk_upsert(
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
    def bulk_upsert(
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

    def bulk_upsert(
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
        result: BulkResult[Any] = self._pass_on(
            lambda it: it.bulk_upsert(
                target, records, on=on, batch_size=batch_size, atomic=atomic, context=context
            )
        )
        return result

    @overload
    def bulk_delete(
        self,
        records: Many[KeyedModel],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[None]: ...

    @overload
    def bulk_delete(
        self,
        collection: type[KeyedModel] | str,
        ids: Many[Any],
        /,
        *,
        batch_size: int | None = None,
        atomic: bool = False,
        context: Context | None = None,
    ) -> BulkResult[None]: ...

    def bulk_delete(
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
        result: BulkResult[None] = self._pass_on(
            lambda it: it.bulk_delete(target, ids, batch_size=batch_size, atomic=atomic, context=context)
        )
        return result

    def bind(self, context: Context) -> DataManager:
        """Return the same manager for one tenant. It ignores the ambient tenant and raises where they disagree."""
        return DataManager(self._session, lambda: self._target().bind(context), self._pin)._checked()

    @property
    def primary(self) -> DataManager:
        """The same manager, whose reads no replica answers: for what must be seen as of now, whoever wrote it.

        Without replicas there is no difference. What was written through this process is read back in any case.
        """
        return DataManager(self._session, lambda: self._target().primary, self._pin)._checked()

    def transaction(
        self, *, isolation: Isolation | None = None, context: Context | None = None
    ) -> AbstractContextManager[DataManager]:
        """Give a manager whose writes take place together when the block ends, or not at all.

        A write that fails dooms the transaction, on every database: nothing of it is kept.

        Args:
            isolation: ``read_committed``, ``repeatable_read`` or ``serializable``: how much it may see of transactions
                beside it, at most. By default what the database does.
            context: For an unbound manager, who asks.

        Raises:
            SerializationFailure: It got in another's way, and nothing of it was written. :meth:`run_transaction`
                runs it again.
        """
        return Block(
            self, lambda it: it.transaction(isolation=isolation, context=context), DataManager, pinned=True
        )

    def run_transaction(
        self,
        work: Callable[[DataManager], R],
        *,
        isolation: Isolation = "serializable",
        attempts: int = 5,
        context: Context | None = None,
    ) -> R:
        """Run ``work`` in a transaction, and again in a new one if it is certain that nothing of it was written.

        That is so after a serialisation failure or a deadlock, and when the connection was lost before the commit. A
        commit whose answer was lost is never run again: it raises, and it may have taken place.

        Args:
            work: Is given the manager of each transaction. What it does elsewhere it does once an attempt.
            isolation: As for :meth:`transaction`.
            attempts: The most attempts, the first one included.
            context: For an unbound manager, who asks.

        Returns:
            What ``work`` returned in the transaction that committed.

        Raises:
            SerializationFailure: The last attempt failed as well.
            InvalidQuery: There is to be less than one attempt.
        """
        return run_again(lambda: self.transaction(isolation=isolation, context=context), work, attempts)

    def sql(
        self, text: str, params: Sequence[Any] = (), *, context: TenantContext | None = None
    ) -> list[Record]:
        """Run one SQL statement of your own, held to the tenant by the database; PostgreSQL only.

        It runs as a role of its own, under row-level security, on a connection that is wiped before its next use.
        """
        return self._run(lambda it: it.sql(text, params, context=context))
