"""``python -m examples.fastapi_app``: products of tenants with FastAPI."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from examples.shop.accounts import Accounts, Credentials
from examples.shop.products import NewProduct, Product, as_csv
from examples.shop.serve import main
from tenantry import MultiTenantSDK, TenantHandle
from tenantry.http import current_tenant, handle_errors, lifespan


def build(sdk: MultiTenantSDK, accounts: Accounts) -> FastAPI:
    """Return the application."""
    app = FastAPI(lifespan=lifespan(sdk))
    handle_errors(app)
    tenant: Any = Depends(current_tenant(sdk, accounts.resolver()))

    @app.post("/login")
    async def login(credentials: Credentials) -> dict[str, str]:
        token = await asyncio.to_thread(accounts.sign_in, credentials)
        if token is None:
            raise HTTPException(401, "No such user, or another password.")
        return {"token": token}

    @app.post("/products", status_code=201)
    async def create(new: NewProduct, tenant: Annotated[TenantHandle, tenant]) -> Product:
        return await tenant.data.create(new.product())

    @app.get("/products")
    async def products(tenant: Annotated[TenantHandle, tenant]) -> list[Product]:
        return list(await tenant.data.read(Product, order_by="sku"))

    @app.get("/products.csv")
    async def export(tenant: Annotated[TenantHandle, tenant]) -> StreamingResponse:
        lines: AsyncIterator[str] = as_csv(tenant)
        return StreamingResponse(lines, media_type="text/csv")

    @app.get("/products/{id}")
    async def product(id: UUID, tenant: Annotated[TenantHandle, tenant]) -> Product:
        return await tenant.data.get(Product, id)

    return app


if __name__ == "__main__":
    main(build, "examples.fastapi_app")
