"""A state machine that plays several tenants at once against one model each.

The SDK under test has all tenants in one database. Beside it every tenant has a database of its own, in memory, with
nobody else in it. Whatever the tenants do, in whatever order or at the same time, each must get the same answers and
the same errors from both. Run it with the ``config`` of a conformance suite::

    def test_machine():
        run_machine({"url": "mydb://localhost/test"})

How long it runs is a matter of the Hypothesis profile: ``max_examples`` lives of ``stateful_step_count`` steps.
"""

from __future__ import annotations

import asyncio
import enum
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import hypothesis
import pydantic
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tenantry.data import DataManager
from tenantry.errors import Conflict, InvalidQuery, NotFound, TenantryError, UniqueViolation
from tenantry.schema import MARK
from tenantry.sdk import MultiTenantSDK
from tenantry.testing.cleanup import forget
from tenantry.testing.conformance.setting import fresh
from tenantry.testing.models import MODELS
from tenantry.testing.operations import FIELDS, SHARED, Op, creation, operation
from tenantry.types import BulkOutcome, Hit, Page

T = TypeVar("T")

_TENANTS = 3
_PLAYER = st.integers(0, _TENANTS - 1)
_OP = st.integers(0, 2**32).map(operation)
_FURNITURE = st.tuples(_PLAYER, st.integers(0, 2**32).map(creation))
_UNTOLD = frozenset({"created_at", "updated_at"})  # two databases write at two moments


class Abandoned(Exception):
    """Ends a transaction that is to be undone."""


class Arena:
    """The database under test, open for as long as the machine runs, and an event loop of its own.

    Args:
        config: The arguments of ``MultiTenantSDK.open``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.sdk: MultiTenantSDK

    def __enter__(self) -> Self:
        self.sdk = self.run(self._open(self._config, self._stack))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the arena's event loop."""
        return self._runner.run(work)

    async def _open(self, config: Mapping[str, Any], stack: AsyncExitStack) -> MultiTenantSDK:
        options: dict[str, Any] = {"schema": "create", "models": MODELS, "env": {}, **config}
        sdk = await stack.enter_async_context(MultiTenantSDK.open(**options))
        async with sdk.system(reason="reference data") as system:
            for country in SHARED:
                await system.data.upsert(country)
        return sdk

    async def players(self, stack: AsyncExitStack) -> list[Player]:
        """Return new tenants, each with a model of its own."""
        players = []
        for number in range(_TENANTS):
            id = fresh(f"player{number}")
            model = await self._open({"url": "memory://"}, stack)
            for sdk in (self.sdk, model):
                await sdk.tenants.create(id)
            players.append(Player(id, self.sdk, model))
        return players


class Player:
    """One tenant: in the database under test, and alone in its model."""

    def __init__(self, id: str, sdk: MultiTenantSDK, model: MultiTenantSDK) -> None:
        self.id = id
        self._sdks = (sdk, model)

    async def play(self, call: Callable[[DataManager], Awaitable[Any]]) -> None:
        """Make the same call on both and compare what comes of it."""
        real, model = [await outcome(call(sdk.tenant(self.id).data)) for sdk in self._sdks]
        assert real == model, f"{self.id} got {real}, alone it gets {model}"

    async def move(self, call: Callable[[MultiTenantSDK], Awaitable[Any]]) -> None:
        """Change the tenant's status on both."""
        real, model = [await outcome(call(sdk)) for sdk in self._sdks]
        assert real[0] == model[0], f"{self.id} got {real}, alone it gets {model}"


