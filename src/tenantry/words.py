"""Words: how a text is folded and cut, which words are alike, and how much one counts.

The rules are plain enough that each database follows them to the letter, so a search finds the same rows on all of
them. Case and accents do not count. What parts words is a fixed table of characters and not a property of the
installed version of Unicode.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

MAX_WORD: Final = 64
"""Characters of a word that count; the rest of a longer one is ignored."""
MAX_WORDS: Final = 2_000
"""Words of a field that are indexed, from its beginning."""
MAX_VOCABULARY: Final = 10_000
"""Words with one first letter among which a mistyped one is looked for."""
MAX_ALIKE: Final = 20
LAST: Final = "\U0010ffff"
"""Sorts behind every character that a word may go on with."""

# Pairs of the first and the last character, by code point.
DROPPED: Final = (
    (0x00AD, 0x00AD),  # the soft hyphen
    (0x0300, 0x036F),  # accents, once they are apart from their letters
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x200B, 0x200D),  # of no width
    (0x2060, 0x2060),
    (0x20D0, 0x20FF),
    (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F),
    (0xFEFF, 0xFEFF),
)
SEPARATORS: Final = (
    (0x0001, 0x002F),
    (0x003A, 0x0040),
    (0x005B, 0x0060),
    (0x007B, 0x00AC),
    (0x00AE, 0x00BF),
    (0x00D7, 0x00D7),
    (0x00F7, 0x00F7),
    (0x037E, 0x037E),
    (0x0387, 0x0387),
    (0x055A, 0x055F),
    (0x0589, 0x058A),
    (0x05BE, 0x05BE),
    (0x05C0, 0x05C0),
    (0x05C3, 0x05C3),
    (0x05F3, 0x05F4),
    (0x060C, 0x060D),
    (0x061B, 0x061F),
    (0x066A, 0x066D),
    (0x06D4, 0x06D4),
    (0x0964, 0x0965),
    (0x0E4F, 0x0E5B),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x200E, 0x205F),
    (0x2061, 0x206F),
    (0x20A0, 0x20CF),
    (0x2190, 0x2BFF),
    (0x2E00, 0x2E7F),
    (0x3000, 0x3004),
    (0x3008, 0x3020),
    (0x3030, 0x3030),
    (0x303D, 0x303F),
    (0x30FB, 0x30FB),
    (0xFE10, 0xFE1F),
    (0xFE30, 0xFE6F),
    (0x1F000, 0x1FAFF),
)

_SURROGATES: Final = (0xD800, 0xDFFF)
_FOLDING: Final[dict[int, str | None]] = {
    **{code: " " for first, last in (*SEPARATORS, _SURROGATES, (0, 0)) for code in range(first, last + 1)},
    **{code: None for first, last in DROPPED for code in range(first, last + 1)},
    0x03C2: "\u03c3",  # the sigma that ends a word is a sigma
}
_SHORTEST_MISTYPED: Final = 4
_LONG: Final = 8


def fold(text: str) -> str:
    """Return a text in small letters without accents; whatever parts words is a space."""
    return unicodedata.normalize("NFKD", text).lower().translate(_FOLDING)


def words(text: str) -> list[str]:
    """Return the words of a text, folded, in order."""
    return [word[:MAX_WORD] for word in itertools.islice(filter(None, fold(text).split(" ")), MAX_WORDS)]


def line(text: str | None) -> str:
    """Return the words of a text with a space on either side of each, in which a phrase is found as it stands."""
    return f" {' '.join(words(text or ''))} "


def ranks(texts: Sequence[str | None]) -> dict[str, list[int]]:
    """Return for each word of some fields how much it counts in each: 0 where it is missing.

    A word counts more the more often it is said and the shorter the field is. The numbers are whole, and depend on
    nothing but the row: what other rows there are shows in no score.
    """
    found: dict[str, list[int]] = {}
    for position, text in enumerate(texts):
        cut = words(text or "")
        for word in cut:
            found.setdefault(word, [0] * len(texts))[position] += 1
        for word in set(cut):
            found[word][position] = rank(found[word][position], len(cut))
    return found


def rank(times: int, size: int) -> int:
    """Return how much a word counts that is said so many ``times`` in a field of ``size`` words: 1 to 2,000."""
    return 2_000 * times // (times + 1 + size // 8)


def alike(word: str, vocabulary: Iterable[str]) -> tuple[str, ...]:
    """Return the words that ``word`` may be a mistyped form of, the most similar first.

    They begin with the same letter and are one change away, or two for words of eight letters and more. A change is
    a letter too many, too few, another one, or two that have changed places. Words with a digit, and those of less
    than four letters, are not mistyped.
    """
    if not may_be_mistyped(word):
        return ()
    allowed = 2 if len(word) >= _LONG else 1
    letters = set(word)
    found = [
        (apart, other)
        for other in vocabulary
        if other != word
        and abs(len(other) - len(word)) <= allowed
        and len(letters ^ set(other)) <= 2 * allowed
        and other[0] == word[0]
        and may_be_mistyped(other)
        and (apart := distance(word, other, allowed)) <= allowed
    ]
    return tuple(other for _, other in sorted(found)[:MAX_ALIKE])


def may_be_mistyped(word: str) -> bool:
    """Whether a word is long enough, and a word and not a number, to be looked for with other letters."""
    return len(word) >= _SHORTEST_MISTYPED and not any(letter.isdigit() for letter in word)


@functools.lru_cache(maxsize=10_000)
def distance(one: str, other: str, most: int) -> int:
    """Return the number of changes from one word to another, in which no letter is changed twice.

    The distance of Damerau and Levenshtein, restricted to changes that do not overlap. Beyond ``most`` any number
    above it is returned.
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, facing in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != facing))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == facing:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most and min(before) > most:
            return most + 1
    return row[-1]
