"""A pytest plugin: tenants of its own for each test, on the database that ``tenantry_url`` names.

```ini
[pytest]
tenantry_url = sqlite:///{tmp}/app.db
```

```python
@pytest.fixture(scope="session")
def tenantry_models():
    return [Product]


async def test_products_stay_apart(two_tenants):
    acme, globex = two_tenants
    await acme.data.create(Product(name="Laptop"))
    assert await globex.data.count(Product) == 0
```

In the URL, ``{tmp}`` stands for a folder of the test's own and ``{worker}`` for the name of the pytest-xdist worker.
More options come from a fixture ``tenantry_options`` of yours, the arguments of :meth:`~tenantry.MultiTenantSDK.open`.
The fixtures are asynchronous and need pytest-asyncio, which ``pip install 'tenantry[testing]'`` brings.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pytest_asyncio

    from tenantry.schema import KeyedModel
    from tenantry.sdk import MultiTenantSDK, TenantHandle
else:
    try:
        import pytest_asyncio
    except ImportError:  # loaded with every pytest, wherever tenantry is installed
        pytest_asyncio = pytest

if "tenantry.testing.conformance" not in sys.modules:
    pytest.register_assert_rewrite("tenantry.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``tenantry_url``."""
    parser.addini("tenantry_url", "the database that the tenantry fixtures use", default="memory://")


@pytest.fixture
def tenantry_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of the database for this test; override it for another one."""
    url = str(request.config.getini("tenantry_url"))
    if "{tmp}" in url:
        folder: Path = request.getfixturevalue("tmp_path")
        url = url.replace("{tmp}", str(folder))
    return url.replace("{worker}", os.environ.get("PYTEST_XDIST_WORKER", "main"))


@pytest.fixture(scope="session")
def tenantry_models() -> Sequence[type[KeyedModel]]:
    """Return the models of the application; override it."""
    return ()


@pytest.fixture(scope="session")
def tenantry_options() -> Mapping[str, Any]:
    """Return further arguments of ``MultiTenantSDK.open``; override it."""
    return {}


@pytest_asyncio.fixture
async def tenantry_sdk(
    tenantry_url: str, tenantry_models: Sequence[type[KeyedModel]], tenantry_options: Mapping[str, Any]
) -> AsyncIterator[MultiTenantSDK]:
    """Give an open SDK, on the database of ``tenantry_url``."""
    from tenantry.sdk import MultiTenantSDK

    options: dict[str, Any] = {"schema": "create", "models": tenantry_models, **tenantry_options}
    async with MultiTenantSDK.open(tenantry_url, **options) as sdk:
        yield sdk


@pytest_asyncio.fixture
async def two_tenants(tenantry_sdk: MultiTenantSDK) -> AsyncIterator[tuple[TenantHandle, TenantHandle]]:
    """Give the handles of two new tenants. They and all their rows are gone when the test is over."""
    from tenantry.testing.cleanup import forget

    run = secrets.token_hex(6)
    ids = [f"{name}-{run}" for name in ("acme", "globex")]
    for id in ids:
        await tenantry_sdk.tenants.create(id)
    try:
        yield tenantry_sdk.tenant(ids[0]), tenantry_sdk.tenant(ids[1])
    finally:
        for id in ids:
            await forget(tenantry_sdk, id)
