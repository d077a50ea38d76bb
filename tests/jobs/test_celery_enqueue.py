"""Celery where no worker is: what is enqueued and what is not, tasks inside their caller, a worker that was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task, chain
from celery.beat import ScheduleEntry, Scheduler
from celery.result import allow_join_result
from celery.schedules import schedule

from tenantry import TenantContext
from tenantry.errors import ConfigurationError, InvalidRecord, JobRejected, TenantRequired
from tenantry.jobs import JobSigner, enqueue_for
from tenantry.jobs.celery import TenantTask, install
from tenantry.types import tenant_id
from tests.jobs.celery_site import ACME, GLOBEX, KEY, Site, celery_worker
from tests.jobs.processes import eventually, kill
from tests.jobs.shop import whoami


@pytest.fixture
def idle_site(celery_site: Site) -> Site:
    """Give the application without a worker, and empty queues."""
    celery_site.client.flushall()
    return celery_site


class TestEnqueueing:
    def test_without_a_tenant_nothing_is_enqueued(self, idle_site: Site) -> None:
        for send in (idle_site.tasks.record.delay, idle_site.tasks.shared.delay):
            with pytest.raises(TenantRequired, match="enqueue_for"):
                send("whose?")
        with pytest.raises(TenantRequired):
            idle_site.app.send_task("tests.jobs.celery_app.record", ("whose?",))
        assert idle_site.client.llen("celery") == 0

    @pytest.mark.parametrize("argument", [object(), {1, 2}, lambda: None])
    def test_what_cannot_be_signed_is_not_enqueued(self, idle_site: Site, argument: object) -> None:
        with enqueue_for(ACME), pytest.raises(InvalidRecord):
            idle_site.tasks.record.delay(argument)
        with (
            enqueue_for(TenantContext(tenant_id("acme"), "a", {"x": "x" * 20_000})),
            pytest.raises(InvalidRecord),
        ):
            idle_site.tasks.record.delay("x")
        assert idle_site.client.llen("celery") == 0

    def test_the_beat_enqueues_no_task_that_needs_a_tenant(self, idle_site: Site) -> None:
        scheduler = Scheduler(idle_site.app, lazy=True)
        for name in ("record", "sweep"):
            entry = ScheduleEntry(
                name, f"tests.jobs.celery_app.{name}", args=("x",), schedule=schedule(1), app=idle_site.app
            )
            scheduler.apply_entry(entry, producer=None)
        [message] = [json.loads(text) for text in idle_site.client.lrange("celery", 0, -1)]
        assert message["headers"]["task"] == "tests.jobs.celery_app.sweep"
        assert "tenantry_token" not in message["headers"]


class TestEager:
    """Tasks that run inside their caller, as applications configure it for their tests."""

    @pytest.fixture(autouse=True)
    def eager(self, idle_site: Site) -> Iterator[None]:
        idle_site.app.conf.task_always_eager = True
        yield
        idle_site.app.conf.task_always_eager = False

    def test_it_has_the_tenant_of_its_caller(self, idle_site: Site) -> None:
        with enqueue_for(ACME):
            assert idle_site.tasks.record.delay("x").get() == "acme"
            assert idle_site.tasks.flaky.delay(1).get() == [3, "acme"]
            with allow_join_result():
                assert (
                    chain(idle_site.tasks.record.s("a"), idle_site.tasks.append.s("b")).delay().get()
                    == ["acme"] * 2
                )
            assert idle_site.tasks.sweep.delay("x").get() is None
            assert whoami() == "acme"
        assert whoami() is None

    def test_without_one_it_does_not_run(self, idle_site: Site) -> None:
        result = idle_site.tasks.record.delay("x")
        assert isinstance(result.result, TenantRequired)
        assert idle_site.ran() == []
        assert idle_site.tasks.sweep.delay("y").get() is None

    def test_called_like_a_function_it_has_the_tenant_of_its_caller(self, idle_site: Site) -> None:
        with pytest.raises(TenantRequired):
            idle_site.tasks.record("x")
        with enqueue_for(GLOBEX):
            assert idle_site.tasks.record("x") == "globex"
            assert idle_site.tasks.sweep("x") is None


class Own(Task[Any, Any]):
    """A base class of an application."""

    abstract = True


class TestInstalling:
    def test_without_a_key_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TENANTRY_JOBS_KEY", raising=False)
        with pytest.raises(ConfigurationError, match="TENANTRY_JOBS_KEY"):
            install(Celery("bare", set_as_current=False))

    def test_after_the_first_task_it_is_refused(self) -> None:
        app = Celery("late", set_as_current=False)
        app.task(name="early", lazy=False, shared=False)(whoami)
        with pytest.raises(ConfigurationError, match="right behind"):
            install(app, JobSigner([KEY]))

    def test_a_base_class_of_ones_own_stays(self) -> None:
        app = Celery("own", task_cls=Own, set_as_current=False)
        install(app, JobSigner([KEY]))
        install(app, JobSigner([KEY]))
        assert issubclass(app.Task, Own)
        assert issubclass(app.Task, TenantTask)

    def test_a_task_with_a_base_that_knows_no_tenants_is_refused(self) -> None:
        app = Celery("own", set_as_current=False)
        install(app, JobSigner([KEY]))
        with pytest.raises(ConfigurationError, match="'stray' has a base class"):
            app.task(name="stray", base=Own, lazy=False, shared=False)(whoami)
        assert "stray" not in app.tasks

    def test_a_check_that_breaks_off_lets_nothing_run(
        self, idle_site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise OSError("out of memory")

        monkeypatch.setattr("tenantry.jobs.celery.is_untenanted", broken)
        with enqueue_for(ACME):
            result = idle_site.tasks.record.apply(("x",))
        assert isinstance(result.result, JobRejected)
        assert idle_site.ran() == []

    def test_an_application_without_it_runs_no_tenant_task(self) -> None:
        app = Celery("bare", set_as_current=False)
        task = app.task(name="x", base=TenantTask, shared=False)(whoami)
        with pytest.raises(ConfigurationError, match=r"install\(app\)"):
            task.apply(throw=True)


def test_a_killed_workers_task_runs_again_for_its_tenant(idle_site: Site) -> None:
    site = idle_site
    with enqueue_for(GLOBEX):
        result = site.tasks.hang.delay("it")
    with celery_worker(site, "-c", "1") as victim:
        eventually(lambda: site.ran() == ["begun it globex"], site.log)
        kill(victim)
    site.client.set("finish", "yes")
    time.sleep(1.5)  # the next worker takes over at its start what was held for longer than a second
    with celery_worker(site, "-c", "1", TEST_VISIBLE_AFTER="1"):
        assert site.get(result) == "globex"
    assert site.ran() == ["begun it globex", "begun it globex", "done it globex"]
