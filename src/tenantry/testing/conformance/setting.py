"""What the tests of the suite stand on: an open SDK for the class, and tenants of its own for each test."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from tenantry.ports import Capability
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.models import MODELS

NewTenant = Callable[[str], Awaitable[TenantHandle]]

_numbers = itertools.count(1)
_run = secrets.token_hex(4)


def fresh(name: str) -> str:
    """Return a tenant id that nobody has used, whatever the database holds already."""
    return f"{name}-{_run}-{next(_numbers)}"


def chance(seed: object) -> random.Random:
    """Return randomness that is the same in every run."""
    return random.Random(str(seed))  # noqa: S311 - nothing here is secret


def needs(sdk: MultiTenantSDK, capability: Capability) -> None:
    """Skip the test where the database lacks ``capability``."""
    if capability not in sdk.capabilities:
        pytest.skip(f"the database lacks {capability.value}")


class Setting:
    """Names the database that the tests run on.

    Set ``config`` to the arguments of :meth:`~tenantry.MultiTenantSDK.open`, or override the fixture
    ``database_config``, which returns them. The suite opens it with ``schema="create"``, so it may be empty; what it
    writes belongs to tenants that it makes.
    """

    pytestmark: ClassVar[Any] = pytest.mark.asyncio(loop_scope="class")

    config: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def database_config(cls) -> Mapping[str, Any]:
        """Return the arguments of ``MultiTenantSDK.open`` for the database under test."""
        return cls.config

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def sdk(cls, database_config: Mapping[str, Any]) -> AsyncIterator[MultiTenantSDK]:
        """Give the SDK that all tests of the class share."""
        async with cls.open_database(database_config) as sdk:
            yield sdk

    @pytest_asyncio.fixture(loop_scope="class")
    async def second(
        self, sdk: MultiTenantSDK, database_config: Mapping[str, Any]
    ) -> AsyncIterator[MultiTenantSDK]:
        """Give another SDK on the same database, as another process has one."""
        needs(sdk, Capability.MULTI_PROCESS)
        async with self.open_database(database_config) as second:
            yield second

    @pytest_asyncio.fixture(loop_scope="class")
    async def acme(self, sdk: MultiTenantSDK) -> TenantHandle:
        """Give a tenant without any rows."""
        return await self.new_tenant(sdk, "acme")

    @pytest_asyncio.fixture(loop_scope="class")
    async def globex(self, sdk: MultiTenantSDK) -> TenantHandle:
        """Give another tenant without any rows."""
        return await self.new_tenant(sdk, "globex")

    @classmethod
    @asynccontextmanager
    async def open_database(cls, config: Mapping[str, Any], **more: Any) -> AsyncIterator[MultiTenantSDK]:
        """Open the database under test."""
        options: dict[str, Any] = {"schema": "create", "models": MODELS, "env": {}, **config, **more}
        async with MultiTenantSDK.open(**options) as sdk:
            yield sdk

    @staticmethod
    async def new_tenant(sdk: MultiTenantSDK, name: str) -> TenantHandle:
        """Create a tenant and return its handle."""
        tenant = await sdk.tenants.create(fresh(name), name=name)
        return sdk.tenant(tenant.id)
