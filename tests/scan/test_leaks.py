"""Every planted leak is found, as what it is and with the request that shows it; the twin without it gives nothing."""

from __future__ import annotations

import pytest

from tests.scan.conftest import Scan, summed
from tests.scan.described import document
from tests.scan.shop import Shop

DOCUMENT = "GET /documents/{document}"
GRAPHQL = "POST /graphql [query Document($id: ID!) { document(id: $id) { id title } }]"
LISTS = ("/contacts", "/customers", "/dashboard", "/documents", "/invoices", "/stats", "/tasks")
ROWS = (
    "GET /contacts/{contact}",
    "GET /customers/{customer}/notes/{note}",
    DOCUMENT,
    f"{DOCUMENT}/export.xlsx",
    f"{DOCUMENT}/report.pdf",
    "GET /invoices/{invoice}",
)

# leak -> what is found: kind, route, and what about the request did it
READS: dict[str, set[tuple[str, str, str]]] = {
    "by-id": {("foreign-id-in-path", DOCUMENT, "A's document in the path")},
    "by-number": {("foreign-id-in-path", "GET /invoices/{invoice}", "A's invoice in the path")},
    "html": {("foreign-id-in-path", f"{DOCUMENT}/page", "A's document in the path")},
    "nested": {
        (
            "foreign-id-in-path",
            "GET /customers/{customer}/notes/{note}",
            "A's note in the path, below B's own",
        )
    },
    "query-id": {("foreign-id-in-query", "GET /preview?document_id", "A's id in document_id")},
    "graphql": {("foreign-id-in-body", GRAPHQL, "A's id in variables.id")},
    "unscoped": {("unscoped-response", "GET /tasks", "the same request as B")},
    "unscoped-unnamed": {("unscoped-response", "GET /contacts", "the same request as B")},
    "tenant-parameter": {("tenant-parameter", "GET /stats", "?tenant_id=A")},
    "tenant-header": {("tenant-header", f"GET {path}", "x-tenant-id: A") for path in LISTS}
    | {("export", "GET /export.csv", "x-tenant-id: A")},
    "tenant-host": {("tenant-host", f"GET {path}", "host: A's") for path in LISTS}
    | {("export", "GET /export.csv", "host: A's")},
    "forwarded-host": {("tenant-host", f"GET {path}", "x-forwarded-host: A's") for path in LISTS}
    | {("export", "GET /export.csv", "x-forwarded-host: A's")},
    "search": {("search", "GET /documents", "?q= with words of A's")},
    "sort": {("search", "GET /documents", "?sort=id"), ("search", "GET /documents", "?sort=title")},
    "cursor": {("cursor", "GET /invoices?cursor", "A's cursor")},
    "expansion": {("expansion", "GET /documents", "?include=notes")},
    "export": {("export", "GET /export.csv", "the same request as B")},
    "xlsx": {("export", f"{DOCUMENT}/export.xlsx", "A's document in the path")},
    "pdf": {("export", f"{DOCUMENT}/report.pdf", "A's document in the path")},
    "cache": {("shared-cache", "GET /dashboard", "asked by A, then by B")},
    "etag": {("etag", DOCUMENT, "A's ETag in If-None-Match")},
}
ORACLES = {"status-oracle": set(ROWS), "body-oracle": set(ROWS), "head-oracle": {DOCUMENT}}
WRITES: dict[str, tuple[str, str, str]] = {
    "update": ("foreign-write", "PATCH /documents/{document}", "title, changed as B, reads changed as A"),
    "delete": ("foreign-write", "DELETE /documents/{document}", "deleted as B, reads 404 as A"),
    "write-tenant": ("tenant-in-body", "POST /documents", "tenant_id in the body"),
    "reference": (
        "foreign-reference",
        "POST /documents",
        "customer_id: 201 for A's, 422 for one that never was",
    ),
    "unique": ("uniqueness-oracle", "POST /customers", "email: 409 for A's, 201 for one that nobody has"),
}


def about(leak: str) -> set[str]:
    """Return the first words of the paths that a leak is about, and of those whose ids they need."""
    routes = (
        [route for _, route, _ in READS.get(leak, ())] or list(ORACLES.get(leak, ())) or [WRITES[leak][1]]
    )
    return {
        "me",
        "documents",
        "customers",
        *(route.split("/")[1].partition("?")[0].split()[0] for route in routes),
    }


