"""What must hold before a purge, so that what it counts is what there is.

A purge runs as the control role, under row-level security like everybody. What a policy hides from it, it would
neither delete nor miss: it would delete 0 of 3 rows, count 0 that are left, and certify it. The same goes for rows of
transactions that are still open, and of those that come later: the tenant is fenced off first, so that none can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

from tenantry.databases.postgres.policies import Roles
from tenantry.databases.postgres.pool import TenantPool
from tenantry.errors import DatabaseUnavailable, UnsafeRole

_PAUSE: Final = 0.05
_HIDDEN: Final = """
WITH policy AS (
  SELECT p.polrelid, p.polpermissive, p.polcmd, pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS condition
  FROM pg_catalog.pg_policy p
  WHERE EXISTS (
    SELECT FROM pg_catalog.unnest(p.polroles) role
    WHERE role = 0 OR pg_catalog.pg_has_role(current_user, role, 'USAGE'))
)
SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c
WHERE c.oid = ANY ($1::text[]::pg_catalog.regclass[]) AND c.relrowsecurity AND (
  NOT EXISTS (SELECT FROM policy WHERE polrelid = c.oid AND polpermissive AND polcmd = '*' AND condition = 'true')
  OR EXISTS (SELECT FROM policy WHERE polrelid = c.oid AND NOT polpermissive AND polcmd IN ('*', 'r', 'd')))
ORDER BY 1
"""
_FENCE: Final = "INSERT INTO tenantry.fences (id) VALUES ($1) ON CONFLICT DO NOTHING"
_NEXT: Final = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text"
# What has written holds a transaction id; what has only begun, and may write yet, a snapshot without the fence.
_ENDED: Final = """
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::text::xid8 AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_stat_get_activity(NULL) a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
  WHERE r.rolname = ANY ($2) AND pg_catalog.age(a.backend_xmin) > pg_catalog.age($1::text::xid8::xid))
"""


async def check_sight(control: TenantPool, tables: Sequence[str]) -> None:
    """Return if the control role is shown every row of ``tables``, given by their quoted names.

    Raises:
        UnsafeRole: A policy hides some.
    """
    async with control.statement(None) as connection:
        hidden = [row[0] for row in await connection.fetch(_HIDDEN, list(tables))]
    if hidden:
        raise UnsafeRole(
            f"The control role is not shown every row of {', '.join(hidden)}, so a purge could leave some.",
            fix="Run tenantry doctor; it names the policies that are missing or in the way.",
        )


async def fence(control: TenantPool, tenant_id: str, roles: Roles, seconds: float) -> None:
    """Let no seal open this tenant any more, and return once no statement from before can write.

    Args:
        control: The control role's pool.
        tenant_id: The tenant.
        roles: The names of the roles.
        seconds: How long to wait.

    Raises:
        DatabaseUnavailable: One is still open after that.
    """
    async with control.statement(None) as connection:
        await connection.execute(_FENCE, tenant_id)
    async with control.statement(None) as connection:
        following = await connection.fetchval(_NEXT)
    until = monotonic() + seconds
    while monotonic() < until:
        async with control.statement(None) as connection:
            if await connection.fetchval(_ENDED, following, [roles.app, roles.raw]):
                return
        await asyncio.sleep(_PAUSE)
    raise DatabaseUnavailable(
        f"A transaction that began before is still open after {seconds:g} s, so its rows cannot be seen.",
        fix="Purge again once it has ended.",
    )
