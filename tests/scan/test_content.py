"""What a response says, in each format, and how much that says about whose it is."""

from __future__ import annotations

import io
import json
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.scan.content import Leaf, haystack, leaves
from tenantry.scan.messages import Exchange, Request, Response
from tenantry.scan.objects import Harvest, label_of_key, label_of_path, singular, things
from tenantry.scan.oracles import ghost
from tenantry.scan.routes import put, template_of
from tenantry.scan.values import Weight, is_id_like, is_unique, mentions, weigh
from tenantry.scan.volatile import differ, fingerprint, same_values
from tests.scan.shop import pdf, workbook

ID = "7f1c3a52-94b6-4f0e-8a53-1f7e2b6c9d10"
ROOT = Request("GET", "/orders")


def response(body: bytes | str, kind: str = "application/json", status: int = 200) -> Response:
    return Response(status, {"content-type": kind}, body.encode() if isinstance(body, str) else body)


def packed(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"a": [{"b": "three \\u0062rass anvils"}]}', "application/json"),
        ('{"x": 1}\n{"b": "three brass anvils"}\n', "application/x-ndjson"),
        ('id,text\n1,"three brass anvils"\n', "text/csv"),
        ("id\ttext\n1\tthree brass anvils\n", "text/tab-separated-values"),
        ("<p>three brass anvils</p>", "text/html"),
        ('<input value="three brass anvils">', "text/html"),
        ("<p>three&#32;brass anvils</p>", "text/html"),
        ("first\nthree brass anvils", "text/plain"),
        (workbook([["id"], ["three brass anvils"]]), "application/octet-stream"),
        (packed("notes.txt", b"three brass anvils"), "application/zip"),
        (pdf("three brass anvils"), "application/pdf"),
        (b"\0\1\2three brass anvils\0", "application/octet-stream"),
    ],
    ids=range(12),
)
def test_every_format_is_read(body: bytes | str, kind: str) -> None:
    assert mentions(haystack(response(body, kind)), "Three brass anvils")


@pytest.mark.parametrize(
    "body",
    [
        b"PK broken",
        b"%PDF broken (unclosed",
        workbook([["a"]])[:200],
        packed("xl/workbook.xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>"),
        b"[" * 100_000,
        b'{"a": ' * 500 + b"1" + b"}" * 500,
        b"\xff\xfe",
        b"",
    ],
    ids=range(8),
)
def test_a_broken_body_is_no_error(body: bytes) -> None:
    for kind in ("application/json", "text/csv", "text/html", "application/pdf", ""):
        leaves(response(body, kind))
        list(things(Exchange(ROOT, response(body, kind))))


def test_a_small_file_that_unpacks_to_a_large_one_is_cut() -> None:
    stream = zlib.compress(b"(" + b"a" * 100_000_000 + b")")
    assert len(haystack(response(b"%PDF-1.7\nstream\n" + stream + b"\nendstream"))) < 25_000_000


def test_headers_count_unless_they_are_plumbing() -> None:
    found = Response(200, {"x-owner": "Mrs Jones", "date": "today", "server": "a server"}, b"{}")
    assert haystack(found) == "mrs jones"


@pytest.mark.parametrize(
    ("key", "text", "weight"),
    [
        ("id", ID, Weight.IDENTIFYING),
        ("email", "jo@acme.example", Weight.IDENTIFYING),
        ("note", "Leave it at the back door", Weight.IDENTIFYING),
        ("key", "cus_9s8df7Kq2Lm0", Weight.IDENTIFYING),
        ("number", "INV-2026-00017", Weight.SPECIFIC),
        ("customer", "Jones", Weight.SPECIFIC),
        ("title", "Brass anvils", Weight.SPECIFIC),
        ("total", "1299.5", Weight.SPECIFIC),
        ("item", "Rocket", Weight.WEAK),
        ("total", "99", Weight.WEAK),
        ("id", "7", Weight.NOTHING),
        ("total", "1000", Weight.NOTHING),
        ("country", "United States of America", Weight.NOTHING),
        ("paymentMethod", "Direct debit mandate of old", Weight.NOTHING),
        ("created_at", "2026-11-01T08:00:00Z", Weight.NOTHING),
        ("seen", "Mon, 23 Nov 2026 08:00:00 GMT", Weight.NOTHING),
        ("ok", "yes", Weight.NOTHING),
    ],
)
def test_the_weight_of_a_value(key: str, text: str, weight: Weight) -> None:
    assert weigh(Leaf((key,), text)) is weight


