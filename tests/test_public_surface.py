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
from tenantry.sdk import SystemHandle
from tenantry.tenants import TenantManager

SURFACE: dict[str, list[str]] = {
    "tenantry": [
        "BulkOutcome",
        "BulkResult",
        "PII",
        "Encrypted",
        "Indexed",
        "KeyedModel",
        "Model",
        "MultiTenantSDK",
        "Page",
        "PurgeCertificate",
        "Record",
        "Ref",
        "RenamedFrom",
        "Searchable",
        "Shared",
        "SystemHandle",
        "Tenant",
        "TenantContext",
        "TenantHandle",
        "TenantId",
        "TenantStatus",
        "TenantryError",
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
    "tenantry.sync": ["DataManager", "MultiTenantSDK", "SystemHandle", "TenantHandle", "TenantManager"],
    "tenantry.testing": ["assert_isolated"],
    "tenantry.testing.conformance": ["Conformance"],
}

METHODS: dict[type, list[str]] = {
    MultiTenantSDK: [
        "add_after_hook",
        "add_within_hook",
        "bind",
        "capabilities",
        "close",
        "data",
        "get_health",
        "get_metrics",
        "initialize",
        "job_signer",
        "on",
        "open",
        "system",
        "tenant",
        "tenants",
    ],
    TenantHandle: ["context", "data", "session"],
    SystemHandle: ["context", "data"],
    DataManager: [
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
        "read",
        "sql",
        "transaction",
        "update",
        "upsert",
    ],
    TenantManager: ["create", "delete", "get", "list", "purge", "resume", "suspend", "update"],
}

SIGNATURES: dict[Any, str] = {
    DataManager.read: "(self, collection, where, *, order_by, limit, cursor, fields, into, include, distinct, context)",
    DataManager.get: "(self, collection, id, *, context)",
    DataManager.create: "(self, target, record, /, *, idempotency_key, context)",
    DataManager.update: "(self, target, id, changes, /, *, version, idempotency_key, context, **fields)",
    DataManager.upsert: "(self, target, record, /, *, on, context)",
    DataManager.delete: "(self, target, id, /, *, version, context)",
    DataManager.bulk_create: "(self, target, records, /, *, batch_size, atomic, context)",
    DataManager.bulk_update: "(self, target, changes, /, *, batch_size, atomic, context)",
    DataManager.bulk_upsert: "(self, target, records, /, *, on, batch_size, atomic, context)",
    DataManager.bulk_delete: "(self, target, ids, /, *, batch_size, atomic, context)",
    DataManager.sql: "(self, text, params, *, context)",
    TenantManager.create: "(self, slug, *, name, plan, settings)",
    TenantManager.purge: "(self, tenant_id, *, leave_others)",
    MultiTenantSDK.bind: "(self, connection, tenant)",
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
    instance_attributes = {"context", "data"} if cls in (TenantHandle, SystemHandle) else set()
    assert members | instance_attributes == set(METHODS[cls])


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
