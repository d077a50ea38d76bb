"""Which of a project's tables are tenants', and the SQL that makes them so.

Adopted key mode: ``id`` alone stays the key, and models know nothing of the column ``tenant_id``, which the database
fills in. Beyond it, each table gets

- its unique constraints and unique indexes anew, with the tenant first, so that two tenants may have the same name;
- ``UNIQUE (tenant_id, id)``, which is the index that the policies use, and what references rest on;
- beside each foreign key to a tenant's table one over ``(tenant_id, …)``: rows of two tenants cannot be linked;
- row-level security, forced, with the policies of :mod:`tenantry.databases.postgres.policies`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from django.apps import apps
from django.db import router

from tenantry.databases.postgres.policies import (
    ALL_PRIVILEGES,
    TENANT_COLUMN,
    Roles,
    quote,
    shared_table_policies,
    table_name,
    tenant_table_policies,
)
from tenantry.django.options import ALWAYS_SHARED, Options
from tenantry.errors import ConfigurationError, SchemaError

Kind = Literal["tenant", "shared", "open", "unmanaged"]
SCHEMA = "public"
_MIGRATIONS = "django_migrations"

_LAST = re.compile(r"^UNIQUE(?P<nulls> NULLS NOT DISTINCT)? \(")
_COLUMN = f"""SELECT EXISTS (SELECT FROM pg_attribute
WHERE attrelid = %s::regclass AND attname = '{TENANT_COLUMN}' AND NOT attisdropped)"""
_HAS_ROWS = "SELECT EXISTS (SELECT FROM {table})"
# Those without the tenant. One that a foreign key rests on has to stay as it is.
_UNIQUE = f"""SELECT c.relname, k.conname, pg_get_constraintdef(k.oid), pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'u'
WHERE i.indrelid = %s::regclass AND i.indisunique AND NOT i.indisprimary
  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    AND a.attname = '{TENANT_COLUMN}')
  AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.conindid = i.indexrelid AND f.contype = 'f')
ORDER BY c.relname"""
_KEY = """SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i,
  unnest(i.indkey) WITH ORDINALITY AS k (number, place), pg_attribute a
WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.number"""
_REFERENCES = """SELECT f.conname, a.attname, f.confrelid::regclass::text, t.relname, b.attname
FROM pg_constraint f JOIN pg_class t ON t.oid = f.confrelid
JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = f.confkey[1]
WHERE f.conrelid = %s::regclass AND f.contype = 'f' AND cardinality(f.conkey) = 1 ORDER BY f.conname"""
_CONSTRAINT = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = %s::regclass AND conname = %s)"
_SEQUENCES = """SELECT s.oid::regclass::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE d.refobjid = %s::regclass AND d.deptype = 'a' AND d.refobjsubid > 0"""


class Table(NamedTuple):
    """One table of a project.

    Attributes:
        name: Its name.
        kind: Whose its rows are.
        label: The model, such as ``auth.user``.
    """

    name: str
    kind: Kind
    label: str


def tables_of(project: Options, alias: str) -> list[Table]:
    """Return every table that the project's models and its migrations have in one database.

    Raises:
        ConfigurationError: A label in ``SHARED`` or ``OPEN`` is of no model.
    """
    found: dict[str, Table] = {}
    models = apps.get_models(include_auto_created=True)
    labels = {model._meta.label_lower for model in models}
    unknown = sorted((project.shared | project.open) - ALWAYS_SHARED - labels)
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} is no model.", field="TENANTRY", fix='Write it like "auth.user".'
        )
    for model in models:
        meta = model._meta
        if meta.proxy or meta.swapped or not router.allow_migrate_model(alias, model):
            continue
        owner = meta.auto_created or model  # the table of links belongs to the model that declares them
        kind: Kind = _kind(owner._meta.label_lower, project) if meta.managed else "unmanaged"
        found.setdefault(meta.db_table, Table(meta.db_table, kind, meta.label_lower))
    found[_MIGRATIONS] = Table(_MIGRATIONS, "shared", "migrations")
    return sorted(found.values())


def _kind(label: str, project: Options) -> Kind:
    if label in project.open:
        return "open"
    return "shared" if label in project.shared else "tenant"


def isolate(connection: Any, tables: list[Table], roles: Roles) -> None:
    """Make the tables of tenants tenants', and give the roles their rights. Done again, it does what is missing.

    Args:
        connection: Logged in as the tables' owner, in a transaction.
        tables: All tables of the project.
        roles: The names of the roles.

    Raises:
        SchemaError: A table has rows already, or no key.
    """
    tenants = [table for table in tables if table.kind == "tenant"]
    with connection.cursor() as cursor:
        for table in tenants:
            _add_tenant(cursor, table)
        for table in tenants:
            _add_references(cursor, table, {item.name for item in tenants})
        for table in tables:
            for statement in _policies(cursor, table, roles):
                cursor.execute(statement)


def _add_tenant(cursor: Any, table: Table) -> None:
    name = table_name(SCHEMA, table.name)
    if not _one(cursor, _COLUMN, name):
        if _one(cursor, _HAS_ROWS.format(table=name)):
            raise SchemaError(
                f"{table.name} has rows, and this cannot know whose they are.",
                field=table.label,
                fix="Adopt it with `tenantry adopt`, or add its model to TENANTRY.SHARED.",
            )
        cursor.execute(
            f"ALTER TABLE {name} ADD COLUMN {TENANT_COLUMN} text NOT NULL DEFAULT tenantry.current_tenant()"
        )
    for statement in _scoped(_all(cursor, _UNIQUE, name), name):
        cursor.execute(statement)
    key = _one(cursor, _KEY, name)
    if not key:
        raise SchemaError(f"{table.name} has no primary key.", field=table.label, fix="Give its model one.")
    constraint = _derived("key", table.name)
    if not _one(cursor, _CONSTRAINT, name, constraint):
        columns = ", ".join(map(quote, [TENANT_COLUMN, *key]))
        cursor.execute(f"ALTER TABLE {name} ADD CONSTRAINT {constraint} UNIQUE ({columns})")


def _scoped(found: list[Any], name: str) -> Iterator[str]:
    """Yield what makes unique constraints and indexes hold within a tenant; their names stay."""
    for index, constraint, definition, indexed in found:
        if constraint is None:
            yield f"DROP INDEX {table_name(SCHEMA, index)}"
            yield indexed.replace(" (", f" ({TENANT_COLUMN}, ", 1)
        else:
            scoped = _LAST.sub(rf"UNIQUE\g<nulls> ({TENANT_COLUMN}, ", definition)
            dropped = f"DROP CONSTRAINT {quote(constraint)}"
            yield f"ALTER TABLE {name} {dropped}, ADD CONSTRAINT {quote(constraint)} {scoped}"


def _add_references(cursor: Any, table: Table, tenants: set[str]) -> None:
    name = table_name(SCHEMA, table.name)
    for reference, column, target, target_name, target_column in _all(cursor, _REFERENCES, name):
        constraint = _derived("ref", reference)
        if target_name not in tenants or _one(cursor, _CONSTRAINT, name, constraint):
            continue
        if _one(cursor, _KEY, target) != [target_column]:
            continue  # to a unique column: what is unique over all tenants says whose it is
        cursor.execute(
            f"ALTER TABLE {name} ADD CONSTRAINT {constraint} FOREIGN KEY ({TENANT_COLUMN}, {quote(column)}) "
            f"REFERENCES {target} ({TENANT_COLUMN}, {quote(target_column)}) DEFERRABLE INITIALLY DEFERRED"
        )


def _policies(cursor: Any, table: Table, roles: Roles) -> list[str]:
    if table.kind == "unmanaged":
        return []
    if table.kind == "shared":
        return shared_table_policies(SCHEMA, table.name, roles)
    name = table_name(SCHEMA, table.name)
    names = f"{quote(roles.app)}, {quote(roles.raw)}"
    sequences = [f"GRANT USAGE ON SEQUENCE {item[0]} TO {names}" for item in _all(cursor, _SEQUENCES, name)]
    if table.kind == "open":
        everything = f"GRANT {', '.join(ALL_PRIVILEGES)} ON TABLE {name} TO {names}, {quote(roles.control)}"
        return [everything, *sequences]
    return [*tenant_table_policies(SCHEMA, table.name, roles, versioned=False), *sequences]


def _derived(what: str, name: str) -> str:
    """Return a name that is short enough, whatever the other's length."""
    return f"tenantry_{what}_{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _one(cursor: Any, query: str, *arguments: str) -> Any:
    cursor.execute(query, arguments or None)
    return cursor.fetchone()[0]


def _all(cursor: Any, query: str, *arguments: str) -> list[Any]:
    cursor.execute(query, arguments)
    return list(cursor.fetchall())
