"""Searching rows by their words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from tenantry.context import Context
from tenantry.data.calls import Calls
from tenantry.data.records import M, check_typed
from tenantry.filters import Where, parse_where
from tenantry.highlights import Highlighter, parse_marks
from tenantry.query import Query, parse_limit
from tenantry.searching import SCALE, SCORE, Search, parse_search_fields, parse_text
from tenantry.types import Hit, Page, Record


class Searches(Calls):
    """The calls that search rows."""

    @overload
    async def search(
        self,
        collection: type[M],
        text: str,
        *,
        fields: Sequence[str] | None = None,
        where: Callable[[M], bool] | Mapping[str, Any] | None = None,
        limit: int = 20,
        cursor: str | None = None,
        highlight: bool | tuple[str, str] = False,
        typos: bool = False,
        context: Context | None = None,
    ) -> Page[Hit[M]]: ...
    @overload
    async def search(
        self,
        collection: str,
        text: str,
        *,
        fields: Sequence[str] | None = None,
        where: Where = None,
        limit: int = 20,
        cursor: str | None = None,
        highlight: bool | tuple[str, str] = False,
        typos: bool = False,
        context: Context | None = None,
    ) -> Page[Hit[Record]]: ...
    async def search(
        self,
        collection: Any,
        text: str,
        *,
        fields: Sequence[str] | None = None,
        where: Any = None,
        limit: int = 20,
        cursor: str | None = None,
        highlight: bool | tuple[str, str] = False,
        typos: bool = False,
        context: Context | None = None,
    ) -> Page[Hit[Any]]:
        """Return a page of the rows that have the words of ``text``, the best first.

        Case and accents do not count. The score of a row depends on nothing but the row and the text.

        Args:
            collection: A model, for typed rows, or a name, for plain records.
            text: Words, which must all be found; ``"words in quotes"`` stand side by side, ``-word`` must not be there,
                ``lap*`` finds what begins so, and so does the last word while no space follows it.
            fields: The searchable fields to look into; by default all of them.
            where: What rows must meet besides, as in ``read``.
            limit: The most rows, 1 to 10,000.
            cursor: The ``next_cursor`` of the page before.
            highlight: Whether each hit shows where the words were found, as HTML; or what stands before and behind them
                in place of ``<mark>`` and ``</mark>``.
            typos: Whether to find words too that one of the text may be mistyped for.
            context: For an unbound manager, who asks.

        Raises:
            InvalidQuery: With the path to the fault.
        """
        found, typed = self._readable(collection)
        wanted = parse_search_fields(found, fields)
        search = Search(
            found,
            wanted,
            **parse_text(text),
            filter=parse_where(found, where),
            limit=parse_limit(limit) + 1,
            typos=bool(typos),
        )
        marks = parse_marks(highlight)
        scope = await self._admitted(context)
        check_typed(found, scope, typed)
        query = Query(found, wanted, search.filter)
        if cursor is not None:
            score, id = self._runtime.cursors.open(scope, query, search.order, cursor)
            search = search.behind(score, id)
        started = time.perf_counter()
        try:
            rows = await self._executor.search(scope, search)
            following = None
            if len(rows) > limit:
                rows = rows[:limit]
                following = self._runtime.cursors.sign(scope, query, search.order, rows[-1])
        except BaseException as error:
            self._after("search", found, scope, started, error=error, query=query)
            raise
        self._after("search", found, scope, started, rows=len(rows), query=query)
        highlighter = None if marks is None else Highlighter(search, marks)
        return Page([_hit(found, row, typed, highlighter) for row in rows], following)


def _hit(found: Any, row: Record, typed: bool, highlighter: Highlighter | None) -> Hit[Any]:
    score = row.pop(SCORE.name)
    highlights = {} if highlighter is None else highlighter.of(row)
    return Hit(found.instantiate(row) if typed else row, score / SCALE, highlights)
