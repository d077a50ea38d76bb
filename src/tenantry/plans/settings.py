"""Settings of tenants, typed by a model of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from tenantry.errors import InvalidRecord


class TenantSettings(BaseModel):
    """The base of a model of settings. Every field needs a default, which a tenant has that never set it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def read_settings(model: type[TenantSettings], stored: Mapping[str, Any]) -> TenantSettings:
    """Return stored settings with the defaults of what is not stored.

    Raises:
        InvalidRecord: What is stored is not what the model wants; ``field`` names it.
    """
    try:
        return model.model_validate(stored)
    except pydantic.ValidationError as error:
        raise _invalid(error) from None


def changed_settings(
    model: type[TenantSettings], stored: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is stored after ``changes``. Keys that the model does not know stay as they are.

    Raises:
        InvalidRecord: A change is no field of the model, or not what it wants; ``field`` names it.
    """
    for name in changes:
        if name not in model.model_fields:
            raise InvalidRecord(
                "there is no such setting.", field=name, fix=f"Known: {', '.join(model.model_fields)}."
            )
    validated = read_settings(model, {**stored, **changes}).model_dump(mode="json")
    return {**stored, **{name: validated[name] for name in changes}}


def _invalid(error: pydantic.ValidationError) -> InvalidRecord:
    first = error.errors(include_input=False, include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    return InvalidRecord(f"{first['msg']}.", field=name)
