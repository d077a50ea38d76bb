"""Keys come and go at the provider, and so may the provider: who has a good token notices as little as can be."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from joserfc.jwk import ECKey

from tenantry.errors import ConfigurationError, Unavailable
from tenantry.http import JWKS, JWTResolver, Refusal, StaticKeys
from tests.http.provider import Provider, serving
from tests.http.tokens import EC, RSA, SECRET, bearing, key, public, resolver, token

OLD, NEW, NEWER = EC, key("P-256", "ec-2"), key("P-256", "ec-3")
REFRESH, MAX_AGE, COOLDOWN = 300.0, 3600.0, 10.0
PATIENCE = 60.0  # with a machine that has other things to do


class Clock:
    """A clock that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as provider:
        provider.publish(public(OLD))
        yield provider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jwks(provider: Provider, clock: Clock) -> JWKS:
    times = {"refresh": REFRESH, "max_age": MAX_AGE, "cooldown": COOLDOWN, "timeout": PATIENCE}
    return JWKS(provider.url, clock=clock, **times)


class Caller:
    """Asks with a token, by await or without, so that each test holds for both."""

    def __init__(self, jwks: JWKS, *, sync: bool) -> None:
        self.by: JWTResolver = resolver(jwks)
        self.sync = sync

    async def __call__(self, signer: Any) -> str:
        """Return ``accepted``, or how the token was refused."""
        request = bearing(token(signer))
        try:
            if self.sync:
                await asyncio.to_thread(self.by.identify_sync, request)
            else:
                await self.by.identify(request)
                await self.settle()
        except Refusal as refusal:
            return str(refusal.status)
        except Unavailable:
            return "unavailable"
        return "accepted"

    async def settle(self) -> None:
        """Wait for a fetch that nobody waits for."""
        source = self.by._keys
        if isinstance(source, JWKS) and source._task is not None:
            await source._task


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest, jwks: JWKS) -> Caller:
    return Caller(jwks, sync=request.param == "sync")


# -- rotation


async def test_keys_are_fetched_when_they_are_needed_and_once(ask: Caller, provider: Provider) -> None:
    assert provider.asked == 0
    for _ in range(5):
        assert await ask(OLD) == "accepted"
    assert provider.asked == 1


