"""Whatever a request names, it is for a tenant of its identity, or refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.http import Identity, Refusal, RequestView, by_header, by_host
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
