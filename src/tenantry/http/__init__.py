"""FastAPI: each request works as the one tenant for which its identity was verified.

::

    sdk = MultiTenantSDK.open("sqlite:///shop.db", models=[Product], schema="create")

    async def identity(user: Annotated[User, Depends(signed_in)]) -> Identity:  # your own authentication
        return Identity(user.organisation, user=user.id)

    CurrentTenant = Annotated[TenantHandle, Depends(current_tenant(sdk, identity))]
    app = FastAPI(lifespan=lifespan(sdk))
    handle_errors(app)

    @app.get("/products")
    async def products(tenant: CurrentTenant) -> list[Product]:
        return list(await tenant.data.read(Product))

The tenant comes from the identity and from nowhere else. A header, host or path only chooses among the tenants of
the identity; whatever else it names is refused, with the same answer whether that tenant exists or not.
"""

from tenantry.errors import MissingExtra

try:
    from tenantry.http.problems import Refusal, handle_errors, problem
    from tenantry.http.resolve import Identity, by_header, by_host, by_path
    from tenantry.http.tenant import current_tenant, lifespan
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("fastapi", "starlette"):
        raise
    raise MissingExtra("fastapi", "fastapi") from error

__all__ = [
    "Identity",
    "Refusal",
    "by_header",
    "by_host",
    "by_path",
    "current_tenant",
    "handle_errors",
    "lifespan",
    "problem",
]
