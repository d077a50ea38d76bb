"""The SDK, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self

from tenantry import sdk as asynchronous
from tenantry.config import Settings
from tenantry.context import SystemContext, TenantContext
from tenantry.hooks import AfterHook, WithinHook
from tenantry.plans import Flag, Plan, TenantSettings, UsageReport
from tenantry.ports import Capability
from tenantry.sdk import _VISIT, C, Event, Health
from tenantry.security.access.explanation import AccessExplanation
from tenantry.security.access.policy import AccessPolicy, Action
from tenantry.sync.bound import Block, Bound, Root
from tenantry.sync.data import DataManager
from tenantry.sync.insights import Insights
from tenantry.sync.tenants import (
    APIKeys,
    BoundSettings,
    Invitations,
    Members,
    Support,
    TenantFlags,
    TenantManager,
)
from tenantry.tenants import JoinCheck, KeyIdentity, MemberRoles
from tenantry.tokens import JobSigner


class TenantHandle(Bound[asynchronous.TenantHandle]):
    """One tenant's data, bound: no call through it can reach another tenant."""

    @property
    def context(self) -> TenantContext:
        """What the asynchronous class has as ``context``."""
        return self._known().context

    @cached_property
    def data(self) -> DataManager:
        """What the asynchronous class has as ``data``."""
        return DataManager(self._session, lambda: self._target().data, self._pin)._checked()

    @cached_property
    def flags(self) -> TenantFlags:
        """What the asynchronous class has as ``flags``."""
        return TenantFlags(self._session, lambda: self._target().flags, self._pin)._checked()

    @cached_property
    def settings(self) -> BoundSettings:
        """What the asynchronous class has as ``settings``."""
        return BoundSettings(self._session, lambda: self._target().settings, self._pin)._checked()

    @property
    def members(self) -> Members:
        """The tenant's members and their roles."""
        return Members(self._session, lambda: self._target().members, self._pin)._checked()

    @property
    def invitations(self) -> Invitations:
        """The tenant's invitations."""
        return Invitations(self._session, lambda: self._target().invitations, self._pin)._checked()

    @property
    def api_keys(self) -> APIKeys:
        """The API keys of the tenant's own programs."""
        return APIKeys(self._session, lambda: self._target().api_keys, self._pin)._checked()

    @property
    def support(self) -> Support:
        """What the tenant says about support, and sees of it."""
        return Support(self._session, lambda: self._target().support, self._pin)._checked()

    def __enter__(self) -> Self:
        self._run(lambda it: it.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(lambda it: it.__aexit__(kind, error, trace))

    def usage(self) -> UsageReport:
        """Return what the tenant uses, and what its plan allows."""
        return self._run(lambda it: it.usage())


class SupportHandle(Bound[asynchronous.SupportHandle]):
    """A tenant's data in the hands of support; open while its block runs, and the tenant lets it."""

    @cached_property
    def data(self) -> DataManager:
        """What the asynchronous class has as ``data``."""
        return DataManager(self._session, lambda: self._target().data, self._pin)._checked()

    @property
    def context(self) -> TenantContext:
        """What the asynchronous class has as ``context``."""
        return self._known().context


class SystemHandle(Bound[asynchronous.SystemHandle]):
    """Work across tenants; open while its block runs."""

    @cached_property
    def data(self) -> DataManager:
        """What the asynchronous class has as ``data``."""
        return DataManager(self._session, lambda: self._target().data, self._pin)._checked()

    @property
    def context(self) -> SystemContext:
        """What the asynchronous class has as ``context``."""
        return self._known().context


class MultiTenantSDK(Root):
    """A multi-tenant platform over one database.

    Use :meth:`open` in ``with``, or construct it and call :meth:`initialize` and :meth:`close`.

    Args:
        settings: The configuration.
        models: The models whose rows it keeps: subclasses of ``Model``, and declarative ones with ``TenantMixin``.
        access: What each user of a tenant may do; without it, everything in their tenant.
        plans: The plans that tenants may have; without any, a plan is any text.
        flags: The feature flags.
        tenant_settings: The model of the tenants' settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Sequence[type[object]] = (),
        access: AccessPolicy | None = None,
        plans: Sequence[Plan] = (),
        flags: Sequence[Flag] = (),
        tenant_settings: type[TenantSettings] | None = None,
    ) -> None:
        self._stand_for(
            asynchronous.MultiTenantSDK(
                settings,
                models=models,
                access=access,
                plans=plans,
                flags=flags,
                tenant_settings=tenant_settings,
            )
        )

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        models: Sequence[type[object]] = (),
        schema: Literal["check", "create"] | None = None,
        database: Mapping[str, Any] | None = None,
        performance: Mapping[str, Any] | None = None,
        access: AccessPolicy | None = None,
        plans: Sequence[Plan] = (),
        flags: Sequence[Flag] = (),
        settings: type[TenantSettings] | None = None,
        toml: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **sections: Any,
    ) -> Self:
        """Return an SDK to be used in ``with``.

        Args:
            url: The database; the same as ``database={"url": …}``.
            models: The models whose rows it keeps: subclasses of ``Model``, and declarative ones with ``TenantMixin``.
            schema: The same as ``database={"schema_mode": …}``.
            database: Options of the section ``database``.
            performance: Options of the section ``performance``.
            access: What each user of a tenant may do; without it, everything in their tenant.
            plans: The plans that tenants may have; without any, a plan is any text.
            flags: The feature flags.
            settings: The model of the tenants' settings.
            toml: A file with one table for each section.
            env: The environment, by default that of the process.
            **sections: Sections by name; those of parts not built yet are refused.

        Raises:
            ConfigurationError: An option or a model is wrong; ``field`` names it.
        """
        return cls._standing_for(
            asynchronous.MultiTenantSDK.open(
                url,
                models=models,
                schema=schema,
                database=database,
                performance=performance,
                access=access,
                plans=plans,
                flags=flags,
                settings=settings,
                toml=toml,
                env=env,
                **sections,
            )
        )

    def initialize(self) -> None:
        """Connect, check the schema and prove the isolation. Nothing is served before that has passed.

        Raises:
            SchemaMismatch: Tables are missing or differ.
            IsolationError: The database would not hold one tenant from another.
            Unavailable: The database cannot be reached.
        """
        self._session.open()

    def close(self) -> None:
        """Let what runs finish and release everything. Safe to call twice."""
        self._session.close()

    def __enter__(self) -> Self:
        self._session.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    @property
    def tenants(self) -> TenantManager:
        """The tenants: create, list, rename, suspend, resume, delete, purge, export, import."""
        return TenantManager(self._session, lambda: self._target().tenants, self._pin)._checked()

    @property
    def data(self) -> DataManager:
        """The rows, unbound: each call names its context, or runs inside a request that has one."""
        return DataManager(self._session, lambda: self._target().data, self._pin)._checked()

    @property
    def insights(self) -> Insights:
        """What the queries cost, by shape, and what would make them cheaper."""
        return Insights(self._session, lambda: self._target().insights, self._pin)._checked()

    @property
    def job_signer(self) -> JobSigner:
        """Signs the tenant of a job; see ``tenantry.jobs``."""
        return self._ready().job_signer

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the database can do beyond keeping rows."""
        return self._ready().capabilities

    def tenant(
        self,
        id: str,
        *,
        user: str | None = None,
        claims: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> TenantHandle:
        """Return a handle bound to one tenant. In ``with`` it is refused at once if the tenant is.

        Args:
            id: The tenant's id.
            user: On whose behalf.
            claims: What the identity provider says of the user.
            request_id: A correlation id.
        """
        return TenantHandle(
            self._session,
            lambda: self._target().tenant(id, user=user, claims=claims, request_id=request_id),
            self._pin,
        )._checked()

    def explain_access(
        self,
        tenant: str,
        action: Action,
        collection: type[object] | str | None = None,
        id: Any = None,
        *,
        user: str | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> AccessExplanation:
        """Return whether a user may do something, and which rules of the access policy decide it.

        What decides is what is asked here too, so that it never says other than what happens. It reads the row as it
        is stored: show it to those who run the platform.

        Args:
            tenant: The tenant's id.
            action: ``"read"``, ``"create"``, ``"update"``, ``"delete"`` or ``"raw"``.
            collection: A model or a name; none for raw access.
            id: A row, to be told of that one.
            user: The user.
            claims: What the identity provider says of the user.

        Raises:
            Unsupported: There is no access policy, so a user may do everything in their tenant.
            InvalidQuery: There is no such action, or it is not asked like this.
        """
        return self._run(
            lambda it: it.explain_access(tenant, action, collection, id, user=user, claims=claims)
        )

    def identify_api_key(self, text: str) -> KeyIdentity:
        """Return whose API key a request carries; what is revoked is refused within one second, everywhere.

        Raises:
            CredentialRejected: It is nobody's, or no longer valid.
        """
        return self._run(lambda it: it.identify_api_key(text))

    @property
    def member_roles(self) -> MemberRoles:
        """Says what a user is in a tenant, for access policies."""
        return self._ready().member_roles

    def impersonate(
        self, tenant: str, *, reason: str, actor: str, ttl: dt.timedelta = _VISIT
    ) -> AbstractContextManager[SupportHandle]:
        """Act in a tenant for its support, if the tenant has let support in: ``acme.support.allow(…)``.

        The tenant reads who was there, why, and every write: ``acme.support.sessions()`` and ``.writes(…)``. Once the
        time is over, or the tenant has ended it, each call is refused, within one second. The context's claims say who
        it is in truth: ``{"act": {"sub": actor, "session": …}}``.

        Args:
            tenant: The tenant's id.
            reason: Why; the tenant reads it.
            actor: Who, from a verified identity.
            ttl: For how long, at most 8 hours.

        Raises:
            SupportRefused: The tenant has not let support in, or no longer.
        """
        return Block(
            self,
            lambda it: it.impersonate(tenant, reason=reason, actor=actor, ttl=ttl),
            SupportHandle,
            pinned=False,
        )

    def system(
        self, *, reason: str, actor: str | None = None, tenant: str | None = None
    ) -> AbstractContextManager[SystemHandle]:
        """Work across tenants, recorded in the audit log before it begins.

        It reads every tenant's rows as records that carry ``tenant_id``, writes shared collections, and reads the
        audit log itself under the name ``tenantry_audit``.

        Args:
            reason: Why; kept in the audit log.
            actor: Who; kept in the audit log.
            tenant: Narrows the work to one tenant's rows.
        """
        return Block(
            self, lambda it: it.system(reason=reason, actor=actor, tenant=tenant), SystemHandle, pinned=False
        )

    def bind(
        self, connection: C, tenant: str, *, user: str | None = None, claims: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[C]:
        """Hold a connection of another driver to one tenant while the block runs.

        For synchronous code: ``with sdk.bind(connection, "acme"): …``. A psycopg connection and one of Django's are in
        a transaction for the whole block; the transactions of a SQLAlchemy session are each bound anew.

        Args:
            connection: A ``psycopg.Connection``, a ``Session`` or ``Connection`` of SQLAlchemy, or one of Django's,
                logged in as the raw role.
            tenant: The tenant's id.
            user: On whose behalf.
            claims: What the identity provider says of the user.

        Raises:
            Unsupported: The database or the driver cannot be held to a tenant.
            AccessDenied: There is an access policy, and the user has no raw access.
            ContextMismatch: It is bound to another tenant, or in a transaction already.
            TenantNotFound, TenantSuspended, TenantDeleted: The tenant may not be served.
        """
        return self._bind(connection, tenant, user=user, claims=claims)

    def add_within_hook(self, hook: WithinHook) -> None:
        """Add a hook whose writes join the transaction of each write."""
        self._anytime(lambda it: it.add_within_hook(hook))

    def add_after_hook(self, hook: AfterHook) -> None:
        """Add a hook that sees each operation when it is over."""
        self._anytime(lambda it: it.add_after_hook(hook))

    def add_join_check(self, check: JoinCheck) -> None:
        """Add a check that raises unless somebody may become a member; it runs in the transaction, one at a time."""
        self._anytime(lambda it: it.add_join_check(check))

    def on(self, event: Event, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the service's name when :meth:`get_health` sees it degrade or recover."""
        self._anytime(lambda it: it.on(event, listener))

    def get_health(self) -> Health:
        """Ask each service whether it works: ``{"database": {"status": "ok", "seconds": …}, …}``."""
        return self._run(lambda it: it.get_health())

    def get_metrics(self) -> dict[str, Any]:
        """Return what the SDK did since it was opened, for each verb and collection, and under ``pool`` who waits."""
        return self._anytime(lambda it: it.get_metrics())
