"""No tenant waits behind another's crowd."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.resilience.fairness import FairGate, FairQueue, FairShares

CROWD = 1_000


async def _order(queue: FairQueue[None], preferred: list[Hashable] | None = None) -> list[int]:
    """Serve everybody; return in which order those who wait were named."""
    order = []
    while (future := queue.next(preferred.pop() if preferred else None)) is not None:
        order.append(future)
        future.set_result(None)
    return [id(future) for future in order]


async def test_a_single_request_does_not_wait_behind_a_crowd() -> None:
    queue: FairQueue[None] = FairQueue()
    crowd = [queue.join("loud") for _ in range(CROWD)]
    for _ in range(10):
        served = queue.next("loud")
        assert served is crowd.pop(0)
        served.set_result(None)
    single = queue.join("quiet")
    turns = 0
    while not single.done():
        following = queue.next("loud")
        assert following is not None
        following.set_result(None)
        turns += 1
    assert turns <= 2


@given(
    crowds=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    before=st.integers(0, 60),
    newcomers=st.lists(st.integers(0, 7), max_size=30),
    preferences=st.lists(st.integers(0, 7), max_size=40),
)
def test_it_waits_for_at_most_one_of_each_other_tenant(
    crowds: list[int], before: int, newcomers: list[int], preferences: list[int]
) -> None:
    """Whoever comes later, and whichever connection comes back."""

    async def scenario() -> None:
        queue: FairQueue[None] = FairQueue()
        for tenant, size in enumerate(crowds):
            for _ in range(size):
                _ = queue.join(tenant)
        wanted = list(preferences)
        for _ in range(min(before, sum(crowds) - 1)):
            served = queue.next(wanted.pop() if wanted else None)
            assert served is not None
            served.set_result(None)
        single = queue.join("quiet")
        seen, others, coming = 0, set(queue.waiting()) - {"quiet"}, list(newcomers)
        while True:
            if coming:
                tenant = coming.pop()
                _ = queue.join(tenant)
                others.add(tenant)
            served = queue.next(wanted.pop() if wanted else None)
            if served is single:
                break
            seen += 1
        assert seen <= len(others)

    asyncio.run(scenario())


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["join", "leave", "cancel", "next"]), st.integers(0, 3)), max_size=80
    )
)
def test_nobody_is_lost_and_nobody_is_served_twice(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        queue: FairQueue[None] = FairQueue()
        waiting: list[tuple[int, asyncio.Future[None]]] = []
        for step, number in steps:
            if step == "join":
                waiting.append((number, queue.join(number)))
            elif step == "leave" and waiting:
                queue.leave(*waiting.pop(number % len(waiting)))
            elif step == "cancel" and waiting:
                waiting[number % len(waiting)][1].cancel()
            elif step == "next":
                served = queue.next(number)
                alive = [(tenant, future) for tenant, future in waiting if not future.done()]
                assert (served is None) == (not alive)
                if served is not None:
                    tenant = next(tenant for tenant, future in alive if future is served)
                    assert served is next(future for other, future in alive if other == tenant), "in order"
                    waiting.remove((tenant, served))
        for entry in waiting:
            queue.leave(*entry)
        assert (len(queue), queue.waiting(), queue.next()) == (0, {}, None)

    asyncio.run(scenario())


async def test_who_had_a_turn_comes_behind_who_joins_later_in_the_round() -> None:
    queue: FairQueue[None] = FairQueue()
    first, other = queue.join("a"), queue.join("b")
    assert queue.next() is first
    again, late = queue.join("a"), queue.join("c")
    assert [queue.next() for _ in range(3)] == [other, late, again]


async def test_a_preference_saves_work_within_a_round() -> None:
    queue: FairQueue[None] = FairQueue()
    names = {id(queue.join(tenant)): tenant for tenant in ("a", "b", "c", "a", "b", "c")}
    order = [names[future] for future in await _order(queue, ["b", "b", "c", "c"])]
    assert order == ["c", "a", "b", "b", "c", "a"]


async def test_a_gate_hands_its_places_on_whatever_happens_to_those_who_wait() -> None:
    gate = FairGate(2)
    inside = most = 0

    async def visit(tenant: int, number: int) -> None:
        nonlocal inside, most
        async with gate.turn(tenant, timeout=None if number % 5 else 0.001):
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0.0005)
            finally:
                inside -= 1

    tasks = [asyncio.create_task(visit(number % 7, number)) for number in range(200)]
    await asyncio.sleep(0.003)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 2
    assert len(gate.queue) == 0
    async with gate.turn("x", 0.01), gate.turn("y", 0.01):
        with pytest.raises(TimeoutError):
            await gate.enter("z", 0.001)


async def test_a_share_bounds_one_tenant_and_no_other_and_is_forgotten() -> None:
    shares = FairShares(2)
    async with shares.turn("a"), shares.turn("a"), shares.turn("b"):
        with pytest.raises(TimeoutError):
            async with shares.turn("a", 0.001):
                pass
        waiting = asyncio.create_task(shares.turn("a").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert len(shares) == 0
