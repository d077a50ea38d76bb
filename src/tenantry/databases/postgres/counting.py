"""Counting rows in the database itself, so that a quota holds whichever way a row comes.

Where plans limit rows or storage, each tenant table has three triggers, one for each kind of statement, that add what
the statement changed to ``tenantry.usage`` in the same transaction, and refuse what grows past the tenant's limit. They
run with the rights of the owner: no role of a tenant may read or write the counters, the limits, or the triggers.

**Waiting.** A tenant without a limit waits for nobody: its counter has a part for each backend. One with a limit takes
a lock of its own until the end of the transaction, but only where a statement makes it grow in what is limited. The
lock is an update of a row, so that a transaction of a stricter isolation level, whose sum would be that of an older
moment, fails with a serialisation error in place of counting wrongly.

**Bytes** are those of the row's text, by settings that are fixed here: neither compression nor the storage of long
values out of line changes them, so a row gives back what it took.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from tenantry.databases.postgres.policies import quote
from tenantry.databases.postgres.pool import TenantPool
from tenantry.errors import QuotaExceeded
from tenantry.plans.quotas import Count

SQLSTATE_QUOTA: Final = "TN002"
SETTINGS: Final = {
    "bytea_output": "hex",
    "datestyle": "iso",
    "extra_float_digits": "1",
    "intervalstyle": "postgres",
    "timezone": "UTC",
}
_TRIGGERS_OF: Final = {
    "insert": ("tenantry_count_insert", "NEW TABLE AS added"),
    "update": ("tenantry_count_update", "OLD TABLE AS removed NEW TABLE AS added"),
    "delete": ("tenantry_count_delete", "OLD TABLE AS removed"),
}
_LOCK: Final = 0x7465_6E61_6E75  # in ASCII, tenanu: recounts take turns
_COLUMNS: Final = "(id, version, created_at, updated_at, tenant, collection, row_count, byte_count)"
_PINNED: Final = " ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items())


def counting_functions() -> list[str]:
    """Return the statements that make the functions behind the triggers, to be run as the owner."""
    return [
        _CHARGE,
        _COUNT_ROWS,
        "REVOKE ALL ON FUNCTION tenantry.charge(text, text, int8, int8), tenantry.count_rows() FROM PUBLIC",
    ]


# The slot comes from the seal, of which a tenant's SQL may make anything: it only says which part is added to, and
# is kept to a few. A migration counts what it writes, and no limit stops it.
_CHARGE: Final = """CREATE OR REPLACE FUNCTION tenantry.charge(tenant text, collection text, more int8, bytes int8)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  plan text;
  allowed jsonb;
  names text[] := '{}';
  used int8;
  slot text := split_part(current_setting('tenantry.seal', true), '|', 4);
  name text;
BEGIN
  IF more > 0 OR bytes > 0 THEN
    SELECT t.plan, CASE WHEN p.id IS NOT NULL OR t.plan IS NULL OR NOT EXISTS (SELECT FROM tenantry.plans)
        THEN COALESCE(p.quotas, '{}') ELSE '{"rows": 0, "storage": 0}' END || t.quotas
      INTO plan, allowed
      FROM tenantry.tenants t LEFT JOIN tenantry.plans p ON p.id = t.plan WHERE t.id = tenant;
    names := array_remove(ARRAY[
      CASE WHEN more > 0 AND allowed ->> 'rows' IS NOT NULL THEN 'rows' END,
      CASE WHEN more > 0 AND allowed ->> ('rows:' || collection) IS NOT NULL THEN 'rows:' || collection END,
      CASE WHEN bytes > 0 AND allowed ->> 'storage' IS NOT NULL THEN 'storage' END], NULL);
    IF names <> '{}' AND pg_has_role(session_user, current_user, 'MEMBER') THEN
      names := '{}';
    END IF;
  END IF;
  IF names <> '{}' THEN
    INSERT INTO tenantry.usage AS u @columns@ VALUES
      (tenant, 1, clock_timestamp(), clock_timestamp(), tenant, '', 0, 0)
      ON CONFLICT (id) DO UPDATE SET version = u.version + 1;
    slot := '';
  END IF;
  slot := CASE WHEN slot ~ '^[0-9]{1,9}$' THEN (slot::int4 % 256)::text ELSE '' END;
  INSERT INTO tenantry.usage AS u @columns@ VALUES
    (tenant || '/' || collection || '/' || slot, 1, clock_timestamp(), clock_timestamp(), tenant, collection, more,
      bytes)
    ON CONFLICT (id) DO UPDATE SET row_count = u.row_count + excluded.row_count,
      byte_count = u.byte_count + excluded.byte_count;
  FOREACH name IN ARRAY names LOOP
    SELECT COALESCE(sum(CASE WHEN name = 'storage' THEN u.byte_count ELSE u.row_count END), 0) INTO used
      FROM tenantry.usage u
      WHERE u.tenant = charge.tenant AND (name IN ('rows', 'storage') OR u.collection = charge.collection);
    IF used > (allowed ->> name)::int8 THEN
      more := CASE WHEN name = 'storage' THEN bytes ELSE more END;
      RAISE EXCEPTION USING ERRCODE = '@sqlstate@', MESSAGE = 'tenantry: the quota ' || name || ' is used up.',
        DETAIL = jsonb_build_object('quota', name, 'used', used - more, 'limit', (allowed ->> name)::int8,
          'plan', plan, 'tenant_id', tenant, 'wanted', more)::text;
    END IF;
  END LOOP;
