"""Django's admin serves two tenants' staff, over real HTTP: all of it works, and nothing of the other is in reach."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.django.shop import Browser, Shop, running
from tests.servers import PostgresServer

PRODUCT = "/admin/django_shop/product"
ORDER = "/admin/django_shop/order"
CATEGORY = "/admin/django_shop/category"
USER = "/admin/auth/user"


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    yield postgres_server.create_database("admin")
    postgres_server.drop_database("admin")


@pytest.fixture(scope="module")
def shop(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with running("examples.django_shop", database, folder, "--prefix", "adminshop") as (printed, port):
        password = re.search(r"acme\.localhost.* password (\S+)", printed)
        assert password, printed
        yield Shop(port, password[1])


@pytest.fixture
def judge(shop: Shop, database: str) -> Iterator[psycopg.Connection]:
    """Give a superuser's connection, which sees everything."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def id_of(judge: psycopg.Connection, table: str, tenant: str, where: str = "true") -> int:
    row = judge.execute(f"SELECT min(id) FROM {table} WHERE tenant_id = '{tenant}' AND {where}").fetchone()
    assert row
    assert row[0] is not None, (table, tenant, where)
    return int(row[0])


@pytest.fixture
def acme(shop: Shop) -> Iterator[Browser]:
    with shop.admin("acme") as browser:
        yield browser


@pytest.fixture
def globex(shop: Shop) -> Iterator[Browser]:
    with shop.admin("globex") as browser:
        yield browser


def own(answer: httpx.Response, other: str = "globex") -> str:
    """Return the page, which must have come and must not name the other tenant."""
    assert answer.status_code == 200, (answer.request.url, answer.status_code)
    assert other not in answer.text, answer.request.url
    return answer.text


def test_all_of_the_admin_works(acme: Browser, globex: Browser, judge: psycopg.Connection) -> None:
    assert "acme lamp 1" in own(acme.get(f"{PRODUCT}/"))
    assert "acme lamp 2" not in own(acme.get(f"{PRODUCT}/?q=lamp+1"))
    category = id_of(judge, "django_shop_category", "acme")
    tag = id_of(judge, "django_shop_tag", "acme")

    sheet = ("sheet.txt", b"of acme", "text/plain")
    form = {"name": "desk", "sku": "D1", "price": "100", "category": category, "tags": [tag], "sheet": sheet}
    assert acme.submit(f"{PRODUCT}/add/", form).status_code == 302
    desk = id_of(judge, "django_shop_product", "acme", "sku = 'D1'")
    assert judge.execute(
        "SELECT tenant_id, tag_id FROM django_shop_product_tags WHERE product_id = %s", (desk,)
    ).fetchall() == [("acme", tag)]
    assert acme.submit(f"{PRODUCT}/{desk}/change/", name="desk of oak").status_code == 302
    assert "Changed Name" in own(acme.get(f"{PRODUCT}/{desk}/history/"))
    assert acme.get(f"/products/{desk}/sheet").content == b"of acme"

    action = {"action": "discount", "_selected_action": [desk], "index": "0"}
    assert acme.submit(f"{PRODUCT}/", action).status_code == 302
    assert judge.execute(f"SELECT price FROM django_shop_product WHERE id = {desk}").fetchone() == (90,)

    order = {
        "customer": "carl",
        "taken_by": id_of(judge, "auth_user", "acme"),
        "lines-0-product": desk,
        "lines-0-count": "3",
    }
    assert acme.submit(f"{ORDER}/add/", order).status_code == 302
    taken = id_of(judge, "django_shop_order", "acme", "customer = 'carl'")
    assert judge.execute(
        f"SELECT tenant_id, count FROM django_shop_line WHERE order_id = {taken}"
    ).fetchall() == [("acme", 3)]
    assert "carl" in own(acme.get(f"{ORDER}/{taken}/change/"))
    deleted = acme.submit(f"{ORDER}/{taken}/delete/", post="yes")
    assert deleted.status_code == 302
    bulk = {"action": "delete_selected", "_selected_action": [desk], "post": "yes"}
    assert acme.submit(f"{PRODUCT}/", bulk).status_code == 302
    assert judge.execute(f"SELECT count(*) FROM django_shop_product WHERE id = {desk}").fetchone() == (0,)

    assert "carl" in own(acme.get("/admin/"))  # the log of recent actions
    log = judge.execute("SELECT DISTINCT tenant_id FROM django_admin_log").fetchall()
    assert log == [("acme",)]
    assert "acme" not in globex.get("/admin/").text


