"""Two tenants on one real database, and a judge who sees everything.

`acme` attacks, `globex` is the victim. Every text in a row of globex holds a secret that occurs nowhere else, so
that whatever acme gets to see, a value, an error, a statistic, can be searched for it.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tenantry import MultiTenantSDK, TenantHandle
from tenantry.databases.postgres.adapter import PostgresAdapter
from tenantry.databases.postgres.pool import TenantPool
from tests.adversarial.models import (
    MODELS,
    TENANT_TABLES,
    WORD_TABLES,
    Customer,
    Line,
    Order,
    Setting,
    Status,
)
from tests.databases.postgres.deployment import deploy


@dataclass(repr=False)
class Arena:
    """What a test attacks.

    Attributes:
        twin: An id that a customer of each tenant has.
        victim: The id of a customer of globex only.
        victim_order: The id of an order of globex only.
        own: The id of a customer of acme only.
        country: The id of a shared row.
        secret: What every text of globex holds.
    """

    sdk: MultiTenantSDK
    judge: asyncpg.Connection[asyncpg.Record]
    admin_url: str
    options: dict[str, Any]
    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    twin: uuid.UUID = field(default_factory=uuid.uuid4)
    victim: uuid.UUID = field(default_factory=uuid.uuid4)
    victim_order: uuid.UUID = field(default_factory=uuid.uuid4)
    own: uuid.UUID = field(default_factory=uuid.uuid4)
    country: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def acme(self) -> TenantHandle:
        return self.sdk.tenant("acme")

    @property
    def globex(self) -> TenantHandle:
        return self.sdk.tenant("globex")

    @property
    def adapter(self) -> PostgresAdapter:
        database = self.sdk._database
        assert isinstance(database, PostgresAdapter)
        return database

    @property
    def app(self) -> TenantPool:
        return self.adapter._app

    @property
    def raw(self) -> TenantPool:
        assert self.adapter._raw is not None
        return self.adapter._raw

    def pool(self, role: str) -> TenantPool:
        return self.app if role == "app" else self.raw

    def user(self, role: str) -> str:
        """Return the name of the database role."""
        url: str = self.options["url"] if role == "app" else self.options["database"][f"{role}_url"]
        return str(urlsplit(url).username)

    def fill(self, text: str, role: str = "raw") -> str:
        """Fill in the ids and names that an attack is written with."""
        return text.format(
            victim=self.victim,
            victim_order=self.victim_order,
            own=self.own,
            owner=self.user("owner"),
            control=self.user("control"),
            other=self.user("app" if role == "raw" else "raw"),
            database=self.admin_url.rpartition("/")[2],
        )

    async def seed(self) -> None:
        """Give both tenants rows that look alike."""
        async with self.sdk.system(reason="seed the arena") as system:
            await system.data.create("countries", {"id": self.country, "code": "NL", "name": "Nederland"})
        for name, text, only in (("acme", "plain", self.own), ("globex", self.secret, self.victim)):
            await self.sdk.tenants.create(name)
            data = self.sdk.tenant(name).data
            for number, id in enumerate((self.twin, only)):
                await data.create(
                    Customer(
                        id=id,
                        name=f"{name} {number} {text}",
                        email=f"{number}@{text}.example",
                        country_id=self.country,
                        notes={"memo": text, "depth": {"list": [number, text]}},
                        tags=[text, str(number)],
                    )
                )
            order = Order(
                id=uuid.uuid4() if name == "acme" else self.victim_order,
                customer_id=only,
                number=1,
                total=Decimal("12.50"),
                status=Status.PAID,
                memo=text,
            )
            await data.create(order)
            await data.create(Line(order_id=order.id, text=text))
            await data.create(Setting(id="theme", value=f"dark {text}"))
            await data.create(Setting(id=f"only {text}", value=text), idempotency_key=f"key {text}")

    async def fingerprint(self, tenant: str) -> dict[str, str]:
        """Return what the judge sees of one tenant, table by table."""
        tables = [*TENANT_TABLES, *WORD_TABLES, "tenantry.idempotency"]
        found = {}
        for table in tables:
            text = (
                f"SELECT count(*) || ':' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') "
                f"FROM {table} t WHERE tenant_id = $1"
            )
            found[table] = str(await self.judge.fetchval(text, tenant))
        return found

    async def others(self) -> int:
        """Return how many rows belong to neither tenant; an attack must not make one."""
        counts = [
            await self.judge.fetchval(
                f"SELECT count(*) FROM {table} WHERE tenant_id NOT IN ('acme', 'globex')"
            )
            for table in (*TENANT_TABLES, *WORD_TABLES)
        ]
        return sum(counts)

    def reveals(self, *things: object, given: str = "") -> bool:
        """Whether anything of globex shows in what acme saw, other than what it had itself `given`."""
        seen = " ".join(_shown(thing) for thing in things)
        private = (self.secret, self.victim, self.victim.hex, self.victim_order, self.victim_order.hex)
        return any(str(item) in seen for item in private if str(item) not in given)

    @asynccontextmanager
    async def unharmed(self) -> AsyncIterator[None]:
        """Check that the block changed nothing of globex, and that globex still reads exactly its own rows."""
        before = await self.fingerprint("globex")
        yield
        assert await self.fingerprint("globex") == before
        assert await self.others() == 0
        await self.check_readers()

    async def check_readers(self) -> None:
        """Check through the SDK that both tenants see what the judge sees of them."""
        for name in ("acme", "globex"):
            data = self.sdk.tenant(name).data
            for table in TENANT_TABLES:
                page = await data.read(table, limit=10_000)
                ids = await self.judge.fetch(f"SELECT id FROM {table} WHERE tenant_id = $1", name)
                assert sorted(str(row["id"]) for row in page) == sorted(str(row["id"]) for row in ids)
                assert name == "globex" or not self.reveals(page)


def _shown(thing: object) -> str:
    if isinstance(thing, BaseException):
        chain = [thing, thing.__cause__, thing.__context__]
        return " ".join(f"{item!r} {vars(item)!r}" for item in chain if item is not None)
    return repr(thing)


async def build_arena(admin_url: str, *, pooler_url: str | None = None) -> dict[str, Any]:
    """Provision an empty database and make the tables; return what `MultiTenantSDK.open` takes.

    Args:
        admin_url: The superuser's address of the database.
        pooler_url: Any address through a pooler, to go through it.
    """
    options = await deploy(admin_url, pooler_url=pooler_url)
    options["database"]["pool_size"] = 2
    async with MultiTenantSDK.open(**options, models=MODELS, schema="create"):
        return options


@asynccontextmanager
async def enter_arena(admin_url: str, built: dict[str, Any], **options: Any) -> AsyncIterator[Arena]:
    """Empty the tables, open the SDK and seed both tenants.

    Args:
        admin_url: The superuser's address of the database.
        built: What `build_arena` returned.
        **options: For `MultiTenantSDK.open`; options of the section `database` are merged.
    """
    merged = {**built, **options, "database": {**built["database"], **options.get("database", {})}}
    judge = await asyncpg.connect(admin_url, statement_cache_size=0)
    try:
        await _sweep(judge)
        async with MultiTenantSDK.open(**merged, models=MODELS) as sdk:
            arena = Arena(sdk, judge, admin_url, merged)
            await arena.seed()
            yield arena
    finally:
        await judge.close()


async def _sweep(judge: Any) -> None:
    """Leave nothing of the test before: no row, and no session that a pooler keeps."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await judge.execute(f"SELECT pg_terminate_backend(pid) {others}")
    while await judge.fetchval(f"SELECT count(*) {others}"):
        await asyncio.sleep(0.002)
    own = ("tenantry.tenants", "tenantry.audit", "tenantry.idempotency", "tenantry.fences")
    await judge.execute(f"TRUNCATE {', '.join([*TENANT_TABLES, *WORD_TABLES, 'countries', *own])} CASCADE")


@asynccontextmanager
async def another_sdk(arena: Arena, **options: Any) -> AsyncIterator[MultiTenantSDK]:
    """Open a second SDK on the arena's database, as another process would."""
    merged: dict[str, Any] = {**arena.options, **options}
    merged["database"] = {**arena.options["database"], **options.get("database", {})}
    async with MultiTenantSDK.open(**merged, models=MODELS) as sdk:
        yield sdk


async def outcome_of(awaitable: Awaitable[Any]) -> Any:
    """Return the result, or the error, of something that is allowed to fail."""
    return (await asyncio.gather(awaitable, return_exceptions=True))[0]
