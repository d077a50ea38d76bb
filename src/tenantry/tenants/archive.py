"""One tenant in one file: a ZIP archive of JSON Lines, and a manifest with the checksum of each.

``rows/<collection>.jsonl`` holds the rows of a collection in the order of their ids, one JSON object a line with sorted
keys, so that equal rows are equal bytes. ``tenantry.json``, written last, says what is there, and what was left out.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import hashlib
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tenantry.errors import ArchiveError
from tenantry.schema import Collection, Field, Kind
from tenantry.types import Record

FORMAT: Final = "tenantry tenant"
VERSION: Final = 1
_MANIFEST: Final = "tenantry.json"
_MAX_MANIFEST: Final = 16 * 2**20
_MAX_LINE: Final = 64 * 2**20
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds of one collection.

    Attributes:
        rows: How many rows.
        sha256: The checksum of their lines.
    """

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself.

    Attributes:
        tenant: The tenant's id, slug, name, plan and settings.
        made_at: When the export began; the rows are those of one moment.
        collections: What it holds of each collection.
        left_out: What it does not hold, and why.
    """

    tenant: Mapping[str, Any]
    made_at: str
    collections: Mapping[str, Contents]
    left_out: Mapping[str, str]


class Checksum:
    """Counts rows and sums their lines."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._rows = 0

    def add(self, lines: Sequence[bytes]) -> None:
        """Add lines."""
        self._rows += len(lines)
        for line in lines:
            self._sum.update(line)

    def contents(self) -> Contents:
        """Return what was added."""
        return Contents(self._rows, self._sum.hexdigest())


class ArchiveWriter:
    """Writes an archive. The file appears once it is whole."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._zip = zipfile.ZipFile(self._part, "w", zipfile.ZIP_DEFLATED, compresslevel=3)
        except OSError as error:
            raise ArchiveError(f"Cannot write {self._path}: {error.strerror}.") from error
        self._contents: dict[str, Contents] = {}

    def rows(self, name: str) -> None:
        """Begin the rows of a collection."""
        self._entry = self._zip.open(_entry(name), "w", force_zip64=True)
        self._checksum = Checksum()

    def add(self, lines: Sequence[bytes]) -> None:
        """Add rows to it."""
        self._entry.write(b"".join(lines))
        self._checksum.add(lines)

    def end(self, name: str) -> None:
        """End it."""
        self._entry.close()
        self._contents[name] = self._checksum.contents()

    def finish(
        self, tenant: Mapping[str, Any], made_at: dt.datetime, left_out: Mapping[str, str]
    ) -> Manifest:
        """Write the manifest, and let the file appear."""
        manifest = Manifest(tenant, made_at.isoformat(), self._contents, left_out)
        held = {name: {"rows": item.rows, "sha256": item.sha256} for name, item in self._contents.items()}
        said = {"format": FORMAT, "version": VERSION, "tenant": tenant, "made_at": manifest.made_at}
        said |= {"collections": held, "left_out": left_out}
        self._zip.writestr(_MANIFEST, json.dumps(said, indent=2, sort_keys=True))
        self._zip.close()
        self._part.replace(self._path)
        return manifest

    def abandon(self) -> None:
        """Leave nothing behind of a file that is not whole."""
        with suppress(ValueError, OSError):  # an entry may be open, or the disk full
            self._zip.close()
        self._part.unlink(missing_ok=True)


class ArchiveReader:
    """Reads an archive, which may be anybody's: nothing in it is believed before it was checked."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
            self.manifest = _manifest(self._zip)
        except (
            OSError,
            zipfile.BadZipFile,
            zlib.error,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise ArchiveError(f"{os.fspath(path)} is no archive of a tenant: {error}.") from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def verify(self) -> None:
        """Read everything once and compare it with the manifest.

        Raises:
            ArchiveError: It differs; names the collection.
        """
        for name, contents in self.manifest.collections.items():
            checksum = Checksum()
            for line in self._lines(name):
                checksum.add([line])
            if checksum.contents() != contents:
                raise ArchiveError(f"The rows of {name!r} are not those that the archive was made with.")

    def batches(self, collection: Collection) -> Iterator[list[Record]]:
        """Return the rows of a collection, some at a time."""
        batch: list[Record] = []
        for line in self._lines(collection.name):
            batch.append(record_of(collection, line))
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _lines(self, name: str) -> Iterator[bytes]:
        try:
            with self._zip.open(_entry(name)) as file:
                while line := file.readline(_MAX_LINE):
                    yield line
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ArchiveError(f"The rows of {name!r} cannot be read: {error}.") from error


def _entry(name: str) -> str:
    return f"rows/{name}.jsonl"


def _manifest(file: zipfile.ZipFile) -> Manifest:
    if file.getinfo(_MANIFEST).file_size > _MAX_MANIFEST:
        raise ValueError("its manifest is too large")
    said = json.loads(file.read(_MANIFEST))
    if said["format"] != FORMAT:
        raise ValueError("it is of another format")
    if said["version"] != VERSION:
        raise ValueError(
            f"it is of version {said['version']!r}, and this is version {VERSION}; update tenantry"
        )
    held = {
        name: Contents(int(item["rows"]), str(item["sha256"])) for name, item in said["collections"].items()
    }
    return Manifest(dict(said["tenant"]), str(said["made_at"]), held, dict(said["left_out"]))


def line_of(collection: Collection, record: Record) -> bytes:
    """Return a record as one line, equal for equal records."""
    shown = {name: _plain(record[name]) for name in collection.fields}
    return json.dumps(shown, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def record_of(collection: Collection, line: bytes) -> Record:
    """Return the record in a line.

    Raises:
        ArchiveError: It is none of this collection.
    """
    try:
        shown = json.loads(line)
        if shown.keys() != collection.fields.keys():
            raise ValueError("its fields are not those of the model")
        return {name: _revived(field, shown[name]) for name, field in collection.fields.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ArchiveError(f"A row of {collection.name!r} cannot be stored: {error}.") from error


def _revived(field: Field, value: Any) -> Any:
    if value is None:
        if not field.nullable:
            raise ValueError(f"{field.name} is required")
        return None
    if field.kind is Kind.LIST and field.item is not None:
        return field.normalise([field.item.from_json(item) for item in value])
    return field.from_json(value)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_plain(item) for item in value] if isinstance(value, list) else value
