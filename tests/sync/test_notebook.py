"""A notebook in a real Jupyter kernel, which runs a loop in the thread that runs the cells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

OPEN = """
from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import MODELS, Note
sdk = MultiTenantSDK.open("sqlite:///notebook.db", models=MODELS, schema="create", env={})
sdk.initialize()
sdk
"""
TENANT = """
acme = sdk.tenant(sdk.tenants.create("acme", settings={"key": "s3cret"}).id)
with acme.data.transaction() as unit:
    for number in range(3):
        unit.create(Note(id=str(number), text="<script>alert(1)</script>"))
acme.data.read(Note)
"""
FRAME = "acme.data.read(Note, fields=['id', 'text']).to_df().shape"
AWAITED = """
async def inside():
    return acme.data.count(Note)
await inside()
"""
ELSEWHERE = """
import asyncio, threading
told = []
def thread():
    async def call():
        try:
            acme.data.count(Note)
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    asyncio.run(call())
worker = threading.Thread(target=thread)
worker.start()
worker.join()
told[0]
"""
ASYNCHRONOUS = """
import tenantry
async with tenantry.MultiTenantSDK.open("memory://", models=MODELS, env={}) as other:
    await other.tenants.create("acme")
    page = await other.tenants.list()
page
"""
INTERRUPTED = """
async def endless():
    print("begun", flush=True)
    await asyncio.sleep(3600)
try:
    sdk._session.run(endless)
except KeyboardInterrupt:
    print("interrupted")
"""
CLOSE = "sdk.close(); sdk"


def output(cell: Any) -> str:
    """Return what a cell shows, as HTML where it has it."""
    found = []
    for item in cell.outputs:
        data = item.get("data", {})
        found.append(data.get("text/html") or data.get("text/plain") or item.get("text", ""))
    return "".join(found)


# The kernel is a process of its own; what its client leaves to the collector is not ours.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    cells = [OPEN, TENANT, FRAME, AWAITED, ELSEWHERE, ASYNCHRONOUS, CLOSE]
    shown = asyncio.run(run(cells, tmp_path))
    opened, page, frame, awaited, elsewhere, asynchronous, closed = shown
    assert "<caption>MultiTenantSDK</caption>" in opened
    assert "<td>sqlite:///notebook.db</td>" in opened
    assert "<caption>Page of 3 rows</caption>" in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert (frame, awaited) == ("(3, 2)", "3")
    assert "Unsupported: This thread runs an event loop" in elsewhere
    assert "<td>acme</td>" in asynchronous
    assert "<td>closed</td>" in closed
    assert not any("s3cret" in text for text in shown)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_stop_button_ends_the_call_and_leaves_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cells = [OPEN, TENANT, "import asyncio", INTERRUPTED, "acme.data.count(Note)", CLOSE]
    shown = asyncio.run(run(cells, tmp_path, interrupt_at=3))
    assert shown[3].split() == ["begun", "interrupted"]
    assert shown[4] == "3"


async def run(cells: list[str], folder: Path, *, interrupt_at: int = -1) -> list[str]:
    """Execute cells in a kernel and return what each showed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=60,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        kernel_manager_class=AsyncKernelManager,
    )
    async with client.async_setup_kernel():
        for number, cell in enumerate(notebook.cells):
            task = asyncio.create_task(client.async_execute_cell(cell, number))
            if number == interrupt_at:
                while not cell.get("outputs"):
                    await asyncio.sleep(0.05)
                manager: Any = client.km
                await manager.interrupt_kernel()
            try:
                await task
            except CellExecutionError as error:
                raise AssertionError(str(error)) from None
    return [output(cell) for cell in notebook.cells]
