"""What a response says, whatever its format: JSON, CSV, XLSX, PDF, HTML or text."""

from __future__ import annotations

import csv
import html
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree as ET

from tenantry.scan.messages import Response

_MAX_UNPACKED = 20_000_000
_MAX_DEPTH = 60
_CACHED = 256  # an answer is looked at several times, and then never again
_TAGS = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"\b(?:href|value|content|title|alt|src|action|data-[\w-]+)\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE
)
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
_SHOWN = re.compile(rb"\(((?:\\.|[^\\()])*)\)")
# Headers that describe the transport, not the data.
_PLUMBING = re.compile(
    r"accept-ranges|age|allow|alt-svc|cache-control|connection|content-(?:encoding|language|length|type|security-policy)"
    r"|date|etag|expires|keep-alive|last-modified|nel|permissions-policy|pragma|referrer-policy|report-to|server"
    r"|strict-transport-security|transfer-encoding|vary|via|x-content-type-options|x-frame-options|x-powered-by"
    r"|x-(?:request|correlation|trace)-id|x-response-time|x-runtime"
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value in a response.

    Attributes:
        keys: The names on the way to it; empty in plain text.
        text: The value as text.
        number: Whether it is one.
    """

    keys: tuple[str, ...]
    text: str
    number: bool = False

    @property
    def key(self) -> str:
        """The last name on the way, in lower case."""
        return self.keys[-1].lower() if self.keys else ""


@lru_cache(maxsize=_CACHED)
def leaves(response: Response) -> tuple[Leaf, ...]:
    """Return every value of the body and of the headers that carry data."""
    found = [leaf for tree in trees(response) for leaf in walk(tree)]
    if not trees(response):
        found = [Leaf((), line) for line in plain(response)]
    named = [
        Leaf((name,), value) for name, value in response.headers.items() if not _PLUMBING.fullmatch(name)
    ]
    return (*found, *named)


@lru_cache(maxsize=_CACHED)
def haystack(response: Response) -> str:
    """Return all that a reader of the response could read, in lower case."""
    return "\n".join(leaf.text for leaf in leaves(response)).casefold()


@lru_cache(maxsize=_CACHED)
def trees(response: Response) -> list[Any]:
    """Return the body as JSON values; a CSV file is a list of objects."""
    if response.data is not None:
        return [response.data]
    kind = response.content_type
    if kind == "application/x-ndjson" or kind.endswith("jsonl"):
        return [
            tree for line in response.body.splitlines() if (tree := Response(200, {}, line).data) is not None
        ]
    if kind in ("text/csv", "text/tab-separated-values"):
        return [_table(response.text, "\t" if "tab" in kind else ",")]
    if response.body.startswith(b"PK"):
        return [_sheets(response.body)]
    return []


def walk(tree: Any, keys: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Yield the values in a JSON value."""
    if len(keys) > _MAX_DEPTH:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from walk(value, (*keys, str(key)))
    elif isinstance(tree, list):
        for value in tree:
            yield from walk(value, keys)
    elif isinstance(tree, str):
        yield Leaf(keys, tree)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield Leaf(keys, str(tree), number=True)


def plain(response: Response) -> list[str]:
    """Return the lines of a body that is no JSON."""
    if response.body.startswith(b"%PDF"):
        return _pdf(response.body)
    if "html" in response.content_type or "xml" in response.content_type:
        attributes = _ATTRIBUTE.findall(response.text)
        text = _TAGS.sub("\n", response.text)
        return [html.unescape(part).strip() for part in [*attributes, *text.split("\n")] if part.strip()]
    if b"\0" in response.body[:1000]:
        return [run.decode() for run in re.findall(rb"[ -~]{4,}", response.body)]
    return [line.strip() for line in response.text.splitlines() if line.strip()]


def _table(text: str, delimiter: str) -> list[dict[str, str]]:
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return [{"line": line} for line in text.splitlines()]
    return _rows(rows)


def _rows(rows: list[list[str]]) -> list[dict[str, str]]:
    head, *rest = rows or [[]]
    return [
        {name or str(at): cell for at, (name, cell) in enumerate(zip(head, row, strict=False))}
        for row in rest
    ]


def _sheets(body: bytes) -> list[dict[str, str]]:
    """Return the rows of a workbook's sheets; of any other archive the text of its files."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            parts = {info.filename: _unpacked(archive, info) for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, OSError):
        return []
    if "xl/workbook.xml" not in parts:
        return [{"file": name, "text": part.decode("utf-8", "replace")} for name, part in parts.items()]
    shared = ["".join(item.itertext()) for item in _elements(parts.get("xl/sharedStrings.xml", b""), "si")]
    sheets = [
        part for name, part in parts.items() if name.startswith("xl/worksheets/") and name.endswith(".xml")
    ]
    return [
        row for sheet in sheets for row in _rows([_cells(row, shared) for row in _elements(sheet, "row")])
    ]


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(_MAX_UNPACKED)


def _elements(document: bytes, name: str) -> list[ET.Element]:
    if b"<!DOCTYPE" in document[:2000]:
        return []  # no workbook has one, and entities can be made to explode
    try:
        root = ET.fromstring(document)  # noqa: S314 - without a DOCTYPE there are no entities
    except ET.ParseError:
        return []
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == name]


def _cells(row: ET.Element, shared: list[str]) -> list[str]:
    cells = []
    for cell in row:
        text = "".join(cell.itertext())
        known = cell.get("t") == "s" and text.isdigit() and int(text) < len(shared)
        cells.append(shared[int(text)] if known else text)
    return cells


def _pdf(body: bytes) -> list[str]:
    """Return the strings that a PDF shows, as far as they are plain or deflated."""
    found = []
    for stream in [body, *_STREAM.findall(body)]:
        try:
            opened = zlib.decompressobj().decompress(stream, _MAX_UNPACKED)
        except zlib.error:
            opened = stream
        found += [text.decode("latin-1") for text in _SHOWN.findall(opened)]
    return [re.sub(r"\\([\\()])", r"\1", text) for text in dict.fromkeys(found)]
