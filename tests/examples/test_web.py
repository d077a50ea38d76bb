"""The example applications keep their tenants apart, on a real PostgreSQL and through a real server."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from examples.shop.accounts import Accounts
from examples.shop.products import Product
from examples.shop.serve import MEMBERS, prepare
from tenantry import MultiTenantSDK
from tests.databases.postgres.deployment import deploy
from tests.http.serving import opened, unhurried, uvicorn_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("fastapi_app", "starlette_app", "litestar_app")
LAPTOP = {"name": "Laptop", "sku": "L15", "price": "1299.00"}


@pytest.fixture(params=EXAMPLES)
async def shop(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of the example, whose SDK is opened by it on a database of its own."""
    options = await deploy(database_url)
    await prepare(MultiTenantSDK.open(**options, models=[Product], schema="create", env={}))
    accounts = Accounts()
    for user, tenants in MEMBERS.items():
        accounts.add(user, f"password of {user}", tenants)
    sdk = MultiTenantSDK.open(**options, models=[Product], schema="create", env={})
    app = importlib.import_module(f"examples.{request.param}").build(sdk, accounts)
    async with (
        opened(app),
        uvicorn_of(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        unhurried(sdk)
        yield client


async def signed_in(shop: httpx.AsyncClient, user: str) -> dict[str, str]:
    answer = await shop.post("/login", json={"user": user, "password": f"password of {user}"})
    assert answer.status_code == 200
    return {"Authorization": f"Bearer {answer.json()['token']}"}


async def test_each_shop_sells_its_own_products(shop: httpx.AsyncClient) -> None:
    anna, greta, carl = [await signed_in(shop, user) for user in ("anna", "greta", "carl")]
    made = await shop.post("/products", json=LAPTOP, headers=anna)
    assert made.status_code == 201
    id = made.json()["id"]
    assert (await shop.get(f"/products/{id}", headers=anna)).json()["sku"] == "L15"
    hidden = await shop.get(f"/products/{id}", headers=greta)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "not-found")
    assert (await shop.post("/products", json=LAPTOP, headers=greta)).status_code == 201  # the same number
    again = await shop.post("/products", json=LAPTOP, headers=anna)
    assert (again.status_code, again.json()["code"]) == (409, "unique-violation")

    unnamed = await shop.get("/products", headers=carl)
    assert (unnamed.status_code, unnamed.json()["code"]) == (400, "tenant-unnamed")
    for tenant in ("acme", "globex"):
        chosen = await shop.get("/products", headers={**carl, "X-Tenant-ID": tenant})
        assert [row["sku"] for row in chosen.json()] == ["L15"]
    forged = await shop.get("/products", headers={**anna, "X-Tenant-ID": "globex"})
    assert (forged.status_code, forged.json()["code"]) == (403, "tenant-forbidden")


async def test_an_export_is_a_stream_of_one_tenant(shop: httpx.AsyncClient) -> None:
    users = {user: await signed_in(shop, user) for user in ("anna", "greta")}
    for number in range(20):
        for user, headers in users.items():
            product = {"name": f"of {user}", "sku": f"S{number:03}", "price": "1"}
            assert (await shop.post("/products", json=product, headers=headers)).status_code == 201

    async def export(user: str) -> None:
        async with shop.stream("GET", "/products.csv", headers=users[user]) as answer:
            assert answer.headers["Content-Type"].startswith("text/csv")
            lines = [line async for line in answer.aiter_lines() if line]
        assert lines[0] == "sku,name,price"
        assert [line.split(",")[1] for line in lines[1:]] == [f"of {user}"] * 20

    await asyncio.gather(*(export(user) for user in [*users] * 10))


async def test_nobody_gets_in_without_signing_in(shop: httpx.AsyncClient) -> None:
    for user, password in (("anna", "password of greta"), ("nobody", "password of anna"), ("", "")):
        answer = await shop.post("/login", json={"user": user, "password": password})
        assert answer.status_code == 401
    for headers in ({}, {"Authorization": "Bearer made-up"}, {"X-Tenant-ID": "acme"}):
        answer = await shop.get("/products", headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    wrong = await shop.post("/products", json={"name": ""}, headers=await signed_in(shop, "anna"))
    assert wrong.status_code in (400, 422)


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_starts_as_it_says(name: str, tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TENANTRY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", f"examples.{name}", "--port", "0"),
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed = await printed_until(process, "Uvicorn running")
        password, port = (
            re.search(r"anna of acme: password (\S+)", printed),
            re.search(r"127.0.0.1:(\d+)", printed),
        )
        assert password, printed
        assert port, printed
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port[1]}", timeout=60) as client:
            answer = await client.post("/login", json={"user": "anna", "password": password[1]})
            token = {"Authorization": f"Bearer {answer.json()['token']}"}
            while (found := await client.get("/products", headers=token)).status_code == 503:
                await asyncio.sleep(0.1)  # a busy machine; the lease did not outlast it
            assert found.json() == []
    finally:
        process.terminate()
        await process.communicate()


async def printed_until(process: asyncio.subprocess.Process, text: str) -> str:
    """Return what a program prints up to the line with the text, or its end."""
    assert process.stdout is not None
    printed = ""
    while line := (await process.stdout.readline()).decode():
        printed += line
        if text in line:
            break
    return printed
