"""Which indexes would serve the shapes that lack one: few, each for several shapes, and none that exists already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tenantry.insights.counts import Counted
from tenantry.insights.shape import Shape
from tenantry.ports import Index
from tenantry.schema import TENANT, Collection, Field, Kind

MAX_FIELDS = 4
MAX_FOR_A_COLLECTION = 3


class Need(NamedTuple):
    """What an index must begin with to serve a shape: some fields in any order, then perhaps one more.

    Attributes:
        equal: Fields that are compared for equality.
        tail: The field of a range, or else the first sort key.
    """

    equal: frozenset[str]
    tail: str | None

    @property
    def size(self) -> int:
        """How many fields that are."""
        return len(self.equal) + (self.tail is not None)

    def is_met_by(self, columns: Sequence[str]) -> bool:
        """Whether an index with these columns, without the tenant, serves it."""
        count = len(self.equal)
        if frozenset(columns[:count]) != self.equal:
            return False
        return self.tail is None or (len(columns) > count and columns[count] == self.tail)


class Candidate(NamedTuple):
    """An index that does not exist.

    Attributes:
        collection: Of which collection.
        fields: Its fields, after the tenant.
        served: What it is for.
    """

    collection: Collection
    fields: tuple[str, ...]
    served: tuple[Counted, ...]


def need_of(shape: Shape, collection: Collection, answered: frozenset[Kind]) -> Need | None:
    """Return what would serve a shape; ``None`` if no index on fields does.

    Args:
        shape: The shape.
        collection: Its collection.
        answered: Kinds of fields whose comparisons an index of this database answers.
    """

    def usable(names: Iterable[str]) -> list[str]:
        fields = [collection.fields[name] for name in names if name in collection.fields]
        return [field.name for field in fields if field.kind in answered]

    equal = frozenset(sorted(usable(shape.equal))[:MAX_FIELDS])
    if "id" in equal:
        return None  # the key itself
    ranges = [name for name in usable(shape.ranges) if name not in equal]
    tail = ranges[0] if ranges else _sort_key(shape, collection, equal)
    need = Need(equal, tail)
    return need if need.size else None


def _sort_key(shape: Shape, collection: Collection, equal: frozenset[str]) -> str | None:
    """Return the field by which an index can give the rows in order, if that spares reading them all."""
    if not shape.limited:
        return None
    for name in (item.removeprefix("-") for item in shape.order):
        field: Field | None = collection.fields.get(name)
        if name in equal:
            continue
        return name if field is not None and name != "id" else None
    return None


def candidates(
    wanted: Sequence[tuple[Counted, Need]], collection: Collection, existing: Sequence[Index]
) -> list[Candidate]:
    """Return the indexes to make for one collection, the most useful first.

    Args:
        wanted: Shapes that lack an index, each with what would serve it; the most expensive first.
        collection: Their collection.
        existing: The indexes of its table.
    """
    columns = [without_tenant(index) for index in existing if index.plain]
    unserved = [item for item in wanted if not any(item[1].is_met_by(known) for known in columns)]
    unserved = [item for item in unserved if not _has_key(item[1], existing)]
    found: list[Candidate] = []
    # The widest first: what begins like it needs none of its own.
    for _, need in sorted(unserved, key=lambda item: -item[1].size):
        if any(need.is_met_by(made.fields) for made in found):
            continue
        fields = _in_order(need, [other for _, other in unserved])
        if any(tuple(known[: len(fields)]) == fields for known in columns):
            continue
        served = tuple(counted for counted, other in unserved if other.is_met_by(fields))
        found.append(Candidate(collection, fields, served))
    found.sort(key=lambda made: -sum(counted.counts.seconds for counted in made.served))
    return found[:MAX_FOR_A_COLLECTION]


def served_by(
    wanted: Sequence[tuple[Counted, Need]], existing: Sequence[Index]
) -> list[tuple[Counted, Index]]:
    """Return the shapes that an index serves already, each with that index."""
    found = []
    for counted, need in wanted:
        for index in existing:
            if index.plain and need.is_met_by(without_tenant(index)):
                found.append((counted, index))
                break
    return found


def _in_order(need: Need, others: Iterable[Need]) -> tuple[str, ...]:
    """Return the fields so that the index begins as narrower needs want it, where it can."""
    ordered: list[str] = []
    for other in sorted(others, key=lambda other: other.size):
        if other.size < need.size and other.equal <= need.equal and set(ordered) <= other.equal:
            ordered += sorted(other.equal - set(ordered))
            if other.tail in need.equal and other.tail not in ordered:
                ordered.append(str(other.tail))
    ordered += sorted(need.equal - set(ordered))
    return (*ordered, need.tail) if need.tail is not None else tuple(ordered)


def without_tenant(index: Index) -> tuple[str, ...]:
    """Return the columns of an index behind the tenant's."""
    columns = index.columns
    return columns[1:] if columns[:1] == (TENANT.name,) else columns


def _has_key(need: Need, existing: Iterable[Index]) -> bool:
    """Whether equality on a key leads to one row anyway."""
    return any(index.unique and set(without_tenant(index)) <= need.equal for index in existing)


def declaration(collection: Collection, fields: Sequence[str]) -> str:
    """Return what declares an index in the model."""
    if len(fields) == 1:
        return f"{collection.model.__name__}.{fields[0]}: Annotated[…, Indexed]"
    groups = (*map(tuple, collection.model.__indexes__), tuple(fields))
    return f"{collection.model.__name__}.__indexes__ = {groups!r}".replace("'", '"')
