"""taskiq over a real Redis-protocol server: whose job it is, whatever happens to it on its way."""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from taskiq import (
    AsyncBroker,
    AsyncTaskiqTask,
    Context,
    InMemoryBroker,
    SimpleRetryMiddleware,
    TaskiqDepends,
    TaskiqMessage,
    TaskiqMiddleware,
    TaskiqResult,
)
from taskiq.receiver import Receiver
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from tenantry import MultiTenantSDK, TenantHandle, current_context
from tenantry.errors import (
    ContextMismatch,
    InvalidRecord,
    JobRejected,
    TenantRequired,
    TenantSuspended,
)
from tenantry.jobs import JobKey, enqueue_for, untenanted
from tenantry.jobs.taskiq import TenantMiddleware, current_tenant
from tests.jobs.processes import eventually, kill, worker
from tests.jobs.shop import Note, lines, notes, opened, taken, whoami

PATIENCE = 60.0
Message = dict[str, Any]


def make_broker(sdk: MultiTenantSDK, url: str, queue_name: str = "shop") -> AsyncBroker:
    broker = ListQueueBroker(url, queue_name=queue_name).with_result_backend(RedisAsyncResultBackend(url))
    return broker.with_middlewares(SimpleRetryMiddleware(default_retry_count=3), TenantMiddleware(sdk))


@asynccontextmanager
async def started(broker: AsyncBroker) -> AsyncIterator[AsyncBroker]:
    await broker.startup()
    try:
        yield broker
    finally:
        await broker.shutdown()


@asynccontextmanager
async def working(broker: AsyncBroker) -> AsyncIterator[None]:
    """Run a worker of the broker until the block ends."""
    ended = asyncio.Event()
    with ThreadPoolExecutor(2) as threads:
        receiver = Receiver(broker, threads, max_async_tasks=100, run_startup=False)
        running = asyncio.create_task(receiver.listen(ended))
        try:
            yield
        finally:
            ended.set()
            await running


async def result(job: AsyncTaskiqTask[Any]) -> TaskiqResult[Any]:
    return await job.wait_result(timeout=PATIENCE)


