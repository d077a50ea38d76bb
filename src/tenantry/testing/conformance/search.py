"""A search finds the same rows, in the same order and with the same score, on every database."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tenantry.context import Context
from tenantry.errors import InvalidQuery, TenantDeleted, Unsupported
from tenantry.filters import parse_where
from tenantry.schema import Collection, collection_of
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.searching import SCALE, Search, parse_search_fields, parse_text
from tenantry.testing.conformance.setting import Setting, chance
from tenantry.testing.models import Article, Country
from tenantry.words import ranks

ARTICLES: Collection = collection_of(Article)

# Each title is the name by which a test expects the row, in its last word.
ROWS: list[tuple[str, str | None]] = [
    ("Laptop one", "A gaming laptop, light and fast."),
    ("Bag two", "For a laptop with a Café sticker, pro quality"),
    ("Laptop PRO three", None),
    ("ΣΊΣΥΦΟΣ İstanbul straße four", "naïve résumé über ﬁnal Ⅷ ²"),
    ("e-mail_address five", "O'Brien's x<b>y</b> 50% off; C++ & C# \\ 'quoted' \"double\""),
    ("Ångström ｆｕｌｌｗｉｄｔｈ six", "日本語 テスト 한국어 עִבְרִית हिन्दी"),
    ("Laptops seven", "laptop laptop laptop laptop and more laptop"),
    ("", ""),
]

# A text -> the last words of the titles of the rows that it finds, the best first where that is certain.
FOUND: list[tuple[str, str]] = [
    ("laptop ", "one seven three two"),
    ("LAPTOP", "one seven three two"),
    ("laptop pro", "three two"),
    ("lap", "one seven three two"),
    ("la ", ""),
    ("la", ""),
    ("la*", "one seven three two"),
    ('"laptop"', "one seven three two"),
    ('"gaming laptop"', "one"),
    ('"laptop gaming"', ""),
    ('"laptop with a cafe"', "two"),
    ("laptop -bag", "one seven three"),
    ("laptop -lap*", ""),
    ('laptop -"gaming laptop"', "seven three two"),
    ("cafe sticker", "two"),
    ("σισυφος", "four"),
    ("ISTANBUL STRASSE", ""),
    ("istanbul STRAßE", "four"),
    ("naive resume uber final viii 2", "four"),
    ("e-mail", "five"),
    ("address_E", "five"),
    ("o'brien", "five"),
    ("c++", "five"),
    ("angstrom fullwidth", "six"),
    ("日本語", "six"),
    ("한국", "six"),
    ("' OR 1=1 --", ""),
    ("nothing", ""),
]
STRANGE = (
    *(
        '"',
        '""',
        "-",
        "--",
        "*",
        "-*",
        '-"',
        "\0",
        "\ud800",
        "😀",
        "%",
        "_",
        "'",
        "\\",
        "a" * 1_000,
        "- a",
        '"a',
    ),
    *(
        "a:*",
        "a|b",
        "!a",
        "(a",
        "a <-> b",
        "NEAR(a b)",
        "a AND",
        "name:a",
        "^a",
        "{x}: a",
        "\u0301",
        "a b c d e f g h",
    ),
)


class Searches(Setting):
    """What a search finds, and what it never shows."""

    async def test_each_text_finds_its_rows(self, acme: TenantHandle) -> None:
        await _fill(acme)
        for text, expected in FOUND:
            page = await acme.data.search(Article, text)
            assert {_name(hit.row.title) for hit in page} == set(expected.split()), text

    async def test_rows_scores_and_order_are_those_of_the_model(self, acme: TenantHandle) -> None:
        await _fill(acme)
        rows = list(await acme.data.read("articles"))
        random = chance("search")
        words = sorted({word for row in rows for word in ranks([row["title"], row["body"]])})
        for number in range(60):
            fields = (None, ["title"], ["body"])[number % 3]
            text = " ".join(_spoiled(word, random) for word in random.choices(words, k=random.randint(1, 2)))
            search = _search(text, fields, typos=number % 2 == 1)
            known = {word for row in rows for word in ranks([row["title"], row["body"]])}
            scored = [(search.widened(known).score(row), row["id"]) for row in rows]
            wanted = sorted((-score, id) for score, id in scored if score)
            page = await acme.data.search("articles", text, fields=fields, typos=number % 2 == 1)
            found = [(-round(hit.score * SCALE), hit.row["id"]) for hit in page]
            assert found == wanted, (text, fields)

    async def test_pages_follow_each_other(self, acme: TenantHandle) -> None:
        made = (
            await acme.data.bulk_create([Article(title="same words") for _ in range(7)], atomic=True)
        ).rows
        made += [await acme.data.create(Article(title="same words, and others"))]
        whole = [hit.row.id for hit in await acme.data.search(Article, "same")]
        assert sorted(whole[:7]) == whole[:7]
        assert set(whole) == {row.id for row in made}
        paged, cursor = [], None
        while True:
            page = await acme.data.search(Article, "same", limit=3, cursor=cursor)
            paged += [hit.row.id for hit in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert paged == whole
        one = await acme.data.read(Article, limit=1)
        with pytest.raises(InvalidQuery):
            await acme.data.search(Article, "same", cursor=one.next_cursor)

    async def test_the_filter_applies_too(self, acme: TenantHandle) -> None:
        await _fill(acme)
        page = await acme.data.search(Article, "laptop", where={"body": {"is_null": True}})
        assert [hit.row.title for hit in page] == ["Laptop PRO three"]
        page = await acme.data.search(Article, "laptop", where=lambda row: row.title.startswith("Bag"))
        assert [hit.row.title for hit in page] == ["Bag two"]
        fields = await acme.data.search(Article, "pro", fields=["body"])
        assert [hit.row.title for hit in fields] == ["Bag two"]

    async def test_a_heavier_field_and_an_exact_word_come_first(self, acme: TenantHandle) -> None:
        await acme.data.bulk_create(
            [Article(title="other", body="laptop"), Article(title="laptop"), Article(title="laptops")]
        )
        page = await acme.data.search(Article, "laptop")
        assert [hit.row.title for hit in page] == ["laptop", "laptops", "other"]
        assert [hit.score for hit in page] == [3.0, 2.1, 1.0]

    async def test_words_follow_every_write(self, acme: TenantHandle) -> None:
        row = await acme.data.create(Article(title="first", body="kept"))
        assert await _titles(acme, "first") == ["first"]
        row = await acme.data.update(row, title="second")
        assert await _titles(acme, "first") == []
        assert await _titles(acme, "second kept") == ["second"]
        row = await acme.data.update(row, body=None)
        assert await _titles(acme, "kept") == []
        row = await acme.data.upsert(Article(id=row.id, title="third"), on=["id"])
        assert (await _titles(acme, "third"), await _titles(acme, "second")) == (["third"], [])
        await acme.data.delete(row)
        assert await _titles(acme, "third") == []
        made = await acme.data.bulk_create("articles", [{"title": f"many {n}"} for n in range(3)])
        one, other, third = made.rows
        await acme.data.bulk_update(
            "articles", [(one["id"], {"title": "fewer"}), (other["id"], {"body": "many"})]
        )
        await acme.data.bulk_upsert("articles", [{**third, "title": "fewer"}, {"title": "fewer, and new"}])
        assert await _titles(acme, "many ") == ["many 1"]
        assert sorted(await _titles(acme, "fewer ")) == ["fewer", "fewer", "fewer, and new"]
        await acme.data.bulk_delete("articles", [one["id"], third["id"]])
        assert await _titles(acme, "fewer ") == ["fewer, and new"]

    async def test_a_transaction_finds_its_own_rows_and_leaves_none_behind(self, acme: TenantHandle) -> None:
        async def pass_by() -> None:
            async with acme.data.transaction() as unit:
                await unit.create(Article(title="passing"))
                assert len(await unit.search(Article, "passing")) == 1
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await pass_by()
        assert await _titles(acme, "passing") == []

    async def test_a_mistyped_word_finds_similar_ones(self, acme: TenantHandle) -> None:
        await _fill(acme)
        assert await _titles(acme, "laptp ") == []
        for text in ("laptp ", "lapotp", "laptpo ", "lapptop"):
            names = {_name(title) for title in await _titles(acme, text, typos=True)}
            assert names >= {"one", "two", "three"}, text
        assert await _titles(acme, "kaptop", typos=True) == []  # the first letter is as it is
        assert await _titles(acme, '"laptp"', typos=True) == []  # and so is what stands in quotes

    async def test_nothing_of_another_tenant_shows(self, acme: TenantHandle, globex: TenantHandle) -> None:
        await _fill(acme)
        before = [
            (hit.score, hit.row.id) for hit in await acme.data.search(Article, "laptop pro", typos=True)
        ]
        await globex.data.bulk_create([Article(title="laptop pro secret") for _ in range(20)])
        await globex.data.create(Article(title="lapton"))
        after = [(hit.score, hit.row.id) for hit in await acme.data.search(Article, "laptop pro", typos=True)]
        assert after == before
        assert await _titles(acme, "secret") == []
        assert await _titles(acme, "secrte", typos=True) == []
        # Words enough to crowd out acme's, if they were looked at.
        crowd = " ".join(f"lap{letter}tp la{letter}ptp" for letter in "abcdefghijklmno")
        await globex.data.create(Article(title=crowd))
        assert len(await _titles(acme, "laptp ", typos=True)) == 4
        assert await _titles(acme, "lapton") == []
        same = (await acme.data.create(Article(title="mine"))).id
        await globex.data.create(Article(id=same, title="theirs"))
        assert await _titles(acme, "theirs") == []
        assert await _titles(globex, "theirs") == ["theirs"]

    async def test_another_tenants_cursor_is_refused(self, acme: TenantHandle, globex: TenantHandle) -> None:
        for tenant in (acme, globex):
            await tenant.data.bulk_create([Article(title="word") for _ in range(2)])
        page = await globex.data.search(Article, "word", limit=1)
        with pytest.raises(InvalidQuery, match="cursor"):
            await acme.data.search(Article, "word", limit=1, cursor=page.next_cursor)

    async def test_a_purge_leaves_no_word(self, sdk: MultiTenantSDK) -> None:
        tenant = await self.new_tenant(sdk, "gone")
        await _fill(tenant)
        await sdk.tenants.delete(tenant.context.tenant_id, reason="test")
        certificate = await sdk.tenants.purge(tenant.context.tenant_id)
        assert set(certificate.remaining.values()) == {0}
        executor = sdk._database
        assert executor is not None
        context: Context = tenant.context
        with contextlib.suppress(TenantDeleted):  # some databases refuse to look
            assert await executor.search(context, _search("laptop", None)) == []

    async def test_no_text_is_an_error_of_the_database(self, acme: TenantHandle) -> None:
        await _fill(acme)
        for text in STRANGE:
            for typos in (False, True):
                with contextlib.suppress(InvalidQuery):
                    await acme.data.search(Article, text, typos=typos, highlight=True)

    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            ({"text": ""}, "text"),
            ({"text": "-out"}, "text"),
            ({"text": "a" * 1_001}, "text"),
            ({"text": "a b c d e f g h i j k l m n o p q"}, "text"),
            ({"text": 7}, "text"),
            ({"text": "a", "fields": ["id"]}, "fields[0]"),
            ({"text": "a", "fields": ["titel"]}, "fields[0]"),
            ({"text": "a", "fields": []}, "fields"),
            ({"text": "a", "fields": "title"}, "fields"),
            ({"text": "a", "limit": 0}, "limit"),
            ({"text": "a", "where": {"nope": 1}}, "where.nope"),
            ({"text": "a", "highlight": "<b>"}, "highlight"),
            ({"text": "a", "cursor": "x"}, "cursor"),
        ],
    )
    async def test_what_is_wrong_is_named(
        self, acme: TenantHandle, arguments: dict[str, Any], path: str
    ) -> None:
        with pytest.raises(InvalidQuery) as raised:
            await acme.data.search("articles", **arguments)
        assert raised.value.path == path

    async def test_a_collection_without_searchable_fields_says_how_to_get_one(
        self, acme: TenantHandle
    ) -> None:
        with pytest.raises(InvalidQuery, match="Searchable"):
            await acme.data.search("books", "word")

    async def test_reference_data_is_searched_by_every_tenant(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        async with sdk.system(reason="reference data") as system:
            await system.data.upsert(Country(id="ch", name="Schweiz"), on=["id"])
            with pytest.raises(Unsupported):
                await system.data.search("articles", "word")
        for tenant in (acme, globex):
            assert [hit.row.id for hit in await tenant.data.search(Country, "schweiz")] == ["ch"]


async def _fill(tenant: TenantHandle) -> None:
    await tenant.data.bulk_create([Article(title=title, body=body) for title, body in ROWS])


async def _titles(tenant: TenantHandle, text: str, **options: Any) -> list[str]:
    return [hit.row.title for hit in await tenant.data.search(Article, text, **options)]


def _name(title: str) -> str:
    return title.rpartition(" ")[2]


def _search(text: str, fields: list[str] | None, *, typos: bool = False) -> Search:
    wanted = parse_search_fields(ARTICLES, fields)
    return Search(ARTICLES, wanted, **parse_text(text), filter=parse_where(ARTICLES, None), typos=typos)


def _spoiled(word: str, random: Any) -> str:
    """Return a word as somebody may type it: whole, its beginning, or with a letter missing."""
    choice = random.randrange(4)
    if choice == 0 and len(word) > 2:
        return f"{word[: len(word) // 2 + 1]}*"
    if choice == 1 and len(word) > 4:
        place = random.randrange(1, len(word))
        return word[:place] + word[place + 1 :]
    return word.upper()