@pytest.mark.parametrize("leak", READS)
async def test_a_planted_leak_is_found(leak: str, scan_shop: Scan) -> None:
    report = await scan_shop(Shop(leak), only=about(leak))
    assert summed(report) == READS[leak]
    assert report.complete


@pytest.mark.parametrize("leak", ORACLES)
async def test_an_oracle_of_existence_is_found(leak: str, scan_shop: Scan) -> None:
    report = await scan_shop(Shop(leak), only=about(leak))
    assert {(found.kind.label, found.route) for found in report.findings} == {
        ("existence-oracle", route) for route in ORACLES[leak]
    }


async def test_an_error_that_tells_too_much_is_found(scan_shop: Scan) -> None:
    report = await scan_shop(Shop("error-message"))
    told = {found.route for found in report.findings if found.kind.label == "error-message"}
    assert told == {DOCUMENT, f"{DOCUMENT}/export.xlsx", f"{DOCUMENT}/report.pdf", "GET /invoices/{invoice}"}
    others = [found for found in report.findings if found.kind.label != "error-message"]
    assert {found.kind.label for found in others} == {
        "existence-oracle"
    }  # 403 and 404 where no title is known


@pytest.mark.parametrize("leak", WRITES)
async def test_a_write_across_tenants_is_found(leak: str, scan_shop: Scan) -> None:
    assert summed(await scan_shop(Shop(leak), only=about(leak), writes=True)) == {WRITES[leak]}


@pytest.mark.parametrize("leak", WRITES)
async def test_nothing_is_written_unasked(leak: str, scan_shop: Scan) -> None:
    shop = Shop(leak)
    assert not (await scan_shop(shop, only=about(leak) | {"graphql"})).findings
    assert {(method, path) for method, path, _ in shop.asked if method not in ("GET", "HEAD")} == {
        ("POST", "/graphql")
    }


async def test_all_are_found_together(scan_shop: Scan) -> None:
    """Where one leak covers another up, such as an error for what is shown anyway, the greater one is told."""
    covered = {"error-message", "status-oracle", "body-oracle", "head-oracle", "etag", "html"}
    report = await scan_shop(Shop(*({*READS, *WRITES} - covered)), writes=True)
    found = {(kind, route) for kind, route, _ in summed(report)}
    for leak in (
        {*READS} - covered - {"tenant-header", "tenant-host", "forwarded-host", "export", "expansion", "sort"}
    ):
        assert {(kind, route) for kind, route, _ in READS[leak]} <= found, leak
    kinds = {kind for kind, _ in found}
    assert {"tenant-header", "tenant-host", "export", "expansion", "search"} <= kinds
    assert {kind for kind, _, _ in WRITES.values()} <= kinds


@pytest.mark.parametrize("seed", range(20))
async def test_the_correct_twin_gives_nothing(seed: int, scan_shop: Scan) -> None:
    report = await scan_shop(Shop(seed=seed, moody=seed % 2 == 1), writes=seed % 4 == 0)
    assert summed(report) == set()
    assert report.complete
    assert report.attempts > 500


@pytest.mark.parametrize("leak", ["by-id", "cursor", "export", "status-oracle", "tenant-parameter"])
async def test_a_busy_application_hides_no_leak(leak: str, scan_shop: Scan) -> None:
    assert (await scan_shop(Shop(leak, moody=True), only=about(leak))).findings


# --- from a description --------------------------------------------------------------------------


@pytest.mark.parametrize("leak", sorted({*READS, *ORACLES} - {"graphql"}))
async def test_a_planted_leak_is_found_from_a_description(leak: str, scan_shop: Scan) -> None:
    report = await scan_shop(Shop(leak), only=about(leak), requests_a=(), operations=document())
    wanted = {kind for kind, _, _ in READS.get(leak, ())} or {"existence-oracle"}
    assert {found.kind.label for found in report.findings} == wanted


@pytest.mark.parametrize("leak", WRITES)
async def test_a_write_across_tenants_is_found_from_a_description(leak: str, scan_shop: Scan) -> None:
    report = await scan_shop(Shop(leak), only=about(leak), requests_a=(), operations=document(), writes=True)
    assert {found.kind.label for found in report.findings} == {WRITES[leak][0]}


@pytest.mark.parametrize("seed", range(3))
async def test_the_correct_twin_gives_nothing_from_a_description(seed: int, scan_shop: Scan) -> None:
    report = await scan_shop(Shop(seed=seed), requests_a=(), operations=document(), writes=True)
    assert summed(report) == set()
    assert report.routes >= 20
