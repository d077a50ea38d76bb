"""What people import. A name that is added, renamed or taken away changes this file, and is seen in review."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import tenantry
from tenantry import MultiTenantSDK, TenantHandle
from tenantry.data import DataManager
from tenantry.insights import Insights
from tenantry.sdk import SupportHandle, SystemHandle
from tenantry.tenants import APIKeys, Invitations, Members, Support, TenantManager

SURFACE: dict[str, list[str]] = {
    "tenantry": [
        "BulkOutcome",
        "BulkResult",
        "PII",
        "Avg",
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
        "SupportHandle",
        "Sum",
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
    ],
    "tenantry.http": [
        "APIKeyResolver",
        "GatewayResolver",
        "Identity",
        "JWKS",
        "JWTResolver",
        "NewKey",
        "Problem",
        "Refusal",
        "RequestView",
        "Resolver",
        "StaticKeys",
        "StoredKey",
        "TenantKeyResolver",
        "TenantMiddleware",
        "any_of",
        "by_header",
        "by_host",
        "by_path",
        "current_tenant",
        "handle_errors",
        "lifespan",
        "new_key",
        "problem",
    ],
    "tenantry.django": ["TenantMiddleware", "sdk", "tenant"],
    "tenantry.jobs": ["JobKey", "JobSigner", "enqueue_for", "untenanted"],
    "tenantry.jobs.arq": ["TenantJobs", "TenantRedis"],
    "tenantry.jobs.celery": ["TenantTask", "install"],
    "tenantry.jobs.procrastinate": ["install"],
    "tenantry.jobs.taskiq": ["TenantMiddleware", "current_tenant"],
    "tenantry.scan": [
        "Credentials",
        "Finding",
        "Kind",
        "Limits",
        "Login",
        "Operation",
        "Plan",
        "Report",
        "Request",
        "Severity",
        "load_application",
        "read_har",
        "read_openapi",
        "scan",
        "served",
    ],
    "tenantry.alembic": ["Migrations", "metadata", "run", "split_online"],
    "tenantry.security.access": [
        "AccessExplanation",
        "AccessPolicy",
        "ClaimedRoles",
        "Role",
        "RoleSource",
        "allow",
        "allow_all",
        "deny",
        "hide",
    ],
    "tenantry.sync": [
        "APIKeys",
        "BoundSettings",
        "DataManager",
        "Insights",
        "Invitations",
        "Members",
        "MultiTenantSDK",
        "Support",
        "SupportHandle",
        "SystemHandle",
        "TenantFlags",
        "TenantHandle",
        "TenantManager",
    ],
    "tenantry.insights": ["INSIGHTS", "Finding", "Insights", "Report", "ShapeReport", "Watch"],
    "tenantry.testing": ["assert_isolated"],
    "tenantry.testing.conformance": ["Conformance"],
}

METHODS: dict[type, list[str]] = {
    MultiTenantSDK: [
        "add_after_hook",
        "add_join_check",
        "add_within_hook",
        "bind",
        "capabilities",
        "close",
        "data",
        "explain_access",
        "get_health",
        "get_metrics",
        "identify_api_key",
        "impersonate",
        "initialize",
        "insights",
        "job_signer",
        "member_roles",
        "on",
        "open",
        "system",
        "tenant",
        "tenants",
    ],
    TenantHandle: [
        "api_keys",
        "context",
        "data",
        "flags",
        "invitations",
        "members",
        "session",
        "settings",
        "support",
        "usage",
    ],
    SupportHandle: ["context", "data"],
    Members: ["add", "get", "list", "remove", "roles_of", "set_roles"],
    Invitations: ["create", "list", "resend", "revoke"],
    APIKeys: ["create", "get", "list", "revoke", "rotate"],
    Support: ["allow", "consent", "revoke", "sessions", "writes"],
    SystemHandle: ["context", "data"],
    DataManager: [
        "aggregate",
        "bind",
        "bulk_create",
        "bulk_delete",
        "bulk_update",
        "bulk_upsert",
        "count",
        "create",
        "delete",
        "exists",
        "get",
        "primary",
        "purge_deleted",
        "read",
        "restore",
        "run_transaction",
        "search",
        "sql",
        "stream",
        "transaction",
        "update",
        "upsert",
    ],
    TenantManager: [
        "accept_invitation",
        "by_slug",
        "clear_flag",
        "clear_quota",
        "clone",
        "create",
        "create_many",
        "delete",
        "export",
        "flags",
        "get",
        "import_",
        "list",
        "of_user",
        "purge",
        "recount",
        "rename",
        "resume",
        "set_flag",
        "set_quota",
        "suspend",
        "update",
        "usage",
    ],
    Insights: ["apply", "flush", "report"],
}

SIGNATURES: dict[Any, str] = {
    DataManager.read: "(self, collection, where, *, order_by, limit, cursor, fields, into, include, distinct, "
    "deleted, context)",
    DataManager.aggregate: "(self, collection, measures, where, *, group_by, having, order_by, limit, deleted, "
    "context)",
    DataManager.get: "(self, collection, id, *, context)",
    DataManager.create: "(self, target, record, /, *, idempotency_key, context)",
    DataManager.update: "(self, target, id, changes, /, *, version, idempotency_key, context, **fields)",
    DataManager.upsert: "(self, target, record, /, *, on, context)",
    DataManager.delete: "(self, target, id, /, *, version, permanently, context)",
    DataManager.restore: "(self, target, id, /, *, version, context)",
    DataManager.purge_deleted: "(self, collection, *, older_than, batch_size, context)",
    DataManager.stream: "(self, collection, where, *, order_by, batch_size, deleted, fields, into, context)",
    DataManager.bulk_create: "(self, target, records, /, *, batch_size, atomic, context)",
    DataManager.bulk_update: "(self, target, changes, /, *, batch_size, atomic, context)",
    DataManager.bulk_upsert: "(self, target, records, /, *, on, batch_size, atomic, context)",
    DataManager.bulk_delete: "(self, target, ids, /, *, batch_size, atomic, context)",
    DataManager.sql: "(self, text, params, *, context)",
    TenantManager.create: "(self, slug, *, name, plan, settings)",
    TenantManager.purge: "(self, tenant_id, *, leave_others)",
    MultiTenantSDK.bind: "(self, connection, tenant, *, user, claims)",
    MultiTenantSDK.explain_access: "(self, tenant, action, collection, id, *, user, claims)",
    TenantHandle.session: "(self, **options)",
    MultiTenantSDK.tenant: "(self, id, *, user, claims, request_id)",
    MultiTenantSDK.system: "(self, *, reason, actor, tenant)",
}


@pytest.mark.parametrize("name", SURFACE)
def test_a_module_exports_these_names(name: str) -> None:
    module: ModuleType = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(SURFACE[name])
    assert all(hasattr(module, exported) for exported in module.__all__)


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_a_class_has_these_members(cls: type) -> None:
    members = {name for name in dir(cls) if not name.startswith("_")}
    bound = {"context", "data"}
    attributes = {TenantHandle: {*bound, "flags", "settings"}, SupportHandle: bound, SystemHandle: bound}
    assert members | attributes.get(cls, set()) == set(METHODS[cls])


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_a_call_takes_these_arguments(function: Any) -> None:
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty, default=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    assert str(inspect.Signature(bare)) == SIGNATURES[function]


def test_every_exported_thing_is_documented() -> None:
    for name in tenantry.__all__:
        item = getattr(tenantry, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert inspect.getdoc(item), name


def test_every_method_is_documented() -> None:
    for cls, names in METHODS.items():
        for name in names:
            member = inspect.getattr_static(cls, name, None)
            if member is not None:
                assert inspect.getdoc(getattr(member, "__func__", member)), f"{cls.__name__}.{name}"


def test_importing_it_imports_no_driver() -> None:
    program = "import sys, tenantry; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    for absent in (
        "asyncpg",
        "sqlalchemy",
        "sqlite3",
        "pytest",
        "hypothesis",
        "typer",
        "fastapi",
        "starlette",
        "httpx",
        "yaml",
        "alembic",
        "arq",
        "celery",
        "procrastinate",
        "redis",
        "taskiq",
        "pandas",
        "polars",
    ):
        assert absent not in loaded


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert version("tenantry").startswith(tenantry.__version__)
