"""What the application says of itself, in OpenAPI."""

from __future__ import annotations

from typing import Any

from tenantry.scan import Operation, read_openapi

READS = {
    "/me": [],
    "/documents": ["q", "sort", "include"],
    "/documents/{document_id}": [],
    "/documents/{document_id}/page": [],
    "/documents/{document_id}/export.xlsx": [],
    "/documents/{document_id}/report.pdf": [],
    "/invoices": ["cursor"],
    "/invoices/{id}": [],
    "/customers": [],
    "/customers/{customer_id}/notes": [],
    "/customers/{customer_id}/notes/{note_id}": [],
    "/tasks": [],
    "/contacts": [],
    "/contacts/{contactId}": [],
    "/export.csv": [],
    "/stats": [],
    "/dashboard": [],
    "/countries": [],
    "/countries/{id}": [],
    "/tags": [],
}


def openapi() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, Any] = {
        path: {
            "get": {
                "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]
            }
        }
        for path, names in READS.items()
    }
    wanted = {
        "name": "document_id",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    }
    paths["/preview"] = {"get": {"parameters": [{"$ref": "#/components/parameters/document"}]}}
    paths["/documents"]["post"] = _body("NewDocument")
    paths["/documents/{document_id}"] |= {"patch": _body("NewDocument"), "delete": {}}
    paths["/customers"]["post"] = _body("NewCustomer")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shop", "version": "1"},
        "paths": paths,
        "components": {
            "parameters": {"document": wanted},
            "schemas": {
                "NewDocument": {"properties": {"title": {}, "customer_id": {}, "id": {"readOnly": True}}},
                "NewCustomer": {
                    "allOf": [{"properties": {"name": {}}}, {"$ref": "#/components/schemas/Mail"}]
                },
                "Mail": {"properties": {"email": {"type": "string"}}},
            },
        },
    }


def document() -> tuple[Operation, ...]:
    """Return its operations."""
    return read_openapi(openapi())


def _body(schema: str) -> dict[str, Any]:
    return {
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        }
    }
