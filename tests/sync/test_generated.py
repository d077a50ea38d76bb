"""The synchronous API is what the asynchronous one says: same names, parameters, types and words."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tenantry.sync
from scripts import sync

ROOT = Path(__file__).parents[2]
PAIRS = [
    (getattr(importlib.import_module(f"tenantry.{module}"), name), getattr(tenantry.sync, name))
    for module, names in sync.CLASSES.items()
    for name in names
]


def test_the_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.sync", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_file_that_is_stale_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shutil.copytree(sync.PACKAGE, tmp_path / "src" / "tenantry", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src" / "tenantry" / "sync" / "data.py").unlink()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(sync, "ROOT", tmp_path)
    monkeypatch.setattr(sync, "PACKAGE", tmp_path / "src" / "tenantry")
    assert sync.main(["--check"]) == 1
    assert "data.py is not what the asynchronous API says" in capsys.readouterr().out
    assert sync.main([]) == 0
    assert sync.main(["--check"]) == 0


def test_each_export_is_a_twin() -> None:
    assert sorted(tenantry.sync.__all__) == sorted(sync.TWINS)


@pytest.mark.parametrize(("original", "twin"), PAIRS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_twin_has_the_same_members(original: type, twin: type) -> None:
    attributes = {"context", "data"} if original.__name__.endswith("Handle") else set()
    attributes |= {"flags", "settings"} if original.__name__ == "TenantHandle" else set()
    wanted = {name for name in dir(original) if not name.startswith("_")} | attributes
    wanted -= {name for owner, name in sync.LEFT_OUT if owner == original.__name__}
    assert {name for name in dir(twin) if not name.startswith("_")} == wanted
    for name in wanted - attributes:
        ours, theirs = inspect.getattr_static(twin, name), inspect.getattr_static(original, name)
        if isinstance(theirs, property):
            assert isinstance(ours, property)
            continue
        ours, theirs = (getattr(item, "__func__", item) for item in (ours, theirs))
        assert not inspect.iscoroutinefunction(ours)
        if name in sync.REPEATED:  # its function is a plain one
            assert [*inspect.signature(ours).parameters] == [*inspect.signature(theirs).parameters]
        else:
            assert _parameters(ours) == _parameters(inspect.unwrap(theirs)), name
        assert inspect.getdoc(ours)


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("module", sync.CLASSES)
def test_no_word_of_the_asynchronous_api_is_left(module: str) -> None:
    text = (sync.PACKAGE / "sync" / f"{module}.py").read_text(encoding="utf-8")
    assert not [word for word in ("async with", "await ", "async def", "AsyncIterator") if word in text]


@pytest.mark.parametrize(
    "member",
    [
        "async def rows(self) -> AsyncIterator[int]: ...",
        "def later(self) -> Awaitable[int]: ...",
        "@asynccontextmanager\nasync def block(self) -> AsyncIterator[int]: yield 1",
        "@staticmethod\ndef static() -> int: return 1",
        "def named(self, it: int) -> int: return it",
    ],
)
def test_what_has_no_rule_stops_the_script(member: str) -> None:
    lines = "\n".join(f"    {line}" for line in member.splitlines())
    source = f'class TenantManager:\n    """Its words."""\n{lines}\n'
    with pytest.raises(sync.Unknown):
        sync.generated("tenants", {"tenants": source})


def test_a_new_method_is_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sync.CLASSES, "tenants", ("TenantManager",))
    source = '''
class TenantManager:
    """Its words."""
    async def rename(self, id: str, /, *names: str, force: bool = False, **more: int) -> Page[Tenant]:
        """Await it: ``await tenants.rename()``."""
        return await secret()
'''
    made = ast.parse(sync.generated("tenants", {"tenants": source}))
    assert (
        "def rename(self, id: str, /, *names: str, force: bool=False, **more: int) -> Page[Tenant]:"
        in ast.unparse(made)
    )
    assert "it.rename(id, *names, force=force, **more)" in ast.unparse(made)
    assert "secret" not in ast.unparse(made)
    assert "``tenants.rename()``" in ast.unparse(made)
