"""Celery with real workers over a real Redis-protocol server: whose task it is, whatever happens to its message."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.result import AsyncResult

from tenantry.errors import ContextMismatch, TenantRequired, TenantSuspended
from tenantry.jobs import JobKey, JobSigner, enqueue_for
from tenantry.jobs.celery import install
from tests.jobs.celery_site import ACME, GLOBEX, Message, Site, celery_worker
from tests.jobs.processes import eventually
from tests.jobs.shop import taken

POOLS = ("prefork", "threads")


@pytest.fixture(scope="module", params=POOLS)
def running(request: pytest.FixtureRequest, celery_site: Site) -> Iterator[Site]:
    celery_site.client.flushall()
    with celery_worker(celery_site, "-P", request.param, "-c", "4"):
        yield celery_site


@pytest.fixture
def site(running: Site) -> Site:
    running.client.delete("ran")
    return running


class TestRunning:
    def test_a_task_runs_for_the_tenant_that_enqueued_it(self, site: Site) -> None:
        with enqueue_for(ACME):
            results = [site.tasks.record.delay("a"), site.tasks.shared.delay("b")]
        with enqueue_for(GLOBEX):
            results.append(site.app.send_task("tests.jobs.celery_app.record", ("c",)))
        assert [site.get(result) for result in results] == ["acme", "acme", "globex"]
        assert sorted(site.ran()) == ["a acme", "b acme", "c globex"]

    def test_an_untenanted_task_has_no_tenant_wherever_it_is_enqueued(self, site: Site) -> None:
        results = [site.tasks.sweep.delay("outside")]
        with enqueue_for(ACME):
            results.append(site.tasks.sweep.delay("inside"))
        assert [site.get(result) for result in results] == [None, None]

    def test_values_that_the_serializer_carries_arrive(self, site: Site) -> None:
        moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC)
        values = [
            moment,
            moment.date(),
            uuid.uuid4(),
            decimal.Decimal("1.10"),
            b"\xff",
            2.0,
            {1: (2, 3)},
            1e300,
        ]
        with enqueue_for(ACME):
            results = [site.tasks.append.delay([], value) for value in values]
        assert [site.get(result) for result in results] == [["acme"]] * len(values)

    def test_a_task_inherits_the_tenant_of_the_task_that_enqueues_it(self, site: Site) -> None:
        with enqueue_for(GLOBEX):
            result = site.tasks.parent.delay("child")
        child: AsyncResult[Any] = AsyncResult(site.get(result), app=site.app)
        assert site.get(child) == "globex"

    def test_a_task_enqueues_none_for_another_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            id = site.tasks.trespass.delay().id
        assert ContextMismatch.__name__ in site.refusal(id)
        assert site.ran() == []

    def test_what_comes_behind_a_task_has_its_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            site.get(site.tasks.succeed.delay("one"))
            site.refusal(site.tasks.fail.apply_async(("two",), link_error=site.tasks.record.si("errback")).id)
        eventually(lambda: len(site.ran()) == 5, site.log)
        assert sorted(site.ran()) == sorted(
            ["one acme", "on_success acme", "two acme", "on_failure acme", "errback acme"]
        )

    def test_between_two_tasks_a_worker_has_no_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            for number in range(12):
                site.tasks.fail.delay("x") if number % 2 else site.tasks.succeed.delay("x")
        with enqueue_for(GLOBEX):
            results = [site.tasks.context_between_jobs.delay() for _ in range(12)]
        assert [site.get(result) for result in results] == [None] * 12


class TestCanvas:
    def test_every_link_of_a_chain_has_the_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            result = chain(
                site.tasks.record.s("a"), site.tasks.append.s("b"), site.tasks.append.s("c")
            ).delay()
        assert site.get(result) == ["acme"] * 3

    def test_every_member_of_a_group_has_the_tenant(self, site: Site) -> None:
        with enqueue_for(GLOBEX):
            result = group(site.tasks.record.s(str(number)) for number in range(5)).delay()
        assert site.get(result) == ["globex"] * 5

    def test_a_chords_body_has_the_tenant_of_its_header(self, site: Site) -> None:
        with enqueue_for(ACME):
            ours = chord(
                (site.tasks.record.s(str(number)) for number in range(5)), site.tasks.collect.s("end")
            )()
        with enqueue_for(GLOBEX):
            theirs = chord(
                (site.tasks.record.s(str(number)) for number in range(5)), site.tasks.collect.s()
            )()
        assert site.get(ours) == [*["acme"] * 5, "end", "acme"]
        assert site.get(theirs) == ["globex"] * 6

    def test_a_chain_of_groups_has_the_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            header = group(site.tasks.record.s(str(number)) for number in range(3))
            result = (
                header | site.tasks.collect.s() | group(site.tasks.append.s("x"), site.tasks.append.s("y"))
            ).delay()
        assert site.get(result) == [["acme"] * 5] * 2

    def test_a_task_that_is_replaced_keeps_its_tenant(self, site: Site) -> None:
        with enqueue_for(GLOBEX):
            assert site.get(site.tasks.replaced.delay("x")) == ["globex", "globex"]

    def test_a_map_has_the_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            assert site.get(site.tasks.record.map(["a", "b"]).delay()) == ["acme", "acme"]


class TestRetrying:
    def test_a_retry_keeps_its_tenant(self, site: Site) -> None:
        with enqueue_for(ACME):
            assert site.get(site.tasks.flaky.delay(1)) == [3, "acme"]
        assert [line.split()[-1] for line in site.ran()] == ["acme"] * 3

    def test_a_suspended_tenant_is_refused_and_not_for_ever(self, site: Site) -> None:
        with enqueue_for(site.tasks.SUSPENDED):
            id = site.tasks.stubborn.delay("never").id
        assert TenantSuspended.__name__ in site.refusal(id)
        time.sleep(0.3)
        assert site.ran() == []
        assert site.client.llen("celery") == 0


def _body(message: Message) -> Any:
    return json.loads(base64.b64decode(message["body"]))


def _set_body(message: Message, body: Any) -> None:
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()


def other_arguments(message: Message, other: Message) -> None:
    _set_body(message, [["something else"], {}, _body(message)[2]])


def arguments_of_another(message: Message, other: Message) -> None:
    message["body"] = other["body"]


def another_callback(message: Message, other: Message) -> None:
    args, kwargs, later = _body(message)
    callback = {"task": "tests.jobs.celery_app.record", "args": ["planted"], "kwargs": {}, "options": {}}
    _set_body(message, [args, kwargs, {**later, "callbacks": [callback]}])


def another_group(message: Message, other: Message) -> None:
    message["headers"]["group"] = str(uuid.uuid4())


def another_task(message: Message, other: Message) -> None:
    message["headers"]["task"] = "tests.jobs.celery_app.shared"


def another_id(message: Message, other: Message) -> None:
    message["headers"]["id"] = message["properties"]["correlation_id"] = str(uuid.uuid4())


def token_of_another(message: Message, other: Message) -> None:
    message["headers"]["tenantry_token"] = other["headers"]["tenantry_token"]


def tenant_in_clear(message: Message, other: Message) -> None:
    version, kid, payload, mac = message["headers"]["tenantry_token"].split(".")
    decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    swapped = base64.urlsafe_b64encode(decoded.replace(b"acme", b"globex")).rstrip(b"=").decode()
    message["headers"]["tenantry_token"] = f"{version}.{kid}.{swapped}.{mac}"


def no_token(message: Message, other: Message) -> None:
    del message["headers"]["tenantry_token"]


class TestTampering:
    """The message is rewritten where it waits, in the server."""

    @pytest.mark.parametrize(
        ("tamper", "expected"),
        [
            (other_arguments, "The arguments of"),
            (arguments_of_another, "The arguments of"),
            (another_callback, "The arguments of"),
            (another_group, "The arguments of"),
            (another_task, "carries the token of a job of"),
            (another_id, "carries the token of another job"),
            (token_of_another, "carries the token of another job"),
            (tenant_in_clear, "is forged"),
            (no_token, "needs a tenant and none was given"),
        ],
    )
    def test_a_message_that_was_changed_never_runs(
        self, site: Site, tamper: Callable[[Message, Message], None], expected: str
    ) -> None:
        with enqueue_for(GLOBEX):
            other = site.aside(
                lambda connection: site.tasks.record.apply_async(("x",), connection=connection)
            )
        with enqueue_for(ACME):
            message = site.aside(
                lambda connection: site.tasks.record.apply_async(("y",), connection=connection)
            )
        tamper(message, other)
        assert expected in site.refusal(site.deliver(message))
        assert site.ran() == []

    def test_a_message_that_was_not_changed_runs(self, site: Site) -> None:
        with enqueue_for(ACME):
            message = site.aside(
                lambda connection: site.tasks.record.apply_async(("y",), connection=connection)
            )
        assert site.get(AsyncResult(site.deliver(message), app=site.app)) == "acme"

    def test_a_message_in_another_queue_never_runs(self, site: Site) -> None:
        with enqueue_for(ACME):
            site.tasks.record.apply_async(("y",), queue="elsewhere")
        message = taken(site.client, "elsewhere")
        message["properties"]["delivery_info"]["routing_key"] = "celery"
        assert "does not serve that queue" in site.refusal(site.deliver(message))
        assert site.ran() == []

    def test_a_message_signed_with_an_unknown_key_never_runs(self, site: Site) -> None:
        foreign = Celery("shop", broker=site.server.url(1), set_as_current=False)
        install(foreign, JobSigner([JobKey.generate()]))
        with enqueue_for(ACME):
            id = foreign.send_task("tests.jobs.celery_app.record", ("z",)).id
        foreign.close()
        assert "which this worker does not know" in site.refusal(id)
        assert site.ran() == []

    @pytest.mark.parametrize("task", ["celery.map", "celery.starmap"])
    def test_a_task_of_celerys_own_runs_no_task_without_a_tenant(self, site: Site, task: str) -> None:
        arguments = [["planted"]] if task == "celery.starmap" else ["planted"]
        id = site.app.send_task(task, (site.tasks.record.s(), arguments)).id
        assert TenantRequired.__name__ in site.refusal(id)
        assert site.ran() == []


class TestManyAtOnce:
    def test_interleaved_tasks_of_many_tenants_never_mix(self, site: Site) -> None:
        wanted = [(f"t{tenant}", number) for tenant in range(12) for number in range(25)]
        random.Random(7).shuffle(wanted)
        results = []
        for tenant, number in wanted:
            with enqueue_for(tenant):
                results.append((tenant, site.tasks.busy.delay(tenant, number)))
        for tenant, result in results:
            assert site.get(result) == [tenant] * 5
        eventually(lambda: len(site.ran()) == 60, site.log)
        assert all(len(set(line.split())) == 1 for line in site.ran())
