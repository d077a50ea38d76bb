"""arq: jobs are enqueued through a pool that signs them, and run by functions that were wrapped.

::

    jobs = TenantJobs(sdk)

    async def export(ctx: dict[str, Any], kind: str) -> int:
        return await ctx["tenant"].data.count(Product)

    class WorkerSettings:
        functions = jobs.functions(export)

    queue = jobs.redis(await create_pool(RedisSettings()))
    with enqueue_for(acme):  # a request or a job that has a tenant needs no such block
        await queue.enqueue_job("export", "csv")

By itself arq writes jobs with pickle, so that whoever can write to the queue can run any code in its workers. Give pool
and worker ``job_serializer=msgspec.msgpack.encode`` and ``job_deserializer=msgspec.msgpack.decode``.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import uuid
from collections.abc import Mapping
from typing import Any, Final

from tenantry.context import use_context
from tenantry.errors import InvalidRecord, JobRejected, MissingExtra
from tenantry.jobs.tasks import FIELD, is_untenanted, required_context, tenant_required
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.tokens import JobReference, JobSigner, digest

try:
    from arq.connections import ArqRedis
    from arq.cron import CronJob
    from arq.jobs import Job
    from arq.typing import WorkerCoroutine
    from arq.worker import Function, func
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "arq":
        raise
    raise MissingExtra("arq", "arq") from error

__all__ = ["TenantJobs", "TenantRedis"]

_RUNNER: Final = "arq"

Seconds = int | float | dt.timedelta | None


class TenantRedis(ArqRedis):
    """A pool whose jobs carry the ambient tenant. Made by :meth:`TenantJobs.redis`."""

    def __init__(self, pool: ArqRedis, signer: JobSigner) -> None:
        super().__init__(
            pool.connection_pool,
            job_serializer=pool.job_serializer,
            job_deserializer=pool.job_deserializer,
            default_queue_name=pool.default_queue_name,
            expires_extra_ms=pool.expires_extra_ms,
        )
        self._signer = signer

    async def enqueue_job(
        self,
        function: str,
        *args: Any,
        _job_id: str | None = None,
        _queue_name: str | None = None,
        _defer_until: dt.datetime | None = None,
        _defer_by: Seconds = None,
        _expires: Seconds = None,
        _job_try: int | None = None,
        **kwargs: Any,
    ) -> Job | None:
        """Enqueue a job for the ambient tenant. The arguments are those of :class:`arq.connections.ArqRedis`.

        Raises:
            TenantRequired: There is no tenant. A function that needs none is enqueued through the plain pool.
            InvalidRecord: An argument cannot be signed.
        """
        job_id, queue_name = _job_id or uuid.uuid4().hex, _queue_name or self.default_queue_name
        context = required_context(function)
        delivered = self._as_delivered([list(args), kwargs])
        job = JobReference(_RUNNER, function, queue_name, job_id, digest(*delivered))
        return await super().enqueue_job(
            function,
            *args,
            _job_id=job_id,
            _queue_name=queue_name,
            _defer_until=_defer_until,
            _defer_by=_defer_by,
            _expires=_expires,
            _job_try=_job_try,
            **{**kwargs, FIELD: self._signer.sign(context, job)},
        )

    def _as_delivered(self, arguments: list[Any]) -> list[Any]:
        if self.job_serializer is None or self.job_deserializer is None:
            return arguments
        delivered: Any = self.job_deserializer(self.job_serializer({"arguments": arguments}))
        return list(delivered["arguments"])


class TenantJobs:
    """What an application needs to give its jobs tenants.

    Args:
        sdk: The SDK, open by the time of the first job.
    """

    def __init__(self, sdk: MultiTenantSDK) -> None:
        self._sdk = sdk

    def redis(self, pool: ArqRedis) -> TenantRedis:
        """Return a pool over the same connections whose jobs carry the ambient tenant."""
        return TenantRedis(pool, self._sdk.job_signer)

    def functions(self, *functions: Function | WorkerCoroutine) -> list[Function]:
        """Return the functions for ``WorkerSettings.functions``, each of which runs as its job's tenant.

        Their ``ctx`` holds the handle, ``ctx["tenant"]``, and in ``ctx["redis"]`` a pool whose jobs inherit the tenant.
        """
        return [self._wrapped(func(function)) for function in functions]

    def cron_jobs(self, *cron_jobs: CronJob) -> list[CronJob]:
        """Return the jobs for ``WorkerSettings.cron_jobs``. A clock has no tenant: mark them as untenanted."""
        return [self._wrapped(cron_job) for cron_job in cron_jobs]

    def _wrapped(self, function: Any) -> Any:
        coroutine = function.coroutine

        @functools.wraps(coroutine)
        async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
            token = kwargs.pop(FIELD, None)
            if is_untenanted(coroutine):
                with use_context(None):
                    return await coroutine(ctx, *args, **kwargs)
            handle = await self._admitted(function.name, token, ctx, [list(args), kwargs])
            own = {**ctx, "tenant": handle, "redis": self.redis(ctx["redis"])}
            with use_context(handle.context):
                return await coroutine(own, *args, **kwargs)

        return dataclasses.replace(function, coroutine=run)

    async def _admitted(
        self, name: str, token: object, ctx: Mapping[Any, Any], arguments: list[Any]
    ) -> TenantHandle:
        if token is None:
            raise tenant_required(name)
        try:
            signed = digest(*arguments)
        except InvalidRecord as error:
            raise JobRejected(str(error), reason="other-arguments") from error
        job = JobReference(_RUNNER, name, ctx["redis"].default_queue_name, ctx["job_id"], signed)
        context = self._sdk.job_signer.open(token, job)
        async with TenantHandle(self._sdk, context) as handle:
            return handle
