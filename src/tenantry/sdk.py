"""The SDK: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from tenantry import _display
from tenantry.coalescer import Coalescer
from tenantry.config import JobsConfig, Settings, load_settings
from tenantry.context import SystemContext, TenantContext, check_ambient
from tenantry.cursors import CursorSigner
from tenantry.data import DataManager, Runtime
from tenantry.data.records import key_of
from tenantry.errors import (
    Closed,
    ConfigurationError,
    DirectoryUnavailable,
    InvalidQuery,
    InvalidRecord,
    QuotaExceeded,
    SchemaError,
    SchemaMismatch,
    TenantError,
    TenantryError,
    Unsupported,
)
from tenantry.hooks import AfterHook, Hooks, WithinHook
from tenantry.insights import INSIGHTS, Insights, Watch
from tenantry.metrics import Metrics
from tenantry.plans import Catalog, Flag, Plan, TenantSettings, UsageReport
from tenantry.ports import Capability, Database, DatabaseAdapter, Measured, Rests, SessionAdapter
from tenantry.registry import adapter_for
from tenantry.resilience.retry import Retry
from tenantry.schema import Collection, Field, collection_of
from tenantry.security.access.decisions import Rulebook
from tenantry.security.access.explanation import AccessExplanation, explain
from tenantry.security.access.guard import GuardedDatabase
from tenantry.security.access.policy import ACTIONS, AccessPolicy, Action, RememberedRoles
from tenantry.tenants import (
    AUDIT,
    OWN_COLLECTIONS,
    APIKeys,
    BoundSettings,
    Invitations,
    JoinCheck,
    Joining,
    KeyIdentity,
    KeyRing,
    MemberRoles,
    Members,
    Mint,
    RequestMeter,
    Standings,
    Support,
    TenantFlags,
    TenantLease,
    TenantManager,
    TrailedHooks,
    audit,
    begin_counting,
    begin_visit,
    children_first,
    cursor_secret,
    job_secret,
    mint_of,
    prepare_directory,
    store_plans,
    visitor,
)
from tenantry.tokens import JobKey, JobSigner
from tenantry.types import tenant_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

_ADMISSION_SECONDS = 30.0
_VISIT = dt.timedelta(minutes=30)

P = TypeVar("P")
C = TypeVar("C")

_LOGS = {AUDIT.name: AUDIT}

Event = Literal["health.degraded", "health.recovered"]
Health = dict[str, dict[str, Any]]


class TenantHandle:
    """One tenant's data, bound: no call through it can reach another tenant."""

    def __init__(self, sdk: MultiTenantSDK, context: TenantContext) -> None:
        self._sdk = sdk
        self.context = context
        self.data: DataManager = sdk.data.bind(context)
        self.flags: TenantFlags = TenantFlags(sdk.tenants, context)
        self.settings: BoundSettings = BoundSettings(sdk.tenants, context)

    @property
    def members(self) -> Members:
        """The tenant's members and their roles."""
        database, lease, _ = self._sdk._administration()
        return Members(database, lease, self.context, self._sdk._join_checks)

    @property
    def invitations(self) -> Invitations:
        """The tenant's invitations."""
        return Invitations(*self._parts())

    @property
    def api_keys(self) -> APIKeys:
        """The API keys of the tenant's own programs."""
        return APIKeys(*self._parts())

    @property
    def support(self) -> Support:
        """What the tenant says about support, and sees of it."""
        database, lease, _ = self._sdk._administration()
        return Support(database, lease, self.context)

    def _parts(self) -> tuple[DatabaseAdapter, TenantLease, TenantContext, Mint]:
        database, lease, mint = self._sdk._administration()
        return database, lease, self.context, mint

    async def __aenter__(self) -> Self:
        check_ambient(self.context)
        await self._sdk._lease_of().admit(self.context.tenant_id)
        await self._sdk._count_request(self.context.tenant_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def usage(self) -> UsageReport:
        """Return what the tenant uses, and what its plan allows."""
        await self._sdk._lease_of().admit(self.context.tenant_id)
        return await self._sdk.tenants.usage(self.context.tenant_id)

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[AsyncSession]:
        """Open a session of SQLAlchemy for models of one's own, held to this tenant by the database.

        Everything works as without tenants: relationships, lazy loads, bulk statements, ``text()``. Each of its
        transactions is bound anew, so a commit in the middle loses nothing.

        Args:
            **options: Those of :class:`~sqlalchemy.ext.asyncio.AsyncSession`.

        Raises:
            Unsupported: The database would not hold it to the tenant.
            ContextMismatch: Another tenant is the ambient one.
            AccessDenied: There is an access policy, and the user has no raw access.
        """
        check_ambient(self.context)
        admit = partial(self._sdk._admit_raw, self.context)
        await admit()
        async with self._sdk._sessions_of().session(self.context, admit, options) as session:
            yield session

    def __repr__(self) -> str:
        user = "" if self.context.user_id is None else f", user={self.context.user_id!r}"
        return f"TenantHandle({self.context.tenant_id!r}{user})"

    def _repr_html_(self) -> str:
        shown = {"tenant": self.context.tenant_id, "user": self.context.user_id}
        return _display.properties_html("TenantHandle", shown)


class SupportHandle:
    """A tenant's data in the hands of support; open while its block runs, and the tenant lets it."""

    def __init__(self, data: DataManager, context: TenantContext) -> None:
        self.data = data
        self.context = context


class SystemHandle:
    """Work across tenants; open while its block runs."""

    def __init__(self, data: DataManager, context: SystemContext) -> None:
        self.data = data
        self.context = context


class MultiTenantSDK:
    """A multi-tenant platform over one database.

    Use :meth:`open` in ``async with``, or construct it and call :meth:`initialize` and :meth:`close`.

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
        self._settings = settings
        self._hooks = Hooks()
        self._metrics = Metrics()
        self._hooks.add_after(self._metrics)
        self._listeners: dict[str, list[Callable[[str], None]]] = {}
        self._degraded: set[str] = set()
        own = [collection_of(model) for model in models]
        _check_names(own)
        children_first(own)
        self._own = {collection.name: collection for collection in own}
        self._models = {item.model: item for item in own}
        self._rules = None if access is None else Rulebook(access, self._own)
        self._guard: GuardedDatabase | None = None
        performance = settings.performance
        slow = performance.slow_query_seconds
        self._watch = Watch(slow=slow, interval=performance.insights_interval)
        self._insights = Insights(self._watch, self._own, slow)
        if performance.query_insights:
            self._hooks.add_after(self._watch.observe)
        self._catalog = Catalog(
            plans, flags, tenant_settings, (item.name for item in own if item.scope == "tenant")
        )
        self._requests: RequestMeter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._database: DatabaseAdapter | None = None
        self._lease: TenantLease | None = None
        self._runtime: Runtime | None = None
        self._tenants: TenantManager | None = None
        self._data: DataManager | None = None
        self._job_signer: JobSigner | None = None
        self._mint: Mint | None = None
        self._keys: KeyRing | None = None
        self._join_checks: list[JoinCheck] = [self._check_seats]

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
        """Return an SDK to be used in ``async with``.

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
        given: dict[str, Any] = {"database": {**(database or {})}, "performance": performance or {}}
        for option, value in (("url", url), ("schema_mode", schema)):
            if value is not None:
                given["database"][option] = value
        given.update({name: options for name, options in sections.items() if options is not None})
        return cls(
            load_settings(given, toml=toml, env=env),
            models=models,
            access=access,
            plans=plans,
            flags=flags,
            tenant_settings=settings,
        )

    async def initialize(self) -> None:
        """Connect, check the schema and prove the isolation. Nothing is served before that has passed.

        Raises:
            SchemaMismatch: Tables are missing or differ.
            IsolationError: The database would not hold one tenant from another.
            Unavailable: The database cannot be reached.
        """
        if self._database is not None:
            return
        database = self._adapter()
        try:
            await self._prepare(database)
        except BaseException:
            await asyncio.shield(database.close())
            raise

    async def _prepare(self, database: DatabaseAdapter) -> None:
        settings = self._settings
        everything = [*OWN_COLLECTIONS, INSIGHTS, *self._own.values()]
        await database.open(everything)
        if settings.database.schema_mode == "create":
            await database.create_schema()
        differences = await database.check_schema()
        if differences:
            raise SchemaMismatch(
                differences,
                fix="Bring the tables up to the models: tenantry migrate upgrade (revisions that are missing: "
                'tenantry migrate new "…"). In development, open with schema="create", which makes missing tables.',
            )
        await prepare_directory(database)
        await database.attest()
        await self._prepare_plans(database)
        cursors = CursorSigner(await cursor_secret(database))
        self._job_signer = await _job_signer(settings.jobs, database)
        performance = settings.performance
        lease = TenantLease(
            database, seconds=performance.lease_seconds, max_tenants=performance.max_known_tenants
        )
        if self._rules is not None and self._rules.of_members:
            self._rules.source = RememberedRoles(MemberRoles(database), performance.lease_seconds)
        guard = None if self._rules is None else GuardedDatabase(database, self._rules)
        reached: Database = guard or database
        coalescer = Coalescer(reached.fetch) if performance.coalesce else None
        retry = Retry(settings.database.retry_attempts, settings.database.timeout)
        runtime = Runtime(
            reached,
            self._own,
            self._models,
            lease,
            self._hooks,
            cursors,
            coalescer,
            _LOGS,
            retry=retry,
            batch_size=performance.batch_size,
        )
        self._loop = asyncio.get_running_loop()
        self._database, self._lease, self._runtime, self._guard = database, lease, runtime, guard
        standings = Standings(database, lease, max_tenants=performance.max_known_tenants)
        self._requests = RequestMeter(
            database, standings, self._catalog, max_tenants=performance.max_known_tenants
        )
        self._mint = await mint_of(database)
        self._keys = KeyRing(database, self._mint, seconds=performance.lease_seconds)
        self._tenants = TenantManager(
            database,
            lease,
            everything,
            cursors,
            self._catalog,
            standings,
            self._requests,
            self._mint,
            self._join_checks,
        )
        self._data = DataManager(runtime)
        self._watch.start(database, lease.admits)

    async def _prepare_plans(self, database: DatabaseAdapter) -> None:
        """Write the plans down where the database looks, once it is known to count what they limit."""
        if self._catalog.counts:
            await begin_counting(database)
        await store_plans(database, self._catalog)

    def _check_seats(self, joining: Joining) -> None:
        """Refuse a member more than the tenant's plan allows."""
        tenant = joining.tenant
        limit = self._catalog.limits(tenant.plan, tenant.quotas).get("members")
        if limit is not None and joining.members >= limit:
            raise QuotaExceeded(
                quota="members", used=joining.members, limit=limit, plan=tenant.plan, tenant_id=tenant.id
            )

    async def _count_request(self, tenant: str) -> None:
        if self._requests is not None and self._catalog.plans:
            await self._requests.count(tenant)

    def _adapter(self) -> DatabaseAdapter:
        options = self._settings.database
        url = options.url.get_secret_value()
        if not url:
            raise ConfigurationError(
                "No database is named.",
                field="database.url",
                fix='Pass one, MultiTenantSDK.open("sqlite:///app.db", …), or set TENANTRY_DATABASE_URL.',
            )
        return adapter_for(url)(options)

    async def close(self) -> None:
        """Let what runs finish and release everything. Safe to call twice."""
        database, self._database = self._database, None
        if database is None:
            return
        try:
            await self._watch.close()
        finally:
            if self._runtime is not None and self._runtime.coalescer is not None:
                await self._runtime.coalescer.close()
            if self._keys is not None:
                await self._keys.close()
            if self._lease is not None:
                await self._lease.close()
            await database.close()

    async def _rest(self) -> None:
        """Let go of what a forked process could not leave alone. To be called while nothing else is."""
        runtime = self._opened(self._runtime)
        database = self._opened(self._database)
        if isinstance(database, Rests):
            if runtime.coalescer is not None:
                await runtime.coalescer.close()
            await self._watch.rest()
            await self._lease_of().close()
            await database.rest()

    def _abandon(self) -> DatabaseAdapter | None:
        """Forget the database and return it untouched: in a child process it is still the parent's."""
        database, self._database = self._database, None
        return database

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _shown(self) -> dict[str, str]:
        return {
            "database": _address(self._settings.database.url.get_secret_value()),
            "models": ", ".join(self._own),
            "state": "closed" if self._database is None else "open",
        }

    def __repr__(self) -> str:
        shown = self._shown()
        return f"<MultiTenantSDK {shown['database']} ({shown['models']}) {shown['state']}>"

    def _repr_html_(self) -> str:
        return _display.properties_html("MultiTenantSDK", self._shown())

    # -- the parts

    @property
    def tenants(self) -> TenantManager:
        """The tenants: create, list, rename, suspend, resume, delete, purge, export, import."""
        return self._opened(self._tenants)

    @property
    def data(self) -> DataManager:
        """The rows, unbound: each call names its context, or runs inside a request that has one."""
        return self._opened(self._data)

    @property
    def insights(self) -> Insights:
        """What the queries cost, by shape, and what would make them cheaper."""
        return self._opened(self._insights)

    @property
    def job_signer(self) -> JobSigner:
        """Signs the tenant of a job; see ``tenantry.jobs``."""
        return self._opened(self._job_signer)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the database can do beyond keeping rows."""
        return self._opened(self._database).capabilities

    def tenant(
        self,
        id: str,
        *,
        user: str | None = None,
        claims: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> TenantHandle:
        """Return a handle bound to one tenant. In ``async with`` it is refused at once if the tenant is.

        Args:
            id: The tenant's id.
            user: On whose behalf.
            claims: What the identity provider says of the user.
            request_id: A correlation id.
        """
        return TenantHandle(self, TenantContext(tenant_id(id), user, claims or {}, request_id))

    async def explain_access(
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
        runtime, database = self._opened(self._runtime), self._opened(self._database)
        if self._rules is None:
            raise Unsupported(
                "There is no access policy.", fix="Pass MultiTenantSDK.open(…, access=AccessPolicy(…))."
            )
        if action not in ACTIONS:
            raise InvalidQuery(
                f"there is no action {str(action)[:80]!r}.", path="action", fix=f"Known: {ACTIONS}."
            )
        if (collection is None) != (action == "raw"):
            raise InvalidQuery("name a collection, and none for raw access.", path="collection")
        found = None if collection is None else runtime.collection(collection)[0]
        context = TenantContext(tenant_id(tenant), user, claims or {})
        await self._lease_of().admit(context.tenant_id)
        key = None if id is None or found is None else key_of(found, id)
        return await explain(self._rules, database, context, found, action, key)

    async def identify_api_key(self, text: str) -> KeyIdentity:
        """Return whose API key a request carries; what is revoked is refused within one second, everywhere.

        Raises:
            CredentialRejected: It is nobody's, or no longer valid.
        """
        return await self._opened(self._keys).identify(text)

    @property
    def member_roles(self) -> MemberRoles:
        """Says what a user is in a tenant, for access policies."""
        return MemberRoles(self._opened(self._database))

    @asynccontextmanager
    async def impersonate(
        self, tenant: str, *, reason: str, actor: str, ttl: dt.timedelta = _VISIT
    ) -> AsyncIterator[SupportHandle]:
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
        runtime = self._opened(self._runtime)
        database, lease, _ = self._administration()
        id = tenant_id(tenant)
        visit = await begin_visit(database, lease, id, reason=reason, actor=actor, ttl=ttl)
        context = visitor(visit.session, id)
        check_ambient(context)
        hooks = TrailedHooks(self._hooks, visit)
        try:
            watched = replace(runtime, lease=visit, hooks=hooks, coalescer=None, raw=False)
            yield SupportHandle(DataManager(watched, context), context)
        finally:
            with suppress(TenantError):  # a tenant that is suspended meanwhile has ended it
                await asyncio.shield(visit.end())

    @asynccontextmanager
    async def system(
        self, *, reason: str, actor: str | None = None, tenant: str | None = None
    ) -> AsyncIterator[SystemHandle]:
        """Work across tenants, recorded in the audit log before it begins.

        It reads every tenant's rows as records that carry ``tenant_id``, writes shared collections, and reads the
        audit log itself under the name ``tenantry_audit``.

        Args:
            reason: Why; kept in the audit log.
            actor: Who; kept in the audit log.
            tenant: Narrows the work to one tenant's rows.
        """
        if not reason or not reason.strip():
            raise InvalidRecord("say why; it is kept in the audit log.", field="reason")
        runtime = self._opened(self._runtime)
        context = SystemContext(reason, actor, None if tenant is None else tenant_id(tenant))
        await runtime.database.execute(
            context, [audit("system", reason, actor=actor, tenant=context.tenant_id)]
        )
        runtime.systems.add(context)
        try:
            yield SystemHandle(self.data.bind(context), context)
        finally:
            runtime.systems.discard(context)

    @contextmanager
    def bind(
        self,
        connection: C,
        tenant: str,
        *,
        user: str | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> Iterator[C]:
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
        context = TenantContext(tenant_id(tenant), user, claims or {})
        with self._binding(connection, context, self._admit) as bound:
            yield bound

    def _binding(
        self, connection: C, context: TenantContext, admit: Callable[[TenantContext], None]
    ) -> AbstractContextManager[C]:
        check_ambient(context)
        return self._sessions_of().bind(connection, context, partial(admit, context))

    async def _admit_raw(self, context: TenantContext) -> None:
        """Ask the lease, and the policy whether this user may reach below it."""
        await self._lease_of().admit(context.tenant_id)
        if self._guard is not None:
            await self._guard.check_raw(context)

    def _admit(self, context: TenantContext) -> None:
        """Ask both, from whatever thread."""
        tenant = context.tenant_id
        lease, loop = self._lease_of(), self._opened(self._loop)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            asked = asyncio.run_coroutine_threadsafe(self._admit_raw(context), loop)
            try:
                asked.result(_ADMISSION_SECONDS)
            except TimeoutError:
                asked.cancel()
                raise DirectoryUnavailable(
                    "The event loop of the SDK does not answer, so no tenant is served."
                ) from None
            return
        if running is not loop or not lease.admits(tenant):
            raise DirectoryUnavailable(
                "The directory cannot be asked from inside an event loop without waiting.",
                fix=f'Enter `async with sdk.tenant("{tenant}")` around it, or bind in a thread.',
            )
        if self._guard is not None:
            _at_once(self._guard.check_raw(context))

    def _sessions_of(self) -> SessionAdapter:
        database = self._opened(self._database)
        if not isinstance(database, SessionAdapter):
            raise Unsupported(
                f"Nothing in this database ({database.name}) would hold a session of one's own to its tenant.",
                fix="Use handle.data, or PostgreSQL.",
            )
        return database

    def _administration(self) -> tuple[DatabaseAdapter, TenantLease, Mint]:
        return self._opened(self._database), self._lease_of(), self._opened(self._mint)

    def _lease_of(self) -> TenantLease:
        return self._opened(self._lease)

    def _opened(self, part: P | None) -> P:
        if self._database is None or part is None:
            raise Closed(
                "The SDK is not open.", fix="Use it inside `async with MultiTenantSDK.open(…) as sdk`."
            )
        return part

    # -- watching

    def add_within_hook(self, hook: WithinHook) -> None:
        """Add a hook whose writes join the transaction of each write."""
        self._hooks.add_within(hook)

    def add_after_hook(self, hook: AfterHook) -> None:
        """Add a hook that sees each operation when it is over."""
        self._hooks.add_after(hook)

    def add_join_check(self, check: JoinCheck) -> None:
        """Add a check that raises unless somebody may become a member; it runs in the transaction, one at a time."""
        self._join_checks.append(check)

    def on(self, event: Event, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the service's name when :meth:`get_health` sees it degrade or recover."""
        if event not in ("health.degraded", "health.recovered"):
            raise ConfigurationError(f"There is no event {event!r}.", field="event")
        self._listeners.setdefault(event, []).append(listener)

    async def get_health(self) -> Health:
        """Ask each service whether it works: ``{"database": {"status": "ok", "seconds": …}, …}``."""
        self._opened(self._database)
        health: Health = {}
        probes = {"database": self._probe_database, "directory": self._probe_directory}
        for service, probe in probes.items():
            started = time.perf_counter()
            try:
                await probe()
                health[service] = {"status": "ok", "seconds": time.perf_counter() - started}
            except TenantryError as error:
                health[service] = {"status": "degraded", "error": str(error)}
            self._announce(service, degraded=health[service]["status"] != "ok")
        return health

    async def _probe_database(self) -> None:
        differences = await self._opened(self._database).check_schema()
        if differences:
            raise SchemaMismatch(
                differences, fix="Restart the application, which checks its tables at the start."
            )

    async def _probe_directory(self) -> None:
        await self.tenants.list(limit=1)

    def _announce(self, service: str, *, degraded: bool) -> None:
        if degraded == (service in self._degraded):
            return
        (self._degraded.add if degraded else self._degraded.discard)(service)
        for listener in self._listeners.get("health.degraded" if degraded else "health.recovered", []):
            listener(service)

    def get_metrics(self) -> dict[str, Any]:
        """Return what the SDK did since it was opened, for each verb and collection, and under ``pool`` who waits."""
        found = self._metrics.snapshot()
        if self._database is not None and isinstance(self._database, Measured):
            found["pool"] = self._database.measure()
        return found


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run what need not wait; where it must, refuse."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise DirectoryUnavailable(
        "The user's roles cannot be asked from inside an event loop without waiting.", fix="Bind in a thread."
    )


