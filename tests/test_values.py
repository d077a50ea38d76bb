"""The canonical form of values."""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
import time
import uuid
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenantry import _values

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e18, 1e18) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)

ZONES = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
MOMENTS = st.datetimes(timezones=ZONES, min_value=dt.datetime(1, 1, 3), max_value=dt.datetime(9999, 12, 29))  # noqa: DTZ001 - Hypothesis adds the zone

GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "text": WORDS,
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
    "bool": st.booleans(),
    "date": st.dates(),
    "datetime": MOMENTS,
    "uuid": st.uuids(),
    "bytes": st.binary() | st.binary().map(bytearray),
}

decimal = _values.decimal_of(38, 9, fixed=False)
money = _values.decimal_of(12, 2, fixed=True)


class TestEveryKind:
    @pytest.mark.parametrize("kind", GIVEN)
    @given(data=st.data())
    def test_normalising_twice_is_normalising_once(self, kind: str, data: st.DataObject) -> None:
        once = _values.NORMALISE[kind](data.draw(GIVEN[kind]))
        twice = _values.NORMALISE[kind](once)
        assert (type(twice), twice) == (type(once), once)

    @pytest.mark.parametrize("kind", ["int", "float", "date", "datetime", "uuid"])
    @given(data=st.data())
    def test_the_text_of_a_value_stands_for_it(self, kind: str, data: st.DataObject) -> None:
        normalise = _values.NORMALISE[kind]
        value = normalise(data.draw(GIVEN[kind]))
        assert normalise(value.isoformat() if hasattr(value, "isoformat") else str(value)) == value

    @pytest.mark.parametrize("kind", _values.NORMALISE)
    @pytest.mark.parametrize(
        "wrong",
        [None, object(), [], {}, (), len, float("nan"), "\ud800", "x\0"],
        ids=["none", "object", "list", "dict", "tuple", "function", "nan", "surrogate", "nul"],
    )
    def test_nonsense_is_refused_with_the_two_errors_that_callers_expect(self, kind: str, wrong: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            _values.NORMALISE[kind](wrong)

    @pytest.mark.parametrize("kind", [kind for kind in _values.NORMALISE if kind != "text"])
    @given(text=st.text(max_size=30))
    @example(text="9" * 30)
    @example(text="1" * 5_000)
    @example(text="infinity")
    @example(text="2026-02-30")
    @example(text="24:00")
    def test_any_text_is_a_value_or_refused(self, kind: str, text: str) -> None:
        try:
            _values.NORMALISE[kind](text)
        except (ValueError, TypeError) as error:
            assert "Traceback" not in str(error)  # noqa: PT017 - the property is about errors, if there is one


class TestText:
    @pytest.mark.parametrize("wrong", ["a\0b", "\ud800", "x\udfff"])
    def test_what_no_database_keeps_is_refused(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="cannot hold"):
            _values.text(wrong)

    def test_subclasses_become_text(self) -> None:
        class Word(str):
            __slots__ = ()

        class Kind(enum.StrEnum):
            A = "a"

        for value in (Word("a"), Kind.A):
            assert type(_values.text(value)) is str
            assert _values.text(value) == "a"


class TestNumbers:
    @pytest.mark.parametrize(
        "wrong", [2**63, -(2**63) - 1, str(2**63), True, 1.0, "1.0", "", "x", "9" * 5_000]
    )
    def test_an_integer_has_64_bits(self, wrong: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            _values.integer(wrong)

    @pytest.mark.parametrize("wrong", [float("inf"), "nan", "-inf", 10**400, True, "1e999", ""])
    def test_a_float_is_finite(self, wrong: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            _values.real(wrong)

    def test_negative_zero_is_zero(self) -> None:
        assert str(_values.real(-0.0)) == "0.0"
        assert str(_values.json(-0.0)) == "0.0"
        assert str(decimal(Decimal("-0.00"))) == "0"
        assert str(money(Decimal("-0"))) == "0.00"


class TestDecimals:
    @given(st.integers(-(10**38) + 1, 10**38 - 1))
    def test_every_decimal_that_fits_is_kept_whatever_the_ambient_precision(self, scaled: int) -> None:
        value = Decimal(scaled).scaleb(-9, context=_values.EXACT)
        for precision in (3, 28, 50):
            with localcontext() as context:
                context.prec = precision
                kept = decimal(value)
            assert kept == value
            assert decimal(kept) is not None
            assert str(decimal(kept)) == str(kept)

    @given(
        st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20)
    )
    def test_the_canonical_form_has_nothing_to_spare(self, value: Decimal) -> None:
        text = str(decimal(value))
        assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", f"{decimal(value):f}")
        assert Decimal(text) == value
        assert text != "-0"

    @given(st.integers(-(10**12) + 1, 10**12 - 1))
    def test_fixed_places_are_always_there(self, cents: int) -> None:
        value = Decimal(cents).scaleb(-2)
        assert re.fullmatch(r"-?\d+\.\d\d", str(money(value)))
        assert money(value) == value

    @pytest.mark.parametrize(
        "wrong",
        [
            "0.0000000001",
            "1e29",
            "-1e29",
            "NaN",
            "sNaN",
            "Infinity",
            "1e999999",
            "-1e-999999",
            "ten",
            "",
            "1,5",
            True,
            None,
            [],
            1e-10,
        ],
    )
    def test_what_would_be_rounded_is_refused(self, wrong: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            decimal(wrong)

    @pytest.mark.parametrize("zero", ["0e999999", "-0E-999999", "0.0000000000000000000"])
    def test_a_zero_is_a_zero_however_it_is_written(self, zero: str) -> None:
        assert str(decimal(Decimal(zero))) == "0"

    def test_floats_are_what_they_look_like(self) -> None:
        assert str(decimal(0.1)) == "0.1"
        assert str(decimal(1e20)) == "100000000000000000000"
        assert str(money(19.99)) == "19.99"


class TestMoments:
    @given(MOMENTS)
    def test_an_instant_is_kept_in_utc(self, moment: dt.datetime) -> None:
        kept = _values.datetime(moment)
        assert kept == moment
        assert kept.tzinfo is dt.UTC
        assert kept.fold == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            "2026-01-01T00:00:00",
            "2026-01-01",
            dt.date(2026, 1, 1),
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            1_700_000_000,
            "now",
        ],
    )
    def test_what_names_no_instant_is_refused(self, wrong: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            _values.datetime(wrong)

    def test_a_date_is_no_moment(self) -> None:
        with pytest.raises(TypeError):
            _values.date(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


class TestJson:
    @given(JSON)
    def test_it_survives_json_and_normalising_again(self, value: Any) -> None:
        once = _values.json(value)
        assert _values.json(once) == once
        again = json.loads(json.dumps(once))
        assert again == once
        assert repr(again) == repr(once)

    def test_depth_is_bounded(self) -> None:
        value: Any = "x"
        for _ in range(63):
            value = [value]
        assert _values.json(value) == value
        with pytest.raises(ValueError, match="deeper than 64"):
            _values.json([value])
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(ValueError, match="deeper"):
            _values.json(endless)

    @pytest.mark.parametrize(
        "wrong",
        [
            2**63,
            float("nan"),
            1e19,
            {1: 2},
            {"a\0": 1},
            "\ud800",
            b"x",
            {1, 2},
            Decimal(1),
            dt.date(2026, 1, 1),
        ],
    )
    def test_what_json_does_not_have_is_refused(self, wrong: Any) -> None:
        for value in (wrong, [wrong], {"a": wrong}):
            with pytest.raises((ValueError, TypeError)):
                _values.json(value)

    def test_it_shares_nothing_with_what_was_given(self) -> None:
        given: dict[str, Any] = {"a": [1, {"b": []}]}
        kept = _values.json(given)
        given["a"].append(2)
        given["a"][1]["b"].append(3)
        assert kept == {"a": [1, {"b": []}]}


class TestListsAndEnums:
    def test_each_element_is_normalised(self) -> None:
        assert _values.list_of(_values.integer)(("1", 2)) == [1, 2]
        for wrong in ("12", {"a": 1}, {1, 2}, [None], ["x"]):
            with pytest.raises((ValueError, TypeError)):
                _values.list_of(_values.integer)(wrong)

    def test_members_and_their_values(self) -> None:
        class Colour(enum.Enum):
            RED = "red"

        member = _values.enum_of(Colour)
        assert member("red") is member(Colour.RED) is Colour.RED
        strangers: list[Any] = ["RED", "", None, 1, [], {}]
        for wrong in strangers:
            with pytest.raises(ValueError, match="expected one of 'red'"):
                member(wrong)


def reference_like(pattern: str, value: str) -> bool:
    """SQL's LIKE by its definition, one character after the other, without caring for time."""
    if not pattern:
        return not value
    head, rest = pattern[0], pattern[1:]
    if head == "%":
        return any(reference_like(rest, value[start:]) for start in range(len(value) + 1))
    if head == "\\" and rest:
        head, rest = rest[0], rest[1:]
    elif head == "_":
        return bool(value) and reference_like(rest, value[1:])
    return value[:1] == head and reference_like(rest, value[1:])


class TestLike:
    @given(st.text("ab%_\\%", max_size=7), st.text("ab%_\\", max_size=8))
    def test_it_is_sqls_like(self, pattern: str, value: str) -> None:
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 0:
            assert _values.like(pattern)(value) is reference_like(pattern, value)

    @given(st.text(max_size=10))
    def test_a_text_matches_itself_escaped_in_any_case(self, value: str) -> None:
        escaped = re.sub(r"([%_\\])", r"\\\1", value)
        assert _values.like(escaped)(value)
        assert _values.like(f"%{escaped}%")(f"x{value}y")

    @pytest.mark.parametrize(
        ("pattern", "value", "matches"),
        [
            ("STRASSE", "straße", False),
            ("straßE", "STRAßE", True),
            ("i%", "İstanbul", True),
            ("%σ", "ΟΔΟΣ", True),
            ("%σ", "οδος", False),
            ("a_c", "a\nc", True),
            ("a%c", "a\n\nc", True),
            (".*", "anything", False),
            ("😀_", "😀😀", True),
        ],
    )
    def test_unicode_and_what_regular_expressions_would_make_of_it(
        self, pattern: str, value: str, matches: bool
    ) -> None:
        assert _values.like(pattern)(value) is matches

    @pytest.mark.parametrize(
        "pattern", ["%a" * 30 + "%b", "%_a" * 30 + "b", "%a%" * 30 + "b", "%" * 5_000 + "b"]
    )
    def test_no_pattern_takes_long(self, pattern: str) -> None:
        """A pattern is hostile input: it must not keep the one thread that writes."""
        test = _values.like(pattern)
        started = time.perf_counter()
        assert not test("a" * 20_000)
        assert time.perf_counter() - started < 2.0

    @given(WORDS)
    def test_folding_keeps_the_length(self, value: str) -> None:
        folded = _values.fold(value)
        assert len(folded) == len(value)
        assert _values.fold(folded) == folded


def test_uuid_text_in_every_spelling_is_one_value() -> None:
    value = uuid.UUID("01902d8c-7c5e-7a3b-8f00-0123456789ab")
    spellings: list[Callable[[uuid.UUID], str]] = [
        str,
        lambda u: u.hex,
        lambda u: u.urn,
        lambda u: str(u).upper(),
    ]
    assert {_values.identifier(spell(value)) for spell in spellings} == {value}
