"""What the insights say: numbers of each shape, and findings with their fix."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec

from tenantry.insights.counts import Counted
from tenantry.insights.histogram import percentile
from tenantry.ports import Index, Plan

Severity = Literal["warning", "info"]


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """The numbers of one shape. Times are in seconds; percentiles are within 5 % of the true ones.

    Attributes:
        shape: The query without its values.
        count: How often it was asked.
        errors: How often that failed.
        p50: What half of them did not exceed.
        p95: What 95 % of them did not exceed.
        seconds: How long all of them took together.
        rows: How many rows one of them returned, on average.
        scanned: How many rows the database looked at for one that was slow; ``None`` if none was looked into.
        plan: How the database found them.
        tenants: How often its most frequent tenants asked it, at least; of this process alone.
    """

    shape: str
    verb: str
    collection: str
    count: int
    errors: int
    p50: float
    p95: float
    seconds: float
    rows: float
    scanned: int | None
    plan: Plan | None
    tenants: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, counted: Counted, tenants: Mapping[str, int] | None = None) -> ShapeReport:
        """Return the numbers of a shape."""
        shape, counts = counted.shape, counted.counts
        plan = counts.plan
        return cls(
            shape=shape.text,
            verb=shape.verb,
            collection=shape.collection,
            count=counts.count,
            errors=counts.errors,
            p50=percentile(counts.latency, 0.5),
            p95=percentile(counts.latency, 0.95),
            seconds=counts.seconds,
            rows=counts.rows / counts.count if counts.count else 0.0,
            scanned=None if plan is None else plan.scanned,
            plan=plan,
            tenants=tenants or {},
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that makes queries slower than they need to be.

    Attributes:
        severity: A ``warning`` is worth a look today.
        code: Names the rule, such as ``missing-index``; stable.
        subject: The collection, or the index.
        message: What was seen, in numbers.
        fix: What to do about it.
        shapes: The shapes that it is about.
        ddl: The statement that mends it, if one does.
        model: The same in the model, so that no migration takes it back.
        index: The index to make, or to drop.
    """

    severity: Severity
    code: str
    subject: str
    message: str
    fix: str
    shapes: tuple[str, ...] = ()
    ddl: str | None = None
    model: str | None = None
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was counted since an instant, and what follows from it.

    Attributes:
        since: From when on.
        processes: How many processes counted.
        shapes: The most expensive ones first.
        findings: Warnings first.
        unnamed: How many operations of this process were of shapes beyond those that are kept apart.
        failures: How often this process could not store its counts.
    """

    since: dt.datetime
    processes: int
    shapes: tuple[ShapeReport, ...]
    findings: tuple[Finding, ...]
    unnamed: int = 0
    failures: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "since": self.since.isoformat(),
            "processes": self.processes,
            "shapes": [_plain(item) for item in self.shapes],
            "findings": [_plain(item) for item in self.findings],
            "unnamed": self.unnamed,
            "failures": self.failures,
        }


def _plain(item: ShapeReport | Finding) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(asdict(item))
    return plain
