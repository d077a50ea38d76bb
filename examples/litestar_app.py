"""``python -m examples.litestar_app``: products of tenants with Litestar."""

import asyncio
from uuid import UUID

from litestar import Litestar, get, post
from litestar.exceptions import NotAuthorizedException
from litestar.params import FromPath, JSONBody
from litestar.response import Stream

from examples.shop.accounts import Accounts, Credentials
from examples.shop.products import NewProduct, Product, as_csv
from examples.shop.serve import main
from tenantry import MultiTenantSDK
from tenantry.http.litestar import CurrentTenant, TenantPlugin


@post("/products")
async def create(data: JSONBody[NewProduct], tenant: CurrentTenant) -> Product:
    """Add a product."""
    return await tenant.data.create(data.product())


@get("/products")
async def products(tenant: CurrentTenant) -> list[Product]:
    """List the products."""
    return list(await tenant.data.read(Product, order_by="sku"))


@get("/products.csv")
async def export(tenant: CurrentTenant) -> Stream:
    """Stream all products."""
    return Stream(as_csv(tenant), media_type="text/csv")


@get("/products/{id:uuid}")
async def product(id: FromPath[UUID], tenant: CurrentTenant) -> Product:
    """Show one product."""
    return await tenant.data.get(Product, id)


def build(sdk: MultiTenantSDK, accounts: Accounts) -> Litestar:
    """Return the application."""

    @post("/login", status_code=200)
    async def login(data: JSONBody[Credentials]) -> dict[str, str]:
        token = await asyncio.to_thread(accounts.sign_in, data)
        if token is None:
            raise NotAuthorizedException("No such user, or another password.")
        return {"token": token}

    tenants = TenantPlugin(sdk, identity=accounts.resolver(), public=["/login"])
    return Litestar([login, create, products, export, product], plugins=[tenants])


if __name__ == "__main__":
    main(build, "examples.litestar_app")