async def _job_signer(options: JobsConfig, database: DatabaseAdapter) -> JobSigner:
    if options.key is None:
        return JobSigner([JobKey("database", await job_secret(database))], ttl=options.ttl)
    return JobSigner.configured(options)


def _address(url: str) -> str:
    """Return a URL without user, password and parameters; of one that is not clear, the scheme alone."""
    scheme = url.partition(":")[0] if ":" in url else ""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return f"{scheme}://…"
    if any("@" in part for part in (parts.path, parts.query, parts.fragment)):  # a password was not escaped
        return f"{scheme}://…"
    return f"{scheme}://{parts.hostname or ''}{port}{parts.path}"


def _check_names(collections: Sequence[Collection]) -> None:
    seen: dict[str, Collection] = {}
    for collection in collections:
        if collection.name in seen and seen[collection.name].model is not collection.model:
            raise ConfigurationError(
                f"Two models are named {collection.name!r}.", field="models", fix="Change one __collection__."
            )
        seen[collection.name] = collection
    for collection in collections:
        for field in collection.fields.values():
            if field.ref is not None:
                _check_reference(collection, field, seen.get(field.ref.collection))


def _check_reference(collection: Collection, field: Field, target: Collection | None) -> None:
    where = f"{collection.name}.{field.name}"
    if target is None:
        raise ConfigurationError(f"{where} refers to a collection that is not in models.", field="models")
    if target.scope == "tenant" and collection.scope != "tenant":
        raise SchemaError(f"{where}: shared rows cannot refer to a tenant's rows.", field=field.name)
    if target.key.kind is not field.kind:
        raise SchemaError(
            f"{where} is {field.kind.value}, and the ids of {target.name!r} are {target.key.kind.value}.",
            field=field.name,
        )
