"""What happens around an operation: hooks over a frozen :class:`Operation`.

*Within* hooks return writes that join the operation's own transaction, and fail it when they raise. *After* hooks
see the operation once it has committed, or failed; they cannot change what happened, so an error in one is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from tenantry.context import Context
from tenantry.ports import Write
from tenantry.query import Query
from tenantry.schema import Collection

logger = logging.getLogger("tenantry.hooks")

Verb = Literal[
    "get",
    "read",
    "count",
    "aggregate",
    "search",
    "create",
    "update",
    "upsert",
    "delete",
    "restore",
    "sql",
]


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation of a tenant, or of the system.

    Attributes:
        verb: What was asked.
        collection: Of which collection; ``None`` for raw SQL.
        context: By whom.
        ids: The rows that were written or looked up by key.
        changes: The values that a write sets.
        rows: How many rows were returned or written; 0 before the operation ran.
        seconds: How long it took, by a monotonic clock; 0 before the operation ran.
        error: Why it failed, if it did.
        query: What was asked for, in a read of many rows.
    """

    verb: Verb
    collection: Collection | None
    context: Context
    ids: Sequence[Any] = ()
    changes: Mapping[str, Any] = MappingProxyType({})
    rows: int = 0
    seconds: float = 0.0
    error: BaseException | None = None
    query: Query | None = None


WithinHook = Callable[[Operation], Sequence[Write]]
AfterHook = Callable[[Operation], None]


class Hooks:
    """The hooks of one SDK, in the order in which they were added."""

    def __init__(self, within: Sequence[WithinHook] = (), after: Sequence[AfterHook] = ()) -> None:
        self._within = list(within)
        self._after = list(after)

    def add_within(self, hook: WithinHook) -> None:
        """Add a hook that returns writes to run in the transaction of each write operation."""
        self._within.append(hook)

    def add_after(self, hook: AfterHook) -> None:
        """Add a hook that sees each operation when it is over. It must not block."""
        self._after.append(hook)

    @property
    def has_within(self) -> bool:
        """Whether there is any within hook, so that an operation has to be described to it."""
        return bool(self._within)

    def within(self, operation: Operation) -> list[Write]:
        """Return the writes that the within hooks add."""
        return [write for hook in self._within for write in hook(operation)]

    def after(self, operation: Operation) -> None:
        """Tell the after hooks."""
        for hook in self._after:
            try:
                hook(operation)
            except Exception:
                logger.exception("After hook %r failed.", hook)
