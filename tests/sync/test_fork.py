"""Processes that fork: a child opens anew what it uses, and leaves alone what is its parent's."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tenantry import TenantContext, use_context
from tenantry.errors import Closed, TenantryError, Unsupported
from tenantry.sync import MultiTenantSDK, TenantHandle
from tenantry.testing.models import MODELS, Note
from tests.sync.children import Child, in_child

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # From Python 3.12 on, for any thread; the one of the SDK is what these tests are about.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

Options = Mapping[str, Any]


def refusal(call: Callable[[], Any]) -> str:
    """Return the error of a call that must fail."""
    try:
        call()
    except TenantryError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def test_a_child_reads_and_writes_and_so_does_its_parent(options: Options) -> None:
    with MultiTenantSDK.open(**options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        globex = sdk.tenant(sdk.tenants.create("globex").id)
        acme.data.create(Note(id="before", text="parent"))

        def work() -> list[Any]:
            acme.data.create(Note(id="child"))  # a handle from before the fork
            with sdk.tenant("acme") as again, again.data.transaction() as unit:
                unit.update("notes", "before", text="child")
            return [sorted(row.id for row in acme.data.read(Note)), globex.data.count(Note)]

        assert in_child(work) == [["before", "child"], 0]
        assert acme.data.get(Note, "before").text == "child"
        acme.data.create(Note(id="after"))
        assert in_child(lambda: acme.data.count(Note)) == 3
        assert in_child(lambda: in_child(lambda: acme.data.count(Note))) == 3  # a child's child


def test_a_child_shares_no_connection_with_its_parent(postgres_options: Options) -> None:
    with MultiTenantSDK.open(**postgres_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)

        def backends() -> list[int]:
            return [acme.data.sql("SELECT pg_backend_pid() AS pid")[0]["pid"], *sockets(sdk)]

        parents = backends()
        children = in_child(backends)
        assert set(parents) & set(children) == set()
        assert backends() == parents  # the same connections, still there


def sockets(sdk: MultiTenantSDK) -> list[int]:
    """Return the server processes behind the idle connections of the application's role."""
    database: Any = sdk._session.sdk._database
    slots = [slot for stack in database._app._shelf.idle.values() for slot in stack]
    return sorted(slot.connection.get_server_pid() for slot in slots)


@pytest.mark.parametrize("exit_call", ["sys.exit()", "os._exit(0)"])
def test_the_end_of_a_child_takes_nothing_from_its_parent(postgres_options: Options, exit_call: str) -> None:
    """With all that an interpreter does at its end; a connection closed there must not end the parent's."""
    program = f"""
import gc, os, sys, warnings
from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import MODELS, Note

sdk = MultiTenantSDK.open(models=MODELS, schema="create", **{ {k: postgres_options[k] for k in ("url", "database")}!r})
sdk.initialize()
acme = sdk.tenant(sdk.tenants.create("acme").id)
pid = lambda: acme.data.sql("SELECT pg_backend_pid() AS pid")[0]["pid"]
before = pid()
child = os.fork()
if child == 0:
    acme.data.create(Note(id="child"))
    del sdk, acme
    gc.collect()
    {exit_call}
assert os.waitpid(child, 0)[1] == 0
for number in range(20):
    acme.data.create(Note(id=str(number)))
assert acme.data.count(Note) == 21
assert pid() == before, "the connection was lost"
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert done.stderr == ""


def test_two_tenants_hammered_while_the_process_forks(options: Options) -> None:
    with MultiTenantSDK.open(**options) as sdk:
        for tenant in ("acme", "globex"):
            sdk.tenants.create(tenant)
        stop = threading.Event()
        errors: list[BaseException] = []

        def hammer(mark: str, rounds: int) -> int:
            written = 0
            while written < rounds and not stop.is_set():
                for tenant in ("acme", "globex"):
                    with use_context(TenantContext(tenant)):  # type: ignore[arg-type]
                        sdk.data.create(Note(id=f"{mark}-{written}", text=tenant))
                        assert {row.text for row in sdk.data.read(Note, limit=10_000)} == {tenant}
                written += 1
            return written

        def in_thread(number: int) -> None:
            try:
                hammer(f"thread{number}", 1_000)
            except BaseException as error:  # noqa: BLE001 - seen by the test
                errors.append(error)

        threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        children = []
        for number in range(4):
            mark = f"child{number}"
            children.append(Child(lambda mark=mark: hammer(mark, 5)))  # type: ignore[misc]
            time.sleep(0.05)
        written = [child.result() for child in children]
        stop.set()
        for thread in threads:
            thread.join()
        assert (errors, written) == ([], [5] * 4)
        for tenant in ("acme", "globex"):
            rows = sdk.tenant(tenant).data.read(Note, limit=10_000)
            assert {row.text for row in rows} == {tenant}
            assert sum(row.id.startswith("child") for row in rows) == 20


def test_an_open_transaction_stays_with_the_parent(options: Options) -> None:
    with MultiTenantSDK.open(**options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        with acme.data.transaction() as unit:
            unit.create(Note(id="a"))
            assert in_child(lambda: refusal(lambda: unit.create(Note(id="b")))).startswith(
                "Closed: This tran"
            )
        assert [row.id for row in acme.data.read(Note)] == ["a"]
        block = acme.data.transaction()
        block.__enter__().create(Note(id="c"))
        told = in_child(lambda: refusal(lambda: block.__exit__(None, None, None)))
        assert told.startswith("Closed: This transaction was opened by the parent process")
        error = KeyError("its own")
        assert not in_child(lambda: block.__exit__(KeyError, error, None))  # what fails there is not hidden
        block.__exit__(None, None, None)
        assert [row.id for row in acme.data.read(Note)] == ["a", "c"]


def test_a_system_block_stays_with_the_parent(postgres_options: Options) -> None:
    with MultiTenantSDK.open(**postgres_options) as sdk, sdk.system(reason="look") as system:
        assert in_child(lambda: refusal(lambda: system.data.count(Note))).startswith("Closed: ")
        assert system.data.count(Note) == 0


def test_a_pool_of_processes(options: Options) -> None:
    with MultiTenantSDK.open(**options) as sdk:
        sdk.tenants.create("acme")
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
            _shared.append(sdk)
            try:
                assert list(processes.map(_write, range(10))) == list(range(10))
            finally:
                _shared.clear()
        assert sdk.tenant("acme").data.count(Note) == 10


_shared: list[MultiTenantSDK] = []


def _write(number: int) -> int:
    _shared[0].tenant("acme").data.create(Note(id=str(number)))
    return number


def test_a_child_that_closes_leaves_the_parent_open(options: Options) -> None:
    with MultiTenantSDK.open(**options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)

        def work() -> str:
            sdk.close()
            return refusal(lambda: acme.data.count(Note))

        assert in_child(work).startswith("Closed: The SDK is not open.")
        assert acme.data.count(Note) == 0


def test_what_was_never_opened_or_was_closed_stays_so_in_a_child(sqlite_options: Options) -> None:
    sdk = MultiTenantSDK.open(**sqlite_options)
    assert in_child(lambda: refusal(sdk.get_health)).startswith("Closed: The SDK is not open.")
    with sdk:
        pass
    assert in_child(lambda: refusal(sdk.get_health)).startswith("Closed: The SDK is not open.")


# -- databases that a child cannot open again


def test_memory_does_not_follow_into_a_child() -> None:
    with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        acme.data.create(Note(id="a"))
        told = in_child(lambda: refusal(lambda: acme.data.count(Note)))
        assert told.startswith("Closed: The SDK was in use when the process forked")
        assert acme.data.count(Note) == 1


def test_a_file_is_closed_while_the_process_forks(sqlite_options: Options) -> None:
    """Or the child's library would think that it has the locks which the parent has."""
    with MultiTenantSDK.open(**sqlite_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)

        def files() -> list[str]:
            links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
            names = [os.readlink(link) for link in links if os.path.exists(link)]  # noqa: PTH110, PTH115
            return [name for name in names if "data.db" in name]

        assert files()
        assert in_child(files) == []
        assert acme.data.count(Note) == 0


