"""Proves the result: by every row's path, and by what two real tenants see through the app role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from tenantry.databases.postgres.adopt.evidence import Evidence, gather
from tenantry.databases.postgres.adopt.paths import sql_name
from tenantry.databases.postgres.adopt.plan import KEEP, Plan
from tenantry.databases.postgres.adopt.schema import Schema
from tenantry.databases.postgres.policies import TENANT_COLUMN
from tenantry.databases.postgres.pool import TenantPool

_TENANTS: Final = 2
_ATTEMPTS: Final = 5


class Probe(NamedTuple):
    """What one tenant sees of one table.

    Attributes:
        table: Its full name.
        tenant: The tenant; ``None`` for a connection that is bound to nobody.
        seen: How many rows it sees.
        own: How many it has, by the control role.
        foreign: How many of those it sees are another's.
    """

    table: str
    tenant: str | None
    seen: int
    own: int
    foreign: int

    @property
    def holds(self) -> bool:
        """Whether it sees its own rows and no others."""
        return self.seen == self.own and not self.foreign


class Verdict(NamedTuple):
    """What was proved, or not.

    Attributes:
        evidence: What the rows of each table say.
        probes: What tenants see; empty before the tables are isolated.
        problems: What is not as it must be.
    """

    evidence: tuple[Evidence, ...]
    probes: tuple[Probe, ...]
    problems: tuple[str, ...]


async def verify(connection: Any, schema: Schema, plan: Plan, pool: TenantPool | None) -> Verdict:
    """Compare the tenant of every row with its path, and let the two largest tenants look at each table.

    Args:
        connection: An asyncpg connection that sees all rows: before the tables are isolated any that may read them,
            then the control role's.
        schema: What the database holds.
        plan: The plan that was applied.
        pool: Connections of the app role, open; ``None`` before the tables are isolated.
    """
    found = await gather(connection, schema, plan, adopted=True)
    probes = [] if pool is None else await _probe(connection, plan, pool)
    problems = [*_of_rows(plan, found), *(_seen(probe) for probe in probes if not probe.holds)]
    return Verdict(tuple(found), tuple(probes), tuple(problems))


def _of_rows(plan: Plan, found: Sequence[Evidence]) -> Iterator[str]:
    for item in found:
        if item.wrong:
            yield f"{item.table}: {item.wrong} of {item.rows} rows carry another tenant than their path gives"
        if plan.tables[item.table].disagreements != KEEP:
            for one in item.disagreements:
                yield f"{item.table}: {one.rows} rows refer by {one.constraint} to another tenant's row of {one.target}"


def _seen(probe: Probe) -> str:
    who = "a connection that is bound to nobody" if probe.tenant is None else f"tenant {probe.tenant}"
    return (
        f"{probe.table}: {who} sees {probe.seen} rows, {probe.foreign} of them another's, and has {probe.own}"
    )


async def _probe(connection: Any, plan: Plan, pool: TenantPool) -> list[Probe]:
    tables = [table.table for table in plan.ordered()]
    sizes: Counter[str] = Counter()
    for table in tables:
        rows = await connection.fetch(_SIZES.format(table=sql_name(table)))
        sizes.update({row["tenant"]: row["rows"] for row in rows})
    largest = [tenant for tenant, _ in sizes.most_common(_TENANTS)]
    probes = []
    for table in tables:
        probes.append(await _look(pool, table, None))
        probes += [await _compare(connection, pool, table, tenant) for tenant in largest]
    return probes


async def _compare(connection: Any, pool: TenantPool, table: str, tenant: str) -> Probe:
    """Count as the tenant and as control, again if rows came or went in between."""
    probe = await _look(pool, table, tenant)
    for _ in range(_ATTEMPTS):
        own = await connection.fetchval(_OWN.format(table=sql_name(table)), tenant)
        probe = probe._replace(own=own)
        if probe.holds or probe.foreign:
            break
        probe = await _look(pool, table, tenant)
    return probe


async def _look(pool: TenantPool, table: str, tenant: str | None) -> Probe:
    async with pool.transaction(tenant, readonly=True) as bound:
        row = await bound.fetchrow(_SEEN.format(table=sql_name(table)), tenant)
    assert row is not None
    return Probe(table, tenant, row["seen"], 0, row["foreign"])


_SIZES: Final = f"SELECT {TENANT_COLUMN} AS tenant, count(*) AS rows FROM {{table}} GROUP BY 1"
_OWN: Final = f"SELECT count(*) FROM {{table}} WHERE {TENANT_COLUMN} = $1"
_SEEN: Final = (
    f"SELECT count(*) AS seen, count(*) FILTER (WHERE {TENANT_COLUMN} IS DISTINCT FROM $1::text) AS foreign "
    "FROM {table}"
)
