"""What a search means: words, texts, scores and highlights, all decided without a database."""

import html
import itertools
import re
from typing import Annotated, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import Model, Searchable
from tenantry.errors import InvalidQuery, SchemaError
from tenantry.highlights import Highlighter, parse_marks, spans_of
from tenantry.schema import collection_of
from tenantry.searching import Search, Term, parse_search_fields, parse_text
from tenantry.words import MAX_WORD, MAX_WORDS, alike, distance, line, rank, ranks, words


class Product(Model):
    __collection__ = "products"

    name: Annotated[str, Searchable(weight=3)]
    description: Annotated[str | None, Searchable] = None
    sku: str = ""


PRODUCTS = collection_of(Product)
TEXTS = st.text(max_size=60) | st.text(alphabet='ab "-*\u0301é', max_size=30)


def search_for(text: str, *, typos: bool = False) -> Search:
    return Search(PRODUCTS, parse_search_fields(PRODUCTS, None), **parse_text(text), typos=typos)


def highlighted(text: str, value: str | None, **options: bool) -> str | None:
    highlighter = Highlighter(search_for(text, **options), ("<mark>", "</mark>"))
    return highlighter.of({"name": value, "description": None}).get("name")


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Café CRÈME", "cafe creme"),
            ("cafe\u0301", "cafe"),
            ("ΟΔΟΣ οδός", "οδοσ οδοσ"),
            ("İstanbul ISTANBUL", "istanbul istanbul"),
            ("straße STRASSE", "straße strasse"),
            ("ﬁnal ② ½ x²", "final 2 1 2 x2"),
            ("a_b-c.d/e\\f'g\"h", "a b c d e f g h"),
            ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
            ("emoji😀parts ❤ words", "emoji parts words"),
            ("日本語、テスト", "日本語 テスト"),
            (" \t\r\n\u3000", ""),
        ],
    )
    def test_are_folded_and_cut(self, text: str, expected: str) -> None:
        assert " ".join(words(text)) == expected

    def test_long_ones_and_many_are_cut_short(self) -> None:
        assert words("x" * 1_000) == ["x" * MAX_WORD]
        assert len(words("x " * 10_000)) == MAX_WORDS

    @given(TEXTS)
    def test_a_folded_text_is_folded(self, text: str) -> None:
        assert words(" ".join(words(text))) == words(text)
        assert line(text) == f" {' '.join(words(text))} "

    def test_one_counts_more_the_oftener_it_is_said_and_the_shorter_the_field_is(self) -> None:
        assert rank(1, 1) == 1_000
        assert rank(2, 20) > rank(1, 20) > rank(1, 40) > 0
        assert max(rank(times, times) for times in range(1, MAX_WORDS)) <= 2_000
        assert min(rank(1, size) for size in range(1, MAX_WORDS)) >= 1
        assert ranks(["a a b", None, "b"]) == {"a": [1_333, 0, 0], "b": [1_000, 0, 1_000]}

    @given(st.text(alphabet="abc", max_size=6), st.text(alphabet="abc", max_size=6))
    def test_the_distance_is_that_of_the_definition(self, one: str, other: str) -> None:
        assert min(distance(one, other, 2), 3) == min(_defined(one, other), 3)

    def test_alike_are_those_one_or_two_changes_away(self) -> None:
        known = ["laptop", "laptops", "lapdog", "kaptop", "lamp", "lap", "l4ptop"]
        assert alike("laptp", known) == ("laptop",)
        assert alike("laptop", known) == ("laptops",)
        assert alike("lapotp", known) == ("laptop",)
        assert alike("lamb", ["lamp", "limb", "lame", "damp"]) == ("lame", "lamp", "limb")
        assert alike("lap", known) == alike("2024", ["2025"]) == ()
        assert alike("keyboards", ["keyborad", "keyboard", "kebord"]) == ("keyboard", "keyborad")


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "terms", "phrases", "without", "without_phrases"),
        [
            ("laptop pro ", ["laptop", "pro"], [], [], []),
            ("laptop pro", ["laptop", "pro*"], [], [], []),
            ("laptop a", ["laptop", "a"], [], [], []),
            ("lap* pro ", ["lap*", "pro"], [], [], []),
            ('"laptop pro" new ', ["laptop", "pro", "new"], ["laptop pro"], [], []),
            ('"laptop pro', ["laptop", "pro"], ["laptop pro"], [], []),
            ("laptop -used -ref*", ["laptop"], [], ["used", "ref*"], []),
            ('laptop -"as new"', ["laptop"], [], [], ["as new"]),
            ("laptop -as-new", ["laptop"], [], [], ["as new"]),
            ("e-mail ", ["e", "mail"], [], [], []),
            ("- laptop ", ["laptop"], [], [], []),
            ("lap* lap ", ["lap"], [], [], []),
            ("Laptop LAPTOP ", ["laptop"], [], [], []),
        ],
    )
    def test_say_what_is_to_be_found(
        self, text: str, terms: list[str], phrases: list[str], without: list[str], without_phrases: list[str]
    ) -> None:
        found = parse_text(text)
        assert [_written(term) for term in found["terms"]] == terms
        assert [" ".join(phrase) for phrase in found["phrases"]] == phrases
        assert [_written(term) for term in found["without"]] == without
        assert [" ".join(phrase) for phrase in found["without_phrases"]] == without_phrases

    @given(st.text(max_size=200))
    def test_are_never_anything_but_words_or_refused(self, text: str) -> None:
        try:
            found = parse_text(text)
        except InvalidQuery:
            return
        assert found["terms"]
        for term in (*found["terms"], *found["without"]):
            assert words(term.word) == [term.word]

    @pytest.mark.parametrize(
        "text",
        [None, 7, b"laptop", "", " ", "-", "-laptop", '""', "😀", "x" * 1_001, " ".join("abcdefghijklmnopq")],
    )
    def test_without_a_word_or_too_long_are_refused(self, text: object) -> None:
        with pytest.raises(InvalidQuery) as raised:
            parse_text(text)
        assert raised.value.path == "text"


