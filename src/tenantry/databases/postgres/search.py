"""The words of searchable fields, kept by triggers: rows that a user's own SQL writes are found as well.

The functions follow :mod:`tenantry.words` to the letter. They run with the rights of whoever writes the row, under the
policies of the table of words like any other write, so they open nothing to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tenantry.databases._tables import word_table
from tenantry.databases.postgres.policies import Roles, quote, table_name
from tenantry.words import DROPPED, MAX_WORD, MAX_WORDS, SEPARATORS

SEARCH_TRIGGER: Final = "tenantry_search"
_BUILTIN_COLLATIONS: Final = 17


def search_functions(version: int) -> list[str]:
    """Return the statements that make the functions, to be run as the owner.

    Args:
        version: The server's major version.
    """
    parts = {
        "@collation@": "pg_c_utf8" if version >= _BUILTIN_COLLATIONS else "und-x-icu",
        "@dropped@": _class(DROPPED),
        "@separators@": _class(SEPARATORS),
        "@word@": str(MAX_WORD),
        "@words@": str(MAX_WORDS),
    }
    filled = []
    for text in (_WORDS, _LINE, _RANKS, _INDEX_ROW):
        for name, part in parts.items():
            text = text.replace(name, part)
        filled.append(text)
    return [*filled, f"REVOKE ALL ON FUNCTION {_NAMES} FROM PUBLIC"]


def search_rights(roles: Roles) -> str:
    """Return the statement that lets the roles that write rows keep their words."""
    return f"GRANT EXECUTE ON FUNCTION {_NAMES} TO {quote(roles.app)}, {quote(roles.raw)}, {quote(roles.control)}"


def search_trigger(schema: str | None, table: str, *, searchable: bool) -> list[str]:
    """Return the statements that keep the words of a table, or stop doing so."""
    name = table_name(schema, table)
    drop = f"DROP TRIGGER IF EXISTS {quote(SEARCH_TRIGGER)} ON {name}"
    if not searchable:
        return [drop]
    return [
        drop,
        f"CREATE TRIGGER {quote(SEARCH_TRIGGER)} AFTER INSERT OR UPDATE ON {name} FOR EACH ROW "
        f"EXECUTE FUNCTION tenantry.index_row()",
    ]


def fill_words(schema: str | None, table: str, fields: Sequence[str], *, tenant: bool = True) -> list[str]:
    """Return the statements that make a table's words anew, for who sees every row of it."""
    index = table_name(schema, word_table(table))
    keys = ["tenant_id", "id"] if tenant else ["id"]
    ranks = (
        f"COALESCE(max(r.rank) FILTER (WHERE r.place = {place}), 0)" for place, _ in enumerate(fields, 1)
    )
    return [
        f"DELETE FROM {index}",
        f"INSERT INTO {index} ({', '.join([*keys, 'term', *(quote(f'rank_{field}') for field in fields)])}) "
        f"SELECT {', '.join(f't.{key}' for key in keys)}, r.term, {', '.join(ranks)} "
        f"FROM {table_name(schema, table)} t, "
        f"tenantry.ranks(ARRAY[{', '.join(f't.{quote(field)}' for field in fields)}]) r "
        f"GROUP BY {', '.join(f't.{key}' for key in keys)}, r.term",
    ]


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    """Return ranges of characters as the inside of a bracket expression, for a literal with escapes."""
    return "".join(f"\\\\U{first:08x}-\\\\U{last:08x}" for first, last in ranges)


_NAMES: Final = "tenantry.words(text), tenantry.line(text), tenantry.ranks(text[]), tenantry.index_row()"

_WORDS: Final = """CREATE OR REPLACE FUNCTION tenantry.words(value text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $function$
  SELECT ARRAY(
    SELECT left(part.word, @word@)
    FROM unnest((string_to_array(btrim(regexp_replace(regexp_replace(translate(
      lower(normalize(COALESCE(value, ''), NFKD) COLLATE "@collation@") COLLATE "C", E'\\u03c2', E'\\u03c3'),
      E'[@dropped@]+', '', 'g'), E'[@separators@]+', ' ', 'g')), ' '))[1:@words@]) WITH ORDINALITY part(word, place)
    ORDER BY part.place)
$function$"""

_LINE: Final = """CREATE OR REPLACE FUNCTION tenantry.line(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $function$
  SELECT ' ' || array_to_string(tenantry.words(value), ' ') || ' '
$function$"""

# Materialised, or the server would cut the texts again for each use of their words.
_RANKS: Final = """CREATE OR REPLACE FUNCTION tenantry.ranks(
  texts text[]
) RETURNS TABLE (place int, term text, rank int) LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 20
SET search_path = pg_catalog, pg_temp AS $function$
  WITH cut AS MATERIALIZED (
    SELECT t.place::int, tenantry.words(t.value) AS words FROM unnest(texts) WITH ORDINALITY t(value, place)
  ), sized AS MATERIALIZED (
    SELECT c.place, c.words, cardinality(c.words) / 8 AS eighth FROM cut c
  )
  SELECT s.place, w.term, (2000 * count(*) / (count(*) + 1 + s.eighth))::int
  FROM sized s, unnest(s.words) w(term) GROUP BY s.place, s.eighth, w.term
$function$"""

# The columns of the table of words say which fields are searchable: what a migration makes of that table holds at once.
_INDEX_ROW: Final = """CREATE OR REPLACE FUNCTION tenantry.index_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  target text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_search');
  tenant bool;
  fields text[];
  ranks text;
  counted text;
  fresh jsonb := to_jsonb(NEW);
  stale jsonb;
  texts text[];
BEGIN
  SELECT bool_or(a.attname = 'tenant_id'),
    array_agg(substr(a.attname, 6) ORDER BY a.attnum) FILTER (WHERE a.attname ~ '^rank_')
  INTO tenant, fields FROM pg_attribute a
  WHERE a.attrelid = to_regclass(target) AND a.attnum > 0 AND NOT a.attisdropped;
  IF fields IS NULL THEN
    RETURN NULL;
  END IF;
  texts := ARRAY(SELECT fresh ->> a.field FROM unnest(fields) WITH ORDINALITY a(field, n) ORDER BY a.n);
  IF TG_OP = 'UPDATE' THEN
    stale := to_jsonb(OLD);
    IF texts = ARRAY(SELECT stale ->> a.field FROM unnest(fields) WITH ORDINALITY a(field, n) ORDER BY a.n) THEN
      RETURN NULL;
    END IF;
    EXECUTE format('DELETE FROM %s WHERE %s id = ($1).id', target,
      CASE WHEN tenant THEN 'tenant_id = ($1).tenant_id AND' ELSE '' END) USING OLD;
  END IF;
  SELECT string_agg(format('%I', 'rank_' || a.field), ', ' ORDER BY a.n),
    string_agg(format('COALESCE(max(r.rank) FILTER (WHERE r.place = %s), 0)', a.n), ', ' ORDER BY a.n)
  INTO ranks, counted FROM unnest(fields) WITH ORDINALITY a(field, n);
  EXECUTE format(
    'INSERT INTO %s (%s id, term, %s) SELECT %s ($1).id, r.term, %s FROM tenantry.ranks($2) r GROUP BY r.term',
    target, CASE WHEN tenant THEN 'tenant_id,' ELSE '' END, ranks,
    CASE WHEN tenant THEN '($1).tenant_id,' ELSE '' END, counted) USING NEW, texts;
  RETURN NULL;
END $function$"""
