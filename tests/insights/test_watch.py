"""Counts while the application works: never in its way, bounded, and together with those of other processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tenantry import MultiTenantSDK, current_context, use_context
from tenantry.context import SystemContext
from tenantry.databases.sqlite.adapter import SQLiteAdapter
from tenantry.databases.sqlite.connection import NOTHING
from tenantry.errors import DatabaseUnavailable, IsolationError, Unsupported
from tenantry.insights import INSIGHTS
from tenantry.insights import watch as watching
from tenantry.insights.collector import MAX_SHAPES, Collector
from tenantry.insights.counts import MAX_TENANTS
from tenantry.insights.sampler import Sampler
from tenantry.insights.store import RETENTION, Store
from tenantry.ports import Catalog, Index, Plan
from tenantry.query import Comparison, Or, Query
from tests.insights.shop import ARTICLES, MODELS, Article, operation

HOUR = dt.timedelta(hours=1)
CANARY = "canary-91"
SLOW = {"slow_query_seconds": 1e-9, "insights_interval": 3_600.0}


def shop(url: str = "memory://", **performance: Any) -> MultiTenantSDK:
    return MultiTenantSDK.open(
        url, models=MODELS, schema="create", performance={**SLOW, **performance}, env={}
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


async def stored(sdk: MultiTenantSDK) -> list[Any]:
    context = SystemContext(reason="test")
    query = Query(INSIGHTS, tuple(INSIGHTS.fields.values()))
    return await sdk._watch.database.select(context, query)


# -- many processes


async def test_the_counts_of_all_processes_meet(url: str) -> None:
    async with shop(url) as first, shop(url) as second:
        await first.tenants.create("acme")
        for sdk, times in ((first, 3), (second, 4)):
            for _ in range(times):
                await sdk.tenant("acme").data.read(Article, {"status": "new"})
        await second.insights.flush()
        alone = await first.insights.report()
        assert [shape.count for shape in alone.shapes] == [3]
    async with shop(url) as third:
        report = await third.insights.report(since=HOUR)
        assert report.processes == 2
        (shape,) = [shape for shape in report.shapes if shape.collection == "articles"]
        assert (shape.count, shape.verb) == (7, "read")
        assert shape.tenants == {}
        assert (await third.insights.report()).shapes == ()


async def test_writing_twice_counts_once(url: str) -> None:
    async with shop(url) as sdk:
        await sdk.tenants.create("acme")
        for _ in range(3):
            await sdk.tenant("acme").data.count(Article)
            await sdk.insights.flush()
        assert len(await stored(sdk)) == 1
        (shape,) = (await sdk.insights.report(since=HOUR)).shapes
        assert shape.count == 3


async def test_nothing_of_a_tenant_is_stored(url: str) -> None:
    async with shop(url) as sdk:
        tenant = f"tenant-{CANARY}"
        await sdk.tenants.create(tenant)
        data = sdk.tenant(tenant, user=CANARY, request_id=CANARY).data
        await data.create(Article(slug=CANARY, details={CANARY: CANARY}))
        await data.read(Article, {f"details.{CANARY}": CANARY, "title": {"contains": CANARY}})
        await data.read(Article, {"slug": {"in": [CANARY, "x"]}, "status": CANARY})
        for _ in range(4):
            await sdk.insights.flush()
        assert CANARY in str((await sdk.insights.report()).shapes[0].tenants)  # in memory, by id
        rows = await stored(sdk)
        assert len(rows[0]["counted"]) == 3
        assert CANARY not in str(rows)


# -- never in the way


async def test_a_failure_is_counted_and_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    save, away = Store.save, True

    async def failing(self: Store, *arguments: Any) -> None:
        if away:
            raise DatabaseUnavailable("away")
        await save(self, *arguments)

    monkeypatch.setattr(Store, "save", failing)
    async with shop() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.count(Article)
        await sdk.insights.flush()
        await sdk.insights.flush()
        assert await sdk.tenant("acme").data.count(Article) == 0
        away = False
        report = await sdk.insights.report(since=HOUR)
        assert report.failures == 2
        assert [shape.count for shape in report.shapes] == [2]


async def test_closing_does_not_wait_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hanging(self: Store, *arguments: Any) -> None:
        await asyncio.sleep(3_600)

    monkeypatch.setattr(Store, "save", hanging)
    monkeypatch.setattr(watching, "_CLOSE_SECONDS", 0.05)
    sdk = shop()
    await sdk.initialize()
    await sdk.tenants.create("acme")
    await sdk.tenant("acme").data.count(Article)
    async with asyncio.timeout(5):
        await sdk.close()


async def test_it_writes_by_itself_and_for_no_tenant(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that writes begins in a request of a tenant, and is not of that tenant."""
    seen: list[Any] = []
    explain = SQLiteAdapter.explain

    async def explained(self: SQLiteAdapter, *arguments: Any, **options: Any) -> Plan:
        seen.append(current_context())
        return await explain(self, *arguments, **options)

    monkeypatch.setattr(SQLiteAdapter, "explain", explained)
    async with shop(url, insights_interval=0.02) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme")
        with use_context(acme.context):
            await sdk.data.count(Article)
        async with asyncio.timeout(30):
            while not (seen and await stored(sdk)):
                await asyncio.sleep(0.02)
        assert seen == [None]