def test_what_is_below_a_listed_name_is_listed() -> None:
    assert weigh(Leaf(("country", "name"), "The Republic of San Marino")) is Weight.NOTHING


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see INV-1 there", True),
        ("see INV-10", False),
        ("XINV-1", False),
        ("(inv-1)", True),
        ("INV-10, INV-1", True),
    ],
)
def test_a_value_is_found_as_a_whole(text: str, found: bool) -> None:
    assert mentions(text.casefold(), "INV-1") == found


@given(st.text(max_size=30), st.text(min_size=1, max_size=10))
def test_to_mention_is_to_contain(text: str, value: str) -> None:
    if mentions(text.casefold(), value):
        assert value.casefold() in text.casefold()


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (ID, True),
        ("17", True),
        ("cus_12ab", True),
        ("orders", False),
        ("v1", False),
        ("export.csv", False),
        ("me", False),
    ],
)
def test_what_looks_like_an_id(part: str, expected: bool) -> None:
    assert is_id_like(part) == expected


@pytest.mark.parametrize(
    "id",
    [
        ID,
        "17",
        "2147483646",
        "99999999999999",
        "cus_9s8df7Kq2Lm0",
        "INV-2026-00017",
        "a@b1.example",
        "spring-fair",
    ],
)
def test_an_id_that_never_was_has_the_same_shape(id: str) -> None:
    made = {ghost(id) for _ in range(20)}
    assert id not in made
    assert len(made) > 10
    for one in made:
        assert is_unique(one) == is_unique(id)
        assert one.isdigit() == id.isdigit()
        assert len(one) == len(id) or id.isdigit()
        assert int(id) >= 2**31 or int(one) < 2**31 if id.isdigit() else True


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("invoices", "invoice"),
        ("Companies", "company"),
        ("addresses", "address"),
        ("boxes", "box"),
        ("status", "status"),
        ("orderItems", "order_item"),
    ],
)
def test_what_one_of_them_is_called(word: str, one: str) -> None:
    assert singular(word) == one


def test_what_an_id_is_the_id_of() -> None:
    assert [label_of_key(key) for key in ("customer_id", "customerId", "order_ids", "id", "paid")] == [
        "customer",
        "customer",
        "order",
        None,
        None,
    ]
    assert label_of_path(("api", "v1", "invoices", "17", "export.csv")) == "export"


def test_ids_are_harvested_from_rows_references_and_links() -> None:
    row = {"id": 17, "customer_id": "c-9", "self": f"/api/notes/{ID}", "files": [{"slug": "plan-b"}]}
    body = json.dumps({"data": [row]})
    harvest = Harvest()
    harvest.learn(Exchange(ROOT, response(body)))
    assert harvest.ids("order") == ["17"]
    assert harvest.ids("customer") == ["c-9"]
    assert harvest.ids("note") == [ID]
    assert harvest.ids("file", "slug") == ["plan-b"]


def test_an_id_is_put_where_it_belongs() -> None:
    request = Request("POST", f"/orders/{ID}", (("customer_id", "5"),)).with_json(
        {"a": [{"order_id": 7}], "n": 3}
    )
    template = template_of(request, Harvest())
    assert [(slot.place, slot.value) for slot in template.slots] == [
        ("path", ID),
        ("query", "5"),
        ("body", "7"),
    ]
    for slot in template.slots:
        request = put(request, slot, "8")
    assert (request.path, request.query, request.data) == (
        "/orders/8",
        (("customer_id", "8"),),
        {"a": [{"order_id": 8}], "n": 3},
    )
    assert template.route == "POST /orders/{order}?customer_id"


def test_an_id_cannot_climb_out_of_its_place() -> None:
    template = template_of(Request("GET", f"/orders/{ID}"), Harvest())
    assert put(template.request, template.slots[0], "../a?b#c").path == "/orders/..%2Fa%3Fb%23c"


def test_what_changes_by_itself_makes_no_difference() -> None:
    def answer(number: int, detail: str) -> Response:
        trace, at = f"4bf92f3577b34da6a3ce{number}", f"2026-11-0{number}T08:00:00Z"
        return response(json.dumps({"at": at, "trace": trace, "n": number, "detail": detail}))

    ones = [fingerprint(answer(number, "no"), ROOT) for number in (1, 2)]
    assert not differ(ones, [fingerprint(answer(number, "no"), ROOT) for number in (3, 4)])
    assert differ(ones, [fingerprint(answer(number, "yes"), ROOT) for number in (3, 4)])
    assert not same_values(answer(1, "no"), answer(2, "no"), ROOT)
    assert same_values(answer(1, "no"), answer(2, "no"), ROOT, frozenset({"n"}))
    assert same_values(response("[1, 2]"), response("[2, 1]"), ROOT)
