"""Whatever a request names, it is for a tenant of its identity, or refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import ConfigurationError
from tenantry.http import Identity, Refusal, RequestView, by_header, by_host, by_path
from tenantry.http.asgi import view
from tenantry.http.naming import settle

IDS = st.sampled_from(["acme", "Acme", "globex", "a.b", "", "acme,globex"])


def connection(*headers: tuple[str, str], path: str = "/", **scope: Any) -> RequestView:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return view({"type": "http", "headers": raw, "path": path, **scope})


@given(st.frozensets(IDS), st.lists(IDS))
def test_only_a_tenant_of_the_identity_comes_out(tenants: frozenset[str], named: list[str]) -> None:
    wanted = set(named) or set(tenants)
    if len(wanted) == 1 and wanted <= tenants:
        assert {settle(Identity(tenants), named)} == wanted
        return
    with pytest.raises(Refusal) as caught:
        settle(Identity(tenants), named)
    assert caught.value.status == (400 if wanted and wanted <= tenants else 403)


@given(st.lists(IDS))
def test_without_an_identity_nothing_comes_out(named: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        settle(None, named)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("claims", "tenants"),
    [
        ({"org": "acme"}, {"acme"}),
        ({"org": ["acme", "globex"]}, {"acme", "globex"}),
        ({"org": []}, set()),
        ({}, set()),
        ({"org": None}, set()),
        ({"org": 7}, set()),
        ({"org": {"acme": True}}, set()),
        ({"org": ["acme", 7, None]}, {"acme"}),
        ({"tenant": "acme"}, set()),
    ],
)
def test_claims_name_tenants_as_text_or_a_list(claims: dict[str, Any], tenants: set[str]) -> None:
    identity = Identity.from_claims({"sub": 17, **claims}, tenant="org")
    assert (identity.tenants, identity.user) == (tenants, "17")
    assert Identity.from_claims(claims, tenant="org").user is None


def test_an_id_is_one_tenant_and_not_its_letters() -> None:
    assert Identity("acme").tenants == {"acme"}


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("acme.example.com", ["acme"]),
        ("ACME.Example.com:8000", ["acme"]),
        ("acme.example.com.", ["acme"]),
        ("a.b.example.com", ["a.b"]),
        ("example.com", []),
        ("acmeexample.com", []),
        ("acme.example.com.evil.net", []),
        ("acme.example.org", []),
        ("127.0.0.1:8000", []),
        (".example.com", [""]),
        ("", []),
    ],
)
def test_a_host_names_what_stands_before_the_domain(host: str, named: list[str]) -> None:
    assert list(by_host("Example.com")(connection(("Host", host)))) == named


def test_a_header_names_every_value_it_has() -> None:
    request = connection(("X-Org", "acme"), ("x-org", "globex"), ("X-Tenant-ID", "initech"))
    assert list(by_header("X-Org")(request)) == ["acme", "globex"]
    assert list(by_header()(request)) == ["initech"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/t/acme/products", ["acme"]),
        ("/t/acme", ["acme"]),
        ("/t/acme/", ["acme"]),
        ("/t/acme/../globex", ["acme"]),
        ("/t/../t/globex", [".."]),
        ("/t/./acme", ["."]),
        ("/t//acme", [""]),
        ("//t/acme", []),
        ("/T/acme", []),
        ("/t", []),
        ("/x/t/acme", []),
        ("/", []),
    ],
)
def test_a_path_names_one_segment_as_it_is(path: str, named: list[str]) -> None:
    assert list(by_path()(connection(path=path))) == named


def test_a_template_says_where_in_a_path_the_tenant_is() -> None:
    named = by_path("/api/{tenant}/v1")
    assert list(named(connection(path="/api/acme/v1/products"))) == ["acme"]
    assert list(named(connection(path="/api/acme/v2/products"))) == []


def test_the_path_begins_below_the_root_of_the_application() -> None:
    assert list(by_path()(connection(path="/shop/t/acme", root_path="/shop"))) == ["acme"]
    assert list(by_path()(connection(path="/t/acme", root_path="/shop"))) == ["acme"]
    assert list(by_path()(connection(path="/shopping/t/acme", root_path="/shop"))) == []


@pytest.mark.parametrize(
    "path", ["/t/../t/globex", "/t/./globex", "/t//globex", "/t/%2e%2e/globex", "/t/glo\x00bex"]
)
def test_a_path_that_may_be_read_in_two_ways_reaches_nobody(path: str) -> None:
    with pytest.raises(Refusal) as refused:
        settle(Identity(["acme", "globex"]), by_path()(connection(path=path)))
    assert refused.value.status == 403


@pytest.mark.parametrize("template", ["tenant", "/t", "/{tenant}/{tenant}", "/t/x{tenant}", ""])
def test_a_template_that_names_no_tenant_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="where the tenant is"):
        by_path(template)


@pytest.mark.parametrize("name", ["X_Tenant_ID", "X-Tenant ID", "", "X-Tenant\r\n", "Ténant"])
def test_a_name_that_servers_read_in_two_ways_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a header"):
        by_header(name)


@pytest.mark.parametrize("domain", ["", "."])
def test_a_domain_is_named(domain: str) -> None:
    with pytest.raises(ConfigurationError):
        by_host(domain)
