"""From what a caller gives to what an adapter stores."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from tenantry.context import Context, SystemContext
from tenantry.errors import (
    InvalidQuery,
    InvalidRecord,
    Unsupported,
)
from tenantry.ports import Delete, Discard, Insert, Purge, Update, Upsert, Write
from tenantry.schema import MARK, Collection, KeyedModel
from tenantry.types import Record

M = TypeVar("M", bound=KeyedModel)
T = TypeVar("T")


def check_typed(collection: Collection, scope: Context, typed: bool) -> bool:
    """Return whether ``scope`` reads rows that are not its own; they carry a tenant, which no model has."""
    foreign = isinstance(scope, SystemContext) and collection.scope == "tenant"
    if foreign and typed:
        raise Unsupported(
            "The system reads rows of tenants as plain records.", fix=f"Read {collection.name!r} by its name."
        )
    return foreign


def key_of(collection: Collection, id: Any) -> Any:
    """Return ``id`` as the collection stores it."""
    try:
        return collection.key.normalise(id)
    except (ValueError, TypeError) as error:
        raise InvalidQuery(str(error), path="id") from None


def changes_of_instance(given: Any, changes: object, version: object) -> Mapping[str, Any]:
    """Return the changes given with an instance, which has an id and a version of its own."""
    if version is not None:
        raise InvalidQuery("an instance has its own version; give a model and an id instead.", path="version")
    if changes is not None or not (given is None or isinstance(given, Mapping)):
        raise InvalidQuery("an instance has its own id; give a model and an id instead.", path="id")
    return given or {}


def checked_version(version: object) -> int | None:
    """Return the version that a caller named, if it can be one."""
    if version is None:
        return None
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version < 2**63:
        raise InvalidQuery("expected a whole number, 0 or more.", path="version")
    return version


def now() -> dt.datetime:
    """Return the time, with its zone."""
    return dt.datetime.now(dt.UTC)


def new_record(collection: Collection, instance: KeyedModel) -> Record:
    """Return the record of a new row: version 1, made now."""
    record = collection.to_record(instance)
    record["version"] = 1
    record["created_at"] = record["updated_at"] = now()
    if collection.soft:
        record[MARK] = None
    return record


def validated(collection: Collection, record: object) -> KeyedModel:
    """Return a record that a caller gave as an instance."""
    if not isinstance(record, Mapping):
        raise InvalidRecord(f"expected a mapping, got {type(record).__name__}.", field="record")
    if "tenant_id" in record:
        raise InvalidRecord("the tenant comes from the context, never from a record.", field="tenant_id")
    return collection.validate(record)


def check_group(collection: Collection, group: tuple[str, ...]) -> None:
    """Refuse to look for existing rows by fields that several rows may share."""
    if group != ("id",) and group not in collection.unique:
        raise InvalidQuery(
            f"{group!r} is not unique in {collection.name!r}.",
            path="on",
            fix=f"Use ('id',) or one of {list(collection.unique)}.",
        )


def given_values(collection: Collection, instance: KeyedModel, record: Mapping[str, Any] | None) -> Record:
    """Return the values that the caller gave, without those that were filled in."""
    names = instance.model_fields_set if record is None else set(record)
    values = instance.__dict__
    return {
        name: collection.normalise(item, values[name])
        for name, item in collection.fields.items()
        if name in names
    }


def revalidated(collection: Collection, instance: KeyedModel, changes: Mapping[str, Any]) -> Record:
    """Return ``changes`` as canonical values, after the whole model has accepted the instance with them."""
    checked = collection.validate_changes(changes)
    if not collection.fields.keys() <= instance.__dict__.keys():
        return checked  # of a row with hidden fields nobody here knows the whole
    whole = collection.validate({**instance.__dict__, **changes})
    return {name: collection.normalise(collection.fields[name], whole.__dict__[name]) for name in checked}


def trusted(write: Write) -> Write:
    """Return a write of the application's own, which what a user may do does not bind."""
    return write if isinstance(write, Purge) else replace(write, trusted=True)


def delete_or_mark(
    collection: Collection, id: Any, version: int | None, *, permanently: bool = False
) -> Update | Delete:
    """Return the write that deletes a row as its collection does."""
    if permanently or not collection.soft:
        return Delete(collection, id, version)
    moment = now()
    return Update(collection, id, {MARK: moment, "updated_at": moment}, version)


def touched(write: Write) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the ids of the rows that a write is about, and the values that it sets."""
    if isinstance(write, Insert):
        single = write.records[0] if len(write.records) == 1 else {}
        return [record["id"] for record in write.records], single
    if isinstance(write, Update):
        return (write.id,), write.changes
    if isinstance(write, Discard):
        return write.ids, {}
    if isinstance(write, Upsert):
        return (write.record["id"],), write.record
    return (getattr(write, "id", None),), {}
