"""What an existing database holds, as the catalogs tell it: tables, columns, keys, references, views."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tenantry.databases.postgres.policies import TENANT_COLUMN, table_name

OLDEST: Final = 150_000
"""The oldest server that views with ``security_invoker`` can be made safe on, as ``server_version_num``."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: Its name.
        type: Its type, in the server's own words.
        nullable: Whether it may be NULL.
    """

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference from one table to another.

    Attributes:
        name: The constraint's name.
        columns: The columns that refer.
        target: The full name of the table referred to, such as ``public.orders``.
        references: The columns referred to, in the order of ``columns``.
        nullable: Whether one of ``columns`` may be NULL.
    """

    name: str
    columns: tuple[str, ...]
    target: str
    references: tuple[str, ...]
    nullable: bool


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A unique constraint, or a unique index that no constraint stands behind.

    Attributes:
        name: The name of the constraint or index.
        columns: Its columns; empty for an index over expressions.
        constraint: Whether it is a constraint.
        definition: As the server prints it.
        referred_to: Whether a foreign key relies on it, so that it cannot be dropped.
    """

    name: str
    columns: tuple[str, ...]
    constraint: bool
    definition: str
    referred_to: bool


@dataclass(slots=True)
class Table:
    """A table.

    Attributes:
        schema: Its schema.
        name: Its name.
        oid: Its number.
        owner: The role that owns it.
        rows: About how many rows it has, by the server's statistics; -1 where there are none.
        size: Bytes, indexes included.
        columns: Its columns by name.
        key: The columns of the primary key; empty without one.
        foreign_keys: Its references.
        unique: Its unique constraints and indexes, without the primary key.
        partitioned: Whether it is a partitioned table.
        leaves: The tables that hold its rows: itself, or its partitions down to the last.
        parts: All partitions below it, those in between too.
        sequences: The sequences of its columns, without those of identity columns, which need no right.
        writers: The roles that may insert, ``PUBLIC`` as an empty text.
        readers: Every role that was granted something on it.
        adopted: Whether tenantry's policies are on it already.
        user_triggers: The application's own triggers that fire on UPDATE.
        public: What PUBLIC may do with it.
        secured: Whether row-level security is on already, by somebody else.
        inherits: Whether it takes part in inheritance other than partitioning.
    """

    schema: str
    name: str
    oid: int
    owner: str
    rows: int
    size: int
    partitioned: bool
    adopted: bool
    inherits: bool
    secured: bool
    columns: dict[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    unique: list[UniqueKey] = field(default_factory=list)
    leaves: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    user_triggers: tuple[str, ...] = ()
    public: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """The name as plans write it, such as ``public.orders``."""
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """The quoted name."""
        return table_name(self.schema, self.name)

    def is_unique(self, columns: Iterable[str]) -> bool:
        """Whether at most one row has given values in ``columns``."""
        wanted = set(columns)
        return wanted == set(self.key) or any(set(key.columns) == wanted for key in self.unique)


@dataclass(frozen=True, slots=True)
class View:
    """A view.

    Attributes:
        schema: Its schema.
        name: Its name.
        materialized: Whether its rows are stored.
        invoker: Whether it reads with the rights of whoever asks.
        tables: The full names of the tables below it, at any depth.
        public: What PUBLIC may do with it.
    """

    schema: str
    name: str
    materialized: bool
    invoker: bool
    tables: frozenset[str]
    public: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """The name as plans write it."""
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """The quoted name."""
        return table_name(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Schema:
    """What the database holds beside the system's and tenantry's own.

    Attributes:
        tables: By full name, partitions left out.
        views: All views.
    """

    tables: Mapping[str, Table]
    views: tuple[View, ...]


async def reflect(connection: Any) -> Schema:
    """Read the catalogs, in one snapshot. It locks nothing and reads no row of the application.

    Args:
        connection: An asyncpg connection of any role.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(_TABLES)
        tables = {row["oid"]: _table(row) for row in rows}
        oids = list(tables)
        for row in await connection.fetch(_COLUMNS, oids):
            column = Column(row["name"], row["type"], row["nullable"])
            tables[row["oid"]].columns[column.name] = column
        for row in await connection.fetch(_FOREIGN_KEYS, oids):
            _refer(tables, row)
        for row in await connection.fetch(_UNIQUE, oids):
            _key(tables[row["oid"]], row)
        views = _views(await connection.fetch(_VIEWS, oids), tables)
    return Schema({table.full: table for table in tables.values()}, views)


def _table(row: Any) -> Table:
    return Table(
        schema=row["schema"],
        name=row["name"],
        oid=row["oid"],
        owner=row["owner"],
        rows=row["rows"],
        size=row["size"],
        partitioned=row["partitioned"],
        adopted=row["adopted"],
        inherits=row["inherits"],
        secured=row["secured"],
        leaves=tuple(row["leaves"]) or (table_name(row["schema"], row["name"]),),
        parts=tuple(row["parts"]),
        sequences=tuple(row["sequences"]),
        writers=tuple(row["writers"]),
        readers=tuple(row["readers"]),
        user_triggers=tuple(row["user_triggers"]),
        public=tuple(row["public"]),
    )


def _refer(tables: Mapping[int, Table], row: Any) -> None:
    target = tables.get(row["target"])
    if target is None:
        return
    table, columns = tables[row["oid"]], tuple(row["columns"])
    nullable = any(table.columns[name].nullable for name in columns)
    table.foreign_keys.append(
        ForeignKey(row["name"], columns, target.full, tuple(row["references"]), nullable)
    )