async def test_it_is_off_on_request(url: str) -> None:
    async with shop(url, query_insights=False) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.count(Article)
        report = await sdk.insights.report(since=HOUR)
        assert (report.shapes, report.processes) == ((), 0)
        assert await stored(sdk) == []


async def test_an_sdk_that_is_opened_again_counts_from_zero() -> None:
    sdk = shop()
    for _ in range(2):
        async with sdk:
            await sdk.tenants.create("acme")
            await sdk.tenant("acme").data.count(Article)
            assert [shape.count for shape in (await sdk.insights.report()).shapes] == [1]


# -- looking into slow queries


def explaining(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    async def explain(self: SQLiteAdapter, context: Any, *arguments: Any, **options: Any) -> Plan:
        asked.append(context.tenant_id)
        return Plan("SCAN", None, 9_000, 1)

    monkeypatch.setattr(SQLiteAdapter, "explain", explain)
    return asked


async def test_one_query_at_a_time_is_looked_into_and_none_soon_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = explaining(monkeypatch)
    async with shop(url) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        for _ in range(3):
            await data.read(Article, {"status": "new"})
            await data.count(Article, {"kind": "x"})
        for expected in (1, 2, 2):
            await sdk.insights.flush()
            assert len(asked) == expected
            await data.read(Article, {"status": "new"})
        assert sum(shape.plan is not None for shape in (await sdk.insights.report()).shapes) == 2


async def test_what_is_fast_is_not_looked_into(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = explaining(monkeypatch)
    async with shop(url, slow_query_seconds=3_600.0) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.read(Article)
        await sdk.insights.flush()
        assert asked == []


async def test_a_suspended_tenant_is_not_looked_into(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = explaining(monkeypatch)
    async with shop(url) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.read(Article)
        await sdk.tenants.suspend("acme", reason="unpaid")
        await sdk.insights.flush()
        assert asked == []


async def test_sqlite_says_how_it_reads_and_its_index_is_made(url: str) -> None:
    async with shop(url) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        for part in range(2):
            await data.bulk_create([Article(slug=f"{part}-{n}", kind="x", words=n % 100) for n in range(500)])

        async def ask() -> Any:
            for _ in range(2):
                await data.read(
                    Article, {"words": 5, "title": {"ilike": "A%"}}, order_by="-published", limit=9
                )
                await data.read(Article, {"words": 7}, order_by="-published", limit=5)
                await data.count(Article, {"words": 7})
                await data.aggregate(Article, {"number": {"count": "*"}}, {"words": 7})
            for _ in range(4):
                await sdk.insights.flush()
            return await sdk.insights.report()

        report = await ask()
        (finding,) = [item for item in report.findings if item.code == "missing-index"]
        assert finding.ddl == (
            'CREATE INDEX IF NOT EXISTS "articles_words_published_adv" ON "articles" '
            '("tenant_id", "words", "published")'
        )
        assert finding.model == 'Article.__indexes__ = (("status", "title"), ("words", "published"))'
        assert await sdk.insights.apply([finding]) == [finding]
        assert await sdk.insights.apply([finding]) == []
        after = await ask()
        assert [item for item in after.findings if item.code == "missing-index"] == []
        used = [shape.plan and shape.plan.index for shape in after.shapes if "words eq" in shape.shape]
        assert used == ["articles_words_published_adv"] * 4


async def test_explaining_opens_no_other_table(url: str) -> None:
    """The authorizer judges what is explained as it judges what is run."""
    async with shop(url) as sdk:
        await sdk.tenants.create("acme")
        database = sdk._watch.database
        assert isinstance(database, SQLiteAdapter)
        step = database._compiler.select(sdk.tenant("acme").context, Query(ARTICLES, (ARTICLES.key,)))
        with pytest.raises(IsolationError, match="refused") as caught:
            await database._read(
                lambda connection: connection.control("EXPLAIN QUERY PLAN SELECT * FROM articles")
            )
        assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
        with pytest.raises(IsolationError, match="refused"):
            await database._read(lambda connection: connection.explain(step, NOTHING, 1.0))


async def test_memory_has_no_indexes() -> None:
    async with shop() as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.read(Article, {"status": "new"})
        await sdk.insights.flush()
        report = await sdk.insights.report()
        assert [shape.plan for shape in report.shapes] == [None]
        with pytest.raises(Unsupported):
            await sdk.insights.apply(report.findings)


# -- bounds


async def test_the_number_of_shapes_is_bounded() -> None:
    collector = Collector(Sampler(1.0))
    fields = [ARTICLES.fields[name] for name in ("status", "kind", "title", "slug")]
    for number in range(3 * MAX_SHAPES):
        bits = [fields[number >> shift & 3] for shift in range(0, 12, 2)]
        deep: Any = Comparison(bits[0], "eq", "x")
        for field in bits:
            deep = Or((Comparison(field, "eq", "x"), deep, Comparison(field, "lt", "x")))
        collector(operation(where=deep, limit=number % 2 or None))
    listed = collector.of_this_hour()
    assert len(listed) == MAX_SHAPES + 1
    assert sum(item.counts.count for item in listed) == 3 * MAX_SHAPES
    others = next(item for item in listed if item.shape.text == "read articles (others)")
    assert others.counts.count == collector.unnamed > MAX_SHAPES


async def test_the_number_of_tenants_of_a_shape_is_bounded() -> None:
    collector = Collector(Sampler(1.0))
    for number in range(2_000):
        collector(operation("get", tenant=f"t{number}"))
        collector(operation("get", tenant="large"))
        collector(operation("get", tenant="large"))
    ((_, tenants),) = collector.totals()
    assert len(tenants) <= MAX_TENANTS
    assert 1_000 < tenants["large"] <= 4_000


async def test_an_hour_has_a_row_and_old_ones_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = dt.datetime(2026, 3, 1, 12, 59, tzinfo=dt.UTC)
    times = [at]
    monkeypatch.setattr(watching, "now", lambda: times[-1])
    async with shop(url) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        for number in range(3):
            times.append(at + number * HOUR)
            await data.count(Article)
            await sdk.insights.flush()
        counts = [
            row["counted"][0]["counts"]["count"] for row in sorted(await stored(sdk), key=lambda r: r["id"])
        ]
        assert sum(counts) == 3
        assert len(counts) >= 2
        assert [shape.count for shape in (await sdk.insights.report()).shapes] == [3]
        times.append(at + RETENTION + 9 * HOUR)
        await data.count(Article)
        await sdk.insights.flush()
        assert not [row for row in await stored(sdk) if row["hour"] <= at + 3 * HOUR]


async def test_the_watch_over_indexes_begins_when_one_is_first_seen(url: str) -> None:
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    one, two = Index("articles", ("tenant_id", "kind"), "one", scans=5), Index("articles", (), "two", scans=0)
    async with shop(url) as sdk:
        store = sdk._watch.store
        assert await store.observed(Catalog((one,), start - HOUR), start) == {"one": (start, 5)}
        later = await store.observed(Catalog((one, two), start - HOUR), start + HOUR)
        assert later == {"one": (start, 5), "two": (start + HOUR, 0)}
        # The server has begun to count anew.
        anew = await store.observed(Catalog((one, two), start + 2 * HOUR), start + 3 * HOUR)
        assert anew == {"one": (start + 2 * HOUR, 0), "two": (start + 2 * HOUR, 0)}
        gone = await store.observed(Catalog((two,), start + 2 * HOUR), start + 4 * HOUR)
        assert set(gone) == {"two"}
        assert (await sdk.insights.report(since=HOUR)).shapes == ()
