"""What follows from the counts: findings, each with its evidence and its fix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tenantry.insights.candidates import Candidate, Need, candidates, declaration, need_of, served_by
from tenantry.insights.counts import Counted
from tenantry.insights.histogram import percentile
from tenantry.insights.report import Finding
from tenantry.ports import Catalog, Index, Indexes
from tenantry.schema import Collection, Field

MANY_SCANNED: Final = 500
"""So many rows may be looked at without anybody minding."""

WASTEFUL: Final = 5
"""How many rows may be looked at for each that was asked for."""

LARGE: Final = 1_000
"""So many rows, on average, make a large read."""

_INDEXABLE: Final = frozenset({"read", "count", "aggregate"})


class Adviser:
    """Looks for what makes queries slow.

    Args:
        collections: The collections of the models.
        slow: From how many seconds on a query is slow.
        database: The database, if its indexes can be listed.
    """

    def __init__(self, collections: Mapping[str, Collection], slow: float, database: Indexes | None) -> None:
        self._collections = collections
        self._slow = slow
        self._database = database

    def findings(self, counted: Sequence[Counted], catalog: Catalog | None) -> list[Finding]:
        """Return the findings, warnings first.

        Args:
            counted: The shapes, the most expensive first.
            catalog: The indexes there are; ``None`` where the database has none.
        """
        found = [] if catalog is None else self._indexes(counted, catalog)
        served = {text for finding in found for text in finding.shapes}
        for item in counted:
            if item.shape.text not in served:
                found += self._unindexable(item)
            found += self._repeated(item)
            found += _large(item)
        return sorted(found, key=lambda finding: finding.severity != "warning")

    def _is_slow(self, item: Counted) -> bool:
        return percentile(item.counts.latency, 0.95) >= self._slow

    # -- indexes

    def _indexes(self, counted: Sequence[Counted], catalog: Catalog) -> list[Finding]:
        """Return which indexes are missing, and which are there and were not used when it was last looked."""
        database = self._database
        assert database is not None
        wanted: defaultdict[str, list[tuple[Counted, Need]]] = defaultdict(list)
        for item in counted:
            collection = self._collections.get(item.shape.collection)
            if collection is None or item.shape.verb not in _INDEXABLE or not is_wasteful(item):
                continue
            need = need_of(item.shape, collection, database.answered)
            if need is not None:
                wanted[collection.name].append((item, need))
        found: list[Finding] = []
        for name, needs in wanted.items():
            existing = [index for index in catalog.indexes if index.table == name]
            made = candidates(needs, self._collections[name], existing)
            found += [self._index(candidate, database) for candidate in made]
            found += [self._passed_over(*pair) for pair in served_by(needs, existing)]
        return found

    def _passed_over(self, item: Counted, index: Index) -> Finding:
        return Finding(
            severity="info",
            code="index-not-used",
            subject=item.shape.collection,
            message=f"{index.name} serves it, and was not used when this was last looked into"
            f"{_looked_at(item)}.",
            fix="If the index is newer than that, wait for new numbers (--since 1h). Else the planner finds another "
            "way cheaper: see that its statistics are current.",
            shapes=(item.shape.text,),
        )

    def _index(self, made: Candidate, database: Indexes) -> Finding:
        index, ddl = database.advised(made.collection, made.fields)
        counts = [item.counts for item in made.served]
        slowest = max(percentile(item.latency, 0.95) for item in counts)
        scanned = max(item.plan.scanned or 0 for item in counts if item.plan is not None)
        calls, seconds = sum(item.count for item in counts), sum(item.seconds for item in counts)
        return Finding(
            severity="warning" if any(map(self._is_slow, made.served)) else "info",
            code="missing-index",
            subject=made.collection.name,
            message=f"{calls:,} queries of {_shapes(len(counts))} took {_time(seconds)} in all, p95 "
            f"{_time(slowest)}, and looked at up to {scanned:,} rows each.",
            fix="Make the index, and declare it in the model.",
            shapes=tuple(item.shape.text for item in made.served),
            ddl=ddl,
            model=declaration(made.collection, made.fields),
            index=index,
        )

    def _unindexable(self, item: Counted) -> Iterator[Finding]:
        shape = item.shape
        slow, wasteful = self._is_slow(item), is_wasteful(item)
        if not (slow or wasteful) or shape.verb not in _INDEXABLE:
            return
        if shape.patterns:
            names = ", ".join(shape.patterns)
            yield self._finding(
                item,
                "pattern-scan",
                f"No plain index finds a part of a text: every {names} is looked at.",
                f"Mark {names} Searchable and use full-text search, or ask for how it begins (starts_with).",
            )
        elif slow:
            yield self._finding(item, "slow-query", "No index of ours would help.", self._reason(item))

    def _reason(self, item: Counted) -> str:
        """Return what to do about a slow query that no index mends."""
        shape = item.shape
        if shape.others:
            return (
                f"No plain index answers: {'; '.join(shape.others)}. Keep what is searched for in a field of its own, "
                "and compare that."
            )
        barred = self._barred(item)
        if barred:
            names = ", ".join(field.name for field in barred)
            return (
                f"Under row-level security this database compares {barred[0].kind.value} fields ({names}) row by row, "
                "index or not. Filter by another field too, or keep a number of cents."
            )
        plan = item.counts.plan
        if plan is not None and plan.scanned is not None:
            return "It looks at hardly more rows than it needs: ask for fewer rows or fields, or more rarely."
        return "It was not looked into yet, or waits for something else: locks, connections, the network."

    def _barred(self, item: Counted) -> list[Field]:
        collection = self._collections.get(item.shape.collection)
        if collection is None or self._database is None:
            return []
        names = (*item.shape.equal, *item.shape.ranges)
        fields = [collection.fields[name] for name in names if name in collection.fields]
        return [field for field in fields if field.kind not in self._database.answered]

    # -- how the application asks

    def _repeated(self, item: Counted) -> Iterator[Finding]:
        counts, shape = item.counts, item.shape
        if counts.pages:
            yield self._finding(
                item,
                "page-loop",
                f"{_requests(counts.pages)} read page after page.",
                "Let the database count or filter, or read fewer and larger pages (limit=…, at most 10,000).",
            )
        if counts.loops:
            yield Finding(
                severity="warning",
                code="n-plus-one",
                subject=shape.collection,
                message=f"{_requests(counts.loops)} read many rows of {counts.after!r} and then asked this "
                f"{counts.looped / counts.loops:,.0f} times.",
                fix=self._together(item),
                shapes=(shape.text,),
            )

    def _together(self, item: Counted) -> str:
        """Return how to ask once for what was asked row by row."""
        shape, parent = item.shape, self._collections.get(item.counts.after)
        if parent is not None and shape.verb == "get":
            for field in parent.fields.values():
                if field.ref is not None and field.ref.collection == shape.collection:
                    return f'Read it with the rows: read("{parent.name}", …, include=["{field.relation}"]).'
        if shape.verb == "count":
            return "Count once, or keep the number in the row."
        name = shape.equal[0] if shape.equal else "id"
        return f'Ask for all at once: read("{shape.collection}", {{"{name}": {{"in": [...]}}}}).'

    def _finding(self, item: Counted, code: str, message: str, fix: str) -> Finding:
        slowest = _time(percentile(item.counts.latency, 0.95))
        numbers = f"{item.counts.count:,} queries, p95 {slowest}{_looked_at(item)}."
        return Finding(
            severity="warning" if self._is_slow(item) else "info",
            code=code,
            subject=item.shape.collection,
            message=f"{message} {numbers}",
            fix=fix,
            shapes=(item.shape.text,),
        )


def is_wasteful(item: Counted) -> bool:
    """Whether the database looks at far more rows than are asked for."""
    counts, plan = item.counts, item.counts.plan
    if plan is None or plan.scanned is None or plan.scanned < MANY_SCANNED:
        return False
    useful = counts.rows / counts.count if counts.count else 0.0
    if item.shape.verb != "read":
        useful = plan.kept if plan.kept is not None else plan.scanned
    return plan.scanned >= WASTEFUL * max(useful, 1)


def _large(item: Counted) -> Iterator[Finding]:
    counts, shape = item.counts, item.shape
    average = counts.rows / counts.count if counts.count else 0.0
    if shape.verb != "read" or average < LARGE:
        return
    yield Finding(
        severity="info",
        code="large-read",
        subject=shape.collection,
        message=f"{counts.count:,} reads returned {average:,.0f} rows each, and {counts.most:,} at most.",
        fix="Ask for the fields that are needed (fields=…), or for a page that somebody looks at (limit=…).",
        shapes=(shape.text,),
    )


def _looked_at(item: Counted) -> str:
    plan = item.counts.plan
    if plan is None or plan.scanned is None:
        return ""
    return f", {plan.scanned:,} rows looked at"


def _time(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1000:,.1f} ms"


def _shapes(number: int) -> str:
    return "one shape" if number == 1 else f"{number} shapes"


def _requests(number: int) -> str:
    return "One request" if number == 1 else f"{number:,} requests"
