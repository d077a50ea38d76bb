"""The setting ``TENANTRY``, checked whole before anything is served by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from tenantry.errors import ConfigurationError
from tenantry.http.identity import AnyResolver, Identity
from tenantry.http.naming import Naming, by_header
from tenantry.http.paths import PublicPaths
from tenantry.http.problems import Problem

SETTING: Final = "TENANTRY"
WAYS: Final = ("HOST", "RESOLVER", "USER")
# What every tenant reads and none writes: they say what the code is, and the code is the same for all.
ALWAYS_SHARED: Final = frozenset({"contenttypes.contenttype", "auth.permission", "sites.site"})

Refuse = Callable[[HttpRequest, Problem], HttpResponse]


def answer_problem(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Answer with problem details, as the other edges of tenantry do."""
    return HttpResponse(problem.body, status=problem.status, headers=dict(problem.headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the setting says. Exactly one of ``host``, ``resolver`` and ``user`` is given.

    Attributes:
        host: The domain whose subdomains are the tenants' ids.
        resolver: Finds an identity by what a request carries, as in :mod:`tenantry.http`.
        user: Finds it by Django's request, so by ``request.user``.
        named_by: How a request names a tenant, where an identity has several.
        public: Paths that are served without a tenant.
        databases: The aliases that are bound.
        refuse: Answers what is not served.
        sdk: What ``MultiTenantSDK.open`` takes.
        shared: Labels of models whose rows every tenant reads and none writes.
        open: Labels of models whose rows every tenant reads and writes.
    """

    host: str | None = None
    resolver: AnyResolver | None = None
    user: Callable[[HttpRequest], Identity | None] | None = None
    named_by: tuple[Naming, ...] = ()
    public: PublicPaths = field(default_factory=lambda: PublicPaths(()))
    databases: tuple[str, ...] = ("default",)
    refuse: Refuse = answer_problem
    sdk: Mapping[str, Any] = field(default_factory=dict)
    shared: frozenset[str] = ALWAYS_SHARED
    open: frozenset[str] = frozenset()


@lru_cache(maxsize=1)
def options() -> Options:
    """Return the options of this project.

    Raises:
        ConfigurationError: One is wrong; ``field`` names it.
    """
    values, faults = parsed(getattr(settings, SETTING, None))
    if faults:
        raise faults[0]
    return Options(**values)


def _changed(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        options.cache_clear()


setting_changed.connect(_changed)


def parsed(given: object) -> tuple[dict[str, Any], list[ConfigurationError]]:
    """Return the options that are right, and what is wrong with the others."""
    if not isinstance(given, Mapping):
        return {}, [
            _fault("", "The setting is missing or no dict.", 'Write TENANTRY = {"HOST": "example.com"}.')
        ]
    values: dict[str, Any] = {}
    faults: list[ConfigurationError] = []
    for name, value in given.items():
        try:
            values[str(name).lower()] = _PARSERS[name](name, value) if name in _PARSERS else _unknown(name)
        except ConfigurationError as error:
            faults.append(error)
    ways = [way for way in WAYS if way in given]
    if len(ways) != 1:
        found = " and ".join(ways) or "None of them"
        faults.append(_fault("", f"{found} is given.", f"Give one of {', '.join(WAYS)}."))
    if "USER" in given or "RESOLVER" in given:
        values.setdefault("named_by", (by_header(),))
    return values, faults


def _fault(name: str, message: str, fix: str) -> ConfigurationError:
    return ConfigurationError(message, field=f"{SETTING}.{name}" if name else SETTING, fix=fix)


def _unknown(name: object) -> Any:
    near = get_close_matches(str(name), _PARSERS, n=1)
    fix = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(_PARSERS)}."
    raise _fault(str(name), f"There is no option {name!r}.", fix)


def _host(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip("."):
        raise _fault(name, f"{value!r} is no domain.", 'Write it like "example.com".')
    return value.lower().strip(".")


def _called(name: str, value: object) -> Any:
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise _fault(
                name, f"{value!r} cannot be imported: {error}.", "Name it by its dotted path."
            ) from error
    if not callable(value) and not hasattr(value, "identify_sync"):
        raise _fault(name, f"{value!r} cannot be called.", "Give a function or its dotted path.")
    return value


def _namings(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _fault(name, f"{value!r} is no list.", "Write it like [by_header()].")
    return tuple(_called(name, item) for item in value)


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(item, str) for item in value
    ):
        raise _fault(name, f"{value!r} is no list of names.", 'Write it like ["default"].')
    return tuple(value)


def _public(name: str, value: object) -> PublicPaths:
    try:
        return PublicPaths(_names(name, value))
    except ConfigurationError as error:
        raise _fault(name, error.message, error.fix or "") from error


def _aliases(name: str, value: object) -> tuple[str, ...]:
    aliases = _names(name, value)
    for alias in aliases:
        if alias not in connections:
            raise _fault(name, f"DATABASES has no {alias!r}.", f"It has: {', '.join(connections)}.")
    if not aliases:
        raise _fault(name, "No database is bound.", 'Write it like ["default"].')
    return aliases


def _labels(name: str, value: object) -> frozenset[str]:
    labels = frozenset(item.lower() for item in _names(name, value))
    return labels | ALWAYS_SHARED if name == "SHARED" else labels


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _fault(name, f"{value!r} is no dict.", "Give what MultiTenantSDK.open takes.")
    return value


_PARSERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "HOST": _host,
    "RESOLVER": _called,
    "USER": _called,
    "NAMED_BY": _namings,
    "PUBLIC": _public,
    "DATABASES": _aliases,
    "REFUSE": _called,
    "SDK": _mapping,
    "SHARED": _labels,
    "OPEN": _labels,
}
