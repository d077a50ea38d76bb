"""Where the words of a search stand in a text, as HTML in which the text itself is escaped."""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence
from typing import Final

from tenantry.errors import InvalidQuery
from tenantry.searching import Search
from tenantry.types import Record
from tenantry.words import MAX_WORD, alike, fold

MARKS: Final = ("<mark>", "</mark>")
_AROUND: Final = 60  # characters
_MAX_TEXT: Final = 100_000
_MAX_MARK: Final = 200
_MAX_MARKED: Final = 50

Span = tuple[int, int]


def parse_marks(highlight: object) -> tuple[str, str] | None:
    """Return what stands before and behind a word, or ``None`` for no highlights.

    Raises:
        InvalidQuery: It is neither a boolean nor two texts.
    """
    if isinstance(highlight, bool):
        return MARKS if highlight else None
    if isinstance(highlight, list | tuple) and len(highlight) == 2:
        before, behind = highlight
        if isinstance(before, str) and isinstance(behind, str) and len(before) + len(behind) <= _MAX_MARK:
            return before, behind
    raise InvalidQuery(
        "expected True, False or two short texts.", path="highlight", fix='Write ("<em>", "</em>").'
    )


class Highlighter:
    """Marks the words that a search means.

    Args:
        search: The search.
        marks: What stands before and behind a word, put in as it is.
    """

    def __init__(self, search: Search, marks: tuple[str, str]) -> None:
        self._search = search
        self._marks = marks
        self._meant = functools.lru_cache(maxsize=1_000)(self._means)

    def of(self, row: Record) -> dict[str, str]:
        """Return for each field in which a word was found the text around the first one."""
        found = {}
        for field in self._search.fields:
            # A field that is hidden from the user is not there.
            text = (row.get(field.name) or "")[:_MAX_TEXT]
            spans = [span for span, word in spans_of(text) if self._meant(word)]
            if spans:
                found[field.name] = self._shown(text, spans[:_MAX_MARKED])
        return found

    def _means(self, word: str) -> bool:
        for term in self._search.terms:
            if term.quality(word):
                return True
            if self._search.typos and not term.literal and alike(term.word, [word]):
                return True
        return False

    def _shown(self, text: str, spans: Sequence[Span]) -> str:
        start, end = _window(text, spans[0])
        before, behind = self._marks
        parts = ["… " if start else ""]
        at = start
        for first, last in spans:
            if last > end:
                break
            parts += [html.escape(text[at:first]), before, html.escape(text[first:last]), behind]
            at = last
        parts += [html.escape(text[at:end]), " …" if end < len(text) else ""]
        return "".join(parts)


def _window(text: str, first: Span) -> Span:
    """Return from where to where a text is shown: whole words around the first one that was found."""
    start, end = max(0, first[0] - _AROUND), min(len(text), first[1] + 2 * _AROUND)
    if start:
        space = text.find(" ", start, first[0])
        start = start if space < 0 else space + 1
    if end < len(text):
        space = text.rfind(" ", first[1], end)
        end = end if space < 0 else space
    return start, end


def spans_of(text: str) -> list[tuple[Span, str]]:
    """Return the words of a text, folded, with the place of each in the text as it is written."""
    found: list[tuple[Span, str]] = []
    letters: list[str] = []
    start = end = 0

    def finish() -> None:
        if letters:
            found.append(((start, end), "".join(letters)[:MAX_WORD]))
            letters.clear()

    for place, character in enumerate(text):
        folded = _folded(character)
        for letter in folded:
            if letter == " ":
                finish()
                continue
            if not letters:
                start = place
            letters.append(letter)
            end = place + 1
        if not folded and letters:
            end = place + 1  # an accent belongs to its letter
    finish()
    return found


@functools.lru_cache(maxsize=10_000)
def _folded(character: str) -> str:
    return fold(character)
