"""Calls from threads: the same results, errors and ambient tenant as in asynchronous code."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tenantry import TenantContext, use_context
from tenantry.errors import (
    Closed,
    ContextMismatch,
    InvalidRecord,
    InvalidTenantId,
    NotFound,
    TenantNotFound,
    TenantRequired,
    Unsupported,
)
from tenantry.sync import MultiTenantSDK, TenantHandle
from tenantry.testing.models import MODELS, Note


@pytest.fixture
def sdk(tmp_path: Path) -> Iterator[MultiTenantSDK]:
    url = f"sqlite:///{tmp_path}/data.db"
    with MultiTenantSDK.open(url, models=MODELS, schema="create", env={}) as sdk:
        sdk.tenants.create("acme")
        sdk.tenants.create("globex")
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme")


def test_each_call_gives_what_the_asynchronous_one_gives(sdk: MultiTenantSDK) -> None:
    with sdk.tenant("acme", user="u") as acme:
        note = acme.data.create(Note(id="a", text="x"))
        assert acme.data.get(Note, "a") == note
        assert acme.data.update(note, text="y").version == 2
        assert [row.text for row in acme.data.read(Note, lambda n: n.text == "y")] == ["y"]
        assert acme.data.read("notes", fields=["text"]).items == [{"text": "y"}]
        assert (acme.data.count(Note), acme.data.exists("notes")) == (1, True)
        assert acme.context == TenantContext("acme", "u")  # type: ignore[arg-type]
        assert repr(acme) == "TenantHandle('acme', user='u')"
        acme.data.delete(Note, "a")
    assert [tenant.id for tenant in sdk.tenants.list()] == ["acme", "globex"]
    assert sdk.get_health()["database"]["status"] == "ok"
    assert sdk.get_metrics()["create.notes"]["count"] == 1
    assert sdk.data.bind(acme.context).count(Note) == 0
    with sdk.system(reason="look") as system:
        assert system.context.reason == "look"
        assert [row["reason"] for row in system.data.read("tenantry_audit")][-1] == "look"


def test_an_error_comes_as_it_is(acme: TenantHandle) -> None:
    with pytest.raises(NotFound) as caught:
        acme.data.get(Note, "missing")
    assert (caught.value.id, caught.value.__cause__, caught.value.__context__) == ("missing", None, None)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[0] == "test_an_error_comes_as_it_is"
    files = {Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert "data.py" in files  # down to where it was raised


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_an_error_that_would_end_the_loop_ends_only_its_call(
    acme: TenantHandle, error: type[BaseException]
) -> None:
    def where(_: Note) -> bool:
        raise error

    with pytest.raises(error):
        acme.data.read(Note, where)
    assert acme.data.count(Note) == 0


def test_what_is_wrong_is_refused_at_once(sdk: MultiTenantSDK) -> None:
    with pytest.raises(InvalidTenantId):
        sdk.tenant("../x")
    with pytest.raises(TypeError):
        sdk.tenants.create(slug="x", wrong=1)  # type: ignore[call-arg]
    with pytest.raises(TenantNotFound), sdk.tenant("nobody"):
        pass
    with pytest.raises(InvalidRecord), sdk.system(reason=" "):
        pass


# -- the ambient tenant


def test_the_ambient_tenant_reaches_the_call(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    globex = sdk.tenant("globex")
    with pytest.raises(TenantRequired):
        sdk.data.count(Note)
    with use_context(acme.context):
        sdk.data.create(Note(id="a"))
        with pytest.raises(ContextMismatch):
            globex.data.count(Note)
        with pytest.raises(ContextMismatch), globex:
            pass
    assert (acme.data.count(Note), globex.data.count(Note)) == (1, 0)


def test_the_ambient_tenant_of_a_thread_is_its_own(sdk: MultiTenantSDK) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        tenant = ("acme", "globex")[number % 2]
        with use_context(sdk.tenant(tenant).context):
            barrier.wait()
            for step in range(20):
                sdk.data.create(Note(id=f"{number}-{step}", text=tenant))
                assert {row.text for row in sdk.data.read(Note)} == {tenant}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    for tenant in ("acme", "globex"):
        assert sdk.tenant(tenant).data.count(Note) == 80


# -- blocks


def test_a_write_beside_an_open_transaction_is_refused(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    """It would not be part of it, and SQLite's one writer would wait for it for ever."""
    with acme.data.transaction() as unit:
        unit.create(Note(id="a"))
        with pytest.raises(Unsupported, match="would not be part of it"):
            acme.data.create(Note(id="b"))
        with pytest.raises(Unsupported):
            acme.data.transaction().__enter__()
        assert unit.count(Note) == 1
    acme.data.create(Note(id="b"))
    with sdk.system(reason="look") as system, acme.data.transaction() as unit:  # one block inside another
        unit.create(Note(id="c"))
        assert system.data.count(Note) == 2
    assert acme.data.count(Note) == 3


