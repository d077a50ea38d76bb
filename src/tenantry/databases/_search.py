"""Searches as SQL: over the table of a collection's words, which is entered by the tenant and the word.

Each word to find is one join. No statement counts or orders by anything but the rows of the tenant that match: how
common a word is elsewhere can be seen in no score. Equality and order of text are all that the index is asked for,
which PostgreSQL lets past a policy into an index; it lets no operator of ``tsvector`` or ``pg_trgm``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from tenantry.databases._dialect import SQLDialect
from tenantry.databases._tables import TERM, Tables, rank_column
from tenantry.schema import TENANT, Collection, Field
from tenantry.searching import BEGINNING, EXACT, SCORE, SIMILAR, Search, Term, searchable_fields
from tenantry.words import LAST, MAX_VOCABULARY, ranks

Parameter = Callable[[Field, str], sa.BindParameter[Any]]


class SearchCompiler:
    """Builds the statements of one dialect.

    Args:
        dialect: The dialect.
        tables: The tables, those of words included.
        tenant: Makes the predicate that holds a table to the tenant.
    """

    def __init__(
        self, dialect: SQLDialect, tables: Tables, tenant: Callable[[sa.FromClause], ColumnElement[bool]]
    ) -> None:
        self._dialect = dialect
        self._tables = tables
        self._tenant = tenant

    def shape(self, search: Search, key: Callable[[Any], Any], values: list[Any]) -> Any:
        """Return what is the same for searches that differ in values alone, and append the values."""
        for term in (*search.terms, *search.without):
            values.append(term.word)
            if term.prefix:
                values.append(term.word + LAST)
            if term.similar:
                values.append(self._dialect.encode_items(TERM, term.similar))
        values.extend(f" {' '.join(phrase)} " for phrase in (*search.phrases, *search.without_phrases))
        if search.after is not None:
            score, id = search.after
            values.extend((score, key(id)))
        return (
            tuple(field.name for field in search.fields),
            tuple((term.prefix, bool(term.similar)) for term in search.terms),
            tuple((term.prefix, bool(term.similar)) for term in search.without),
            len(search.phrases),
            len(search.without_phrases),
            search.after is not None,
            search.limit is not None,
        )

    def statement(self, search: Search, condition: ColumnElement[bool], first: int) -> sa.Select[Any]:
        """Return the statement, with the parameters ``p<first>``, … in the order in which :meth:`shape` collects."""
        table = self._tables[search.collection.name]
        names = (f"p{number}" for number in range(first, first + 1_000))
        joined: Any = table
        scores: list[ColumnElement[Any]] = []
        for number, term in enumerate(search.terms):
            hits = self._hits(search, term, names, f"hits{number}")
            joined = joined.join(hits, hits.c.id == table.c.id)
            scores.append(hits.c.score)
        without = [self._absent(search, term, names, table) for term in search.without]
        phrases = [self._phrase(search, table, next(names)) for _ in search.phrases]
        no_phrases = [~self._phrase(search, table, next(names)) for _ in search.without_phrases]
        score = functools.reduce(operator.add, scores)
        columns = [table.c[name] for name in search.collection.fields]
        built = sa.select(*columns, score.label(SCORE.name)).select_from(joined)
        if "tenant_id" in table.c:
            built = built.where(self._tenant(table))
        built = built.where(condition, *without, *phrases, *no_phrases)
        if search.after is not None:
            built = built.where(self._after(search, score, table, names))
        built = built.order_by(score.desc(), table.c.id.asc())
        return built if search.limit is None else built.limit(sa.bindparam("limit", type_=sa.BigInteger()))

    def vocabulary(self, collection: Collection) -> sa.Select[Any]:
        """Return the statement for the words from ``p0`` up to ``p1``, each found by one step in the index."""
        index = self._tables.indexes[collection.name]
        low, high = (sa.bindparam(name, type_=sa.Text()) for name in ("p0", "p1"))

        def least(bound: Callable[[ColumnElement[str]], ColumnElement[bool]]) -> sa.Select[Any]:
            other = index.alias()
            built = sa.select(sa.func.min(other.c.term).label("term"))
            held = [self._tenant(other)] if "tenant_id" in index.c else []
            return built.where(*held, bound(other.c.term), other.c.term < high)

        first = least(lambda term: term >= low).cte("words", recursive=True)
        following = least(lambda term: term > first.c.term).scalar_subquery()
        words = first.union_all(sa.select(following).where(first.c.term.is_not(None)))
        found = sa.select(words.c.term).where(words.c.term.is_not(None))
        return found.limit(sa.literal_column(str(MAX_VOCABULARY)))

    def _hits(self, search: Search, term: Term, names: Iterable[str], name: str) -> Any:
        """Return the rows with a word, and how much it counts there."""
        index = self._tables.indexes[search.collection.name].alias()
        held, quality = self._meets(index, term, names)
        number = self._counted(search, index)
        where = self._held(search, index, held)
        if not term.prefix and not term.similar:
            return sa.select(index.c.id, (number * quality).label("score")).where(*where).subquery(name)
        score = sa.func.max(number * quality).label("score")
        return sa.select(index.c.id, score).where(*where).group_by(index.c.id).subquery(name)

    def _absent(
        self, search: Search, term: Term, names: Iterable[str], table: sa.Table
    ) -> ColumnElement[bool]:
        index = self._tables.indexes[search.collection.name].alias()
        held, _ = self._meets(index, term, names)
        where = [index.c.id == table.c.id, *self._held(search, index, held)]
        return ~sa.exists(sa.select(sa.literal_column("1")).select_from(index).where(*where))

    def _held(self, search: Search, index: Any, meets: ColumnElement[bool]) -> list[ColumnElement[bool]]:
        """Return what a word must be: the tenant's, one that is meant, and in one of the fields."""
        tenant = [self._tenant(index)] if "tenant_id" in index.c else []
        if search.fields == searchable_fields(search.collection):
            return [*tenant, meets]
        return [*tenant, meets, self._counted(search, index) > sa.literal_column("0")]

    def _meets(
        self, index: Any, term: Term, names: Iterable[str]
    ) -> tuple[ColumnElement[bool], ColumnElement[int]]:
        """Return whether a word is one that the term means, and how well it does."""
        following = iter(names)
        word = sa.bindparam(next(following), type_=sa.Text())
        exact = index.c.term == word
        held, cases = [exact], [(exact, _number(EXACT))]
        if term.prefix:
            beyond = sa.bindparam(next(following), type_=sa.Text())
            begins = sa.and_(index.c.term >= word, index.c.term < beyond)
            held, cases = [begins], [*cases, (begins, _number(BEGINNING))]
        if term.similar:
            held.append(self._dialect.any_of(index.c.term, TERM, next(following)))
        if len(held) == len(cases) == 1:
            return exact, _number(EXACT)
        return sa.or_(*held), sa.case(*cases, else_=_number(SIMILAR))

    def _counted(self, search: Search, index: Any) -> ColumnElement[int]:
        parts: list[ColumnElement[int]] = [
            index.c[rank_column(field.name)] * _number(field.weight) for field in search.fields
        ]
        return functools.reduce(operator.add, parts)

    def _phrase(self, search: Search, table: sa.Table, name: str) -> ColumnElement[bool]:
        value = sa.bindparam(name, type_=sa.Text())
        return sa.or_(*(self._dialect.has_phrase(table.c[field.name], value) for field in search.fields))

    def _after(
        self, search: Search, score: ColumnElement[Any], table: sa.Table, names: Iterable[str]
    ) -> ColumnElement[bool]:
        following = iter(names)
        last = sa.bindparam(next(following), type_=sa.BigInteger())
        key = search.collection.key
        id = sa.bindparam(next(following), type_=self._dialect.parameter_type(key))
        return sa.or_(score < last, sa.and_(score == last, table.c.id > id))


