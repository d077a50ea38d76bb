"""The tenant of a request by its user or its credentials; ASGI, forks, several databases, commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.test.utils import override_settings

from examples.django_shop.models import Category
from tenantry import current_context
from tenantry.django import tenant
from tenantry.errors import ContextMismatch, TenantryError
from tenantry.http import APIKeyResolver, Identity, Problem, StoredKey, by_header, new_key
from tests.django.conftest import Site, project
from tests.django.project import DOMAIN, databases, entry
from tests.django.test_middleware import OWN, nothing_is_bound
from tests.sync.children import in_child

communicator: Any = ApplicationCommunicator
KEY = new_key("shop")


def by_cookie(request: HttpRequest) -> Identity | None:
    """Stand for `request.user` and its memberships."""
    member = request.COOKIES.get("member")
    return Identity(member.split("+"), user=f"user of {member}") if member else None


async def too_late(request: HttpRequest) -> Identity | None:
    return None


def look_up(id: str) -> StoredKey | None:
    return StoredKey(KEY.digest, Identity("acme", user="key")) if id == KEY.id else None


def refuse(request: HttpRequest, problem: Problem) -> HttpResponse:
    return HttpResponse(f"sorry, {problem.status}", status=418)


@pytest.fixture
def shop(site: Site) -> Iterator[Site]:
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        yield site


def options(site: Site, **given: Any) -> Any:
    return override_settings(TENANTRY={"SDK": site.options, **given})


def asking(**cookies: str) -> Client:
    client = Client(raise_request_exception=False)
    client.cookies.load(cookies)
    return client


def test_a_member_is_served_as_the_members_tenant(shop: Site) -> None:
    with options(shop, USER=by_cookie, PUBLIC=["/health"]):
        found = asking(member="acme").get("/seen").json()
        assert (found["names"], found["user"]) == (OWN["acme"], "user of acme")
        assert asking().get("/seen").status_code == 401
        assert asking().get("/health").status_code == 200
        forged = asking(member="acme").get("/seen", headers={"x-tenant-id": "globex"})
        assert (forged.status_code, forged.json()["code"]) == (403, "tenant-forbidden")
        both = asking(member="acme+globex")
        assert both.get("/seen").json()["code"] == "tenant-unnamed"
        assert both.get("/seen", headers={"x-tenant-id": "globex"}).json()["names"] == OWN["globex"]
        assert asking(member="nobody").get("/seen").status_code == 403
    assert nothing_is_bound()


def test_a_function_that_would_have_to_be_awaited_is_refused(shop: Site) -> None:
    with options(shop, USER=too_late):
        assert asking().get("/seen").status_code == 500


def test_a_credential_is_resolved_as_elsewhere(shop: Site) -> None:
    with options(shop, RESOLVER=APIKeyResolver(look_up), NAMED_BY=[by_header("X-Shop")]):
        assert asking().get("/seen", headers={"x-api-key": KEY.text}).json()["names"] == OWN["acme"]
        assert asking().get("/seen", headers={"x-api-key": f"{KEY.text}x"}).status_code == 401
        forged = asking().get("/seen", headers={"x-api-key": KEY.text, "x-shop": "globex"})
        assert forged.json()["code"] == "tenant-forbidden"


def test_what_is_refused_may_be_answered_otherwise(shop: Site) -> None:
    with options(shop, USER=by_cookie, REFUSE=f"{__name__}.refuse"):
        answer = asking().get("/seen")
    assert (answer.status_code, answer.text) == (418, "sorry, 401")


# Django says that it collects such a stream before it sends it.
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("path", ["/seen", "/asynchronous", "/stream"])
def test_under_asgi(site: Site, path: str) -> None:
    async def ask(name: str) -> str:
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", f"{name}.{DOMAIN}".encode())],
        }
        application: Any = communicator(get_asgi_application(), scope)
        await application.send_input({"type": "http.request"})
        body, more = b"", True
        assert (await application.receive_output(60))["status"] == 200
        while more:
            part = await application.receive_output(60)
            body, more = body + part.get("body", b""), part.get("more_body", False)
        await application.wait(60)
        return body.decode()

    async def both() -> list[str]:
        return await asyncio.gather(*(ask(name) for name in ("acme", "globex") * 2))

    with databases(default=entry(site.url("raw"))):  # each request has a thread, so none keeps its connection
        bodies = asyncio.run(both())
    for name, body in zip(("acme", "globex") * 2, bodies, strict=True):
        assert f"{name} lamps" in body
        assert {"acme": "globex", "globex": "acme"}[name] not in body


def test_each_database_is_bound(site: Site) -> None:
    raw = entry(site.url("raw"))
    with databases(default=raw, second=raw), options(site, HOST=DOMAIN, DATABASES=["default", "second"]):
        with tenant("globex"):
            for alias in ("default", "second"):
                names = Category.objects.using(alias).order_by("name").values_list("name", flat=True)
                assert list(names) == OWN["globex"]
        for alias in ("default", "second"):
            assert Category.objects.using(alias).count() == 0
        with pytest.raises(ZeroDivisionError), tenant("globex"):
            write_everywhere_and_fail()
        with tenant("globex"):
            assert Category.objects.count() == 2


def write_everywhere_and_fail() -> None:
    for alias in ("default", "second"):
        Category.objects.using(alias).create(name=f"by {alias}")
    raise ZeroDivisionError


def test_a_database_that_is_left_out_is_not_bound(site: Site) -> None:
    raw = entry(site.url("raw"))
    with databases(default=raw, second=raw), options(site, HOST=DOMAIN), tenant("acme"):
        assert Category.objects.count() == 2
        assert Category.objects.using("second").count() == 0


def test_a_block_is_of_one_tenant(site: Site) -> None:
    @tenant("acme")
    def names() -> list[str]:
        context = current_context()
        assert context is not None
        assert context.tenant_id == "acme"
        return list(Category.objects.order_by("name").values_list("name", flat=True))

    assert [names(), names()] == [OWN["acme"]] * 2
    with tenant("globex"):
        for attempt in (names, tenant("globex").__enter__):
            with pytest.raises(ContextMismatch):
                attempt()
        assert Category.objects.filter(name="globex lamps").exists()
    assert nothing_is_bound()


@pytest.mark.parametrize("id", ["", "acme'--", "a" * 200, "ACME ", "\0"])
def test_what_cannot_be_a_tenant_is_refused(site: Site, id: str) -> None:
    with pytest.raises(TenantryError), tenant(id):
        pass


def test_a_child_process_is_bound_by_itself(migrated: Site) -> None:
    with project(migrated):
        with tenant("acme"):
            before = Category.objects.count()
        for connection in connections.all():
            connection.close()  # as before any fork: a socket is of one process

        def work() -> list[int]:
            with tenant("acme"):
                inside = Category.objects.count()
            found = [inside, Category.objects.count()]
            connections.close_all()
            return found

        assert in_child(work) == [before, 0]
        with tenant("acme"):
            assert Category.objects.count() == before
