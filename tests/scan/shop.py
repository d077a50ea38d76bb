"""An application of two companies that keeps them apart, and can be told to leak in each of many ways."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import secrets
import time
import zipfile
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.scan.data import Company, Maker

PAGE = 4
Handler = Callable[[Request, Company], Awaitable[Response]]


class Shop:
    """The application.

    Args:
        leaks: The names of the guards to take out.
        seed: Whose data.
        moody: Answers some requests with 429 or 503 first, as a busy application does.
    """

    def __init__(self, *leaks: str, seed: int = 0, moody: bool = False) -> None:
        self.leaks = frozenset(leaks)
        self.maker = Maker(seed)
        self.companies = self.maker.companies
        self.moody = moody
        self.asked: list[tuple[str, str, str | None]] = []
        self._count = itertools.count(1)
        self._cache: dict[str, Any] = {}
        self.app = Starlette(routes=self._routes(), middleware=[Middleware(GZipMiddleware, minimum_size=200)])

    def _routes(self) -> list[Route]:
        reads: dict[str, Handler] = {
            "/me": self.me,
            "/documents": self.documents,
            "/documents/{id}": self.document,
            "/documents/{id}/page": self.document_page,
            "/documents/{id}/export.xlsx": self.document_xlsx,
            "/documents/{id}/report.pdf": self.document_pdf,
            "/invoices": self.invoices,
            "/invoices/{id}": self.invoice,
            "/customers": self.customers,
            "/customers/{customer_id}/notes": self.notes,
            "/customers/{customer_id}/notes/{id}": self.note,
            "/preview": self.preview,
            "/tasks": self.tasks,
            "/contacts": self.contacts,
            "/contacts/{id}": self.contact,
            "/export.csv": self.export,
            "/stats": self.stats,
            "/dashboard": self.dashboard,
            "/countries": self.all_countries,
            "/countries/{id}": self.country,
            "/tags": self.tags,
        }
        routes = [Route(path, self._guarded(handler), methods=["GET"]) for path, handler in reads.items()]
        writes: list[tuple[str, Handler, str]] = [
            ("/graphql", self.graphql, "POST"),
            ("/documents", self.create, "POST"),
            ("/documents/{id}", self.change, "PATCH"),
            ("/documents/{id}", self.remove, "DELETE"),
            ("/customers", self.create_customer, "POST"),
        ]
        routes += [Route(path, self._guarded(handler), methods=[method]) for path, handler, method in writes]
        return [*routes, Route("/health", self.health)]

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if self.moody and next(self._count) % 7 == 0:
                status = 429 if next(self._count) % 2 else 503
                return JSONResponse({"detail": "later"}, status, {"Retry-After": "0"})
            company = self.signed_in(request)
            self.asked.append((request.method, request.url.path, company.slug if company else None))
            if company is None:
                return JSONResponse({"detail": "sign in"}, 401)
            response = await handler(request, self.acting(request, company))
            response.headers["x-request-id"] = secrets.token_hex(8)
            return response

        return endpoint

    # --- who asks --------------------------------------------------------------------------------

    def signed_in(self, request: Request) -> Company | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return next((found for found in self.companies.values() if found.token == token), None)

    def acting(self, request: Request, company: Company) -> Company:
        named = {
            "tenant-header": request.headers.get("x-tenant-id", ""),
            "tenant-host": request.headers.get("host", "").partition(".")[0],
            "forwarded-host": request.headers.get("x-forwarded-host", "").partition(".")[0],
        }
        if request.url.path == "/stats":
            named["tenant-parameter"] = request.query_params.get("tenant_id", "")
        for leak, slug in named.items():
            if leak in self.leaks and slug in self.companies:
                return self.companies[slug]
        return company

    def everyone(self, collection: str) -> dict[str, dict[str, Any]]:
        return {
            id: row for company in self.companies.values() for id, row in company.rows[collection].items()
        }

    def scoped(self, collection: str, company: Company, *leaks: str) -> dict[str, dict[str, Any]]:
        """Return one company's rows, or with one of `leaks` everyone's: its own first where ids are the same."""
        own = company.rows[collection]
        return {**self.everyone(collection), **own} if self.leaks.intersection(leaks) else own

    def missing(self, request: Request, collection: str, company: Company) -> Response:
        """Answer for a row that is not there, or not theirs."""
        id = request.path_params.get("id", "")
        foreign = self.everyone(collection).get(id)
        if foreign is not None and "error-message" in self.leaks:
            return JSONResponse(
                {"detail": f"{foreign.get('title') or foreign.get('memo')} is not yours"}, 403
            )
        if foreign is not None and "status-oracle" in self.leaks:
            return JSONResponse({"detail": "forbidden"}, 403)
        if foreign is not None and "body-oracle" in self.leaks:
            return JSONResponse({"detail": f"No access to {id}", **self.volatile()}, 404)
        return JSONResponse({"detail": f"{request.url.path} was not found", "id": id, **self.volatile()}, 404)

    @staticmethod
    def volatile() -> dict[str, Any]:
        return {"request_id": secrets.token_hex(8), "at": time.time(), "took_ms": secrets.randbelow(50)}

    # --- reads -----------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        return JSONResponse({"ok": True, "build": "2026-11-01.4711"})

    async def me(self, request: Request, company: Company) -> Response:
        return JSONResponse({"tenant": company.slug, "csrf": secrets.token_hex(16), **self.volatile()})

    async def documents(self, request: Request, company: Company) -> Response:
        leak = []
        if request.query_params.get("q"):
            leak.append("search")
        if request.query_params.get("sort"):
            leak.append("sort")
        rows = list(self.scoped("documents", company, *leak).values())
        term = request.query_params.get("q", "").casefold()
        found = [self.expanded(row, request, company) for row in rows if term in row["title"].casefold()]
        if term and not found:
            return JSONResponse({"items": [], "message": f"Nothing found for {term}"})
        return JSONResponse({"items": found, **self.volatile()})

    def expanded(self, row: dict[str, Any], request: Request, company: Company) -> dict[str, Any]:
        if request.query_params.get("include") != "notes":
            return row
        notes = self.scoped("notes", company, "expansion").values()
        return {**row, "notes": [note["text"] for note in notes]}

    async def document(self, request: Request, company: Company) -> Response:
        id = request.path_params["id"]
        tag = f'"{zlib.crc32(id.encode()):x}"'
        if (
            "etag" in self.leaks
            and id in self.everyone("documents")
            and request.headers.get("if-none-match") == tag
        ):
            return Response(status_code=304, headers={"ETag": tag})
        leaks = ["by-id"] + (["head-oracle"] if request.method == "HEAD" else [])
        row = self.scoped("documents", company, *leaks).get(id)
        if row is None:
            return self.missing(request, "documents", company)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return JSONResponse({**row, **self.volatile()}, headers={"ETag": tag})

    async def document_page(self, request: Request, company: Company) -> Response:
        row = self.scoped("documents", company, "html").get(request.path_params["id"])
        if row is None:
            return HTMLResponse("<html><body><h1>Not found</h1></body></html>", 404)
        return HTMLResponse(f"<html><body><h1>{row['title']}</h1><nav>Documents</nav></body></html>")

    async def document_xlsx(self, request: Request, company: Company) -> Response:
        row = self.scoped("documents", company, "xlsx").get(request.path_params["id"])
        if row is None:
            return self.missing(request, "documents", company)
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        return Response(workbook([["id", "title"], [row["id"], row["title"]]]), media_type=kind)

    async def document_pdf(self, request: Request, company: Company) -> Response:
        row = self.scoped("documents", company, "pdf").get(request.path_params["id"])
        if row is None:
            return self.missing(request, "documents", company)
        return Response(pdf(row["title"]), media_type="application/pdf")

    async def invoices(self, request: Request, company: Company) -> Response:
        start, owner = 0, company
        if cursor := request.query_params.get("cursor"):
            slug, _, offset = base64.urlsafe_b64decode(cursor).decode().partition(":")
            if slug != company.slug and "cursor" not in self.leaks:
                return JSONResponse({"detail": "This cursor is not valid."}, 400)
            start, owner = int(offset), self.companies[slug]
        rows = sorted(owner.rows["invoices"].values(), key=lambda row: row["id"])
        further = base64.urlsafe_b64encode(f"{owner.slug}:{start + PAGE}".encode()).decode()
        return JSONResponse(
            {"data": rows[start : start + PAGE], "next_cursor": further if start + PAGE < len(rows) else None}
        )

    async def invoice(self, request: Request, company: Company) -> Response:
        row = self.scoped("invoices", company, "by-number").get(request.path_params["id"])
        return self.missing(request, "invoices", company) if row is None else JSONResponse(row)

    async def customers(self, request: Request, company: Company) -> Response:
        return JSONResponse(list(company.rows["customers"].values()))

    async def notes(self, request: Request, company: Company) -> Response:
        id = request.path_params["customer_id"]
        if id not in company.rows["customers"]:
            return self.missing(request, "customers", company)
        return JSONResponse([row for row in company.rows["notes"].values() if row["customer_id"] == id])

    async def note(self, request: Request, company: Company) -> Response:
        """Below a customer of one's own; the leak checks no more than that."""
        customer, id = request.path_params["customer_id"], request.path_params["id"]
        row = self.scoped("notes", company, "nested").get(id)
        if customer not in company.rows["customers"] or row is None:
            return self.missing(request, "notes", company)
        if row["customer_id"] != customer and "nested" not in self.leaks:
            return self.missing(request, "notes", company)
        return JSONResponse(row)

    async def preview(self, request: Request, company: Company) -> Response:
        row = self.scoped("documents", company, "query-id").get(request.query_params.get("document_id", ""))
        return (
            JSONResponse({"detail": "none"}, 404) if row is None else JSONResponse({"preview": row["title"]})
        )

    async def tasks(self, request: Request, company: Company) -> Response:
        return JSONResponse(self.shuffled(self.scoped("tasks", company, "unscoped")))

    async def contacts(self, request: Request, company: Company) -> Response:
        return JSONResponse(self.shuffled(self.scoped("contacts", company, "unscoped-unnamed")))

    async def contact(self, request: Request, company: Company) -> Response:
        row = company.rows["contacts"].get(request.path_params["id"])
        return self.missing(request, "contacts", company) if row is None else JSONResponse(row)

    def shuffled(self, rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        listed = list(rows.values())
        self.maker.random.shuffle(listed)
        return listed

    async def export(self, request: Request, company: Company) -> Response:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["id", "tenant", "title"])
        for owner in self.companies.values() if "export" in self.leaks else [company]:
            writer.writerows(
                [row["id"], owner.slug, row["title"]] for row in owner.rows["documents"].values()
            )
        return Response(text.getvalue(), media_type="text/csv")

    async def stats(self, request: Request, company: Company) -> Response:
        totals = [row["total"] for row in company.rows["invoices"].values()]
        return JSONResponse({"invoices": len(totals), "revenue": round(sum(totals), 2), "drafts": 0})

    async def dashboard(self, request: Request, company: Company) -> Response:
        key = f"{request.url.query}" if "cache" in self.leaks else f"{company.slug} {request.url.query}"
        titles = sorted(row["title"] for row in company.rows["documents"].values())
        return JSONResponse(self._cache.setdefault(key, {"greeting": "Welcome", "recent": titles}))

    async def all_countries(self, request: Request, company: Company) -> Response:
        return JSONResponse(list(self.maker.countries.values()))

    async def country(self, request: Request, company: Company) -> Response:
        found = self.maker.countries.get(request.path_params["id"])
        return JSONResponse({"detail": "no such country"}, 404) if found is None else JSONResponse(found)

    async def tags(self, request: Request, company: Company) -> Response:
        return JSONResponse(
            [{"id": number, "name": f"tag {number}"} for number in self.maker.random.sample(range(9), 3)]
        )

    # --- what is posted --------------------------------------------------------------------------

    async def graphql(self, request: Request, company: Company) -> Response:
        asked = (await request.json())["variables"]["id"]
        row = self.scoped("documents", company, "graphql").get(asked)
        if row is None:
            return JSONResponse({"data": {"document": None}, "errors": [{"message": "not found"}]})
        return JSONResponse({"data": {"document": {"id": asked, "title": row["title"]}}})

    async def create(self, request: Request, company: Company) -> Response:
        body = await request.json()
        owner = company
        if "write-tenant" in self.leaks:
            owner = self.companies.get(body.get("tenant_id", ""), company)
        customer = body.get("customer_id", "")
        known = self.scoped("customers", company, "reference")
        if customer not in known:
            return JSONResponse({"detail": "no such customer"}, 422)
        row = owner.add("documents", self.maker.uuid(), title=str(body["title"]), customer_id=customer)
        return JSONResponse(row, 201)

    async def change(self, request: Request, company: Company) -> Response:
        row = self.scoped("documents", company, "update").get(request.path_params["id"])
        if row is None:
            return self.missing(request, "documents", company)
        row.update({key: value for key, value in (await request.json()).items() if key == "title"})
        return JSONResponse(row)

    async def remove(self, request: Request, company: Company) -> Response:
        id = request.path_params["id"]
        for owner in self.companies.values() if "delete" in self.leaks else [company]:
            if owner.rows["documents"].pop(id, None) is not None:
                return Response(status_code=204)
        return self.missing(request, "documents", company)

    async def create_customer(self, request: Request, company: Company) -> Response:
        body = await request.json()
        taken = {row["email"] for row in self.scoped("customers", company, "unique").values()}
        if body["email"] in taken:
            return JSONResponse({"detail": "this email is taken"}, 409)
        return JSONResponse(
            company.add("customers", self.maker.uuid(), name=body["name"], email=body["email"]), 201
        )


