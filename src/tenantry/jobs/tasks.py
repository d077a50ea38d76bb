"""What the runners have in common: how a task says that it has no tenant, and how a tenant is named for a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from tenantry.context import TenantContext, check_ambient, current_context, use_context
from tenantry.errors import TenantRequired
from tenantry.sdk import TenantHandle
from tenantry.types import tenant_id

F = TypeVar("F", bound=Callable[..., Any])

FIELD: Final = "tenantry_token"
_MARK: Final = "__tenantry_untenanted__"


def untenanted(function: F) -> F:
    """Mark the function of a task that runs without a tenant, such as a nightly clean-up.

    Put it next to the function, below the runner's own decorator. What it does across tenants goes through
    ``sdk.system(reason="…")``.
    """
    setattr(function, _MARK, True)
    return function


def is_untenanted(function: object) -> bool:
    """Whether :func:`untenanted` marked the function."""
    return getattr(function, _MARK, False) is True


@contextmanager
def enqueue_for(tenant: TenantHandle | TenantContext | str) -> Iterator[TenantContext]:
    """Make ``tenant`` the one for which jobs are enqueued until the block ends.

    A request or a job that has a tenant already needs no such block.

    Args:
        tenant: A handle, with its user and claims; a context; or the tenant's id.

    Raises:
        ContextMismatch: The work at hand is for another tenant.
    """
    if isinstance(tenant, str):
        context = TenantContext(tenant_id(tenant))
    else:
        context = tenant.context if isinstance(tenant, TenantHandle) else tenant
    check_ambient(context)
    with use_context(context):
        yield context


def required_context(task: str) -> TenantContext:
    """Return the ambient context, for which ``task`` is enqueued or run.

    Raises:
        TenantRequired: There is none.
    """
    context = current_context()
    if context is None:
        raise tenant_required(task)
    return context


def tenant_required(task: str) -> TenantRequired:
    """Return the error for a job without a tenant."""
    return TenantRequired(
        f"The task {task!r}",
        fix="Enqueue it while a tenant is bound, `with enqueue_for(acme): …`, or mark it as @untenanted.",
    )
