"""Flags and settings of one tenant, as its handle has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from tenantry.context import TenantContext
from tenantry.errors import ConfigurationError
from tenantry.plans import FlagValues, TenantSettings
from tenantry.plans.settings import read_settings
from tenantry.tenants.manager import TenantManager

S = TypeVar("S", bound=TenantSettings)


class TenantFlags:
    """The feature flags of one tenant, and of the handle's user where one is named."""

    def __init__(self, tenants: TenantManager, context: TenantContext) -> None:
        self._tenants = tenants
        self._context = context

    async def read(self) -> FlagValues:
        """Return all flags as of now, to be asked without waiting: ``flags["theme"]``, ``flags.enabled("reports")``.

        It waits for the database only where the tenant changed, or is new to this process.
        """
        standing = await self._tenants._standings.of(self._context.tenant_id)
        return self._tenants._flag_values(standing, self._context.user_id)

    async def enabled(self, flag: str) -> bool:
        """Whether a flag of true or false is on.

        Raises:
            UnknownFlag: It is not declared; says which name may have been meant.
            InvalidRecord: It is no flag of true or false.
        """
        return (await self.read()).enabled(flag)

    async def value(self, flag: str) -> Any:
        """Return the value of a flag.

        Raises:
            UnknownFlag: It is not declared.
        """
        return (await self.read())[flag]


class BoundSettings:
    """The settings of one tenant, typed by the model that the SDK was opened with."""

    def __init__(self, tenants: TenantManager, context: TenantContext) -> None:
        self._tenants = tenants
        self._context = context

    @overload
    async def get(self) -> Any: ...
    @overload
    async def get(self, model: type[S]) -> S: ...
    async def get(self, model: type[TenantSettings] | None = None) -> Any:
        """Return the settings, with defaults for what the tenant never set.

        Args:
            model: The model that the SDK was opened with, for the type checker.

        Raises:
            InvalidRecord: What is stored does not fit the model any more; ``field`` names it.
        """
        declared = self._declared()
        if model is not None and model is not declared:
            raise ConfigurationError(
                f"The settings are of {declared.__name__}, not {model.__name__}.", field="settings"
            )
        standing = await self._tenants._standings.of(self._context.tenant_id)
        return read_settings(declared, standing.settings)

    async def update(
        self, changes: Mapping[str, Any] | None = None, /, *, version: int | None = None, **fields: Any
    ) -> Any:
        """Change some settings and return all of them; what is not named stays. The change is audited by name.

        Args:
            changes: New values by name; or name them as keywords.
            version: The version of the tenant's row in the directory that must be stored still.
            **fields: New values by name.

        Raises:
            InvalidRecord: A value is not what the model wants, or there is no such setting; ``field`` names it.
            Conflict: The tenant changed since ``version``.
        """
        declared = self._declared()
        await self._tenants._standings.of(self._context.tenant_id)  # which admits it
        wanted = {**(changes or {}), **fields}
        tenant = await self._tenants._change_settings(
            self._context.tenant_id, wanted, version, self._context.user_id
        )
        return read_settings(declared, tenant.settings)

    def _declared(self) -> type[TenantSettings]:
        declared = self._tenants._catalog.settings
        if declared is None:
            raise ConfigurationError(
                "No model of settings was declared.",
                field="settings",
                fix="Open the SDK with settings=…, a subclass of TenantSettings.",
            )
        return declared