async def test_a_new_key_is_found_when_its_first_token_comes(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    assert await ask(OLD) == "accepted"
    provider.publish(public(NEW))
    clock.pass_by(COOLDOWN)
    assert await ask(NEW) == "accepted"
    assert await ask(OLD) == "accepted"  # its tokens run out by themselves
    assert provider.asked == 2


async def test_a_retired_key_is_believed_until_its_time_is_over(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    assert await ask(OLD) == "accepted"
    provider.publish(public(NEW))
    clock.pass_by(MAX_AGE - 1)
    assert await ask(OLD) == "accepted"
    clock.pass_by(1)
    assert await ask(OLD) == "401"
    assert await ask(NEW) == "accepted"


async def test_made_up_key_ids_cause_one_fetch_in_a_while(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    assert await ask(OLD) == "accepted"
    for number in range(20):
        assert await ask(key("P-256", f"made-up-{number % 3}")) == "401"
    assert provider.asked == 1
    clock.pass_by(COOLDOWN)
    for number in range(20):
        assert await ask(key("P-256", f"made-up-{number % 3}")) == "401"
    assert provider.asked == 2


async def test_the_document_is_fetched_again_beside_the_requests(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    assert await ask(OLD) == "accepted"
    provider.publish(public(OLD, NEW))
    clock.pass_by(REFRESH)
    assert await ask(OLD) == "accepted"
    assert provider.asked == 2
    provider.fail()
    assert await ask(NEW) == "accepted"
    assert provider.asked == 2


async def test_two_keys_of_one_id_both_hold(ask: Caller, provider: Provider, clock: Clock) -> None:
    assert await ask(OLD) == "accepted"
    twin = ECKey.generate_key("P-256", {"kid": OLD.kid or ""})
    provider.publish(public(twin))
    clock.pass_by(REFRESH)
    assert await ask(OLD) == "accepted"
    assert await ask(twin) == "accepted"
    assert await ask(ECKey.generate_key("P-256", {"kid": OLD.kid or ""})) == "401"


# -- the provider is away


async def test_without_any_document_nobody_is_told_to_be_wrong(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    provider.fail()
    assert await ask(OLD) == "unavailable"
    assert await ask(NEW) == "unavailable"
    assert provider.asked == 1  # the others did not wait for another one
    provider.publish(public(OLD))
    assert await ask(OLD) == "unavailable"
    clock.pass_by(COOLDOWN)
    assert await ask(OLD) == "accepted"


async def test_known_keys_hold_while_the_provider_is_away_and_then_no_longer(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    assert await ask(OLD) == "accepted"
    provider.fail(503)
    while clock.now < 1000 + MAX_AGE - REFRESH:
        clock.pass_by(REFRESH)
        assert await ask(OLD) == "accepted"
        assert await ask(NEW) == "unavailable"
    clock.pass_by(REFRESH)
    assert await ask(OLD) == "unavailable"
    provider.publish(public(OLD))
    assert await ask(OLD) == "unavailable"
    clock.pass_by(COOLDOWN)
    assert await ask(OLD) == "accepted"


async def test_a_provider_that_is_away_is_asked_once_in_a_cooldown(
    ask: Caller, provider: Provider, clock: Clock
) -> None:
    assert await ask(OLD) == "accepted"
    provider.fail()
    clock.pass_by(REFRESH)
    for _ in range(10):
        assert await ask(OLD) == "accepted"
    assert provider.asked == 2


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (404, b"{}", {}),
        (302, b"", {"Location": "https://evil.example/jwks"}),
        (200, b"", {}),
        (200, b"<html>", {}),
        (200, b"[]", {}),
        (200, b"7", {}),
        (200, b'{"keys": {}}', {}),
        (200, b'{"keys": []}', {}),
        (200, b'{"keys": [7, null, "x", {}, {"kty": "RSA"}]}', {}),
        (200, json.dumps(public(key("oct", "hs"))).encode(), {}),
        (200, b"[" * 200_000, {}),
        (200, b" " * 300_000 + json.dumps(public(NEW)).encode(), {}),
        (200, gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}),
        (200, b"\xff\xfe", {}),
    ],
    ids=range(14),
)
async def test_what_is_no_key_set_changes_nothing(
    ask: Caller, provider: Provider, clock: Clock, status: int, body: bytes, headers: dict[str, str]
) -> None:
    assert await ask(OLD) == "accepted"
    provider.fail(status, body, **headers)
    clock.pass_by(REFRESH)
    assert await ask(OLD) == "accepted"
    assert await ask(NEW) == "unavailable"


async def test_a_key_that_cannot_be_read_does_not_hide_the_others(ask: Caller, provider: Provider) -> None:
    strange = {"kty": "AKP", "alg": "ML-DSA-65", "kid": "pq", "pub": "AA"}
    provider.publish({"keys": [strange, {"kty": "RSA"}, *public(OLD)["keys"]], "x": 1})
    assert await ask(OLD) == "accepted"


async def test_a_published_secret_signs_nothing(provider: Provider, clock: Clock) -> None:
    provider.publish(public(key("oct", "hs"), RSA))
    source = JWKS(provider.url, timeout=PATIENCE, clock=clock)
    with pytest.raises(Refusal):
        await resolver(source, algorithms=["HS256"]).identify(bearing(token(key("oct", "hs"))))
    shared = StaticKeys.from_secret(SECRET, kid="hs")
    assert await resolver(shared, algorithms=["HS256"]).identify(bearing(token(key("oct", "hs")))) is not None


# -- many at once


async def test_all_who_wait_share_one_fetch_and_one_who_leaves_takes_nothing_along(
    provider: Provider, jwks: JWKS
) -> None:
    provider.gate.clear()
    by = resolver(jwks)
    waiting = [asyncio.create_task(by.identify(bearing(token(OLD)))) for _ in range(50)]
    await asyncio.to_thread(provider.arrived.acquire)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.sleep(0)
    provider.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(item, asyncio.CancelledError) for item in found[::2])
    assert all(getattr(item, "user", None) == "anna" for item in found[1::2])
    assert provider.asked == 1


async def test_a_failure_reaches_all_who_wait(provider: Provider, jwks: JWKS) -> None:
    provider.fail()
    provider.gate.clear()
    by = resolver(jwks)
    waiting = [asyncio.create_task(by.identify(bearing(token(OLD)))) for _ in range(50)]
    await asyncio.to_thread(provider.arrived.acquire)
    provider.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(item) for item in found} == {Unavailable}
    assert provider.asked == 1


async def test_known_keys_do_not_wait_for_a_fetch(provider: Provider, jwks: JWKS, clock: Clock) -> None:
    by = resolver(jwks)
    assert await by.identify(bearing(token(OLD))) is not None
    provider.gate.clear()
    clock.pass_by(REFRESH)
    for _ in range(10):
        assert await by.identify(bearing(token(OLD))) is not None
    await asyncio.to_thread(provider.arrived.acquire)
    provider.gate.set()
    assert jwks._task is not None
    await jwks._task
    assert provider.asked == 2


def test_threads_share_one_fetch(provider: Provider, jwks: JWKS) -> None:
    by = resolver(jwks)
    together = threading.Barrier(16)

    def one(_: int) -> str | None:
        together.wait(60)
        identity = by.identify_sync(bearing(token(OLD)))
        return None if identity is None else identity.user

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(one, range(16))) == {"anna"}
    assert provider.asked == 1


def test_each_event_loop_has_its_own_fetch(provider: Provider, clock: Clock) -> None:
    jwks = JWKS(provider.url, timeout=PATIENCE, clock=clock)
    by = resolver(jwks)

    async def abandoned() -> None:
        provider.gate.clear()
        task = asyncio.create_task(by.identify(bearing(token(OLD))))
        await asyncio.to_thread(provider.arrived.acquire)
        task.cancel()

    asyncio.run(abandoned())  # the loop ends in the middle of the fetch
    provider.gate.set()
    clock.pass_by(COOLDOWN)
    assert asyncio.run(by.identify(bearing(token(OLD)))) is not None


@pytest.mark.parametrize("sync", [False, True])
async def test_a_provider_that_never_answers_is_given_up(
    provider: Provider, clock: Clock, sync: bool
) -> None:
    provider.gate.clear()
    ask = Caller(JWKS(provider.url, timeout=0.2, clock=clock), sync=sync)
    assert await ask(OLD) == "unavailable"


@pytest.mark.parametrize("sync", [False, True])
async def test_a_provider_that_is_not_there_is_given_up(clock: Clock, sync: bool) -> None:
    with serving() as gone:
        url = gone.url
    ask = Caller(JWKS(url, clock=clock), sync=sync)
    assert await ask(OLD) == "unavailable"


# -- what is refused at the start


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/jwks",
        "ftp://id.example.com",
        "",
        "/jwks",
        "https://",
        "http://127.0.0.1.evil.net/",
        "http://localhost.evil.net/",
    ],
)
def test_keys_come_over_https(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        JWKS(url)
    assert refused.value.field == "url"


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"cooldown": 0}, {"cooldown": 400}, {"refresh": 4000}, {"max_age": 10}, {"refresh": -1}],
)
def test_times_do_not_contradict_each_other(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JWKS("https://id.example.com/jwks", **options)
