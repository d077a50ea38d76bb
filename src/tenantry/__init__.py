"""tenantry: tenant-isolated data for Python, in which the leak cannot be written."""

from tenantry.aggregates import Avg, Count, Max, Min, Sum, Trunc
from tenantry.conditions import between, contains, ilike, is_in, is_null, not_
from tenantry.context import TenantContext, current_context, use_context
from tenantry.errors import TenantryError
from tenantry.plans import Flag, Plan, Quotas, Rate, TenantSettings
from tenantry.schema import (
    PII,
    Encrypted,
    Indexed,
    KeyedModel,
    Model,
    Ref,
    RenamedFrom,
    Searchable,
    Shared,
    SoftDelete,
    Unique,
)
from tenantry.sdk import MultiTenantSDK, SupportHandle, SystemHandle, TenantHandle
from tenantry.tenants import PurgeCertificate, Tenant, TenantStatus
from tenantry.types import BulkOutcome, BulkResult, Hit, Page, Record, TenantId

__version__ = "0.1.0"

__all__ = [
    "PII",
    "Avg",
    "BulkOutcome",
    "BulkResult",
    "Count",
    "Encrypted",
    "Flag",
    "Hit",
    "Indexed",
    "KeyedModel",
    "Max",
    "Min",
    "Model",
    "MultiTenantSDK",
    "Page",
    "Plan",
    "PurgeCertificate",
    "Quotas",
    "Rate",
    "Record",
    "Ref",
    "RenamedFrom",
    "Searchable",
    "Shared",
    "SoftDelete",
    "Sum",
    "SupportHandle",
    "SystemHandle",
    "Tenant",
    "TenantContext",
    "TenantHandle",
    "TenantId",
    "TenantSettings",
    "TenantStatus",
    "TenantryError",
    "Trunc",
    "Unique",
    "__version__",
    "between",
    "contains",
    "current_context",
    "ilike",
    "is_in",
    "is_null",
    "not_",
    "use_context",
]
