"""Several processes that migrate at once, and one that is killed in the middle."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from tests.alembic.catalog import dump
from tests.alembic.conftest import Project
from tests.alembic.models import MODELS
from tests.alembic.test_online import After, Shelf, in_use
from tests.servers.process import environment

ROOT = Path(__file__).resolve().parents[2]
ENV = """
import time
from pathlib import Path

import tenantry.alembic
from tests.alembic.models import MODELS
from tests.alembic.test_online import After, Shelf, in_use

tenantry.alembic.run(MODELS)
"""
STALL = """
    from pathlib import Path
    import time
    Path({here!r}).write_text("")
    while Path({stalls!r}).exists():
        time.sleep(0.05)
"""


async def start(project: Project, *arguments: str) -> Process:
    ini = project.folder / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {project.folder}\npath_separator = os\n")
    options = {**project.opened["database"], "url": project.opened["url"]}
    variables = {f"TENANTRY_DATABASE_{name.upper()}": str(value) for name, value in options.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.alembic.worker",
        str(ini),
        *arguments,
        cwd=ROOT,
        env={**environment(str(project.folder)), **variables, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        stdout=PIPE,
        stderr=PIPE,
    )


async def kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


async def ended(process: Process) -> str:
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode().strip()


def stalled(text: str, before: str, here: Path, stalls: Path) -> str:
    """Return a revision that says when it is `here`, and goes on once `stalls` is gone."""
    stall = STALL.format(here=str(here), stalls=str(stalls))
    assert f"    {before}" in text
    return text.replace(f"    {before}", f"{stall}    {before}", 1)


async def written(project: Project) -> Project:
    await project.new(*MODELS)
    (project.folder / "env.py").write_text(ENV)
    return project


async def test_four_processes_at_once_migrate_once(project: Project) -> None:
    await written(project)
    processes = [await start(project) for _ in range(4)]
    try:
        said = [await ended(process) for process in processes]
    finally:
        for process in processes:
            await kill(process)
    assert len(said) == 4
    assert (await project.execute("SELECT count(*) FROM alembic_version"))[0][0] == 1
    await project.check()


async def test_on_sqlite_too(tmp_path: Path) -> None:
    file = Project(tmp_path / "migrations", {"url": f"sqlite:///{tmp_path / 'app.db'}", "database": {}}, "")
    await file.migrate(MODELS[0])
    await written(file)
    (tmp_path / "app.db").unlink()
    processes = [await start(file) for _ in range(4)]
    try:
        said = [await ended(process) for process in processes]
    finally:
        for process in processes:
            await kill(process)
    assert len(said) == 4
    await file.check()


async def test_a_process_that_is_killed_leaves_nothing_and_the_next_one_is_let_in(project: Project) -> None:
    await written(project)
    before = await dump(project)
    here, stalls = project.folder / "here", project.folder / "stalls"
    stalls.write_text("")
    revision = project.revisions[-1]
    text = revision.read_text()
    stall = STALL.format(here=str(here), stalls=str(stalls))
    revision.write_text(
        text.replace("    op.isolate_table('products'", f"{stall}    op.isolate_table('products'", 1)
    )
    first, second = await start(project), None
    try:
        while not here.exists():
            assert first.returncode is None, (await first.communicate())[1].decode()
            await asyncio.sleep(0.05)
        second = await start(project)
        await asyncio.sleep(1)
        assert second.returncode is None, "it waits for the first"
        await kill(first)
        assert await dump(project) == before, "the transaction of the killed one is rolled back"
        stalls.unlink()
        assert await ended(second) == "applied 1"
    finally:
        stalls.unlink(missing_ok=True)
        await kill(first)
        if second is not None:
            await kill(second)
    await project.check()
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")


async def test_one_that_is_killed_between_steps_can_be_run_again(project: Project) -> None:
    await in_use(project)
    await project.new(Shelf, After)
    (project.folder / "env.py").write_text(
        ENV.replace("models import MODELS", "test_online import SHELVES as MODELS")
    )
    here, stalls = project.folder / "here", project.folder / "stalls"
    stalls.write_text("")
    revision = project.revisions[-1]
    revision.write_text(stalled(revision.read_text(), "op.create_unique_online(", here, stalls))
    first = await start(project, "allow")
    try:
        while not here.exists():
            assert first.returncode is None, (await first.communicate())[1].decode()
            await asyncio.sleep(0.05)
    finally:
        await kill(first)
        stalls.unlink()
    assert await project.execute("SELECT FROM pg_class WHERE relname = 'items_name_idx'")
    assert await ended(await start(project, "allow")) == "applied 1"
    await project.check()
