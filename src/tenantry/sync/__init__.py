"""tenantry for synchronous code: scripts, threads, notebooks, WSGI servers with workers that fork.

The classes have the names, methods, types and errors of the asynchronous ones, which do the work on an event loop in
a thread of its own::

    from tenantry.sync import MultiTenantSDK

    with MultiTenantSDK.open("sqlite:///app.db", models=[Product]) as sdk:
        with sdk.tenant("acme") as acme:
            page = acme.data.read(Product, lambda p: p.price < 2000)
"""

from tenantry.sync.data import DataManager
from tenantry.sync.insights import Insights
from tenantry.sync.sdk import MultiTenantSDK, SupportHandle, SystemHandle, TenantHandle
from tenantry.sync.tenants import (
    APIKeys,
    BoundSettings,
    Invitations,
    Members,
    Support,
    TenantFlags,
    TenantManager,
)

__all__ = [
    "APIKeys",
    "BoundSettings",
    "DataManager",
    "Insights",
    "Invitations",
    "Members",
    "MultiTenantSDK",
    "Support",
    "SupportHandle",
    "SystemHandle",
    "TenantFlags",
    "TenantHandle",
    "TenantManager",
]
