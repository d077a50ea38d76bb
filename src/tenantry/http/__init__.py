"""The edge of a web application: each request works as the one tenant for which its identity was verified.

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

Here are the parts for ASGI, and what all frameworks share; :mod:`tenantry.http.wsgi` and :mod:`tenantry.http.litestar`
are asked for by name. Nothing of a framework is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tenantry.errors import MissingExtra
from tenantry.http.api_keys import APIKeyResolver, NewKey, StoredKey, new_key
from tenantry.http.asgi import TenantMiddleware, lifespan
from tenantry.http.gateway import GatewayResolver
from tenantry.http.identity import Identity, Resolver, any_of
from tenantry.http.naming import by_header, by_host, by_path
from tenantry.http.problems import Problem, Refusal, problem
from tenantry.http.request import RequestView
from tenantry.http.tenant_keys import TenantKeyResolver

if TYPE_CHECKING:
    from tenantry.http.fastapi import current_tenant, handle_errors
    from tenantry.http.jwks import JWKS
    from tenantry.http.jwt import JWTResolver
    from tenantry.http.keys import StaticKeys

__all__ = [
    "JWKS",
    "APIKeyResolver",
    "GatewayResolver",
    "Identity",
    "JWTResolver",
    "NewKey",
    "Problem",
    "Refusal",
    "RequestView",
    "Resolver",
    "StaticKeys",
    "StoredKey",
    "TenantKeyResolver",
    "TenantMiddleware",
    "any_of",
    "by_header",
    "by_host",
    "by_path",
    "current_tenant",
    "handle_errors",
    "lifespan",
    "new_key",
    "problem",
]

# name -> module that has it, and the extra that brings what the module needs
_LATE = {
    "JWKS": ("tenantry.http.jwks", "jwt"),
    "JWTResolver": ("tenantry.http.jwt", "jwt"),
    "StaticKeys": ("tenantry.http.keys", "jwt"),
    "current_tenant": ("tenantry.http.fastapi", "fastapi"),
    "handle_errors": ("tenantry.http.fastapi", "fastapi"),
}
_PACKAGES = {"fastapi": "fastapi", "starlette": "fastapi", "httpx": "httpx", "joserfc": "joserfc"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _LATE[name]
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(str(error.name).partition(".")[0])
        if package is None:
            raise
        raise MissingExtra(package, extra) from error
    globals()[name] = found
    return found
