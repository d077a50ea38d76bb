"""The tables behind plans: what each plan allows, and what each tenant uses of it. No tenant reaches them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import pydantic

from tenantry.schema import Indexed, KeyedModel, collection_of


class StoredPlan(KeyedModel, defer_build=True):
    """What a plan allows, for whoever counts: the database itself, on PostgreSQL."""

    __collection__ = "tenantry_plans"
    __control__ = True

    id: str
    quotas: dict[str, Any] = pydantic.Field(default_factory=dict)


class UsageCounter(KeyedModel, defer_build=True):
    """A part of what a tenant has in one collection; all its parts together are what it has.

    There are several, so that writers of one tenant need not wait for each other.
    """

    __collection__ = "tenantry_usage"
    __control__ = True

    id: str
    tenant: Annotated[str, Indexed]
    collection: str
    row_count: int = 0
    byte_count: int = 0


class RequestCounter(KeyedModel, defer_build=True):
    """How many requests of a tenant were given out to processes in one window."""

    __collection__ = "tenantry_requests"
    __control__ = True

    id: str
    window: dt.datetime
    used: int = 0


PLANS = collection_of(StoredPlan)
USAGE = collection_of(UsageCounter)
REQUESTS = collection_of(RequestCounter)
COUNTERS = (PLANS, USAGE, REQUESTS)
