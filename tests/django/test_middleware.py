"""A request is of one tenant from its first query to the last byte of its answer, and no other request is."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import override_settings

from tenantry import current_context
from tenantry.databases.postgres.binding import bound_to
from tenantry.django import sdk
from tenantry.errors import ContextMismatch
from tests.django import urls
from tests.django.conftest import TENANTS, Site
from tests.django.project import DOMAIN

OWN = {tenant: [f"{tenant} lamps", "the same"] for tenant in TENANTS}


def nothing_is_bound() -> bool:
    connection = connections["default"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_shop_category")
        rows = cursor.fetchone()[0]
    return (bound_to(connection), connection.in_atomic_block, rows, current_context()) == (
        None,
        False,
        0,
        None,
    )


def test_each_host_has_its_own_rows(site: Site) -> None:
    pids = set()
    for tenant in TENANTS * 3:
        found = site.client(tenant).get("/seen").json()
        assert (found["names"], found["ambient"]) == (OWN[tenant], tenant)
        pids.add(found["pid"])
    assert len(pids) == 1, "the connection was not kept"
    assert nothing_is_bound()


@pytest.mark.parametrize(
    ("host", "status", "code"),
    [
        (f"nobody.{DOMAIN}", 404, "no-tenant"),
        (f"acme.globex.{DOMAIN}", 404, "no-tenant"),
        (f"acme%00.{DOMAIN}", 400, None),
        (DOMAIN, 404, "no-tenant"),
        ("acme.elsewhere.example", 400, None),
        (f"acme.{DOMAIN}, globex.{DOMAIN}", 400, None),
    ],
)
def test_a_host_of_no_tenant_is_refused(site: Site, host: str, status: int, code: str | None) -> None:
    answer = Client(headers={"host": host}).get("/seen")
    assert answer.status_code == status
    if code is not None:
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == code
    assert b"lamps" not in answer.content


def test_no_other_header_chooses(site: Site) -> None:
    for name in ("x-forwarded-host", "x-tenant-id", "x-host", "forwarded"):
        answer = site.client("acme").get("/seen", headers={name: f"globex.{DOMAIN}"})
        assert answer.json()["names"] == OWN["acme"]


def test_the_host_is_the_one_that_django_believes(site: Site) -> None:
    with override_settings(USE_X_FORWARDED_HOST=True):
        answer = site.client("acme").get("/seen", headers={"x-forwarded-host": f"GLOBEX.{DOMAIN}"})
    assert answer.json()["names"] == OWN["globex"]


def test_a_public_path_sees_no_rows(site: Site) -> None:
    found = site.client("acme").get("/public").json()
    assert (found["names"], found["ambient"]) == ([], None)


def test_a_suspended_tenant_is_refused(site: Site) -> None:
    sdk().tenants.suspend("globex", reason="test")
    answer = site.client("globex").get("/seen")
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant-suspended")
    assert site.client("acme").get("/seen").status_code == 200
    sdk().tenants.resume("globex")


@pytest.mark.parametrize(
    ("then", "status", "kept"),
    [("", 200, True), ("404", 404, True), ("refused", 404, True), ("500", 500, False), ("raise", 500, False)],
)
@pytest.mark.parametrize("atomic", [False, True], ids=["", "ATOMIC_REQUESTS"])
def test_what_failed_is_rolled_back(site: Site, then: str, status: int, kept: bool, atomic: bool) -> None:
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = atomic
    if atomic and then in ("404", "refused"):
        kept = False  # an exception left the view
    client = site.client("acme", raise_request_exception=False)
    assert client.get("/write", {"name": "new", "then": then}).status_code == status
    assert ("new" in client.get("/seen").json()["names"]) is kept
    assert urls.noted == ([("new", ["acme lamps", "new", "the same"])] if kept else [])
    assert site.client("globex").get("/seen").json()["names"] == OWN["globex"]
    assert nothing_is_bound()


def test_an_error_of_the_database_that_a_view_swallowed_is_not_committed_as_success(site: Site) -> None:
    client = site.client("acme", raise_request_exception=False)
    assert client.get("/write", {"name": "twice", "then": "swallow"}).status_code == 500
    assert client.get("/seen").json()["names"] == OWN["acme"]
    assert nothing_is_bound()


def test_what_is_left_for_after_the_commit_is_done_as_the_tenant(site: Site) -> None:
    assert site.client("acme").get("/after").status_code == 200
    assert urls.noted == [["acme lamps", "after the commit", "the same"]]
    assert site.client("globex").get("/seen").json()["names"] == OWN["globex"]
    assert nothing_is_bound()


def test_a_stream_is_made_as_the_tenant(site: Site) -> None:
    answer: Any = site.client("acme").get("/stream")
    steps = iter(answer.streaming_content)
    assert next(steps) == b"acme lamps\n"
    assert current_context() is None
    assert list(steps) == [b"the same\n", b"as acme\n"]
    assert urls.noted == [OWN["acme"]]
    assert nothing_is_bound()


@pytest.mark.parametrize("end", ["close", "fail"])
def test_a_stream_that_ends_early_leaves_nothing_bound(site: Site, end: str) -> None:
    answer: Any = site.client("acme").get("/stream", {"fail": "yes"} if end == "fail" else {})
    steps = iter(answer.streaming_content)
    assert next(steps) == b"acme lamps\n"
    if end == "fail":
        with pytest.raises(ZeroDivisionError):
            list(steps)
    else:
        answer.close()
    assert urls.noted == [OWN["acme"]]
    assert nothing_is_bound()
    assert site.client("globex").get("/seen").json()["names"] == OWN["globex"]


def test_no_request_is_served_inside_of_a_stream(site: Site) -> None:
    answer: Any = site.client("acme").get("/stream")
    next(iter(answer.streaming_content))
    for path in ("/seen", "/public"):
        with pytest.raises(ContextMismatch, match="still bound"):
            site.client("globex").get(path)
    answer.close()
    assert nothing_is_bound()


def test_a_stream_of_a_tenant_that_was_suspended_meanwhile_is_not_made(site: Site) -> None:
    answer: Any = site.client("acme").get("/stream")
    sdk().tenants.suspend("acme", reason="test")
    with pytest.raises(Exception, match="suspended"):
        list(answer.streaming_content)
    sdk().tenants.resume("acme")


def test_a_file_that_is_rows_is_read_as_the_tenant(site: Site) -> None:
    answer: Any = site.client("acme").get("/file")
    assert b"".join(answer.streaming_content).decode().split("\n") == OWN["acme"]
    assert nothing_is_bound()


def test_a_file_of_the_disk_holds_no_connection(site: Site) -> None:
    answer: Any = site.client("acme").get("/disk")
    next(iter(answer.streaming_content))
    assert nothing_is_bound()
    answer.close()


def test_a_thread_of_ones_own_sees_nothing(site: Site) -> None:
    assert site.client("acme").get("/in_thread").json() == {"names": []}


def test_a_database_that_is_away_is_said_to_be(site: Site) -> None:
    connections["default"].close()
    connections["default"].settings_dict["PORT"] = 1
    answer = site.client("acme").get("/seen")
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert "127.0.0.1" not in answer.text


def test_asynchronous_views_query_as_the_tenant(site: Site) -> None:
    assert sorted(site.client("acme").get("/asynchronous").json()["names"]) == OWN["acme"]


def test_an_asynchronous_stream_is_refused(site: Site) -> None:
    client = site.client("acme", raise_request_exception=True)
    with pytest.raises(Exception, match="synchronous iterator"):
        client.get("/asynchronous_stream")
    assert nothing_is_bound()


def test_a_session_of_one_host_is_none_at_another(site: Site) -> None:
    acme = site.client("acme")
    assert acme.post("/login/", {"username": "admin", "password": "secret of acme"}).status_code == 302
    assert acme.get("/products.csv").status_code == 200
    stolen = site.client("globex")
    stolen.cookies = acme.cookies
    assert stolen.get("/products.csv").status_code == 302
    again = site.client("globex").post("/login/", {"username": "admin", "password": "secret of acme"})
    assert again.status_code == 200  # the form again: no such user here
