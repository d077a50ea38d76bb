"""Errors are answered as problem details that help the caller and reveal nothing of what is behind."""

import http
import logging
import uuid
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tenantry import errors
from tenantry.http import Refusal, handle_errors, problem
from tests.http.shop import Product, Shop

SECRET = "app@db.internal:5432"

ANSWERS: dict[errors.TenantryError, tuple[int, str, dict[str, Any]]] = {
    errors.NotFound("products", 7): (404, "not-found", {}),
    errors.TenantNotFound("There is no tenant 'x'.", tenant_id="x"): (404, "tenant-not-found", {}),
    errors.UnknownCollection("orders", ["products"]): (404, "unknown-collection", {}),
    errors.Conflict("products", 7, expected=1, current=3): (
        409,
        "conflict",
        {"expected_version": 1, "current_version": 3},
    ),
    errors.UniqueViolation("products", ["sku"]): (409, "unique-violation", {"fields": ["sku"]}),
    errors.ReferenceViolation("flights", "origin"): (409, "reference-violation", {"field": "origin"}),
    errors.TenantExists("Tenant 'x' exists.", tenant_id="x"): (409, "tenant-exists", {}),
    errors.InvalidTransition(tenant_id="x", current="active", wanted="purged"): (
        409,
        "invalid-transition",
        {"current": "active", "wanted": "purged"},
    ),
    errors.InvalidQuery("no such field.", path="where.size"): (422, "invalid-query", {"path": "where.size"}),
    errors.InvalidRecord("is required.", field="sku"): (422, "invalid-record", {"field": "sku"}),
    errors.IdempotencyConflict("k"): (422, "idempotency-conflict", {}),
    errors.InvalidTenantId("'!' cannot be one.", tenant_id="!"): (422, "invalid-tenant-id", {}),
    errors.Unsupported("SQLite has no raw SQL."): (422, "unsupported", {}),
    errors.ReadOnlyCollection("airports"): (403, "read-only-collection", {}),
    errors.AccessDenied("No.", action="read", collection="books", roles=["viewer"], fix=SECRET): (
        403,
        "access-denied",
        {"action": "read"},
    ),
    errors.FieldHidden("is hidden.", path="where.cost", action="read", collection="books", fix=SECRET): (
        403,
        "field-hidden",
        {"action": "read", "path": "where.cost"},
    ),
    errors.TenantSuspended("Tenant 'x' is suspended.", tenant_id="x"): (403, "tenant-suspended", {}),
    errors.TenantDeleted("Tenant 'x' is deleting.", tenant_id="x"): (403, "tenant-deleted", {}),
    errors.ContextMismatch("Two tenants."): (403, "context-mismatch", {}),
    errors.DatabaseUnavailable(f"Cannot connect to {SECRET}"): (503, "unavailable", {}),
    errors.OperationTimeout(f"{SECRET} is slow"): (503, "unavailable", {}),
    errors.Closed(SECRET): (503, "unavailable", {}),
    errors.TenantRequired(SECRET): (500, "internal-error", {}),
    errors.SealRejected(SECRET): (500, "internal-error", {}),
    errors.ConfigurationError(SECRET): (500, "internal-error", {}),
    errors.TransactionFailed(): (500, "internal-error", {}),
    errors.DataError(SECRET): (500, "internal-error", {}),
}


SAFE = {500: "The request could not be carried out.", 503: "The service is away for a moment."}


async def answer(error: errors.TenantryError) -> httpx.Response:
    app = FastAPI()
    handle_errors(app)

    @app.get("/")
    async def route() -> None:
        raise error

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://shop.example"
    ) as client:
        return await client.get("/")


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
async def test_errors_have_their_status(error: errors.TenantryError) -> None:
    status, code, details = ANSWERS[error]
    response = await answer(error)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message if status < 500 else SAFE[status],
        "code": code,
        **details,
    }
    assert response.headers.get("Retry-After") == ("1" if status == 503 else None)


def all_errors(root: type[errors.TenantryError]) -> list[type[errors.TenantryError]]:
    return [root, *(found for child in root.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors(errors.TenantryError))
def test_no_answer_says_how_to_mend_the_server(kind: type[errors.TenantryError]) -> None:
    error = kind.__new__(kind)
    error.message, error.fix = SECRET, "postgresql://admin:secret@db.internal"
    if isinstance(error, Refusal):
        error.status, error.code, error.headers = 403, "refused", None
    found = problem(error)
    assert "secret" not in found.body.decode()
    assert found.status < 500 or SECRET not in found.body.decode()


async def test_failures_are_logged_and_refusals_are_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tenantry.http"):
        await answer(errors.NotFound("products", 7))
        assert not caplog.records
        await answer(errors.DataError(SECRET))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert SECRET in caplog.text
    assert caplog.records[0].exc_info


async def test_a_lost_race_says_which_version_won(shop: Shop) -> None:
    row = (await shop.sdk.tenant("globex").data.read(Product))[0]
    async with shop.client("greta") as client:
        first = await client.patch(f"/products/{row.id}?version=1", json={"price": "2"})
        second = await client.patch(f"/products/{row.id}?version=1", json={"price": "3"})
    assert first.status_code == 200
    assert second.status_code == 409
    assert second.json()["current_version"] == 2


async def test_a_wrong_query_says_where(shop: Shop) -> None:
    async with shop.client("greta") as client:
        wrong = await client.get("/products?price=cheap")
        taken = await client.post("/products", json={"name": "again", "sku": "L1"})
        incomplete = await client.post("/products", json={"name": "x"})
        absent = await client.get(f"/products/{uuid.uuid4()}")
        malformed = await client.get("/products/42")
    assert (wrong.status_code, wrong.json()["path"]) == (422, "where.price.lt")
    assert (taken.status_code, taken.json()["fields"]) == (409, ["sku"])
    assert (incomplete.status_code, incomplete.json()["field"]) == (422, "sku")
    assert absent.status_code == 404
    assert (malformed.status_code, malformed.json()["path"]) == (422, "id")


async def test_a_closed_sdk_is_unavailable(shop: Shop) -> None:
    await shop.sdk.close()
    async with shop.client("greta") as client:
        answer = await client.get("/products")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