def test_a_child_outlives_its_parents_session(sqlite_options: Options) -> None:
    """The parent is the last to close, as far as it knows, and must not take the log away from the child."""
    with MultiTenantSDK.open(**sqlite_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        acme.data.create(Note(id="parent"))
        there, here = os.pipe(), os.pipe()

        def work() -> None:
            acme.data.create(Note(id="child"))
            os.write(there[1], b"x")
            os.read(here[0], 1)
            acme.data.create(Note(id="late"))

        child = Child(work)
        os.read(there[0], 1)
        acme.data.create(Note(id="more"))
        sdk.close()
        os.write(here[1], b"x")
        child.result()
    with sdk:
        assert sorted(row.id for row in acme.data.read(Note)) == ["child", "late", "more", "parent"]


def test_a_file_in_use_is_refused_in_a_child(sqlite_options: Options) -> None:
    with MultiTenantSDK.open(**sqlite_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        with acme.data.transaction() as unit:
            unit.create(Note(id="a"))
            told = in_child(lambda: refusal(sdk.get_health))
        assert told.startswith("Closed: The SDK was in use when the process forked")
        assert "in each child process" in told
        assert acme.data.count(Note) == 1


def test_threads_wait_while_a_file_is_closed_for_a_fork(sqlite_options: Options) -> None:
    with MultiTenantSDK.open(**sqlite_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        done, failed = [], []

        def write(handle: TenantHandle, number: int) -> None:
            try:
                handle.data.create(Note(id=str(number)))
                done.append(number)
            except (Closed, Unsupported) as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(acme, number)) for number in range(20)]
        for number, thread in enumerate(threads):
            thread.start()
            if number % 5 == 0:
                assert in_child(lambda: 1) == 1
        for thread in threads:
            thread.join()
        assert (failed, sorted(done)) == ([], list(range(20)))


def test_a_fork_waits_for_the_transactions_of_other_threads(sqlite_options: Options) -> None:
    with MultiTenantSDK.open(**sqlite_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        begun = threading.Event()

        def work() -> None:
            with acme.data.transaction() as unit:
                begun.set()
                for number in range(20):
                    unit.create(Note(id=str(number)))
                    time.sleep(0.01)

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        assert in_child(lambda: acme.data.count(Note)) == 20
        thread.join()


def test_a_fork_does_not_wait_where_nothing_is_shared(postgres_options: Options) -> None:
    with MultiTenantSDK.open(**postgres_options) as sdk:
        acme = sdk.tenant(sdk.tenants.create("acme").id)
        begun, leave = threading.Event(), threading.Event()

        def work() -> None:
            with acme.data.transaction() as unit:
                unit.create(Note(id="a"))
                begun.set()
                leave.wait(60)
                unit.create(Note(id="b"))

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        assert in_child(lambda: acme.data.count(Note)) == 0
        leave.set()
        thread.join()
        assert acme.data.count(Note) == 2
