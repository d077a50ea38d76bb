"""The tenants: their directory, their status, and the lease by which a process may act on it."""

from tenantry.tenants.api_keys import APIKeys, KeyIdentity, KeyRing, NewAPIKey
from tenantry.tenants.archive import Contents, Manifest
from tenantry.tenants.bound import BoundSettings, TenantFlags
from tenantry.tenants.credentials import Mint, mint_of
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
from tenantry.tenants.invitations import Invitations, Membership, NewInvitation
from tenantry.tenants.lease import TenantLease
from tenantry.tenants.manager import PurgeCertificate, TenantManager
from tenantry.tenants.members import JoinCheck, Joining, MemberRoles, Members
from tenantry.tenants.order import children_first
from tenantry.tenants.own import (
    OWN_COLLECTIONS,
    OWNER,
    APIKey,
    Invitation,
    InvitationStatus,
    Member,
    SupportConsent,
    SupportSession,
    SupportWrite,
)
from tenantry.tenants.plans import begin_counting, store_plans
from tenantry.tenants.requests import RequestMeter
from tenantry.tenants.standing import Standings
from tenantry.tenants.support import Support, TrailedHooks, begin_visit, visitor
from tenantry.tenants.transfer import Copy

__all__ = [
    "AUDIT",
    "CONTROL_COLLECTIONS",
    "EPOCH",
    "OWNER",
    "OWN_COLLECTIONS",
    "SECRETS",
    "TENANTS",
    "APIKey",
    "APIKeys",
    "AuditRecord",
    "BoundSettings",
    "Contents",
    "Copy",
    "Invitation",
    "InvitationStatus",
    "Invitations",
    "JoinCheck",
    "Joining",
    "KeyIdentity",
    "KeyRing",
    "Manifest",
    "Member",
    "MemberRoles",
    "Members",
    "Membership",
    "Mint",
    "NewAPIKey",
    "NewInvitation",
    "PurgeCertificate",
    "RequestMeter",
    "Standings",
    "Support",
    "SupportConsent",
    "SupportSession",
    "SupportWrite",
    "Tenant",
    "TenantFlags",
    "TenantLease",
    "TenantManager",
    "TenantStatus",
    "TrailedHooks",
    "audit",
    "begin_counting",
    "begin_visit",
    "children_first",
    "cursor_secret",
    "job_secret",
    "mint_of",
    "next_change",
    "prepare_directory",
    "store_plans",
    "visitor",
]
