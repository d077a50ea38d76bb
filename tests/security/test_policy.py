"""A policy that cannot mean what it says is refused when the SDK is made, with the place of the fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tenantry import Model, MultiTenantSDK, between, contains, is_in
from tenantry.errors import ConfigurationError
from tenantry.security.access import AccessPolicy, Role, allow, allow_all, deny, hide
from tests.security.shop import MODELS, Order, Product


class Stranger(Model):
    __collection__ = "strangers"


def role(*rules: Any, **options: Any) -> Role:
    return Role("r", *rules, **options)


def made(*roles: Role) -> MultiTenantSDK:
    return MultiTenantSDK.open("memory://", models=MODELS, env={}, access=AccessPolicy(*roles))


@pytest.mark.parametrize(
    ("make", "field", "message"),
    [
        (lambda: role(allow("read", Stranger)), "access.r.rules[0]", "'strangers'"),
        (lambda: role(allow("read", Order), allow("read", "oders")), "access.r.rules[1]", "'oders'"),
        (lambda: role(allow("read", int)), "access.r.rules[0]", "not a model"),
        (lambda: role(allow("read", Order, fields=["cots"])), "access.r.rules[0].fields", "'cots'"),
        (
            lambda: role(allow("read", Order, Product, fields=hide("cots"))),
            "access.r.rules[0].fields",
            "'cots'",
        ),
        (
            lambda: role(allow("read", Order, fields=hide("id"))),
            "access.r.rules[0].fields",
            "cannot be hidden",
        ),
        (
            lambda: role(deny("read", Order, fields=["version"])),
            "access.r.rules[0].fields",
            "cannot be hidden",
        ),
        (lambda: role(allow_all(), inherits=["boss"]), "access.r.inherits", "'boss'"),
        (lambda: role(allow_all(), inherits="r"), "access.r.inherits", "r -> r"),
        (lambda: role(allow("raed", Order)), "access", "'raed'"),  # type: ignore[arg-type]
        (lambda: role(allow([], Order)), "access", "no action"),
        (lambda: role(allow("read")), "access", "no collection"),
        (lambda: role(allow("raw", Order)), "access", "raw access has no collections"),
        (lambda: role(allow(["raw", "read"], Order)), "access", "raw access"),
        (lambda: role(deny("read", Order, where={"owner": "x"}, fields=["note"])), "access", "not both"),
        (lambda: role(allow("read", Order, fields="owner")), "access", r"fields=\['owner'\]"),
        (lambda: role("read"), "access", "no rule"),
        (lambda: Role("", allow_all()), "access", "no name"),
    ],
)
def test_what_there_is_not_is_refused(make: Callable[[], Role], field: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        made(make())
    assert caught.value.field == field
    assert "password" not in str(caught.value)


def test_roles_that_inherit_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a -> b -> c -> a"):
        made(Role("a", inherits=["b"]), Role("b", inherits=["c"]), Role("c", allow_all(), inherits=["a"]))
    with pytest.raises(ConfigurationError, match="same name"):
        AccessPolicy(Role("a"), Role("a"))
    with pytest.raises(ConfigurationError, match="no role"):
        AccessPolicy()


@pytest.mark.parametrize(
    ("where", "path"),
    [
        (lambda o, user: o.onwer == user.id, "where.onwer"),
        (lambda o, user: o.owner == 5, "where.owner.eq"),
        (lambda o, user: o.owner == o.team, "where.owner.eq"),
        (lambda o, user: user.id == "ann", "user.id"),
        (lambda o, user: (user.claims["level"] == 3) or (o.team == "red"), r"user.claims['level']"),
        (lambda o, user: "x" in user.claims["teams"], "user.claims['teams']"),
        (lambda o, user: (o.owner == user.id) if user.claims["x"] else (o.team == "x"), "user.claims['x']"),
        (lambda o, user: True, "where"),
        (lambda o: o.owner == "x", "where"),
        (lambda o, user: o.owner == user.name, "where"),
        (lambda o, user: (o.owner == user.id) and (o.team == "x"), "where"),
        (lambda o, user: contains(o.product_id, user.id), "where.product_id.contains"),
        (lambda o, user: is_in(o.owner, [user.id, 5]), "where.owner.in"),
        (lambda o, user: between(o.status, user.id, None), "where.status.between"),
        ("owner = 5", "where"),
        ({"onwer": "x"}, "where.onwer"),
    ],
)
def test_a_condition_that_cannot_be_asked_is_refused(where: Any, path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(role(allow("read", Order, where=where)))
    assert caught.value.field == f"access.r.rules[0].{path}"


def test_a_condition_is_called_once_and_never_for_a_user() -> None:
    calls = []

    def where(order: Any, user: Any) -> Any:
        calls.append(user)
        return order.owner == user.id

    made(role(allow("read", Order, where=where)))
    assert len(calls) == 1