# -- interrupts


@pytest.fixture
def _heard() -> Iterator[None]:
    """Hear a Ctrl-C also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_when(ready: Callable[[], object]) -> threading.Thread:
    """Send the main thread a Ctrl-C once `ready` has returned."""

    def send() -> None:
        ready()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.usefixtures("_heard")
def test_an_interrupt_cancels_the_call_and_nothing_else(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    cancelled = threading.Event()
    begun = threading.Event()
    other = sdk.tenant("globex")

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    sender = interrupt_when(begun.wait)
    with pytest.raises(KeyboardInterrupt):
        sdk._session.run(endless)
    assert cancelled.is_set()  # before the interrupt went on
    sender.join()
    acme.data.create(Note(id="a"))
    assert other.data.count(Note) == 0


@pytest.mark.usefixtures("_heard")
def test_an_interrupt_inside_a_transaction_rolls_it_back(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    begun = threading.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.sleep(3600)

    def interrupted() -> None:
        with acme.data.transaction() as unit:
            unit.create(Note(id="a"))
            sdk._session.run(endless)

    sender = interrupt_when(begun.wait)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    sender.join()
    assert acme.data.count(Note) == 0
    with acme.data.transaction() as unit:
        unit.create(Note(id="a"))
    assert acme.data.count(Note) == 1


# -- where it may not be called


async def test_a_call_where_a_loop_runs_is_refused_and_names_the_asynchronous_api(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data.db"
    sdk = MultiTenantSDK.open(url, models=MODELS, schema="create", env={})
    with pytest.raises(Unsupported, match="from tenantry import MultiTenantSDK"):
        sdk.initialize()
    await asyncio.to_thread(sdk.initialize)
    calls: list[Callable[[], Any]] = [
        sdk.tenants.list,
        sdk.get_health,
        lambda: sdk.system(reason="x").__enter__(),
        sdk.close,
    ]
    for call in calls:
        with pytest.raises(Unsupported, match="event loop"):
            call()
    await asyncio.to_thread(sdk.tenants.create, "acme")
    assert repr(sdk.tenant("acme")) == "TenantHandle('acme')"
    await asyncio.to_thread(sdk.close)


def test_a_hook_that_calls_back_is_refused_rather_than_hung(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    def hook(_: object) -> list[Any]:
        acme.data.count(Note)
        return []

    sdk.add_within_hook(hook)
    with pytest.raises(Unsupported):
        acme.data.create(Note(id="a"))


def test_an_sdk_that_is_not_open_says_so(tmp_path: Path) -> None:
    sdk = MultiTenantSDK.open(f"sqlite:///{tmp_path}/data.db", models=MODELS, schema="create", env={})
    calls: list[Callable[[], Any]] = [
        lambda: sdk.tenants,
        lambda: sdk.tenant("acme"),
        lambda: sdk.capabilities,
        sdk.get_health,
        lambda: sdk.system(reason="x").__enter__(),
    ]
    heard: list[object] = []
    sdk.add_after_hook(heard.append)
    assert sdk.get_metrics() == {}
    for call in calls:
        with pytest.raises(Closed, match="initialize"):
            call()
    with sdk:
        sdk.initialize()  # twice does nothing
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        acme.data.create(Note(id="a"))
        assert len(heard) == 1
    for call in (*calls, lambda: acme.data.count(Note)):
        with pytest.raises(Closed, match="initialize"):
            call()
    sdk.close()
    with sdk:
        assert acme.data.count(Note) == 1  # opened again, the handle serves again


def test_an_sdk_that_cannot_open_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(Exception, match="cannot open"):
            MultiTenantSDK.open(f"sqlite:///{tmp_path}/no/data.db", models=MODELS, env={}).initialize()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
