"""Celery: every message that an application sends carries its tenant, and every task that runs has it.

::

    app = Celery("shop", broker="redis://localhost")
    install(app)  # before the first task; the key is TENANTRY_JOBS_KEY

    @app.task
    def export(kind: str) -> None:
        print(current_context().tenant_id)

    with enqueue_for(acme):  # a request or a task that has a tenant needs no such block
        export.delay("csv")

Messages are signed where all of them pass, so that chains, groups, chords, callbacks, retries and tasks sent by name
are as well. The tenant is bound from the signal before a task to the one behind it, and with that also for
``on_failure``, for callbacks and for the next link of a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from tenantry.config import load_settings
from tenantry.context import TenantContext, current_context, use_context
from tenantry.errors import ConfigurationError, InvalidRecord, JobRejected, MissingExtra, TenantryError
from tenantry.jobs.tasks import FIELD, is_untenanted, required_context, tenant_required
from tenantry.tokens import JobReference, JobSigner, digest

try:
    from celery import Celery, Task
    from celery.app.amqp import AMQP
    from celery.app.registry import TaskRegistry
    from celery.signals import task_postrun, task_prerun
    from kombu.utils import json
    from kombu.utils.imports import symbol_by_name
    from kombu.utils.objects import cached_property
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("celery", "kombu"):
        raise
    raise MissingExtra("celery", "celery") from error

__all__ = ["TenantTask", "install"]

_RUNNER: Final = "celery"
_BUILT_IN: Final = "celery."  # what these do for a tenant, they do through tasks of the application
_LATER: Final = ("callbacks", "errbacks", "chain", "chord")
_GROUP: Final = ("group", "group_index")

Admit = Callable[[TenantContext], object]


@dataclass(frozen=True)
class _Tenancy:
    signer: JobSigner
    admit: Admit | None
    queues: Collection[str] | None


@dataclass
class _Run:
    """What was decided of one run of a task."""

    refusal: TenantryError | None
    bound: ExitStack = field(default_factory=ExitStack)


def install(
    app: Celery[Any],
    signer: JobSigner | None = None,
    *,
    admit: Admit | None = None,
    queues: Collection[str] | None = None,
) -> None:
    """Make every task of ``app`` carry its tenant. To be called before the first task is declared.

    Args:
        app: The application, in the processes that enqueue as in the workers.
        signer: Signs and checks; by default with the keys of ``TENANTRY_JOBS_KEY``.
        admit: Called with the context before a task runs; it raises where the tenant may not be served.
        queues: The queues that this worker serves; by default those that it was started with.

    Raises:
        ConfigurationError: There is no key, or tasks exist already.
    """
    slots: Any = app  # classes, where the stubs know names only
    base, amqp = symbol_by_name(slots.task_cls), symbol_by_name(slots.amqp_cls)
    if "Task" in vars(app) and not issubclass(app.Task, TenantTask):
        raise ConfigurationError(
            "The application has tasks already.", field="app", fix="Call install(app) right behind Celery(…)."
        )
    if amqp not in (AMQP, _SigningAMQP):
        raise ConfigurationError("The application has an AMQP class of its own.", field="app")
    found = signer or JobSigner.configured(load_settings().jobs)
    if not issubclass(base, TenantTask):
        slots.task_cls = TenantTask if base is Task else type("TenantTask", (TenantTask, base), {})
    slots.amqp_cls = _SigningAMQP
    slots._tasks = _Registry(slots._tasks)
    vars(app).pop("amqp", None)
    vars(app)["tenancy"] = _Tenancy(found, admit, queues)
    task_prerun.connect(_enter, weak=False, dispatch_uid="tenantry.jobs.celery.enter")
    task_postrun.connect(_leave, weak=False, dispatch_uid="tenantry.jobs.celery.leave")


class TenantTask(Task[Any, Any]):
    """The base of all tasks of an application on which :func:`install` was called."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, unless its message does not let it.

        Raises:
            TenantRequired: It names no tenant.
            JobRejected: What it names is not what was signed.
        """
        request: Any = self.request
        if request.called_directly:
            return self._called_directly(args, kwargs)
        run = getattr(request, "tenancy", None)
        if run is None:
            raise ConfigurationError(
                f"{self.name!r} runs in a worker of an application without tenancy.",
                field="app",
                fix="Call install(app) in the module that the worker loads.",
            )
        if run.refusal is not None:
            raise run.refusal
        context = current_context()
        tenancy = _tenancy(self.app)
        if context is not None and tenancy.admit is not None:
            tenancy.admit(context)
        if (
            request.is_eager and not request._protected
        ):  # as the worker does, or a retry would forget its number
            request._protected = 1
            return self.run(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def _called_directly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_untenanted(self.run):
            with use_context(None):
                return super().__call__(*args, **kwargs)
        if not self.name.startswith(_BUILT_IN):
            required_context(self.name)
        return super().__call__(*args, **kwargs)


class _Registry(TaskRegistry):
    """Where every task of an application arrives, also one with a base class of its own."""

    def __setitem__(self, name: str, task: Any) -> None:
        if not isinstance(task, TenantTask):
            raise ConfigurationError(
                f"The task {name!r} has a base class that knows no tenants.",
                field="base",
                fix="Derive that class from tenantry.jobs.celery.TenantTask.",
            )
        super().__setitem__(name, task)


class _SigningAMQP(AMQP):
    @cached_property
    def send_task_message(self) -> Callable[..., Any]:
        send = super().send_task_message

        def send_signed(
            producer: Any, name: str, message: Any, *, headers: dict[str, Any] | None = None, **options: Any
        ) -> Any:
            # A retry brings the headers of its earlier try, and these would win over the message's own.
            headers = {**(headers or {})}
            replaced = headers.pop(FIELD, None)
            token = self._token(name, message, replaced, **options)
            if token is not None:
                headers[FIELD] = token
            return send(producer, name, message, headers=headers, **options)

        return send_signed

    def _token(
        self, name: str, message: Any, replaced: Any, queue: Any = None, exchange: Any = None, **_: Any
    ) -> str | None:
        task = self.app.tasks.get(name)
        if task is not None and is_untenanted(task.run):
            return None
        context = current_context()
        if context is None:
            if task is None or name.startswith(_BUILT_IN):
                return None  # the worker that knows the task decides
            raise tenant_required(name)
        if queue is None and exchange is None:
            queue = self.default_queue
        queue_name = queue if isinstance(queue, str) else getattr(queue, "name", "")
        job = _sent(name, message, queue_name)
        return _tenancy(self.app).signer.sign(context, job, replaces=replaced)


def _enter(task: Any, **_: Any) -> None:
    if isinstance(task, TenantTask):
        # Celery logs what a signal's receiver raises and goes on, so that a task is refused until it was checked.
        run = vars(task.request)["tenancy"] = _Run(_unchecked(task.name))
        context = None
        try:
            context = _context_of(task)
            run.refusal = None
        except TenantryError as error:
            run.refusal = error
        finally:
            run.bound.enter_context(use_context(context))


def _unchecked(name: str) -> JobRejected:
    return JobRejected(
        f"The token of {name!r} could not be checked; the worker's log says why.", reason="malformed"
    )


def _leave(task: Any, **_: Any) -> None:
    run = getattr(task.request, "tenancy", None)
    if run is not None:
        run.bound.close()


def _context_of(task: TenantTask) -> TenantContext | None:
    request, tenancy = task.request, _tenancy(task.app)
    if is_untenanted(task.run):
        return None
    token = (request.headers or {}).get(FIELD)
    built_in = task.name.startswith(_BUILT_IN)
    if request.is_eager:  # it runs inside its caller, and was never a message
        return current_context() if built_in else required_context(task.name)
    if token is None:
        if built_in:
            return None
        raise tenant_required(task.name)
    served = tenancy.queues if tenancy.queues is not None else task.app.amqp.queues.consume_from
    # What is sent to an exchange has no queue yet.
    return tenancy.signer.open(token, _received(task.name, request), queues={"", *served})


def _sent(name: str, message: Any, queue: str) -> JobReference:
    if not isinstance(message.body, tuple):
        raise ConfigurationError(
            "Messages of protocol 1 cannot carry a tenant.", field="task_protocol", fix="Set it to 2."
        )
    try:
        args, kwargs, later = json.loads(json.dumps(message.body))
    except (TypeError, ValueError) as error:
        raise InvalidRecord(
            f"an argument of {name!r} is not of JSON.", field="arguments", fix=str(error)
        ) from error
    signed = digest(
        args, kwargs, [later[part] for part in _LATER], [message.headers[part] for part in _GROUP]
    )
    return JobReference(_RUNNER, name, queue, message.headers["id"], signed)


def _received(name: str, request: Any) -> JobReference:
    later, group = [getattr(request, part) for part in _LATER], [getattr(request, part) for part in _GROUP]
    try:
        signed = digest(request.args, request.kwargs, later, group)
    except InvalidRecord as error:
        raise JobRejected(str(error), reason="other-arguments") from error
    return JobReference(_RUNNER, name, "", str(request.id), signed)


def _tenancy(app: Any) -> _Tenancy:
    found = vars(app).get("tenancy")
    if isinstance(found, _Tenancy):
        return found
    raise ConfigurationError(
        "The application has no tenancy.", field="app", fix="Call install(app) right behind Celery(…)."
    )
