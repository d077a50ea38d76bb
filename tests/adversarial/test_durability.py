"""What was acknowledged is there, all or nothing, whoever dies and however many race."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tenantry.errors import Conflict, IdempotencyConflict, NotFound, UniqueViolation
from tests.adversarial.arena import Arena, outcome_of
from tests.adversarial.models import Customer, Setting
from tests.adversarial.processes import worker


class TestAKilledProcess:
    async def test_loses_no_acknowledged_write(self, arena: Arena) -> None:
        acknowledged: set[str] = set()
        for pause in (0.0, 0.1):
            async with worker("write", arena.options) as writer:
                for _ in range(4):
                    acknowledged.add((await writer.until("stored"))[0][1])
                await asyncio.sleep(pause)
                await writer.kill()
                acknowledged.update(await writer.said("stored"))
            await arena.globex.data.sql("DELETE FROM settings WHERE id LIKE 'none'")
            rows = await arena.judge.fetch("SELECT tenant_id, id FROM settings WHERE id ~ '^(single|triple)'")
            stored = {row["id"] for row in rows}
            assert {row["tenant_id"] for row in rows} == {"globex"}
            assert len(acknowledged) > 3
            assert acknowledged <= stored
            parts = Counter(id.split()[1] for id in stored if id.startswith("triple"))
            assert set(parts.values()) == {3}  # no transaction is there in part
            await arena.judge.execute("DELETE FROM settings WHERE id ~ '^(single|triple)'")
            acknowledged.clear()

    async def test_leaves_no_lock_behind(self, arena: Arena) -> None:
        async with worker("write", arena.options) as writer:
            await writer.until("stored")
            await writer.kill()
        async with asyncio.timeout(5):
            await arena.globex.data.update(Setting, "theme", value=arena.secret)
            await arena.globex.data.delete(Setting, "theme")


class TestRacers:
    async def test_on_one_version_have_one_winner(self, arena: Arena) -> None:
        row = await arena.acme.data.get(Customer, arena.twin)
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(arena.acme.data.update(row, name=f"racer {number}") for number in range(50)),
                return_exceptions=True,
            )
            winners = [outcome for outcome in outcomes if isinstance(outcome, Customer)]
            losers = [outcome for outcome in outcomes if not isinstance(outcome, Customer)]
            assert len(winners) == 1
            assert all(isinstance(loser, Conflict) for loser in losers)
            assert {loser.current_version for loser in losers if isinstance(loser, Conflict)} == {
                row.version + 1
            }
            stored = await arena.acme.data.get(Customer, arena.twin)
            assert stored == winners[0]
            row = stored
        assert row.version == 3

    async def test_to_delete_one_version_have_one_winner(self, arena: Arena) -> None:
        row = await arena.acme.data.get(Setting, "theme")
        jobs = [arena.acme.data.delete(row) for _ in range(10)]
        jobs += [arena.acme.data.update(row, value=f"racer {n}") for n in range(10)]  # type: ignore[misc]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(failure, Conflict | NotFound) for failure in failures)

    async def test_with_one_idempotency_key_do_it_once(self, arena: Arena) -> None:
        made = await asyncio.gather(
            *(arena.acme.data.create(Setting(id="once", value="x"), idempotency_key="k") for _ in range(20))
        )
        assert len({(row.id, row.version, row.created_at) for row in made}) == 1
        assert await arena.acme.data.count(Setting, {"id": "once"}) == 1

    async def test_with_one_idempotency_key_make_one_row_of_many_ids(self, arena: Arena) -> None:
        """Each attempt of a client makes an id of its own; the first that is stored counts."""
        made = await asyncio.gather(
            *(
                arena.acme.data.create(
                    "customers", {"name": "x", "email": "once@example.com"}, idempotency_key="k"
                )
                for _ in range(20)
            )
        )
        assert len({row["id"] for row in made}) == 1
        assert await arena.acme.data.count(Customer, {"email": "once@example.com"}) == 1

    async def test_with_one_idempotency_key_add_once(self, arena: Arena) -> None:
        outcomes = await asyncio.gather(
            *(
                arena.acme.data.update(Customer, arena.twin, {"name": "x"}, version=1, idempotency_key="k")
                for _ in range(20)
            )
        )
        assert {row.version for row in outcomes} == {2}

    async def test_with_one_key_of_two_tenants_do_not_meet(self, arena: Arena) -> None:
        both = [arena.acme, arena.globex] * 5
        made = await asyncio.gather(
            *(
                handle.data.create(Setting(id="once", value=handle.context.tenant_id), idempotency_key="k")
                for handle in both
            )
        )
        assert [row.value for row in made] == ["acme", "globex"] * 5

    async def test_for_one_unique_value_have_one_winner(self, arena: Arena) -> None:
        outcomes = await asyncio.gather(
            *(arena.acme.data.create(Customer(name=f"{n}", email="one@example.com")) for n in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, Customer) for outcome in outcomes) == 1
        losers = [outcome for outcome in outcomes if not isinstance(outcome, Customer)]
        assert all(isinstance(loser, UniqueViolation) and loser.fields == ("email",) for loser in losers)

    async def test_to_upsert_one_row_all_count(self, arena: Arena) -> None:
        await asyncio.gather(
            *(arena.acme.data.upsert(Setting(id="counted", value=f"{n}")) for n in range(20))
        )
        assert (await arena.acme.data.get(Setting, "counted")).version == 20


async def test_an_idempotency_key_is_for_one_request(arena: Arena) -> None:
    data = arena.acme.data
    await data.create(Setting(id="once", value="x"), idempotency_key="k")
    for other in (
        lambda: data.create(Setting(id="once", value="y"), idempotency_key="k"),
        lambda: data.create(Setting(id="twice", value="x"), idempotency_key="k"),
        lambda: data.update(Setting, "once", {"value": "x"}, idempotency_key="k"),
        lambda: data.create("customers", {"name": "x", "email": "x"}, idempotency_key="k"),
    ):
        with pytest.raises(IdempotencyConflict):
            await other()
    assert (await data.get(Setting, "once")).value == "x"
    assert await data.count(Customer) == 2


async def test_a_transaction_with_a_failed_write_keeps_nothing(arena: Arena) -> None:
    before = await arena.fingerprint("acme")
    for failing in (
        lambda unit: unit.create(Setting(id="theme", value="taken")),
        lambda unit: unit.update(Setting, "missing", value="x"),
        lambda unit: unit.update(Setting, "theme", {"value": "x"}, version=9),
        lambda unit: unit.delete(Customer, arena.own),
        lambda unit: unit.create("orders", {"customer_id": arena.victim, "number": 1, "total": 1}),
    ):

        async def block(failing: object = failing) -> None:
            async with arena.acme.data.transaction() as unit:
                await unit.create(Setting(id="first", value="x"))
                assert isinstance(await outcome_of(failing(unit)), Exception)  # type: ignore[operator]
                await outcome_of(unit.create(Setting(id="second", value="x")))

        assert isinstance(await outcome_of(block()), Exception)
        assert await arena.fingerprint("acme") == before
