"""A library kept with SQLAlchemy's ORM: references, a tree, a link table with two ends, cascades of both kinds."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from tenantry import PII, Searchable
from tenantry.orm import KeyedTenantMixin, SharedMixin, TenantMixin


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Base(DeclarativeBase):
    """The application's own base."""


class Language(SharedMixin, Base):
    __tablename__ = "languages"

    id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    name: Mapped[str]


class Author(TenantMixin, Base):
    __tablename__ = "authors"

    name: Mapped[Annotated[str, Searchable]] = mapped_column(index=True)
    email: Mapped[Annotated[str | None, PII]] = mapped_column(unique=True)
    mentor_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("authors.id"))
    mentor: Mapped[Author | None] = relationship(remote_side="Author.id", back_populates="pupils")
    pupils: Mapped[list[Author]] = relationship(back_populates="mentor", order_by="Author.name")
    books: Mapped[list[Book]] = relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.title"
    )


class Tag(TenantMixin, Base):
    __tablename__ = "tags"

    word: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(secondary="book_tags", back_populates="tags")


class Book(TenantMixin, Base):
    __tablename__ = "books"
    __table_args__ = (sa.UniqueConstraint("author_id", "title"), sa.Index("by_price", "price", "title"))

    title: Mapped[str]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    copies: Mapped[int] = mapped_column(default=1)
    printed: Mapped[dt.date | None]
    sold_at: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    colour: Mapped[Colour] = mapped_column(
        sa.Enum(Colour, native_enum=False, values_callable=lambda kind: [member.value for member in kind]),
        default=Colour.RED,
    )
    details: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)
    cover: Mapped[bytes | None]
    weight: Mapped[float | None]
    author_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("authors.id"))
    language_id: Mapped[str | None] = mapped_column(sa.ForeignKey("languages.id"))
    author: Mapped[Author] = relationship(back_populates="books")
    language: Mapped[Language | None] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary="book_tags", back_populates="books", order_by="Tag.word")
    reviews: Mapped[list[Review]] = relationship(back_populates="book", passive_deletes=True)


class BookTag(TenantMixin, Base):
    __tablename__ = "book_tags"
    __table_args__ = (sa.UniqueConstraint("book_id", "tag_id"),)

    book_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("books.id", ondelete="CASCADE"))
    tag_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("tags.id", ondelete="CASCADE"))


class Review(KeyedTenantMixin, Base):
    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stars: Mapped[int]
    book_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("books.id", ondelete="CASCADE"))
    book: Mapped[Book] = relationship(back_populates="reviews")


# Of all authors, as far as the database shows any.
Author.everybody = column_property(
    sa.select(sa.func.count()).select_from(sa.alias(Author.__table__)).scalar_subquery(), deferred=True
)

MODELS = [Language, Author, Tag, Book, BookTag, Review]
TABLES = ["authors", "tags", "books", "book_tags", "reviews"]
