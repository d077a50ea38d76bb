"""Everything the catalogs say of a database's tables, as lines of text that two databases can be compared by."""

from __future__ import annotations

from typing import Any

import asyncpg

from tests.alembic.conftest import Project

_QUERIES = {
    "columns": """
        SELECT c.oid::regclass, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation,
          a.attnotnull, pg_get_expr(d.adbin, d.adrelid), COALESCE(a.attacl::text[], '{{}}')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE {here} AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped""",
    "tables": """
        SELECT c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity, c.relacl::text[], c.reloptions,
          pg_get_userbyid(c.relowner)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {here} AND c.relkind = 'r'""",
    "constraints": """
        SELECT c.oid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {here} AND k.contype <> 'n'""",
    "indexes": """
        SELECT pg_get_indexdef(i.indexrelid), i.indisvalid
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {here}""",
    "policies": """
        SELECT c.oid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[]::text[],
          pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid)
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {here}""",
    "triggers": """
        SELECT pg_get_triggerdef(t.oid), t.tgenabled
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {here} AND NOT t.tgisinternal""",
    "functions": """
        SELECT p.oid::regprocedure, md5(p.prosrc), p.proacl::text[]
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'tenantry'""",
}
_HERE = "n.nspname IN ('public', 'tenantry') AND c.relname <> 'alembic_version'"


async def dump(project: Project, *, order: bool = True) -> dict[str, list[str]]:
    """Return what is there, without the names of this deployment's roles.

    Args:
        project: Where.
        order: Whether the order of columns counts.
    """
    connection = await asyncpg.connect(project.admin_url)
    try:
        found = {name: await connection.fetch(query.format(here=_HERE)) for name, query in _QUERIES.items()}
        prefix = await connection.fetchval(
            "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'tenantry'"
        )
    finally:
        await connection.close()
    mine = prefix.removesuffix("_owner")
    return {name: sorted(_line(name, row, mine, order=order) for row in rows) for name, rows in found.items()}


def _line(query: str, row: Any, prefix: str, *, order: bool) -> str:
    values = list(row)
    if query == "columns" and not order:
        del values[1]
    if query == "tables":
        values[3] = sorted(values[3] or [])
    if query == "functions":
        del values[1]  # holds the installation's number
    return str(values).replace(prefix, "PREFIX")
