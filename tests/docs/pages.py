"""The pages as data: their blocks of code, headings, tables and links.

A page says by comments, which no reader sees, how it is to be run::

    <!-- docs: postgresql -->            anywhere: the page's blocks need a PostgreSQL that was made ready
    <!-- docs: postgresql, empty -->     the same, before anything made it ready
    <!-- docs: not run: why -->          before a block: it is only read
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_NOT_RUN = re.compile(r"<!-- docs: not run: (.+?) -->\s*$")
_NEEDS = re.compile(r"^<!-- docs: (postgresql(?:, empty)?) -->$", re.MULTILINE)
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
_SOURCE = re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|href|srcset)=\"([^\"]+)\"")
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: The line of its fence, counted from 1.
        title: The file that it is, if it is one.
        not_run: Why it is not run, if it is not.
    """

    line: int
    language: str
    text: str
    title: str | None
    not_run: str | None


@dataclass(frozen=True)
class Page:
    """One file of Markdown."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return _FENCE.sub("", self.text)

    @cached_property
    def needs(self) -> str | None:
        """Which database the blocks need beside what they make themselves."""
        found = _NEEDS.search(self.text)
        return found[1] if found else None

    @cached_property
    def blocks(self) -> list[Block]:
        return list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        for found in _FENCE.finditer(self.text):
            before = self.text[: found.start()]
            title, not_run = _TITLE.search(found[2]), _NOT_RUN.search(before)
            yield Block(
                before.count("\n") + 1,
                found[1],
                found[3],
                title[1] if title else None,
                not_run[1] if not_run else None,
            )

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that GitHub gives the headings."""
        seen: Counter[str] = Counter()
        anchors = set()
        for _, heading in _HEADING.findall(self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return anchors

    @cached_property
    def links(self) -> list[str]:
        prose = re.sub(r"`[^`\n]*`", "", self.prose)
        return _LINK.findall(prose) + _SOURCE.findall(prose)

    def section(self, heading: str) -> str:
        """Return the text below a heading, up to the next one of its level or above."""
        found = re.search(rf"^(#+) {re.escape(heading)}$", self.text, re.MULTILINE)
        assert found, f"{self} has no heading {heading!r}"
        rest = self.text[found.end() :]
        ends = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
        return rest[: ends.start()] if ends else rest


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables: rows of cells, without their headers."""
    found: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]])
        elif rows:
            found.append(rows[2:])
            rows = []
    return found


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables, one after the other."""
    return [row for table in tables(text) for row in table]


def codes(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def page(name: str) -> Page:
    """Return a page of ``docs`` by its name."""
    return Page(DOCS / f"{name}.md")


ALL = tuple(map(Page, PAGES))
