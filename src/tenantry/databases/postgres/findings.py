"""What an inspection says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import sqlalchemy as sa

from tenantry.databases._tables import Tables
from tenantry.databases.postgres.policies import (
    TENANT_COLUMN,
    Privilege,
    Reach,
    Roles,
    control_table_policies,
    open_table_policies,
    shared_table_policies,
    table_name,
    tenant_table_policies,
)
from tenantry.databases.postgres.search import search_trigger
from tenantry.errors import UnsafeRole
from tenantry.plans import PLANS, USAGE
from tenantry.schema import Collection
from tenantry.searching import searchable_fields

INIT_COMMAND: Final = "tenantry init --admin-url postgresql://postgres@HOST/DATABASE"
SCHEMA_LOCK: Final = 0x7465_6E61_6E74
"""The advisory lock under which one process at a time changes tables: in ASCII, tenant."""

_COUNTED_WITH: Final[Mapping[str, Reach]] = {
    "tenantry_tenants": "read",
    PLANS.name: "read",
    USAGE.name: "write",
}

Severity = Literal["error", "warning"]
Kind = Literal["tenant", "shared", "open", "control"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        severity: An ``error`` lets one tenant reach another's data, or makes that likely; a ``warning`` does not.
        code: Names the check, such as ``policy-missing``; stable.
        subject: What it is about: a role, a table, a function.
        message: What is wrong and what follows from it.
        fix: SQL or a command that mends it.
    """

    severity: Severity
    code: str
    subject: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {self.message} Fix: {self.fix}"


class ExpectedTable(NamedTuple):
    """A table as it is meant to be.

    Attributes:
        schema: Its schema.
        table: Its name.
        kind: ``tenant`` rows, ``shared`` reference data, a table that is ``open`` to every tenant's writes too, or a
            ``control`` table of the SDK's own.
        raw: Whether a user's own SQL may reach it, for tenant tables.
        app: What the app role may do with the sealed tenant's rows, for control tables.
        adopted: It existed before: its keys need not begin with the tenant, which then only draws warnings.
        versioned: Whether it has the columns that are kept true under a user's own SQL, for tenant tables.
        searchable: Whether the words of some of its fields are kept.
        owner: How the owner's functions, which count, reach its rows, for control tables.
    """

    schema: str
    table: str
    kind: Kind
    raw: bool = True
    app: tuple[Privilege, ...] = ()
    adopted: bool = False
    versioned: bool = True
    searchable: bool = False
    owner: Reach | None = None

    @property
    def name(self) -> str:
        """The quoted name with its schema."""
        return table_name(self.schema, self.table)

    def statements(self, roles: Roles) -> list[str]:
        """Return what gives the table its policies and rights, anew or for the first time."""
        if self.kind in ("tenant", "shared"):
            return [*self._policies(roles), *self._searching()]
        if self.kind == "open":
            return open_table_policies(self.schema, self.table, roles)
        return control_table_policies(self.schema, self.table, roles, app=self.app, owner=self.owner)

    def _searching(self) -> list[str]:
        return search_trigger(self.schema, self.table, searchable=self.searchable)

    def _policies(self, roles: Roles) -> list[str]:
        if self.kind == "shared":
            return shared_table_policies(self.schema, self.table, roles)
        return tenant_table_policies(self.schema, self.table, roles, raw=self.raw, versioned=self.versioned)

    def defaults(self) -> list[str]:
        """Return what spares a user's own INSERT to name the tenant; the policy would refuse any other one anyway."""
        if self.kind != "tenant":
            return []
        column = f"ALTER COLUMN {TENANT_COLUMN} SET DEFAULT tenantry.current_tenant()"
        return [f"ALTER TABLE {self.name} {column}"]

    def fix(self, roles: Roles) -> str:
        """Return :meth:`statements` as one text."""
        return "; ".join(self.statements(roles))


def expected_table(table: sa.Table, collection: Collection) -> ExpectedTable:
    """Return how the table of a collection is meant to be."""
    if collection.scope == "tenant" and table.schema is not None:
        return ExpectedTable(table.schema, table.name, "control", app=collection.rights or ())
    searchable = bool(searchable_fields(collection))
    owner = _COUNTED_WITH.get(collection.name)
    return ExpectedTable(
        table.schema or "public", table.name, collection.scope, searchable=searchable, owner=owner
    )


def expected_words(table: sa.Table, collection: Collection) -> ExpectedTable:
    """Return how the table with the words of a collection is meant to be."""
    return ExpectedTable(table.schema or "public", table.name, collection.scope, versioned=False)


def expected_tables(tables: Tables) -> list[ExpectedTable]:
    """Return how all tables are meant to be, those referred to first."""
    return [
        (expected_words if tables.holds_words(table) else expected_table)(table, tables.collection_of(table))
        for table in tables.metadata.sorted_tables
    ]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise if one of ``findings`` is an error.

    Raises:
        UnsafeRole: It lists the errors and the command that mends most of them.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        listed = "".join(f"\n  - {error.subject}: {error.message}" for error in errors)
        raise UnsafeRole(
            f"This database would not keep tenants apart:{listed}\n",
            fix=f"Run: {INIT_COMMAND}; `tenantry doctor` shows the fix for each.",
        )
