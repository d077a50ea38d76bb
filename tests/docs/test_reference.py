"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest

import tenantry
import tenantry.alembic
import tenantry.django
import tenantry.http
import tenantry.insights
import tenantry.scan
import tenantry.testing
from tenantry import MultiTenantSDK, errors
from tenantry.config import Settings, load_settings
from tenantry.data import DataManager
from tenantry.errors import ConfigurationError, InvalidQuery
from tenantry.http import problem
from tenantry.insights import Insights
from tenantry.scan import Kind
from tenantry.schema import KeyedModel
from tenantry.schema import Kind as FieldKind
from tenantry.tenants import TenantManager
from tests.docs.commands import leaves
from tests.docs.pages import ROOT, codes, page, rows, tables

CONFIGURATION = page("configuration")
MODELS = page("models-and-types")
OPERATIONS = page("operations")
QUERIES = page("queries")
REFERENCE = page("reference")
OPERATORS = tables(QUERIES.section("Operators"))[0]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Give what the examples in the tables may name: the models of the page, and what tenantry exports."""
    block = next(block for block in QUERIES.blocks if block.title == "models.py")
    found: dict[str, Any] = {name: getattr(tenantry, name) for name in tenantry.__all__}
    exec(compile(block.text, str(QUERIES.path), "exec", dont_inherit=True), found)  # noqa: S102 - the page is our own
    return found


@pytest.fixture
async def sdk(names: dict[str, Any]) -> AsyncIterator[MultiTenantSDK]:
    models: list[type[KeyedModel]] = [names["Product"], names["Category"]]
    async with MultiTenantSDK.open("memory://", models=models, env={}) as sdk:
        await sdk.tenants.create("acme")
        data = sdk.tenant("acme").data
        await data.create("products", {"name": "Lamp", "sku": "L1", "price": 39, "category_id": "light"})
        await data.create("products", {"name": "lamp", "sku": "D1", "price": 40})
        await data.create("products", {"name": "Desk", "sku": "D2", "price": 450})
        yield sdk


@pytest.mark.parametrize("row", OPERATORS, ids=lambda row: row[0])
async def test_both_spellings_of_an_operator_are_one_filter(
    row: list[str], names: dict[str, Any], sdk: MultiTenantSDK
) -> None:
    (written,), (called,) = codes(row[1]), codes(row[2])
    data = sdk.tenant("acme").data
    asked = await data.read(names["Product"], json.loads(written))
    assert 0 < len(asked) < 3
    assert asked == await data.read(names["Product"], eval(f"lambda p: {called}", dict(names)))  # noqa: S307


async def test_each_operator_is_documented(sdk: MultiTenantSDK) -> None:
    with pytest.raises(InvalidQuery) as caught:
        await sdk.tenant("acme").data.read("products", {"name": {"unknown": 1}})
    known = (caught.value.fix or "").removeprefix("Known: ").removesuffix(".").split(", ")
    assert sorted(name for row in OPERATORS for name in codes(row[0])) == sorted(known)


@pytest.mark.parametrize("row", rows(QUERIES.section("Errors")), ids=lambda row: row[0])
async def test_error_is_the_documented_one(
    row: list[str], names: dict[str, Any], sdk: MultiTenantSDK
) -> None:
    data = sdk.tenant("acme").data
    (call,), (path,) = codes(row[0]), codes(row[1])
    with pytest.raises(InvalidQuery) as caught:
        await eval(f"data.{call}", {**names, "data": data})  # noqa: S307 - the page is our own
    assert caught.value.path == path
    assert caught.value.message == f"{path}: {row[2]}"


@pytest.mark.parametrize("row", rows(QUERIES.section("Limits")), ids=lambda row: row[0])
async def test_what_exceeds_a_limit_is_refused(
    row: list[str], names: dict[str, Any], sdk: MultiTenantSDK
) -> None:
    for call in codes(row[2]):
        with pytest.raises(InvalidQuery):
            await eval(f"data.{call}", {**names, "data": sdk.tenant("acme").data, "reduce": functools.reduce})  # noqa: S307


# --- names, calls, errors ------------------------------------------------------------------------


def test_each_public_name_is_documented() -> None:
    documented = [name for row in rows(REFERENCE.section("Names in `tenantry`")) for name in codes(row[0])]
    assert sorted(documented) == sorted(tenantry.__all__)


@pytest.mark.parametrize(
    ("section", "owner"),
    [
        ("sdk", MultiTenantSDK),
        ("data", DataManager),
        ("sdk.tenants", TenantManager),
        ("sdk.insights", Insights),
    ],
)
def test_each_call_is_documented_with_its_parameters(section: str, owner: type) -> None:
    documented = {}
    for row in rows(REFERENCE.section(section)):
        found = re.fullmatch(r"(?:await )?\w+\.(\w+)(?:\((.*)\))?", codes(row[0])[0])
        assert found, row[0]
        documented[found[1]] = found[2]
    public = {name: member for name, member in inspect.getmembers_static(owner) if not name.startswith("_")}
    assert sorted(documented) == sorted(public)
    for name, member in public.items():
        if not isinstance(member, property):
            assert documented[name] == _parameters(inspect.unwrap(getattr(owner, name))), name


def _parameters(function: Callable[..., Any]) -> str:
    """Return a signature as the page writes it: without types, and without what the call itself supplies."""
    signature = inspect.signature(function)
    given = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    return str(inspect.Signature(given)).removeprefix("(").removesuffix(")").replace("'", '"')


def test_each_error_is_documented() -> None:
    documented = {codes(row[0])[0]: codes(row[2]) for row in rows(REFERENCE.section("Errors"))}
    public = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert sorted(documented) == sorted(public)
    for name, attributes in documented.items():
        source = "".join(inspect.getsource(kind) for kind in public[name].__mro__ if kind.__name__ in public)
        missing = [attribute for attribute in attributes if f"self.{attribute} =" not in source]
        assert not missing, (name, missing)


@pytest.mark.parametrize("row", rows(page("fastapi").section("Errors")), ids=lambda row: row[1])
def test_the_status_of_an_error_is_the_documented_one(row: list[str]) -> None:
    for name in codes(row[0]) or ["IsolationError"]:
        kind = getattr(errors, name)
        error = kind.__new__(kind)
        error.message = "what happened"
        assert str(problem(error).status) == row[1][:3], name


@pytest.mark.parametrize(
    ("module", "pages"),
    [
        (tenantry.alembic, ["migrations"]),
        (tenantry.django, ["django"]),
        (tenantry.http, ["fastapi", "web"]),
        (tenantry.insights, ["insights"]),
        (tenantry.scan, ["scan"]),
        (tenantry.testing, ["testing"]),
    ],
    ids=["alembic", "django", "http", "insights", "scan", "testing"],
)
def test_each_name_of_the_other_modules_is_documented(module: ModuleType, pages: list[str]) -> None:
    text = "".join(page(name).text for name in pages)
    assert not [exported for exported in module.__all__ if not re.search(rf"\b{exported}\b", text)]


# --- configuration -------------------------------------------------------------------------------


def test_each_option_is_documented_with_its_default() -> None:
    documented = {
        codes(row[0])[0]: codes(row[1])[0] if codes(row[1]) else "none"
        for section in Settings.model_fields
        for row in rows(CONFIGURATION.section(section))
    }
    actual = {}
    for section, default in Settings():
        for option, value in default:
            shown = json.dumps(value) if isinstance(value, str) else str(value)
            actual[f"{section}.{option}"] = "none" if str(value) in ("", "None") else shown
    assert documented == actual


@pytest.mark.parametrize("row", rows(CONFIGURATION.section("Refused until built")), ids=lambda row: row[0])
def test_an_option_of_a_part_not_built_is_refused_by_name(row: list[str]) -> None:
    section, _, option = codes(row[0])[0].partition(".")
    with pytest.raises(ConfigurationError, match="not built yet") as caught:
        load_settings({section: {option: 1} if option else {}}, env={})
    assert caught.value.field == codes(row[0])[0]


# --- models --------------------------------------------------------------------------------------


def test_each_kind_of_field_and_each_marker_is_documented() -> None:
    kinds = {row[1] for row in rows(MODELS.section("Kinds of fields"))}
    assert kinds == {kind.value for kind in FieldKind}
    markers = {codes(row[0])[0].partition("(")[0] for row in tables(MODELS.section("Markers"))[0]}
    assert markers == {"Encrypted", "Indexed", "PII", "Ref", "RenamedFrom", "Searchable", "Shared", "Unique"}


# --- the command line ----------------------------------------------------------------------------


def test_each_command_is_documented() -> None:
    documented = {codes(row[0])[0] for row in rows(OPERATIONS.section("The command line"))}
    assert documented == {f"tenantry {name}" for name, _ in leaves()}


def test_each_option_of_init_is_documented() -> None:
    documented = {codes(row[0])[0].split()[0] for row in rows(OPERATIONS.section("Prepare a database"))}
    options = dict(leaves())["init"] - {"--admin-url", "--json", "--help"}
    assert documented == options


def test_each_option_of_scan_is_documented() -> None:
    text = page("scan").section("Scan your own application") + page("scan").section("What is sent")
    documented = {name for row in rows(text) for name in codes(row[0])}
    assert documented == dict(leaves())["scan"] - {"--help"}


def test_each_kind_of_leak_is_documented() -> None:
    documented = {codes(row[0])[0]: row[1] for row in rows(page("scan").section("What it finds"))}
    assert documented == {kind.label: kind.severity.value for kind in Kind}


def test_each_finding_of_the_doctor_is_documented() -> None:
    documented = {code for row in rows(OPERATIONS.section("Doctor")) for code in codes(row[0])}
    source = ROOT / "src" / "tenantry"
    paths = [*source.glob("cli/*.py"), *source.glob("databases/postgres/*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    given = set(re.findall(r'(?:"error"|"warning"|severity|level),\s*"([a-z-]+)",', text))
    elsewhere = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text))
    attributes = {f"role-{name.lower()}" for name in re.findall(r'"([A-Z]+)": \(', text)}
    assert given | attributes <= documented
    assert documented <= given | attributes | elsewhere