class TenancyMachine(RuleBasedStateMachine):
    """Lets tenants act, one after the other, together, and in transactions."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self._arena = arena
        self._stack = AsyncExitStack()
        self._players = arena.run(arena.players(self._stack))

    @initialize(rows=st.lists(_FURNITURE, min_size=10, max_size=30))
    def furnish(self, rows: list[tuple[int, Op]]) -> None:
        """Tenants have rows to begin with."""
        for player, op in rows:
            self._arena.run(self._players[player].play(op.run))

    @rule(player=_PLAYER, op=_OP)
    def one(self, player: int, op: Op) -> None:
        """One tenant makes one call."""
        self._arena.run(self._players[player].play(op.run))

    @rule(player=_PLAYER, ops=st.lists(_OP, min_size=2, max_size=6))
    def several(self, player: int, ops: list[Op]) -> None:
        """One tenant makes several calls; it does so often enough to meet its own rows."""
        for op in ops:
            self._arena.run(self._players[player].play(op.run))

    @rule(ops=st.lists(_OP, min_size=_TENANTS, max_size=_TENANTS))
    def together(self, ops: list[Op]) -> None:
        """All tenants make a call at the same time."""

        async def play() -> None:
            calls = zip(self._players, ops, strict=True)
            await asyncio.gather(*(player.play(op.run) for player, op in calls))

        self._arena.run(play())

    @rule(
        player=_PLAYER,
        ops=st.lists(_OP, min_size=1, max_size=6),
        commit=st.booleans(),
    )
    def transaction(self, player: int, ops: list[Op], commit: bool) -> None:
        """One tenant makes several calls as one."""

        async def unit(data: DataManager) -> list[Any]:
            async with data.transaction() as inner:
                heard = [await outcome(op.run(inner)) for op in ops]
                if not commit:
                    raise Abandoned(heard)
            return heard

        self._arena.run(self._players[player].play(unit))

    @rule(player=_PLAYER)
    def suspend(self, player: int) -> None:
        """One tenant is suspended, and perhaps asks for something, until it is served again."""

        async def pause() -> None:
            chosen = self._players[player]
            await chosen.move(lambda sdk: sdk.tenants.suspend(chosen.id, reason="pause"))
            await chosen.play(lambda data: data.count("notes"))
            await self._players[player - 1].play(lambda data: data.count("notes"))
            await chosen.move(lambda sdk: sdk.tenants.resume(chosen.id))

        self._arena.run(pause())

    def teardown(self) -> None:
        """See that every tenant has exactly its own rows, then clear up."""
        self._arena.run(self._end())

    async def _end(self) -> None:
        try:
            for player in self._players:
                for name in FIELDS:
                    await player.play(Op("read", (name,), {"order_by": "id", "limit": 10_000}).run)
        finally:
            await self._stack.aclose()
            for player in self._players:
                await forget(self._arena.sdk, player.id)


async def outcome(call: Awaitable[Any]) -> tuple[str, Any]:
    """Return what came of a call, so that it can be compared: a result or an error."""
    try:
        return "returned", comparable(await call)
    except Abandoned as error:
        return "abandoned", error.args
    except TenantryError as error:
        return type(error).__name__, _details(error)


def _details(error: TenantryError) -> Any:
    return error.index, _detail(error)


def _detail(error: TenantryError) -> Any:
    if isinstance(error, Conflict):
        return error.current_version
    if isinstance(error, UniqueViolation):
        return error.collection
    if isinstance(error, InvalidQuery):
        return error.path
    return str(error.id) if isinstance(error, NotFound) else None


def comparable(value: Any) -> Any:
    """Return ``value`` with its types told and without what two databases cannot agree on."""
    if isinstance(value, pydantic.BaseModel):
        return type(value).__name__, comparable(dict(value))
    if isinstance(value, BulkOutcome):
        error = value.error
        return value.index, comparable(value.row), error and (type(error).__name__, _details(error))
    if isinstance(value, Page):
        return [comparable(item) for item in value], comparable(value.included), value.has_more
    if isinstance(value, Hit):
        return comparable(value.row), value.score, comparable(value.highlights)
    if isinstance(value, Mapping):
        told = {
            key: item is None if key == MARK else item for key, item in value.items() if key not in _UNTOLD
        }
        return {str(key): comparable(item) for key, item in told.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [comparable(item) for item in value]
    if isinstance(value, uuid.UUID | Decimal | enum.Enum):
        return str(value)
    return type(value).__name__, value


def run_machine(config: Mapping[str, Any], *, settings: hypothesis.settings | None = None) -> None:
    """Play on the database that ``config`` names.

    Args:
        config: The arguments of ``MultiTenantSDK.open``.
        settings: For how long; by default as the current Hypothesis profile says.

    Raises:
        AssertionError: A tenant got something else than it would alone; shows the shortest way there.
    """
    with Arena(config) as arena:
        machine: Any = partial(TenancyMachine, arena)
        run_state_machine_as_test(machine, settings=settings)
