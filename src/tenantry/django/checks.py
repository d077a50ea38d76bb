"""What ``manage.py check`` says of a project. What is dangerous is refused when serving too."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import DatabaseError, connections

from tenantry.django.options import SETTING, parsed
from tenantry.django.roles import FIX, fault_of
from tenantry.errors import ConfigurationError

MIDDLEWARE: Final = "tenantry.django.TenantMiddleware"
_SESSIONS: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_USERS: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"
_DATABASE_SESSIONS: Final = "django.contrib.sessions.backends.db"


def check_settings(**_: Any) -> list[CheckMessage]:
    """Check the setting, and the order of the middleware."""
    values, faults = parsed(getattr(settings, SETTING, None))
    found: list[CheckMessage] = [_error("E001", fault) for fault in faults]
    if not faults:
        found += _middleware(by_user="user" in values)
        found += _sessions(values)
    return found


def _error(id: str, fault: ConfigurationError) -> Error:
    return Error(f"{fault.field}: {fault.message}", hint=fault.fix, id=f"tenantry.{id}")


def _middleware(*, by_user: bool) -> Iterator[CheckMessage]:
    order = list(settings.MIDDLEWARE)
    if order.count(MIDDLEWARE) != 1:
        yield Error(
            f"MIDDLEWARE has {MIDDLEWARE} {order.count(MIDDLEWARE)} times.",
            hint="Without it every request is bound to no tenant. Put it in once.",
            id="tenantry.E002",
        )
        return
    place = order.index(MIDDLEWARE)
    if by_user and _USERS not in order[:place]:
        yield Error(
            f"{SETTING}.USER needs request.user, which comes after it.",
            hint=f"Put {MIDDLEWARE} below {_USERS}.",
            id="tenantry.E003",
        )
    for early in (_SESSIONS, _USERS):
        if not by_user and early in order[:place]:
            yield Error(
                f"{early} stands above {MIDDLEWARE}, and so works without a tenant.",
                hint=f"Put {MIDDLEWARE} above it.",
                id="tenantry.E003",
            )


def _sessions(values: dict[str, Any]) -> Iterator[CheckMessage]:
    if _SESSIONS not in settings.MIDDLEWARE:
        return
    if "user" not in values and settings.SESSION_ENGINE != _DATABASE_SESSIONS:
        yield Error(
            f"Sessions of {settings.SESSION_ENGINE} are not rows of a tenant: one host's would be valid at another's.",
            hint=f'Write SESSION_ENGINE = "{_DATABASE_SESSIONS}".',
            id="tenantry.E004",
        )
    is_open = "sessions.session" in values.get("open", ())
    if "user" in values and settings.SESSION_ENGINE == _DATABASE_SESSIONS and not is_open:
        yield Error(
            f"{SETTING}.USER reads sessions and users before the tenant is known, and they are rows of tenants.",
            hint=f'Add "sessions.session" and the user model to {SETTING}.OPEN, and read what that means.',
            id="tenantry.E004",
        )


def check_roles(*, databases: Collection[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Check the roles that Django logs in as. Asks the databases, so ``check --database default`` runs it."""
    values, faults = parsed(getattr(settings, SETTING, None))
    if faults:
        return []
    bound = values.get("databases", ("default",))
    return [message for alias in databases or () if alias in bound for message in _role(alias)]


def _role(alias: str) -> Iterator[CheckMessage]:
    try:
        fault = fault_of(connections[alias])
    except ConfigurationError as error:
        yield _error("E005", error)
    except DatabaseError as error:
        yield Error(f"DATABASES[{alias!r}] cannot be asked: {error}", id="tenantry.E005")
    else:
        if fault is not None:
            role = connections[alias].settings_dict["USER"]
            yield Error(f"DATABASES[{alias!r}]: the role {role!r} {fault}.", hint=FIX, id="tenantry.E005")