def test_two_tenants_may_have_the_same_names(
    shop: Shop, acme: Browser, globex: Browser, judge: psycopg.Connection
) -> None:
    for browser in (acme, globex):
        form = {"username": "anna", "password1": "longer-than-8-by-far", "password2": "longer-than-8-by-far"}
        answer = browser.submit(f"{USER}/add/", form, usable_password="true")
        assert answer.status_code == 302, answer.text
        again = browser.submit(f"{USER}/add/", form, usable_password="true")
        assert again.status_code == 200
        assert "already exists" in again.text
    tenants = judge.execute("SELECT tenant_id FROM auth_user WHERE username = 'anna' ORDER BY 1").fetchall()
    assert tenants == [("acme",), ("globex",)]


def test_every_address_of_the_other_tenants_rows_leads_nowhere(
    acme: Browser, globex: Browser, judge: psycopg.Connection
) -> None:
    tables = {"product": PRODUCT, "category": CATEGORY, "tag": "/admin/django_shop/tag"}
    addresses = {path: id_of(judge, f"django_shop_{table}", "globex") for table, path in tables.items()}
    addresses[USER] = id_of(judge, "auth_user", "globex")
    for path, id in addresses.items():
        for page in ("change", "delete", "history"):
            assert globex.get(f"{path}/{id}/{page}/").status_code == 200  # there is such a page
            answer = acme.get(f"{path}/{id}/{page}/")
            assert answer.status_code in (302, 404)  # to the index, as for an id that nobody has
            assert "globex" not in answer.text
            missing = acme.get(f"{path}/999999/{page}/")
            assert (answer.status_code, len(answer.content)) == (missing.status_code, len(missing.content))
    product = addresses[PRODUCT]
    assert acme.get(f"/products/{product}/").status_code == 404
    assert acme.get(f"/products/{product}/sheet").status_code == 404
    token = {"X-CSRFToken": acme.cookies["csrftoken"]}
    assert acme.post(f"/products/{product}/buy", headers=token).status_code == 404
    assert judge.execute("SELECT count(*) FROM django_shop_order WHERE tenant_id = 'acme'").fetchone() == (0,)
    assert acme.post(f"{USER}/{addresses[USER]}/password/", headers=token).status_code == 404


def test_lists_filters_and_look_ups_show_nothing_of_the_other(
    acme: Browser, judge: psycopg.Connection
) -> None:
    theirs = id_of(judge, "django_shop_category", "globex")
    user = id_of(judge, "auth_user", "globex")
    look_up = "/admin/autocomplete/?app_label=django_shop&model_name=product&field_name=category"
    for path in (
        f"{PRODUCT}/?q=globex",
        f"{PRODUCT}/?category__id__exact={theirs}",
        f"{PRODUCT}/?tags__id__exact={id_of(judge, 'django_shop_tag', 'globex')}",
        f"{PRODUCT}/?category__name__startswith=L",
        f"{PRODUCT}/?all=&p=0&o=-4.1",
        f"{ORDER}/?taken_by__id__exact={user}",
        f"{ORDER}/add/",
        f"{USER}/?q=globex.example",
        f"{USER}/?email__startswith=admin",
        "/admin/auth/group/",
        "/?q=globex",
        "/?q='+OR+tenant_id='globex",
        "/products.csv",
    ):
        answer = acme.get(path, follow_redirects=True)
        assert answer.status_code in (200, 400)
        shown = answer.text.replace("q=globex", "").replace('value="globex', "").replace("&#x27;globex", "")
        assert "globex lamp" not in shown, path
        assert "admin@globex" not in shown, path
    found = acme.get(f"{look_up}&term=").json()["results"]
    assert [item["text"] for item in found] == ["Lamps"]
    assert found[0]["id"] != str(theirs)


