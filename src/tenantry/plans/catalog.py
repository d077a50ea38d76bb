"""All plans, flags and settings that an application declares, checked against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from tenantry.errors import ConfigurationError, InvalidRecord, UnknownFlag, UnknownPlan
from tenantry.plans.flags import Flag, known_flag
from tenantry.plans.quotas import PER_COLLECTION, Limits, Plan, stored_limits
from tenantry.plans.settings import TenantSettings, read_settings


class Catalog:
    """What an application declares of plans, flags and settings.

    Args:
        plans: The plans. Without any, a tenant's plan is any text and limits nothing.
        flags: The flags.
        settings: The model of the tenants' settings.
        collections: The names of the collections that quotas may be set for.

    Raises:
        ConfigurationError: Something of it is wrong, or does not fit the rest.
    """

    def __init__(
        self,
        plans: Iterable[Plan] = (),
        flags: Iterable[Flag] = (),
        settings: type[TenantSettings] | None = None,
        collections: Iterable[str] = (),
    ) -> None:
        self.plans = {plan.name: plan for plan in _unique("plans", plans, Plan)}
        self.flags = {flag.name: flag for flag in _unique("flags", flags, Flag)}
        self.settings = settings
        self._limits = {name: plan.quotas.limits() for name, plan in self.plans.items()}
        self._collections = frozenset(collections)
        for plan in self.plans.values():
            self._check(plan)
        if settings is not None:
            _check_settings(settings)

    @property
    def counts(self) -> bool:
        """Whether a plan limits what the database has to count."""
        return any(name != "requests" for plan in self.plans.values() for name in plan.quotas.limits())

    def check_plan(self, name: str | None) -> None:
        """Refuse a plan that is not declared.

        Raises:
            UnknownPlan: It is not.
        """
        if self.plans and name is not None and name not in self.plans:
            near = next(iter(get_close_matches(str(name), self.plans, 1)), None)
            raise UnknownPlan(str(name), known=list(self.plans), suggestion=near)

    def check_limits(self, limits: Limits) -> None:
        """Refuse a quota for a collection that is not known."""
        for name in limits:
            collection = name.removeprefix(PER_COLLECTION)
            if name != collection and collection not in self._collections:
                raise ConfigurationError(
                    f"There is no collection {collection!r} to limit.",
                    field="per_collection",
                    fix=f"Known: {', '.join(sorted(self._collections)) or 'none'}.",
                )

    def limits(self, plan: str | None, overrides: Limits) -> dict[str, Any]:
        """Return what is limited for a tenant: what its plan says, and over that what it was given itself."""
        return stored_limits(plan, self._limits, overrides)

    def flags_of(self, plan: str | None) -> Mapping[str, Any]:
        """Return the flags that a plan sets."""
        known = self.plans.get(plan) if plan is not None else None
        return {} if known is None else known.flags

    def _check(self, plan: Plan) -> None:
        if not plan.name:
            raise ConfigurationError("A plan needs a name.", field="plans")
        self.check_limits(plan.quotas.limits())
        for name, value in plan.flags.items():
            try:
                known_flag(self.flags, name).checked(value)
            except (InvalidRecord, UnknownFlag) as error:
                raise ConfigurationError(f"Plan {plan.name!r}: {error}", field=f"plans.{plan.name}") from None


def _unique(field: str, given: Iterable[Any], kind: type[Any]) -> list[Any]:
    listed = list(given)
    for item in listed:
        if not isinstance(item, kind):
            raise ConfigurationError(f"{field}: {item!r} is no {kind.__name__}.", field=field)
    names = [item.name for item in listed]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"Two of {field} are named {name!r}.", field=field)
    return listed


def _check_settings(model: type[TenantSettings]) -> None:
    if not issubclass(model, TenantSettings):
        raise ConfigurationError("settings must be a subclass of TenantSettings.", field="settings")
    try:
        read_settings(model, {})
    except InvalidRecord as error:
        raise ConfigurationError(
            f"Settings need defaults, which a new tenant has: {error}", field=f"settings.{error.field}"
        ) from None