def _key(table: Table, row: Any) -> None:
    columns = tuple(row["columns"] or ())
    if row["is_primary"]:
        table.key = columns
    else:
        table.unique.append(
            UniqueKey(row["name"], columns, row["constraint"], row["definition"], row["referred_to"])
        )


def _views(rows: Iterable[Any], tables: Mapping[int, Table]) -> tuple[View, ...]:
    below: defaultdict[int, set[str]] = defaultdict(set)
    found = {}
    for row in rows:
        found[row["oid"]] = row
        below[row["oid"]].add(tables[row["base"]].full)
    return tuple(
        View(
            row["schema"],
            row["name"],
            row["materialized"],
            row["invoker"],
            frozenset(below[oid]),
            tuple(row["public"]),
        )
        for oid, row in found.items()
    )


_PUBLIC: Final = """ARRAY(SELECT x.privilege_type::text FROM aclexplode({0}.relacl) x
    WHERE x.grantee = 0 ORDER BY 1) AS public"""

_TABLES: Final = f"""
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
  c.reltuples::int8 AS rows, c.relkind = 'p' AS partitioned, c.relrowsecurity AS secured, {_PUBLIC.format("c")},
  (SELECT COALESCE(sum(pg_total_relation_size(t.relid)), 0)::int8 FROM pg_partition_tree(c.oid) t)
    + CASE WHEN c.relkind = 'r' THEN pg_total_relation_size(c.oid) ELSE 0 END AS size,
  EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname LIKE 'tenantry\\_%')
    AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = '{TENANT_COLUMN}') AS adopted,
  EXISTS (SELECT FROM pg_inherits i WHERE (i.inhrelid = c.oid AND NOT c.relispartition)
    OR (i.inhparent = c.oid AND c.relkind = 'r')) AS inherits,
  ARRAY(SELECT format('%I.%I', ln.nspname, l.relname) FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid
    JOIN pg_namespace ln ON ln.oid = l.relnamespace WHERE t.isleaf AND l.relkind = 'r' ORDER BY 1) AS leaves,
  ARRAY(SELECT format('%I.%I', ln.nspname, l.relname) FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid
    JOIN pg_namespace ln ON ln.oid = l.relnamespace WHERE l.oid <> c.oid ORDER BY t.level, 1) AS parts,
  ARRAY(SELECT DISTINCT format('%I.%I', sn.nspname, s.relname) FROM pg_attrdef d
    JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid AND e.refclassid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = e.refobjid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
    WHERE d.adrelid = c.oid) AS sequences,
  ARRAY(SELECT DISTINCT COALESCE(r.rolname::text, '')
    FROM aclexplode(COALESCE(c.relacl, acldefault('r', c.relowner))) x
    LEFT JOIN pg_roles r ON r.oid = x.grantee WHERE x.privilege_type = 'INSERT' ORDER BY 1) AS writers,
  ARRAY(SELECT DISTINCT COALESCE(r.rolname::text, '')
    FROM aclexplode(COALESCE(c.relacl, acldefault('r', c.relowner))) x
    LEFT JOIN pg_roles r ON r.oid = x.grantee ORDER BY 1) AS readers,
  ARRAY(SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
    AND t.tgtype & 16 <> 0 AND t.tgenabled IN ('O', 'A') AND t.tgname NOT LIKE '%tenantry\\_%'
    ORDER BY 1) AS user_triggers
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenantry') AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2, 3"""

_COLUMNS: Final = """
SELECT a.attrelid AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable
FROM pg_attribute a WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum"""

_FOREIGN_KEYS: Final = """
SELECT k.conname AS name, k.conrelid AS oid, k.confrelid AS target,
  ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, i)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.i) AS columns,
  ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, i)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.i) AS references
FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY($1::oid[]) AND k.conparentid = 0
ORDER BY k.conrelid, (SELECT min(num) FROM unnest(k.conkey) num), 1"""

_UNIQUE: Final = """
SELECT i.indrelid AS oid, c.relname AS name, i.indisprimary AS is_primary, k.oid IS NOT NULL AS constraint,
  COALESCE(pg_get_constraintdef(k.oid), pg_get_indexdef(i.indexrelid)) AS definition,
  CASE WHEN i.indexprs IS NULL AND i.indpred IS NULL THEN
    ARRAY(SELECT a.attname::text FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY u(num, p)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num ORDER BY u.p) END AS columns,
  EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = i.indexrelid) AS referred_to
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u') AND k.conrelid = i.indrelid
WHERE i.indisunique AND i.indrelid = ANY($1::oid[]) ORDER BY 1, 2"""

_VIEWS: Final = f"""
WITH RECURSIVE above AS (
  SELECT base AS oid, base FROM unnest($1::oid[]) base
  UNION
  SELECT w.ev_class, above.base FROM above
  JOIN pg_depend d ON d.refobjid = above.oid AND d.refclassid = 'pg_class'::regclass
    AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite w ON w.oid = d.objid
)
SELECT DISTINCT v.oid, {_PUBLIC.format("v")}, n.nspname AS schema, v.relname AS name,
  v.relkind = 'm' AS materialized, above.base, COALESCE(v.reloptions, ARRAY[]::text[]) && ARRAY[
    'security_invoker=true', 'security_invoker=on', 'security_invoker=1'] AS invoker
FROM above JOIN pg_class v ON v.oid = above.oid JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE v.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2, 3"""