END $function$""".replace("@sqlstate@", SQLSTATE_QUOTA).replace("@columns@", _COLUMNS)

_COUNT_ROWS: Final = f"""CREATE OR REPLACE FUNCTION tenantry.count_rows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp {_PINNED} AS $function$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM tenantry.charge(c.tenant, TG_TABLE_NAME, c.n, c.b) FROM (
      SELECT a.tenant_id::text AS tenant, count(*) AS n, sum(octet_length(a::text)) AS b FROM added a GROUP BY 1) c
      WHERE c.tenant IS NOT NULL;
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM tenantry.charge(c.tenant, TG_TABLE_NAME, -c.n, -c.b) FROM (
      SELECT r.tenant_id::text AS tenant, count(*) AS n, sum(octet_length(r::text)) AS b FROM removed r GROUP BY 1) c
      WHERE c.tenant IS NOT NULL;
  ELSE
    PERFORM tenantry.charge(c.tenant, TG_TABLE_NAME, 0, c.b) FROM (
      SELECT tenant, sum(b)::int8 AS b FROM (
        SELECT a.tenant_id::text AS tenant, octet_length(a::text) AS b FROM added a
        UNION ALL SELECT r.tenant_id::text, -octet_length(r::text) FROM removed r) x
      GROUP BY 1) c WHERE c.b <> 0 AND c.tenant IS NOT NULL;
  END IF;
  RETURN NULL;
END $function$"""


async def begin_counting(owner: Any, table: str) -> None:
    """Make the triggers of a table, and count what it holds already; writers wait meanwhile.

    Args:
        owner: An asyncpg connection of the owner.
        table: A table of tenant rows, in the schema ``public``.
    """
    name = f"public.{quote(table)}"
    async with owner.transaction():
        # The owner is shown no row while row-level security is forced on it. Nobody else gets in before it is again.
        await owner.execute(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
        for verb, (trigger, tables) in _TRIGGERS_OF.items():
            await owner.execute(f"DROP TRIGGER IF EXISTS {trigger} ON {name}")
            await owner.execute(
                f"CREATE TRIGGER {trigger} AFTER {verb.upper()} ON {name} REFERENCING {tables} "
                "FOR EACH STATEMENT EXECUTE FUNCTION tenantry.count_rows()"
            )
        for setting, value in SETTINGS.items():
            await owner.execute("SELECT pg_catalog.set_config($1, $2, true)", setting, value)
        await owner.execute("DELETE FROM tenantry.usage WHERE collection = $1", table)
        await owner.execute(_BASE.format(table=name), table)
        await owner.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")


def quota_exceeded(detail: str | None) -> QuotaExceeded:
    """Return the error that the triggers' refusal stands for."""
    return QuotaExceeded(**json.loads(detail or "{}"))


