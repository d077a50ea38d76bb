"""The arq worker that is killed: `python -m arq tests.jobs.arq_app.WorkerSettings`."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import msgspec
from arq.connections import RedisSettings

from tenantry.jobs.arq import TenantJobs
from tests.jobs.shop import open_sdk, whoami

_ERRORS: list[Any] = []  # a worker in the same process returns them as they are


def _encode(value: Any) -> bytes:
    return msgspec.msgpack.encode(value, enc_hook=_kept)


def _kept(error: Any) -> msgspec.msgpack.Ext:
    if not isinstance(error, BaseException):
        raise TypeError(f"{type(error).__name__} is no value of MessagePack")
    _ERRORS.append(error)
    return msgspec.msgpack.Ext(1, str(len(_ERRORS) - 1).encode())


def _decode(raw: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.msgpack.decode(raw, ext_hook=lambda code, data: _ERRORS[int(data)])
    return decoded


SERIALIZERS: Final[dict[str, Any]] = {"job_serializer": _encode, "job_deserializer": _decode}


async def hang(ctx: dict[str, Any]) -> None:
    """Run until somebody allows it to end."""
    await ctx["redis"].rpush("ran", f"begun {whoami()}")
    while not await ctx["redis"].exists("finish"):
        await asyncio.sleep(0.05)
    await ctx["redis"].rpush("ran", f"done {whoami()}")


if "TEST_SHOP_URL" in os.environ:
    sdk = open_sdk(os.environ["TEST_SHOP_URL"])

    async def startup(ctx: dict[str, Any]) -> None:
        await sdk.initialize()

    async def shutdown(ctx: dict[str, Any]) -> None:
        await sdk.close()

    class WorkerSettings:
        functions = TenantJobs(sdk).functions(hang)
        redis_settings = RedisSettings.from_dsn(os.environ["TEST_QUEUE_URL"])
        job_serializer = SERIALIZERS["job_serializer"]
        job_deserializer = SERIALIZERS["job_deserializer"]
        on_startup = startup
        on_shutdown = shutdown
        poll_delay = 0.05
