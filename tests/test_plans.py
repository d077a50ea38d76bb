"""Plans, flags and settings as they are declared, and requests as they are counted."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tenantry import KeyedModel, MultiTenantSDK
from tenantry.errors import ConfigurationError, InvalidRecord, QuotaExceeded, TenantryError, UnknownFlag
from tenantry.plans import Catalog, Flag, Plan, Quotas, Rate, TenantSettings
from tenantry.plans.quotas import check_growth, size
from tenantry.ports import Executor, Update
from tenantry.tenants import TENANTS, RequestMeter
from tenantry.tenants.directory import SYSTEM

NOON = dt.datetime(2031, 2, 28, 12, 30, 45, tzinfo=dt.UTC)


class Item(KeyedModel):
    __collection__ = "items"

    id: str


class Wrong(TenantSettings):
    name: str


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Quotas(rows=-1),
        lambda: Quotas(rows=True),
        lambda: Quotas(members=1.5),  # type: ignore[arg-type]
        lambda: Quotas(storage="50 gallons"),
        lambda: Quotas(storage=""),
        lambda: Quotas(requests=5),  # type: ignore[arg-type]
        lambda: Quotas(per_collection={"items": -1}),
        lambda: Rate(1, per="year"),  # type: ignore[arg-type]
        lambda: Rate(-1, per="day"),
        lambda: Flag(""),
        lambda: Flag("f", default="a", choices=["b"]),
        lambda: Flag("f", default=True, rollout=5),
        lambda: Flag("f", rollout=101),
        lambda: Flag("f", default=float("nan")),
        lambda: Flag("f", default=object()),
        lambda: Catalog([Plan("")]),
        lambda: Catalog([Plan("a"), Plan("a")]),
        lambda: Catalog([Plan("a", flags={"nobody": True})]),
        lambda: Catalog([Plan("a", flags={"f": "x"})], [Flag("f")]),
        lambda: Catalog([Plan("a", Quotas(per_collection={"nobody": 1}))], collections=["items"]),
        lambda: Catalog(["free"]),  # type: ignore[list-item]
        lambda: Catalog(settings=Wrong),
        lambda: MultiTenantSDK.open("memory://", models=[Item], plans=[Plan("a"), Plan("a")], env={}),
    ],
)
def test_a_wrong_declaration_is_refused_at_once(declare: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        declare()
    assert wrong.value.field


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("50MB", 50_000_000),
        ("1 GiB", 2**30),
        ("1.5k", 1_500),
        ("7", 7),
        (9, 9),
        (None, None),
        ("2tib", 2**41),
    ],
)
def test_a_size_is_bytes(text: Any, wanted: int | None) -> None:
    assert size(text) == wanted


def test_only_what_grows_is_refused() -> None:
    limits = {"rows": 5, "storage": 100}
    check_growth({"rows": 9, "storage": 50}, {"rows": 9, "storage": 100}, limits, tenant_id="a", plan=None)
    check_growth({"rows": 9}, {"rows": 8}, limits, tenant_id="a", plan=None)
    with pytest.raises(QuotaExceeded, match="uses 5 of 5"):
        check_growth({"rows": 5}, {"rows": 6}, limits, tenant_id="a", plan=None)


# -- flags


def values_of(catalog: Catalog, tenant: str, user: str | None = None) -> Any:
    from tenantry.plans.flags import FlagValues

    return FlagValues(catalog.flags, {}, {}, tenant_id=tenant, user_id=user, now=NOON)


def test_a_rollout_reaches_about_as_many_as_it_says_and_never_takes_back() -> None:
    tenants = [f"tenant-{number}" for number in range(2_000)]

    def reached(percent: float, user: str | None = None) -> set[str]:
        catalog = Catalog(flags=[Flag("beta", rollout=percent)])
        return {tenant for tenant in tenants if values_of(catalog, tenant, user)["beta"]}

    assert reached(0) == set()
    assert reached(100) == set(tenants)
    few, many = reached(20), reached(60)
    assert few < many
    assert 300 < len(few) < 500
    assert reached(20, "u1") != reached(20, "u2")
    other = Catalog(flags=[Flag("other", rollout=20)])
    assert {tenant for tenant in tenants if values_of(other, tenant)["other"]} != few


def test_flags_are_a_mapping_that_knows_its_names() -> None:
    values = values_of(Catalog(flags=[Flag("reports"), Flag("limit", default=3)]), "acme")
    assert dict(values) == {"reports": False, "limit": 3}
    with pytest.raises(UnknownFlag) as unknown:
        values["report"]
    assert unknown.value.suggestion == "reports"
    with pytest.raises(InvalidRecord):
        values.enabled("limit")


# -- requests


@pytest.mark.parametrize(
    ("per", "start", "end"),
    [
        ("minute", (2031, 2, 28, 12, 30), (2031, 2, 28, 12, 31)),
        ("hour", (2031, 2, 28, 12), (2031, 2, 28, 13)),
        ("day", (2031, 2, 28), (2031, 3, 1)),
        ("month", (2031, 2, 1), (2031, 3, 1)),
    ],
)
def test_windows_are_those_of_utc(per: Any, start: tuple[int, ...], end: tuple[int, ...]) -> None:
    window = Rate(1, per=per).window(NOON.astimezone(dt.timezone(dt.timedelta(hours=14))))
    assert window == (_moment(*start), _moment(*end))


def _moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    return dt.datetime(year, month, day, hour, minute, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> dt.datetime:
        return self.now


async def meters(limit: int) -> tuple[MultiTenantSDK, Clock, list[RequestMeter]]:
    """Return two meters over one database, as two processes have them."""
    plans = [Plan("free", Quotas(requests=Rate(limit, per="hour")))]
    sdk = MultiTenantSDK.open("memory://", models=[Item], plans=plans, env={})
    await sdk.initialize()
    await sdk.tenants.create("acme", plan="free")
    clock = Clock()
    assert sdk._database is not None
    made = [RequestMeter(sdk._database, sdk.tenants._standings, sdk._catalog, clock=clock) for _ in range(2)]
    return sdk, clock, made


async def passed(meters: list[RequestMeter], times: int) -> int:
    outcomes = await asyncio.gather(
        *(meters[number % len(meters)].count("acme") for number in range(times)), return_exceptions=True
    )
    assert all(item is None or isinstance(item, QuotaExceeded) for item in outcomes), outcomes
    return sum(item is None for item in outcomes)


async def test_processes_share_a_quota_of_requests() -> None:
    sdk, clock, made = await meters(1_000)
    assert await passed(made, 1_500) <= 1_000
    assert await passed(made[:1], 1_500) + await passed(made[1:], 1_500) == 0
    clock.now += dt.timedelta(hours=1)
    total = await passed(made, 1_200)
    total += await passed(made[:1], 1_000) + await passed(made[1:], 1_000)
    assert total == 1_000
    usage = await made[0].usage(await sdk.tenants._standings.of("acme"))
    assert usage is not None
    assert usage.used == 1_000
    await sdk.close()


async def test_a_process_whose_clock_is_behind_admits_nothing_of_a_window_that_is_over() -> None:
    sdk, clock, made = await meters(10)
    assert await passed(made[:1], 1) == 1
    clock.now -= dt.timedelta(hours=1)
    assert await passed(made[1:], 5) == 0
    await sdk.close()


async def test_most_requests_ask_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk, _, made = await meters(100_000)
    calls = 0
    database: Any = sdk._database
    transaction = database.transaction

    def counted(*arguments: Any) -> Executor:
        nonlocal calls
        calls += 1
        return transaction(*arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(database, "transaction", counted)
    assert await passed(made[:1], 2_000) == 2_000
    assert calls == 4
    await sdk.close()


# -- the whole, on databases that need no server


class Preferences(TenantSettings):
    seats: int = 5


SMALL = Plan("small", Quotas(rows=3, storage=2_000, requests=Rate(4, per="month")), flags={"beta": True})
OPTIONS: dict[str, Any] = {
    "models": [Item],
    "plans": [SMALL, Plan("free")],
    "flags": [Flag("beta")],
    "settings": Preferences,
    "schema": "create",
    "env": {},
}


@pytest.fixture(params=["memory", "sqlite"])
async def sdk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MultiTenantSDK]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/plans.db"
    async with MultiTenantSDK.open(url, **OPTIONS) as sdk:
        await sdk.tenants.create("acme", plan="small")
        yield sdk


async def test_no_row_more_than_the_limit(sdk: MultiTenantSDK) -> None:
    acme = sdk.tenant("acme").data
    calls = (acme.create(Item(id=f"{number}")) for number in range(6))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(item).__name__ for item in outcomes) == ["Item"] * 3 + ["QuotaExceeded"] * 3
    assert await acme.count(Item) == 3


async def test_no_byte_more_than_the_limit(sdk: MultiTenantSDK) -> None:
    acme = sdk.tenant("acme").data
    with pytest.raises(QuotaExceeded, match="storage"):
        await acme.create(Item(id="x" * 2_000))
    assert await acme.count(Item) == 0


async def test_a_plan_that_nobody_declared_adds_nothing(sdk: MultiTenantSDK) -> None:
    database: Any = sdk._database
    changes = {"plan": "gone", "updated_at": dt.datetime.now(dt.UTC)}
    await database.execute(SYSTEM, [Update(TENANTS, "acme", changes)])
    with pytest.raises(QuotaExceeded, match="0 of 0"):
        await sdk.tenant("acme").data.create(Item(id="1"))


async def test_each_entry_is_one_request(sdk: MultiTenantSDK) -> None:
    passed = 0
    for _ in range(6):
        with suppress(QuotaExceeded):
            async with sdk.tenant("acme"):
                passed += 1
    assert passed == 4


async def test_an_override_ends(sdk: MultiTenantSDK) -> None:
    flags = sdk.tenant("acme").flags
    for seconds, value in ((60, False), (-1, True)):
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        await sdk.tenants.set_flag("acme", "beta", False, reason="test", until=until)
        assert await flags.enabled("beta") is value


async def test_a_setting_that_is_not_declared_is_refused(sdk: MultiTenantSDK) -> None:
    settings = sdk.tenant("acme").settings
    for wrong in ({"colour": "red"}, {"seats": "many"}):
        with pytest.raises(InvalidRecord):
            await settings.update(wrong)
    assert (await sdk.tenants.get("acme")).settings == {}


async def test_counters_of_a_file_are_reached_by_triggers_alone(tmp_path: Path) -> None:
    async with MultiTenantSDK.open(f"sqlite:///{tmp_path}/plans.db", **OPTIONS) as sdk:
        adapter: Any = sdk._database
        for text in ("SELECT * FROM tenantry_usage", "DELETE FROM tenantry_usage"):
            with pytest.raises(TenantryError, match="refused"):
                await adapter._write(lambda connection, text=text: connection.control(text))


async def test_a_file_that_held_rows_is_counted_when_plans_come(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plans.db"
    async with MultiTenantSDK.open(url, models=[Item], schema="create", env={}) as sdk:
        await sdk.tenants.create("acme", plan="small")
        for number in range(3):
            await sdk.tenant("acme").data.create(Item(id=f"{number}"))
    async with MultiTenantSDK.open(url, **OPTIONS) as sdk:
        assert (await sdk.tenants.usage("acme")).rows.used == 3
        with pytest.raises(QuotaExceeded):
            await sdk.tenant("acme").data.create(Item(id="more"))
        adapter: Any = sdk._database

        def spoil(connection: Any) -> None:
            with connection.trusted():
                connection.raw.execute("UPDATE tenantry_usage SET row_count = 1")

        await adapter._write(spoil)
        assert [(item.collection, item.rows) for item in await sdk.tenants.recount("acme")] == [("items", 2)]
        assert await sdk.tenants.recount("acme") == []