async def counted(control: TenantPool, tenant_id: str) -> list[Count]:
    """Return what the counters say that a tenant has."""
    async with control.statement(None) as connection:
        rows = await connection.fetch(_COUNTED, tenant_id)
    return [Count(row["collection"], row["rows"], row["size"]) for row in rows]


async def true_counts(control: TenantPool, tenant_id: str, tables: Sequence[str]) -> list[Count]:
    """Count a tenant's rows themselves."""
    found = []
    async with control.transaction(None) as connection:
        for name, value in SETTINGS.items():
            await connection.execute("SELECT pg_catalog.set_config($1, $2, true)", name, value)
        for table in tables:
            row = await connection.fetchrow(_TRUTH.format(table=f"public.{quote(table)}"), tenant_id)
            assert row is not None
            found.append(Count(table, row["n"], row["b"]))
    return found


async def recount(control: TenantPool, tenant_id: str, tables: Sequence[str]) -> list[Count]:
    """Count a tenant's rows and mend the counters. Return by how much each was wrong.

    A statement sees rows and counters as of one moment, and every transaction changes both or none: so what they
    differ by is what is wrong, and adding it needs no lock that a writer would wait for.
    """
    found = []
    async with control.transaction(None) as connection:
        await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", _LOCK)
        for name, value in SETTINGS.items():
            await connection.execute("SELECT pg_catalog.set_config($1, $2, true)", name, value)
        for table in tables:
            row = await connection.fetchrow(_DRIFT.format(table=f"public.{quote(table)}"), tenant_id, table)
            assert row is not None
            if row["rows"] or row["size"]:
                await connection.execute(_MEND, tenant_id, table, row["rows"], row["size"])
                found.append(Count(table, row["rows"], row["size"]))
    return found


async def uncounted(control: TenantPool, tables: Sequence[str]) -> list[str]:
    """Return the tables that lack one of the triggers, or have it switched off."""
    async with control.statement(None) as connection:
        return await uncounted_tables(connection, tables)


async def uncounted_tables(connection: Any, tables: Sequence[str]) -> list[str]:
    """Return the same, asked by any role."""
    names = [name for name, _ in _TRIGGERS_OF.values()]
    rows = await connection.fetch(_TRIGGERS, list(tables), names)
    return sorted(set(tables) - {row["table"] for row in rows})


_TRIGGERS: Final = """SELECT c.relname AS table
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = ANY ($1) AND t.tgname = ANY ($2)
  AND t.tgenabled IN ('O', 'A') AND t.tgfoid = 'tenantry.count_rows'::pg_catalog.regproc
GROUP BY 1 HAVING count(*) = pg_catalog.cardinality($2::text[])"""
_BASE: Final = f"""INSERT INTO tenantry.usage {_COLUMNS}
SELECT t.tenant_id::text || '/' || $1::text || '/', 1, clock_timestamp(), clock_timestamp(), t.tenant_id::text,
  $1::text, count(*), sum(pg_catalog.octet_length(t::text))
FROM {{table}} t WHERE t.tenant_id IS NOT NULL GROUP BY t.tenant_id"""
_COUNTED: Final = """SELECT collection, sum(row_count)::int8 AS rows, sum(byte_count)::int8 AS size
FROM tenantry.usage WHERE tenant = $1 AND collection <> '' GROUP BY collection ORDER BY collection"""
_TRUTH: Final = """SELECT count(*) AS n, COALESCE(sum(pg_catalog.octet_length(t::text)), 0)::int8 AS b
  FROM {table} t WHERE t.tenant_id::text = $1::text"""
_DRIFT: Final = f"""WITH truth AS (
  {_TRUTH}
), known AS (
  SELECT COALESCE(sum(row_count), 0)::int8 AS n, COALESCE(sum(byte_count), 0)::int8 AS b
  FROM tenantry.usage WHERE tenant = $1 AND collection = $2
)
SELECT truth.n - known.n AS rows, truth.b - known.b AS size FROM truth, known"""
_MEND: Final = f"""INSERT INTO tenantry.usage AS u {_COLUMNS} VALUES
  ($1::text || '/' || $2::text || '/', 1, clock_timestamp(), clock_timestamp(), $1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET row_count = u.row_count + excluded.row_count,
  byte_count = u.byte_count + excluded.byte_count"""
