"""N+1 is found where it is, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tenantry import MultiTenantSDK, TenantHandle
from tenantry.insights import Finding
from tenantry.insights.repeats import TIMES
from tests.insights.shop import MODELS, Article, Author


@pytest.fixture
async def sdk() -> AsyncIterator[MultiTenantSDK]:
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme", request_id="setup").data
        authors = (await data.bulk_create([Author(name=f"a{number}") for number in range(3)])).rows
        await data.bulk_create(
            [Article(slug=f"s{number}", author_id=authors[number % 3].id) for number in range(TIMES + 2)]
        )
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme")


async def found(sdk: MultiTenantSDK, code: str = "n-plus-one") -> list[Finding]:
    return [finding for finding in (await sdk.insights.report()).findings if finding.code == code]


async def by_key(acme: TenantHandle, times: int) -> None:
    page = await acme.data.read(Article, limit=times)
    for article in page:
        assert article.author_id is not None
        await acme.data.get(Author, article.author_id)


async def test_a_row_at_a_time_is_found_and_include_is_advised(
    sdk: MultiTenantSDK, acme: TenantHandle
) -> None:
    await by_key(acme, TIMES)
    (finding,) = await found(sdk)
    assert (finding.severity, finding.subject, finding.shapes) == ("warning", "authors", ("get authors",))
    assert f"'articles' and then asked this {TIMES} times" in finding.message
    assert 'include=["author"]' in finding.fix


async def test_a_query_for_each_row_is_found_and_in_is_advised(
    sdk: MultiTenantSDK, acme: TenantHandle
) -> None:
    for _ in range(4):
        await acme.data.create(Author(name="more"))
    authors = await acme.data.read(Author, limit=7)
    for author in list(authors) * 2:
        await acme.data.read(Article, {"author_id": author.id})
    (finding,) = await found(sdk)
    assert finding.subject == "articles"
    assert '{"author_id": {"in": [...]}}' in finding.fix
    assert "14 times" in finding.message


async def test_what_the_coalescer_sends_together_was_asked_one_by_one(sdk: MultiTenantSDK) -> None:
    acme = sdk.tenant("acme", request_id="r1")
    page = await acme.data.read(Article, limit=TIMES)
    await asyncio.gather(*(acme.data.get(Author, article.author_id) for article in page))
    assert len(await found(sdk)) == 1


async def test_fewer_are_not_found(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    await by_key(acme, TIMES - 1)
    assert await found(sdk) == []


async def test_an_include_is_not_found(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    for _ in range(TIMES + 2):
        assert (await acme.data.read(Article, include=["author"])).included["author"]
    assert await found(sdk) == []


async def test_gets_without_a_read_before_are_not_found(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    one = (await acme.data.read(Author, limit=1))[0]
    for _ in range(TIMES + 2):
        await acme.data.get(Author, one.id)
    assert await found(sdk) == []


async def test_requests_are_not_mixed_up(sdk: MultiTenantSDK) -> None:
    """Each of them reads a list and one row: of many requests one after the other, in one task or in many."""

    async def request(number: int) -> None:
        acme = sdk.tenant("acme", request_id=f"r{number}")
        page = await acme.data.read(Article)
        await acme.data.get(Author, page[0].author_id)

    for number in range(TIMES + 2):
        await request(number)
    await asyncio.gather(*(request(100 + number) for number in range(TIMES + 2)))
    assert await found(sdk) == []


async def test_tasks_are_not_mixed_up(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    """A task that is over leaves its number to the next one."""
    author = (await acme.data.read(Author, limit=1))[0]

    async def read() -> None:
        await acme.data.read(Article)

    async def get() -> None:
        await acme.data.get(Author, author.id)

    await asyncio.create_task(read())
    for _ in range(3 * TIMES):
        await asyncio.create_task(get())
    assert await found(sdk) == []


async def test_two_tenants_with_one_request_id_are_two_requests(sdk: MultiTenantSDK) -> None:
    await sdk.tenants.create("globex")
    acme, globex = (sdk.tenant(name, request_id="r1") for name in ("acme", "globex"))
    mine = await globex.data.create(Author(name="x"))
    await acme.data.read(Article)
    for _ in range(TIMES + 2):
        await globex.data.get(Author, mine.id)
    assert await found(sdk) == []


async def test_a_long_time_after_the_read_nothing_is_counted(
    sdk: MultiTenantSDK, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.insights.repeats.WINDOW", -1.0)
    await by_key(acme, TIMES + 2)
    assert await found(sdk) == []


async def test_page_after_page_is_found(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    cursor = None
    for _ in range(TIMES + 1):
        cursor = (await acme.data.read(Article, limit=1, cursor=cursor)).next_cursor
    assert await found(sdk, "page-loop") == []  # a row at a time is no page of many
    for _ in range(3):
        await acme.data.bulk_create([Article(slug=f"p{_}{number}") for number in range(10)])
    page = await acme.data.read(Article, limit=2)
    while page.next_cursor:
        page = await acme.data.read(Article, limit=2, cursor=page.next_cursor)
    (finding,) = await found(sdk, "page-loop")
    assert "One request" in finding.message
    assert await found(sdk) == []
