"""Another process of the application: `python -m tests.adversarial.worker JOB`, with its options on standard input.

It prints one line an event, and is there to be watched, frozen and killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tenantry import MultiTenantSDK
from tenantry.errors import TenantryError
from tests.adversarial.models import MODELS, Setting


def say(*words: object) -> None:
    print(*words, flush=True)


async def poll(sdk: MultiTenantSDK, tenant: str) -> None:
    """Read all the time; say when the last read was served and the first was refused."""
    say("ready")
    data = sdk.tenant(tenant).data
    refused = None
    while True:
        started = time.monotonic()
        try:
            await data.get(Setting, "theme")
        except TenantryError as error:
            if type(error) is not refused:
                say("refused", time.monotonic(), type(error).__name__)
            refused = type(error)
        else:
            # The read was let in when it started at the latest; when it ended says nothing.
            say("served", started)
            refused = None
        await asyncio.sleep(0.005)


async def write(sdk: MultiTenantSDK, tenant: str) -> None:
    """Write rows, alone and in transactions of three, and say which were acknowledged."""
    say("ready")
    data = sdk.tenant(tenant).data
    for number in range(1_000_000):
        if number % 2:
            await data.create(Setting(id=f"single {number}", value="x"))
            say("stored", f"single {number}")
            continue
        async with data.transaction() as unit:
            for part in "abc":
                await unit.create(Setting(id=f"triple {number} {part}", value="x"))
        for part in "abc":
            say("stored", f"triple {number} {part}")


JOBS: dict[str, Callable[[MultiTenantSDK, str], Coroutine[Any, Any, None]]] = {"poll": poll, "write": write}


async def main(job: str) -> None:
    options = json.loads(sys.stdin.readline())
    async with MultiTenantSDK.open(**options, models=MODELS) as sdk:
        await JOBS[job](sdk, "globex")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
