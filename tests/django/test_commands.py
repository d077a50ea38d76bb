"""Commands that know nothing of tenants, and a project whose people belong to several."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.http import HttpRequest
from django.test import Client
from django.test.utils import override_settings

from examples.django_shop.models import Category
from tenantry.django import sdk, tenant
from tenantry.http import Identity
from tests.databases.postgres.deployment import deploy
from tests.django.conftest import TENANTS, Site, project
from tests.servers import PostgresServer

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"
MEMBERS = {"anna": ("acme",), "carl": TENANTS}


def test_a_command_runs_as_a_tenant(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a password of the tests")
    made = [
        "createsuperuser",
        "--username",
        "boss",
        "--email",
        "boss@acme.example",
        "--noinput",
        "--verbosity=0",
    ]
    call_command("as_tenant", "acme", *made)
    with tenant("acme"):
        assert User.objects.get(username="boss").is_superuser
    with tenant("globex"):
        assert not User.objects.filter(username="boss").exists()


@pytest.mark.parametrize(
    ("arguments", "message"), [(["nobody", "check"], "nobody"), (["acme"], "which command")]
)
def test_a_command_of_nobody_is_refused(site: Site, arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("as_tenant", *arguments)


def test_a_command_without_a_tenant_makes_no_row(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a password of the tests")
    with pytest.raises(Exception, match="row-level security"):
        call_command("createsuperuser", username="boss", email="boss@acme.example", interactive=False)


def member(request: HttpRequest) -> Identity | None:
    user: Any = request.user
    return Identity(MEMBERS[user.username], user=user.username) if user.is_authenticated else None


@pytest.fixture
def people(postgres_server: PostgresServer) -> Iterator[Site]:
    """Give a project whose users and sessions are one list for all tenants."""
    url = postgres_server.create_database("people")
    made = Site(url, {**asyncio.run(deploy(url)), "env": {}})
    given = {"USER": f"{__name__}.member", "PUBLIC": ["/login/"]}
    given |= {"OPEN": ["auth.user", "auth.group", "sessions.session"]}
    middleware = [SESSIONS, USERS, "tenantry.django.TenantMiddleware"]
    with (
        project(made, HOST=None, **given),
        override_settings(MIDDLEWARE=middleware, ALLOWED_HOSTS=["testserver"]),
    ):
        call_command("migrate", database="owner", verbosity=0)
        call_command("isolate", verbosity=0)
        for name in TENANTS:
            sdk().tenants.create(name)
            with tenant(name):
                Category.objects.create(name=f"{name} lamps")
        for name in MEMBERS:
            User.objects.create_user(name, password=f"password of {name}")
        yield made
    postgres_server.drop_database("people")


def test_people_of_several_tenants_log_in_once(people: Site) -> None:
    anna, carl = Client(), Client()
    assert anna.get("/seen").status_code == 401
    for client, name in ((anna, "anna"), (carl, "carl")):
        answer = client.post("/login/", {"username": name, "password": f"password of {name}"})
        assert answer.status_code == 302
    assert anna.get("/seen").json()["names"] == ["acme lamps"]
    assert anna.get("/seen", headers={"x-tenant-id": "globex"}).status_code == 403
    for name in TENANTS:
        found = carl.get("/seen", headers={"x-tenant-id": name}).json()
        assert (found["names"], found["user"]) == ([f"{name} lamps"], "carl")
    assert Category.objects.count() == 0
