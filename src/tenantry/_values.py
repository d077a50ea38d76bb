"""The canonical form of a value of each kind: one form on every database.

Each function takes what a caller gave, in a record or in a filter, and returns the canonical Python value. Text
forms of numbers, dates and UUIDs are accepted, because filters arrive as JSON. What some database could not
store without loss is refused for all of them, with a ``ValueError`` or ``TypeError`` that says why.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import math
import re
import uuid
from collections.abc import Callable
from decimal import Clamped, Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any, TypeVar

T = TypeVar("T")

_INT64 = 2**63
EXACT = Context(prec=100, Emin=-999, Emax=999, traps=[InvalidOperation, Inexact, Clamped])
_JSON_DEPTH = 64
_EXACT_FLOAT = 2.0**53


def text(value: Any) -> str:
    """Text without NUL and without lone surrogates."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}.")
    if "\0" in value:
        raise ValueError("text cannot hold the character NUL.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("text cannot hold a lone surrogate.") from None
    return value if type(value) is str else str.__str__(value)


def integer(value: Any) -> int:
    """A signed integer of 64 bits."""
    if isinstance(value, str):
        value = int(value) if len(value) <= 20 else None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected an integer, got {type(value).__name__}.")
    if not -_INT64 <= value < _INT64:
        raise ValueError("the integer does not fit into 64 bits.")
    return int(value)


def real(value: Any) -> float:
    """A finite double; negative zero becomes zero."""
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {type(value).__name__}.")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("the number does not fit into a double.") from None
    if not math.isfinite(number):
        raise ValueError("the number must be finite.")
    return number + 0.0


def boolean(value: Any) -> bool:
    """True or false; no other value stands for one."""
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {type(value).__name__}.")
    return value


def date(value: Any) -> dt.date:
    """A calendar date."""
    if isinstance(value, str):
        value = _parsed(dt.date.fromisoformat, value, "a date, such as 2026-01-31")
    if isinstance(value, dt.datetime) or not isinstance(value, dt.date):
        raise TypeError(f"expected a date, got {type(value).__name__}.")
    return value


def datetime(value: Any) -> dt.datetime:
    """An instant, in UTC; one without a time zone is refused, since it names no instant."""
    if isinstance(value, str):
        value = _parsed(dt.datetime.fromisoformat, value, "a date and time, such as 2026-01-31T12:00:00Z")
    if not isinstance(value, dt.datetime):
        raise TypeError(f"expected a date and time, got {type(value).__name__}.")
    if value.tzinfo is dt.UTC:
        return value if not value.fold else value.replace(fold=0)
    if value.utcoffset() is None:
        raise ValueError("the time has no time zone; use datetime.now(UTC) or add one.")
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC.") from None


def identifier(value: Any) -> uuid.UUID:
    """A UUID."""
    if isinstance(value, str):
        return _parsed(uuid.UUID, value, "a UUID")
    if not isinstance(value, uuid.UUID):
        raise TypeError(f"expected a UUID, got {type(value).__name__}.")
    return value


def binary(value: Any) -> bytes:
    """Bytes, or text, which stands for its UTF-8 as it does in a record."""
    if isinstance(value, str):
        return text(value).encode()
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, got {type(value).__name__}.")
    return bytes(value)


def _parsed(parse: Callable[[str], T], value: str, expected: str) -> T:
    try:
        return parse(value)
    except ValueError:
        raise ValueError(f"expected {expected}.") from None


def decimal_of(digits: int, places: int, *, fixed: bool) -> Callable[[Any], Decimal]:
    """Exact decimals of at most ``digits`` digits, ``places`` of them behind the point.

    With ``fixed``, values have exactly ``places`` digits behind the point (1299.00); otherwise none
    to spare (1299). A value with more places is refused and never rounded.
    """
    quantum = Decimal(1).scaleb(-places)
    limit = Decimal(10) ** (digits - places)

    def decimal(value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise TypeError(f"expected a decimal, got {type(value).__name__}.")
        try:
            number = Decimal(str(value)) if isinstance(value, float | str) else Decimal(value)
        except DecimalException:
            raise ValueError("the text is not a decimal.") from None
        if not number.is_finite():
            raise ValueError("the decimal must be finite.")
        if number.copy_abs() >= limit:  # unlike abs(), it does not round to the ambient precision
            raise ValueError(f"the decimal has more than {digits - places} digits before the point.")
        try:
            exact = number.quantize(quantum, context=EXACT)
        except DecimalException:
            raise ValueError(f"the decimal has more than {places} digits behind the point.") from None
        if fixed:
            return exact if exact else abs(exact)
        return canonical_decimal(exact)

    return decimal


def canonical_decimal(value: Decimal) -> Decimal:
    """Return ``value`` without trailing zeros, without an exponent and without a negative zero."""
    if not value:
        return Decimal(0)
    stripped = value.normalize(EXACT)
    exponent = stripped.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        return stripped.quantize(Decimal(1), context=EXACT)
    return stripped


def enum_of(cls: type[enum.Enum]) -> Callable[[Any], enum.Enum]:
    """Members of ``cls``, or their values."""

    def member(value: Any) -> enum.Enum:
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(repr(item.value) for item in cls)
            raise ValueError(f"expected one of {known}.") from None

    return member


def list_of(item: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    """Lists whose elements are all of one kind."""

    def items(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"expected a list, got {type(value).__name__}.")
        return [item(element) for element in value]

    return items


def json(value: Any, depth: int = _JSON_DEPTH) -> Any:
    """JSON that every database returns as it was: finite numbers, text keys, no NUL.

    Whole floats too large to be told from integers become integers, since JSON has one kind of number.
    """
    if value is None or value is True or value is False:
        return value
    if depth == 0:
        raise ValueError(f"the JSON is nested deeper than {_JSON_DEPTH} levels.")
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise ValueError("an integer in JSON does not fit into 64 bits.")
        return int(value)
    if isinstance(value, float):
        number = real(value)
        return _whole(number) if abs(number) >= _EXACT_FLOAT else number
    if isinstance(value, list | tuple):
        return [json(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_json_key(key): json(item, depth - 1) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not JSON.")


def _whole(number: float) -> int:
    if abs(number) >= _INT64:
        raise ValueError("a number in JSON is too large to be exact.")
    return int(number)


def _json_key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError("the keys of JSON objects must be text.")
    return text(key)


NORMALISE: dict[str, Callable[[Any], Any]] = {
    "text": text,
    "int": integer,
    "float": real,
    "bool": boolean,
    "date": date,
    "datetime": datetime,
    "uuid": identifier,
    "bytes": binary,
}


def fold(value: str) -> str:
    """Return ``value`` in lower case, one character for one, as Unicode's simple case mapping has it."""
    if value.isascii():
        return value.lower()
    return "".join("i" if char == "\u0130" else char.lower() for char in value)


@functools.lru_cache(maxsize=512)
def like(pattern: str) -> Callable[[str], bool]:
    """Return the test for an SQL pattern (``%``, ``_``, backslash escapes), whatever the case.

    Each part between two ``%`` is looked for behind the one before and never tried again further on, so that no
    pattern takes longer than its length times the text's.
    """
    first, *rest = _parts(fold(pattern))
    if not rest:
        whole = re.compile(first, re.DOTALL).fullmatch
        return lambda value: whole(fold(value)) is not None
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    matches = re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL).fullmatch
    return lambda value: matches(fold(value)) is not None


def _parts(pattern: str) -> list[str]:
    """Return the parts between the ``%`` of a pattern, each as a regular expression of fixed length."""
    parts = [""]
    escaped = False
    for char in pattern:
        if escaped or char not in "%_\\":
            parts[-1] += re.escape(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "%":
            parts.append("")
        else:
            parts[-1] += "."
    return parts
