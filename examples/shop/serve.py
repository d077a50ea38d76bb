"""Starts an example: a database, two tenants, three people who may sign in, and a server."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
from collections.abc import Callable
from typing import Any

import uvicorn

from examples.shop.accounts import Accounts
from examples.shop.products import Product
from tenantry import MultiTenantSDK

MEMBERS = {"anna": ("acme",), "greta": ("globex",), "carl": ("acme", "globex")}
Build = Callable[[MultiTenantSDK, Accounts], Any]


def main(build: Build, program: str) -> None:
    """Run an example from the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--database", help="a URL; by default TENANTRY_DATABASE_URL, or a file of SQLite")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    url = options.database or (None if "TENANTRY_DATABASE_URL" in os.environ else "sqlite:///shop.db")
    accounts = people()
    asyncio.run(prepare(open_sdk(url)))
    # The address of a connection's peer stays what it is: see the page on resolvers, "A gateway that signs people in".
    uvicorn.run(build(open_sdk(url), accounts), port=options.port, proxy_headers=False)


def open_sdk(url: str | None) -> MultiTenantSDK:
    """Return the SDK of the shop."""
    return MultiTenantSDK.open(url, models=[Product], schema="create")


def people() -> Accounts:
    """Return accounts with new passwords, and print these."""
    accounts = Accounts()
    for user, tenants in MEMBERS.items():
        password = secrets.token_urlsafe(9)
        accounts.add(user, password, tenants)
        print(f"{user} of {' and '.join(tenants)}: password {password}")
    return accounts


async def prepare(sdk: MultiTenantSDK) -> None:
    """Create the tenants unless they exist."""
    async with sdk:
        for tenant in ("acme", "globex"):
            await sdk.tenants.create(tenant)
