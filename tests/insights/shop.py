"""What the tests of the insights ask for."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any

import pydantic

from tenantry import Indexed, Model, Ref, Unique
from tenantry.context import TenantContext
from tenantry.hooks import Operation, Verb
from tenantry.insights.counts import Counted, Counts
from tenantry.insights.histogram import bucket_of
from tenantry.insights.shape import Shape
from tenantry.ports import Plan
from tenantry.query import And, Filter, Query, Sort
from tenantry.schema import collection_of
from tenantry.types import TenantId


class Author(Model):
    __collection__ = "authors"

    name: str


class Article(Model):
    __collection__ = "articles"
    __indexes__ = (("status", "title"),)

    author_id: Annotated[uuid.UUID | None, Ref("authors", enforced=False)] = None
    slug: Annotated[str, Unique]
    title: str = ""
    status: str = "new"
    kind: Annotated[str, Indexed] = ""
    words: int = 0
    price: Decimal = Decimal(0)
    published: dt.datetime | None = None
    tags: list[str] = pydantic.Field(default_factory=list)
    details: dict[str, Any] = pydantic.Field(default_factory=dict)


ARTICLES = collection_of(Article)
AUTHORS = collection_of(Author)
COLLECTIONS = {"articles": ARTICLES, "authors": AUTHORS}
MODELS = [Author, Article]


def operation(
    verb: Verb = "read",
    where: Filter = And(()),  # noqa: B008 - frozen
    *,
    order: tuple[str, ...] = (),
    tenant: str = "acme",
    request: str | None = None,
    rows: int = 1,
    seconds: float = 0.001,
    limit: int | None = 11,
) -> Operation:
    """Return an operation on articles as the hooks see it."""
    query = None
    if verb in ("read", "count"):
        fields = ARTICLES.fields
        sorts = tuple(Sort(fields[name.removeprefix("-")], name.startswith("-")) for name in order)
        query = Query(ARTICLES, tuple(fields.values()), where, sorts, limit)
    context = TenantContext(TenantId(tenant), request_id=request)
    return Operation(verb, ARTICLES, context, rows=rows, seconds=seconds, query=query)


def counted(
    text: str = "read articles",
    *,
    verb: str = "read",
    collection: str = "articles",
    equal: tuple[str, ...] = (),
    ranges: tuple[str, ...] = (),
    order: tuple[str, ...] = ("id",),
    patterns: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    limited: bool = True,
    seconds: float = 0.2,
    rows: int = 10,
    plan: Plan | None = None,
    **more: Any,
) -> Counted:
    """Return a shape that was asked ten times, each in ``seconds`` and for ``rows`` rows."""
    shape = Shape(verb, collection, text, equal, ranges, order, patterns, others, limited)
    latency = {bucket_of(seconds): 10}
    counts = Counts(10, 0, 10 * seconds, 10 * rows, rows, latency, plan=plan, **more)
    return Counted(shape, counts)


WASTE = Plan("Seq Scan", None, scanned=20_000, kept=20)
