"""A shop on SQLite, which several processes can share, and an empty queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from tenantry import MultiTenantSDK
from tests.jobs.celery_site import KEY, Site
from tests.jobs.shop import opened
from tests.servers import ValkeyServer


@pytest.fixture
def shop_url(tmp_path: Path) -> str:
    """Give the address of the shops' database."""
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
async def sdk(shop_url: str) -> AsyncIterator[MultiTenantSDK]:
    """Give the SDK, with both shops."""
    async with opened(shop_url) as sdk:
        yield sdk


@pytest.fixture
def queue(valkey_server: ValkeyServer) -> Iterator[redis.Redis]:
    """Give a client of the queue's server, which is empty."""
    with redis.Redis.from_url(valkey_server.url()) as client:
        client.flushall()
        yield client


@pytest.fixture
def queue_url(queue: redis.Redis, valkey_server: ValkeyServer) -> str:
    """Give the address of the queue, which is empty."""
    return valkey_server.url()


@pytest.fixture(scope="session")
def celery_site(valkey_server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the Celery application, without a worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_QUEUE_URL", valkey_server.url(1))
        patch.setenv("TENANTRY_JOBS_KEY", KEY.export())
        from tests.jobs import celery_app
    log = tmp_path_factory.mktemp("celery") / "worker.log"
    with redis.Redis.from_url(valkey_server.url(1)) as client:
        yield Site(celery_app, valkey_server, client, log)
        celery_app.client.close()
        vars(celery_app.app.backend)["client"].close()
        celery_app.app.close()
