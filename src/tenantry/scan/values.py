"""How much a value says about whose it is."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from tenantry.scan.content import Leaf

UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_EMAIL = re.compile(r"[^@\s<>]+@[^@\s<>]+\.[a-z]{2,}", re.IGNORECASE)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?|\d\d:\d\d(?::\d\d)?"
)
_WEEKDAY = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} [\d:]+ GMT")
_CODE = re.compile(r"[\w.:/+=-]+")
_ID_KEY = re.compile(
    r"(?:.*[_-])?(?:id|uuid|guid|slug|handle|sku|ref|reference|number|code|token|cursor)$|.*[a-z]I[dD]$"
)
_NAME_KEY = re.compile(
    r"(?:.*_)?(?:name|title|subject|label|company|customer|note|notes|description|text|comment|address)"
)
# What such a name holds is a word out of a list that all tenants choose from.
_LISTED = re.compile(
    r"(?:.*_)?(?:countr(?:y|ies)|currency|locale|language|lang|time_?zone|status|state|type|kind|roles?|plans?|unit|"
    r"category|priority|severity|method|channel|scopes?|permissions?|version|theme|format|mime_?type|content_?type|"
    r"terms|template|color|colour|icon)(?:_code|_name|_id)?"
)
_CODE_LENGTH, _LONG_CODE, _LONG_TEXT = 6, 12, 16
_TURNS = 2
_DIGITS, _MANY_DIGITS = 4, 9


class Weight(IntEnum):
    """How rare a value is."""

    NOTHING = 0
    WEAK = 1  # says something only where everything else is equal too
    SPECIFIC = 2  # two of them in one object are no accident
    IDENTIFYING = 3  # one is enough


@lru_cache(maxsize=16_384)
def weigh(leaf: Leaf) -> Weight:
    """Return how much a value that only A has says, where it turns up elsewhere."""
    text = leaf.text.strip()
    if any(_LISTED.fullmatch(_snake(key)) for key in leaf.keys) or is_time(text):
        return Weight.NOTHING
    if UUID.search(text) or _EMAIL.search(text):
        return Weight.IDENTIFYING
    if leaf.number or text.lstrip("-").replace(".", "", 1).isdigit():
        return _number(text, leaf.key)
    if " " not in text and _CODE.fullmatch(text) and re.search(r"\d", text):
        return _code(text)
    return _text(text, leaf.key)


def is_time(text: str) -> bool:
    """Whether a text is a date or a time."""
    return bool(_TIME.fullmatch(text) or _WEEKDAY.fullmatch(text))


def is_id_key(key: str) -> bool:
    """Whether what ``key`` names identifies something."""
    return bool(_ID_KEY.fullmatch(key))


def is_id_like(text: str) -> bool:
    """Whether a part of a path looks like an id rather than a word of the application's."""
    if UUID.fullmatch(text) or text.isdigit():
        return True
    mixed = re.search(r"\d", text) and re.search(r"[A-Za-z]", text)
    return bool(mixed and _CODE.fullmatch(text) and len(text) >= _CODE_LENGTH)


def is_unique(text: str) -> bool:
    """Whether no other tenant can have the same id by chance."""
    if UUID.search(text) or _EMAIL.search(text):
        return True
    # INV-2026-00017 is counted up in each tenant; cus_9s8df7Kq2Lm0 is drawn.
    turns = re.findall(r"\d(?=[A-Za-z])|[A-Za-z](?=\d)", re.sub(r"[\W_]", "", text))
    return len(text) >= _LONG_CODE and " " not in text and len(turns) > _TURNS


def mentions(haystack: str, value: str) -> bool:
    """Whether a text, in lower case, holds ``value`` by itself, not as a part of a longer word."""
    wanted, start = value.casefold(), 0
    while (start := haystack.find(wanted, start)) >= 0:
        before, after = haystack[start - 1 : start], haystack[start + len(wanted) : start + len(wanted) + 1]
        if not (before.isalnum() and wanted[0].isalnum()) and not (after.isalnum() and wanted[-1].isalnum()):
            return True
        start += 1
    return False


def _number(text: str, key: str) -> Weight:
    digits = sum(letter.isdigit() for letter in text.strip("0"))
    if digits >= _MANY_DIGITS and is_id_key(key):
        return Weight.IDENTIFYING
    return Weight.SPECIFIC if digits >= _DIGITS else Weight.WEAK if digits > 1 else Weight.NOTHING


def _code(text: str) -> Weight:
    if is_unique(text):
        return Weight.IDENTIFYING
    return Weight.SPECIFIC if len(text) >= _CODE_LENGTH else Weight.WEAK


def _text(text: str, key: str) -> Weight:
    words = re.findall(r"\w\w+", text)
    if len(text) >= _LONG_TEXT and len(words) > 2:
        return Weight.IDENTIFYING
    if len(words) > 1 or (words and len(text) >= _DIGITS and _NAME_KEY.fullmatch(_snake(key))):
        return Weight.SPECIFIC
    return Weight.WEAK if len(text) >= _DIGITS else Weight.NOTHING


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()
