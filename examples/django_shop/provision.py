"""Makes a database ready: roles, tables, isolation, two tenants with staff of the same name."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping

import django
from django.core.management import call_command

from tenantry.databases.postgres.provision import provision

TENANTS = ("acme", "globex")


def make_ready(admin_url: str, *, prefix: str = "shop") -> Mapping[str, str]:
    """Provision an empty database, and return the environment in which the project runs.

    Args:
        admin_url: A superuser's address of it.
        prefix: What the roles' names begin with.
    """
    made = asyncio.run(provision(admin_url, prefix=prefix))
    lines = (line.partition("=") for line in made.env().splitlines())
    environment = {name: value for name, _, value in lines}
    environment["SHOP_SECRET_KEY"] = secrets.token_urlsafe(40)
    os.environ.update(environment)
    return environment


def migrate() -> None:
    """Make the tables as their owner, and isolate them."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.django_shop.settings"
    django.setup()
    call_command("migrate", database="owner", verbosity=0)
    call_command("isolate", verbosity=0)


def stock(password: str) -> None:
    """Give each tenant an administrator and two products; the names tell whose they are."""
    from django.contrib.auth.models import User

    from examples.django_shop.models import Category, Product, Tag
    from tenantry.django import sdk, tenant

    for name in TENANTS:
        sdk().tenants.create(name)
        with tenant(name):
            User.objects.create_superuser("admin", f"admin@{name}.example", password)
            category = Category.objects.create(name="Lamps")
            tag = Tag.objects.create(word=f"{name}-sale")
            for number in (1, 2):
                made = Product.objects.create(
                    name=f"{name} lamp {number}", sku=f"L{number}", price=10 * number, category=category
                )
                made.tags.add(tag)
