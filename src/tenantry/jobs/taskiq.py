"""taskiq: a middleware signs the tenant into each message, and admits it before the task runs.

::

    broker = ListQueueBroker("redis://localhost").with_middlewares(TenantMiddleware(sdk))

    @broker.task
    async def export(kind: str, acme: Annotated[TenantHandle, TaskiqDepends(current_tenant)]) -> int:
        return await acme.data.count(Product)

    with enqueue_for(acme):  # a request or a job that has a tenant needs no such block
        await export.kiq("csv")

A message is refused where its function would be called, and not where the middleware first sees it: taskiq neither
answers nor acknowledges a message whose middleware raises, and would deliver it again without an end.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from tenantry.context import current_context, use_context
from tenantry.errors import InvalidRecord, JobRejected, MissingExtra, TenantryError
from tenantry.jobs.tasks import FIELD, is_untenanted, required_context, tenant_required
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.tokens import JobReference, digest

try:
    from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "taskiq":
        raise
    raise MissingExtra("taskiq", "taskiq") from error

__all__ = ["TenantMiddleware", "current_tenant"]

_RUNNER: Final = "taskiq"
_GUARDED: Final = "__tenantry_guarded__"

# What was decided of the message that is executed in this asyncio task.
_decision: ContextVar[TenantHandle | TenantryError | None] = ContextVar("tenantry_taskiq", default=None)


class TenantMiddleware(TaskiqMiddleware):
    """Signs the tenant of each message that is sent, and binds it again around the task.

    A middleware that changes the arguments of a message cannot work beside it: they are signed too.

    Args:
        sdk: The SDK, open by the time of the first message.
        queues: The queues that this worker serves; by default those that the broker says it listens to.
    """

    def __init__(self, sdk: MultiTenantSDK, *, queues: Collection[str] | None = None) -> None:
        super().__init__()
        self._sdk = sdk
        self._queues = queues

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Sign the ambient tenant into the message; one that is sent again after an error keeps the token it has.

        Raises:
            TenantRequired: There is no tenant, and the task needs one.
            InvalidRecord: An argument cannot be signed.
        """
        earlier = message.labels.pop(FIELD, None)
        if self._is_untenanted(message.task_name):
            return message
        job = self._reference(self._as_delivered(message))
        signer = self._sdk.job_signer
        if earlier is not None and current_context() is None:
            signer.open(earlier, job)
            message.labels[FIELD] = earlier
        else:
            message.labels[FIELD] = signer.sign(required_context(message.task_name), job)
        return message

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Check the token and admit the tenant. What was found is acted on when the task is called."""
        task = self.broker.find_task(message.task_name)
        if task is not None and not hasattr(task.original_func, _GUARDED):
            task.original_func = _guarded(task.original_func)
        try:
            _decision.set(await self._admitted(message))
        except TenantryError as error:
            _decision.set(error)
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Forget the message."""
        _decision.set(None)

    async def _admitted(self, message: TaskiqMessage) -> TenantHandle | None:
        if self._is_untenanted(message.task_name):
            return None
        token = message.labels.get(FIELD)
        if token is None:
            raise tenant_required(message.task_name)
        try:
            job = self._reference(message)
        except InvalidRecord as error:
            raise JobRejected(str(error), reason="other-arguments") from error
        context = self._sdk.job_signer.open(token, job, queues=self._served())
        async with TenantHandle(self._sdk, context) as handle:
            return handle

    def _is_untenanted(self, task_name: str) -> bool:
        task = self.broker.find_task(task_name)
        return task is not None and is_untenanted(task.original_func)

    def _as_delivered(self, message: TaskiqMessage) -> TaskiqMessage:
        return self.broker.formatter.loads(self.broker.formatter.dumps(message).message)

    def _reference(self, message: TaskiqMessage) -> JobReference:
        queue = message.labels.get("queue_name") or getattr(self.broker, "queue_name", "")
        return JobReference(
            _RUNNER, message.task_name, str(queue), message.task_id, digest(message.args, message.kwargs)
        )

    def _served(self) -> Collection[str]:
        if self._queues is not None:
            return self._queues
        return {getattr(self.broker, "queue_name", ""), *getattr(self.broker, "additional_streams", ())}


def current_tenant() -> TenantHandle:
    """Return the handle of the job's tenant: ``Annotated[TenantHandle, TaskiqDepends(current_tenant)]``."""
    decision = _decision.get()
    if isinstance(decision, TenantHandle):
        return decision
    raise decision or tenant_required("that asks for its tenant")


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        with _bound(function):
            return await function(*args, **kwargs)

    @functools.wraps(function)
    def run_sync(*args: Any, **kwargs: Any) -> Any:
        with _bound(function):
            return function(*args, **kwargs)

    guarded = run if inspect.iscoroutinefunction(function) else run_sync
    setattr(guarded, _GUARDED, True)
    return guarded


@contextmanager
def _bound(function: Callable[..., Any]) -> Iterator[None]:
    decision = _decision.get()
    if is_untenanted(function):
        with use_context(None):
            yield
    elif isinstance(decision, TenantHandle):
        with use_context(decision.context):
            yield
    elif decision is not None:
        raise decision
    else:
        required_context(getattr(function, "__qualname__", repr(function)))  # a plain call, not a job
        yield
