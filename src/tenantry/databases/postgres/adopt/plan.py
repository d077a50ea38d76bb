"""The plan: what becomes of each table. A file that people read and edit."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from tenantry import types
from tenantry.errors import ConfigurationError, InvalidTenantId

Kind = Literal["root", "tenant", "shared", "open", "skip", "undecided"]
KINDS: Final[Mapping[str, str]] = {
    "root": "one row is one tenant",
    "tenant": "rows of tenants; each tenant sees its own",
    "shared": "reference data: every tenant reads all of it, none writes",
    "open": "every tenant reads and writes all of it: NOT isolated",
    "skip": "left alone; no tenant's role may reach it",
    "undecided": "you decide: write one of the others",
}
STOP: Final = "stop"
KEEP: Final = "keep"
_VERSION: Final = 1
_OF_TABLES: Final = frozenset({"kind", "parent", "by", "references", "sql", "orphans", "disagreements"})
_HEAD: Final = """\
# What `tenantry adopt` will do with each table. Read it, edit it, then run: tenantry adopt apply
#
#   kind = "root"        {root}
#          "tenant"      {tenant}
#          "shared"      {shared}
#          "open"        {open}
#          "skip"        {skip}
#          "undecided"   {undecided}
#
# A tenant table finds its tenant by `parent`, the table it belongs to, and `by`, its own columns that hold the
# parent's `references`; or by `sql`, an expression over {{row}}. `orphans` says what becomes of rows that find none:
# "stop", or the id of the tenant that gets them. `disagreements = "keep"` keeps rows that also refer to another
# tenant's rows.
"""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What becomes of one table.

    Attributes:
        table: Its full name, such as ``public.orders``.
        kind: See :data:`KINDS`.
        parent: For ``tenant``: the full name of the table it belongs to.
        by: For ``tenant``: its columns that name the parent's row.
        references: For ``tenant``: the parent's columns that ``by`` holds.
        sql: For ``tenant``, in place of the three above: an expression over ``{row}`` that gives the tenant's id.
        orphans: For ``tenant``: ``stop``, or the id of the tenant that gets the rows that find none.
        disagreements: For ``tenant``: ``stop``, or ``keep`` rows that also refer to another tenant's rows.
        reasons: Why; written as comments.
    """

    table: str
    kind: Kind
    parent: str | None = None
    by: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    sql: str | None = None
    orphans: str = STOP
    disagreements: str = STOP
    reasons: tuple[str, ...] = field(default=(), compare=False)

    @property
    def has_tenant(self) -> bool:
        """Whether its rows belong to tenants."""
        return self.kind in ("root", "tenant")

    @property
    def fallback(self) -> str | None:
        """The tenant of rows that find none."""
        return None if self.orphans == STOP else self.orphans


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a database.

    Attributes:
        root: The full name of the table whose rows are the tenants.
        key: Its column that becomes the tenant's id.
        tables: By full name.
        scope_unique: Whether unique constraints are widened to begin with the tenant.
        notes: What else to know; written as comments.
    """

    root: str
    key: str
    tables: Mapping[str, TablePlan]
    scope_unique: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)

    def of_kind(self, *kinds: Kind) -> Iterator[TablePlan]:
        """Yield the tables of some kinds, by name."""
        return (self.tables[name] for name in sorted(self.tables) if self.tables[name].kind in kinds)

    def ordered(self) -> list[TablePlan]:
        """Return the root and the tenant tables, each behind its parent.

        Raises:
            ConfigurationError: A table is its own ancestor.
        """
        done: dict[str, TablePlan] = {}
        for table in self.of_kind("root", "tenant"):
            self._visit(table, done, ())
        return list(done.values())

    def _visit(self, table: TablePlan, done: dict[str, TablePlan], above: tuple[str, ...]) -> None:
        if table.table in above:
            raise _wrong(table.table, f"its parents lead back to it: {' → '.join([*above, table.table])}")
        if table.table in done:
            return
        if table.kind == "tenant":
            parent = self.root if table.sql else str(table.parent)
            self._visit(self.tables[parent], done, (*above, table.table))
        done[table.table] = table

    def route(self, name: str) -> str:
        """Return how a table finds its tenant, such as ``lines.invoice_id → invoices.org_id → orgs``."""
        table = self.tables[name]
        if table.kind != "tenant" or table.sql:
            return "sql" if table.sql else ""
        here = f"{table.table}({', '.join(table.by)})"
        above = self.route(str(table.parent))
        return f"{here} → {above or table.parent}"

    def dump(self) -> str:
        """Return the plan as TOML."""
        lines = [_HEAD.format(**KINDS), *(f"# {note}" for note in self.notes), f"version = {_VERSION}"]
        lines += [f"root = {_text(self.root)}", f"key = {_text(self.key)}"]
        lines += [f"scope_unique = {str(self.scope_unique).lower()}"]
        for name in sorted(self.tables, key=lambda name: (_RANK[self.tables[name].kind], name)):
            lines += ["", *_dumped(self.tables[name])]
        return "\n".join([*lines, ""])


_RANK: Final[Mapping[str, int]] = {
    kind: rank for rank, kind in enumerate(("undecided", "root", "tenant", "open", "shared", "skip"))
}


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ConfigurationError: There is no such file, or it is no plan.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"Cannot read the plan: {error}.", field="plan", fix="Make one: tenantry adopt plan"
        ) from error
    return parse_plan(text)


def parse_plan(text: str) -> Plan:
    """Read a plan from TOML.

    Raises:
        ConfigurationError: It is no plan; the message names the table and the field.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"The plan is no TOML: {error}.", field="plan") from error
    unknown = set(data) - {"version", "root", "key", "scope_unique", "tables"}
    if unknown or data.get("version") != _VERSION:
        what = f"has unknown entries {sorted(unknown)}" if unknown else f"is not of version {_VERSION}"
        raise ConfigurationError(
            f"The plan {what}.", field="plan", fix="Make a new one: tenantry adopt plan --force"
        )
    tables = {name: _parsed(name, entry) for name, entry in _section(data, "tables").items()}
    plan = Plan(
        _string(data, "root", "plan"), _string(data, "key", "plan"), tables, _flag(data, "scope_unique")
    )
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    roots = [table.table for table in plan.of_kind("root")]
    if roots != [plan.root]:
        raise _wrong(plan.root, 'it and no other table must have kind = "root"')
    for table in plan.of_kind("tenant"):
        _check_tenant(plan, table)
    plan.ordered()


