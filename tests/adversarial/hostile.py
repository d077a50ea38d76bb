"""Hostile input, by hand and by Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NOT_TENANT_IDS: tuple[Any, ...] = (
    "",
    " ",
    "acme ",
    " acme",
    "acme\n",
    "acme\0",
    "\0",
    "acme|globex",
    "acme:globex",
    "acme/globex",
    "../globex",
    "/etc/passwd",
    ".",
    "..",
    "-acme",
    "_acme",
    "acme'; DROP TABLE customers; --",
    "' OR '1'='1",
    "acme' OR tenant_id <> 'acme",
    "$1",
    "%",
    "acme%",
    "*",
    "{acme}",
    "ａｃｍｅ",
    "acmé",
    "аcme",  # the first letter is Cyrillic
    "acme\u200b",
    "\u202eemca",
    "\ud800",
    "a" * 64,
    "a" * 10_000_000,
    "١٢٣",
    "v1|k|1|1|globex|00",
    None,
    0,
    True,
    b"acme",
    ["acme"],
    {"id": "acme"},
    object(),
)

SQL_TEXTS: tuple[str, ...] = (
    "' OR 1=1 --",
    "'; DELETE FROM customers; --",
    '" OR ""="',
    "\\'; SELECT set_config('tenantry.seal', '', false); --",
    "$$; SELECT 1; $$",
    "/* */ UNION SELECT * FROM customers",
    "globex",
    "tenant_id",
    "%s",
    "$1",
    ":tenant",
    "?",
    "{0}",
    "%(tenant)s",
    "\\",
    "%",
    "_",
    "\x00",
    "\ud800",
    "\uffff",
    "\U0010ffff",
    "a" * 5_000,
)

texts = st.one_of(st.sampled_from(SQL_TEXTS), st.text(max_size=40), st.text("%_\\'\"$;-", max_size=20))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.binary(max_size=20),
    st.decimals(),
    st.uuids(),
    st.datetimes(),
    st.dates(),
    st.just(10**400),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
FIELDS = (
    "id",
    "name",
    "email",
    "country_id",
    "notes",
    "tags",
    "version",
    "created_at",
    "tenant_id",
    "customer_id",
    "number",
    "total",
    "status",
    "memo",
    "value",
    "notes.memo",
    "notes.depth.list.0",
    "notes.0",
    "notes.",
    "notes.'",
    "notes.\x00",
    "name.x",
    "and",
    "or",
    "not",
    "__class__",
    "_field",
    "collection",
)
OPERATORS = (
    "eq",
    "ne",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "nin",
    "contains",
    "starts_with",
    "ends_with",
    "ilike",
    "is_null",
    "between",
    "has",
    "like",
    "and",
    "$gt",
    "=",
    "__eq__",
)
field_names = st.one_of(st.sampled_from(FIELDS), texts)
operators = st.one_of(st.sampled_from(OPERATORS), texts)
conditions = st.dictionaries(
    field_names, st.one_of(values, st.dictionaries(operators, values, max_size=2)), max_size=3
)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=4,
)
names_lists = st.one_of(st.lists(st.one_of(field_names, scalars), max_size=3), texts, scalars)
orders = st.one_of(
    st.lists(st.one_of(field_names, field_names.map(lambda name: f"-{name}"), scalars), max_size=3),
    field_names,
    scalars,
)
