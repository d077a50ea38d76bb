"""A transaction, and how a write beside it is told from one inside."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from tenantry.data.runtime import Runtime
from tenantry.errors import (
    InvalidQuery,
    Unsupported,
)
from tenantry.hooks import Operation
from tenantry.ports import Executor


@dataclass(slots=True, eq=False)
class Unit:
    """One transaction: its executor, the operations to announce when it commits, and whether it is doomed."""

    runtime: Runtime
    executor: Executor
    finished: list[Operation]
    task: asyncio.Task[Any] | None
    failed: bool = False
    over: bool = False


# The transaction that the running task is inside of. A write beside it would not be part of it, and on a database
# with one writer would wait for it for ever.
open_unit: ContextVar[Unit | None] = ContextVar("tenantry_unit", default=None)


def check_no_unit(runtime: Runtime) -> None:
    """Refuse a write beside the transaction that the running task is inside of."""
    unit = open_unit.get()
    if unit is None or unit.over or unit.runtime is not runtime:
        return
    if unit.task is asyncio.current_task():  # a task that was started inside has work of its own
        raise Unsupported(
            "A transaction is open here, and this write would not be part of it.",
            fix="Write through its handle: `async with acme.data.transaction() as tx: await tx.create(…)`.",
        )


def attempts_of(number: int) -> range:
    """Return the numbers of that many attempts.

    Raises:
        InvalidQuery: There is to be less than one.
    """
    if number < 1:
        raise InvalidQuery("there must be one attempt at least.", path="attempts")
    return range(1, number + 1)


def forget(token: Token[Unit | None]) -> None:
    """Forget the transaction; a block that ends in another task than it began in has nothing to forget."""
    with suppress(ValueError):
        open_unit.reset(token)
