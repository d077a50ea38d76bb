"""The tenants: their directory, their status, and the lease by which a process may act on it."""

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

__all__ = [
    "AUDIT",
    "CONTROL_COLLECTIONS",
    "EPOCH",
    "SECRETS",
    "TENANTS",
    "AuditRecord",
    "PurgeCertificate",
    "Tenant",
    "TenantLease",
    "TenantManager",
    "TenantStatus",
    "audit",
    "children_first",
    "cursor_secret",
    "job_secret",
    "next_change",
    "prepare_directory",
]
