"""Quotas: how much of everything a plan allows."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import msgspec

from tenantry.errors import ConfigurationError, QuotaExceeded

Period = Literal["minute", "hour", "day", "month"]
Limits = Mapping[str, Any]
"""Quotas as they are stored, by name: ``rows``, ``rows:orders``, ``storage``, ``members``, ``requests``."""

PER_COLLECTION: Final = "rows:"
NO_MORE: Final[Limits] = {"rows": 0, "storage": 0, "members": 0}
"""What a tenant may use whose plan nobody declared: it keeps what it has, and adds nothing."""

_LARGEST: Final = 2**62
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)
_UNITS: Final = {
    unit: base**power
    for power, letter in enumerate(("", "k", "m", "g", "t"))
    for unit, base in ((letter, 1000), (f"{letter}i", 1024))
}


class Rate(msgspec.Struct, frozen=True):
    """So many requests in each window of UTC.

    Attributes:
        limit: Requests.
        per: The window: each begins with a full minute, hour, day or month.
    """

    limit: int
    per: Period

    def __post_init__(self) -> None:
        _amount("requests", self.limit)
        if self.per not in get_args(Period):
            raise ConfigurationError(
                f"requests: {self.per!r} is no window.",
                field="requests",
                fix=f"Use one of {', '.join(get_args(Period))}.",
            )

    def window(self, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """Return when the window of ``now`` began, and when it ends."""
        now = now.astimezone(dt.UTC).replace(second=0, microsecond=0)
        if self.per == "minute":
            return now, now + dt.timedelta(minutes=1)
        now = now.replace(minute=0)
        if self.per == "hour":
            return now, now + dt.timedelta(hours=1)
        now = now.replace(hour=0)
        if self.per == "day":
            return now, now + dt.timedelta(days=1)
        first = now.replace(day=1)
        return first, (first + dt.timedelta(days=32)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much a tenant may use. What is not named, or is ``None``, has no limit.

    Attributes:
        rows: Rows in all collections together.
        storage: Bytes of all rows together, or a text such as ``"50MB"`` (a million bytes each) or ``"1GiB"``.
        members: Members.
        requests: Requests in each window.
        per_collection: Rows of single collections.
    """

    rows: int | None = None
    storage: int | str | None = None
    members: int | None = None
    requests: Rate | None = None
    per_collection: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rows", "members"):
            if getattr(self, name) is not None:
                _amount(name, getattr(self, name))
        object.__setattr__(self, "storage", size(self.storage))
        if self.requests is not None and not isinstance(self.requests, Rate):
            raise ConfigurationError(
                "requests must be a Rate.", field="requests", fix='Write Rate(1_000, per="day").'
            )
        if not isinstance(self.per_collection, Mapping):
            raise ConfigurationError("per_collection must map collections to rows.", field="per_collection")
        for name, amount in self.per_collection.items():
            _amount(f"per_collection.{name}", amount)

    def limits(self) -> dict[str, Any]:
        """Return what is limited, as it is stored."""
        found: dict[str, Any] = {"rows": self.rows, "storage": self.storage, "members": self.members}
        found |= {f"{PER_COLLECTION}{name}": amount for name, amount in self.per_collection.items()}
        if self.requests is not None:
            found["requests"] = [self.requests.limit, self.requests.per]
        return {name: limit for name, limit in found.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """What tenants pay for.

    Attributes:
        name: Its name, as the directory keeps it.
        quotas: How much they may use.
        flags: The values of feature flags, where they differ from the flags' defaults.
    """

    name: str
    quotas: Quotas = field(default_factory=Quotas)
    flags: Mapping[str, Any] = field(default_factory=dict)


class Usage(msgspec.Struct, frozen=True):
    """How much of one thing a tenant uses.

    Attributes:
        quota: ``rows``, ``rows:orders``, ``storage`` (in bytes), ``members`` or ``requests``.
        used: How much of it is used.
        limit: How much may be; ``None`` where there is no limit.
    """

    quota: str
    used: int
    limit: int | None = None

    @property
    def percent(self) -> float | None:
        """How much of the limit is used, in percent; ``None`` without a limit."""
        if self.limit is None:
            return None
        return 100.0 * self.used / self.limit if self.limit else 100.0


class UsageReport(msgspec.Struct, frozen=True):
    """What a tenant uses, and what its plan allows.

    Attributes:
        tenant_id: The tenant.
        plan: Its plan.
        rows: Rows of all collections.
        storage: Bytes of all rows.
        members: Members; ``None`` where nobody keeps any.
        requests: Requests in the window that runs; ``None`` without such a quota.
        collections: Rows of each collection.
    """

    tenant_id: str
    plan: str | None
    rows: Usage
    storage: Usage
    members: Usage | None
    requests: Usage | None
    collections: Mapping[str, Usage]

    def all(self) -> list[Usage]:
        """Return everything that is counted, in one list."""
        single = [self.rows, self.storage, self.members, self.requests]
        return [*(item for item in single if item is not None), *self.collections.values()]


class Count(msgspec.Struct, frozen=True):
    """What a tenant has in one collection.

    Attributes:
        collection: The collection.
        rows: Rows.
        size: Bytes.
    """

    collection: str
    rows: int
    size: int


def amounts(counts: Iterable[Count]) -> dict[str, int]:
    """Return how much is used of each quota that rows count for."""
    used = {"rows": 0, "storage": 0}
    for count in counts:
        used["rows"] += count.rows
        used["storage"] += count.size
        name = f"{PER_COLLECTION}{count.collection}"
        used[name] = used.get(name, 0) + count.rows
    return used


def check_growth(
    before: Mapping[str, int], after: Mapping[str, int], limits: Limits, *, tenant_id: str, plan: str | None
) -> None:
    """Refuse what grew past its limit. What was above already may stay, and shrink.

    Raises:
        QuotaExceeded: Something did.
    """
    for quota, amount in after.items():
        limit, used = limits.get(quota), before.get(quota, 0)
        if limit is not None and amount > used and amount > limit:
            raise QuotaExceeded(
                quota=quota, used=used, limit=limit, plan=plan, tenant_id=tenant_id, wanted=amount - used
            )


def stored_limits(plan: str | None, plans: Mapping[Any, Limits], overrides: Limits) -> dict[str, Any]:
    """Return what is limited for a tenant: what its plan says, and over that what it was given itself.

    Args:
        plan: The tenant's plan.
        plans: What each plan that is known allows; if none is, a plan limits nothing.
        overrides: The tenant's own limits; ``None`` in them is no limit.
    """
    of_plan = plans.get(plan, NO_MORE) if plan is not None and plans else {}
    return {name: limit for name, limit in {**of_plan, **overrides}.items() if limit is not None}


def rate_of(limits: Limits) -> Rate | None:
    """Return the quota of requests among stored limits."""
    stored = limits.get("requests")
    return None if stored is None else Rate(*stored)


def size(given: int | str | None) -> int | None:
    """Return a number of bytes, also from a text such as ``"50MB"``."""
    if given is None:
        return None
    if isinstance(given, str):
        found = _SIZE.fullmatch(given)
        unit = None if found is None else _UNITS.get(found[2].lower())
        if found is None or unit is None:
            raise ConfigurationError(
                f"storage: {given!r} is no size.", field="storage", fix='Write bytes, "50MB" or "1GiB".'
            )
        given = int(float(found[1]) * unit)
    return _amount("storage", given)


def _amount(name: str, given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= _LARGEST:
        raise ConfigurationError(
            f"{name}: {given!r} is no limit.",
            field=name,
            fix="Write a number from 0 on, or None for no limit.",
        )
    return given
