"""What can be searched for: a frozen :class:`Search`, parsed and checked before any adapter sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tenantry import _values
from tenantry.errors import InvalidQuery
from tenantry.evaluation import holds
from tenantry.query import EVERYTHING, Filter, Sort, find_field
from tenantry.schema import Collection, Field, Kind
from tenantry.types import Record
from tenantry.words import LAST, alike, line, may_be_mistyped, ranks, words

MAX_TEXT: Final = 1_000
MAX_TERMS: Final = 16
SCORE: Final = Field("_score", Kind.INT, normalise=_values.integer)
"""The column that a found row has beside its own; no field of a model may be called so."""
SCALE: Final = 100_000
"""The score of a word that is a whole field of weight 1."""
EXACT, BEGINNING, SIMILAR = 100, 70, 50
"""How much in a hundred counts what is the word, what begins with it, and what it may be mistyped for."""

_PART: Final = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
_SHORTEST_BEGINNING: Final = 3


class Term(msgspec.Struct, frozen=True):
    """A word to find.

    Attributes:
        word: The word, folded.
        prefix: Whether words that begin with it are found as well.
        literal: Whether it stood in quotes, so that no other word is meant.
        similar: Other words that are found as well.
    """

    word: str
    prefix: bool = False
    literal: bool = False
    similar: tuple[str, ...] = ()

    def quality(self, word: str) -> int:
        """Return how well another word meets this one, in a hundred; 0 if it does not."""
        if word == self.word:
            return EXACT
        if self.prefix and word.startswith(self.word):
            return BEGINNING
        return SIMILAR if word in self.similar else 0


class Search(msgspec.Struct, frozen=True):
    """A checked search over one collection.

    Attributes:
        fields: The fields that are looked into.
        terms: The words that must all be found, whichever of the fields each is in.
        phrases: Lists of words that must stand side by side in one of the fields.
        without: The words that must not be found.
        without_phrases: The phrases that must not be found.
        filter: What rows must meet besides.
        limit: The most rows to return, by score and id; ``None`` for all.
        after: The score and the id of the row behind which to begin.
        typos: Whether words that a term may be mistyped for are found as well.
    """

    collection: Collection
    fields: tuple[Field, ...]
    terms: tuple[Term, ...]
    phrases: tuple[tuple[str, ...], ...] = ()
    without: tuple[Term, ...] = ()
    without_phrases: tuple[tuple[str, ...], ...] = ()
    filter: Filter = EVERYTHING
    limit: int | None = None
    after: tuple[int, Any] | None = None
    typos: bool = False

    @property
    def order(self) -> tuple[Sort, ...]:
        """The best first; equal ones by id."""
        return (Sort(SCORE, True), Sort(self.collection.key))

    def behind(self, score: int, id: Any) -> Search:
        """Return the search for the rows that come behind the one with this score and id."""
        return msgspec.structs.replace(self, after=(score, id))

    def ranges(self) -> list[tuple[str, str]]:
        """Return from where to where the words lie for which a term may be mistyped."""
        if not self.typos:
            return []
        first = {term.word[0] for term in self.terms if _may_be_mistyped(term)}
        return [(letter, letter + LAST) for letter in sorted(first)]

    def widened(self, vocabulary: Iterable[str]) -> Search:
        """Return the search for similar words too, out of those that there are."""
        known = list(vocabulary) if self.typos else []
        if not known:
            return self
        terms = (
            msgspec.structs.replace(term, similar=alike(term.word, known)) if _may_be_mistyped(term) else term
            for term in self.terms
        )
        return msgspec.structs.replace(self, terms=tuple(terms))

    def score(self, row: Record) -> int:
        """Return the score of a row, 0 if it is not found: the model that every database is held to."""
        if not holds(self.filter, row):
            return 0
        texts = [row[field.name] for field in self.fields]
        counted = {
            word: sum(rank * field.weight for rank, field in zip(listed, self.fields, strict=True))
            for word, listed in ranks(texts).items()
        }
        lines = [line(text) for text in texts]
        if not all(_stands(phrase, lines) for phrase in self.phrases) or any(
            _stands(phrase, lines) for phrase in self.without_phrases
        ):
            return 0
        if any(term.quality(word) for term in self.without for word in counted):
            return 0
        scores = [
            max((number * term.quality(word) for word, number in counted.items()), default=0)
            for term in self.terms
        ]
        return sum(scores) if all(scores) else 0


def _may_be_mistyped(term: Term) -> bool:
    return not term.literal and may_be_mistyped(term.word)


def _stands(phrase: Sequence[str], lines: Sequence[str]) -> bool:
    wanted = f" {' '.join(phrase)} "
    return any(wanted in text for text in lines)


def searchable_fields(collection: Collection) -> tuple[Field, ...]:
    """Return the fields of a collection that are searchable."""
    return tuple(field for field in collection.fields.values() if field.searchable)


def parse_search_fields(collection: Collection, fields: object) -> tuple[Field, ...]:
    """Return the fields to look into, by default all that are searchable.

    Raises:
        InvalidQuery: One is not, or none is; it says how to declare it.
    """
    known = searchable_fields(collection)
    if not known:
        raise InvalidQuery(
            f"{collection.name!r} has no searchable field.",
            path="collection",
            fix="Mark one in the model, name: Annotated[str, Searchable], and migrate.",
        )
    if fields is None:
        return known
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
        raise InvalidQuery("expected a list of names.", path="fields", fix="Write fields=['name'].")
    for index, name in enumerate(fields):
        if find_field(collection, name, f"fields[{index}]") not in known:
            raise InvalidQuery(
                f"{name!r} is not searchable.",
                path=f"fields[{index}]",
                fix=f"Mark it, {name}: Annotated[str, Searchable], or name one of "
                f"{', '.join(field.name for field in known)}.",
            )
    return tuple(field for field in known if field.name in fields)


def parse_text(text: object) -> Mapping[str, Any]:
    """Return what a text asks for, as arguments of :class:`Search`.

    Words must all be found; ``"words in quotes"`` stand side by side; ``-word`` and ``-"a phrase"`` must not be there;
    ``lap*`` finds what begins so, and so does the last word of the text while no space follows it. Whatever else the
    text holds parts words.

    Raises:
        InvalidQuery: It is no text, too long, has too many words, or none to look for.
    """
    if not isinstance(text, str):
        raise InvalidQuery(f"expected a text, got {type(text).__name__}.", path="text")
    if len(text) > MAX_TEXT:
        raise InvalidQuery(f"longer than {MAX_TEXT:,} characters.", path="text", fix="Cut it short.")
    terms, without = dict[str, Term](), dict[str, Term]()
    phrases, without_phrases = list[tuple[str, ...]](), list[tuple[str, ...]]()
    for minus, quoted, plain in _PART.findall(text):
        cut = words(quoted or plain)
        if not cut:
            continue
        prefix = plain.endswith("*")
        if len(cut) > 1 and (minus or quoted):
            (without_phrases if minus else phrases).append(tuple(cut))
        if len(cut) == 1 or not minus:
            _add(without if minus else terms, cut, prefix=prefix, literal=bool(quoted))
    _let_the_last_one_go_on(text, terms)
    count = len(terms) + len(without) + sum(map(len, without_phrases))
    if count > MAX_TERMS or len(phrases) > MAX_TERMS:
        raise InvalidQuery(f"more than {MAX_TERMS} words.", path="text", fix="Leave out the common ones.")
    if not terms:
        raise InvalidQuery(
            "there is no word to look for.", path="text", fix="Say a word that is to be found."
        )
    return {
        "terms": tuple(terms.values()),
        "phrases": tuple(dict.fromkeys(phrases)),
        "without": tuple(without.values()),
        "without_phrases": tuple(dict.fromkeys(without_phrases)),
    }


def _add(terms: dict[str, Term], cut: Sequence[str], *, prefix: bool, literal: bool) -> None:
    """Add words, of which the last one may be a beginning; where one is asked for twice, the stricter holds."""
    for index, word in enumerate(cut):
        known = terms.get(word, Term(word, prefix=True))
        last = prefix and index == len(cut) - 1
        terms[word] = Term(word, prefix=last and known.prefix, literal=literal or known.literal)


def _let_the_last_one_go_on(text: str, terms: dict[str, Term]) -> None:
    parts = _PART.findall(text)
    if not parts or text[-1:].isspace() or parts[-1][0] or parts[-1][1]:
        return
    cut = words(parts[-1][2])
    if cut and len(cut[-1]) >= _SHORTEST_BEGINNING and not terms[cut[-1]].literal:
        terms[cut[-1]] = Term(cut[-1], prefix=True)
