"""Indexes that cost every write and serve no query."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping

from tenantry.insights.report import Finding
from tenantry.ports import Catalog, Index
from tenantry.schema import TENANT


def unused(
    catalog: Catalog, seen: Mapping[str, tuple[dt.datetime, int]], now: dt.datetime, after: dt.timedelta
) -> Iterator[Index]:
    """Yield the indexes that nothing has used for as long as ``after``, and that nothing depends on.

    Args:
        catalog: The indexes there are.
        seen: For each by its name, since when it is watched, and how often it had been used by then.
        now: Now.
        after: How long they must have been watched.
    """
    for index in catalog.indexes:
        if index.required or index.scans is None or index.name not in seen:
            continue
        since, scans = seen[index.name]
        if index.scans == scans and now - since >= after:
            yield index


def unused_finding(index: Index, ddl: str, since: dt.datetime) -> Finding:
    """Return the advice to drop an index."""
    fields = [name for name in index.columns if name != TENANT.name]
    size = "" if index.size is None else f" It takes {index.size / 1024**2:,.1f} MB, and every write."
    return Finding(
        severity="info",
        code="unused-index",
        subject=index.name,
        message=f"No query has used it since {since:%Y-%m-%d %H:%M} UTC.{size}",
        fix="Drop it, unless a replica or a yearly report needs it.",
        ddl=ddl,
        model=f"Take Indexed, or the group in __indexes__, from {', '.join(fields)} of {index.table!r}.",
        index=index,
    )
