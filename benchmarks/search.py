"""Ranked search, isolated by the database, against the same SQL without isolation.

Both contenders search 100,000 products of 16 tenants, over at most 16 connections to one server, for one or two words
of which the last may be the beginning of one, and take the 20 best of a tenant:

- ``raw``: an asyncpg pool as it comes; the statement that tenantry compiles, with its tenant predicate, on tables with
  the same rows and indexes and without row-level security. It isolates nothing.
- ``tenantry``: ``data.search(…)`` with the default hooks, under forced row-level security unlocked by the seal.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import asyncpg
from rich.console import Console

from benchmarks.harness import Contender, Effort, Operation, Ratio, Report, compare, judge
from tenantry import Model, MultiTenantSDK, Searchable
from tenantry.context import TenantContext
from tenantry.databases._sql import Compiler, Step
from tenantry.databases.postgres.dialect import PostgresDialect
from tenantry.schema import collection_of
from tenantry.searching import Search, parse_text, searchable_fields
from tenantry.types import tenant_id, uuid7
from tenantry.words import ranks
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

TENANTS = 16
ROWS = 100_000
CONNECTIONS = 16
VOCABULARY = 4_000
QUERIES = 200
LIMIT = 20

RATIOS = [Ratio("vs_raw_search", "tenantry_16", "raw_16", 0.8)]


class Product(Model):
    """What is searched."""

    __collection__ = "products"

    name: Annotated[str, Searchable(weight=3)]
    description: Annotated[str, Searchable]


_PEER_TABLES = """
ALTER TABLE products ENABLE TRIGGER ALL;
CREATE TABLE raw_products AS SELECT * FROM products;
ALTER TABLE raw_products ADD PRIMARY KEY (tenant_id, id);
CREATE TABLE raw_products_search AS SELECT * FROM products_search;
ALTER TABLE raw_products_search ADD PRIMARY KEY (tenant_id, term, id);
CREATE INDEX ON raw_products_search (tenant_id, id);
CREATE ROLE peer LOGIN PASSWORD 'peer';
GRANT SELECT ON raw_products, raw_products_search TO peer;
VACUUM ANALYZE products, products_search, raw_products, raw_products_search;
"""


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, fill it, measure."""
    with PostgresServer.start() as server:
        admin_url = server.create_database("bench")
        async with AsyncExitStack() as stack:
            options = await deploy(admin_url)
            options["database"]["pool_size"] = CONNECTIONS
            sdk = await stack.enter_async_context(
                MultiTenantSDK.open(**options, models=[Product], schema="create")
            )
            for number in range(TENANTS):
                await sdk.tenants.create(_tenant(number))
            texts = await _fill(admin_url)
            for statement in filter(str.strip, _PEER_TABLES.split(";")):
                server.execute(statement, "bench")
            peer_url = server.url("bench", user="peer", password="peer")
            raw = await stack.enter_async_context(_raw(peer_url, texts))
            ours = _tenantry(sdk, texts)
            await _check_that_they_agree(ours, raw)
            contenders = [
                Contender("raw_16", raw, CONNECTIONS),
                Contender("tenantry_16", ours, CONNECTIONS),
            ]
            rates = await compare(contenders, effort, console)
    return judge("search", rates, RATIOS, console)


async def _check_that_they_agree(ours: Operation, raw: Operation) -> None:
    found = 0
    for number in range(TENANTS * 4):
        page: Any = await ours(number, number)
        rows: Any = await raw(number, number)
        assert [hit.row["id"] for hit in page] == [row["id"] for row in rows[:LIMIT]]
        found += len(rows)
    assert found > TENANTS * LIMIT


def _tenant(task: int) -> str:
    return f"tenant-{task % TENANTS}"


async def _fill(admin_url: str) -> list[str]:
    """Write the rows and their words, as the superuser and without triggers. Return what is searched for."""
    chance = random.Random(1)
    vocabulary = list(itertools.islice(_words(chance), VOCABULARY))
    # As in any language, the word at place n comes up one n-th as often as the first.
    weights = list(itertools.accumulate(1 / place for place in range(1, VOCABULARY + 1)))
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute("ALTER TABLE products DISABLE TRIGGER ALL")
        await connection.execute("ALTER TABLE products_search DISABLE TRIGGER ALL")
        now = await connection.fetchval("SELECT now()")
        rows, words = [], []
        for number in range(ROWS):
            text = chance.choices(vocabulary, cum_weights=weights, k=7)
            name, description = " ".join(text[:3]), " ".join(text[3:])
            key = (_tenant(number), uuid7())
            rows.append((*key, name, description, 1, now, now))
            words += [(*key, word, *counted) for word, counted in ranks([name, description]).items()]
        words.sort(key=lambda word: (word[0], word[2]))
        await connection.copy_records_to_table(
            "products",
            records=rows,
            columns=["tenant_id", "id", "name", "description", "version", "created_at", "updated_at"],
        )
        await connection.copy_records_to_table(
            "products_search",
            records=words,
            columns=["tenant_id", "id", "term", "rank_name", "rank_description"],
        )
        await connection.execute("ALTER TABLE products_search ENABLE TRIGGER ALL")
    finally:
        await connection.close()
    common = vocabulary[20:400]
    return [_text(chance.sample(common, k=1 + number % 2), chance) for number in range(QUERIES)]


def _words(chance: random.Random) -> Iterator[str]:
    """Yield words that are all different and can be said."""
    seen = set()
    while True:
        syllables = chance.randint(2, 4)
        word = "".join(chance.choice("bdfgklmnprstv") + chance.choice("aeiou") for _ in range(syllables))
        if word not in seen:
            seen.add(word)
            yield word


def _text(words: list[str], chance: random.Random) -> str:
    text = " ".join(words)
    return text[:-1] if chance.random() < 0.3 else f"{text} "  # a third of the last words are not yet whole


def _tenantry(sdk: MultiTenantSDK, texts: list[str]) -> Operation:
    handles = [sdk.tenant(_tenant(number)) for number in range(TENANTS)]

    async def search(task: int, number: int) -> object:
        page = await handles[task % TENANTS].data.search(
            "products", texts[(task + number) % QUERIES], limit=LIMIT
        )
        assert len(page) <= LIMIT
        return page

    return search


@asynccontextmanager
async def _raw(url: str, texts: list[str]) -> AsyncIterator[Operation]:
    steps = [[_step(text, _tenant(number)) for text in texts] for number in range(TENANTS)]
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:

        async def search(task: int, number: int) -> object:
            sql, args = steps[task % TENANTS][(task + number) % QUERIES]
            async with pool.acquire() as connection:
                rows = [dict(row) for row in await connection.fetch(sql, *args)]
            assert len(rows) <= LIMIT + 1
            return rows

        yield search


def _step(text: str, tenant: str) -> tuple[str, Any]:
    """Return the statement that tenantry runs, on the peer's tables."""
    products = collection_of(Product)
    search = Search(products, searchable_fields(products), **parse_text(text), limit=LIMIT + 1)
    step: Step = _COMPILER.search(TenantContext(tenant_id(tenant)), search)
    sql = step.statement.text.replace("FROM products", "FROM raw_products")
    return sql.replace("products.", "raw_products."), step.args


_COMPILER = Compiler(PostgresDialect(), [collection_of(Product)])
