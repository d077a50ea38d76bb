"""The models of the conformance suite: one with every kind of field, some that refer to each other, and odd names."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any, ClassVar

import pydantic

from tenantry.schema import Indexed, KeyedModel, Model, Ref, Searchable, Shared, SoftDelete, Unique

Money = Annotated[Decimal, pydantic.Field(max_digits=12, decimal_places=2)]


class Colour(enum.Enum):
    """An enum whose values sort otherwise than its members are declared."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Address(pydantic.BaseModel):
    """A typed value inside a JSON field."""

    street: str
    since: dt.date | None = None


class Sample(Model):
    """A field of every kind, each of them nullable."""

    __collection__ = "samples"

    label: Annotated[str | None, Searchable] = None
    number: Annotated[int | None, Indexed] = None
    exact: Decimal | None = None
    money: Money | None = None
    ratio: float | None = None
    flag: bool | None = None
    day: dt.date | None = None
    moment: dt.datetime | None = None
    token: uuid.UUID | None = None
    blob: bytes | None = None
    colour: Colour | None = None
    data: Any | None = None
    address: Address | None = None
    labels: list[str] | None = None
    numbers: list[int] | None = None
    exacts: list[Decimal] | None = None
    ratios: list[float] | None = None
    flags: list[bool] | None = None
    days: list[dt.date] | None = None
    moments: list[dt.datetime] | None = None
    tokens: list[uuid.UUID] | None = None
    blobs: list[bytes] | None = None


class Country(Shared, KeyedModel):
    """Reference data that every tenant reads."""

    __collection__ = "countries"

    id: str
    name: Annotated[str, Searchable]


class Author(Model):
    """Refers to shared reference data."""

    __collection__ = "authors"

    name: str
    country_id: Annotated[str | None, Ref("countries")] = None


class Book(Model):
    """Refers to another collection of the same tenant, and protects the row it refers to."""

    __collection__ = "books"
    __unique__: ClassVar[tuple[tuple[str, ...], ...]] = (("author_id", "title"),)

    title: str
    isbn: Annotated[str | None, Unique] = None
    author_id: Annotated[uuid.UUID | None, Ref("authors")] = None
    price: Money | None = None
    copies: int = 0


class Review(Model):
    """Goes when its book goes."""

    __collection__ = "reviews"

    book_id: Annotated[uuid.UUID, Ref("books", on_delete="cascade")]
    stars: int = 0


class Mention(Model):
    """Names rows that may be missing."""

    __collection__ = "mentions"

    book_id: Annotated[uuid.UUID | None, Ref("books", enforced=False)] = None
    country: Annotated[str | None, Ref("countries", enforced=False, relation="land")] = None


class Folder(KeyedModel):
    """Refers to itself, and has an integer for an id."""

    __collection__ = "folders"

    id: int
    parent_id: Annotated[int | None, Ref("folders", on_delete="cascade")] = None


class Note(KeyedModel):
    """Has a text for an id."""

    __collection__ = "notes"

    id: str
    text: str = ""


class Article(Model):
    """Is searched by the words of two fields, of which one counts more."""

    __collection__ = "articles"

    title: Annotated[str, Searchable(weight=3)]
    body: Annotated[str | None, Searchable] = None


class Ticket(SoftDelete, Model):
    """Its rows are marked when they are deleted; its unique values are those of the rows that live."""

    __collection__ = "tickets"
    __unique__: ClassVar[tuple[tuple[str, ...], ...]] = (("title", "copies"),)

    number: Annotated[str | None, Unique] = None
    title: Annotated[str, Searchable] = ""
    copies: int = 0
    parent_id: Annotated[uuid.UUID | None, Ref("tickets")] = None


class Reply(Model):
    """Goes when its ticket goes for good."""

    __collection__ = "replies"

    ticket_id: Annotated[uuid.UUID | None, Ref("tickets", on_delete="cascade")] = None
    stars: int = 0


class Clause(Model):
    """Its table and columns are named like words of SQL, and like the parameters that a compiler may use."""

    __collection__ = "order"

    select: str = ""
    tenant: str = ""
    limit: int = 0
    p0: int = 0
    p1: str = ""
    count: int = 0
    value: Annotated[str, Indexed] = ""
    key: Annotated[str | None, Unique] = None
    group: str = ""


MODELS: tuple[type[KeyedModel], ...] = (
    Sample,
    Country,
    Author,
    Book,
    Review,
    Mention,
    Folder,
    Note,
    Article,
    Ticket,
    Reply,
    Clause,
)
