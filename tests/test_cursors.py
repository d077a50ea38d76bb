"""Cursors: good for one tenant and one question, forged by nobody."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.context import Context, SystemContext, TenantContext
from tenantry.cursors import CursorSigner
from tenantry.errors import InvalidQuery
from tenantry.query import Query, parse_fields, parse_order, total_order
from tenantry.schema import KeyedModel, collection_of
from tenantry.testing.models import Book, Colour, Sample
from tenantry.types import tenant_id

SAMPLES = collection_of(Sample)
ACME = TenantContext(tenant_id("acme"))
SIGNER = CursorSigner(b"s" * 32)


def asked(*order: str, distinct: bool = False, model: type[KeyedModel] = Sample) -> Query:
    """Return a query in this order."""
    collection = collection_of(model)
    fields = ["label"] if distinct else None
    query = Query(
        collection, parse_fields(collection, fields), order=parse_order(collection, order), distinct=distinct
    )
    return msgspec.structs.replace(query, order=total_order(query))


def sign(query: Query, row: dict[str, Any], context: Context = ACME) -> str:
    return SIGNER.sign(context, query, query.order, row)


def opened(query: Query, cursor: Any, context: Context = ACME, signer: CursorSigner = SIGNER) -> list[Any]:
    return signer.open(context, query, query.order, cursor)


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "label": WORDS,
    "number": st.integers(-(2**63), 2**63 - 1),
    "exact": st.decimals(places=9, min_value=-(10**20), max_value=10**20).map(
        SAMPLES.fields["exact"].normalise
    ),
    "money": st.decimals(places=2, min_value=-(10**9), max_value=10**9).map(
        SAMPLES.fields["money"].normalise
    ),
    "ratio": st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
    "flag": st.booleans(),
    "day": st.dates(),
    "moment": st.datetimes(timezones=st.just(dt.UTC)),
    "token": st.uuids(),
    "blob": st.binary(),
    "colour": st.sampled_from(Colour),
}


class TestRoundTrip:
    @pytest.mark.parametrize("field", VALUES)
    @given(data=st.data())
    def test_the_position_comes_back_exactly(self, field: str, data: st.DataObject) -> None:
        value = data.draw(st.none() | VALUES[field])
        query = asked(f"-{field}")
        id = uuid.UUID(int=7)
        found = opened(query, sign(query, {field: value, "id": id}))
        assert found == [value, id]
        assert type(found[0]) is type(value)
        assert str(found[0]) == str(value)

    def test_it_is_safe_in_a_url(self) -> None:
        query = asked("label")
        for text in ("", "ÿ" * 50, "\x7f~?>" * 20):
            cursor = sign(query, {"label": text, "id": uuid.UUID(int=1)})
            assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

    def test_it_says_nothing_but_the_position(self) -> None:
        """What a client could decode is the last row's sort keys, which it was given with the page."""
        query = asked("label")
        cursor = sign(query, {"label": "shown", "number": 42, "id": uuid.UUID(int=1)})
        payload = base64.urlsafe_b64decode(cursor + "==")[16:]
        assert payload == b'["shown","00000000-0000-0000-0000-000000000001"]'


class TestRefusal:
    ROW: ClassVar[dict[str, Any]] = {
        "number": 5,
        "label": "a",
        "id": uuid.UUID(int=1),
        "version": 1,
        "copies": 5,
        "tenant_id": "acme",
    }

    def refused(
        self, query: Query, cursor: Any, context: Context = ACME, signer: CursorSigner = SIGNER
    ) -> None:
        with pytest.raises(InvalidQuery) as error:
            opened(query, cursor, context, signer)
        assert error.value.path == "cursor"

    def test_another_tenant(self) -> None:
        query = asked("number")
        cursor = sign(query, self.ROW)
        for other in ("globex", "Acme", "acme2", "acm", "acme."):
            self.refused(query, cursor, TenantContext(tenant_id(other)))
        self.refused(query, cursor, SystemContext("all"))
        self.refused(query, sign(query, self.ROW, SystemContext("all")))

    def test_the_system_narrowed_to_a_tenant_asks_what_the_tenant_asks(self) -> None:
        query = asked("number")
        assert opened(query, sign(query, self.ROW), SystemContext("narrow", None, tenant_id("acme")))

    def test_another_question(self) -> None:
        cursor = sign(asked("number"), self.ROW)
        for other in (
            asked("-number"),
            asked(),
            asked("number", "label"),
            asked("version"),
            asked("copies", model=Book),
        ):
            self.refused(other, cursor)
        self.refused(asked("label", distinct=True), sign(asked("label"), self.ROW))

    def test_the_same_question_of_another_user_of_the_tenant(self) -> None:
        query = asked("number")
        user = TenantContext(tenant_id("acme"), "u", {"role": "reader"})
        assert opened(query, sign(query, self.ROW), user) == [5, uuid.UUID(int=1)]

    def test_another_deployment(self) -> None:
        query = asked("number")
        self.refused(query, sign(query, self.ROW), signer=CursorSigner(b"t" * 32))

    @pytest.mark.parametrize(
        "wrong",
        [
            "",
            "=",
            "A",
            "AAAA",
            "A" * 22,
            "A" * 10_000_000,
            "é",
            "a b",
            "\n",
            "..",
            "null",
            None,
            5,
            b"AAAA",
            [],
            object(),
        ],
        ids=lambda wrong: repr(wrong)[:16],
    )
    def test_what_never_was_a_cursor(self, wrong: Any) -> None:
        self.refused(asked("number"), wrong)

    @given(st.integers(0, 200), st.integers(1, 63))
    def test_a_changed_character(self, position: int, by: int) -> None:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        query = asked("number", "label")
        cursor = sign(query, self.ROW)
        position %= len(cursor)
        changed = alphabet[(alphabet.index(cursor[position]) + by) % 64]
        forged = cursor[:position] + changed + cursor[position + 1 :]
        try:
            found = opened(query, forged)
        except InvalidQuery:
            return
        # The last character has bits to spare; what they are changes nothing.
        assert position == len(cursor) - 1
        assert found == opened(query, cursor)

    @given(st.integers(0, 200))
    def test_a_truncated_one(self, length: int) -> None:
        query = asked("number", "label")
        cursor = sign(query, self.ROW)
        self.refused(query, cursor[: length % len(cursor)])
        self.refused(query, cursor + "A" * (length + 1))

    @given(
        st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
    )
    def test_anything_else(self, cursor: str) -> None:
        self.refused(asked("number"), cursor)

    def test_a_position_too_long_is_refused_where_the_page_is_made(self) -> None:
        query = asked("label")
        assert (
            opened(query, sign(query, {"label": "x" * 1_000_000, "id": uuid.UUID(int=1)}))[0]
            == "x" * 1_000_000
        )
        with pytest.raises(InvalidQuery) as error:
            sign(query, {"label": "x" * 2_000_000, "id": uuid.UUID(int=1)})
        assert error.value.path == "order_by"


def test_decimals_keep_their_places() -> None:
    query = asked("money")
    assert str(opened(query, sign(query, {"money": Decimal("5.00"), "id": uuid.UUID(int=1)}))[0]) == "5.00"
