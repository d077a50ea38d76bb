"""The example's project on a database of its own, with two tenants that have rows with the same names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.test import Client
from django.test.utils import override_settings

from tenantry.sync import MultiTenantSDK
from tests.databases.postgres.deployment import deploy
from tests.django.project import DOMAIN, TENANTRY, configure, databases, entry
from tests.servers import PostgresServer

configure()

TENANTS = ("acme", "globex")


@dataclass
class Site:
    """A database in which the project is migrated and isolated.

    Attributes:
        admin_url: A superuser's address of it.
        options: What ``MultiTenantSDK.open`` takes.
    """

    admin_url: str
    options: Mapping[str, Any]

    def url(self, role: str) -> str:
        return str(self.options["url"] if role == "app" else self.options["database"][f"{role}_url"])

    def client(self, tenant: str, **options: Any) -> Client:
        return Client(headers={"host": f"{tenant}.{DOMAIN}"}, **options)


@pytest.fixture(scope="session")
def deployed(postgres_server: PostgresServer) -> Iterator[Site]:
    url = postgres_server.create_database("django")
    made = Site(url, {**asyncio.run(deploy(url)), "env": {}})
    with MultiTenantSDK.open(**made.options, schema="create") as sdk:
        for tenant in TENANTS:
            sdk.tenants.create(tenant)
    yield made
    postgres_server.drop_database("django")


@pytest.fixture(scope="session")
def migrated(deployed: Site) -> Site:
    with project(deployed):
        call_command("migrate", database="owner", verbosity=0)
        call_command("isolate", verbosity=0)
    return deployed


@pytest.fixture
def site(migrated: Site) -> Iterator[Site]:
    """Give the project, connected in this thread; each tenant has a user and two categories."""
    from tests.django import urls

    urls.noted.clear()
    with project(migrated):
        stock(migrated)
        yield migrated


def project(site: Site, **options: Any) -> Any:
    """Return the block in which Django and the SDK are connected to a site."""
    from contextlib import ExitStack

    stack = ExitStack()
    raw, owner = entry(site.url("raw"), CONN_MAX_AGE=600), entry(site.url("owner"))
    stack.enter_context(databases(default=raw, owner=owner))
    given = {**TENANTRY, "SDK": site.options, **options}
    given = {name: value for name, value in given.items() if value is not None}
    stack.enter_context(override_settings(TENANTRY=given))
    config: Any = apps.get_app_config("tenantry")
    config.trusted.clear()
    stack.callback(config.close)
    return stack


def stock(site: Site) -> None:
    import psycopg
    from django.contrib.auth.models import User

    from examples.django_shop.models import Category
    from tenantry.django import tenant

    with psycopg.connect(site.admin_url, autocommit=True) as judge:
        names = (
            "django_shop_category",
            "django_shop_tag",
            "django_shop_product",
            "django_shop_order",
            "auth_user",
        )
        judge.execute(f"TRUNCATE {', '.join((*names, 'django_session'))} CASCADE")
        judge.execute("UPDATE tenantry.tenants SET status = 'active'")
    for name in TENANTS:
        with tenant(name):
            User.objects.create_superuser("admin", f"admin@{name}.example", "secret of " + name)
            Category.objects.create(name=f"{name} lamps")
            Category.objects.create(name="the same")


__all__ = ["TENANTS", "Site", "project"]
