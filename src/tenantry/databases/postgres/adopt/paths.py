"""How a row finds its tenant, as SQL."""

from __future__ import annotations

from typing import Final

from tenantry.databases.postgres.adopt.plan import Plan, TablePlan
from tenantry.databases.postgres.adopt.schema import ForeignKey
from tenantry.databases.postgres.policies import TENANT_COLUMN, quote, quote_literal, table_name

ROW: Final = "row"
"""What a row's own table is called in an expression of the plan."""


def sql_name(full: str) -> str:
    """Return the quoted name of a table that plans write as ``schema.table``."""
    schema, _, name = full.partition(".")
    return table_name(schema, name)


class Paths:
    """The expressions that lead from a row to its tenant's id.

    Args:
        plan: The plan.
        adopted: Whether the tables have their column ``tenant_id`` already. A path then ends at the first row above
            that has a tenant: an id stays when the key that it was made from changes, such as a slug, and a row stays
            with the tenant of its parent when that loses its own.
    """

    def __init__(self, plan: Plan, *, adopted: bool) -> None:
        self._plan = plan
        self._adopted = adopted

    def tenant(self, table: TablePlan, row: str) -> str:
        """Return the expression for the tenant of ``row``, an alias of the table or a trigger's ``NEW``."""
        return self._or_fallback(table, self._found(table, row, 0))

    def found(self, table: TablePlan, row: str) -> str:
        """Return the expression for the tenant that the path of ``row`` gives; NULL where it leads nowhere."""
        return self._found(table, row, 0)

    def kept(self, table: TablePlan, row: str) -> str:
        """Return the same, but a row whose path leads nowhere keeps the tenant that it has."""
        return self._or_fallback(table, f"COALESCE({self._found(table, row, 0)}, {row}.{TENANT_COLUMN})")

    def through(self, key: ForeignKey, row: str) -> str:
        """Return the expression for the tenant of the row that a foreign key of ``row`` refers to."""
        return self._above(self._plan.tables[key.target], key.columns, key.references, row, 0)

    def _found(self, table: TablePlan, row: str, depth: int) -> str:
        if table.kind == "root":
            return f"{row}.{quote(self._plan.key)}::text"
        if table.sql is not None:
            return f"({table.sql.replace('{row}', row)})"
        parent = self._plan.tables[str(table.parent)]
        return self._above(parent, table.by, table.references, row, depth)

    def _above(
        self, parent: TablePlan, by: tuple[str, ...], references: tuple[str, ...], row: str, depth: int
    ) -> str:
        alias = f"p{depth}"
        inner = self._or_fallback(parent, self._found(parent, alias, depth + 1))
        if self._adopted:
            inner = f"COALESCE({alias}.{TENANT_COLUMN}, {inner})"
        match = " AND ".join(
            f"{alias}.{quote(there)} = {row}.{quote(here)}"
            for here, there in zip(by, references, strict=True)
        )
        return f"(SELECT {inner} FROM {sql_name(parent.table)} {alias} WHERE {match})"

    def _or_fallback(self, table: TablePlan, found: str) -> str:
        return found if table.fallback is None else f"COALESCE({found}, {quote_literal(table.fallback)})"
