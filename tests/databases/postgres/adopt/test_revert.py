"""Going back: what tenantry did is undone, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from tenantry.databases.postgres.adopt.adoption import Adoption, state_of
from tenantry.databases.postgres.adopt.runner import Progress
from tenantry.databases.postgres.adopt.session import session
from tenantry.errors import AdoptionError
from tests.databases.postgres.adopt.conftest import FAST, Application
from tests.databases.postgres.adopt.writer import writing


class _Stop(Exception):
    pass


@pytest.mark.parametrize("scope_unique", [False, True])
@pytest.mark.parametrize("state", ["applied", "canary", "enforced", "handed over"])
async def test_the_schema_is_as_it_was(shop_app: Application, state: str, scope_unique: bool) -> None:
    before = shop_app.dump()
    await shop_app.apply(await shop_app.plan(scope_unique=scope_unique))
    if state != "applied":
        await shop_app.enforce(canary=state == "canary", hand_over=state == "handed over")
    assert shop_app.dump() != before
    await shop_app.revert()
    assert shop_app.dump() == before
    assert shop_app.execute("SELECT to_regclass('tenantry.adoption') IS NULL") == "t"
    assert shop_app.execute("SELECT count(*) FROM tenantry.tenants") == "0"
    assert shop_app.execute("SELECT count(*) FROM pg_proc WHERE proname LIKE 'adopt%'") == "0"


@pytest.mark.parametrize("steps", [1, 30, 60, 90])
async def test_a_run_that_stopped_half_way_is_undone(shop_app: Application, steps: int) -> None:
    before, seen = shop_app.dump(), 0

    def stop(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen > steps:
            raise _Stop

    async with session(shop_app.admin_url) as connection:
        with pytest.raises(_Stop):
            await Adoption(connection, pace=FAST, report=stop).apply(
                await shop_app.plan(), shop_app.create_tenants
            )
    await shop_app.revert()
    assert shop_app.dump() == before


async def test_a_revert_that_stopped_half_way_goes_on(shop_app: Application) -> None:
    before, seen = shop_app.dump(), 0
    await shop_app.apply(await shop_app.plan())
    await shop_app.enforce()

    def stop(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen > 20:
            raise _Stop

    async with session(shop_app.admin_url) as connection:
        with pytest.raises(_Stop):
            await Adoption(connection, pace=FAST, report=stop).revert()
    await shop_app.revert()
    assert shop_app.dump() == before


async def test_the_application_works_before_during_and_after(shop_app: Application) -> None:
    """The old application works until it is enforced, and again once that is taken back."""
    plan = await shop_app.plan()
    async with writing(shop_app.web_url) as writers:
        await shop_app.apply(plan)
        await shop_app.enforce(canary=True)
        await asyncio.sleep(0.1)
    assert [writer.errors for writer in writers] == [[], []]
    await shop_app.enforce()
    async with writing(shop_app.web_url, writers=1) as writers:
        await asyncio.sleep(0.2)
    assert writers[0].errors
    async with session(shop_app.admin_url) as connection:
        assert await state_of(connection) == "enforced"
    await shop_app.revert()
    async with writing(shop_app.web_url) as writers:
        await asyncio.sleep(0.2)
    assert [writer.errors for writer in writers] == [[], []]


async def test_the_application_goes_on_while_it_is_taken_back(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    await shop_app.enforce(canary=True)
    async with writing(shop_app.web_url) as writers:
        await asyncio.sleep(0.1)
        await shop_app.revert()
        await asyncio.sleep(0.1)
    assert [writer.errors for writer in writers] == [[], []]


async def test_what_was_dropped_since_does_not_stand_in_the_way(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan())
    await shop_app.enforce()
    shop_app.execute(
        "DROP TABLE project_tags, tags; DROP VIEW open_tasks; ALTER TABLE settings DROP COLUMN tenant_id CASCADE"
    )
    with pytest.raises(AdoptionError, match=r"public\.tags does not exist"):
        await shop_app.enforce()
    await shop_app.revert()
    assert "tenant" not in shop_app.dump()


async def test_tenants_that_were_there_before_stay(shop_app: Application) -> None:
    async with shop_app.sdk() as sdk:
        await sdk.tenants.create("2", name="Globex, by hand")
    await shop_app.apply(await shop_app.plan())
    await shop_app.revert()
    assert shop_app.execute("SELECT id, name FROM tenantry.tenants") == "2|Globex, by hand"


async def test_what_no_longer_fits_is_said(shop_app: Application) -> None:
    await shop_app.apply(await shop_app.plan(scope_unique=True))
    await shop_app.enforce()
    shop_app.execute(
        "UPDATE projects SET code = 'same' WHERE id IN (1, 2)"
    )  # fine in two tenants, not in one
    with pytest.raises(AdoptionError, match="enforce cannot be undone"):
        await shop_app.revert()
    shop_app.execute("UPDATE projects SET code = 'other' WHERE id = 2")
    await shop_app.revert()
