"""Plans: what a tenant may use, which features it has, and its settings; declared in code, frozen, and checked."""

from tenantry.plans.catalog import Catalog
from tenantry.plans.counters import PLANS, REQUESTS, USAGE
from tenantry.plans.flags import Flag, FlagValue, FlagValues, Override
from tenantry.plans.quotas import Period, Plan, Quotas, Rate, Usage, UsageReport
from tenantry.plans.settings import TenantSettings

__all__ = [
    "PLANS",
    "REQUESTS",
    "USAGE",
    "Catalog",
    "Flag",
    "FlagValue",
    "FlagValues",
    "Override",
    "Period",
    "Plan",
    "Quotas",
    "Rate",
    "TenantSettings",
    "Usage",
    "UsageReport",
]
