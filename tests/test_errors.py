"""The tree of errors: drawn as it is, telling what to do, surviving a journey, and keeping secrets."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from tenantry import Model, MultiTenantSDK, errors
from tenantry.errors import TenantryError

CLASSES = [
    item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, TenantryError)
]

ARGUMENTS: dict[str, Any] = {
    "message": "It went wrong.",
    "errors": (TenantryError("It went wrong."),),
    "total": 3,
    "fix": "Do this.",
    "package": "asyncpg",
    "extra": "postgres",
    "what": "This call",
    "tenant_id": "acme",
    "current": "active",
    "wanted": "purged",
    "remaining": {"books": 2},
    "path": "where.price",
    "field": "price",
    "name": "books",
    "known": ["notes"],
    "collection": "books",
    "id": 5,
    "expected": 1,
    "fields": ["isbn"],
    "key": "k",
    "reason": "expired",
    "quota": "rows",
    "used": 5,
    "limit": 5,
    "plan": "free",
    "retry_after": 3.0,
    "suggestion": "book",
    "differences": ["table books is missing"],
    "action": "update",
    "roles": ["viewer"],
    "nothing_written": True,
}


def made(cls: type[TenantryError]) -> TenantryError:
    """Return an error of the class, with every argument given."""
    parameters = [p for name, p in inspect.signature(cls).parameters.items() if name != "self"]
    positional = [ARGUMENTS[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = {p.name: ARGUMENTS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    if cls is errors.Conflict:
        keywords["current"] = 3
    return cls(*positional, **keywords)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:[│├└─ ]   ?)*)(?:[├└]── )?([A-Z]\w+)", line)
        if not found:
            continue
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4 - 1
        path[depth:] = [found[2]]
        if depth:
            drawn[found[2]] = path[depth - 1]
    actual = {cls.__name__: cls.__mro__[1].__name__ for cls in CLASSES if cls is not TenantryError}
    assert drawn == actual


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
class TestEach:
    def test_it_says_what_happened_in_a_sentence(self, cls: type[TenantryError]) -> None:
        text = str(made(cls))
        assert text[-1] in ".'"
        assert text.count("  ") == 0 or cls is errors.SchemaMismatch

    def test_it_is_documented(self, cls: type[TenantryError]) -> None:
        assert cls.__doc__
        assert cls.__doc__.strip().split("\n")[0].endswith(".")

    def test_it_survives_pickling_and_copying(self, cls: type[TenantryError]) -> None:
        error = made(cls)
        pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was pickled here
        for again in (pickled, copy.copy(error), copy.deepcopy(error)):
            assert type(again) is cls
            assert str(again) == str(error)
            assert repr(vars(again)) == repr(vars(error))  # an error equals itself only
            assert again.args == error.args

    def test_every_argument_is_an_attribute(self, cls: type[TenantryError]) -> None:
        error = made(cls)
        renamed = {
            "expected": "expected_version",
            "package": "message",
            "extra": "fix",
            "what": "message",
            "known": "fix",
        }
        if cls is errors.Conflict:
            renamed["current"] = "current_version"
        for name in inspect.signature(cls).parameters:
            assert hasattr(error, renamed.get(name, name))


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.InvalidTenantId, ValueError),
        (errors.InvalidRequest, ValueError),
        (errors.OperationTimeout, TimeoutError),
    ],
)
def test_they_are_what_python_calls_such_errors(cls: type[TenantryError], builtin: type[Exception]) -> None:
    assert issubclass(cls, builtin)


SECRET = "hunter2-s3cret"


@pytest.mark.parametrize(
    "options",
    [
        {"url": f"postgresql://app:{SECRET}@localhost/db"},
        {"url": f"postgresql://app:{SECRET}@localhost/db", "seal_key": SECRET},
        {"url": f"postgresql://app:{SECRET}@localhost/db", "seal_key": f"k1:{SECRET}", "control_url": SECRET},
        {"url": f"sqlite://user:{SECRET}@host/db"},
        {"url": f"sqlite:///nowhere/{'x' * 300}/app.db", "seal_key": SECRET, "raw_url": SECRET},
        {"url": f"mysql://root:{SECRET}@localhost/db"},
        {"url": "memory://", "pool_size": SECRET},
        {"url": "memory://", "schema_mode": SECRET},
        {"url": ["postgresql://app", SECRET]},
        {"url": "memory://", "seal_key": {"k": SECRET}},
        {"url": "memory://", "nothing": SECRET},
    ],
    ids=str,
)
async def test_no_secret_is_in_an_error_of_the_configuration(options: dict[str, Any]) -> None:
    class Thing(Model):
        __collection__ = "things"

    try:
        async with MultiTenantSDK.open(models=[Thing], database=options, schema="create", env={}) as sdk:
            told = repr(sdk) + repr(vars(sdk))
    except TenantryError as error:
        told = "".join(_chain(error))
    assert SECRET not in told


def _chain(error: BaseException | None) -> list[str]:
    """Return all that is said by an error and by those behind it."""
    if error is None:
        return []
    shown = [] if error.__suppress_context__ else _chain(error.__context__)
    return [str(error), repr(error), *_chain(error.__cause__), *shown]
