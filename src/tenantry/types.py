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
from tenantry.errors import InvalidTenantId

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
