"""What every call needs: who asks, whether they may be served, and where it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tenantry.context import Context, SystemContext, TenantContext, check_ambient, current_context
from tenantry.data.records import (
    touched,
    trusted,
    validated,
)
from tenantry.data.runtime import Runtime
from tenantry.data.units import Unit, check_no_unit
from tenantry.errors import (
    ContextMismatch,
    DatabaseUnavailable,
    DataError,
    IdempotencyConflict,
    InvalidRecord,
    IsolationError,
    NotFound,
    TenantRequired,
    TenantryError,
    TransactionFailed,
    UniqueViolation,
    Unsupported,
)
from tenantry.hooks import Operation, Verb
from tenantry.idempotency import IDEMPOTENCY, IdempotencyKey, request_key
from tenantry.ports import Executor, Insert, Write
from tenantry.query import Query
from tenantry.schema import Collection, Field, KeyedModel
from tenantry.types import Record

_FETCH_AT_ONCE = 1_000


def _in_doubt(error: TenantryError) -> bool:
    """Whether a write may have taken place. Its key finds it, if so, when it is run again."""
    return isinstance(error, DatabaseUnavailable) and not error.nothing_written


class Calls:
    """What every call needs: who asks, whether they may be served, and where it runs."""

    def __init__(self, runtime: Runtime, context: Context | None = None, unit: Unit | None = None) -> None:
        self._runtime = runtime
        self._context = context
        self._unit = unit

    def _readable(self, target: object) -> tuple[Collection, bool]:
        """Return what ``target`` stands for; the system also reads the audit log, by its name."""
        if isinstance(self._context, SystemContext) and isinstance(target, str):
            log = self._runtime.logs.get(target)
            if log is not None:
                return log, False
        return self._runtime.collection(target)

    # -- who asks

    async def _admitted(self, given: Context | None) -> Context:
        """Return whose data this call is about, once that tenant may be served."""
        context = self._scope(given)
        if isinstance(context, TenantContext):
            lease = self._runtime.lease
            if not lease.admits(context.tenant_id):
                await lease.admit(context.tenant_id)
        return context

    def _scope(self, given: Context | None) -> Context:
        bound = self._context
        context = bound or given or current_context()
        if context is None:
            raise TenantRequired
        if given is not None and given is not context and given != context:
            raise ContextMismatch("This handle is bound to one tenant and the call names another context.")
        if isinstance(context, TenantContext):
            check_ambient(context)
        return self._checked(context)

    def _checked(self, context: Context) -> Context:
        if isinstance(context, TenantContext):
            return context
        if not isinstance(context, SystemContext):
            raise TenantRequired
        if context not in self._runtime.systems:
            raise IsolationError(
                "This system context was not opened, or is closed: use sdk.system(reason=…)."
            )
        return context

    # -- running

    @property
    def _executor(self) -> Executor:
        if self._unit is None:
            return self._runtime.database
        if self._unit.failed:
            raise TransactionFailed
        return self._unit.executor

    async def _fetch_one(self, scope: Context, found: Collection, key: Any) -> Record | None:
        coalescer = self._runtime.coalescer
        if (
            coalescer is not None
            and self._unit is None
            and isinstance(scope, TenantContext)
            and not scope.primary
        ):
            return await coalescer.get(scope, found, key)
        rows = await self._executor.fetch(scope, found, (key,))
        if len(rows) > 1:
            raise Unsupported(
                f"Several tenants have a row {str(key)!r} in {found.name!r}.",
                fix="Name one: sdk.system(…, tenant=…).",
            )
        return rows[0] if rows else None

    async def _include(
        self, scope: Context, ref: Field, rows: Sequence[Record], typed: bool
    ) -> Mapping[Any, Any]:
        assert ref.ref is not None
        target = self._runtime.collections[ref.ref.collection]
        if target.scope == "tenant" and scope.tenant_id is None:
            raise Unsupported(
                f"Several tenants may have one row of {target.name!r} each.",
                fix="Name one: sdk.system(…, tenant=…).",
            )
        # A reference that is hidden in a row leads nowhere.
        named = (row.get(ref.name) for row in rows)
        ids = list(dict.fromkeys(id for id in named if id is not None))
        related: dict[Any, Any] = {}
        for start in range(0, len(ids), _FETCH_AT_ONCE):
            for row in await self._executor.fetch(scope, target, ids[start : start + _FETCH_AT_ONCE]):
                related[row["id"]] = target.instantiate(row) if typed else row
        return related

    async def _write(
        self,
        verb: Verb,
        found: Collection,
        writes: list[Write],
        context: Context | None,
        idempotency_key: str | None = None,
        request: Any = None,
    ) -> list[Record]:
        """Run one write and what the within hooks add to it, as one unit. Return the rows of the write."""
        unit = self._unit
        if unit is None:
            check_no_unit(self._runtime)
        elif unit.failed:
            raise TransactionFailed
        scope = await self._admitted(context)
        ids, changes = touched(writes[0])
        operation = Operation(verb, found, scope, ids, changes)
        started = time.perf_counter()
        try:
            everything = [*writes, *map(trusted, self._runtime.hooks.within(operation))]
            if idempotency_key is None:
                rows = (await self._executor.execute(scope, everything))[0]
            else:
                key = request_key(idempotency_key, verb, found, request)
                once = partial(self._once, scope, found, everything, key)
                rows = await once() if unit is not None else await self._runtime.retry.run(once, _in_doubt)
        except BaseException as error:
            if unit is not None:
                unit.failed = True
            self._after(verb, found, scope, started, ids=ids, changes=changes, error=error)
            raise
        self._after(verb, found, scope, started, ids=ids, changes=changes, rows=len(rows))
        return rows

    async def _once(
        self, scope: Context, found: Collection, writes: list[Write], print_of: IdempotencyKey
    ) -> list[Record]:
        """Run the unit unless its key says that it was run before."""
        if isinstance(scope, SystemContext):
            raise Unsupported("Idempotency keys belong to a tenant.")
        earlier = await self._earlier(scope, found, print_of)
        if earlier is not None:
            return earlier
        record = IDEMPOTENCY.to_record(print_of.model_copy(update={"row": str(touched(writes[0])[0][0])}))
        try:
            return (await self._executor.execute(scope, [*writes, Insert(IDEMPOTENCY, [record])]))[0]
        except DataError as error:
            # The same request, run twice at once: the loser finds the key, or trips over the winner's row.
            if self._unit is None and not (
                isinstance(error, UniqueViolation) and error.collection not in (IDEMPOTENCY.name, found.name)
            ):
                earlier = await self._earlier(scope, found, print_of)
                if earlier is not None:
                    return earlier
            raise

    async def _earlier(
        self, scope: Context, found: Collection, print_of: IdempotencyKey
    ) -> list[Record] | None:
        known = await self._executor.fetch(scope, IDEMPOTENCY, [print_of.id])
        if not known:
            return None
        if known[0]["fingerprint"] != print_of.fingerprint:
            raise IdempotencyConflict(print_of.id)
        row_id = found.key.normalise(known[0]["row"])
        rows = await self._executor.fetch(scope, found, [row_id])
        if not rows:
            raise NotFound(found.name, row_id)
        return rows

    def _after(
        self,
        verb: Verb,
        found: Collection | None,
        scope: Context,
        started: float,
        *,
        ids: Sequence[Any] = (),
        changes: Mapping[str, Any] | None = None,
        rows: int = 0,
        error: BaseException | None = None,
        query: Query | None = None,
    ) -> None:
        """Tell the after hooks; for a write in a transaction, only once that has committed."""
        seconds = time.perf_counter() - started
        operation = Operation(verb, found, scope, ids, changes or {}, rows, seconds, error, query)
        if self._unit is not None and error is not None and not isinstance(error, Exception):
            self._unit.failed = True  # cancelled: nobody knows how far its connection got
        if self._unit is not None and changes is not None and error is None:
            self._unit.finished.append(operation)
        else:
            self._runtime.hooks.after(operation)

    def _instance(self, target: Any, record: Mapping[str, Any] | None) -> tuple[Collection, bool, KeyedModel]:
        if isinstance(target, KeyedModel):
            if record is not None:
                raise InvalidRecord("an instance is the record; give no other beside it.", field="record")
            found, _ = self._runtime.collection(type(target))
            return found, True, target
        found, typed = self._runtime.collection(target)
        return found, typed, validated(found, record)
