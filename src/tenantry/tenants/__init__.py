"""The tenants: their directory, their status, and the lease by which a process may act on it."""

from tenantry.tenants.bound import BoundSettings, TenantFlags
from tenantry.tenants.directory import (
    AUDIT,
    CONTROL_COLLECTIONS,
    EPOCH,
    SECRETS,
    TENANTS,
    AuditRecord,
    Tenant,
    TenantStatus,
    audit,
    cursor_secret,
    job_secret,
    next_change,
    prepare_directory,
)
from tenantry.tenants.lease import TenantLease
from tenantry.tenants.manager import PurgeCertificate, TenantManager
from tenantry.tenants.order import children_first
from tenantry.tenants.plans import store_plans
from tenantry.tenants.requests import RequestMeter
from tenantry.tenants.standing import Standings

__all__ = [
    "AUDIT",
    "CONTROL_COLLECTIONS",
    "EPOCH",
    "SECRETS",
    "TENANTS",
    "AuditRecord",
    "BoundSettings",
    "PurgeCertificate",
    "RequestMeter",
    "Standings",
    "Tenant",
    "TenantFlags",
    "TenantLease",
    "TenantManager",
    "TenantStatus",
    "audit",
    "children_first",
    "cursor_secret",
    "job_secret",
    "next_change",
    "prepare_directory",
    "store_plans",
]
