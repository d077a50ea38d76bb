"""Binds the connections of Django, for as long as a request, a task or a command is of one tenant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from django.apps import apps
from django.db import OperationalError, connections

from tenantry.context import TenantContext, check_ambient, use_context
from tenantry.django.options import options
from tenantry.django.roles import check_role
from tenantry.errors import DatabaseUnavailable
from tenantry.sync import MultiTenantSDK
from tenantry.types import tenant_id


def sdk() -> MultiTenantSDK:
    """Return the SDK of this process: tenants are created, suspended and purged through it."""
    return cast(MultiTenantSDK, apps.get_app_config("tenantry").sdk)


@contextmanager
def tenant(id: str, *, user: str | None = None) -> Iterator[None]:
    """Work as one tenant; as a decorator, whenever the function is called.

    Each database is in ``transaction.atomic()`` for the whole block. What is left to ``transaction.on_commit`` is done
    as the tenant too.

    Args:
        id: The tenant's id.
        user: On whose behalf.

    Raises:
        TenantNotFound, TenantSuspended, TenantDeleted: It may not be served.
        ContextMismatch: A block around this one is bound already.
        Unavailable: Try again later.
    """
    context = TenantContext(tenant_id(id), user)
    check_ambient(context)
    with bound(context):
        yield


@contextmanager
def bound(context: TenantContext) -> Iterator[None]:
    """Make a tenant the ambient one, and bind every database of this thread that has rows of tenants."""
    with use_context(context), bound_databases(context):
        yield


@contextmanager
def bound_databases(context: TenantContext) -> Iterator[None]:
    """Do the second alone, for a generator: its consumer would share what is ambient."""
    with ExitStack() as stack:
        try:
            for alias in options().databases:
                check_role(connections[alias])
                binding = sdk().bind(
                    connections[alias], context.tenant_id, user=context.user_id, claims=context.claims
                )
                stack.enter_context(binding)
        except OperationalError as error:
            raise DatabaseUnavailable("Django's database cannot be reached.") from error
        yield
