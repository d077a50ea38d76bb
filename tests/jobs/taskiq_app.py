"""The taskiq application of a worker that is killed: `taskiq worker tests.jobs.taskiq_app:broker`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import redis.asyncio
from taskiq import AsyncBroker, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from tenantry import MultiTenantSDK
from tenantry.jobs.taskiq import TenantMiddleware
from tests.jobs.shop import open_sdk, whoami


def make_app(sdk: MultiTenantSDK, url: str) -> tuple[AsyncBroker, Any]:
    """Return a broker that hands out again what was not acknowledged, and its one task."""
    broker = RedisStreamBroker(url, idle_timeout=1500, xread_block=200).with_middlewares(
        TenantMiddleware(sdk)
    )

    @broker.task("hang")
    async def hang(text: str) -> None:
        """Run until somebody allows it to end."""
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.rpush("ran", f"begun {whoami()}")
            while not await client.exists("finish"):
                await asyncio.sleep(0.05)
            await client.rpush("ran", f"done {whoami()}")

    return broker, hang


if "TEST_SHOP_URL" in os.environ:
    sdk = open_sdk(os.environ["TEST_SHOP_URL"])
    broker, hang = make_app(sdk, os.environ["TEST_QUEUE_URL"])

    @broker.on_event(TaskiqEvents.WORKER_STARTUP)
    async def startup(state: TaskiqState) -> None:
        await sdk.initialize()

    @broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
    async def shutdown(state: TaskiqState) -> None:
        await sdk.close()
