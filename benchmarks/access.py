"""What an access policy costs a read by primary key.

One row of 1,000 is read from PostgreSQL by 16 tasks of one tenant, with coalescing off: without a policy, with one that
has roles but no conditions on rows, and with one whose condition each read carries.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

from rich.console import Console

from benchmarks.harness import Contender, Effort, Operation, Ratio, Report, compare, judge
from tenantry import Model, MultiTenantSDK
from tenantry.security.access import AccessPolicy, Role, allow
from tests.databases.postgres.deployment import deploy
from tests.servers import PostgresServer

ROWS = 1_000
TASKS = 16

RATIOS = [
    Ratio("policy_vs_none", "policy", "none", 0.95),
    Ratio("policy_with_conditions_vs_none", "policy_with_conditions", "none"),
]


class Item(Model):
    """What is read."""

    __collection__ = "items"

    name: str
    owner: str
    price: Decimal


POLICIES = {
    "none": None,
    "policy": AccessPolicy(Role("reader", allow("read", Item)), Role("clerk", allow("update", Item))),
    "policy_with_conditions": AccessPolicy(
        Role("reader", allow("read", Item, where=lambda item, user: item.owner == user.id))
    ),
}


async def run(effort: Effort, console: Console) -> Report:
    """Start a server, fill it, measure."""
    with PostgresServer.start() as server:
        options = await deploy(server.create_database("bench"))
        options["database"]["pool_size"] = TASKS
        options |= {"models": [Item], "performance": {"coalesce": False}}
        async with AsyncExitStack() as stack:
            opened = {}
            for name, policy in POLICIES.items():
                sdk = MultiTenantSDK.open(**options, schema="create", access=policy)
                opened[name] = await stack.enter_async_context(sdk)
            ids = await _fill(opened["none"])
            contenders = [Contender(name, _read(sdk, ids), TASKS) for name, sdk in opened.items()]
            rates = await compare(contenders, effort, console)
    return judge("access", rates, RATIOS, console)


async def _fill(sdk: MultiTenantSDK) -> list[Any]:
    await sdk.tenants.create("acme")
    items = [Item(name=f"Item {row}", owner="ann", price=Decimal(row)) for row in range(ROWS)]
    made = await sdk.tenant("acme").data.bulk_create(items)
    ids = [item.id for item in made.rows]
    random.Random(1).shuffle(ids)
    return ids


def _read(sdk: MultiTenantSDK, ids: list[Any]) -> Operation:
    data = sdk.tenant("acme", user="ann", claims={"roles": ["reader", "clerk"]}).data

    async def read(task: int, number: int) -> object:
        row = await data.get("items", ids[(task * 61 + number) % ROWS])
        assert row["version"] == 1
        return row

    return read
