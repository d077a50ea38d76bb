"""Each finding where it belongs, and none where nothing is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest

from tenantry.insights.advice import Adviser, is_wasteful
from tenantry.insights.candidates import declaration
from tenantry.insights.counts import Counted, restored
from tenantry.insights.report import Finding
from tenantry.insights.unused import unused
from tenantry.ports import Catalog, Index, Plan
from tenantry.schema import Collection, Kind
from tests.insights.shop import ARTICLES, AUTHORS, COLLECTIONS, WASTE, counted

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
WEEK = dt.timedelta(days=7)


class Indexed:
    """A database that names indexes, and makes none."""

    answered = frozenset(Kind) - {Kind.JSON, Kind.LIST, Kind.DECIMAL}

    def advised(self, collection: Collection, fields: Sequence[str]) -> tuple[Index, str]:
        index = Index(collection.name, ("tenant_id", *fields), "made")
        return index, f"CREATE INDEX {','.join(fields)}"

    def drop_statement(self, index: Index) -> str:
        return f"DROP INDEX {index.name}"


def findings(*items: Counted, existing: Sequence[Index] = ()) -> list[Finding]:
    database: Any = Indexed()
    return Adviser(COLLECTIONS, 0.1, database).findings(items, Catalog(tuple(existing)))


def codes(*items: Counted, existing: Sequence[Index] = ()) -> list[str]:
    return [finding.code for finding in findings(*items, existing=existing)]


def test_what_is_quick_and_frugal_is_not_mentioned() -> None:
    frugal = Plan("Index Scan", "some", scanned=12, kept=10)
    assert codes(counted(equal=("status",), seconds=0.01, plan=frugal)) == []
    assert codes(counted(equal=("status",), seconds=0.01)) == []
    assert codes(counted(verb="get", seconds=0.01), counted(verb="create", seconds=0.01)) == []


def test_a_missing_index_is_a_warning_where_it_is_slow() -> None:
    slow, quick = (counted(equal=("status",), seconds=seconds, plan=WASTE) for seconds in (0.5, 0.05))
    (warning,), (note,) = findings(slow), findings(quick)
    assert (warning.severity, note.severity) == ("warning", "info")
    assert (warning.code, warning.ddl) == ("missing-index", "CREATE INDEX status")
    assert warning.model == "Article.status: Annotated[…, Indexed]"
    assert "looked at up to 20,000 rows" in warning.message


def test_without_having_looked_no_index_is_advised() -> None:
    assert codes(counted(equal=("status",), seconds=0.5)) == ["slow-query"]


def test_an_index_that_was_made_meanwhile_is_named() -> None:
    index = Index("articles", ("tenant_id", "status"), "articles_status_adv")
    (finding,) = findings(counted(equal=("status",), seconds=0.5, plan=WASTE), existing=[index])
    assert (finding.severity, finding.code) == ("info", "index-not-used")
    assert "articles_status_adv" in finding.message


@pytest.mark.parametrize(
    ("shape", "code", "words"),
    [
        ({"patterns": ("title",)}, "pattern-scan", "full-text search"),
        ({"others": ("details[…] eq",)}, "slow-query", "details[…] eq"),
        ({"others": ("(kind eq or status eq)",)}, "slow-query", "No plain index answers"),
        ({"ranges": ("price",)}, "slow-query", "compares decimal fields (price) row by row"),
        ({}, "slow-query", "hardly more rows than it needs"),
    ],
)
def test_where_no_index_helps_none_is_advised(shape: dict[str, Any], code: str, words: str) -> None:
    (finding,) = findings(counted(**shape, plan=WASTE))
    assert (finding.code, finding.ddl) == (code, None)
    assert words in finding.fix


def test_shapes_of_other_verbs_and_of_unknown_collections_are_passed_over() -> None:
    slow: dict[str, Any] = {"seconds": 0.5, "plan": WASTE, "equal": ("status",)}
    assert codes(counted(verb="search", **slow), counted(verb="create", **slow)) == []
    assert codes(counted(collection="gone", **slow)) == ["slow-query"]


def test_a_large_read() -> None:
    assert codes(counted(rows=2_000, seconds=0.01)) == ["large-read"]
    assert codes(counted(rows=2_000, seconds=0.01, verb="create")) == []


def test_what_is_asked_row_by_row() -> None:
    together: dict[str, Any] = {"loops": 2, "looped": 30, "seconds": 0.001}
    (get,) = findings(counted(verb="get", collection="authors", after="articles", **together))
    assert "2 requests read many rows of 'articles' and then asked this 15 times" in get.message
    assert 'include=["author"]' in get.fix
    (other,) = findings(counted(verb="get", after="authors", **together))
    assert '"articles", {"id": {"in": [...]}}' in other.fix
    (count,) = findings(counted(verb="count", after="authors", **together))
    assert count.fix.startswith("Count once")


@pytest.mark.parametrize(
    ("plan", "more", "wasteful"),
    [
        (None, {}, False),
        (Plan("SEARCH INDEX", "some"), {}, False),
        (Plan("Seq Scan", None, scanned=499, kept=1), {}, False),
        (Plan("Seq Scan", None, scanned=500, kept=1), {}, True),
        (Plan("Seq Scan", None, scanned=5_000, kept=5_000), {"rows": 20}, True),
        (Plan("Seq Scan", None, scanned=5_000, kept=5_000), {"rows": 1_001}, False),
        (Plan("Seq Scan", None, scanned=5_000, kept=4_000), {"verb": "count", "rows": 1}, False),
        (Plan("Seq Scan", None, scanned=5_000, kept=4_000), {"verb": "aggregate", "rows": 1}, False),
        (Plan("Seq Scan", None, scanned=5_000, kept=40), {"verb": "aggregate", "rows": 3}, True),
        (Plan("Seq Scan", None, scanned=5_000, kept=0), {"rows": 0}, True),
    ],
)
def test_what_is_wasteful(plan: Plan | None, more: dict[str, Any], wasteful: bool) -> None:
    assert is_wasteful(counted(plan=plan, **more)) is wasteful


def test_unused_are_only_those_that_were_watched_long_enough() -> None:
    idle = Index("articles", ("tenant_id", "kind"), "idle", scans=5)
    catalog = Catalog(
        (
            idle,
            Index("articles", ("tenant_id", "slug"), "key", unique=True, required=True, scans=0),
            Index("articles", ("tenant_id", "author_id"), "reference", required=True, scans=0),
            Index("articles", ("tenant_id", "words"), "busy", scans=6),
            Index("articles", ("tenant_id", "title"), "uncounted"),
            Index("articles", ("tenant_id", "status"), "unseen", scans=0),
        )
    )
    seen = dict.fromkeys(("idle", "busy", "uncounted"), (START, 5)) | dict.fromkeys(
        ("key", "reference"), (START, 0)
    )
    assert list(unused(catalog, seen, START + WEEK, WEEK)) == [idle]
    assert list(unused(catalog, seen, START + WEEK - dt.timedelta(seconds=1), WEEK)) == []


def test_what_is_declared_keeps_what_was_declared() -> None:
    assert declaration(ARTICLES, ["kind", "words"]) == (
        'Article.__indexes__ = (("status", "title"), ("kind", "words"))'
    )
    assert declaration(AUTHORS, ["name"]) == "Author.name: Annotated[…, Indexed]"


def test_what_is_stored_comes_back() -> None:
    item = counted(equal=("status",), order=("-words", "id"), plan=WASTE, loops=3, looped=40, after="authors")
    assert restored(item.stored()) == item
