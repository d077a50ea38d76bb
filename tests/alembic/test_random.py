"""Whatever the models were and whatever they become: one revision, and nothing is left to find."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model

from tenantry import Indexed, KeyedModel, Model, Ref, Shared, Unique
from tests.alembic.catalog import dump
from tests.alembic.conftest import Project


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


KINDS: dict[str, tuple[Any, Any]] = {
    "text": (str, ""),
    "int": (int, 0),
    "decimal": (Decimal, Decimal(0)),
    "money": (Annotated[Decimal, Field(max_digits=12, decimal_places=2)], Decimal(0)),
    "float": (float, 0.0),
    "bool": (bool, False),
    "date": (dt.date, dt.date(2026, 1, 1)),
    "datetime": (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    "uuid": (uuid.UUID, uuid.UUID(int=0)),
    "bytes": (bytes, b""),
    "enum": (Color, Color.RED),
    "json": (dict[str, Any], None),
    "list": (list[int], None),
}
MARKS = {"unique": Unique, "indexed": Indexed}
fields = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(sorted(KINDS)),
        "nullable": st.booleans(),
        "marks": st.sets(st.sampled_from(sorted(MARKS)), max_size=2),
        "default": st.booleans(),
    }
)
collections = st.fixed_dictionaries(
    {
        "fields": st.dictionaries(st.sampled_from("abcd"), fields, max_size=3),
        "ref": st.sampled_from([None, "first", "shared"]),
        "on_delete": st.sampled_from(["restrict", "cascade"]),
        "together": st.booleans(),
    }
)
schemas = st.dictionaries(st.sampled_from(["first", "second", "shared"]), collections, min_size=1)


def declared(schema: dict[str, Any]) -> list[type[KeyedModel]]:
    """Return models for a drawn schema."""
    return [model(name, drawn, schema) for name, drawn in schema.items()]


def model(name: str, drawn: dict[str, Any], schema: dict[str, Any]) -> type[KeyedModel]:
    columns: dict[str, Any] = {}
    for key, field in drawn["fields"].items():
        kind, default = KINDS[field["kind"]]
        marks = [] if field["kind"] in ("json", "list") else [MARKS[mark] for mark in sorted(field["marks"])]
        annotated: Any = Annotated
        annotation = annotated[(kind | None if field["nullable"] else kind, *marks, Field())]
        columns[key] = (annotation, default if field["default"] and default is not None else ...)
    target = drawn["ref"]
    if name == "second" and target in schema:
        columns["target"] = (Annotated[uuid.UUID | None, Ref(target, on_delete=drawn["on_delete"])], None)
    plain = [key for key, field in drawn["fields"].items() if field["kind"] not in ("json", "list")]
    together = (tuple(plain),) if drawn["together"] and len(plain) > 1 else ()
    bases = (Shared, Model) if name == "shared" else (Model,)
    declare: Any = create_model
    made: type[KeyedModel] = declare(f"M_{name}", __base__=bases, **columns)
    made.__collection__ = name
    made.__unique__ = together
    return made


@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(1500)
def test_from_any_models_to_any_others(make_project: Callable[[], Project], rounds: int) -> None:
    @settings(
        max_examples=rounds,
        deadline=None,
        derandomize=True,
        phases=[
            Phase.generate
        ],  # each example makes a database, so shrinking one takes longer than reading it
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(schemas, schemas)
    def check(old: dict[str, Any], new: dict[str, Any]) -> None:
        project = make_project()
        asyncio.run(step(project, declared(old), declared(new)))

    check()


async def step(project: Project, old: list[type[KeyedModel]], new: list[type[KeyedModel]]) -> None:
    await project.migrate(*old, allow=True)
    before = await dump(project, order=False)
    await project.migrate(*new, allow=True)
    async with project.sdk() as sdk:
        await sdk.tenants.create("acme")
    after = await dump(project, order=False)
    for _ in range(len(project.revisions) - 1):
        await project.downgrade("-1")
    assert await dump(project, order=False) == before
    await project.upgrade(allow=True)
    assert await dump(project, order=False) == after
