"""One configuration of Django for all tests of a process: it can be configured only once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import django
import sqlalchemy as sa
from django.conf import settings
from django.db import connections

DOMAIN = "shop.example"
TENANTRY: dict[str, Any] = {"HOST": DOMAIN, "PUBLIC": ["/health", "/public"]}


def configure() -> None:
    """Configure Django as the example does, with no database yet."""
    if settings.configured:
        return
    environment = {
        "TENANTRY_DATABASE_RAW_URL": "postgresql://nobody_raw@127.0.0.1:1/nothing",
        "SHOP_SECRET_KEY": "of the tests " * 5,
        "SHOP_DOMAIN": DOMAIN,
    }
    with patch.dict(os.environ, environment):
        from examples.django_shop import settings as example
    named = {name: getattr(example, name) for name in dir(example) if name.isupper()}
    settings.configure(**{**named, "ROOT_URLCONF": "tests.django.urls", "TENANTRY": TENANTRY})
    django.setup()


def entry(url: str, **more: Any) -> dict[str, Any]:
    """Return what DATABASES has for an address."""
    parts = sa.make_url(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.database,
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.host,
        "PORT": parts.port,
        **more,
    }


@contextmanager
def databases(**entries: Mapping[str, Any]) -> Iterator[None]:
    """Have Django's aliases lead to these, in this thread."""
    configure()
    before = dict(connections.settings)
    _forget()
    connections.settings.clear()
    connections.settings.update(connections.configure_settings({"default": {}, **entries}))
    try:
        yield
    finally:
        _forget()
        connections.settings.clear()
        connections.settings.update(before)


def _forget() -> None:
    for alias in list(connections.settings):
        connections[alias].close()
        del connections[alias]
