"""The end: in order, while others wait, forgotten, and at the end of the program."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tenantry.errors import Closed
from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import MODELS, Note
from tests.sync.test_fork import Options


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for as long as a slow machine may need."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("tenantry")}


def test_a_close_fails_those_who_wait(sqlite_options: Options) -> None:
    sdk = MultiTenantSDK.open(**sqlite_options)
    sdk.initialize()
    acme = sdk.tenant(sdk.tenants.create("acme").id)
    held, leave = threading.Event(), threading.Event()
    outcomes: dict[str, object] = {}

    def hold() -> None:
        try:
            with acme.data.transaction() as unit:
                unit.create(Note(id="held"))
                held.set()
                leave.wait(60)
        except Closed as error:
            outcomes["hold"] = error

    def wait() -> None:
        held.wait(60)
        try:
            acme.data.create(Note(id="waits for the writer"))
        except Closed as error:
            outcomes["wait"] = error

    holding, waiting = threading.Thread(target=hold), threading.Thread(target=wait)
    holding.start()
    waiting.start()
    portal = sdk._session._portal
    assert portal is not None
    until(lambda: held.is_set() and bool(portal._calls))
    sdk.close()
    waiting.join(60)
    assert isinstance(outcomes["wait"], Closed)
    leave.set()
    holding.join(60)
    assert isinstance(outcomes["hold"], Closed)
    with sdk:
        assert acme.data.count(Note) == 0  # nothing of either is kept
    assert threads() == set()


def test_a_close_ends_what_would_never_end(sqlite_options: Options) -> None:
    sdk = MultiTenantSDK.open(**sqlite_options)
    sdk.initialize()
    begun = threading.Event()
    outcomes: list[object] = []

    async def endless() -> None:
        begun.set()
        await asyncio.sleep(3600)

    def wait() -> None:
        try:
            sdk._session.run(endless)
        except Closed as error:
            outcomes.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert begun.wait(60)
    closing = threading.Thread(target=sdk.close, daemon=True)
    closing.start()
    closing.join(15)
    thread.join(15)
    assert [type(outcome) for outcome in outcomes] == [Closed]


def test_a_close_inside_ones_own_transaction_undoes_it(options: Options) -> None:
    sdk = MultiTenantSDK.open(**options)
    sdk.initialize()
    acme = sdk.tenant(sdk.tenants.create("acme").id)

    def close_inside() -> None:
        with acme.data.transaction() as unit:
            unit.create(Note(id="a"))
            sdk.close()

    started = time.monotonic()
    with pytest.raises(Closed):
        close_inside()
    assert time.monotonic() - started < 8  # it does not wait for itself
    with sdk:
        assert acme.data.count(Note) == 0


def test_many_close_at_once(sqlite_options: Options) -> None:
    sdk = MultiTenantSDK.open(**sqlite_options)
    sdk.initialize()
    closers = [threading.Thread(target=sdk.close) for _ in range(5)]
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join(60)
    assert threads() == set()
    with pytest.raises(Closed):
        _ = sdk.data


def test_an_sdk_that_is_forgotten_is_closed_by_the_collector(sqlite_options: Options) -> None:
    sdk = MultiTenantSDK.open(**sqlite_options)
    sdk.initialize()
    acme = sdk.tenant(sdk.tenants.create("acme").id)
    gone = weakref.ref(sdk._session)
    del sdk
    assert acme.data.count(Note) == 0  # a handle keeps it open
    del acme
    until(lambda: gc.collect() >= 0 and gone() is None)  # the loop may be about to let go of the last call
    until(lambda: threads() == set())


@pytest.mark.parametrize(
    "held", ["", "unit = acme.data.transaction().__enter__(); unit.create(Note(id='a'))"]
)
def test_a_program_that_forgets_to_close_ends(tmp_path: Path, held: str) -> None:
    program = f"""
import threading
from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import MODELS, Note
sdk = MultiTenantSDK.open("sqlite:///{tmp_path}/data.db", models=MODELS, schema="create", env={{}})
sdk.initialize()
acme = sdk.tenant(sdk.tenants.create("acme").id)
{held}
print("the end")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("the end\n", "", 0)


def test_a_handle_of_a_block_that_is_over_reaches_nothing() -> None:
    with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        with acme.data.transaction() as unit:
            pass
        with pytest.raises(Closed, match="over"):
            unit.count(Note)
        with sdk.system(reason="look") as system:
            pass
        with pytest.raises(Exception, match="closed"):
            system.data.count(Note)


def test_a_block_that_cannot_be_entered_leaves_the_thread_as_it_was() -> None:
    with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        nobody = sdk.tenant("nobody")
        with pytest.raises(Exception, match="no tenant"):
            nobody.data.transaction().__enter__()
        assert sdk._session._lane is None
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        with acme.data.transaction() as unit:
            unit.create(Note(id="a"))
        assert sdk._session._lane is None
        portal = sdk._session._portal
        assert portal is not None
        until(lambda: not portal._lanes)
