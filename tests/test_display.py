"""How things look at a prompt and in a notebook: useful, escaped, and without secrets."""

from __future__ import annotations

import builtins
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tenantry import MultiTenantSDK, Page, TenantHandle
from tenantry.errors import ConfigurationError, MissingExtra
from tenantry.sdk import _address
from tenantry.testing.models import MODELS, Book, Note

HOSTILE = "<script>alert('x')</script>\" onload=\"y"


@pytest.fixture
async def sdk() -> AsyncIterator[MultiTenantSDK]:
    async with MultiTenantSDK.open("memory://", models=MODELS, env={}) as sdk:
        await sdk.tenants.create("acme", name=HOSTILE, settings={"key": "s3cret"})
        yield sdk


@pytest.fixture
def acme(sdk: MultiTenantSDK) -> TenantHandle:
    return sdk.tenant("acme", user=HOSTILE, claims={"token": "s3cret"})


# -- at a prompt


def test_a_page_shows_its_rows_and_of_many_the_first() -> None:
    assert repr(Page([{"a": 1}], "c")) == "Page(items=[{'a': 1}], next_cursor='c', included={})"
    ids = {"maker": {number: {"id": number} for number in range(12)}}
    shown = repr(Page([{"n": number} for number in range(12)], None, ids))
    assert shown.endswith("{'n': 9}, … and 2 more], next_cursor=None, included={'maker': '12 rows'})")
    assert repr(Page([])) == "Page(items=[], next_cursor=None, included={})"


async def test_nothing_shows_a_secret(sdk: MultiTenantSDK, acme: TenantHandle) -> None:
    tenant = await sdk.tenants.get("acme")
    page = await sdk.tenants.list()
    for thing in (sdk, acme, tenant, page):
        shown = repr(thing) + str(thing) + thing._repr_html_()
        assert "acme" in shown or thing is sdk
        assert "s3cret" not in shown
        assert "<script>" not in thing._repr_html_()
        assert '" onload' not in thing._repr_html_()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://app:s3cret@db.example:5433/shop?sslpassword=s3cret",
            "postgresql://db.example:5433/shop",
        ),
        ("postgresql://app:s3/cret@db.example/shop", "postgresql://…"),
        ("postgresql://app:5432/s3cret@db.example/shop", "postgresql://…"),
        ("postgresql://app:s3#cret@db.example/shop", "postgresql://…"),
        ("postgresql://app:s3?cret@db.example/shop", "postgresql://…"),
        ("sqlite:///app.db", "sqlite:///app.db"),
        ("memory://", "memory://"),
    ],
)
def test_an_address_has_no_password(url: str, shown: str) -> None:
    assert _address(url) == shown
    assert "cret" not in _address(url)


# -- in a notebook


def test_a_page_is_an_escaped_table() -> None:
    shown = Page([{HOSTILE: HOSTILE}, {"b": None}])._repr_html_()
    assert shown.count("<tr>") == 3
    assert "<script>" not in shown
    assert '" onload' not in shown
    assert "<td></td>" in shown
    long = Page([{"text": "x" * 10_000}] * 100)._repr_html_()
    assert len(long) < 20_000
    assert "the first 60 are shown" in long


# -- data frames


@dataclass
class Line:
    title: str
    copies: int


async def test_a_page_becomes_a_data_frame(acme: TenantHandle) -> None:
    books = (
        await acme.data.bulk_create(
            [Book(title="Emma", copies=2), Book(title="Persuasion", isbn="1")], atomic=True
        )
    ).rows
    page = await acme.data.read(Book, order_by="title")
    frame = page.to_df()
    assert list(frame["title"]) == ["Emma", "Persuasion"]
    assert frame["id"][0] == books[0].id
    assert list(frame.columns) == list(books[0].model_dump())
    lines = (await acme.data.read(Book, into=Line, order_by="title")).to_df()
    assert lines.to_dict("records") == [{"title": "Emma", "copies": 2}, {"title": "Persuasion", "copies": 0}]
    other = page.to_df("polars")
    assert other["id"].to_list() == [str(book.id) for book in books]
    assert other.select("title", "copies").rows() == [("Emma", 2), ("Persuasion", 0)]
    assert (len(Page[Note]([]).to_df()), len(Page[Note]([]).to_df("polars"))) == (0, 0)


def test_records_of_different_fields_are_one_frame() -> None:
    rows: Page[dict[str, Any]] = Page([{"a": 1}, {"b": Decimal("1.5")}, {"a": None, "c": uuid.UUID(int=1)}])
    assert list(rows.to_df().columns) == ["a", "b", "c"]
    assert rows.to_df("polars").shape == (3, 3)
    assert list(Page([1, 2]).to_df()["value"]) == [1, 2]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_library_that_is_missing_names_its_extra(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == library:
            raise ModuleNotFoundError(name=library)
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=rf"pip install 'tenantry\[{library}\]'"):
        Page([{"a": 1}]).to_df(library)


def test_another_library_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Page([]).to_df("numpy")  # type: ignore[call-overload]
    assert caught.value.field == "library"
