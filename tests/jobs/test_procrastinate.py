"""procrastinate on a real PostgreSQL: whose job it is, whatever happens to its row."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy

from tenantry import MultiTenantSDK, current_context
from tenantry.errors import InvalidRecord, JobRejected, TenantRequired, TenantryError, TenantSuspended
from tenantry.jobs import JobKey, enqueue_for, untenanted
from tenantry.jobs.procrastinate import install
from tests.jobs.shop import Note, notes, opened, whoami

PATIENCE = 60.0


class Shop:
    """An application with tasks, and what they did."""

    def __init__(self, sdk: MultiTenantSDK, url: str) -> None:
        self.sdk = sdk
        self.url = url
        self.ran: list[tuple[str, str | None]] = []
        self.refused: list[BaseException] = []
        self.app = App(
            connector=PsycopgConnector(conninfo=url, min_size=1, max_size=4),
            worker_defaults={"worker_middleware": [self._watched]},
        )
        install(self.app, sdk)
        # Ours lets the others in; to see what it refuses, somebody stands outside.
        self.app.worker_defaults["worker_middleware"].insert(0, self._watch)
        self.record, self.write, self.sweep = self._tasks()

    def _tasks(self) -> tuple[Any, Any, Any]:
        @self.app.task(name="record", retry=True)
        def record(text: str) -> None:  # in a thread
            self.ran.append((text, whoami()))

        @self.app.task(name="write", pass_context=True)
        async def write(context: JobContext, text: str) -> None:
            await context.additional_context["tenant"].data.create(Note(text=text))
            self.ran.append((text, whoami()))

        @self.app.task(name="sweep")
        @untenanted
        async def sweep(text: str) -> None:
            self.ran.append((text, whoami()))

        return record, write, sweep

    async def _watch(self, call_next: Any, context: JobContext, worker: object) -> Any:
        try:
            return await call_next()
        except BaseException as error:
            assert whoami() is None
            self.refused.append(error.__cause__ or error)
            raise

    async def _watched(self, call_next: Any, context: JobContext, worker: object) -> Any:
        assert "tenantry_token" not in context.job.task_kwargs
        return await call_next()

    async def work(self, **options: Any) -> None:
        """Run a worker until nothing is left to do."""
        async with asyncio.timeout(PATIENCE):
            await self.app.run_worker_async(
                wait=False, listen_notify=False, install_signal_handlers=False, **options
            )

    async def defer(self, tenant: str, task: Any, **arguments: Any) -> int:
        with enqueue_for(self.sdk.tenant(tenant)):
            number: int = await task.defer_async(**arguments)
        return number

    async def sql(self, text: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            rows: list[Any] = await connection.fetch(text, *values)
        finally:
            await connection.close()
        return rows

    async def statuses(self) -> list[str]:
        return [
            row["status"] for row in await self.sql("SELECT status::text FROM procrastinate_jobs ORDER BY id")
        ]


@pytest.fixture
async def shop(sdk: MultiTenantSDK, database_url: str) -> AsyncIterator[Shop]:
    shop = Shop(sdk, database_url)
    async with shop.app.open_async():
        await shop.app.schema_manager.apply_schema_async()
        yield shop


class TestRunning:
    async def test_a_job_runs_for_the_tenant_that_deferred_it(self, shop: Shop) -> None:
        await shop.defer("acme", shop.write, text="hello")
        await shop.defer("globex", shop.record, text="hi")
        await shop.work()
        assert sorted(shop.ran) == [("hello", "acme"), ("hi", "globex")]
        assert await notes(shop.sdk, "acme") == ["hello"]
        assert await notes(shop.sdk, "globex") == []

    async def test_user_and_claims_come_along(self, shop: Shop) -> None:
        told: list[Any] = []

        @shop.app.task(name="who")
        async def who() -> None:
            context = current_context()
            assert context is not None
            told.extend([context.tenant_id, context.user_id, dict(context.claims), context.request_id])

        with enqueue_for(shop.sdk.tenant("acme", user="anna", claims={"role": "owner"}, request_id="r-1")):
            await who.defer_async()
        await shop.work()
        assert told == ["acme", "anna", {"role": "owner"}, "r-1"]

    async def test_every_way_to_defer_carries_the_tenant(self, shop: Shop) -> None:
        with enqueue_for(shop.sdk.tenant("acme")):
            await shop.record.batch_defer_async({"text": "a"}, {"text": "b"})
            await shop.record.configure(priority=3).defer_async(text="c")
            await shop.app.configure_task("record").defer_async(text="d")
            await asyncio.to_thread(shop.record.defer, text="e")
        await shop.work()
        assert sorted(shop.ran) == [(text, "acme") for text in "abcde"]

    async def test_what_jsonb_makes_of_numbers_changes_nothing(self, shop: Shop) -> None:
        @shop.app.task(name="numbers")
        async def numbers(values: list[float]) -> None:
            shop.ran.append(("numbers", whoami()))

        values = [1.0, -0.0, 1e300, 1e-7, 2**70, 0.1, 5e-324]
        await shop.defer("acme", numbers, values=values)
        await shop.work()
        assert shop.ran == [("numbers", "acme")]

    async def test_without_a_tenant_nothing_is_deferred(self, shop: Shop) -> None:
        with pytest.raises(TenantRequired, match=r"'record'.*enqueue_for"):
            await shop.record.defer_async(text="whose?")
        with enqueue_for(shop.sdk.tenant("acme")), pytest.raises(InvalidRecord):
            await shop.record.defer_async(text=object())
        assert await shop.statuses() == []

    async def test_an_untenanted_task_has_no_tenant_wherever_it_is_deferred(self, shop: Shop) -> None:
        await shop.sweep.defer_async(text="outside")
        await shop.defer("acme", shop.sweep, text="inside")
        await shop.work()
        assert sorted(shop.ran) == [("inside", None), ("outside", None)]
        assert await shop.statuses() == ["succeeded"] * 2

    async def test_a_job_inherits_the_tenant_of_the_job_that_defers_it(self, shop: Shop) -> None:
        @shop.app.task(name="parent")
        async def parent() -> None:
            await shop.record.defer_async(text="child")

        await shop.defer("globex", parent)
        await shop.work()
        await shop.work()
        assert shop.ran == [("child", "globex")]

    async def test_a_job_defers_none_for_another_tenant(self, shop: Shop) -> None:
        @shop.app.task(name="trespass")
        async def trespass() -> None:
            await shop.defer("globex", shop.record, text="never")

        await shop.defer("acme", trespass)
        await shop.work()
        assert (shop.ran, await shop.statuses()) == ([], ["failed"])

    async def test_a_clock_has_no_tenant(self, shop: Shop) -> None:
        @shop.app.periodic(cron="* * * * * */1")
        @shop.app.task(name="every_second")
        @untenanted
        async def every_second(timestamp: int) -> None:
            shop.ran.append(("tick", whoami()))

        @shop.app.periodic(cron="* * * * * */1")
        @shop.app.task(name="of_whom")
        async def of_whom(timestamp: int) -> None:
            shop.ran.append(("of whom?", whoami()))

        worker = asyncio.create_task(
            shop.app.run_worker_async(
                listen_notify=False, install_signal_handlers=False, fetch_job_polling_interval=0.1
            )
        )
        async with asyncio.timeout(PATIENCE):
            while not (shop.ran and shop.refused):
                await asyncio.sleep(0.05)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert set(shop.ran) == {("tick", None)}
        assert {type(error) for error in shop.refused} == {TenantRequired}


class TestRetrying:
    async def test_a_retry_keeps_its_tenant(self, shop: Shop) -> None:
        @shop.app.task(name="flaky", retry=RetryStrategy(max_attempts=5))
        async def flaky() -> None:
            shop.ran.append(("try", whoami()))
            if len(shop.ran) < 3:
                raise RuntimeError("not yet")

        await shop.defer("acme", flaky)
        for _ in range(3):
            await shop.sql("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")
            await shop.work()
        assert shop.ran == [("try", "acme")] * 3
        assert await shop.statuses() == ["succeeded"]

    @pytest.mark.timeout(20)  # a worker that is not refused for good retries until then
    async def test_a_suspended_tenant_is_refused_once(self, shop: Shop) -> None:
        await shop.defer("acme", shop.record, text="late")  # a task that retries for ever
        await shop.sdk.tenants.suspend("acme", reason="unpaid")
        await shop.work()
        assert [type(error) for error in shop.refused] == [TenantSuspended]
        assert (shop.ran, await shop.statuses()) == ([], ["aborted"])

    async def test_a_job_that_waited_too_long_is_refused(self, shop_url: str, shop: Shop) -> None:
        async with opened(shop_url, jobs={"ttl": 0.05}) as sdk:
            late = Shop(sdk, shop.url)
            async with late.app.open_async():
                await late.defer("acme", late.record, text="stale")
                await asyncio.sleep(0.1)
                await late.work()
        assert (late.ran, _reasons(late)) == ([], ["expired"])

    async def test_a_lost_workers_job_runs_again_for_its_tenant(self, shop: Shop) -> None:
        number = await shop.defer("globex", shop.record, text="again")
        # What a worker leaves that was killed: a job in doing, of a worker whose heart has stopped.
        await shop.sql(
            """WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat)
               VALUES (now() - interval '1 day') RETURNING id)
               UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM dead) WHERE id = $1""",
            number,
        )
        await shop.work()
        assert shop.ran == []
        for job in await shop.app.job_manager.get_stalled_jobs():
            await shop.app.job_manager.retry_job(job)
        await shop.work()
        assert shop.ran == [("again", "globex")]


TAMPERINGS = {
    "other-arguments": """args || '{"text": "something else"}'""",
    "more-arguments": """args || '{"more": 1}'""",
    "token-of-another": "jsonb_set(args, '{tenantry_token}', (SELECT args->'tenantry_token' FROM other))",
    "no-token": "args - 'tenantry_token'",
    "no-text": """args || '{"tenantry_token": [1]}'""",
}


class TestTampering:
    """The row is rewritten where it waits, in the database."""

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ("other-arguments", "other-arguments"),
            ("more-arguments", "other-arguments"),
            ("token-of-another", "other-arguments"),
            ("no-token", None),
            ("no-text", "malformed"),
        ],
    )
    async def test_a_job_that_was_changed_never_runs(
        self, shop: Shop, change: str, expected: str | None
    ) -> None:
        other = await shop.defer("globex", shop.record, text="x")
        number = await shop.defer("acme", shop.record, text="y")
        changed = TAMPERINGS[change]
        await shop.sql(
            f"""WITH other AS (SELECT args FROM procrastinate_jobs WHERE id = $1)
            UPDATE procrastinate_jobs SET args = {changed} WHERE id = $2""",
            other,
            number,
        )
        await shop.sql("DELETE FROM procrastinate_jobs WHERE id = $1", other)
        await shop.work()
        assert shop.ran == []
        assert _reasons(shop) == [expected]
        assert await shop.statuses() == ["aborted"]

    @pytest.mark.parametrize(
        ("change", "expected"),
        [("task_name = 'write'", "other-task"), ("queue_name = 'elsewhere'", "other-queue")],
    )
    async def test_a_job_that_was_moved_never_runs(self, shop: Shop, change: str, expected: str) -> None:
        await shop.defer("acme", shop.record, text="y")
        await shop.sql(f"UPDATE procrastinate_jobs SET {change}")
        await shop.work()
        assert (shop.ran, _reasons(shop)) == ([], [expected])

    async def test_a_tenant_in_clear_never_runs(self, shop: Shop) -> None:
        import base64

        number = await shop.defer("acme", shop.record, text="y")
        [row] = await shop.sql("SELECT args::text FROM procrastinate_jobs WHERE id = $1", number)
        args = json.loads(row["args"])
        version, kid, payload, mac = args["tenantry_token"].split(".")
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        swapped = base64.urlsafe_b64encode(decoded.replace(b"acme", b"globex")).rstrip(b"=").decode()
        args["tenantry_token"] = f"{version}.{kid}.{swapped}.{mac}"
        await shop.sql("UPDATE procrastinate_jobs SET args = $1", json.dumps(args))
        await shop.work()
        assert (shop.ran, _reasons(shop)) == ([], ["forged"])

    async def test_a_job_signed_with_an_unknown_key_never_runs(self, shop: Shop, shop_url: str) -> None:
        async with opened(shop_url, jobs={"key": JobKey.generate().export()}) as sdk:
            foreign = Shop(sdk, shop.url)
            async with foreign.app.open_async():
                await foreign.defer("acme", foreign.record, text="from elsewhere")
        await shop.work()
        assert (shop.ran, _reasons(shop)) == ([], ["unknown-key"])


async def test_a_worker_without_the_middleware_runs_nothing(shop: Shop) -> None:
    await shop.defer("acme", shop.write, text="x")
    await shop.work(worker_middleware=[])
    assert (shop.ran, await shop.statuses()) == ([], ["failed"])


async def test_interleaved_jobs_of_many_tenants_never_mix(shop: Shop) -> None:
    tenants = [f"t{number}" for number in range(10)]
    for tenant in tenants:
        await shop.sdk.tenants.create(tenant)
    seen: list[tuple[str, set[str | None]]] = []

    @shop.app.task(name="busy", pass_context=True)
    async def busy(context: JobContext, of: str, number: int) -> None:
        heard = {whoami(), context.additional_context["tenant"].context.tenant_id}
        for _ in range(3):
            await asyncio.sleep(random.random() / 50)
            heard.add(whoami())
        await shop.sdk.data.create(Note(text=f"{of} {number}"))
        if number % 5 == 0:
            await shop.record.defer_async(text=of)
        seen.append((of, heard | {whoami()}))

    wanted = [(tenant, number) for number in range(20) for tenant in tenants]
    random.Random(7).shuffle(wanted)
    for tenant, number in wanted:
        await shop.defer(tenant, busy, of=tenant, number=number)
    while len(seen) < len(wanted) or len(shop.ran) < 4 * len(tenants):
        await shop.work(concurrency=20)
    assert all(heard == {of} for of, heard in seen)
    assert sorted(shop.ran) == sorted((tenant, tenant) for tenant in tenants for _ in range(4))
    for tenant in tenants:
        assert await notes(shop.sdk, tenant) == sorted(f"{tenant} {number}" for number in range(20))


def _reasons(shop: Shop) -> list[str | None]:
    for error in shop.refused:
        assert isinstance(error, JobRejected | TenantRequired), error
        assert isinstance(error, TenantryError)
    return [getattr(error, "reason", None) for error in shop.refused]
