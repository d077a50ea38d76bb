"""``python -m examples.starlette_app``: products of tenants with Starlette."""

from __future__ import annotations

import asyncio
import uuid

import pydantic
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from examples.shop.accounts import Accounts, Credentials
from examples.shop.products import NewProduct, Product, as_csv
from examples.shop.serve import main
from tenantry import MultiTenantSDK
from tenantry.http import TenantMiddleware, lifespan


async def create(request: Request) -> Response:
    """Add a product."""
    new = NewProduct.model_validate_json(await request.body())
    made = await request.state.tenant.data.create(new.product())
    return JSONResponse(made.model_dump(mode="json"), 201)


async def products(request: Request) -> Response:
    """List the products."""
    rows = await request.state.tenant.data.read(Product, order_by="sku")
    return JSONResponse([row.model_dump(mode="json") for row in rows])


async def product(request: Request) -> Response:
    """Show one product."""
    id: uuid.UUID = request.path_params["id"]
    return JSONResponse((await request.state.tenant.data.get(Product, id)).model_dump(mode="json"))


async def export(request: Request) -> Response:
    """Stream all products."""
    return StreamingResponse(as_csv(request.state.tenant), media_type="text/csv")


async def invalid(request: Request, error: Exception) -> Response:
    """Answer a body that is no product."""
    assert isinstance(error, pydantic.ValidationError)
    return Response(error.json(include_url=False, include_input=False), 422, media_type="application/json")


def build(sdk: MultiTenantSDK, accounts: Accounts) -> Starlette:
    """Return the application."""

    async def login(request: Request) -> Response:
        credentials = Credentials.model_validate_json(await request.body())
        token = await asyncio.to_thread(accounts.sign_in, credentials)
        if token is None:
            raise HTTPException(401, "No such user, or another password.")
        return JSONResponse({"token": token})

    tenants = Middleware(TenantMiddleware, sdk, identity=accounts.resolver(), public=["/login"])
    routes = [
        Route("/login", login, methods=["POST"]),
        Route("/products", create, methods=["POST"]),
        Route("/products", products),
        Route("/products.csv", export),
        Route("/products/{id:uuid}", product),
    ]
    return Starlette(
        routes=routes,
        middleware=[tenants],
        lifespan=lifespan(sdk),
        exception_handlers={pydantic.ValidationError: invalid},
    )


if __name__ == "__main__":
    main(build, "examples.starlette_app")
