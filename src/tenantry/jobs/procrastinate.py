"""procrastinate: every job that an application defers carries its tenant, and every worker binds it.

::

    app = App(connector=PsycopgConnector())
    install(app, sdk)

    @app.task(pass_context=True)
    async def export(context: JobContext, kind: str) -> None:
        acme = context.additional_context["tenant"]
        print(await acme.data.count(Product))

    with enqueue_for(acme):  # a request or a job that has a tenant needs no such block
        await export.defer_async(kind="csv")

The token is one more argument of the job, taken out again before the task is called. It has no job id in it, since only
the database knows that; a copy of a whole job is another try of it, as after a crash.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tenantry.context import use_context
from tenantry.errors import (
    InvalidRecord,
    JobRejected,
    MissingExtra,
    TenantryError,
    Unavailable,
)
from tenantry.jobs.tasks import FIELD, is_untenanted, required_context, tenant_required
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.tokens import JobReference, digest

try:
    from procrastinate import App, JobContext
    from procrastinate.exceptions import JobAborted
    from procrastinate.jobs import Job
    from procrastinate.manager import JobManager
    from procrastinate.middleware import AsyncCallNext
    from procrastinate.worker import Worker
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "procrastinate":
        raise
    raise MissingExtra("procrastinate", "procrastinate") from error

__all__ = ["install"]

_RUNNER: Final = "procrastinate"
_BUILT_IN: Final = ("builtin:", "procrastinate.")


def install(app: App, sdk: MultiTenantSDK) -> None:
    """Make every job of ``app`` carry its tenant, in the processes that defer as in the workers.

    A worker that is run with a ``worker_middleware`` of its own runs no job for any tenant: put such middlewares into
    the application's ``worker_defaults``.

    Args:
        app: The application, before its first job.
        sdk: The SDK, open by the time of the first job.
    """
    app.job_manager = _SigningJobManager(app, sdk)
    others = app.worker_defaults.get("worker_middleware", [])
    app.worker_defaults["worker_middleware"] = [_Admission(app, sdk), *others]


class _SigningJobManager(JobManager):
    def __init__(self, app: App, sdk: MultiTenantSDK) -> None:
        super().__init__(app.connector)
        self._app = app
        self._sdk = sdk

    async def batch_defer_jobs_async(self, jobs: list[Job], connection: Any | None = None) -> list[Job]:
        return await super().batch_defer_jobs_async([self._signed(job) for job in jobs], connection)

    def batch_defer_jobs(self, jobs: list[Job], connection: Any | None = None) -> list[Job]:
        return super().batch_defer_jobs([self._signed(job) for job in jobs], connection)

    def _signed(self, job: Job) -> Job:
        arguments = {name: value for name, value in job.task_kwargs.items() if name != FIELD}
        if _has_no_tenant(self._app, job):
            return job.evolve(task_kwargs=arguments)
        context = required_context(job.task_name)
        try:
            delivered = json.loads(json.dumps(arguments))
        except (TypeError, ValueError) as error:
            raise InvalidRecord(
                f"an argument of {job.task_name!r} is not of JSON.", field="task_kwargs", fix=str(error)
            ) from error
        token = self._sdk.job_signer.sign(context, _reference(job, delivered))
        return job.evolve(task_kwargs={**arguments, FIELD: token})


class _Admission:
    """The middleware around every job of a worker."""

    def __init__(self, app: App, sdk: MultiTenantSDK) -> None:
        self._app = app
        self._sdk = sdk

    async def __call__(self, call_next: AsyncCallNext, context: JobContext, worker: Worker) -> Any:
        token = context.job.task_kwargs.pop(FIELD, None)
        if _has_no_tenant(self._app, context.job):
            with use_context(None):
                return await call_next()
        try:
            handle = await self._admitted(token, context)
        except Unavailable:
            raise
        except TenantryError as error:
            # A task that is retried after any error would else be refused again and again.
            raise JobAborted(str(error)) from error
        context.additional_context["tenant"] = handle
        with use_context(handle.context):
            return await call_next()

    async def _admitted(self, token: object, context: JobContext) -> TenantHandle:
        job = context.job
        if token is None:
            raise tenant_required(job.task_name)
        try:
            reference = _reference(job, job.task_kwargs)
        except InvalidRecord as error:
            raise JobRejected(str(error), reason="other-arguments") from error
        opened = self._sdk.job_signer.open(token, reference)
        async with TenantHandle(self._sdk, opened) as handle:
            return handle


def _has_no_tenant(app: App, job: Job) -> bool:
    task = app.tasks.get(job.task_name)
    return task is not None and (is_untenanted(task.func) or task.name.startswith(_BUILT_IN))


def _reference(job: Job, arguments: Any) -> JobReference:
    return JobReference(_RUNNER, job.task_name, job.queue, "", digest(arguments))