class Errors(TaskiqMiddleware):
    """Keeps each error as the worker saw it; a result carries only its class and words."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, BaseException] = {}

    def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:
        self.of[message.task_id] = exception


class Shop:
    """A broker with tasks, and what they did."""

    def __init__(self, sdk: MultiTenantSDK, broker: AsyncBroker) -> None:
        self.sdk = sdk
        self.broker = broker
        self.ran: list[tuple[str, str | None]] = []
        self.errors = Errors()
        broker.add_middlewares(self.errors)

        @broker.task("write")
        async def write(text: str, tenant: TenantHandle = TaskiqDepends(current_tenant)) -> str:
            self.ran.append((text, whoami()))
            await tenant.data.create(Note(text=text))
            return tenant.context.tenant_id

        @broker.task("record")
        async def record(text: str) -> str | None:
            self.ran.append((text, whoami()))
            return whoami()

        @broker.task("record_sync")
        def record_sync(text: str) -> str | None:
            self.ran.append((text, whoami()))
            return whoami()

        @broker.task("sweep")
        @untenanted
        async def sweep(text: str) -> str | None:
            self.ran.append((text, whoami()))
            return whoami()

        self.write, self.record, self.record_sync, self.sweep = write, record, record_sync, sweep

    async def refusal(self, job: AsyncTaskiqTask[Any]) -> BaseException:
        """Return the error in which the job ended."""
        assert (await result(job)).is_err
        return self.errors.of[job.task_id]


@pytest.fixture
async def shop(sdk: MultiTenantSDK, queue_url: str) -> AsyncIterator[Shop]:
    async with started(make_broker(sdk, queue_url)) as broker:
        yield Shop(sdk, broker)


class TestRunning:
    async def test_a_job_runs_for_the_tenant_that_enqueued_it(self, shop: Shop) -> None:
        async with working(shop.broker):
            with enqueue_for(shop.sdk.tenant("acme")):
                job = await shop.write.kiq("hello")
            assert (await result(job)).return_value == "acme"
        assert await notes(shop.sdk, "acme") == ["hello"]
        assert await notes(shop.sdk, "globex") == []

    async def test_user_and_claims_come_along(self, shop: Shop) -> None:
        @shop.broker.task
        async def who() -> list[Any]:
            context = current_context()
            assert context is not None
            return [context.tenant_id, context.user_id, dict(context.claims), context.request_id]

        handle = shop.sdk.tenant("acme", user="anna", claims={"role": "owner"}, request_id="r-1")
        async with working(shop.broker):
            with enqueue_for(handle):
                job = await who.kiq()
            assert (await result(job)).return_value == ["acme", "anna", {"role": "owner"}, "r-1"]

    async def test_a_function_in_a_thread_has_the_tenant_too(self, shop: Shop) -> None:
        async with working(shop.broker):
            with enqueue_for(shop.sdk.tenant("globex")):
                job = await shop.record_sync.kiq("in a thread")
            assert (await result(job)).return_value == "globex"

    async def test_without_a_tenant_nothing_is_enqueued(self, shop: Shop, queue: redis.Redis) -> None:
        with pytest.raises(TenantRequired, match=r"'record'.*enqueue_for"):
            await shop.record.kiq("whose?")
        assert queue.llen("shop") == 0

    async def test_what_cannot_be_signed_is_not_enqueued(self, shop: Shop, queue: redis.Redis) -> None:
        with (
            enqueue_for(shop.sdk.tenant("acme", claims={"groups": "x" * 20_000})),
            pytest.raises(InvalidRecord),
        ):
            await shop.record.kiq("too much")
        assert queue.llen("shop") == 0

    async def test_an_untenanted_task_has_no_tenant_wherever_it_is_enqueued(self, shop: Shop) -> None:
        async with working(shop.broker):
            outside = await shop.sweep.kiq("outside")
            with enqueue_for(shop.sdk.tenant("acme")):
                inside = await shop.sweep.kiq("inside")
            assert [(await result(job)).return_value for job in (outside, inside)] == [None, None]
        assert shop.ran == [("outside", None), ("inside", None)]

    async def test_a_job_inherits_the_tenant_of_the_job_that_enqueues_it(self, shop: Shop) -> None:
        @shop.broker.task
        async def parent() -> str:
            return (await shop.record.kiq("child")).task_id

        async with working(shop.broker):
            with enqueue_for(shop.sdk.tenant("globex")):
                job = await parent.kiq()
            child = AsyncTaskiqTask[Any]((await result(job)).return_value, shop.broker.result_backend)
            assert (await result(child)).return_value == "globex"

    async def test_a_job_enqueues_none_for_another_tenant(self, shop: Shop) -> None:
        @shop.broker.task
        async def trespass() -> None:
            with enqueue_for(shop.sdk.tenant("globex")):
                await shop.record.kiq("never")

        async with working(shop.broker):
            with enqueue_for(shop.sdk.tenant("acme")):
                job = await trespass.kiq()
            assert isinstance(await shop.refusal(job), ContextMismatch)
        assert shop.ran == []

    async def test_a_plain_call_takes_the_tenant_of_its_caller(self, shop: Shop) -> None:
        async with working(shop.broker):  # the first message wraps the function
            with enqueue_for(shop.sdk.tenant("acme")):
                await result(await shop.record.kiq("as a job"))
        with pytest.raises(TenantRequired):
            await shop.record("directly")
        with enqueue_for(shop.sdk.tenant("globex")):
            assert await shop.record("directly") == "globex"

    async def test_a_middleware_that_is_missing_means_no_tenant(
        self, sdk: MultiTenantSDK, queue_url: str
    ) -> None:
        async with started(
            ListQueueBroker(queue_url).with_result_backend(RedisAsyncResultBackend(queue_url))
        ) as bare:
            shop = Shop(sdk, bare)
            async with working(bare):
                assert isinstance(await shop.refusal(await shop.write.kiq("x")), TenantRequired)
        assert shop.ran == []


class TestRetrying:
    async def test_a_retry_keeps_its_tenant(self, shop: Shop) -> None:
        @shop.broker.task(retry_on_error=True)
        async def flaky() -> int:
            shop.ran.append(("try", whoami()))
            if len(shop.ran) < 3:
                raise RuntimeError("not yet")
            return len(shop.ran)

        async with working(shop.broker):
            with enqueue_for(shop.sdk.tenant("acme")):
                job = await flaky.kiq()
            assert (await result(job)).return_value == 3
        assert shop.ran == [("try", "acme")] * 3

    async def test_a_job_that_requeues_itself_keeps_its_tenant(self, shop: Shop) -> None:
        @shop.broker.task
        async def again(context: Context = TaskiqDepends()) -> int:
            shop.ran.append(("again", whoami()))
            if len(shop.ran) < 3:
                await context.requeue()
            return len(shop.ran)

        async with working(shop.broker):
            with enqueue_for(shop.sdk.tenant("acme")):
                job = await again.kiq()
            assert (await result(job)).return_value == 3
        assert shop.ran == [("again", "acme")] * 3

    async def test_a_suspended_tenant_is_refused_and_not_for_ever(
        self, shop: Shop, queue: redis.Redis
    ) -> None:
        @shop.broker.task(retry_on_error=True)
        async def late() -> None:
            shop.ran.append(("late", whoami()))

        with enqueue_for(shop.sdk.tenant("acme")):
            job = await late.kiq()
        await shop.sdk.tenants.suspend("acme", reason="unpaid")
        async with working(shop.broker):
            assert isinstance(await shop.refusal(job), TenantSuspended)
            await asyncio.sleep(0.2)
        assert shop.ran == []
        assert queue.llen("shop") == 0

    async def test_a_job_that_waited_too_long_is_refused(self, shop_url: str, queue_url: str) -> None:
        async with (
            opened(shop_url, jobs={"ttl": 0.05}) as sdk,
            started(make_broker(sdk, queue_url)) as broker,
        ):
            shop = Shop(sdk, broker)
            with enqueue_for(sdk.tenant("acme")):
                job = await shop.record.kiq("stale")
            await asyncio.sleep(0.1)
            async with working(broker):
                error = await shop.refusal(job)
            assert isinstance(error, JobRejected)
            assert (error.reason, shop.ran) == ("expired", [])


def other_arguments(message: Message, other: Message) -> None:
    message["args"] = ["something else"]


def more_arguments(message: Message, other: Message) -> None:
    message["kwargs"] = {"text": message["args"].pop()}


def another_task(message: Message, other: Message) -> None:
    message["task_name"] = "write"


def another_id(message: Message, other: Message) -> None:
    message["task_id"] = "0" * 32


def token_of_another_job(message: Message, other: Message) -> None:
    message["labels"]["tenantry_token"] = other["labels"]["tenantry_token"]


def no_token(message: Message, other: Message) -> None:
    del message["labels"]["tenantry_token"]


def another_queue_named(message: Message, other: Message) -> None:
    message["labels"]["queue_name"] = "elsewhere"
    message["labels_types"] = {}


def tenant_in_clear(message: Message, other: Message) -> None:
    import base64

    version, kid, payload, mac = message["labels"]["tenantry_token"].split(".")
    decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    swapped = base64.urlsafe_b64encode(decoded.replace(b"acme", b"globex")).rstrip(b"=").decode()
    message["labels"]["tenantry_token"] = f"{version}.{kid}.{swapped}.{mac}"


class TestTampering:
    """The message is rewritten where it waits, in the server."""

    @pytest.mark.parametrize(
        ("tamper", "expected"),
        [
            (other_arguments, "other-arguments"),
            (more_arguments, "other-arguments"),
            (another_task, "other-task"),
            (another_id, "other-job"),
            (token_of_another_job, "other-job"),
            (tenant_in_clear, "forged"),
            (no_token, None),
        ],
    )
    async def test_a_message_that_was_changed_never_runs(
        self, shop: Shop, queue: redis.Redis, tamper: Callable[[Message, Message], None], expected: str | None
    ) -> None:
        with enqueue_for(shop.sdk.tenant("globex")):
            await shop.record.kiq("of globex")
        with enqueue_for(shop.sdk.tenant("acme")):
            await shop.record.kiq("of acme")
        other, message = (taken(queue, "shop") for _ in range(2))
        tamper(message, other)
        queue.lpush("shop", json.dumps(message))
        async with working(shop.broker):
            error = await shop.refusal(AsyncTaskiqTask(message["task_id"], shop.broker.result_backend))
        assert shop.ran == []
        assert isinstance(error, TenantRequired if expected is None else JobRejected)
        assert getattr(error, "reason", None) == expected

    async def test_a_message_that_was_not_changed_runs(self, shop: Shop, queue: redis.Redis) -> None:
        with enqueue_for(shop.sdk.tenant("acme")):
            job = await shop.record.kiq("of acme")
        queue.lpush("shop", json.dumps(taken(queue, "shop")))
        async with working(shop.broker):
            assert (await result(job)).return_value == "acme"

    async def test_a_message_in_another_queue_never_runs(
        self, shop: Shop, queue: redis.Redis, queue_url: str
    ) -> None:
        with enqueue_for(shop.sdk.tenant("acme")):
            job = await shop.record.kiq("of acme")
        queue.rename("shop", "other")
        async with started(make_broker(shop.sdk, queue_url, "other")) as broker:
            other = Shop(shop.sdk, broker)
            async with working(broker):
                error = await other.refusal(job)
        assert isinstance(error, JobRejected)
        assert (error.reason, other.ran) == ("other-queue", [])

    async def test_a_message_signed_with_an_unknown_key_never_runs(
        self, shop: Shop, shop_url: str, queue_url: str
    ) -> None:
        key = JobKey.generate().export()
        async with opened(shop_url, jobs={"key": key}) as sdk, started(make_broker(sdk, queue_url)) as broker:
            foreign = Shop(sdk, broker)
            with enqueue_for(sdk.tenant("acme")):
                job = await foreign.record.kiq("from elsewhere")
        async with working(shop.broker):
            error = await shop.refusal(AsyncTaskiqTask(job.task_id, shop.broker.result_backend))
        assert isinstance(error, JobRejected)
        assert (error.reason, shop.ran) == ("unknown-key", [])


class TestManyAtOnce:
    async def test_interleaved_jobs_of_many_tenants_never_mix(
        self, sdk: MultiTenantSDK, queue_url: str
    ) -> None:
        tenants = [f"t{number}" for number in range(12)]
        for tenant in tenants:
            await sdk.tenants.create(tenant)
        seen: list[tuple[str, set[str | None]]] = []
        async with started(make_broker(sdk, queue_url)) as broker:
            inner = Shop(sdk, broker)

            @broker.task
            async def busy(
                of: str, number: int, tenant: TenantHandle = TaskiqDepends(current_tenant)
            ) -> str | None:
                heard = {whoami(), tenant.context.tenant_id}
                for _ in range(3):
                    await asyncio.sleep(random.random() / 50)
                    heard.add(whoami())
                await sdk.data.create(Note(text=f"{of} {number}"))
                child = await inner.record.kiq(of) if number % 5 == 0 else None
                seen.append((of, heard | {whoami()}))
                return child.task_id if child is not None else None

            wanted = [(tenant, number) for number in range(25) for tenant in tenants]
            random.Random(7).shuffle(wanted)
            jobs: list[AsyncTaskiqTask[Any]] = []
            for tenant, number in wanted:
                with enqueue_for(sdk.tenant(tenant)):
                    jobs.append(await busy.kiq(tenant, number))
            async with working(broker):
                children = [(await result(job)).return_value for job in jobs]
                for child in filter(None, children):
                    await result(AsyncTaskiqTask(child, broker.result_backend))
        assert (len(seen), len(inner.ran)) == (len(wanted), 5 * len(tenants))
        assert all(heard == {of} for of, heard in seen)
        assert all(of == tenant for of, tenant in inner.ran)
        for tenant in tenants:
            assert await notes(sdk, tenant) == sorted(f"{tenant} {number}" for number in range(25))

    async def test_a_job_in_the_callers_own_task_leaves_nothing_behind(self, sdk: MultiTenantSDK) -> None:
        broker = InMemoryBroker(await_inplace=True).with_middlewares(TenantMiddleware(sdk))
        async with started(broker):
            shop = Shop(sdk, broker)
            before = dict(contextvars.copy_context())
            with enqueue_for(sdk.tenant("acme")):
                await shop.record.kiq("x")
                await shop.sweep.kiq("y")
                assert whoami() == "acme"
            after = {name: value for name, value in contextvars.copy_context().items() if value is not None}
        assert shop.ran == [("x", "acme"), ("y", None)]
        assert {name for name in after if name not in before} == set()
        assert whoami() is None


async def test_a_killed_workers_job_runs_again_for_its_tenant(
    shop_url: str, queue: redis.Redis, queue_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    environment = {"TEST_QUEUE_URL": queue_url, "TEST_SHOP_URL": shop_url}
    arguments = ("taskiq", "worker", "--workers", "1", "tests.jobs.taskiq_app:broker")
    async with opened(shop_url) as sdk:
        from tests.jobs.taskiq_app import make_app

        broker, hang = make_app(sdk, queue_url)
        async with started(broker), asyncio.timeout(2 * PATIENCE):
            with enqueue_for(sdk.tenant("globex")):
                await hang.kiq("first")
            with worker(*arguments, log=log, environment=environment) as victim:
                await asyncio.to_thread(eventually, lambda: queue.llen("ran") == 1, log)
                kill(victim)
            queue.set("finish", "yes")
            with worker(*arguments, log=log, environment=environment):
                # What a dead worker left is looked for only when something new has come.
                while b"done globex" not in queue.lrange("ran", 0, -1):
                    with enqueue_for(sdk.tenant("acme")):
                        await hang.kiq("another")
                    await asyncio.sleep(0.5)
    told = Counter(lines(queue, "ran"))
    assert (told["begun globex"], told["done globex"]) == (2, 1)
    assert set(told) == {"begun globex", "done globex", "begun acme", "done acme"}