def test_what_is_sent_cannot_point_to_the_other(acme: Browser, judge: psycopg.Connection) -> None:
    theirs = {
        "product": id_of(judge, "django_shop_product", "globex"),
        "category": id_of(judge, "django_shop_category", "globex"),
        "tag": id_of(judge, "django_shop_tag", "globex"),
        "user": id_of(judge, "auth_user", "globex"),
    }
    before = judge.execute(
        "SELECT tenant_id, id, name, price FROM django_shop_product ORDER BY id"
    ).fetchall()
    mine = id_of(judge, "django_shop_product", "acme")
    for fields in ({"category": theirs["category"]}, {"tags": [theirs["tag"]]}):
        answer = acme.submit(f"{PRODUCT}/{mine}/change/", fields)
        assert answer.status_code == 200, "such a choice is not valid"
        assert "Select a valid choice" in answer.text
    order = {"customer": "x", "lines-0-product": theirs["product"], "lines-0-count": 1}
    assert acme.submit(f"{ORDER}/add/", order).status_code == 200
    assert acme.submit(f"{ORDER}/add/", {"customer": "x", "taken_by": theirs["user"]}).status_code == 200
    for action in ("discount", "delete_selected"):
        selected = {"action": action, "_selected_action": [theirs["product"]], "post": "yes", "index": "0"}
        assert acme.submit(f"{PRODUCT}/", selected).status_code in (200, 302)
        selected["select_across"] = "1"
    assert (
        judge.execute("SELECT tenant_id, id, name, price FROM django_shop_product ORDER BY id").fetchall()
        == before
    )


def test_all_across_pages_are_all_of_the_tenant(
    shop: Shop, globex: Browser, judge: psycopg.Connection
) -> None:
    others = "SELECT id, price FROM django_shop_product WHERE tenant_id = 'acme' ORDER BY id"
    before = judge.execute(others).fetchall()
    mine = id_of(judge, "django_shop_product", "globex")
    everything = {"action": "discount", "_selected_action": [mine], "select_across": "1", "index": "0"}
    assert globex.submit(f"{PRODUCT}/", everything).status_code == 302
    changed = judge.execute(
        "SELECT price FROM django_shop_product WHERE tenant_id = 'globex' ORDER BY id"
    ).fetchall()
    assert changed == [(9,), (18,)]
    assert judge.execute(others).fetchall() == before


def test_a_session_is_of_its_host(shop: Shop, acme: Browser) -> None:
    for path in ("/admin/", "/products.csv"):
        with shop.browser("globex") as thief:
            thief.cookies = acme.cookies
            answer = thief.get(path)
            assert (answer.status_code, "login" in answer.headers["Location"]) == (302, True)
    with shop.browser("globex") as browser:
        answer = browser.submit("/login/", username="admin", password="wrong")
        assert answer.status_code == 200


def test_next_leads_to_no_other_host(shop: Shop) -> None:
    for target in (
        f"http://globex.localhost:{shop.port}/admin/",
        "//globex.localhost/",
        "https:///evil.example",
    ):
        with shop.browser("acme") as browser:
            path = httpx.URL("/login/", params={"next": target})
            answer = browser.submit(str(path), username="admin", password=shop.password)
            assert (answer.status_code, answer.headers["Location"]) == (302, "/")


def test_errors_say_nothing(shop: Shop, acme: Browser) -> None:
    for path in (
        "/nowhere",
        "/products/99999999999999999999/",
        "/admin/nowhere/",
        "/products/1/sheet/../../3",
    ):
        answer = acme.get(path)
        assert answer.status_code in (404, 301, 302), path
        assert "globex" not in answer.text
        assert "Traceback" not in answer.text
    broken = acme.get("/", params={"q": "\0"})
    assert broken.status_code == 500 or "lamp" not in broken.text
    assert "tenantry" not in broken.text
    for tenant in ("nobody", "acme.globex", "-"):
        with shop.browser(tenant) as browser:
            assert browser.get("/").status_code in (400, 403, 404)
            assert browser.get("/health").text == "ok"


def test_the_serving_process_does_not_know_the_owner(shop: Shop, judge: psycopg.Connection) -> None:
    owners = judge.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'adminshop_owner'"
    ).fetchone()
    assert owners == (0,)


def test_uploads_of_a_tenant_are_in_its_own_folder(
    acme: Browser, judge: psycopg.Connection, tmp_path: Path
) -> None:
    mine = id_of(judge, "django_shop_product", "acme")
    hostile = ("../../globex/sheet.txt", b"hostile", "text/plain")
    assert acme.submit(f"{PRODUCT}/{mine}/change/", {"sheet": hostile}).status_code == 302
    row = judge.execute(f"SELECT sheet FROM django_shop_product WHERE id = {mine}").fetchone()
    assert row
    assert re.fullmatch(r"acme/[\w-]{22}/sheet\.txt", row[0])
    assert acme.get(f"/products/{mine}/sheet").content == b"hostile"
    assert acme.get(f"/media/{row[0]}").status_code == 404  # only the view serves it