class TestHighlights:
    def test_mark_what_was_found(self) -> None:
        assert highlighted("laptop ", "A Laptop, two LAPTOPS") == "A <mark>Laptop</mark>, two LAPTOPS"
        assert highlighted("lap", "A Laptop") == "A <mark>Laptop</mark>"
        assert highlighted("cafe ", "Cafe\u0301!") == "<mark>Cafe\u0301</mark>!"
        assert highlighted("final", "ﬁnal") == "<mark>ﬁnal</mark>"
        assert highlighted("laptp ", "Laptop", typos=True) == "<mark>Laptop</mark>"
        assert highlighted("laptop", "none") is None
        assert highlighted("laptop", None) is None

    @pytest.mark.parametrize(
        "value",
        [
            "<script>alert('x')</script> laptop",
            'laptop" onmouseover="alert(1)',
            "laptop <img src=x onerror=alert(1)>",
            "&lt;b&gt; laptop </mark><b>",
        ],
    )
    def test_let_no_html_of_the_text_through(self, value: str) -> None:
        shown = highlighted("laptop alert ", value) or highlighted("laptop ", value)
        assert shown is not None
        assert not re.search(r"[<>\"']", re.sub(r"</?mark>", "", shown))
        assert html.unescape(re.sub(r"<mark>|</mark>", "", shown)) == value

    @given(TEXTS, TEXTS)
    def test_escape_everything(self, text: str, value: str) -> None:
        try:
            shown = highlighted(f"{text} a*", value)
        except InvalidQuery:
            return
        if shown is not None:
            assert not re.search(r"[<>\"']", shown.replace("<mark>", "").replace("</mark>", ""))

    @given(TEXTS)
    def test_see_the_words_that_the_index_has(self, text: str) -> None:
        assert [word for _, word in spans_of(text)][:MAX_WORDS] == words(text)

    def test_show_the_words_around_the_first_one(self) -> None:
        long = "before " * 50 + "laptop" + " behind" * 50
        shown = highlighted("laptop ", long)
        assert shown is not None
        assert shown.startswith("… before ")
        assert shown.endswith(" behind …")
        assert len(shown) < 300

    def test_take_marks_of_ones_own(self) -> None:
        assert parse_marks(True) == ("<mark>", "</mark>")
        assert parse_marks(("**", "**")) == ("**", "**")
        assert parse_marks(False) is None
        for wrong in ("<b>", ("<b>",), (1, 2), None, ("x" * 300, "")):
            with pytest.raises(InvalidQuery):
                parse_marks(wrong)


@pytest.mark.parametrize("weight", [0, 101, True, 1.5, "2"])
def test_a_weight_is_a_whole_number(weight: object) -> None:
    class Wrong(Model):
        __collection__ = "wrong"

        name: Annotated[str, Searchable(cast("int", weight))]

    with pytest.raises(SchemaError, match="weight"):
        collection_of(Wrong)


def _written(term: Term) -> str:
    return term.word + "*" * term.prefix


def _defined(one: str, other: str) -> int:
    """Return the restricted distance of Damerau and Levenshtein, as it is defined."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i, j in itertools.product(range(1, len(one) + 1), range(1, len(other) + 1)):
        same = one[i - 1] == other[j - 1]
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (not same))
        if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
            table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(one), len(other)]
