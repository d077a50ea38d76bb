"""Writes, checked against what a user may write, and how their rows are shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from tenantry.errors import AccessDenied
from tenantry.evaluation import holds
from tenantry.ports import Delete, Discard, Insert, Update, Upsert, Write
from tenantry.query import EVERYTHING, Filter
from tenantry.schema import CARRIED, MARK, Collection
from tenantry.security.access.conditions import both, fields_of
from tenantry.security.access.permits import Permit
from tenantry.security.access.policy import Action
from tenantry.types import Record

PermitFor = Callable[[Action], Awaitable[Permit]]

_UNKNOWN: Final = object()


@dataclass(frozen=True, slots=True)
class Planned:
    """A write that may be run.

    Attributes:
        write: As it is run.
        after: What its rows must meet once they are stored; ``None`` where that is certain.
        permit: Who says so.
        seen: What of its rows the user sees; ``None`` for all.
    """

    write: Write
    after: Filter | None = None
    permit: Permit | None = None
    seen: Permit | None = None

    def check(self, rows: Sequence[Record]) -> None:
        """Refuse rows that were stored and must not be.

        Raises:
            AccessDenied: One is out of the user's reach now.
        """
        if self.after is None or self.permit is None:
            return
        # A row that an upsert inserted is the record that was given, which may be created.
        given = self.write.record if isinstance(self.write, Upsert) else None
        if not all(row == given or holds(self.after, row) for row in rows):
            raise _outside(self.permit)

    def shown(self, rows: list[Record]) -> list[Record]:
        """Return what of the rows the user sees."""
        if self.seen is None or self.seen.whole:
            return rows
        return [self.seen.masked(row) for row in rows]


async def checked_insert(write: Insert, permit_for: PermitFor) -> Planned:
    """Check that each record may be created, by its fields and as a row."""
    permit = await permit_for("create")
    permit.require()
    _check_new(write.collection, write.records, permit)
    return Planned(write, seen=await permit_for("read"))


async def checked_update(write: Update, permit_for: PermitFor) -> Planned:
    """Narrow an update to the rows that the user may change in these fields."""
    if write.collection.soft and MARK in write.changes:
        return await _checked_mark(write, permit_for)
    permit = await permit_for("update")
    permit.require()
    through = frozenset(write.changes) - CARRIED
    permit.check_fields(sorted(through), "changes")
    condition = permit.condition(through)
    after = condition if fields_of(condition) & _changing(write.changes) else None
    within = replace(write, where=both(write.where, condition))
    return Planned(within, after, permit, await permit_for("read"))


async def checked_delete(write: Delete, permit_for: PermitFor) -> Planned:
    """Narrow a deletion to the rows that the user may delete."""
    permit = await permit_for("delete")
    permit.require()
    return Planned(replace(write, where=both(write.where, permit.condition())))


async def _checked_mark(write: Update, permit_for: PermitFor) -> Planned:
    """To mark a row as deleted, and to restore it, takes the right to delete it."""
    permit = await permit_for("delete")
    permit.require()
    if frozenset(write.changes) - CARRIED - {MARK}:
        raise permit.denial("A row is marked as deleted, or it is changed; not both at once.", "two actions")
    where = both(write.where, permit.condition())
    return Planned(replace(write, where=where), seen=await permit_for("read"))


async def checked_discard(write: Discard, permit_for: PermitFor) -> Planned:
    """Let marked rows be deleted for good by who may delete any row."""
    permit = await permit_for("delete")
    permit.require()
    if permit.condition() is not EVERYTHING:
        raise permit.denial(
            f"The user may delete some rows of {write.collection.name!r}, and not purge them all.",
            "; ".join(item.text for item in permit.allowed),
        )
    return Planned(write)


async def checked_upsert(write: Upsert, permit_for: PermitFor) -> Planned:
    """Check that the record may be created, and narrow what it meets to the rows that the user may change."""
    creating, updating, reading = (
        await permit_for("create"),
        await permit_for("update"),
        await permit_for("read"),
    )
    for permit in (creating, updating):
        permit.require()
    reading.check_fields(set(write.on) - CARRIED, "on")
    _check_new(write.collection, [write.record], creating)
    through = frozenset(write.changes) - CARRIED
    updating.check_fields(sorted(through), "changes")
    condition = updating.condition(through)
    after = condition if fields_of(condition) & _changing(write.changes) else None
    return Planned(replace(write, where=both(write.where, condition)), after, updating, reading)


def _check_new(collection: Collection, records: Sequence[Record], permit: Permit) -> None:
    if permit.whole:
        return
    for record in records:
        given = _given(collection, record) if permit.partial else frozenset[str]()
        permit.check_fields(sorted(given), "record")
        if not holds(permit.condition(given), record):
            raise _outside(permit)


def _given(collection: Collection, record: Record) -> frozenset[str]:
    """Return the fields whose values are more than what the model fills in by itself."""
    names = (name for name in record if name not in CARRIED)
    return frozenset(name for name in names if record[name] != _default(collection, name))


def _default(collection: Collection, name: str) -> Any:
    info = collection.model.model_fields[name]
    if info.is_required() or info.default_factory_takes_validated_data:
        return _UNKNOWN
    return collection.normalise(collection.fields[name], info.get_default(call_default_factory=True))


def _changing(names: Any) -> frozenset[str]:
    return frozenset(names) | {"version"}


def _outside(permit: Permit) -> AccessDenied:
    assert permit.collection is not None
    return permit.denial(
        f"The row would lie outside of what the user may {permit.action} in {permit.collection.name!r}.",
        "; ".join(item.text for item in permit.allowed),
    )
