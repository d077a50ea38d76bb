"""What a request says of itself is taken from whoever may say it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import ConfigurationError
from tenantry.http import Refusal, RequestView
from tenantry.http.asgi import view
from tenantry.http.request import Headers, TrustedProxies

PROXY = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])


def request(*headers: tuple[str, str], client: str | None = None, **more: Any) -> RequestView:
    return RequestView("GET", "https", "/", headers=Headers(headers), client=client, **more)


# -- headers


def test_names_have_no_case_and_values_keep_their_order() -> None:
    headers = Headers([("X-Org", "a"), ("x-org", "b"), ("X-ORG", "A")])
    assert headers.all("x-Org") == ["a", "b", "A"]
    assert next(iter(headers)) == ("x-org", "a")


def test_a_header_that_is_asked_for_once_may_not_come_twice() -> None:
    assert Headers().one("X-Org") is None
    with pytest.raises(Refusal) as refused:
        Headers([("X-Org", "a"), ("x-org", "a")]).one("X-Org")
    assert refused.value.status == 400


def test_a_twin_with_an_underscore_is_another_header() -> None:
    assert Headers([("X_Tenant_ID", "globex")]).all("X-Tenant-ID") == []


# -- the host


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("acme.example.com", "acme.example.com"),
        ("ACME.example.com:8443", "acme.example.com"),
        ("acme.example.com.", "acme.example.com"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("", None),
    ],
)
def test_a_host_is_a_name_without_port_and_final_dot(host: str, found: str | None) -> None:
    assert request(("Host", host)).host == found


@pytest.mark.parametrize(
    "host",
    [
        "acme.example.com, globex.example.com",
        "acme.example.com/globex",
        "acme.example.com@evil.net",
        "acme.example.com:80:80",
        "acme.example.com\tx",
        "acme example.com",
        "acme.example.com:port",
        "ácme.example.com",
        "acme.example.com\x00",
        "acme.example.com#",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(Refusal) as refused:
        _ = request(("Host", host)).host
    assert (refused.value.status, refused.value.code) == (400, "invalid-host")


def test_two_hosts_are_refused() -> None:
    with pytest.raises(Refusal):
        _ = request(("Host", "acme.example.com"), ("host", "globex.example.com")).host


@pytest.mark.parametrize("client", [None, "", "203.0.113.9", "unix:/run/app.sock", "testclient", "11.0.0.1"])
def test_a_forwarded_host_of_a_stranger_is_not_looked_at(client: str | None) -> None:
    forged = request(
        ("Host", "acme.example.com"), ("X-Forwarded-Host", "globex.example.com"), client=client, proxies=PROXY
    )
    assert forged.host == "acme.example.com"


@pytest.mark.parametrize("client", ["10.1.2.3", "192.0.2.7", "2001:db8::9", "::ffff:10.1.2.3"])
def test_a_forwarded_host_of_a_proxy_counts(client: str) -> None:
    headers = ("Host", "inner:8000"), ("X-Forwarded-Host", "Globex.example.com:443")
    assert request(*headers, client=client, proxies=PROXY).host == "globex.example.com"
    assert request(headers[0], client=client, proxies=PROXY).host == "inner"
    assert request(*headers, client=client).host == "inner"


@pytest.mark.parametrize("forwarded", ["acme.example.com, globex.example.com", "acme.example.com,"])
def test_a_chain_of_forwarded_hosts_is_refused(forwarded: str) -> None:
    with pytest.raises(Refusal):
        _ = request(("X-Forwarded-Host", forwarded), client="10.0.0.1", proxies=PROXY).host


# -- proxies


def test_nobody_is_trusted_by_default() -> None:
    assert "127.0.0.1" not in TrustedProxies()
    assert None not in PROXY
    assert 5 not in PROXY


@pytest.mark.parametrize(
    "networks", ["10.0.0.0/8", ["0.0.0.0/0"], ["::/0"], ["10.0.0.1/8"], ["proxy.internal"], ["*"]]
)
def test_networks_are_checked(networks: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TrustedProxies(networks)
    assert refused.value.field == "proxies"


@given(st.text())
def test_text_that_is_no_address_is_no_proxy(text: str) -> None:
    assert f"x{text}" not in PROXY


# -- the scope


def test_a_scope_without_extras_has_a_view() -> None:
    found = view({"type": "websocket", "path": "", "headers": []})
    assert (found.method, found.path, found.query, found.client, found.host) == ("GET", "/", "", None, None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(["r-1"], "r-1"), (["a\tb"], None), (["x" * 200], None), (["a", "b"], None), ([], None), ([""], None)],
)
def test_a_correlation_id_is_kept_if_it_can_be_one(given: list[str], kept: str | None) -> None:
    assert request(*(("X-Request-ID", value) for value in given)).request_id == kept
