"""Which columns a read needs, and what its rows are turned into."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import pydantic

from tenantry.errors import InvalidQuery
from tenantry.query import parse_fields
from tenantry.schema import Collection, Field, invalid_record
from tenantry.types import Record


class Shape:
    """Which columns a read needs, and what its rows are turned into."""

    def __init__(
        self,
        collection: Collection,
        fields: Sequence[str] | None,
        into: type[Any] | None,
        include: Sequence[str],
        distinct: bool,
    ) -> None:
        self._collection = collection
        self._into: pydantic.TypeAdapter[Any] | None = None
        if into is not None:
            if fields is not None:
                raise InvalidQuery("give fields or into, not both.", path="into")
            fields = _names_of(into)
            try:
                self._into = pydantic.TypeAdapter(into)
            except pydantic.PydanticUserError as error:
                raise InvalidQuery(str(error), path="into") from None
        self.refs = {name: _relation(collection, name) for name in _listed(include)}
        self.wanted = parse_fields(collection, fields)
        self._narrowed = fields is not None
        if distinct:
            self._check_distinct()
        self.fields = extended(self.wanted, self.refs.values())

    def _check_distinct(self) -> None:
        if not self._narrowed or self.refs:
            raise InvalidQuery("distinct needs fields or into, and no include.", path="distinct")
        for item in self.wanted:
            if item.kind.value in ("json", "list"):
                raise InvalidQuery(
                    f"{item.name!r} is {item.kind.value}; it cannot be distinct.", path="distinct"
                )

    def finish(self, rows: list[Record], typed: bool, selected: Sequence[Field]) -> list[Any]:
        """Return the rows as what was asked for."""
        if self._narrowed and len(selected) != len(self.wanted):
            spare = {item.name for item in selected} - {item.name for item in self.wanted}
            for row in rows:
                for name in spare:
                    del row[name]
        if self._into is not None:
            try:
                return [self._into.validate_python(row) for row in rows]
            except pydantic.ValidationError as error:
                raise invalid_record(error) from None
        if typed and not self._narrowed:
            instantiate = self._collection.instantiate
            return [instantiate(row) for row in rows]
        return rows


def _names_of(into: Any) -> list[str]:
    if isinstance(into, type) and issubclass(into, pydantic.BaseModel):
        return list(into.model_fields)
    # of a dataclass and a TypedDict, with what they inherit
    names = list(typing.get_type_hints(into)) if isinstance(into, type) else []
    if not names:
        raise InvalidQuery(f"{getattr(into, '__name__', into)!r} names no fields.", path="into")
    return names


def _relation(collection: Collection, name: str) -> Field:
    for item in collection.fields.values():
        if item.ref is not None and item.relation == name:
            return item
    known = [item.relation for item in collection.fields.values() if item.relation]
    raise InvalidQuery(
        f"{collection.name!r} has no reference {str(name)[:80]!r}.", path="include", fix=f"Known: {known}."
    )


def _listed(include: Any) -> Sequence[str]:
    if not isinstance(include, list | tuple) or not all(isinstance(name, str) for name in include):
        raise InvalidQuery("expected a list of names.", path="include")
    return include


def extended(fields: tuple[Field, ...], more: Iterable[Field]) -> tuple[Field, ...]:
    """Return ``fields`` and those of ``more`` that are not among them."""
    return tuple(dict.fromkeys((*fields, *more)))