def word_rows(collection: Collection, record: Any) -> list[tuple[Any, ...]]:
    """Return the words of a row, each with how much it counts in each searchable field."""
    texts = [record[field.name] for field in searchable_fields(collection)]
    return [(word, *counted) for word, counted in ranks(texts).items()]


class WordsOfRows:
    """Makes the words of rows that were there before them: statements without a tenant, for the owner.

    Args:
        table: The table of the rows; of its columns those that the other one needs.
        index: The table of their words.
    """

    def __init__(self, table: sa.Table, index: sa.Table) -> None:
        self._keys = [column.name for column in index.c if column.name in (TENANT.name, "id")]
        counted = [column.name for column in index.c if column.name not in (*self._keys, TERM.name)]
        self.names = [*self._keys, TERM.name, *counted]
        fields = [name.removeprefix(rank_column("")) for name in counted]
        self.rows = sa.select(*(table.c[name] for name in (*self._keys, *fields)))
        self.insert = sa.insert(index).values({name: sa.bindparam(name) for name in self.names})

    def of(self, row: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the words of one of ``rows``, each as the values of ``names``."""
        keys = len(self._keys)
        return [(*row[:keys], word, *numbers) for word, numbers in ranks(row[keys:]).items()]


def concerns(collection: Collection, names: Sequence[str]) -> bool:
    """Whether a write of these fields changes what words a row has."""
    return any(field.name in names for field in searchable_fields(collection))


def _number(value: int) -> ColumnElement[int]:
    return sa.literal_column(str(value), sa.Integer())
