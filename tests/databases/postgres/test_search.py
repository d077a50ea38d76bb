"""The words on PostgreSQL: cut as in Python, kept whoever writes, entered by the tenant, and closed to others."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import AsyncIterator
from typing import Annotated, Any

import asyncpg
import pytest
import pytest_asyncio

from tenantry import Model, MultiTenantSDK, Searchable, TenantHandle
from tenantry.databases.postgres.adapter import PostgresAdapter
from tenantry.errors import TenantryError
from tenantry.schema import collection_of
from tenantry.searching import Search, parse_text, searchable_fields
from tenantry.words import ranks, words
from tests.databases.postgres.deployment import deploy

MODULE = pytest.mark.asyncio(loop_scope="module")
pytestmark = MODULE


class Product(Model):
    __collection__ = "products"

    name: Annotated[str, Searchable(weight=3)]
    body: Annotated[str | None, Searchable] = None


PRODUCTS = collection_of(Product)


class Shop:
    """Two tenants on one database, and the superuser, who sees everything."""

    def __init__(self, sdk: MultiTenantSDK, judge: asyncpg.Connection[Any]) -> None:
        self.sdk = sdk
        self.judge = judge
        self.acme = sdk.tenant("acme")
        self.globex = sdk.tenant("globex")

    @property
    def adapter(self) -> PostgresAdapter:
        assert isinstance(self.sdk._database, PostgresAdapter)
        return self.sdk._database


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(postgres_server: Any) -> AsyncIterator[Shop]:
    url = postgres_server.create_database("words")
    options = await deploy(url)
    async with MultiTenantSDK.open(**options, models=[Product], schema="create", env={}) as sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
        judge = await asyncpg.connect(url)
        yield Shop(sdk, judge)
        await judge.close()


async def _names(tenant: TenantHandle, text: str) -> set[str]:
    return {hit.row.name for hit in await tenant.data.search(Product, text)}


async def test_every_character_is_folded_as_in_python(shop: Shop) -> None:
    known = [
        chr(code)
        for code in range(1, sys.maxunicode + 1)
        if unicodedata.category(chr(code)) not in ("Cn", "Cs")
    ]
    texts = [f"a{character}b{character}" for character in known if not "\ue000" <= character <= "\uf8ff"][
        :150_000
    ]
    rows = await shop.judge.fetch(
        "SELECT array_to_json(tenantry.words(t)) AS words FROM unnest($1::text[]) WITH ORDINALITY x(t, n) ORDER BY n",
        texts,
    )
    wrong = [text for text, row in zip(texts, rows, strict=True) if json.loads(row["words"]) != words(text)]
    assert wrong == []


async def test_words_count_as_in_python(shop: Shop) -> None:
    texts = ["one two two, three", None, "x " * 2_500, "Éé " * 40 + "tail", ""]
    rows = await shop.judge.fetch("SELECT place, term, rank FROM tenantry.ranks($1)", texts)
    expected = {
        (place, word, counted[place - 1])
        for word, counted in ranks(texts).items()
        for place in range(1, 6)
        if counted[place - 1]
    }
    assert {tuple(row) for row in rows} == expected


async def test_rows_of_a_users_own_sql_are_found(shop: Shop) -> None:
    await shop.acme.data.sql(
        "INSERT INTO products (id, name, body) VALUES (gen_random_uuid(), 'Rawly made', 'unusual')"
    )
    assert await _names(shop.acme, "unusual") == {"Rawly made"}
    assert await _names(shop.globex, "unusual") == set()
    await shop.acme.data.sql("UPDATE products SET body = 'changed' WHERE name = 'Rawly made'")
    assert (await _names(shop.acme, "unusual"), await _names(shop.acme, "changed")) == (set(), {"Rawly made"})
    await shop.acme.data.sql("DELETE FROM products WHERE name = 'Rawly made'")
    assert await shop.judge.fetchval("SELECT count(*) FROM products_search WHERE term = 'changed'") == 0


async def test_a_search_enters_the_index_by_tenant_and_word(shop: Shop) -> None:
    await shop.globex.data.bulk_create([Product(name=f"common {number}") for number in range(300)])
    await shop.acme.data.bulk_create([Product(name=f"common {number}") for number in range(300)])
    await shop.judge.execute("ANALYZE")
    for text in ("common ", "comm", "17 "):
        search = Search(PRODUCTS, searchable_fields(PRODUCTS), **parse_text(text), limit=21)
        step = shop.adapter._compiler.search(shop.acme.context, search)
        async with shop.adapter._app.transaction("acme") as connection:
            await connection.execute(
                "SET LOCAL enable_seqscan = off"
            )  # the table is small, and the index shall do
            plan = json.loads(
                await connection.fetchval(
                    f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {step.statement.text}", *step.args
                )
            )
        scans = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "products_search"]
        assert scans
        for scan in scans:
            assert "tenant_id" in str(scan.get("Index Cond", scan.get("Recheck Cond"))), scan
            assert scan["Actual Rows"] * scan["Actual Loops"] <= 300, scan


async def test_the_words_of_others_are_closed(shop: Shop) -> None:
    mine = await shop.acme.data.create(Product(name="mine"))
    await shop.globex.data.create(Product(name="secretword"))
    before = await shop.judge.fetch(
        "SELECT * FROM products_search WHERE tenant_id = 'globex' ORDER BY term, id"
    )
    for text in (
        "SELECT * FROM products_search WHERE tenant_id = 'globex'",
        "SELECT * FROM products_search WHERE term = 'secretword'",
        "SELECT count(*) FROM products_search GROUP BY term HAVING term = 'secretword'",
        "UPDATE products_search SET term = 'owned' WHERE tenant_id = 'globex' RETURNING *",
        "UPDATE products_search SET tenant_id = 'globex' WHERE term = 'mine'",
        "DELETE FROM products_search WHERE tenant_id = 'globex' RETURNING *",
        f"INSERT INTO products_search (tenant_id, id, term) VALUES ('globex', '{mine.id}', 'planted')",
        "INSERT INTO products_search (tenant_id, id, term) SELECT 'acme', id, 'x' FROM products_search p "
        "WHERE p.tenant_id <> 'acme' RETURNING *",
        "SELECT tenantry.index_row()",
        "SELECT * FROM tenantry.ranks((SELECT array_agg(name) FROM products WHERE tenant_id = 'globex')) r "
        "WHERE r.term IS NOT NULL",
    ):
        try:
            seen: object = await shop.acme.data.sql(text)
        except TenantryError as error:
            seen = error
        assert isinstance(seen, TenantryError) or seen == [], text
        assert "secretword" not in str(seen).replace(text, ""), text
    after = await shop.judge.fetch(
        "SELECT * FROM products_search WHERE tenant_id = 'globex' ORDER BY term, id"
    )
    assert after == before
    async with shop.adapter._app.statement(None) as connection:
        assert await connection.fetch("SELECT * FROM products_search") == []


async def test_huge_texts_are_bounded(shop: Shop) -> None:
    row = await shop.acme.data.create(
        Product(name="x" * 100_000, body=" ".join(f"w{n}" for n in range(20_000)))
    )
    assert await shop.judge.fetchval("SELECT count(*) FROM products_search WHERE id = $1", row.id) == 2_001
    assert await _names(shop.acme, "w1999 ") == {row.name}
    assert await _names(shop.acme, "w2000 ") == set()


async def test_a_purge_leaves_no_word(shop: Shop) -> None:
    await shop.sdk.tenants.create("gone")
    await shop.sdk.tenant("gone").data.create(Product(name="remembered"))
    await shop.sdk.tenants.delete("gone", reason="test")
    await shop.sdk.tenants.purge("gone")
    assert await shop.judge.fetchval("SELECT count(*) FROM products_search WHERE tenant_id = 'gone'") == 0


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]
