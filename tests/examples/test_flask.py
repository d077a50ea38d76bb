"""The shop on Flask keeps its tenants apart, on a real PostgreSQL and through real HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.django.shop import SECONDS, running
from tests.servers import PostgresServer

LAPTOP = {"name": "Laptop", "sku": "L15", "price": "1299.00", "category": "Computers"}


class Client(httpx.Client):
    """Somebody who has signed in."""

    def __init__(self, port: int, user: str, password: str) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS)
        answer = self.post("/login", json={"user": user, "password": password})
        assert answer.status_code == 200, answer.text
        self.headers["Authorization"] = f"Bearer {answer.json()['token']}"


@pytest.fixture(scope="module")
def address(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, dict[str, str]]]:
    url, folder = postgres_server.create_database("flask"), tmp_path_factory.mktemp("flask")
    with running("examples.flask_shop", url, folder, "--prefix", "flaskshop") as (printed, port):
        yield port, dict(re.findall(r"(\w+) of .*: password (\S+)", printed))
    postgres_server.drop_database("flask")


@pytest.fixture
def people(address: tuple[int, dict[str, str]]) -> Iterator[dict[str, Client]]:
    port, passwords = address
    clients = {user: Client(port, user, passwords[user]) for user in ("anna", "greta", "carl")}
    yield clients
    for client in clients.values():
        client.close()


def test_each_shop_sells_its_own_products(people: dict[str, Client]) -> None:
    anna, greta, carl = people["anna"], people["greta"], people["carl"]
    made = anna.post("/products", json=LAPTOP)
    assert made.status_code == 201, made.text
    path = f"/products/{made.json()['id']}"
    assert anna.get(path).json() == made.json()
    assert greta.get("/products").json() == []
    assert greta.post("/products", json=LAPTOP).status_code == 201  # the same number
    assert anna.post("/products", json=LAPTOP).status_code == 409

    for attempt in (greta.get(path), greta.patch(path, json={"price": 1}), greta.delete(path)):
        assert attempt.status_code == 404
    for asked in ("Lap", "%", "' OR tenant_id = 'acme' --"):
        assert made.json()["id"] not in greta.get("/products", params={"q": asked}).text
    assert anna.get(path).json() == made.json()

    unnamed = carl.get("/products")
    assert (unnamed.status_code, unnamed.json()["code"]) == (400, "tenant-unnamed")
    for tenant in ("acme", "globex"):
        shown = carl.get("/products", headers={"X-Tenant-ID": tenant}).json()
        assert [row["sku"] for row in shown] == ["L15"]
    forged = anna.get("/products", headers={"X-Tenant-ID": "globex"})
    assert (forged.status_code, forged.json()["code"]) == (403, "tenant-forbidden")

    assert anna.patch(path, json={"price": 999}).json()["price"].startswith("999")
    assert anna.delete(path).status_code == 204
    assert anna.get(path).status_code == 404
    assert len(greta.get("/products").json()) == 1


def test_exports_that_are_read_at_once_never_mix(people: dict[str, Client]) -> None:
    own = {"anna": people["anna"], "greta": people["greta"]}
    for number in range(10):
        for user, client in own.items():
            product = {"name": f"of {user}", "sku": f"S{number:03}", "price": "1", "category": "Export"}
            assert client.post("/products", json=product).status_code == 201

    def export(user: str) -> list[str]:
        with own[user].stream("GET", "/products.csv") as answer:
            assert answer.headers["Content-Type"].startswith("text/csv")
            return [line.split(",")[1] for line in answer.iter_lines() if line.startswith("S")]

    with ThreadPoolExecutor(4) as threads:
        users = [*own] * 6
        for user, lines in zip(users, threads.map(export, users), strict=True):
            assert lines == [f"of {user}"] * 10


def test_nobody_gets_in_without_signing_in(address: tuple[int, dict[str, str]]) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{address[0]}", timeout=SECONDS) as client:
        assert client.post("/login", json={"user": "anna", "password": "wrong"}).status_code == 401
        assert client.post("/login", json={"user": "anna"}).status_code == 422
        for headers in ({}, {"Authorization": "Bearer made-up"}, {"X-Tenant-ID": "acme"}):
            answer = client.get("/products", headers=headers)
            assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")


def test_what_is_wrong_leaves_the_connection_usable(people: dict[str, Client]) -> None:
    for _ in range(8):  # more than the pool has connections
        assert people["anna"].post("/products", json={"name": ""}).status_code == 422
        assert people["anna"].get("/products/not-an-id").status_code == 404
    assert people["anna"].get("/products").status_code == 200
