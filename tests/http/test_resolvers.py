"""API keys, gateways, and several credentials at once."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import ConfigurationError, Unavailable
from tenantry.http import (
    APIKeyResolver,
    GatewayResolver,
    Identity,
    Refusal,
    RequestView,
    StoredKey,
    any_of,
    new_key,
)
from tenantry.http.api_keys import digest_of
from tenantry.http.identity import identified, identified_sync
from tenantry.http.request import Headers

ANNA = Identity("acme", user="anna")
KEY = new_key("shop")
STORED = {KEY.id: StoredKey(KEY.digest, ANNA)}


def request(*headers: tuple[str, str], client: str | None = "203.0.113.9") -> RequestView:
    return RequestView("GET", "https", "/", headers=Headers(headers), client=client)


def with_key(text: str) -> RequestView:
    return request(("X-API-Key", text))


async def look_up(id: str) -> StoredKey | None:
    return STORED.get(id)


def look_up_sync(id: str) -> StoredKey | None:
    return STORED.get(id)


# -- API keys


async def test_a_key_is_its_holders_identity() -> None:
    assert await APIKeyResolver(look_up).identify(with_key(KEY.text)) is ANNA
    assert await APIKeyResolver(look_up_sync).identify(with_key(KEY.text)) is ANNA
    assert APIKeyResolver(look_up_sync).identify_sync(with_key(KEY.text)) is ANNA
    assert await APIKeyResolver(look_up).identify(request()) is None


def test_a_key_says_whose_it_is_and_shows_itself_once() -> None:
    assert KEY.text.startswith(f"{KEY.id}.")
    assert KEY.id.startswith("shop_")
    assert KEY.digest == digest_of(KEY.text)
    assert KEY.text.partition(".")[2] not in repr(KEY)
    assert new_key().text != new_key().text


@pytest.mark.parametrize("prefix", ["", "a_b", "a.b", "x" * 17, "1a", "é"])
def test_a_prefix_is_letters_and_digits(prefix: str) -> None:
    with pytest.raises(ConfigurationError):
        new_key(prefix)


OTHER = new_key("shop")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        KEY.id,
        f"{KEY.id}.",
        f"{KEY.id}.{OTHER.text.partition('.')[2]}",
        f"{OTHER.id}.{KEY.text.partition('.')[2]}",
        KEY.text + "A",
        KEY.text[:-1],
        f" {KEY.text}",
        f"{KEY.text}\n",
        f"{KEY.text},{KEY.text}",
        KEY.text.upper(),
        "x" * 100_000,
        f"../{KEY.text}",
    ],
    ids=range(14),  # the texts differ between processes
)
async def test_what_is_not_the_key_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        await APIKeyResolver(look_up).identify(with_key(text))
    assert (refused.value.status, refused.value.code) == (401, "invalid-api-key")
    assert refused.value.message == "The API key is not accepted."


async def test_a_key_that_nobody_has_is_compared_like_one_that_somebody_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def watched(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for id in (KEY.id, OTHER.id):
        with pytest.raises(Refusal):
            await APIKeyResolver(look_up).identify(with_key(f"{id}.{secrets.token_urlsafe(32)}"))
    assert [len(right) for _, right in compared] == [32, 32]


async def test_two_keys_are_refused() -> None:
    both = request(("X-API-Key", KEY.text), ("x-api-key", OTHER.text))
    with pytest.raises(Refusal) as refused:
        await APIKeyResolver(look_up).identify(both)
    assert refused.value.status == 400


async def test_a_store_that_is_away_is_no_wrong_key() -> None:
    async def away(id: str) -> StoredKey | None:
        raise Unavailable("The keys cannot be read.")

    with pytest.raises(Unavailable):
        await APIKeyResolver(away).identify(with_key(KEY.text))


def test_an_asynchronous_store_needs_an_event_loop() -> None:
    with pytest.raises(ConfigurationError) as refused:
        APIKeyResolver(look_up).identify_sync(with_key(KEY.text))
    assert refused.value.field == "look_up"


def test_what_is_kept_is_a_digest() -> None:
    with pytest.raises(ConfigurationError):
        StoredKey(KEY.digest.hex().encode(), ANNA)


@given(st.text())
def test_no_other_text_is_a_key(text: str) -> None:
    if text == KEY.text:
        return
    with pytest.raises(Refusal):
        APIKeyResolver(look_up_sync).identify_sync(with_key(text))


# -- gateways

GATEWAY = GatewayResolver(proxies=["10.0.3.0/24"])
INSIDE = "10.0.3.9"


async def test_a_gateway_tells_who_asks() -> None:
    told = request(("X-Tenant-ID", "acme"), ("X-User-ID", "anna"), client=INSIDE)
    assert await GATEWAY.identify(told) == ANNA
    assert GATEWAY.identify_sync(told) == ANNA
    assert GATEWAY.identify_sync(request(client=INSIDE)) is None


@pytest.mark.parametrize(
    "client", [None, "", "203.0.113.9", "10.0.4.1", "127.0.0.1", "10.0.3.9.evil", "testclient"]
)
def test_a_header_of_anybody_else_is_no_identity(client: str | None) -> None:
    forged = request(
        ("X-Tenant-ID", "acme"), ("X-User-ID", "anna"), ("X-Forwarded-For", INSIDE), client=client
    )
    assert GATEWAY.identify_sync(forged) is None


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Tenant-ID", "acme"), ("x-tenant-id", "globex")],
        [("X-Tenant-ID", "acme"), ("X-Tenant-ID", "acme")],
        [("X-Tenant-ID", "acme,globex")],
        [("X-Tenant-ID", "acme"), ("X-User-ID", "anna"), ("X-User-ID", "root")],
        [("X-Tenant-ID", "acme"), ("X-User-ID", "anna,root")],
    ],
)
def test_a_header_that_was_slipped_in_beside_the_gateways_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Refusal) as refused:
        GATEWAY.identify_sync(request(*headers, client=INSIDE))
    assert refused.value.status == 400


@pytest.mark.parametrize("proxies", [[], ["0.0.0.0/0"], ["::/0"]])
def test_a_gateway_has_addresses_of_its_own(proxies: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        GatewayResolver(proxies=proxies)


# -- several


async def test_one_of_several_credentials_is_enough_and_two_are_too_many() -> None:
    either = any_of(APIKeyResolver(look_up_sync), GATEWAY)
    key, told = ("X-API-Key", KEY.text), ("X-Tenant-ID", "globex")
    for resolved in (
        await identified(either, with_key(KEY.text)),
        identified_sync(either, with_key(KEY.text)),
    ):
        assert resolved is ANNA
    assert await either.identify(request(told, client=INSIDE)) == Identity("globex")
    assert await either.identify(request(told)) is None
    with pytest.raises(Refusal) as refused:
        await either.identify(request(key, told, client=INSIDE))
    assert (refused.value.status, refused.value.code) == (400, "two-credentials")


async def test_a_wrong_credential_is_not_made_good_by_another() -> None:
    either = any_of(GATEWAY, APIKeyResolver(look_up))
    with pytest.raises(Refusal) as refused:
        await either.identify(request(("X-API-Key", "wrong"), ("X-Tenant-ID", "acme"), client=INSIDE))
    assert refused.value.status == 401


async def test_functions_are_resolvers_too() -> None:
    async def later(request: RequestView) -> Identity | None:
        return ANNA

    def awaiting(request: RequestView) -> Awaitable[Identity | None]:
        return later(request)

    resolvers: list[Any] = [later, awaiting, lambda request: ANNA]
    for resolver in resolvers:
        assert await identified(resolver, request()) is ANNA
    assert identified_sync(resolvers[2], request()) is ANNA
    for resolver in resolvers[:2]:
        with pytest.raises(ConfigurationError) as refused:
            identified_sync(resolver, request())
        assert refused.value.field == "identity"
