"""Whatever the policy, the user and the rows: what happens is what a model says, which loops over rules and rows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry import MultiTenantSDK
from tenantry.context import TenantContext
from tenantry.errors import AccessDenied, FieldHidden, NotFound, TenantryError, UniqueViolation
from tenantry.ports import Insert
from tenantry.schema import CARRIED, collection_of
from tenantry.security.access.policy import Action
from tenantry.types import Record, TenantId, uuid7
from tests.security.documents import ACTIONS, OWN, VALUES, Document, asker, values, world

SEEDS = st.integers(0, 2**32)
DOCUMENTS = collection_of(Document)
UNCHECKED = TenantContext(TenantId("acme"))
_DEFAULTS: dict[str, Any] = {"title": ""}


def few(number: int) -> settings:
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))


@few(120)
@given(seed=SEEDS)
def test_in_memory(seed: int) -> None:
    asyncio.run(play("memory://", seed))


def test_on_sqlite(tmp_path: Path) -> None:
    """SQL decides there what the model decides in Python; the conformance suite does the same on PostgreSQL."""
    for seed in range(6):
        asyncio.run(play(f"sqlite:///{tmp_path}/{seed}.db", seed))


async def play(url: str, seed: int) -> None:
    """Let one user try everything under one policy."""
    dice = random.Random(seed)
    stage = Stage(dice)
    options: dict[str, Any] = {"models": [Document], "schema": "create", "env": {}}
    async with MultiTenantSDK.open(url, access=stage.world.policy(), **options) as sdk:
        await stage.fill(sdk)
        await stage.read()
        await stage.explain()
        for _ in range(8):
            await dice.choice([stage.update, stage.delete, stage.create, stage.upsert])()
            assert await stage.stored() == stage.rows
        await stage.read()


class Stage:
    """One policy, one user and some rows."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.world, self.who = world(dice), asker(dice)
        self.rows: dict[Any, Record] = {}

    async def fill(self, sdk: MultiTenantSDK) -> None:
        """Store rows below the policy."""
        assert sdk._database is not None
        self.sdk, self.below = sdk, sdk._database
        await sdk.tenants.create("acme")
        self.data = sdk.tenant("acme", user=self.who.id, claims=self.who.claims).data
        records = [DOCUMENTS.to_record(Document(**values(self.dice))) for _ in range(6)]
        await self.below.execute(UNCHECKED, [Insert(DOCUMENTS, records)])
        self.rows = {record["id"]: own(record) for record in records}

    async def stored(self) -> dict[Any, Record]:
        async with self.sdk.system(reason="look", tenant="acme") as system:
            return {row["id"]: own(row) for row in await system.data.read("documents")}

    def seen(self, action: str, row: Record | None) -> frozenset[str] | None:
        return self.world.fields(self.who, action, row)

    def reached(self, action: str, through: frozenset[str]) -> list[Any]:
        """Return the ids of the rows in which all these fields are allowed."""
        allowed = {id: self.seen(action, row) for id, row in self.rows.items()}
        return [id for id, fields in allowed.items() if fields is not None and through <= fields]

    def refused(self, action: str, through: frozenset[str]) -> type[TenantryError] | None:
        """Return the error of a call that needs these fields in some row."""
        some = self.seen(action, None)
        if some is None:
            return AccessDenied
        return None if through <= some else FieldHidden

    # -- reading

    async def read(self) -> None:
        """All rows, some rows, in some order, some fields of them; counted; one by one."""
        field, other = self.dice.sample(OWN, 2)
        value = self.dice.choice(VALUES[field])
        order = self.dice.choice(["", "-"]) + other
        await self.reads(frozenset(), None)
        await self.reads(frozenset(), None, where={field: value})
        await self.reads(frozenset(), [field, other])
        await self.reads(frozenset({other}), None, where={field: {"ne": value}}, order_by=order)
        await self.reads(
            frozenset(), [field], where={"or": [{field: value}, {other: None}]}, order_by="created_at"
        )
        for id, row in self.rows.items():
            fields = self.seen("read", row)
            found = await outcome(self.data.get("documents", id))
            if fields is None:
                assert found is (self.refused("read", frozenset()) or NotFound)
            else:
                assert own(found) == only(row, fields)
                assert not hasattr(await self.data.get(Document, id), "cost") or "cost" in fields

    async def reads(self, through: frozenset[str], fields: list[str] | None, **query: Any) -> None:
        where = query.get("where")
        through |= named(where) | frozenset(fields or ())
        found = await outcome(self.data.read("documents", fields=fields, **query))
        counted = await outcome(self.data.count("documents", where))
        refused = self.refused("read", through)
        if refused is not None:
            assert found is refused
            return
        wanted = [id for id in self.reached("read", through) if meets(self.rows[id], where)]
        if fields is not None:
            assert listed(found, fields) == listed((self.rows[id] for id in wanted), fields)
            assert all(not set(row) - {*fields, *CARRIED} for row in found)
            return
        shown = {id: only(self.rows[id], self.seen("read", self.rows[id]) or CARRIED) for id in wanted}
        assert {row["id"]: own(row) for row in found} == shown
        without = [id for id in self.reached("read", named(where)) if meets(self.rows[id], where)]
        assert counted == len(without)

    # -- writing

    async def update(self) -> None:
        id = self.dice.choice([*self.rows, uuid7()])
        field = self.dice.choice(OWN)
        changes = {field: self.dice.choice(VALUES[field] if field != "title" else ("a", "b", "c"))}
        done = await outcome(self.data.update("documents", id, changes))
        self.expect_update(done, id, changes, frozenset(changes), NotFound)

    def expect_update(
        self, done: Any, id: Any, changes: Record, through: frozenset[str], outside: type[TenantryError]
    ) -> None:
        refused = self.refused("update", through)
        if refused is not None:
            assert done is refused
        elif id not in self.reached("update", through):
            assert done is outside
        elif not through <= (self.seen("update", self.rows[id] | changes) or set()):
            assert done is AccessDenied
        else:
            self.rows[id] = self.rows[id] | changes
            assert own(done) == only(self.rows[id], self.seen("read", self.rows[id]) or CARRIED)

    async def delete(self) -> None:
        id = self.dice.choice([*self.rows, uuid7()])
        done = await outcome(self.data.delete("documents", id))
        if id in self.reached("delete", frozenset()):
            assert done is None
            del self.rows[id]
        else:
            assert done is (self.refused("delete", frozenset()) or NotFound)

    async def create(self) -> None:
        given = {
            name: self.dice.choice(VALUES[name]) for name in self.dice.sample(OWN, self.dice.randint(0, 5))
        }
        id = uuid7()
        done = await outcome(self.data.create("documents", {"id": id, **given}))
        self.expect_create(done, id, given)

    def creatable(self, given: Record) -> type[TenantryError] | None:
        row = whole(given)
        through = frozenset(name for name in OWN if row[name] != _DEFAULTS.get(name))
        refused = self.refused("create", through)
        if refused is not None:
            return refused
        allowed = self.seen("create", row)
        return AccessDenied if allowed is None or not through <= allowed else None

    def expect_create(self, done: Any, id: Any, given: Record) -> None:
        refused = self.creatable(given)
        if refused is not None:
            assert done is refused
            return
        self.rows[id] = whole(given)
        assert own(done) == only(self.rows[id], self.seen("read", self.rows[id]) or CARRIED)

    async def upsert(self) -> None:
        id = self.dice.choice([*self.rows, uuid7()])
        given = {
            name: self.dice.choice(VALUES[name]) for name in self.dice.sample(OWN, self.dice.randint(1, 3))
        }
        done = await outcome(self.data.upsert("documents", {"id": id, **given}))
        refused = (
            self.refused("create", frozenset())
            or self.refused("update", frozenset())
            or self.creatable(given)
            or self.refused("update", frozenset(given))
        )
        if refused is not None:
            assert done is refused
        elif id in self.rows:
            self.expect_update(done, id, given, frozenset(given), UniqueViolation)
        else:
            self.expect_create(done, id, given)

    # -- explaining

    async def explain(self) -> None:
        """The explanation of each action, on the collection and on each row, is what then happens."""
        for action in ACTIONS:
            told = await self.told(action)
            assert told.allowed == (self.seen(action, None) is not None)
            assert set(told.visible) == (self.seen("read", None) or set())
            for id, row in self.rows.items():
                if action == "create":
                    continue
                told = await self.told(action, id)
                assert told.allowed == (self.seen(action, row) is not None)
                assert set(told.visible) == (self.seen("read", row) or set())
                assert set(told.visible) | set(told.hidden) == set(DOCUMENTS.fields)
                if action == "update":
                    assert set(told.writable) == (self.seen("update", row) or CARRIED) - CARRIED

    async def told(self, action: Any, id: Any = None) -> Any:
        wanted: Action = action
        return await self.sdk.explain_access(
            "acme", wanted, Document, id, user=self.who.id, claims=self.who.claims
        )


async def outcome(call: Any) -> Any:
    """Return what a call gives, or the class of its error."""
    try:
        return await call
    except TenantryError as error:
        return type(error)


def own(row: Record) -> Record:
    return {name: value for name, value in row.items() if name in OWN}


def only(row: Record, names: Any) -> Record:
    return {name: value for name, value in row.items() if name in names}


def listed(rows: Iterable[Record], fields: list[str]) -> list[str]:
    return sorted(repr([row[name] for name in fields]) for row in rows)


def whole(given: Record) -> Record:
    return {name: given.get(name, _DEFAULTS.get(name)) for name in OWN}


def named(where: Any) -> frozenset[str]:
    if where is None:
        return frozenset()
    parts = where.get("or", [where])
    return frozenset(name for part in parts for name in part)


def meets(row: Record, where: Any) -> bool:
    """Whether a row meets one of the filters above."""
    if where is None:
        return True
    if "or" in where:
        return any(meets(row, part) for part in where["or"])
    [(name, wanted)] = where.items()
    if isinstance(wanted, dict):
        if wanted["ne"] is None:
            return row[name] is not None
        return row[name] is not None and row[name] != wanted["ne"]
    return bool(row[name] == wanted)
