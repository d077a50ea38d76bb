"""The Celery application of the tests with its server, and real workers for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from kombu import Connection

from tenantry import TenantContext
from tenantry.jobs import JobKey
from tenantry.types import tenant_id
from tests.jobs.processes import worker
from tests.jobs.shop import lines, taken
from tests.servers import ValkeyServer

PATIENCE = 60
KEY = JobKey.generate()
ACME = TenantContext(tenant_id("acme"), "anna", {"role": "owner"})
GLOBEX = TenantContext(tenant_id("globex"))
ASIDE = 9  # the number of a database on which no worker listens

Message = dict[str, Any]


@dataclass
class Site:
    """The application with its worker, and what its tasks did."""

    tasks: Any
    server: ValkeyServer
    client: redis.Redis
    log: Path

    @property
    def app(self) -> Celery:
        app: Celery = self.tasks.app
        return app

    def ran(self) -> list[str]:
        return lines(self.client, "ran")

    def get(self, result: Any) -> Any:
        try:
            return result.get(timeout=PATIENCE)
        except TimeoutError:
            pytest.fail(self.log.read_text("utf-8")[-4000:])

    def refusal(self, id: str) -> str:
        """Return the error in which a task ended, in the words of its result."""
        result: AsyncResult[Any] = AsyncResult(id, app=self.app)
        error = result.get(timeout=PATIENCE, propagate=False)
        assert result.state == "FAILURE"
        return repr(error)

    def aside(self, send: Callable[[Connection], object]) -> Message:
        """Return the message that `send` enqueues, taken out of the server before any worker sees it."""
        with Connection(self.server.url(ASIDE)) as connection:
            send(connection)
        with redis.Redis.from_url(self.server.url(ASIDE)) as client:
            message: Message = taken(client, "celery")
        return message

    def deliver(self, message: Message, queue: str = "celery") -> str:
        self.client.lpush(queue, json.dumps(message))
        id: str = message["headers"]["id"]
        return id


@contextmanager
def celery_worker(site: Site, *arguments: str, **variables: str) -> Iterator[Any]:
    environment = {"TEST_QUEUE_URL": site.server.url(1), "TENANTRY_JOBS_KEY": KEY.export(), **variables}
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "info")
    command = ("celery", "-A", "tests.jobs.celery_app", "worker", *quiet, *arguments)
    with worker(*command, log=site.log, environment=environment) as process:
        yield process