def workbook(rows: list[list[str]]) -> bytes:
    """Return an XLSX file with one sheet."""
    strings = list(dict.fromkeys(cell for row in rows for cell in row))
    cells = [[f'<c t="s"><v>{strings.index(cell)}</v></c>' for cell in row] for row in rows]
    sheet = "".join(f"<row>{''.join(row)}</row>" for row in cells)
    namespace = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", f"<workbook {namespace}/>")
        archive.writestr(
            "xl/sharedStrings.xml",
            f"<sst {namespace}>{''.join(f'<si><t>{s}</t></si>' for s in strings)}</sst>",
        )
        archive.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {namespace}><sheetData>{sheet}</sheetData></worksheet>"
        )
    return file.getvalue()


def pdf(text: str) -> bytes:
    """Return the part of a PDF that matters here: a deflated stream that shows a text."""
    stream = zlib.compress(f"BT /F1 12 Tf ({text}) Tj ET".encode())
    return b"%PDF-1.7\n1 0 obj <</Filter/FlateDecode>>\nstream\n" + stream + b"\nendstream\nendobj\n%%EOF\n"


def har(shop: Shop, base_url: str, slug: str = "acme") -> dict[str, Any]:
    """Return what a browser would have recorded while one company's user looked around."""
    company = shop.companies[slug]
    document, note = next(iter(company.rows["documents"])), next(iter(company.rows["notes"].values()))
    invoice = "9" if slug == "acme" else "5"
    paths = ["/me", "/documents", "/invoices", "/customers", "/tasks", "/contacts", "/export.csv", "/stats"]
    paths += ["/dashboard", "/countries", "/countries/2", "/tags", f"/invoices/{invoice}", "/invoices/1"]
    paths += [f"/documents/{document}{part}" for part in ("", "/page", "/export.xlsx", "/report.pdf")]
    paths += [f"/contacts/{next(iter(company.rows['contacts']))}", f"/preview?document_id={document}"]
    paths += [
        f"/customers/{note['customer_id']}/notes",
        f"/customers/{note['customer_id']}/notes/{note['id']}",
    ]
    entries = [entry("GET", base_url + path, company.token) for path in paths]
    query = "query Document($id: ID!) { document(id: $id) { id title } }"
    asked = {"query": query, "variables": {"id": document}}
    customer = note["customer_id"]
    email = f"{shop.maker.random.choice('xyz')}new@{slug}.example"
    entries += [
        entry("POST", f"{base_url}/graphql", company.token, asked),
        entry(
            "POST", f"{base_url}/documents", company.token, {"title": "A new one", "customer_id": customer}
        ),
        entry("POST", f"{base_url}/customers", company.token, {"name": "Somebody new", "email": email}),
        entry("PATCH", f"{base_url}/documents/{document}", company.token, {"title": "Changed"}),
        entry("GET", "https://fonts.example.net/font", company.token),
        entry("GET", f"{base_url}/app.js", company.token),
        entry("GET", f"{base_url}/logout", company.token),
    ]
    return {"log": {"version": "1.2", "entries": entries}}


def entry(method: str, url: str, token: str, body: Any = None) -> dict[str, Any]:
    headers = [
        {"name": "Authorization", "value": f"Bearer {token}"},
        {"name": "Accept", "value": "application/json"},
        {"name": "Cookie", "value": f"session={token}"},
    ]
    recorded: dict[str, Any] = {"method": method, "url": url, "headers": headers}
    if body is not None:
        recorded["postData"] = {"mimeType": "application/json", "text": json.dumps(body)}
        headers.append({"name": "Content-Type", "value": "application/json"})
    return {"request": recorded}
