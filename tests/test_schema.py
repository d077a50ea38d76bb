"""Declaring models: what becomes of a declaration, and which ones are refused with what to do about it."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Optional

import pydantic
import pytest

from tenantry import (
    PII,
    Encrypted,
    Indexed,
    KeyedModel,
    Model,
    MultiTenantSDK,
    Ref,
    Searchable,
    Shared,
    Unique,
)
from tenantry.errors import ConfigurationError, InvalidRecord, SchemaError
from tenantry.schema import Collection, Kind, collection_of
from tenantry.testing.models import Address, Book, Sample
from tenantry.types import uuid7


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


seen: list[str] = []


def note(value: str) -> str:
    seen.append(value)
    return value


class Watched(Model):
    __collection__ = "watched"
    name: Annotated[str, pydantic.AfterValidator(note)]


class Lock:
    """Nothing knows how to store it."""


class TestKinds:
    def test_each_annotation_has_its_kind(self) -> None:
        kinds = {name: field.kind for name, field in collection_of(Sample).fields.items()}
        assert kinds == {
            "id": Kind.UUID,
            "label": Kind.TEXT,
            "number": Kind.INT,
            "exact": Kind.DECIMAL,
            "money": Kind.DECIMAL,
            "ratio": Kind.FLOAT,
            "flag": Kind.BOOL,
            "day": Kind.DATE,
            "moment": Kind.DATETIME,
            "token": Kind.UUID,
            "blob": Kind.BYTES,
            "colour": Kind.ENUM,
            "data": Kind.JSON,
            "address": Kind.JSON,
            **{name: Kind.LIST for name in Sample.model_fields if name.endswith("s") and name != "address"},
            "version": Kind.INT,
            "created_at": Kind.DATETIME,
            "updated_at": Kind.DATETIME,
        }
        nullable = {name for name, field in collection_of(Sample).fields.items() if field.nullable}
        assert nullable == set(Sample.model_fields) - {"id", "version", "created_at", "updated_at"}

    def test_markers_are_found_wherever_they_stand(self) -> None:
        class Marked(Model):
            __collection__ = "marked"
            a: Annotated[str, Unique, Searchable]
            b: Annotated[str | None, Indexed()] = None
            c: Annotated[str, PII] | None = None
            d: Optional[Annotated[Annotated[str, Unique()], Indexed]] = None  # noqa: UP045 - the older spelling

        fields = collection_of(Marked).fields
        assert (fields["a"].unique, fields["a"].searchable, fields["a"].nullable) == (True, True, False)
        assert (fields["b"].indexed, fields["b"].nullable) == (True, True)
        assert (fields["c"].pii, fields["c"].nullable) == (True, True)
        assert (fields["d"].unique, fields["d"].indexed, fields["d"].nullable) == (True, True, True)

    @pytest.mark.parametrize(
        ("annotation", "digits", "places", "fixed"),
        [
            (Decimal, 38, 9, False),
            (Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)], 12, 2, True),
            (Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)] | None, 12, 2, True),
            (Annotated[Decimal | None, pydantic.Field(max_digits=12, decimal_places=2)], 12, 2, True),
            (Annotated[Decimal, pydantic.Field(decimal_places=0)], 38, 0, True),
            (Annotated[Decimal, pydantic.Field(max_digits=5)], 38, 9, False),
            (Annotated[Decimal, pydantic.Field(gt=0)], 38, 9, False),
        ],
        ids=str,
    )
    def test_decimals_take_their_size_from_the_field(
        self, annotation: Any, digits: int, places: int, fixed: bool
    ) -> None:
        field = declared(("amount", annotation)).fields["amount"]
        assert (field.digits, field.places, field.fixed_places) == (digits, places, fixed)

    def test_a_decimal_of_few_digits_holds_them_all(self) -> None:
        collection = declared(("amount", Annotated[Decimal, pydantic.Field(max_digits=5)]))
        for text in ("12345", "123.45", "0.00001"):
            assert collection.validate_changes({"amount": text}) == {"amount": Decimal(text)}
        with pytest.raises(InvalidRecord):
            collection.validate_changes({"amount": "123456"})

    @pytest.mark.parametrize(
        ("annotation", "kind"),
        [
            (Literal["a", "b"], Kind.JSON),
            (int | str, Kind.JSON),
            (dict[str, int], Kind.JSON),
            (list[str | None], Kind.JSON),
            (list[dict[str, Any]], Kind.JSON),
            (list[Colour], Kind.JSON),
            (Address, Kind.JSON),
            (Any, Kind.JSON),
            (Annotated[str, pydantic.StringConstraints(max_length=5)], Kind.TEXT),
        ],
        ids=str,
    )
    def test_what_is_no_scalar_is_json(self, annotation: Any, kind: Kind) -> None:
        assert declared(("it", annotation)).fields["it"].kind is kind

    def test_fields_stand_in_the_order_in_which_people_read_a_row(self) -> None:
        assert list(collection_of(Book).fields) == [
            "id",
            "title",
            "isbn",
            "author_id",
            "price",
            "copies",
            "version",
            "created_at",
            "updated_at",
        ]

    def test_relations_are_named_after_their_field(self) -> None:
        collection = declared(
            ("author_id", Annotated[uuid.UUID, Ref("xs")]),
            ("editor", Annotated[uuid.UUID, Ref("xs")]),
            ("third", Annotated[uuid.UUID, Ref("xs", relation="reader")]),
        )
        assert [field.relation for field in collection.fields.values() if field.ref] == [
            "author",
            "editor",
            "reader",
        ]

    def test_a_collection_is_made_once(self) -> None:
        assert collection_of(Book) is collection_of(Book)


def declared(*fields: tuple[str, Any], base: type[KeyedModel] = Model, **attributes: Any) -> Collection:
    """Return the collection of a model with these fields."""
    body = {"__collection__": "xs", "__annotations__": dict(fields), "__module__": __name__, **attributes}
    return collection_of(type("X", (base,), body))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no name": (lambda: declared(__collection__=""), "__collection__"),
    "capitals": (lambda: declared(__collection__="Books"), "__collection__"),
    "a digit first": (lambda: declared(__collection__="1st"), "__collection__"),
    "punctuation": (lambda: declared(__collection__="a-b"), "__collection__"),
    "a quote": (lambda: declared(__collection__='a"b'), "__collection__"),
    "not ASCII": (lambda: declared(__collection__="bücher"), "__collection__"),
    "too long": (lambda: declared(__collection__="x" * 49), "__collection__"),
    "ours": (lambda: declared(__collection__="tenantry_things"), "tenantry"),
    "SQLite's": (lambda: declared(__collection__="sqlite_things"), "sqlite_"),
    "PostgreSQL's": (lambda: declared(__collection__="pg_things"), "pg_"),
    "no id": (lambda: declared(base=KeyedModel), "no id"),
    "an id of another type": (lambda: declared(("id", float), base=KeyedModel), "id must be"),
    "an id that may be null": (lambda: declared(("id", str | None), base=KeyedModel), "id must be"),
    "tenant_id": (lambda: declared(("tenant_id", str)), "tenant_id"),
    "and": (lambda: declared(("and", str)), "cannot be a column"),
    "a field with capitals": (lambda: declared(("firstName", str)), "firstName"),
    "a field that is not ASCII": (lambda: declared(("größe", str)), "cannot be a column"),
    "encrypted": (lambda: declared(("a", Annotated[str, Encrypted])), "key provider"),
    "searchable number": (lambda: declared(("a", Annotated[int, Searchable])), "Searchable needs a text"),
    "unique JSON": (
        lambda: declared(("a", Annotated[dict[str, Any], Unique])),
        "json field cannot be unique",
    ),
    "indexed list": (lambda: declared(("a", Annotated[list[str], Indexed])), "list field cannot be"),
    "group of JSON": (
        lambda: declared(("a", dict[str, Any]), __unique__=(("a", "id"),)),
        "json field cannot be",
    ),
    "index of a list": (lambda: declared(("a", list[int]), __indexes__=(("a",),)), "list field cannot be"),
    "unknown in a group": (lambda: declared(__unique__=(("a", "b"),)), "names 'a'|names 'b'"),
    "unknown in an index": (lambda: declared(__indexes__=(("nothing",),)), "names 'nothing'"),
    "an empty group": (lambda: declared(__unique__=((),)), "__unique__"),
    "text for a group": (lambda: declared(("a", str), __unique__=("a",)), "__unique__"),
    "enum of numbers": (lambda: declared(("a", Level)), "must be text"),
    "a class": (
        lambda: declared(("a", Lock), model_config=pydantic.ConfigDict(arbitrary_types_allowed=True)),
        "not a type that can be stored",
    ),
    "places without digits": (
        lambda: declared(("a", Annotated[Decimal, pydantic.Field(max_digits=2, decimal_places=5)])),
        "digits",
    ),
    "too many digits": (
        lambda: declared(("a", Annotated[Decimal, pydantic.Field(max_digits=500)])),
        "digits",
    ),
    "two relations of one name": (
        lambda: declared(
            ("author_id", Annotated[uuid.UUID, Ref("xs")]), ("author", Annotated[uuid.UUID, Ref("xs")])
        ),
        "'author'",
    ),
}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_a_wrong_declaration_says_what_is_wrong(self, case: str) -> None:
        declare, message = REFUSED[case]
        with pytest.raises(SchemaError, match=message):
            declare()

    def test_models_are_checked_together(self) -> None:
        class Other(Model):
            __collection__ = "xs"

        class Lonely(Model):
            __collection__ = "lonely"
            other_id: Annotated[uuid.UUID, Ref("missing")]

        class Crooked(Model):
            __collection__ = "crooked"
            note_id: Annotated[uuid.UUID, Ref("named")]

        class Named(KeyedModel):
            __collection__ = "named"
            id: str

        class Common(Shared, Model):
            __collection__ = "common"
            named_id: Annotated[str, Ref("named")]

        class Left(Model):
            __collection__ = "lefts"
            right_id: Annotated[uuid.UUID | None, Ref("rights")] = None

        class Right(Model):
            __collection__ = "rights"
            left_id: Annotated[uuid.UUID | None, Ref("lefts")] = None

        wrong: list[tuple[list[Any], str]] = [
            ([declared().model, Other], "Two models are named 'xs'"),
            ([Lonely], "lonely.other_id refers to a collection that is not in models"),
            ([Crooked, Named], "crooked.note_id is uuid, and the ids of 'named' are text"),
            ([Common, Named], "shared rows cannot refer to a tenant's"),
            ([Left, Right], "circle"),
        ]
        for models, message in wrong:
            with pytest.raises(ConfigurationError, match=message):
                MultiTenantSDK.open("memory://", models=models, env={})

    def test_a_circle_may_be_broken(self) -> None:
        class Left(Model):
            __collection__ = "lefts"
            right_id: Annotated[uuid.UUID | None, Ref("rights", enforced=False)] = None

        class Right(Model):
            __collection__ = "rights"
            left_id: Annotated[uuid.UUID | None, Ref("lefts")] = None

        both: list[type[KeyedModel]] = [Left, Right]
        assert MultiTenantSDK.open("memory://", models=both, env={}) is not None


class TestRecords:
    def test_an_instance_that_was_changed_is_checked_again(self) -> None:
        collection = collection_of(Book)
        book = Book(title="Emma")
        for name, wrong in (
            ("title", 5),
            ("title", "a\0"),
            ("copies", "x"),
            ("price", Decimal("0.001")),
            ("title", None),
        ):
            changed = book.model_copy(update={name: wrong})
            with pytest.raises(InvalidRecord) as refused:
                collection.to_record(changed)
            assert refused.value.field == name

    def test_faults_name_the_place_and_not_the_value(self) -> None:
        class Deep(Model):
            __collection__ = "deep"
            parts: list[Address]

        with pytest.raises(InvalidRecord) as refused:
            collection_of(Deep).validate(
                {"parts": [{"street": "x"}, {"street": "hunter2", "since": "hunter2"}]}
            )
        assert refused.value.field == "parts[1].since"
        assert "hunter2" not in str(refused.value)

    def test_a_row_is_instantiated_without_validating_it_again(self) -> None:
        seen.clear()
        collection = collection_of(Watched)
        watched = Watched(name="x")
        again = collection.instantiate(collection.to_record(watched))
        assert again == watched
        assert again.model_fields_set == set(Watched.model_fields)
        assert seen == ["x"]
        assert again.model_copy(update={"name": "y"}).model_dump()["name"] == "y"

    def test_typed_json_is_revived(self) -> None:
        collection = collection_of(Sample)
        sample = Sample(address=Address(street="Main", since=dt.date(2026, 1, 1)))
        record = collection.to_record(sample)
        assert record["address"] == {"street": "Main", "since": "2026-01-01"}
        assert collection.instantiate(record) == sample

    def test_a_model_may_have_private_attributes_and_computed_fields(self) -> None:
        class Rich(Model):
            __collection__ = "rich"
            name: str
            _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict)
            constant: ClassVar[int] = 5

            @pydantic.computed_field  # type: ignore[prop-decorator]
            @property
            def loud(self) -> str:
                return self.name.upper()

        collection = collection_of(Rich)
        assert "constant" not in collection.fields
        rich = collection.instantiate(collection.to_record(Rich(name="x")))
        assert isinstance(rich, Rich)
        assert rich.loud == "X"
        rich._cache["a"] = 1
        assert rich._cache == {"a": 1}


class TestUuid7:
    def test_it_is_a_version_7_of_now(self) -> None:
        before = time.time_ns() // 1_000_000
        value = uuid7()
        after = time.time_ns() // 1_000_000
        assert (value.version, value.variant) == (7, uuid.RFC_4122)
        assert before <= value.int >> 80 <= after

    def test_ids_are_unique_and_nearly_in_order(self) -> None:
        ids = [uuid7() for _ in range(20_000)]
        assert len(set(ids)) == len(ids)
        assert sum(left > right for left, right in itertools.pairwise(ids)) < len(ids) / 50
