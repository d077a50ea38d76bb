"""From the items of a bulk call to writes: for each item its write, or why it cannot be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenantry.data.columns import new_records
from tenantry.data.records import check_group, checked_version, delete_or_mark, key_of, now, validated
from tenantry.errors import InvalidQuery, InvalidRecord, InvalidRequest, TenantryError
from tenantry.ports import Delete, Insert, Update, Upsert, Write
from tenantry.schema import Collection, KeyedModel
from tenantry.types import Record

Planned = list[Write | TenantryError]


def creations(found: Collection, items: Sequence[Any], named: bool) -> Planned:
    """Return what stores each item."""
    return _from_records(found, items, named, lambda record, _: Insert(found, [record]))


def upserts(found: Collection, items: Sequence[Any], named: bool, *, group: tuple[str, ...]) -> Planned:
    """Return what stores each item, or sets the fields that it gives in the row which has the same ``group``."""
    check_group(found, group)
    known: dict[frozenset[str], tuple[str, ...]] = {}

    def upsert(record: Record, item: Any) -> Upsert:
        given = frozenset(item if named else item.model_fields_set)
        changes = known.get(given)
        if changes is None:
            fields = (name for name in found.fields if name in given)
            changes = (
                *(name for name in fields if name not in found.carried and name not in group),
                "updated_at",
            )
            known[given] = changes
        return Upsert(found, record, group, changes)

    return _from_records(found, items, named, upsert)


def updates(found: Collection, items: Sequence[Any], named: bool) -> Planned:
    """Return what changes each item's row: an instance sets all its fields."""
    if named:
        return [_each(lambda item: _change(found, item), item) for item in items]
    own = [name for name in found.fields if name not in found.carried]

    def update(record: Record, item: KeyedModel) -> Update:
        changes = {name: record[name] for name in own}
        changes["updated_at"] = record["updated_at"]
        return Update(found, record["id"], changes, item.version)

    return _from_records(found, items, named, update)


def deletions(found: Collection, items: Sequence[Any], named: bool) -> Planned:
    """Return what deletes each item's row."""

    def deletion(item: Any) -> Update | Delete:
        if named:
            return delete_or_mark(found, key_of(found, item), None)
        instance = _own(found, item)
        return delete_or_mark(found, key_of(found, instance.id), checked_version(instance.version))

    return [_each(deletion, item) for item in items]


def _from_records(
    found: Collection, items: Sequence[Any], named: bool, write: Callable[[Record, Any], Write]
) -> Planned:
    check = validated if named else _own
    made = [_each(lambda item: check(found, item), item) for item in items]
    records = iter(new_records(found, [item for item in made if not isinstance(item, TenantryError)]))
    planned: Planned = []
    for item, instance in zip(items, made, strict=True):
        record = instance if isinstance(instance, TenantryError) else next(records)
        planned.append(record if isinstance(record, TenantryError) else write(record, item))
    return planned


def _each(make: Callable[[Any], Any], item: Any) -> Any:
    try:
        return make(item)
    except InvalidRequest as error:
        return error


def _own(found: Collection, item: Any) -> KeyedModel:
    if type(item) is not found.model:
        raise InvalidRecord(
            f"{type(item).__name__} does not belong to {found.name!r}, as the others do.", field="records"
        )
    instance: KeyedModel = item
    return instance


def _change(found: Collection, item: Any) -> Update:
    if not isinstance(item, tuple | list) or not 2 <= len(item) <= 3 or not isinstance(item[1], Mapping):
        raise InvalidQuery(
            f"expected an id and a mapping of changes, got {type(item).__name__}.",
            path="changes",
            fix="Give pairs (id, {…}), or triples (id, {…}, version).",
        )
    id, changes, *version = item
    checked = {**found.validate_changes(changes), "updated_at": now()}
    return Update(found, key_of(found, id), checked, checked_version(version[0] if version else None))
