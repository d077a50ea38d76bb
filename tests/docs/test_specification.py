"""What `docs/specification.md` says of each call of the specification is so."""

from __future__ import annotations

import ast
import inspect
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from tenantry import Model, MultiTenantSDK, Searchable, TenantContext
from tenantry.errors import ConfigurationError
from tests.docs.pages import codes, page, rows

STATES = ("here", "refused", "not yet", "–")
ROWS = [row for row in rows(page("specification").text) if len(row) == 3]


class Product(Model):
    __collection__ = "products"

    name: Annotated[str, Searchable] = ""


@pytest.fixture
async def names() -> AsyncIterator[dict[str, Any]]:
    """Give what the expressions in the table may name."""
    async with MultiTenantSDK.open("memory://", models=[Product], env={}) as sdk:
        await sdk.tenants.create("acme")
        acme = sdk.tenant("acme")
        yield {
            "MultiTenantSDK": MultiTenantSDK,
            "TenantContext": TenantContext,
            "Product": Product,
            "acme": acme,
            "context": acme.context,
            "product": Product(),
            "sdk": sdk,
        }


def _expressions(row: list[str]) -> list[ast.expr]:
    """Return the calls and attributes in the middle cell; other code in it is an aside."""
    found: list[ast.expr] = []
    for code in codes(row[1]):
        try:
            expression = ast.parse(code, mode="eval").body
        except SyntaxError:
            continue
        if isinstance(expression, ast.Call | ast.Attribute) and _root(expression) in _ROOTS:
            found.append(expression)
    return found


_ROOTS = ("MultiTenantSDK", "TenantContext", "acme", "sdk")


def _root(expression: ast.expr) -> str:
    while not isinstance(expression, ast.Name):
        if isinstance(expression, ast.Call):
            expression = expression.func
        elif isinstance(expression, ast.Attribute):
            expression = expression.value
        else:
            return ""
    return expression.id


def test_every_row_has_a_state() -> None:
    assert not [row for row in ROWS if row[2] not in STATES]
    assert len(ROWS) > 80


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] == "here"], ids=lambda row: row[1][:60])
def test_what_is_here_exists(row: list[str], names: dict[str, Any]) -> None:
    for expression in _expressions(row):
        function = expression.func if isinstance(expression, ast.Call) else expression
        target = eval(ast.unparse(function), names)  # noqa: S307 - the page is our own
        if isinstance(expression, ast.Call):
            arguments = [None for _ in expression.args]
            options = {keyword.arg: None for keyword in expression.keywords if keyword.arg}
            inspect.signature(target).bind(*arguments, **options)


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] == "refused"], ids=lambda row: row[1][:60])
async def test_what_is_refused_is_refused_by_name(row: list[str], names: dict[str, Any]) -> None:
    expressions = _expressions(row)
    assert expressions
    for expression in expressions:
        with pytest.raises(ConfigurationError) as caught:
            await _evaluated(expression, names)
        assert caught.value.field


async def _evaluated(expression: ast.expr, names: dict[str, Any]) -> None:
    outcome = eval(ast.unparse(expression), names)  # noqa: S307 - the page is our own
    if inspect.isawaitable(outcome):
        await outcome


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] == "not yet"], ids=lambda row: row[1][:60])
def test_what_is_not_yet_there_is_not_there(row: list[str], names: dict[str, Any]) -> None:
    for expression in _expressions(row):
        function = expression.func if isinstance(expression, ast.Call) else expression
        with pytest.raises(AttributeError):
            eval(ast.unparse(function), names)  # noqa: S307


def test_what_is_done_without_a_context_takes_one(names: dict[str, Any]) -> None:
    """The specification's calls name their context; so can ours, all of them."""
    for name, member in inspect.getmembers(type(names["sdk"].data), inspect.isfunction):
        if not name.startswith("_") and name != "bind":
            assert "context" in inspect.signature(member).parameters, name
