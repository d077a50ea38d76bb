"""Who is asking."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import TenantContext, current_context, use_context
from tenantry.context import BoundAsyncIterator, BoundIterator, SystemContext
from tenantry.errors import ConfigurationError, InvalidTenantId
from tenantry.types import tenant_id

ACME = TenantContext(tenant_id("acme"))
GLOBEX = TenantContext(tenant_id("globex"))

CLAIMS = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        st.none() | st.booleans() | st.integers(-100, 100) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


class TestContexts:
    def test_the_tenant_is_checked(self) -> None:
        for wrong in ("", "a b", "../x", None, 5):
            with pytest.raises(InvalidTenantId):
                TenantContext(wrong)  # type: ignore[arg-type]

    def test_nothing_of_it_changes(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            ACME.tenant_id = tenant_id("globex")  # type: ignore[misc]

    @given(CLAIMS)
    def test_claims_are_a_copy_that_cannot_be_changed(self, claims: dict[str, Any]) -> None:
        context = TenantContext(tenant_id("acme"), None, claims)
        before = context.claims_digest
        claims["role"] = "admin"
        assert "role" not in context.claims or context.claims["role"] != "admin"
        assert context.claims_digest == before
        with pytest.raises(TypeError):
            context.claims["role"] = "admin"  # type: ignore[index]

    @given(CLAIMS, CLAIMS, st.none() | st.text(max_size=2), st.none() | st.text(max_size=2))
    def test_the_digest_tells_users_and_claims_apart(
        self, left: dict[str, Any], right: dict[str, Any], one: str | None, other: str | None
    ) -> None:
        a, b = TenantContext(tenant_id("t"), one, left), TenantContext(tenant_id("t"), other, right)
        same = one == other and repr(_sorted(left)) == repr(_sorted(right))
        assert (a.claims_digest == b.claims_digest) is same
        if same:
            assert a == b
            assert hash(a) == hash(b)

    def test_the_order_of_claims_does_not_matter(self) -> None:
        one = TenantContext(tenant_id("t"), "u", {"a": 1, "b": {"c": 2, "d": 3}})
        other = TenantContext(tenant_id("t"), "u", {"b": {"d": 3, "c": 2}, "a": 1})
        assert one.claims_digest == other.claims_digest
        assert one == other

    @pytest.mark.parametrize(
        "wrong", [{"x": object()}, [("a", 1)][0], "role", 5, {"x": b"\xff" * 3, 5: object()}]
    )
    def test_claims_are_json(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError) as refused:
            TenantContext(tenant_id("acme"), None, wrong)
        assert refused.value.field == "claims"

    def test_a_request_id_makes_no_other_context(self) -> None:
        assert TenantContext(tenant_id("acme"), request_id="a") == TenantContext(
            tenant_id("acme"), request_id="b"
        )

    def test_system_contexts_are_compared_by_identity(self) -> None:
        one, other = SystemContext("why"), SystemContext("why")
        assert one == one
        assert one != other
        assert len({one, other}) == 2


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list) else value


class TestAmbient:
    def test_it_ends_with_its_block(self) -> None:
        assert current_context() is None
        with use_context(ACME):
            assert current_context() is ACME
            with use_context(GLOBEX):
                assert current_context() is GLOBEX
            assert current_context() is ACME
        assert current_context() is None

    def test_it_ends_with_an_error_too(self) -> None:
        with pytest.raises(KeyError), use_context(ACME):
            raise KeyError
        assert current_context() is None

    async def test_a_task_keeps_what_it_was_started_for(self) -> None:
        seen: list[Any] = []
        go = asyncio.Event()

        async def work() -> None:
            await go.wait()
            seen.append(current_context())

        with use_context(ACME):
            first = asyncio.create_task(work())
        with use_context(GLOBEX):
            second = asyncio.create_task(work())
            go.set()
            await asyncio.gather(first, second)
        assert seen == [ACME, GLOBEX]

    async def test_what_a_task_binds_does_not_reach_its_starter(self) -> None:
        async def bind() -> None:
            with use_context(GLOBEX):
                await asyncio.sleep(0)

        with use_context(ACME):
            task = asyncio.create_task(bind())
            await asyncio.sleep(0)
            assert current_context() is ACME
            await task

    async def test_a_generator_that_is_consumed_late_keeps_its_own(self) -> None:
        async def stream() -> Any:
            with use_context(ACME):
                yield current_context()

        items = stream()
        with use_context(GLOBEX):
            assert await anext(items) is ACME
        await items.aclose()

    def test_a_new_thread_has_none(self) -> None:
        seen: list[Any] = []
        with use_context(ACME):
            thread = threading.Thread(target=lambda: seen.append(current_context()))
            thread.start()
            thread.join()
        assert seen == [None]

    async def test_a_thread_started_for_a_tenant_keeps_it(self) -> None:
        with use_context(ACME):
            assert await asyncio.to_thread(current_context) is ACME
        assert contextvars.copy_context().run(current_context) is None

    def test_none_hides_what_is_bound_outside(self) -> None:
        with use_context(ACME):
            with use_context(None):
                assert current_context() is None
                with use_context(GLOBEX):
                    assert current_context() is GLOBEX
                assert current_context() is None
            assert current_context() is ACME

    def test_blocks_that_end_in_another_order_bring_nothing_back(self) -> None:
        first, second = use_context(ACME), use_context(GLOBEX)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert current_context() is GLOBEX
        second.__exit__(None, None, None)
        assert current_context() is None

    def test_one_context_may_be_bound_twice(self) -> None:
        with use_context(ACME):
            with use_context(ACME):
                pass
            assert current_context() is ACME
        assert current_context() is None

    async def test_a_generator_closed_by_another_task_ends_in_peace(self) -> None:
        async def stream() -> AsyncGenerator[int, None]:
            with use_context(ACME):
                yield 1

        items = stream()

        async def begin() -> None:
            await anext(items)

        await asyncio.create_task(begin())
        with use_context(GLOBEX):
            await items.aclose()
            assert current_context() is GLOBEX
        assert current_context() is None


class TestStreams:
    """What is made for one tenant is consumed while others are served."""

    def test_items_are_made_under_their_own_context(self) -> None:
        seen: list[Any] = []

        def items() -> Iterator[Any]:
            try:
                yield current_context()
                yield current_context()
            finally:
                seen.append(current_context())

        acme, globex = BoundIterator(ACME, items()), BoundIterator(GLOBEX, items())
        with use_context(GLOBEX):
            assert [next(acme), next(globex), next(acme)] == [ACME, GLOBEX, ACME]
            assert current_context() is GLOBEX
            acme.close()
            globex.close()
        assert seen == [ACME, GLOBEX]
        assert current_context() is None

    async def test_asynchronous_items_are_too(self) -> None:
        seen: list[Any] = []

        async def items() -> AsyncIterator[Any]:
            try:
                while True:
                    yield current_context()
                    await asyncio.sleep(0)
            finally:
                seen.append(current_context())

        acme, globex = BoundAsyncIterator(ACME, items()), BoundAsyncIterator(GLOBEX, items())
        for _ in range(3):
            assert [await anext(acme), current_context()] == [ACME, None]
            assert [await anext(globex), current_context()] == [GLOBEX, None]
        await acme.aclose()
        await globex.aclose()
        assert seen == [ACME, GLOBEX]

    async def test_an_error_in_the_middle_leaves_nothing(self) -> None:
        def broken() -> Iterator[int]:
            yield 1
            raise KeyError

        async def broken_later() -> AsyncIterator[int]:
            yield 1
            raise KeyError

        items, later = BoundIterator(ACME, broken()), BoundAsyncIterator(ACME, broken_later())
        assert (next(items), await anext(later)) == (1, 1)
        with pytest.raises(KeyError):
            next(items)
        with pytest.raises(KeyError):
            await anext(later)
        assert current_context() is None
        with pytest.raises(StopIteration):
            next(items)

    async def test_what_cannot_be_closed_needs_no_closing(self) -> None:
        class Counted:
            def __aiter__(self) -> Counted:
                return self

            async def __anext__(self) -> int:
                raise StopAsyncIteration

        assert list(BoundIterator(ACME, [1, 2])) == [1, 2]
        BoundIterator(ACME, [1]).close()
        items = BoundAsyncIterator(ACME, Counted())
        assert [item async for item in items] == []
        await items.aclose()
