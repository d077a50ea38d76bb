"""arq over a real Redis-protocol server: whose job it is, whatever happens to it on its way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from arq import Retry, cron
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.constants import default_queue_name, job_key_prefix
from arq.jobs import Job
from arq.worker import Worker, func

from tenantry import MultiTenantSDK, current_context
from tenantry.errors import (
    ContextMismatch,
    InvalidRecord,
    JobRejected,
    TenantRequired,
    TenantSuspended,
)
from tenantry.jobs import JobKey, enqueue_for, untenanted
from tenantry.jobs.arq import TenantJobs, TenantRedis
from tests.jobs.arq_app import SERIALIZERS
from tests.jobs.processes import eventually, kill, worker
from tests.jobs.shop import Note, notes, opened, whoami

# arq knows only older releases of redis.
pytestmark = pytest.mark.filterwarnings("ignore:Call to .*deprecated:DeprecationWarning")

PATIENCE = 60.0
Context = dict[str, Any]
Payload = dict[str, Any]


class Shop:
    """Functions that write down whose job they were, and the queue."""

    def __init__(self, sdk: MultiTenantSDK, pool: ArqRedis) -> None:
        self.sdk = sdk
        self.pool = pool
        self.jobs = TenantJobs(sdk)
        self.queue: TenantRedis = self.jobs.redis(pool)
        self.ran: list[tuple[str, str | None]] = []

    async def record(self, ctx: Context, text: str) -> str | None:
        self.ran.append((text, whoami()))
        return whoami()

    async def write(self, ctx: Context, text: str) -> str:
        await ctx["tenant"].data.create(Note(text=text))
        return str(ctx["tenant"].context.tenant_id)

    async def work(self, *functions: Any, queue_name: str | None = None, **options: Any) -> None:
        """Run a worker until the queue is empty."""
        names = {"record": self.record, "write": self.write}
        every = [*(func(function, name=name) for name, function in names.items()), *functions]
        pool = await create_pool(
            RedisSettings(**self.settings()),
            default_queue_name=queue_name or default_queue_name,
            **SERIALIZERS,
        )
        running = Worker(
            self.jobs.functions(*every),
            queue_name=None,
            redis_pool=pool,
            burst=True,
            poll_delay=0.02,
            handle_signals=False,
            **{**SERIALIZERS, **options},
        )
        try:
            async with asyncio.timeout(PATIENCE):
                await running.async_run()
        finally:
            await running.close()

    def settings(self) -> Context:
        given = self.pool.connection_pool.connection_kwargs
        return {"host": given["host"], "port": given["port"], "password": given["password"]}

    async def enqueue(self, tenant: str, *arguments: Any, **options: Any) -> Job:
        with enqueue_for(self.sdk.tenant(tenant)):
            job = await self.queue.enqueue_job(*arguments, **options)
        assert job is not None
        return job


async def outcome(job: Job) -> Any:
    """Return what the job returned, or its error."""
    info = await job.result_info()
    assert info is not None
    return info.result


@pytest.fixture
async def pool(queue: redis.Redis, queue_url: str) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(RedisSettings.from_dsn(queue_url))
    yield pool
    await pool.aclose()


@pytest.fixture
def shop(sdk: MultiTenantSDK, pool: ArqRedis) -> Shop:
    pool.job_serializer, pool.job_deserializer = (
        SERIALIZERS["job_serializer"],
        SERIALIZERS["job_deserializer"],
    )
    return Shop(sdk, pool)


class TestRunning:
    async def test_a_job_runs_for_the_tenant_that_enqueued_it(self, shop: Shop) -> None:
        jobs = [await shop.enqueue("acme", "write", "hello"), await shop.enqueue("globex", "record", "hi")]
        await shop.work()
        assert [await outcome(job) for job in jobs] == ["acme", "globex"]
        assert await notes(shop.sdk, "acme") == ["hello"]
        assert await notes(shop.sdk, "globex") == []

    async def test_user_and_claims_come_along(self, shop: Shop) -> None:
        async def who(ctx: Context) -> list[Any]:
            context = current_context()
            assert context is not None
            assert context == ctx["tenant"].context
            return [context.tenant_id, context.user_id, dict(context.claims), context.request_id]

        with enqueue_for(shop.sdk.tenant("acme", user="anna", claims={"role": "owner"}, request_id="r-1")):
            job = await shop.queue.enqueue_job("who")
        await shop.work(func(who, name="who"))
        assert job is not None
        assert await outcome(job) == ["acme", "anna", {"role": "owner"}, "r-1"]

    async def test_with_pickle_it_works_as_well(self, sdk: MultiTenantSDK, pool: ArqRedis) -> None:
        shop = Shop(sdk, pool)
        job = await shop.enqueue("acme", "record", ("a", 2.0))
        await shop.work(job_serializer=None, job_deserializer=None)
        assert await outcome(job) == "acme"

    async def test_without_a_tenant_nothing_is_enqueued(self, shop: Shop, queue: redis.Redis) -> None:
        with pytest.raises(TenantRequired, match=r"'record'.*enqueue_for"):
            await shop.queue.enqueue_job("record", "whose?")
        assert queue.keys("*") == []

    async def test_what_cannot_be_signed_is_not_enqueued(
        self, sdk: MultiTenantSDK, pool: ArqRedis, queue: redis.Redis
    ) -> None:
        with pytest.raises(InvalidRecord):
            await Shop(sdk, pool).enqueue("acme", "record", object())
        assert queue.keys("*") == []

    async def test_through_the_plain_pool_a_job_has_no_tenant_and_is_refused(self, shop: Shop) -> None:
        with enqueue_for(shop.sdk.tenant("acme")):
            job = await shop.pool.enqueue_job("record", "unsigned")
        await shop.work()
        assert job is not None
        assert isinstance(await outcome(job), TenantRequired)
        assert shop.ran == []

    async def test_an_untenanted_function_has_no_tenant_wherever_it_is_enqueued(self, shop: Shop) -> None:
        @untenanted
        async def sweep(ctx: Context) -> list[Any]:
            return [whoami(), ctx.get("tenant")]

        jobs = [await shop.pool.enqueue_job("sweep"), await shop.enqueue("acme", "sweep")]
        await shop.work(func(sweep, name="sweep"))
        assert [await outcome(job) for job in jobs if job is not None] == [[None, None]] * 2

    async def test_a_job_inherits_the_tenant_of_the_job_that_enqueues_it(self, shop: Shop) -> None:
        async def parent(ctx: Context) -> None:
            await ctx["redis"].enqueue_job("record", "child")

        await shop.enqueue("globex", "parent")
        await shop.work(func(parent, name="parent"))
        assert shop.ran == [("child", "globex")]

    async def test_a_job_enqueues_none_for_another_tenant(self, shop: Shop) -> None:
        async def trespass(ctx: Context) -> None:
            with enqueue_for(shop.sdk.tenant("globex")):
                await ctx["redis"].enqueue_job("record", "never")

        job = await shop.enqueue("acme", "trespass")
        await shop.work(func(trespass, name="trespass"))
        assert isinstance(await outcome(job), ContextMismatch)
        assert shop.ran == []

    async def test_a_clock_has_no_tenant(self, shop: Shop) -> None:
        @untenanted
        async def nightly(ctx: Context) -> None:
            shop.ran.append(("nightly", whoami()))

        async def of_whom(ctx: Context) -> None:
            shop.ran.append(("of whom?", whoami()))

        jobs = shop.jobs.cron_jobs(
            cron(nightly, run_at_startup=True, unique=False), cron(of_whom, run_at_startup=True, unique=False)
        )
        await shop.enqueue("acme", "record", "keeps the worker up", _defer_by=1)
        await shop.work(cron_jobs=jobs)
        assert shop.ran == [("nightly", None), ("keeps the worker up", "acme")]


class TestRetrying:
    async def test_a_retry_keeps_its_tenant(self, shop: Shop) -> None:
        async def flaky(ctx: Context) -> int:
            shop.ran.append(("try", whoami()))
            if ctx["job_try"] < 3:
                raise Retry(defer=0.01)
            return int(ctx["job_try"])

        job = await shop.enqueue("acme", "flaky")
        await shop.work(func(flaky, name="flaky"))
        assert await outcome(job) == 3
        assert shop.ran == [("try", "acme")] * 3

    async def test_a_suspended_tenant_is_refused_once(self, shop: Shop, queue: redis.Redis) -> None:
        job = await shop.enqueue("acme", "record", "late")
        await shop.sdk.tenants.suspend("acme", reason="unpaid")
        await shop.work()
        assert isinstance(await outcome(job), TenantSuspended)
        assert (shop.ran, queue.zcard(default_queue_name)) == ([], 0)

    async def test_a_job_that_waited_too_long_is_refused(self, shop_url: str, pool: ArqRedis) -> None:
        async with opened(shop_url, jobs={"ttl": 0.05}) as sdk:
            shop = Shop(sdk, pool)
            job = await shop.enqueue("acme", "record", "stale")
            await asyncio.sleep(0.1)
            await shop.work(job_serializer=None, job_deserializer=None)
            error = await outcome(job)
        assert isinstance(error, JobRejected)
        assert (error.reason, shop.ran) == ("expired", [])


def other_arguments(payload: Payload, other: Payload) -> None:
    payload["a"] = ["something else"]


def named_arguments(payload: Payload, other: Payload) -> None:
    payload["k"]["text"] = payload["a"].pop()


def another_function(payload: Payload, other: Payload) -> None:
    payload["f"] = "write"


def token_of_another_job(payload: Payload, other: Payload) -> None:
    payload["k"]["tenantry_token"] = other["k"]["tenantry_token"]


def all_of_another_job(payload: Payload, other: Payload) -> None:
    payload.update(other)


def no_token(payload: Payload, other: Payload) -> None:
    del payload["k"]["tenantry_token"]


def no_text(payload: Payload, other: Payload) -> None:
    payload["k"]["tenantry_token"] = [1, {"x": None}]


class TestTampering:
    """The job is rewritten where it waits, in the server."""

    @pytest.mark.parametrize(
        ("tamper", "expected"),
        [
            (other_arguments, "other-arguments"),
            (named_arguments, "other-arguments"),
            (another_function, "other-task"),
            (token_of_another_job, "other-job"),
            (all_of_another_job, "other-job"),
            (no_token, None),
            (no_text, "malformed"),
        ],
    )
    async def test_a_job_that_was_changed_never_runs(
        self, shop: Shop, queue: redis.Redis, tamper: Callable[[Payload, Payload], None], expected: str | None
    ) -> None:
        other, job = await shop.enqueue("globex", "record", "x"), await shop.enqueue("acme", "record", "y")
        payload = _stored(queue, job)
        tamper(payload, _stored(queue, other))
        queue.set(f"{job_key_prefix}{job.job_id}", msgspec.msgpack.encode(payload))
        queue.zrem(default_queue_name, other.job_id)
        await shop.work()
        error = await outcome(job)
        assert shop.ran == []
        assert isinstance(error, TenantRequired if expected is None else JobRejected)
        assert getattr(error, "reason", None) == expected

    async def test_a_job_in_another_queue_never_runs(self, shop: Shop, queue: redis.Redis) -> None:
        job = await shop.enqueue("acme", "record", "x")
        queue.rename(default_queue_name, "elsewhere")
        await shop.work(queue_name="elsewhere")
        error = await outcome(job)
        assert isinstance(error, JobRejected)
        assert (error.reason, shop.ran) == ("other-queue", [])

    async def test_a_job_signed_with_an_unknown_key_never_runs(self, shop: Shop, shop_url: str) -> None:
        async with opened(shop_url, jobs={"key": JobKey.generate().export()}) as sdk:
            job = await Shop(sdk, shop.pool).enqueue("acme", "record", "x")
        await shop.work()
        error = await outcome(job)
        assert isinstance(error, JobRejected)
        assert (error.reason, shop.ran) == ("unknown-key", [])


def _stored(queue: redis.Redis, job: Job) -> Payload:
    raw = queue.get(f"{job_key_prefix}{job.job_id}")
    assert isinstance(raw, bytes)
    payload: Payload = msgspec.msgpack.decode(raw)
    return payload


async def test_interleaved_jobs_of_many_tenants_never_mix(shop: Shop) -> None:
    tenants = [f"t{number}" for number in range(12)]
    for tenant in tenants:
        await shop.sdk.tenants.create(tenant)
    seen: list[tuple[str, set[str | None]]] = []

    async def busy(ctx: Context, of: str, number: int) -> None:
        heard = {whoami(), ctx["tenant"].context.tenant_id}
        for _ in range(3):
            await asyncio.sleep(random.random() / 50)
            heard.add(whoami())
        await shop.sdk.data.create(Note(text=f"{of} {number}"))
        if number % 5 == 0:
            await ctx["redis"].enqueue_job("record", of)
        seen.append((of, heard | {whoami()}))

    wanted = [(tenant, number) for number in range(25) for tenant in tenants]
    random.Random(7).shuffle(wanted)
    for tenant, number in wanted:
        await shop.enqueue(tenant, "busy", tenant, number)
    await shop.work(func(busy, name="busy"), max_jobs=50)
    assert len(seen) == len(wanted)
    assert all(heard == {of} for of, heard in seen)
    assert len(shop.ran) == 5 * len(tenants)
    assert all(of == tenant for of, tenant in shop.ran)
    for tenant in tenants:
        assert await notes(shop.sdk, tenant) == sorted(f"{tenant} {number}" for number in range(25))


async def test_a_killed_workers_job_runs_again_for_its_tenant(
    shop: Shop, shop_url: str, queue: redis.Redis, queue_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    environment = {"TEST_QUEUE_URL": queue_url, "TEST_SHOP_URL": shop_url}
    job = await shop.enqueue("globex", "hang")
    with worker("arq", "tests.jobs.arq_app.WorkerSettings", log=log, environment=environment) as victim:
        await asyncio.to_thread(eventually, lambda: queue.llen("ran") == 1, log)
        kill(victim)
    queue.set("finish", "yes")
    queue.delete(f"arq:in-progress:{job.job_id}")  # as it deletes itself once the job's time is over
    with worker("arq", "tests.jobs.arq_app.WorkerSettings", log=log, environment=environment):
        await asyncio.to_thread(eventually, lambda: queue.llen("ran") == 3, log)
    assert queue.lrange("ran", 0, -1) == [b"begun globex", b"begun globex", b"done globex"]
