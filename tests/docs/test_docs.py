"""The pages do what they say: their code runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.databases.postgres.deployment import deploy
from tests.docs import commands, script
from tests.docs.pages import ALL, DOCS, ROOT, Page, page

PREFIX = "TENANTRY_"
# What may stand in a page and not run. It is a short list, so that it stays one.
NOT_RUN = 0


@pytest.fixture
def _environment(document: Page, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that the page asks for, and nobody else's."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    if document.needs is None:
        return
    url = request.getfixturevalue("database_url")
    found = {f"{PREFIX}ADMIN_URL": url}
    if document.needs == "postgresql":
        found = _variables(asyncio.run(deploy(url)))
    for name, value in found.items():
        monkeypatch.setenv(name, value)


def _variables(opened: dict[str, object]) -> dict[str, str]:
    """Return what `MultiTenantSDK.open` takes as the variables that say the same."""
    options = opened["database"]
    assert isinstance(options, dict)
    return {
        f"{PREFIX}DATABASE_{name.upper()}": str(value)
        for name, value in {**options, "url": opened["url"]}.items()
    }


@pytest.mark.timeout(600)  # each command of a page starts a program, and the machine may be busy
@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("document", ALL, ids=str)
def test_a_page_runs(document: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    script.run(document, tmp_path, monkeypatch.setenv)


def test_hardly_anything_is_not_run() -> None:
    skipped = [f"{p}:{block.line}: {block.not_run}" for p in ALL for block in p.blocks if block.not_run]
    assert len(skipped) == NOT_RUN, skipped


@pytest.mark.parametrize("document", ALL, ids=str)
def test_every_block_says_what_it_is(document: Page) -> None:
    known = {"console", "python", "toml", "ini", "sql", "text", "mermaid", "env"}
    assert not [f"{document}:{block.line}" for block in document.blocks if block.language not in known]


@pytest.mark.parametrize("document", ALL, ids=str)
def test_every_command_exists(document: Page) -> None:
    for block in document.blocks:
        if block.language == "console":
            for command, _ in script.commands_of(block):
                commands.check(command)


@pytest.mark.parametrize("document", ALL, ids=str)
def test_every_link_leads_somewhere(document: Page) -> None:
    broken = [link for link in document.links if not _leads_somewhere(document, link)]
    assert not broken


def _leads_somewhere(document: Page, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme:
        return parts.scheme in ("http", "https", "mailto")
    target = (document.path.parent / unquote(parts.path)).resolve() if parts.path else document.path
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not parts.fragment or parts.fragment in Page(target).anchors


def test_every_page_can_be_found_from_the_index() -> None:
    index = page("index")
    linked = {(index.path.parent / urlsplit(link).path).resolve() for link in index.links}
    assert {p.path for p in ALL if p.path.is_relative_to(DOCS)} - linked == {index.path}


def test_each_page_has_roles_of_its_own() -> None:
    """Roles belong to the server, and the pages share one."""
    named = [
        name for p in ALL for name in re.findall(r"^\$ tenantry init .*--prefix (\w+)", p.text, re.MULTILINE)
    ]
    assert len(named) > 2
    assert sorted(named) == sorted(set(named))