def _check_tenant(plan: Plan, table: TablePlan) -> None:
    if (table.sql is None) == (table.parent is None):
        raise _wrong(table.table, "a tenant table needs either `parent` or `sql`")
    if table.parent is not None:
        parent = plan.tables.get(table.parent)
        if parent is None or not parent.has_tenant:
            raise _wrong(table.table, f"its parent {table.parent} is no tenant table of this plan")
        if not table.by or len(table.by) != len(table.references):
            raise _wrong(table.table, "`by` and `references` must list as many columns each, at least one")
    if table.disagreements not in (STOP, KEEP):
        raise _wrong(table.table, f'`disagreements` is "{STOP}" or "{KEEP}"')
    if table.fallback is not None:
        try:
            types.tenant_id(table.fallback)
        except InvalidTenantId as error:
            raise _wrong(table.table, f'`orphans` is "{STOP}" or a tenant id: {error}') from error


def _parsed(name: str, entry: Any) -> TablePlan:
    if not isinstance(entry, dict):
        raise _wrong(name, "it must be a table of entries")
    unknown = set(entry) - _OF_TABLES
    if unknown:
        raise _wrong(name, f"unknown entries {sorted(unknown)}; known: {', '.join(sorted(_OF_TABLES))}")
    kind = entry.get("kind")
    if kind not in get_args(Kind):
        raise _wrong(name, f"kind is {kind!r}, not one of {', '.join(get_args(Kind))}")
    return TablePlan(
        name,
        cast(Kind, kind),
        parent=_optional(entry, "parent", name),
        by=_names(entry, "by", name),
        references=_names(entry, "references", name),
        sql=_optional(entry, "sql", name),
        orphans=_optional(entry, "orphans", name) or STOP,
        disagreements=_optional(entry, "disagreements", name) or STOP,
    )


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"The plan's {name} must be a table.", field="plan")
    return found


def _flag(data: Mapping[str, Any], name: str) -> bool:
    found = data.get(name, False)
    if not isinstance(found, bool):
        raise ConfigurationError(f"The plan's {name} must be true or false.", field="plan")
    return found


def _string(data: Mapping[str, Any], name: str, where: str) -> str:
    found = _optional(data, name, where)
    if not found:
        raise _wrong(where, f"`{name}` is missing")
    return found


def _optional(data: Mapping[str, Any], name: str, where: str) -> str | None:
    found = data.get(name)
    if found is not None and not isinstance(found, str):
        raise _wrong(where, f"`{name}` must be a text")
    return found


def _names(data: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise _wrong(where, f"`{name}` must be a list of column names")
    return tuple(found)


def _wrong(table: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"The plan for {table}: {what}.", field=f"plan.{table}")


def _dumped(table: TablePlan) -> Iterable[str]:
    yield f"[tables.{_text(table.table)}]"
    yield from (f"# {reason}" for reason in table.reasons)
    yield f"kind = {_text(table.kind)}"
    if table.sql is not None:
        yield f"sql = {_text(table.sql)}"
    if table.parent is not None:
        yield f"parent = {_text(table.parent)}"
        yield f"by = [{', '.join(map(_text, table.by))}]"
        yield f"references = [{', '.join(map(_text, table.references))}]"
    if table.kind == "tenant":
        yield f"orphans = {_text(table.orphans)}"
        yield f"disagreements = {_text(table.disagreements)}"


def _text(value: str) -> str:
    # What JSON escapes, TOML escapes alike; what JSON leaves alone, TOML does too, but for U+007F.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
