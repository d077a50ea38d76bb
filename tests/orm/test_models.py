"""Declarative classes as collections, and what of them is refused."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantry import Indexed, Model, MultiTenantSDK, SoftDelete, Unique
from tenantry.errors import SchemaError
from tenantry.orm import KeyedTenantMixin, SharedMixin, SoftDeleteMixin, TenantMixin
from tenantry.schema import Kind, collection_of
from tests.orm.models import MODELS, Author, Book, BookTag, Colour, Language, Review


def test_a_class_comes_down_to_a_collection() -> None:
    books = collection_of(Book)
    assert (books.name, books.scope, books.key.kind) == ("books", "tenant", Kind.UUID)
    kinds = {name: field.kind for name, field in books.fields.items() if name not in ("id", "version")}
    assert kinds == {
        "title": Kind.TEXT,
        "price": Kind.DECIMAL,
        "copies": Kind.INT,
        "printed": Kind.DATE,
        "sold_at": Kind.DATETIME,
        "colour": Kind.ENUM,
        "details": Kind.JSON,
        "cover": Kind.BYTES,
        "weight": Kind.FLOAT,
        "author_id": Kind.UUID,
        "language_id": Kind.TEXT,
        "created_at": Kind.DATETIME,
        "updated_at": Kind.DATETIME,
    }
    assert books.fields["price"].places == 2
    assert books.fields["price"].nullable
    assert books.fields["colour"].enum is Colour
    assert books.unique == (("author_id", "title"),)
    assert set(books.indexes) >= {("author_id",), ("price", "title")}
    assert books.fields["author_id"].ref is not None
    assert books.fields["author_id"].ref.collection == "authors"


def test_soft_deletion_is_a_mixin() -> None:
    class Base(DeclarativeBase):
        pass

    class Order(SoftDeleteMixin, TenantMixin, Base):
        __tablename__ = "orders"
        number: Mapped[str] = mapped_column(unique=True)

    class Order2(SoftDelete, Model):
        __collection__ = "orders"
        number: Annotated[str, Unique]

    orders, same = collection_of(Order), collection_of(Order2)
    assert orders.soft
    assert list(orders.fields) == ["id", "number", "version", "created_at", "updated_at", "deleted_at"]
    assert orders.fields["deleted_at"] == same.fields["deleted_at"]
    assert (orders.unique, orders.indexes) == (same.unique, same.indexes)
    assert not collection_of(Book).soft


async def test_a_mapped_class_deletes_softly() -> None:
    class Base(DeclarativeBase):
        pass

    class Order(SoftDeleteMixin, TenantMixin, Base):
        __tablename__ = "orders"
        number: Mapped[str] = mapped_column(unique=True)

    async with MultiTenantSDK.open("memory://", models=[Order], env={}) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme").data
        order = await acme.create("orders", {"number": "1"})
        await acme.delete("orders", order["id"])
        assert [await acme.count("orders", deleted=which) for which in ("without", "only")] == [0, 1]
        assert (await acme.restore("orders", order["id"]))["deleted_at"] is None


def test_markers_and_constraints_are_kept() -> None:
    authors = collection_of(Author)
    assert authors.fields["name"].searchable
    assert authors.fields["email"].pii
    assert authors.unique == (("email",),)
    assert ("name",) in authors.indexes
    assert collection_of(Language).scope == "shared"
    assert collection_of(Review).key.kind is Kind.INT
    reference = collection_of(BookTag).fields["tag_id"].ref
    assert reference is not None
    assert reference.on_delete == "cascade"


def test_it_is_the_same_collection_each_time() -> None:
    assert collection_of(Book) is collection_of(Book)


async def test_data_serves_them_on_every_database() -> None:
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        author = await data.create("authors", {"name": "Ann"})
        book = await data.create("books", {"title": "Atlas", "author_id": author["id"]})
        assert (book["copies"], book["colour"], book["details"]) == (1, Colour.RED, {})
        page = await data.read("books", {"title": "Atlas"}, include=["author"])
        assert page.included["author"][author["id"]]["name"] == "Ann"


def _declare(base: type[Any], **attributes: Any) -> type[Any]:
    """Declare a class; ``hints`` are its annotations."""

    class Root(DeclarativeBase):
        pass

    hints = attributes.pop("hints", {})
    return type("Thing", (base, Root), {"__tablename__": "things", "__annotations__": hints, **attributes})


class Native(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"x": mapped_column(sa.DateTime)}, "x"),
        ({"x": mapped_column(sa.Interval)}, "x"),
        ({"x": mapped_column(sa.Enum(Native))}, "x"),
        ({"x": mapped_column(sa.Enum("red", native_enum=False))}, "x"),
        ({"x": mapped_column(sa.Text, server_default="y")}, "x"),
        ({"x": mapped_column("y", sa.Text)}, "x"),
        ({"x": mapped_column(sa.Uuid, sa.ForeignKey("others.code"))}, "x"),
        ({"x": mapped_column(sa.Uuid, sa.ForeignKey("things.id", ondelete="SET NULL"))}, "x"),
        ({"__table_args__": (sa.CheckConstraint("true"),)}, "__table_args__"),
        ({"__table_args__": (sa.Index("i", sa.text("lower('x')")),)}, "__table_args__"),
        ({"__table_args__": {"schema": "elsewhere"}}, "Thing"),
        ({"__tablename__": "Things"}, "__collection__"),
        ({"tenant_id": mapped_column(sa.Text)}, "tenant_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_table_would_not_have_is_refused(attributes: dict[str, Any], field: str) -> None:
    with pytest.raises(SchemaError) as caught:
        collection_of(_declare(TenantMixin, **attributes))
    assert caught.value.field == field


def test_inheritance_is_refused() -> None:
    thing = _declare(TenantMixin)
    with pytest.raises(SchemaError, match="inheritance"):
        collection_of(type("More", (thing,), {}))


@pytest.mark.parametrize(
    "make", [lambda: object, lambda: TenantMixin, lambda: "Book", lambda: DeclarativeBase]
)
def test_what_is_no_model_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(SchemaError) as caught:
        MultiTenantSDK.open("memory://", models=[make()], env={})
    assert caught.value.field == "models"


def test_a_twin_of_pydantic_makes_the_same_table() -> None:
    class Root(DeclarativeBase):
        pass

    class Twin(TenantMixin, Root):
        __tablename__ = "twins"
        word: Mapped[Annotated[str, Unique]]
        at: Mapped[Annotated[dt.datetime | None, Indexed]] = mapped_column(sa.DateTime(timezone=True))

    class Plain(Model):
        __collection__ = "twins"
        word: Annotated[str, Unique]
        at: Annotated[dt.datetime | None, Indexed] = None

    one, other = collection_of(Twin), collection_of(Plain)
    assert (one.fields, one.unique, one.indexes, one.scope) == (
        other.fields,
        other.unique,
        other.indexes,
        other.scope,
    )


def test_ids_of_ones_own() -> None:
    for kind, expected in ((sa.Uuid, Kind.UUID), (sa.Text, Kind.TEXT), (sa.BigInteger, Kind.INT)):
        for mixin in (KeyedTenantMixin, SharedMixin):
            thing = _declare(mixin, id=mapped_column(kind, primary_key=True))
            assert collection_of(thing).key.kind is expected


def test_new_ids_are_in_order() -> None:
    default: Any = Author.__table__.c.id.default
    ids = [default.arg(None) for _ in range(3)]
    assert ids == sorted(ids)
    assert all(isinstance(id, uuid.UUID) and id.version == 7 for id in ids)
