"""What ``manage.py isolate`` makes of a project's tables holds against whoever writes SQL in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connections

from tenantry.django import tenant
from tenantry.django.options import options
from tenantry.django.tables import tables_of
from tenantry.errors import ConfigurationError
from tests.django.conftest import TENANTS, Site, project

KINDS = {
    "auth_group": "tenant",
    "auth_group_permissions": "tenant",
    "auth_permission": "shared",
    "auth_user": "tenant",
    "auth_user_groups": "tenant",
    "auth_user_user_permissions": "tenant",
    "django_admin_log": "tenant",
    "django_content_type": "shared",
    "django_migrations": "shared",
    "django_session": "tenant",
    "django_shop_category": "tenant",
    "django_shop_line": "tenant",
    "django_shop_order": "tenant",
    "django_shop_product": "tenant",
    "django_shop_product_tags": "tenant",
    "django_shop_tag": "tenant",
}


@pytest.fixture
def judge(site: Site) -> Iterator[psycopg.Connection]:
    with psycopg.connect(site.admin_url, autocommit=True) as connection:
        yield connection


def run(statement: str, *arguments: Any) -> list[Any]:
    with connections["default"].cursor() as cursor:
        cursor.execute(statement, arguments or None)
        return list(cursor.fetchall()) if cursor.description else []


def test_each_table_is_of_one_kind(site: Site) -> None:
    assert {table.name: table.kind for table in tables_of(options(), "default")} == KINDS


@pytest.mark.parametrize("table", [name for name, kind in KINDS.items() if kind == "tenant"])
def test_a_table_of_tenants_is_held_by_the_database(
    site: Site, judge: psycopg.Connection, table: str
) -> None:
    row = judge.execute(
        "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = %s", (table,)
    ).fetchone()
    assert row == (True, True)
    assert run(f"SELECT count(*) FROM {table}") == [(0,)]
    for name in TENANTS:
        with tenant(name):
            expected = judge.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", (name,)).fetchone()
            assert run(f"SELECT count(*), count(*) FILTER (WHERE tenant_id <> '{name}') FROM {table}") == [
                ((expected or (None,))[0], 0)
            ]


@pytest.mark.parametrize("table", ["auth_permission", "django_content_type", "django_migrations"])
def test_what_is_shared_is_written_by_no_tenant(site: Site, table: str) -> None:
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET id = 0", f"TRUNCATE {table}"):
        with pytest.raises(Exception, match="permission denied"), tenant("acme"):
            run(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE django_shop_category SET tenant_id = 'globex'",
        "INSERT INTO django_shop_category (name, tenant_id) VALUES ('planted', 'globex')",
        "TRUNCATE django_shop_category CASCADE",
        "ALTER TABLE django_shop_category DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenantry_raw ON django_shop_category",
        "SET ROLE postgres",
        "SELECT * FROM tenantry.tenants",
    ],
)
def test_sql_of_a_tenant_reaches_nothing_else(site: Site, judge: psycopg.Connection, statement: str) -> None:
    before = judge.execute("SELECT tenant_id, id, name FROM django_shop_category ORDER BY id").fetchall()
    with pytest.raises(Exception, match=r"denied|policy|never changes|must be owner"), tenant("acme"):
        run(statement)
    assert (
        judge.execute("SELECT tenant_id, id, name FROM django_shop_category ORDER BY id").fetchall() == before
    )


def test_rows_of_two_tenants_cannot_be_linked(site: Site) -> None:
    from django.db import IntegrityError

    from examples.django_shop.models import Category, Product

    with tenant("globex"):
        theirs = Category.objects.get(name="the same").pk
    with pytest.raises(IntegrityError, match="tenantry_ref_"), tenant("acme"):
        Product.objects.create(name="x", sku="x", price=1, category_id=theirs)


def test_what_is_unique_is_so_within_a_tenant(site: Site) -> None:
    from django.db import IntegrityError

    from examples.django_shop.models import Category

    with pytest.raises(IntegrityError), tenant("acme"):
        Category.objects.create(name="the same")
    with tenant("acme"):
        Category.objects.create(name="globex lamps")
    with tenant("globex"):
        assert Category.objects.filter(name="globex lamps").count() == 1


def test_times_are_read_in_the_zone_of_django(site: Site, judge: psycopg.Connection) -> None:
    from examples.django_shop.models import Order

    role = connections["default"].settings_dict["USER"]
    judge.execute(f"ALTER ROLE {role} SET TimeZone = 'Asia/Tokyo'")
    try:
        connections["default"].close()
        with tenant("acme"):
            order = Order.objects.create(customer="carl")
            placed = order.placed
        with tenant("acme"):
            assert Order.objects.get(pk=order.pk).placed == placed
            assert run("SELECT now() - placed < interval '10 minutes' FROM django_shop_order") == [(True,)]
        assert run("SHOW TimeZone") == [("UTC",)]
    finally:
        judge.execute(f"ALTER ROLE {role} RESET TimeZone")


def test_it_may_be_run_again(site: Site, judge: psycopg.Connection) -> None:
    def shape() -> Any:
        return judge.execute(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
        ).fetchall()

    before = shape()
    call_command("isolate", verbosity=0)
    assert shape() == before


def test_a_table_with_rows_is_left_to_adoption(site: Site, judge: psycopg.Connection) -> None:
    judge.execute("CREATE TABLE old (id int PRIMARY KEY); INSERT INTO old VALUES (1)")
    judge.execute(f"ALTER TABLE old OWNER TO {connections['owner'].settings_dict['USER']}")
    table = apps.get_model("django_shop", "tag")._meta
    before, table.db_table = table.db_table, "old"
    try:
        with pytest.raises(CommandError, match="tenantry adopt"):
            call_command("isolate", verbosity=0)
    finally:
        table.db_table = before
        judge.execute("DROP TABLE old")


def test_indexes_and_constraints_keep_what_they_say(migrated: Site) -> None:
    table = apps.get_model("django_shop", "tag")._meta
    before, table.db_table = table.db_table, "odd"
    try:
        with project(migrated), psycopg.connect(migrated.admin_url, autocommit=True) as judge:
            indexes, constraint = isolated_odd(judge)
    finally:
        table.db_table = before
    assert indexes == [
        "(tenant_id, a, b) NULLS NOT DISTINCT",
        "(tenant_id, lower(a)) WHERE (NOT gone)",
        "(id)",
        "(tenant_id, id)",
    ]
    assert constraint == "UNIQUE NULLS NOT DISTINCT (tenant_id, a, b) DEFERRABLE INITIALLY DEFERRED"


def isolated_odd(judge: psycopg.Connection) -> tuple[list[str], str]:
    """Isolate a table with an odd index and constraint, and return what became of them."""
    judge.execute(
        f"""CREATE TABLE odd (id int PRIMARY KEY, a text, b text, gone bool);
        CREATE UNIQUE INDEX odd_partial ON odd (lower(a)) WHERE NOT gone;
        ALTER TABLE odd ADD CONSTRAINT odd_nulls UNIQUE NULLS NOT DISTINCT (a, b) DEFERRABLE INITIALLY DEFERRED;
        ALTER TABLE odd OWNER TO {connections["owner"].settings_dict["USER"]}"""
    )
    try:
        call_command("isolate", verbosity=0)
        found = judge.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'odd' ORDER BY indexname"
        ).fetchall()
        constraint = judge.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'odd_nulls'"
        ).fetchone()
    finally:
        judge.execute("DROP TABLE odd")
    return [row[0].split(" USING btree ")[-1] for row in found], (constraint or ("",))[0]


def test_a_label_of_no_model_is_refused(migrated: Site) -> None:
    with (
        project(migrated, SHARED=["django_shop.categori"]),
        pytest.raises(ConfigurationError, match="categori"),
    ):
        tables_of(options(), "default")
