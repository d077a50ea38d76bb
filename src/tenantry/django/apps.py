"""The application that a project installs: it has the SDK of this process."""

from __future__ import annotations

import os
import threading

from django.apps import AppConfig
from django.core import checks as registry

from tenantry.django.options import options
from tenantry.sync import MultiTenantSDK


class TenantryConfig(AppConfig):
    """Opens one SDK in each process, when it is first needed.

    A process that forks later opens it again in its children; see :mod:`tenantry.sync.forks`.
    """

    name = "tenantry.django"
    label = "tenantry"
    verbose_name = "tenantry"
    _sdk: MultiTenantSDK | None = None

    def ready(self) -> None:
        """Register the checks. Nothing is opened."""
        from tenantry.django import checks

        self._opening = threading.Lock()
        self.trusted: set[tuple[str, str]] = set()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        registry.register(checks.check_settings, "tenantry")
        registry.register(checks.check_roles, registry.Tags.database)

    def _after_fork(self) -> None:
        self._opening = threading.Lock()  # whoever held it is in the parent

    @property
    def sdk(self) -> MultiTenantSDK:
        """The open SDK.

        Raises:
            ConfigurationError: The setting is wrong.
            IsolationError: The database would not hold one tenant from another.
            Unavailable: It cannot be reached.
        """
        if self._sdk is None:
            with self._opening:
                if self._sdk is None:
                    sdk = MultiTenantSDK.open(**options().sdk)
                    sdk.initialize()
                    self._sdk = sdk
        return self._sdk

    def close(self) -> None:
        """Close the SDK, until it is needed again."""
        with self._opening:
            sdk, self._sdk = self._sdk, None
        if sdk is not None:
            sdk.close()
