"""What becomes of personal data in a copy, and of a copy whose process is killed."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import pytest

from tenantry import PII, Model, MultiTenantSDK, TenantStatus, Unique
from tenantry.errors import InvalidRecord, TenantSuspended, UnknownCollection
from tenantry.tenants.archive import ArchiveReader
from tenantry.testing.models import Note


class Person(Model):
    __collection__ = "people"

    email: Annotated[str, PII, Unique]
    name: Annotated[str, PII]
    born: Annotated[dt.date | None, PII] = None
    city: str = "Oslo"


class Birth(Model):
    __collection__ = "births"

    day: Annotated[dt.date, PII]


KILLED = """
import asyncio, os, signal, sys
from tenantry import MultiTenantSDK
from tenantry.testing.models import Note

async def main():
    async with MultiTenantSDK.open(sys.argv[1], models=[Note], env={}) as sdk:
        kill = lambda collection, rows: os.kill(os.getpid(), signal.SIGKILL)
        await sdk.tenants.import_(sys.argv[2], as_="copy", progress=kill)

asyncio.run(main())
"""


async def test_personal_data_does_not_reach_an_anonymised_archive(tmp_path: Path) -> None:
    async with MultiTenantSDK.open("memory://", models=[Person], env={}) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme")
        for email in ("ann@example.com", "bob@example.com"):
            await acme.data.create(Person(email=email, name="Same Name", born=dt.date(1990, 1, 1)))
        await acme.members.add("u_ann", email="ann@example.com")
        await sdk.tenants.export("acme", tmp_path / "a.zip", anonymise=True)
        reader = ArchiveReader(tmp_path / "a.zip")
        lines = b"".join(line for name in reader.manifest.collections for line in reader._lines(name))
        reader.close()
        for secret in (b"ann@example", b"bob@example", b"Same Name", b"1990"):
            assert secret not in lines
        copy = await sdk.tenants.import_(tmp_path / "a.zip", as_="copy")
        assert copy.tenant.status is TenantStatus.ACTIVE
        people = [*await sdk.tenant("copy").data.read(Person)]
        assert len({person.email for person in people}) == 2
        assert len({person.name for person in people}) == 1
        assert {(person.born, person.city) for person in people} == {(None, "Oslo")}


async def test_what_cannot_be_anonymised_or_is_unknown_is_refused(tmp_path: Path) -> None:
    async with MultiTenantSDK.open("memory://", models=[Birth], env={}) as sdk:
        await sdk.tenants.create("acme")
        with pytest.raises(InvalidRecord, match=r"births\.day"):
            await sdk.tenants.clone("acme", "copy", anonymise=True)
        with pytest.raises(UnknownCollection):
            await sdk.tenants.export("acme", tmp_path / "a.zip", collections=["nothing"])
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing is awaited any more


async def test_a_killed_import_leaves_nothing_that_is_served(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    async with MultiTenantSDK.open(url, models=[Note], schema="create", env={}) as sdk:
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(Note(id="n"))
        await sdk.tenants.export("acme", tmp_path / "a.zip")
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, url, str(tmp_path / "a.zip"))
    assert await killed.wait() == -signal.SIGKILL
    async with MultiTenantSDK.open(url, models=[Note], env={}) as sdk:
        assert (await sdk.tenants.get("copy")).status is TenantStatus.IMPORTING
        with pytest.raises(TenantSuspended):
            await sdk.tenant("copy").data.count(Note)
        await sdk.tenants.import_(tmp_path / "a.zip", as_="copy")
        assert await sdk.tenant("copy").data.count(Note) == 1


async def test_many_are_made_once() -> None:
    async with MultiTenantSDK.open("memory://", models=[Note], env={}) as sdk:
        assert await sdk.tenants.create_many(f"t{number}" for number in range(2_500)) == 2_500
        assert await sdk.tenants.create_many(["t1", "t1", "new"]) == 1
        assert await sdk.tenant("t2499").data.count(Note) == 0
