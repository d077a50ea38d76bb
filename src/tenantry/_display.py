"""How rows look at a prompt and in a notebook, and as data frames."""

from __future__ import annotations

import enum
import html
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tenantry.errors import ConfigurationError, MissingExtra

_TEXT_ROWS = 10
_HTML_ROWS = 60
_CELL = 200  # characters


def page_text(rows: Sequence[Any], cursor: str | None, included: Mapping[str, Mapping[Any, Any]]) -> str:
    """Return a page as text; of a long one, the beginning."""
    items = [repr(row) for row in rows[:_TEXT_ROWS]]
    if len(rows) > _TEXT_ROWS:
        items.append(f"… and {len(rows) - _TEXT_ROWS} more")
    many = any(len(related) > _TEXT_ROWS for related in included.values())
    beside = {name: f"{len(related)} rows" for name, related in included.items()} if many else dict(included)
    return f"Page(items=[{', '.join(items)}], next_cursor={cursor!r}, included={beside!r})"


def bulk_text(succeeded: int, total: int, errors: Sequence[Exception]) -> str:
    """Return what came of a bulk call as text; of many errors, the first ones."""
    listed = [str(error) for error in errors[:_TEXT_ROWS]]
    if len(errors) > _TEXT_ROWS:
        listed.append(f"… and {len(errors) - _TEXT_ROWS} more")
    return f"BulkResult({succeeded} of {total} items took place{''.join(f'; {text}' for text in listed)})"


def page_html(rows: Sequence[Any], *, more: bool) -> str:
    """Return a page as a table. What a row holds is text there, whatever it looks like."""
    records = [_shown(row) for row in rows[:_HTML_ROWS]]
    columns = _columns(records)
    body = "".join(_tr("td", (record.get(name) for name in columns)) for record in records)
    shown = f"; the first {_HTML_ROWS} are shown" if len(rows) > _HTML_ROWS else ""
    title = html.escape(_title(rows, more=more) + shown)
    return (
        f"<table><caption>{title}</caption><thead>{_tr('th', columns)}</thead><tbody>{body}</tbody></table>"
    )


def properties_html(title: str, properties: Mapping[str, Any]) -> str:
    """Return one thing as a table of its properties."""
    body = "".join(_tr("td", pair) for pair in properties.items())
    return f"<table><caption>{html.escape(title)}</caption><tbody>{body}</tbody></table>"


def data_frame(rows: Sequence[Any], library: str) -> Any:
    """Return rows as a data frame of ``library``."""
    records = [_record(row) for row in rows]
    try:
        if library == "pandas":
            import pandas as pd

            return pd.DataFrame(records, columns=_columns(records) or None)
        if library == "polars":
            import polars as pl

            plain = [{name: _plain(value) for name, value in record.items()} for record in records]
            return pl.DataFrame(plain, infer_schema_length=None)
    except ModuleNotFoundError as error:
        if error.name == library:
            raise MissingExtra(library, library) from error
        raise
    raise ConfigurationError(
        f"There is no data frame of {library!r}.", field="library", fix="Use 'pandas' or 'polars'."
    )


def _title(rows: Sequence[Any], *, more: bool) -> str:
    number = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    return f"Page of {number}{', and more follow' if more else ''}"


def _record(row: Any) -> Mapping[str, Any]:
    """Return a row as a record: it is one, or has its fields as attributes, or is a value of its own."""
    if isinstance(row, Mapping):
        return row
    names = getattr(row, "__struct_fields__", None) or getattr(row, "__dataclass_fields__", None)
    if names is not None:
        return {name: getattr(row, name) for name in names}
    return dict(vars(row)) if hasattr(row, "__dict__") else {"value": row}


def _shown(row: Any) -> Mapping[str, Any]:
    """Return what a row shows of itself: a model may keep something back."""
    arguments = getattr(row, "__repr_args__", None)
    return _record(row) if arguments is None else {str(name): value for name, value in arguments()}


def _columns(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _tr(tag: str, cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells) + "</tr>"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return html.escape(text if len(text) <= _CELL else f"{text[:_CELL]}…")


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, uuid.UUID) else value
