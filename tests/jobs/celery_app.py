"""The Celery application of the tests, for the process that enqueues and for its workers."""

from __future__ import annotations

import os
import time
from typing import Any

import redis
from celery import Celery, chain, shared_task

from tenantry import TenantContext
from tenantry.errors import TenantSuspended
from tenantry.jobs import enqueue_for, untenanted
from tenantry.jobs.celery import TenantTask, install
from tests.jobs.shop import whoami

URL = os.environ.get("TEST_QUEUE_URL", "")
SUSPENDED = "suspended-inc"


def make_app(url: str) -> Celery:
    """Return an application that hands out again what a killed worker had."""
    app = Celery("shop", broker=url, backend=url)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": int(os.environ.get("TEST_VISIBLE_AFTER", "3600"))},
        result_chord_retry_interval=0.2,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
    )
    return app


def admit(context: TenantContext) -> None:
    """Stand for a directory of tenants."""
    if context.tenant_id == SUSPENDED:
        raise TenantSuspended("It is suspended.", tenant_id=SUSPENDED)


def note(client: redis.Redis, what: str) -> None:
    client.rpush("ran", f"{what} {whoami()}")


if URL:
    app = make_app(URL)
    install(app, admit=admit)
    client = redis.Redis.from_url(URL)

    class Noted(TenantTask):
        """Notes what comes behind a task."""

        def on_success(self, *args: Any, **kwargs: Any) -> None:
            note(client, "on_success")

        def on_failure(self, *args: Any, **kwargs: Any) -> None:
            note(client, "on_failure")

    @app.task
    def record(what: str) -> str | None:
        note(client, what)
        return whoami()

    @app.task
    @untenanted
    def sweep(what: str) -> str | None:
        note(client, what)
        return whoami()

    @shared_task
    def shared(what: str) -> str | None:
        note(client, what)
        return whoami()

    @app.task
    def collect(parts: list[str], *more: str) -> list[str | None]:
        note(client, "collect")
        return [*parts, *more, whoami()]

    @app.task
    def append(before: list[str | None] | str | None, what: str) -> list[str | None]:
        note(client, what)
        return [*(before if isinstance(before, list) else [before]), whoami()]

    @app.task(bind=True, max_retries=3)
    def flaky(self: Any, until: int) -> list[Any]:
        """Fail until the third try, whoever makes it, with other arguments each time."""
        note(client, f"try {self.request.retries} in {os.getpid()}")
        if self.request.retries < 2:
            raise self.retry(countdown=0.1, kwargs={"until": until + 1})
        return [until, whoami()]

    @app.task(autoretry_for=(Exception,), max_retries=5, default_retry_delay=0)
    def stubborn(what: str) -> None:
        note(client, what)

    @app.task(base=Noted)
    def fail(what: str) -> None:
        note(client, what)
        raise RuntimeError(what)

    @app.task(base=Noted)
    def succeed(what: str) -> None:
        note(client, what)

    @app.task
    def parent(what: str) -> str:
        return str(record.delay(what).id)

    @app.task
    def trespass() -> None:
        with enqueue_for("globex"):
            record.delay("never")

    @app.task(bind=True)
    def replaced(self: Any, what: str) -> Any:
        return self.replace(chain(record.s(what), append.s("and then")))

    @app.task
    def hang(what: str) -> str | None:
        note(client, f"begun {what}")
        while not client.exists("finish"):
            time.sleep(0.05)
        note(client, f"done {what}")
        return whoami()

    @app.task
    def busy(of: str, number: int) -> list[str | None]:
        heard = [whoami()]
        for _ in range(3):
            time.sleep(0.001 * (number % 7))
            heard.append(whoami())
        if number % 5 == 0:
            record.delay(of)
        return [*heard, whoami()]

    @app.task
    @untenanted
    def context_between_jobs() -> str | None:
        return whoami()
