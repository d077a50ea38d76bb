"""API keys and invitations as texts: what is refused before anybody looks them up, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from tenantry import MultiTenantSDK
from tenantry.context import Context
from tenantry.errors import CredentialRejected
from tenantry.http import RequestView, TenantKeyResolver
from tenantry.http.problems import Refusal
from tenantry.http.request import Headers
from tenantry.ports import DatabaseAdapter
from tenantry.query import Query
from tenantry.tenants import KeyRing
from tenantry.tenants.credentials import Mint, _checksum, digest_of, matches
from tenantry.testing.models import Note
from tenantry.types import Record


class Counted:
    """A database that counts how often it is asked for a key, and has none."""

    def __init__(self) -> None:
        self.asked = 0

    async def select(self, context: Context, query: Query) -> Sequence[Record]:
        self.asked += 1
        return []


def request(key: str) -> RequestView:
    return RequestView(
        method="GET", scheme="https", path="/", query="", headers=Headers([("X-API-Key", key)])
    )


async def test_invented_and_mistyped_keys_never_reach_the_database() -> None:
    mint, other, database = Mint(b"k" * 32), Mint(b"o" * 32), Counted()
    ring = KeyRing(cast(DatabaseAdapter, database), mint)
    real = mint.make("tnt").text
    forged = [other.make("tnt").text for _ in range(50)]
    mistyped = [
        real[:index] + ("a" if real[index] != "a" else "b") + real[index + 1 :] for index in range(len(real))
    ]
    foreign: list[Any] = [mint.make("tni").text, "", "x" * 10_000, None, b"tnt", real + "0", real.upper()]
    for text in [*forged, *mistyped, *foreign]:
        with pytest.raises(CredentialRejected):
            await ring.identify(text)
    assert database.asked == 0
    for _ in range(50):
        with pytest.raises(CredentialRejected, match="unknown"):
            await ring.identify(real)
    assert database.asked <= 2  # purged with its tenant: asked for once for each lease


async def test_the_secret_decides_and_not_the_id() -> None:
    async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
        await sdk.tenants.create("acme")
        keys = sdk.tenant("acme").api_keys
        mine, theirs = await keys.create("mine"), await keys.create("theirs")
        start = f"{theirs.key.id}.{mine.text.partition('.')[2][:-6]}"
        with pytest.raises(CredentialRejected, match="unknown"):
            await sdk.identify_api_key(start + _checksum(start))
        assert (await sdk.identify_api_key(theirs.text)).user == f"key:{theirs.key.id}"


def test_what_is_kept_does_not_show_the_secret() -> None:
    made = Mint(b"k" * 32).make("tnt")
    assert made.text.startswith(made.id)
    assert made.text not in repr(made)
    assert made.digest == digest_of(made.text)
    assert made.text.encode() not in made.digest
    assert matches(made.text, made.digest)
    assert not matches(made.text, None)
    assert not matches(made.text, bytes(32))


async def test_a_request_with_a_key_is_one_of_its_tenant() -> None:
    async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
        await sdk.tenants.create("acme")
        made = await sdk.tenant("acme").api_keys.create("ci", roles=["bot"])
        resolver = TenantKeyResolver(sdk)
        identity = await resolver.identify(request(made.text))
        assert identity is not None
        assert (identity.tenants, identity.user) == (frozenset({"acme"}), f"key:{made.key.id}")
        assert identity.claims["roles"] == ["bot"]
        answers = set()
        await sdk.tenant("acme").api_keys.revoke(made.key.id, reason="test")
        sdk._keys._known.clear()  # type: ignore[union-attr] # the process that revokes has read it just before
        for text in (made.text, "tnt_x", made.text[:-1]):
            with pytest.raises(Refusal) as refused:
                await resolver.identify(request(text))
            answers.add((refused.value.status, str(refused.value)))
        assert len(answers) == 1
