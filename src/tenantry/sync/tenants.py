"""The tenants, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from tenantry import tenants as asynchronous
from tenantry.plans import FlagValue, FlagValues, Rate, TenantSettings
from tenantry.plans.quotas import Count, UsageReport
from tenantry.sync.bound import Bound
from tenantry.tenants.api_keys import _DAY, NewAPIKey
from tenantry.tenants.archive import Manifest
from tenantry.tenants.bound import S
from tenantry.tenants.directory import Tenant, TenantStatus
from tenantry.tenants.invitations import WEEK, Membership, NewInvitation
from tenantry.tenants.manager import _REDIRECT, PurgeCertificate
from tenantry.tenants.own import (
    APIKey,
    Invitation,
    InvitationStatus,
    Member,
    SupportConsent,
    SupportSession,
    SupportWrite,
)
from tenantry.tenants.plans import UNSET, UnsetType
from tenantry.tenants.transfer import Copy, Progress
from tenantry.types import Page


class TenantManager(Bound[asynchronous.TenantManager]):
    """Creates tenants, moves them through their life, and says what they may use."""

    def set_quota(
        self,
        tenant_id: str,
        *,
        reason: str,
        rows: int | UnsetType | None = UNSET,
        storage: int | str | UnsetType | None = UNSET,
        members: int | UnsetType | None = UNSET,
        requests: Rate | UnsetType | None = UNSET,
        per_collection: Mapping[str, int | None] | None = None,
    ) -> Tenant:
        """Give a tenant limits of its own, whatever its plan says. ``None`` is no limit; what is not named stays.

        A tenant that is above a new limit keeps what it has, and may not add to it.

        Args:
            tenant_id: The tenant.
            reason: Why; kept in the audit log.
            rows: Rows in all collections together.
            storage: Bytes, or a text such as ``"50MB"``.
            members: Members.
            requests: Requests in each window.
            per_collection: Rows of single collections.

        Raises:
            ConfigurationError: A limit is none.
        """
        return self._run(
            lambda it: it.set_quota(
                tenant_id,
                reason=reason,
                rows=rows,
                storage=storage,
                members=members,
                requests=requests,
                per_collection=per_collection,
            )
        )

    def clear_quota(self, tenant_id: str, *quotas: str, reason: str) -> Tenant:
        """Take limits of its own away from a tenant, so that those of its plan hold again.

        Args:
            tenant_id: The tenant.
            *quotas: Such as ``rows`` or ``rows:orders``; none means all.
            reason: Why; kept in the audit log.
        """
        return self._run(lambda it: it.clear_quota(tenant_id, *quotas, reason=reason))

    def set_flag(
        self, tenant_id: str, flag: str, value: Any, *, reason: str, until: dt.datetime | None = None
    ) -> Tenant:
        """Give a tenant a flag's value, whatever its plan says.

        Args:
            tenant_id: The tenant.
            flag: The flag.
            value: Of the flag's type, and one of its choices.
            reason: Why; kept in the audit log and with the value.
            until: When it ends, with a time zone; ``None`` for never.

        Raises:
            UnknownFlag: It is not declared.
            InvalidRecord: The flag cannot have this value, or the moment has no time zone.
        """
        return self._run(lambda it: it.set_flag(tenant_id, flag, value, reason=reason, until=until))

    def clear_flag(self, tenant_id: str, flag: str, *, reason: str) -> Tenant:
        """Take a flag's own value away from a tenant, also one of a flag that is declared no longer."""
        return self._run(lambda it: it.clear_flag(tenant_id, flag, reason=reason))

    def flags(self, tenant_id: str, *, user: str | None = None) -> list[FlagValue]:
        """Return the value of each flag for a tenant, or one user of it, and where that comes from."""
        return self._run(lambda it: it.flags(tenant_id, user=user))

    def usage(self, tenant_id: str) -> UsageReport:
        """Return what a tenant uses, and what its plan and its own quotas allow."""
        return self._run(lambda it: it.usage(tenant_id))

    def recount(self, tenant_id: str) -> list[Count]:
        """Count a tenant's rows and mend the counters where they differ. Return by how much each was wrong.

        It holds up nobody. Needed once after tables that held rows already were brought under counting.
        """
        return self._run(lambda it: it.recount(tenant_id))

    def create(
        self,
        slug: str,
        *,
        name: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Create a tenant whose id is ``slug``, or return the one that exists with the same properties.

        Raises:
            InvalidTenantId: ``slug`` cannot be a tenant id.
            TenantExists: It is taken by a tenant with another name, plan or settings.
            UnknownPlan: Plans are declared, and it is none of them.
            InvalidRecord: A property or a setting is wrong; ``field`` names it.
        """
        return self._run(lambda it: it.create(slug, name=name, plan=plan, settings=settings))

    def create_many(
        self, slugs: Iterable[str], *, plan: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> int:
        """Create many tenants, 1,000 in a transaction, and return how many were new; those that exist stay as they are.

        It may be run again after a failure: what was created before is found.

        Args:
            slugs: Their ids, each of which is its name too.
            plan: The plan of those that are new.
            settings: The settings of those that are new.

        Raises:
            InvalidTenantId: One of them cannot be a tenant id; those before it may have been created.
        """
        return self._run(lambda it: it.create_many(slugs, plan=plan, settings=settings))

    def get(self, tenant_id: str) -> Tenant:
        """Return a tenant, whatever its status, or raise :class:`TenantNotFound`."""
        return self._run(lambda it: it.get(tenant_id))

    def list(
        self, *, status: TenantStatus | str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Tenant]:
        """Return tenants in the order of their ids, a page at a time."""
        return self._run(lambda it: it.list(status=status, limit=limit, cursor=cursor))

    def update(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        plan: str | UnsetType | None = UNSET,
        settings: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Change what is given; what is not given stays. ``plan=None`` takes the plan away.

        A tenant that is above the limits of a new plan keeps what it has, and may not add to it.

        Raises:
            UnknownPlan: Plans are declared, and it is none of them.
            InvalidRecord: A property or a setting is wrong; ``field`` names it.
        """
        return self._run(lambda it: it.update(tenant_id, name=name, plan=plan, settings=settings))

    def by_slug(self, slug: str) -> Tenant:
        """Return the tenant that is known as ``slug``, or was until lately: then its ``slug`` is another one by now.

        Raises:
            TenantNotFound: None is or was.
        """
        return self._run(lambda it: it.by_slug(slug))

    def rename(
        self,
        tenant_id: str,
        *,
        slug: str | None = None,
        name: str | None = None,
        redirect: dt.timedelta = _REDIRECT,
    ) -> Tenant:
        """Let people know a tenant by another slug or name. Its id, and with it every row, stays as it is.

        Args:
            tenant_id: The tenant.
            slug: The new slug; nobody else's slug or id.
            name: The new name.
            redirect: For how long :meth:`by_slug` finds it under the old slug as well, and nobody else may take that.

        Raises:
            TenantExists: The slug is taken.
        """
        return self._run(lambda it: it.rename(tenant_id, slug=slug, name=name, redirect=redirect))

    def export(
        self,
        tenant_id: str,
        file: str | os.PathLike[str],
        *,
        collections: Sequence[str] | None = None,
        anonymise: bool = False,
        progress: Progress | None = None,
    ) -> Manifest:
        """Write a tenant into one file, whatever its status, as it is at one moment.

        The file holds its rows, members and settings; what it leaves out, secrets above all, the manifest says.

        Args:
            tenant_id: The tenant.
            file: The file, which appears once it is whole.
            collections: The names of the collections; by default all.
            anonymise: Put pseudonyms in the place of text that is marked ``PII``, and nothing in the place of the rest.
            progress: Is told a collection and how many of its rows are written.
        """
        return self._run(
            lambda it: it.export(
                tenant_id, file, collections=collections, anonymise=anonymise, progress=progress
            )
        )

    def import_(self, file: str | os.PathLike[str], *, as_: str, progress: Progress | None = None) -> Copy:
        """Make a tenant of a file that :meth:`export` has written, with the same row ids.

        Everything is checked before anything is stored. The rows are stored in one transaction, read back and
        compared; only then is the tenant served. After a failure, or a killed process, import again: it begins anew.

        Args:
            file: The file.
            as_: The id of the new tenant.
            progress: Is told a collection and how many of its rows are stored.

        Raises:
            ArchiveError: The file is damaged, of another version, or does not fit the models.
            TenantExists: There is such a tenant.
        """
        return self._run(lambda it: it.import_(file, as_=as_, progress=progress))

    def clone(
        self, tenant_id: str, as_: str, *, collections: Sequence[str] | None = None, anonymise: bool = False
    ) -> Copy:
        """Copy a tenant into a new one, as :meth:`export` and :meth:`import_` would.

        Args:
            tenant_id: The tenant.
            as_: The id of the new tenant.
            collections: The names of the collections; by default all.
            anonymise: Put pseudonyms in the place of personal data.
        """
        return self._run(lambda it: it.clone(tenant_id, as_, collections=collections, anonymise=anonymise))

    def of_user(self, user: str) -> Sequence[Membership]:
        """Return the tenants that a user is a member of and that are served, at most 1,000, in the order of their ids.

        Args:
            user: The user's id, from a verified identity: whoever asks for another one's learns where that one is.
        """
        return self._run(lambda it: it.of_user(user))

    def accept_invitation(self, token: str, *, user: str, email: str | None = None) -> Membership:
        """Make a user a member of the tenant that an invitation is of. A token is accepted once.

        Args:
            token: The token of the invitation.
            user: The user's id, from a verified identity.
            email: The user's verified address, to accept only what was sent there.

        Raises:
            CredentialRejected: Nobody gets in with this token, or no longer; ``reason`` says why.
            TenantNotFound, TenantSuspended, TenantDeleted: The tenant may not be served.
        """
        return self._run(lambda it: it.accept_invitation(token, user=user, email=email))

    def suspend(self, tenant_id: str, *, reason: str) -> Tenant:
        """Refuse the tenant everywhere, within one second; its data stays. ``reason`` is kept and audited."""
        return self._run(lambda it: it.suspend(tenant_id, reason=reason))

    def resume(self, tenant_id: str) -> Tenant:
        """Serve a suspended tenant again."""
        return self._run(lambda it: it.resume(tenant_id))

    def delete(self, tenant_id: str, *, reason: str) -> Tenant:
        """Mark a tenant for deletion: it is refused from now on, and :meth:`purge` may delete its data."""
        return self._run(lambda it: it.delete(tenant_id, reason=reason))

    def purge(self, tenant_id: str, *, leave_others: bool = False) -> PurgeCertificate:
        """Delete every row of a tenant that was marked by :meth:`delete`, and prove that none is left.

        Waits until no process can hold a lease from before the mark, then has the database refuse the tenant, so that
        what was admitted before and arrives later leaves nothing.

        Args:
            tenant_id: The tenant.
            leave_others: Leave rows in tables that belong to no model here, since another program looks after them.

        Raises:
            InvalidTransition: The tenant is not marked.
            ConfigurationError: Rows of tenants may lie in tables of which no model is known here.
            PurgeIncomplete: Rows were left. The tenant stays marked; purge it again.
        """
        return self._run(lambda it: it.purge(tenant_id, leave_others=leave_others))


class TenantFlags(Bound[asynchronous.TenantFlags]):
    """The feature flags of one tenant, and of the handle's user where one is named."""

    def read(self) -> FlagValues:
        """Return all flags as of now, to be asked without waiting: ``flags["theme"]``, ``flags.enabled("reports")``.

        It waits for the database only where the tenant changed, or is new to this process.
        """
        return self._run(lambda it: it.read())

    def enabled(self, flag: str) -> bool:
        """Whether a flag of true or false is on.

        Raises:
            UnknownFlag: It is not declared; says which name may have been meant.
            InvalidRecord: It is no flag of true or false.
        """
        return self._run(lambda it: it.enabled(flag))

    def value(self, flag: str) -> Any:
        """Return the value of a flag.

        Raises:
            UnknownFlag: It is not declared.
        """
        return self._run(lambda it: it.value(flag))


class BoundSettings(Bound[asynchronous.BoundSettings]):
    """The settings of one tenant, typed by the model that the SDK was opened with."""

    @overload
    def get(self) -> Any: ...

    @overload
    def get(self, model: type[S]) -> S: ...

    def get(self, model: type[TenantSettings] | None = None) -> Any:
        """Return the settings, with defaults for what the tenant never set.

        Args:
            model: The model that the SDK was opened with, for the type checker.

        Raises:
            InvalidRecord: What is stored does not fit the model any more; ``field`` names it.
        """
        return self._pass_on(lambda it: it.get(model))

    def update(
        self, changes: Mapping[str, Any] | None = None, /, *, version: int | None = None, **fields: Any
    ) -> Any:
        """Change some settings and return all of them; what is not named stays. The change is audited by name.

        Args:
            changes: New values by name; or name them as keywords.
            version: The version of the tenant's row in the directory that must be stored still.
            **fields: New values by name.

        Raises:
            InvalidRecord: A value is not what the model wants, or there is no such setting; ``field`` names it.
            Conflict: The tenant changed since ``version``.
        """
        return self._run(lambda it: it.update(changes, version=version, **fields))


class Members(Bound[asynchronous.Members]):
    """The members of one tenant. A tenant that has owners never loses the last of them."""

    def add(self, user: str, *, roles: Sequence[str] = (), email: str | None = None) -> Member:
        """Make a user a member, or return the one who is with these roles.

        Args:
            user: The user's id, as the application's own authentication knows it.
            roles: What the user is in this tenant; ``owner`` is the one that the SDK knows.
            email: Kept with the member.

        Raises:
            MemberExists: The user is a member with other roles.
            TenantryError: A check that was added with ``sdk.add_join_check`` refuses.
        """
        return self._run(lambda it: it.add(user, roles=roles, email=email))

    def get(self, user: str) -> Member:
        """Return a member, or raise :class:`NotFound`."""
        return self._run(lambda it: it.get(user))

    def list(
        self, *, role: str | None = None, start_after: str | None = None, limit: int = 100
    ) -> Sequence[Member]:
        """Return members in the order of their ids.

        Args:
            role: Only those with this role.
            start_after: Only those behind this id: the last one of the page before.
            limit: The most to return, 1 to 10,000.
        """
        return self._run(lambda it: it.list(role=role, start_after=start_after, limit=limit))

    def roles_of(self, user: str) -> frozenset[str]:
        """Return the roles of a user in this tenant; none for who is no member."""
        return self._run(lambda it: it.roles_of(user))

    def set_roles(self, user: str, roles: Sequence[str]) -> Member:
        """Give a member other roles.

        Raises:
            NotFound: The user is no member.
            LastOwner: The user is the only owner, and would no longer be one.
        """
        return self._run(lambda it: it.set_roles(user, roles))

    def remove(self, user: str) -> None:
        """Make a user no member any more.

        Raises:
            NotFound: The user is none.
            LastOwner: The user is the only owner.
        """
        self._run(lambda it: it.remove(user))


class Invitations(Bound[asynchronous.Invitations]):
    """The invitations of one tenant."""

    def create(self, email: str, *, roles: Sequence[str] = (), ttl: dt.timedelta = WEEK) -> NewInvitation:
        """Invite somebody.

        Args:
            email: The address that the token goes to; sending it is up to the application.
            roles: What the new member will be.
            ttl: For how long it can be accepted, at most 90 days.
        """
        return self._run(lambda it: it.create(email, roles=roles, ttl=ttl))

    def list(self, *, status: InvitationStatus | str | None = None) -> Sequence[Invitation]:
        """Return up to 1,000 invitations, the oldest first."""
        return self._run(lambda it: it.list(status=status))

    def resend(self, id: uuid.UUID, *, ttl: dt.timedelta = WEEK) -> NewInvitation:
        """Give a pending invitation another token, and time again. The token before no longer works.

        Raises:
            NotFound: There is none that is pending.
        """
        return self._run(lambda it: it.resend(id, ttl=ttl))

    def revoke(self, id: uuid.UUID) -> None:
        """Let nobody accept an invitation any more.

        Raises:
            NotFound: There is none that is pending.
        """
        self._run(lambda it: it.revoke(id))


class APIKeys(Bound[asynchronous.APIKeys]):
    """The API keys of one tenant."""

    def create(
        self,
        name: str,
        *,
        roles: Sequence[str] = (),
        scopes: Sequence[str] = (),
        ttl: dt.timedelta | None = None,
    ) -> NewAPIKey:
        """Make a key.

        Args:
            name: What people call it.
            roles: What a request with it is, as a member would be.
            scopes: What it is for, in the application's own words.
            ttl: For how long it works; by default until it is revoked.
        """
        return self._run(lambda it: it.create(name, roles=roles, scopes=scopes, ttl=ttl))

    def list(self) -> Sequence[APIKey]:
        """Return up to 1,000 keys, without their secrets, also those that no longer work."""
        return self._run(lambda it: it.list())

    def get(self, id: str) -> APIKey:
        """Return one key without its secret, or raise :class:`NotFound`."""
        return self._run(lambda it: it.get(id))

    def rotate(self, id: str, *, overlap: dt.timedelta = _DAY) -> NewAPIKey:
        """Make a key that replaces another one, which goes on working for a while.

        Args:
            id: The key to replace; it must still work.
            overlap: For how long both work.

        Raises:
            NotFound: There is no such key that works.
        """
        return self._run(lambda it: it.rotate(id, overlap=overlap))

    def revoke(self, id: str, *, reason: str) -> None:
        """Refuse a key everywhere, within one second.

        Raises:
            NotFound: There is no such key that works.
        """
        self._run(lambda it: it.revoke(id, reason=reason))


class Support(Bound[asynchronous.Support]):
    """What a tenant says about support, and sees of it."""

    def allow(self, *, ttl: dt.timedelta) -> SupportConsent:
        """Let support in for ``ttl``, at most a year. Nobody is let in before this was called."""
        return self._run(lambda it: it.allow(ttl=ttl))

    def consent(self) -> SupportConsent | None:
        """Return until when support is let in, if it is."""
        return self._run(lambda it: it.consent())

    def revoke(self) -> None:
        """Let support in no more, and end every visit within one second."""
        self._run(lambda it: it.revoke())

    def sessions(self) -> Sequence[SupportSession]:
        """Return up to 1,000 visits of support, the oldest first."""
        return self._run(lambda it: it.sessions())

    def writes(self, session: uuid.UUID) -> Sequence[SupportWrite]:
        """Return up to 1,000 writes of one visit, in order."""
        return self._run(lambda it: it.writes(session))
