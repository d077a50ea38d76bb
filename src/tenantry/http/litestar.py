"""Litestar: a plugin that gives each handler its tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tenantry.errors import MissingExtra, TenantRequired, TenantryError
from tenantry.http.asgi import STATE, TenantMiddleware, lifespan
from tenantry.http.identity import AnyResolver
from tenantry.http.naming import Naming, by_header
from tenantry.http.problems import answer
from tenantry.sdk import MultiTenantSDK, TenantHandle

try:
    from litestar import Request, Response
    from litestar.config.app import AppConfig
    from litestar.di import NamedDependency, Provide
    from litestar.middleware import DefineMiddleware
    from litestar.plugins import InitPlugin
    from litestar.types import Scope
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "litestar":
        raise
    raise MissingExtra("litestar", "litestar") from error

CurrentTenant: TypeAlias = NamedDependency[TenantHandle]
"""The type of the argument by which a handler receives its caller's own tenant."""


class TenantPlugin(InitPlugin):
    """Serves each request and WebSocket of the application as one tenant, and opens and closes the SDK with it.

    ``Litestar([products], plugins=[TenantPlugin(sdk, identity=…)])``: a handler that has an argument
    ``tenant: CurrentTenant`` receives the caller's own; errors of tenantry are answered with problem details.

    Args:
        sdk: The SDK; the application opens and closes it.
        identity: Who sent a request: a :class:`~tenantry.http.identity.Resolver`, or a function.
        named_by: How a request names a tenant: to choose one where an identity has several.
        public: Paths that are served without a tenant: ``/health`` is one, ``/static/`` all below it.
        proxies: The networks of the proxies whose ``X-Forwarded-Host`` is believed.
        argument: The name of the handlers' argument.
    """

    def __init__(
        self,
        sdk: MultiTenantSDK,
        *,
        identity: AnyResolver,
        named_by: Sequence[Naming] = (by_header(),),
        public: Sequence[str] = (),
        proxies: Sequence[str] = (),
        argument: str = "tenant",
    ) -> None:
        self._sdk = sdk
        self._argument = argument
        middleware: Any = TenantMiddleware  # Litestar types each message of ASGI by itself
        self._middleware = DefineMiddleware(
            middleware, sdk=sdk, identity=identity, named_by=named_by, public=public, proxies=proxies
        )

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, the argument, the answers to errors, and the SDK's life."""
        app_config.middleware.insert(0, self._middleware)
        app_config.dependencies[self._argument] = Provide(_tenant, sync_to_thread=False)
        app_config.signature_types.append(TenantHandle)
        handler: Any = _answer
        app_config.exception_handlers.setdefault(TenantryError, handler)
        app_config.lifespan.append(lifespan(self._sdk))
        return app_config


def _tenant(scope: Scope) -> TenantHandle:
    handle = scope["state"].get(STATE)
    if not isinstance(handle, TenantHandle):
        raise TenantRequired("A handler on a public path")
    return handle


def _answer(request: Request[Any, Any, Any], error: TenantryError) -> Response[bytes]:
    found = answer(error, request.url.path)
    headers = {name: value for name, value in found.headers.items() if not name.startswith("Content-")}
    return Response(
        found.body, status_code=found.status, headers=headers, media_type=found.headers["Content-Type"]
    )
