"""Reading and writing the rows of one tenant, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, overload

from tenantry import data as asynchronous
from tenantry.context import Context, TenantContext
from tenantry.data.bulk import Change, Many
from tenantry.data.records import M, T
from tenantry.filters import Where
from tenantry.schema import KeyedModel
from tenantry.sync.bound import Block, Bound
from tenantry.types import BulkResult, Page, Record


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
                context=context,
            )
        )
        return result

    def count(
        self, collection: type[KeyedModel] | str, where: Where = None, *, context: Context | None = None
    ) -> int:
        """Return how many rows there are, or meet ``where``."""
        return self._run(lambda it: it.count(collection, where, context=context))

    def exists(
        self, collection: type[KeyedModel] | str, where: Where = None, *, context: Context | None = None
    ) -> bool:
        """Return whether any row meets ``where``."""
        return self._run(lambda it: it.exists(collection, where, context=context))

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
    def delete(self, record: KeyedModel, /, *, context: Context | None = None) -> None: ...

    @overload
    def delete(
        self,
        collection: type[KeyedModel] | str,
        id: Any,
        /,
        *,
        version: int | None = None,
        context: Context | None = None,
    ) -> None: ...

    def delete(
        self, target: Any, id: Any = None, /, *, version: int | None = None, context: Context | None = None
    ) -> None:
        """Delete a row; given an instance, only if its version is stored still.

        Raises:
            NotFound: This tenant has no such row.
            Conflict: Another writer was first.
            ReferenceViolation: Another row refers to it.
        """
        self._pass_on(lambda it: it.delete(target, id, version=version, context=context))

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

    def transaction(self, *, context: Context | None = None) -> AbstractContextManager[DataManager]:
        """Give a manager whose writes take place together when the block ends, or not at all.

        A write that fails dooms the transaction, on every database: nothing of it is kept.
        """
        return Block(self, lambda it: it.transaction(context=context), DataManager, pinned=True)

    def sql(
        self, text: str, params: Sequence[Any] = (), *, context: TenantContext | None = None
    ) -> list[Record]:
        """Run one SQL statement of your own, held to the tenant by the database; PostgreSQL only.

        It runs as a role of its own, under row-level security, on a connection that is wiped before its next use.
        """
        return self._run(lambda it: it.sql(text, params, context=context))
