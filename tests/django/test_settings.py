"""``manage.py check`` says what is wrong, and what is dangerous is not served either."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.core import checks
from django.test.utils import override_settings

from tenantry.django import TenantMiddleware, tenant
from tenantry.errors import ConfigurationError, TenantNotFound, UnsafeRole
from tenantry.http import Identity
from tests.django.conftest import Site, project
from tests.django.project import DOMAIN, databases, entry

TENANTS = "tenantry.django.TenantMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"


def member(request: Any) -> Identity | None:
    return None


def said(*tags: str, **asked: Any) -> list[str]:
    found = checks.run_checks(tags=[*tags, "tenantry"] if not asked else ["database"], **asked)
    return [
        f"{message.id}: {message.msg} {message.hint}"
        for message in found
        if str(message.id).startswith("tenantry")
    ]


def test_the_example_is_right() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"E001: TENANTRY: .* missing"),
        ({}, r"E001: TENANTRY: None of them is given. Give one of HOST, RESOLVER, USER"),
        ({"HOST": DOMAIN, "USER": member}, r"HOST and USER is given"),
        ({"HOTS": DOMAIN}, r"TENANTRY.HOTS: .* Did you mean HOST\?"),
        ({"HOST": 7}, r"TENANTRY.HOST: 7 is no domain"),
        ({"USER": "nowhere.member"}, r"TENANTRY.USER: 'nowhere.member' cannot be imported"),
        ({"USER": f"{__name__}.SESSIONS"}, r"TENANTRY.USER: .* cannot be called"),
        ({"HOST": DOMAIN, "PUBLIC": "/health"}, r"TENANTRY.PUBLIC: '/health' is no list"),
        ({"HOST": DOMAIN, "PUBLIC": ["/static/*"]}, r"TENANTRY.PUBLIC: '/static/\*' is no path"),
        ({"HOST": DOMAIN, "DATABASES": ["main"]}, r"TENANTRY.DATABASES: DATABASES has no 'main'"),
        ({"HOST": DOMAIN, "DATABASES": []}, r"TENANTRY.DATABASES: No database"),
        ({"HOST": DOMAIN, "SDK": "sqlite:///"}, r"TENANTRY.SDK: .* no dict"),
        ({"USER": member, "NAMED_BY": []}, r"TENANTRY.NAMED_BY: "),
    ],
)
def test_a_wrong_option_is_named(given: Any, message: str) -> None:
    with override_settings(TENANTRY=given):
        assert re.search(message, " ".join(said())), said()
        with pytest.raises(ConfigurationError):
            TenantMiddleware(lambda request: None)


@pytest.mark.parametrize(
    ("options", "middleware", "message"),
    [
        ({"HOST": DOMAIN}, [SESSIONS], "E002"),
        ({"HOST": DOMAIN}, [TENANTS, SESSIONS, TENANTS], "E002"),
        ({"HOST": DOMAIN}, [SESSIONS, TENANTS], "E003"),
        ({"HOST": DOMAIN}, [TENANTS, SESSIONS, USERS], None),
        ({"USER": member}, [TENANTS, SESSIONS, USERS], "E003"),
        ({"USER": member, "OPEN": ["sessions.session"]}, [SESSIONS, USERS, TENANTS], None),
        ({"USER": member}, [SESSIONS, USERS, TENANTS], "E004"),
    ],
)
def test_the_order_of_middleware(options: Any, middleware: list[str], message: str | None) -> None:
    with override_settings(TENANTRY=options, MIDDLEWARE=middleware):
        found = said()
    assert [line[len("tenantry.") :][:4] for line in found][:1] == ([message] if message else [])


@pytest.mark.parametrize("engine", ["cache", "cached_db", "file", "signed_cookies"])
def test_sessions_that_are_no_rows_are_refused(engine: str) -> None:
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        assert "E004" in said()[0]
    assert settings.SESSION_ENGINE.endswith(".db")


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("owner", "owns tables"),
        ("control", "member of the control role"),
        ("admin", "is a superuser"),
        ("raw", None),
    ],
)
def test_a_role_that_would_see_all_is_refused(site: Site, role: str, message: str | None) -> None:
    url = site.admin_url if role == "admin" else site.url(role)
    with databases(default=entry(url)), project_options(site):
        found = said(databases=["default"])
        if message is None:
            assert found == []
            with tenant("acme"):
                return
        assert "E005" in found[0]
        assert message in found[0]
        with pytest.raises(UnsafeRole, match=message), tenant("acme"):
            pass


def project_options(site: Site) -> Any:
    from django.apps import apps

    config: Any = apps.get_app_config("tenantry")
    config.trusted.clear()
    return override_settings(TENANTRY={"HOST": DOMAIN, "SDK": site.options})


def test_a_role_that_is_assumed_is_refused(site: Site) -> None:
    with (
        databases(default=entry(site.url("raw"), OPTIONS={"assume_role": "postgres"})),
        project_options(site),
        pytest.raises(ConfigurationError, match="wiped"),
        tenant("acme"),
    ):
        pass


def test_another_database_is_refused(site: Site) -> None:
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with databases(default=sqlite), project_options(site):
        assert "sqlite would not hold" in said(databases=["default"])[0]
        with pytest.raises(ConfigurationError, match="sqlite"), tenant("acme"):
            pass


def test_a_tenant_that_does_not_exist_is_refused(migrated: Site) -> None:
    with project(migrated), pytest.raises(TenantNotFound), tenant("nobody"):
        pass


def test_without_django_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['django'] = None; import tenantry.django"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'tenantry[django]'" in done.stderr
