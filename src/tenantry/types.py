"""Small types that every layer shares."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NewType, TypeVar, overload

from tenantry import _display
from tenantry.errors import BulkFailed, InvalidTenantId, TenantryError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

T = TypeVar("T")

TenantId = NewType("TenantId", str)
Record = dict[str, Any]
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

# One alphabet that is safe in an SQL setting, a Redis hash tag, a host name label and a file name, so
# that no layer below has to escape it and no two ids can be spelled alike.
_TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


def tenant_id(value: object) -> TenantId:
    """Return ``value`` as a tenant id.

    Raises:
        InvalidTenantId: Unless it is 1 to 63 ASCII letters, digits, ``_``, ``.`` and ``-``, the first one a
            letter or digit.
    """
    if isinstance(value, str) and _TENANT_ID.fullmatch(value):
        return TenantId(value)
    shown = value if isinstance(value, str) and len(value) <= 80 else type(value).__name__
    raise InvalidTenantId(
        f"{shown!r} cannot be a tenant id.",
        tenant_id=str(shown),
        fix="Use 1 to 63 of A-Z a-z 0-9 _ . - and begin with a letter or digit.",
    )


_NANOSECONDS = 1_000_000  # in a millisecond


def uuid7() -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562, method 3): milliseconds, then the fraction of one, then randomness.

    Ids made one after the other by one machine sort in that order, to about a quarter of a microsecond.
    """
    milliseconds, rest = divmod(time.time_ns(), _NANOSECONDS)
    fraction = (rest << 12) // _NANOSECONDS
    random = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    return uuid.UUID(int=milliseconds << 80 | 0x7000 << 64 | fraction << 64 | 0x8 << 60 | random)


@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """One row that a search found.

    Attributes:
        row: The row.
        score: How well it meets the text, above 0; 1.0 is a word that is a whole field of weight 1.
        highlights: For each field in which a word was found, the text around it as HTML; empty unless asked for.
    """

    row: T
    score: float
    highlights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Page(Sequence[T], Generic[T]):
    """One page of results, in order.

    Attributes:
        items: The rows of this page.
        next_cursor: Pass it as ``cursor=`` for the next page; ``None`` on the last one.
        included: For each included relation, the related rows by their id.
    """

    items: list[T]
    next_cursor: str | None = None
    included: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)

    @property
    def has_more(self) -> bool:
        """Whether another page follows."""
        return self.next_cursor is not None

    @overload
    def to_df(self, library: Literal["pandas"] = "pandas") -> pd.DataFrame: ...
    @overload
    def to_df(self, library: Literal["polars"]) -> pl.DataFrame: ...
    def to_df(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the rows as a data frame, a column for each field.

        Args:
            library: ``pandas``, which keeps the values as they are, or ``polars``, which gets ids and enums as text.

        Raises:
            MissingExtra: The library is not installed.
        """
        return _display.data_frame(self.items, library)

    def __repr__(self) -> str:
        return _display.page_text(self.items, self.next_cursor, self.included)

    def _repr_html_(self) -> str:
        return _display.page_html(self.items, more=self.has_more)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.items[index]


@dataclass(frozen=True, slots=True)
class BulkOutcome(Generic[T]):
    """What came of one item of a bulk call.

    Attributes:
        index: Its position; 0 is the first.
        row: The row as stored; ``None`` if it was deleted or the item was refused.
        error: Why it was refused; carries ``index``, and where it is about a value the ``field``.
    """

    index: int
    row: T | None = None
    error: TenantryError | None = None

    @property
    def ok(self) -> bool:
        """Whether it took place."""
        return self.error is None


@dataclass(frozen=True, slots=True, repr=False)
class BulkResult(Sequence[BulkOutcome[T]], Generic[T]):
    """What came of each item of a bulk call, in the order given.

    Attributes:
        stored: For each item the row as stored, or ``None``.
        refused: By its index, the error of each item that was refused.
    """

    stored: list[T | None] = field(default_factory=list)
    refused: dict[int, TenantryError] = field(default_factory=dict)

    @property
    def rows(self) -> list[T]:
        """The rows as stored, of the items that took place."""
        return [row for row in self.stored if row is not None]

    @property
    def errors(self) -> list[TenantryError]:
        """The errors of the items that were refused, in order; each carries its ``index``."""
        return list(self.refused.values())

    @property
    def ok(self) -> bool:
        """Whether every item took place."""
        return not self.refused

    @property
    def succeeded(self) -> int:
        """How many items took place."""
        return len(self.stored) - len(self.refused)

    def raise_for_errors(self) -> BulkResult[T]:
        """Return the result itself if every item took place.

        Raises:
            BulkFailed: Some were refused; names the first and their number.
        """
        if self.refused:
            errors = self.errors
            raise BulkFailed(errors, len(self.stored)) from errors[0]
        return self

    def __repr__(self) -> str:
        return _display.bulk_text(self.succeeded, len(self.stored), self.errors)

    def __iter__(self) -> Iterator[BulkOutcome[T]]:
        return map(self._outcome, range(len(self.stored)))

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, index: int) -> BulkOutcome[T]: ...
    @overload
    def __getitem__(self, index: slice) -> list[BulkOutcome[T]]: ...
    def __getitem__(self, index: int | slice) -> BulkOutcome[T] | list[BulkOutcome[T]]:
        chosen = range(len(self.stored))[index]
        return self._outcome(chosen) if isinstance(chosen, int) else [self._outcome(i) for i in chosen]

    def _outcome(self, index: int) -> BulkOutcome[T]:
        return BulkOutcome(index, self.stored[index], self.refused.get(index))
