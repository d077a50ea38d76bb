"""Rows in files: CSV for people, JSON Lines for programs, Parquet for what comes after."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import enum
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from tenantry.errors import ConfigurationError, InvalidRecord, MissingExtra
from tenantry.schema import Collection, Field, Kind
from tenantry.types import Record

CARRIED = ("version", "created_at", "updated_at")  # the database keeps these; a file's are passed over

Write = Callable[[Iterable[Record]], None]


class Format(enum.Enum):
    """How rows stand in a file."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def format_of(path: Path, given: Format | None) -> Format:
    """Return the format that was given, or that the file's name says."""
    if given is not None:
        return given
    try:
        return Format(path.suffix.removeprefix(".").lower())
    except ValueError:
        raise ConfigurationError(
            f"{path.name} does not say what it holds.",
            field="format",
            fix="Add --format csv, jsonl or parquet.",
        ) from None


def plain(value: Any) -> Any:
    """Return a value of a record as it stands in JSON: exact, and text where JSON has no type for it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [plain(item) for item in value] if isinstance(value, list) else value


# -- writing


@contextmanager
def writing(path: Path, form: Format, collection: Collection) -> Iterator[Write]:
    """Give what adds rows to a file. The file appears when all of them are in it."""
    part = path.with_name(f".{path.name}.part")
    writer = {Format.CSV: _csv_writer, Format.JSONL: _jsonl_writer, Format.PARQUET: _parquet_writer}[form]
    try:
        with writer(part, collection) as write:
            yield write
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _csv_writer(path: Path, collection: Collection) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(collection.fields)

        def write(records: Iterable[Record]) -> None:
            writer.writerows(
                [_cell(field, record[name]) for name, field in collection.fields.items()]
                for record in records
            )

        yield write


def _cell(field: Field, value: Any) -> str:
    if value is None:
        return ""
    found = plain(value)
    is_text = isinstance(found, str) and field.kind is not Kind.JSON
    return found if is_text else json.dumps(found, ensure_ascii=False)


@contextmanager
def _jsonl_writer(path: Path, collection: Collection) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="\n") as file:

        def write(records: Iterable[Record]) -> None:
            for record in records:
                shown = {name: plain(record[name]) for name in collection.fields}
                file.write(json.dumps(shown, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _parquet_writer(path: Path, collection: Collection) -> Iterator[Write]:
    arrow = _arrow()
    schema = arrow.schema([(name, _arrow_type(arrow, field)) for name, field in collection.fields.items()])
    with arrow.parquet.ParquetWriter(path, schema) as writer:

        def write(records: Iterable[Record]) -> None:
            columns = {
                name: [_arrow_value(field, record[name]) for record in records]
                for name, field in collection.fields.items()
            }
            writer.write_table(arrow.table(columns, schema=schema))

        yield write


def _arrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtra("pyarrow", "parquet") from None
    return pa


def _arrow_type(arrow: Any, field: Field) -> Any:
    if field.kind is Kind.LIST:
        assert field.item is not None
        return arrow.list_(_arrow_type(arrow, field.item))
    if field.kind is Kind.DECIMAL and field.digits <= 76:
        return arrow.decimal256(field.digits, field.places)
    known = {
        Kind.INT: arrow.int64(),
        Kind.FLOAT: arrow.float64(),
        Kind.BOOL: arrow.bool_(),
        Kind.DATE: arrow.date32(),
        Kind.DATETIME: arrow.timestamp("us", tz="UTC"),
        Kind.BYTES: arrow.binary(),
    }
    return known.get(field.kind, arrow.string())


def _arrow_value(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.kind is Kind.LIST:
        assert field.item is not None
        return [_arrow_value(field.item, item) for item in value]
    if field.kind is Kind.JSON:
        return json.dumps(value, ensure_ascii=False)
    if field.kind in (Kind.UUID, Kind.ENUM) or (field.kind is Kind.DECIMAL and field.digits > 76):
        return plain(value)
    return value


# -- reading


def reading(path: Path, form: Format, collection: Collection) -> Iterator[tuple[int, Record | InvalidRecord]]:
    """Yield each row of a file with its number, or what is wrong with it.

    Raises:
        ConfigurationError: The file cannot be read, or names a column that the collection lacks.
    """
    reader = {Format.CSV: _csv_rows, Format.JSONL: _jsonl_rows, Format.PARQUET: _parquet_rows}[form]
    try:
        for number, values in reader(path, collection):
            if isinstance(values, InvalidRecord):
                yield number, values
                continue
            try:
                yield number, _converted(collection, values, form)
            except InvalidRecord as error:
                yield number, error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"Cannot read {path}: {error}.", field="file") from error


def _csv_rows(path: Path, collection: Collection) -> Iterator[tuple[int, Record | InvalidRecord]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        head = next(reader, [])
        _check_columns(path, collection, head)
        for cells in reader:
            if len(cells) == len(head):
                yield reader.line_num, dict(zip(head, cells, strict=True))
            elif cells:
                yield reader.line_num, InvalidRecord(f"has {len(cells)} cells, not {len(head)}.", field="row")


def _jsonl_rows(path: Path, collection: Collection) -> Iterator[tuple[int, Record | InvalidRecord]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                yield number, InvalidRecord(f"is not JSON: {error}.", field="row")
                continue
            yield number, values if isinstance(values, dict) else InvalidRecord("is no object.", field="row")


def _parquet_rows(path: Path, collection: Collection) -> Iterator[tuple[int, Record]]:
    arrow = _arrow()
    try:
        file = arrow.parquet.ParquetFile(path)
    except arrow.ArrowException as error:
        raise ConfigurationError(f"Cannot read {path}: {error}.", field="file") from error
    with file:
        _check_columns(path, collection, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(1_000):
            for values in batch.to_pylist():
                number += 1
                yield number, values


def _check_columns(path: Path, collection: Collection, names: Iterable[str]) -> None:
    for name in names:
        if name not in collection.fields:
            raise ConfigurationError(
                f"{path.name} has a column {name!r}, and {collection.name} has no such field.",
                field="file",
                fix=f"Its fields: {', '.join(collection.fields)}.",
            )


def _converted(collection: Collection, values: Mapping[str, Any], form: Format) -> Record:
    """Return the values of a row as the model takes them, without those that the database keeps."""
    convert = {Format.CSV: _from_text, Format.JSONL: _from_json, Format.PARQUET: _from_arrow}[form]
    record: Record = {}
    for name, value in values.items():
        if name in CARRIED:
            continue
        field = collection.fields.get(name)
        if field is None:
            raise InvalidRecord("is not a field.", field=name)
        try:
            record[name] = None if value is None else convert(field, value)
        except (ValueError, TypeError) as error:
            raise InvalidRecord(str(error), field=name) from None
    return record


def _from_text(field: Field, text: str) -> Any:
    if text == "" and (field.nullable or field.kind is not Kind.TEXT):
        return None
    if field.kind is Kind.BOOL:
        known = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
        if text.lower() not in known:
            raise ValueError("expected true or false.")
        return known[text.lower()]
    if field.kind in (Kind.INT, Kind.FLOAT):
        return int(text) if field.kind is Kind.INT else float(text)
    if field.kind in (Kind.JSON, Kind.LIST):
        return _from_json(field, json.loads(text))
    return field.from_json(text)


def _from_json(field: Field, value: Any) -> Any:
    if field.kind is not Kind.LIST:
        return field.from_json(value)
    assert field.item is not None
    if not isinstance(value, list):
        raise TypeError("expected a list.")
    return [_from_json(field.item, item) for item in value]


def _from_arrow(field: Field, value: Any) -> Any:
    if field.kind is Kind.JSON:
        return json.loads(value)
    if field.kind is Kind.BYTES:
        return value
    return field.normalise(value)


def write_refused(file: TextIO, number: int, error: InvalidRecord) -> None:
    """Note a row that was not imported, and why."""
    file.write(json.dumps({"row": number, "field": error.field, "why": error.message}) + "\n")
